"""Names that a shell is offered."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from cli.commands import KINDS, names
from core.paths import Workspace
from tests.kits.cli_kit import DONE, PROGRAM, called, environment
from tests.kits.patience import PATIENCE_S
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """Two datasets, a release, label runs, and models, one with a hostile name."""
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


def test_no_workspace_has_no_names(tmp_path):
    for kind in KINDS.values():
        is_built_in = kind not in ("dataset", "release", "label run", "model")
        assert bool(names(kind, Workspace(tmp_path / "none"))) == is_built_in, kind
    assert list(tmp_path.iterdir()) == []
    damaged = Workspace(tmp_path)
    damaged.catalog.write_text("no database")
    assert names("dataset", damaged) == []


@pytest.fixture
def offered(space: Workspace, capsys, monkeypatch) -> Callable[[str], set[str]]:
    """What a shell's script gets of the command; {space} is the workspace."""

    def complete(typed: str) -> set[str]:
        line = f"proccorpus {typed}".format(space=f"--workspace {space.root}")
        # The variable is called by the program, which is no package that is run
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
        monkeypatch.setenv("_PROCCORPUS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        result = called(capsys)
        assert (result.code, result.err) == (DONE, ""), result
        return set(result.out.split())

    return complete


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("export lerobot {space} --dataset p", {"pick", "place"}),
        ("export lerobot {space} --dataset x", set()),
        ("sql {space} --release ", {"r1"}),
        ("eval {space} --model l", {"laptop-r1"}),
        ("show {space} label_ru", {"label_runs"}),
        ("datasets show {space} sim_s", {"sim_short"}),
        ("train {space} --recipe laptop_o", {"laptop_oneshot"}),
        ("vlm serve --model l", set()),
    ],
)
def test_a_shell_is_offered_names_where_one_is_typed(typed, expected, offered):
    assert offered(typed) == expected


def test_the_program_itself_completes(space):
    variables = {"_PROCCORPUS_COMPLETE": "complete_zsh"}
    variables |= {"_TYPER_COMPLETE_ARGS": f"proccorpus sql --workspace {space.root} --release "}
    process = subprocess.run(
        [PROGRAM], env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert process.stderr == ""
    assert "r1" in process.stdout
