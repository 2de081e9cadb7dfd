"""Shell completion of names: datasets, releases, label runs and models of the workspace, tables.

It runs at every press of Tab, so it knows the places of names by a table and imports neither the commands nor DuckDB;
everything else is completed by typer. The shells' protocols are those of the scripts that --show-completion prints.
"""

import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import EllipsisType

from core.errors import UserError
from core.paths import DEFAULT_WORKSPACE, ROOT, Workspace

ASKED = "_PROCCORPUS_COMPLETE"  # the variable by which a shell asks
BUSY_S = 0.2  # that a catalog which is written may keep a shell waiting
DATASET, RELEASE, LABEL_RUN, MODEL, TABLE = "dataset", "release", "label_run", "model", "table"
REGISTERED, RECIPE = "registered dataset", "recipe"

# What an option names; typer completes all others
OPTIONS = {
    "--dataset": DATASET,
    "--release": RELEASE,
    "--label-run": LABEL_RUN,
    "--run": LABEL_RUN,
    "--against": LABEL_RUN,
    "--model": MODEL,
    "--from-model": MODEL,
    "--recipe": RECIPE,
}
# Their --model is no model of the workspace
OTHER_MODELS = {"train", "cot", "vlm serve", "eval score"}
# What the arguments of a command name, in order; None: a number or another text, ...: the same again
ARGUMENTS: dict[str, tuple[str | EllipsisType | None, ...]] = {
    "schema": (TABLE, ...),
    "datasets show": (REGISTERED,),
    "demonstrations": (DATASET,),
    "like": (DATASET, None),
    "takedown": (DATASET,),
    "references suggest": (DATASET,),
    "references add": (DATASET, None),
    "references remove": (DATASET, None),
    "references join": (DATASET, None, None),
    "references part": (DATASET, None),
    "release verify": (RELEASE,),
    "release diff": (RELEASE, RELEASE),
    "release delete": (RELEASE,),
    "release publish": (RELEASE,),
    "model check": (MODEL,),
    "model calibrate": (MODEL,),
    "model publish": (MODEL,),
    "model merge": (MODEL, ...),
}
# Options of these commands that no value follows
FLAGS = {
    "--all", "--dry-run", "--help", "--private", "--records", "--runs", "--serve", "--undo", "--verbose", "--yes",
    "-h", "-x", "-y",
}  # fmt: skip
NAMED_BY = {DATASET: ("datasets", "dataset"), RELEASE: ("releases", "name"), LABEL_RUN: ("label_runs", "label_run")}
# What shells take as one plain word: one of them evaluates what it is offered
PLAIN = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)


def complete_names() -> bool:
    """Answer a shell that asks for a name; False where nobody asks, or not for a name."""
    shell = os.environ.get(ASKED, "").removeprefix("complete_")
    if shell not in SHELLS:
        return False
    words, typed = _typed(shell)
    kind = named_at(words)
    if kind is None or typed.startswith("-"):
        return False
    answer(shell, [name for name in names(kind, _workspace(words)) if name.startswith(typed)])
    return True


def _typed(shell: str) -> tuple[list[str], str]:
    """The words before the one that is being typed, without the program's, and what is typed of it."""
    line = os.environ.get("COMP_WORDS" if shell == "bash" else "_TYPER_COMPLETE_ARGS", "")
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark that is still open
        words = line.split()
    typed = ""
    if shell == "bash":
        place = int(os.environ.get("COMP_CWORD") or 0)
        typed, words = (words[place] if place < len(words) else ""), words[:place]
    elif words and line[-1:].strip():
        typed = words.pop()
    # Bash makes three words of --dataset=so, the other shells one
    if typed == "=":
        words, typed = [*words, "="], ""
    option, equals, value = typed.partition("=")
    if equals and option.startswith("--"):
        words, typed = [*words, option], value
    return [word for word in words[1:] if word != "="], typed


def named_at(words: Sequence[str]) -> str | None:
    """What kind of name comes behind these words; None: no name.

    Example: named_at(["release", "diff", "--format", "json", "r1"]) == RELEASE.
    """
    command = next(
        (name for name in (" ".join(words[:2]), *words[:1]) if name in ARGUMENTS or name in OTHER_MODELS), ""
    )
    last = words[-1] if words else ""
    if last.startswith("-") and last not in FLAGS:
        kind = OPTIONS.get(last)
        return None if kind == MODEL and command in OTHER_MODELS else kind
    kinds = ARGUMENTS.get(command, ())
    if kinds[-1:] == (...,):
        place = 0
    else:
        place = len(_arguments(words[len(command.split()) :]))
    kind = kinds[place] if place < len(kinds) else None
    if command == "release diff" and "--runs" in words:
        return LABEL_RUN if kind else None
    return kind if isinstance(kind, str) else None


def _arguments(words: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found, is_value = [], False
    for word in words:
        is_option = word.startswith("-") and not is_value
        if not is_option and not is_value:
            found.append(word)
        is_value = is_option and word not in FLAGS and "=" not in word
    return found


def _workspace(words: Sequence[str]) -> Workspace:
    """The workspace of the command that is being typed."""
    chosen = os.environ.get("PROCCORPUS_WORKSPACE") or DEFAULT_WORKSPACE
    for option, value in pairwise(words):
        if option == "--workspace":
            chosen = value
    for word in words:
        if word.startswith("--workspace="):
            chosen = word.partition("=")[2]
    return Workspace(Path(chosen).expanduser())


def names(kind: str, space: Workspace) -> list[str]:
    """The names of a kind, in order; none where there is no workspace, or its catalog is a server's."""
    if kind == RECIPE:
        found = [path.stem for path in (ROOT / "training" / "recipes").glob("*.yaml")]
    elif kind == MODEL:
        found = [path.parent.name for path in (space.root / "models").glob("*/card.json")]
    elif kind == TABLE:
        found = _asked(space, "table")
    elif kind == REGISTERED:
        found = [path.stem for path in (ROOT / "ingest" / "datasets").glob("*.yaml")] + _asked(space, DATASET)
    else:
        found = _asked(space, kind)
    return sorted({name for name in found if PLAIN.fullmatch(name)})


def _asked(space: Workspace, kind: str) -> list[str]:
    """Names that the catalog holds. A shell is told nothing of what is wrong with it: the commands say that."""
    if not space.catalog.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{space.catalog.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as con:
            return _tables(con) if kind == TABLE else _rows(con, space, *NAMED_BY[kind])
    except (sqlite3.Error, UserError):
        return []


def _tables(con: sqlite3.Connection) -> list[str]:
    return [
        name
        for kind in ("table", "view")
        for (name,) in con.execute(f"SELECT {kind}_name FROM ducklake_{kind} WHERE end_snapshot IS NULL")
    ]


def _rows(con: sqlite3.Connection, space: Workspace, table: str, column: str) -> list[str]:
    """A column of a small table, whose rows DuckLake keeps in the catalog itself; where it has files, by DuckDB."""
    of_table = "(SELECT table_id FROM ducklake_table WHERE table_name = ? AND end_snapshot IS NULL)"
    in_files = f"SELECT count(*) FROM ducklake_data_file WHERE end_snapshot IS NULL AND table_id IN {of_table}"
    if con.execute(in_files, [table]).fetchone()[0]:
        from warehouse.lake import Lake

        return [name for (name,) in Lake(space, read_only=True).rows(f"SELECT {column} FROM {table}")]
    inlined = con.execute(f"SELECT table_name FROM ducklake_inlined_data_tables WHERE table_id IN {of_table}", [table])
    return [
        name
        for (rows,) in inlined.fetchall()
        for (name,) in con.execute(f"SELECT {column} FROM {rows} WHERE end_snapshot IS NULL")
    ]


def answer(shell: str, found: Sequence[str]) -> None:
    """Print the names as a shell's script reads them."""
    is_asked_whether = os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args"
    if shell == "fish" and is_asked_whether:
        sys.exit(not found)
    print(SHELLS[shell](found))


def _as_lines(found: Sequence[str]) -> str:
    return "\n".join(found)


def _for_zsh(found: Sequence[str]) -> str:
    quoted = "\n".join(f'"{name}"' for name in found)
    return f"_arguments '*: :(({quoted}))'" if found else "_files"


def _for_powershell(found: Sequence[str]) -> str:
    return "\n".join(f"{name}::: " for name in found)


SHELLS = {
    "bash": _as_lines,
    "zsh": _for_zsh,
    "fish": _as_lines,
    "powershell": _for_powershell,
    "pwsh": _for_powershell,
}
