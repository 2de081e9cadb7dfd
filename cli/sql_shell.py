"""The interactive SQL shell: history, completion, dot commands. Queries go through `warehouse.sql_process`."""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from cli.options import AS_RECORDS, counted
from core.errors import SqlError, UserError
from core.paths import Workspace
from warehouse.lake.schema import Described, columns, relations
from warehouse.lake.sql import open_for_users, release_state

FORMATS = ("table", "json", "csv")
DOT_COMMANDS = (".tables", ".schema", ".format", ".records", ".help", ".quit")
HELP = """\
A query ends with ; and may take several lines. Ctrl-C stops it, Ctrl-D leaves, Tab completes, the up arrow goes back.
  .tables  \\d          tables and views, and what each is for
  .schema  \\d [NAME]   columns, types, units and meanings
  .format FORMAT       table, json or csv
  .records  \\x         each row as a record, a column a line; again: as tables
  .help  help  \\?
  .quit  quit  exit  \\q"""
# What people of other shells type, by the dot command that it is here
OTHER_WORDS: dict[str, str] = dict.fromkeys(("exit", "quit", ".exit", "\\q"), ".quit")
OTHER_WORDS |= dict.fromkeys(("help", "?", "\\?", "\\h"), ".help")
OTHER_WORDS |= {"\\dt": ".tables", "\\x": ".records", ".mode": ".format"}
Show = Callable[[pa.Table, str], object]
Ask = Callable[[str], pa.Table]
Describe = Callable[[list[str]], list[Described]]


def history_file() -> Path:
    """Where earlier queries are kept, in the user's own state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "proccorpus" / "sql_history"


def complete(text: str) -> bool:
    """Is this ready to run: a command of the shell, nothing, or a statement with its semicolon?"""
    stripped = text.strip()
    return not stripped or as_command(stripped).startswith(".") or stripped.endswith(";")


def as_command(text: str) -> str:
    """A line as a dot command, where it is one, in whichever shell's words; else as it is.

    Examples: as_command("exit;") == ".quit", as_command("\\\\d episodes") == ".schema episodes".
    """
    first, _, arguments = text.strip().rstrip(";").strip().partition(" ")
    if first == "\\d":
        if arguments.strip():
            return f".schema {arguments.strip()}"
        return ".tables"
    if first.lower() in OTHER_WORDS and (not arguments or first[0] in ".\\"):
        return f"{OTHER_WORDS[first.lower()]} {arguments}".strip()
    return text


def _completer() -> WordCompleter:
    """Of relations, columns and words of the language, each with its meaning."""
    with duckdb.connect() as con:
        words = con.execute(
            "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved' "
            "UNION SELECT function_name FROM duckdb_functions() WHERE regexp_matches(function_name, '^[a-z_0-9]+$')"
        ).fetchall()
    meanings = dict.fromkeys([*DOT_COMMANDS, *(word for (word,) in words)], "")
    meanings |= {c.column: c.comment for c in columns()}
    meanings |= {r["name"]: r["comment"] for r in relations()}
    return WordCompleter([*meanings], True, meta_dict=meanings, pattern=re.compile(r"\.?\w+"))


def describe(
    space: Workspace, release: str | None, snapshot: int | None, names: list[str]
) -> list[Described]:
    """The columns of some relations (of all, without names), as they are in a release, at a snapshot, or now."""
    return columns(
        names, open_for_users(space, release_state(space, release)[1] if release else snapshot)
    )


def shell(run_query: Ask, describe: Describe, title: str, show: Show) -> None:
    """Ask and answer until the end of input; what is wrong with a query is said, and the shell goes on.

    `run_query` gives a query's rows, `describe` the columns of some relations (of all, without names).
    """
    history_file().parent.mkdir(parents=True, exist_ok=True)
    # Terminals that cannot say where their cursor is would be warned about, on every start
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history_file())),
        completer=_completer(),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        lexer=PygmentsLexer(SqlLexer),
        prompt_continuation="     ...> ",
        bottom_toolbar=HTML(" {} · <b>.help</b> · read-only").format(title),
    )
    # Enter sends what is complete and begins a new line in what is not
    session.multiline = Condition(lambda: not complete(session.default_buffer.text))
    style = "table"
    while True:
        try:
            text = as_command(session.prompt("corpus=> ").strip())
        # Ctrl-C at the prompt drops the line, as in other shells; Ctrl-D ends it
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            if text == ".quit":
                return
            if text == ".records":
                AS_RECORDS.set(not AS_RECORDS.get())
                print(f"rows as {'records' if AS_RECORDS.get() else 'tables'}", file=sys.stderr)
                continue
            if text == ".help":
                print(HELP)
                continue
            if text.startswith(".format"):
                style = _format(text)
            elif text.startswith("."):
                show(_dot(text, describe), "table")
            elif text.strip(";").strip():
                start_s = time.monotonic()
                rows = run_query(text)
                took_s = time.monotonic() - start_s
                show(rows, style)
                print(f"({counted(rows.num_rows, 'row')}, {took_s:.2f} s)", file=sys.stderr)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        except UserError as e:
            print(f"error: {e}", file=sys.stderr)


def _format(text: str) -> str:
    style = text.removeprefix(".format").strip()
    if style not in FORMATS:
        raise SqlError(f".format takes one of {', '.join(FORMATS)}")
    return style


def _dot(text: str, describe: Describe) -> pa.Table:
    """The answer to a dot command, as a table. Raises SqlError for one that there is not."""
    name, _, arguments = text.partition(" ")
    if name == ".tables":
        return pa.Table.from_pylist(relations())
    if name == ".schema":
        return pa.Table.from_pylist([vars(d) for d in describe(arguments.split())])
    raise SqlError(f"unknown command {name}; .help lists them")
