"""Names that a shell is offered: where one is to be typed, and which the workspace has."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from cli import completing
from cli.completing import DATASET, LABEL_RUN, MODEL, RECIPE, REGISTERED, RELEASE, TABLE, named_at, names
from cli.main import app
from core.paths import ROOT, Workspace
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two datasets, a release and two models; so many label runs that DuckLake writes them to a file."""
    space = Workspace(tmp_path_factory.mktemp("names") / "workspace")
    lake = Lake(space)
    for name in ("pick", "place"):
        lake.con.execute("INSERT INTO datasets (dataset) VALUES (?)", [name])
    lake.con.execute("INSERT INTO releases (name, snapshot) VALUES ('r1', 1)")
    lake.con.execute("INSERT INTO label_runs (label_run) SELECT 'run' || k FROM range(40) r(k)")
    lake.con.close()
    for model in ("laptop-r1", "tiny-r1", "$(touch there)"):
        (space.root / "models" / model).mkdir(parents=True)
        (space.root / "models" / model / "card.json").write_text("{}")
    (space.root / "models" / "tiny-r1.steps").mkdir()
    return space


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("export lerobot --dataset", DATASET),
        ("export lerobot --out there --dataset a --dataset", DATASET),
        ("sql --release", RELEASE),
        ("references add d 3 --label-run", LABEL_RUN),
        ("eval --model", MODEL),
        ("eval score --model", None),
        ("train --model", None),
        ("vlm serve --model", None),
        ("adapt --recipe", RECIPE),
        ("train --out", None),
        ("schema", TABLE),
        ("schema episodes --format json", TABLE),
        ("datasets show", REGISTERED),
        ("release diff", RELEASE),
        ("release diff --format json r1", RELEASE),
        ("release diff r1 r2", None),
        ("release diff --runs 12ab", LABEL_RUN),
        ("release delete -y --verbose", RELEASE),
        ("release create", None),
        ("release", None),
        ("model merge a b", MODEL),
        ("like --most 3", DATASET),
        ("like d", None),
        ("takedown --episodes 1-3", DATASET),
        ("status", None),
        ("", None),
    ],
)
def test_where_a_name_is_typed(typed: str, kind: str | None):
    assert named_at(typed.split()) == kind


def of_commands() -> Iterator[tuple[str, TyperCommand]]:
    def below(group: TyperGroup, above: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
        for name in group.commands:
            command = group.commands[name]
            yield " ".join((*above, name)), command  # type: ignore[misc]
            if isinstance(command, TyperGroup):
                yield from below(command, (*above, name))

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return below(group, ())


def test_the_table_of_places_says_what_the_commands_take():
    commands = dict(of_commands())
    flags = {"--help", "-h"}
    for name, kinds in completing.ARGUMENTS.items():
        arguments = [p for p in commands[name].params if isinstance(p, TyperArgument)]
        if kinds[-1] is ...:
            assert [p.nargs for p in arguments] == [-1], name
        else:
            assert len(arguments) == len(kinds), name
        for parameter in commands[name].params:
            if isinstance(parameter, TyperOption) and parameter.is_flag:
                flags |= {*parameter.opts, *parameter.secondary_opts}
    assert flags == completing.FLAGS

    taken = {option for command in commands.values() for p in command.params for option in p.opts}
    assert set(completing.OPTIONS) <= taken
    assert set(commands) >= completing.OTHER_MODELS


def test_names_of_a_workspace(space: Workspace):
    assert names(DATASET, space) == ["pick", "place"]
    assert names(RELEASE, space) == ["r1"]
    assert names(LABEL_RUN, space) == sorted(f"run{k}" for k in range(40))
    assert names(MODEL, space) == ["laptop-r1", "tiny-r1"], "no folder that a shell would run"
    assert {"episodes", "label_runs", "coverage"} <= set(names(TABLE, space))
    assert {"droid", "sim_short", "pick"} <= set(names(REGISTERED, space))
    assert "laptop" in names(RECIPE, space)


def test_no_workspace_has_no_names(tmp_path: Path):
    assert [names(kind, Workspace(tmp_path / "none")) for kind in (DATASET, RELEASE, MODEL, TABLE)] == [[]] * 4
    assert list(tmp_path.iterdir()) == []
    damaged = Workspace(tmp_path)
    damaged.catalog.write_text("no database")
    assert names(DATASET, damaged) == []


def asked(line: str, shell: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a shell's script gets of the installed command."""
    words = line.split(" ")
    by_shell = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)} if shell == "bash" else {}
    said = {"_PROCCORPUS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line} | by_shell | more
    command = [sys.executable, "-X", "importtime", str(ROOT / "proccorpus.py")]
    return subprocess.run(command, env=os.environ | said, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("bash", "pick\nplace\n"),
        ("zsh", '_arguments \'*: :(("pick"\n"place"))\'\n'),
        ("fish", "pick\nplace\n"),
        ("powershell", "pick::: \nplace::: \n"),
    ],
)
def test_a_shell_is_told_names_without_what_commands_import(shell: str, said: str, space: Workspace):
    line = f"proccorpus export lerobot --workspace {space.root} --dataset p"
    done = asked(line, shell, _TYPER_COMPLETE_WORD_TO_COMPLETE="p")
    assert (done.returncode, done.stdout) == (0, said)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "sqlite3" in imported
    assert not imported & {"typer", "duckdb", "pydantic", "cli.main"}


def test_what_begins_otherwise_is_not_offered(space: Workspace):
    line = f"proccorpus export lerobot --workspace={space.root} --dataset=pi"
    assert asked(line, "bash").stdout == "pick\n"
    assert asked(line.replace("=pi", " ="), "bash").stdout == "pick\nplace\n"
    assert asked(line.replace("=pi", "=x"), "zsh").stdout == "_files\n"
    assert asked(line, "fish", _TYPER_COMPLETE_FISH_ACTION="is-args").returncode == 0
    assert asked(line.replace("=pi", "=x"), "fish", _TYPER_COMPLETE_FISH_ACTION="is-args").returncode == 1
