"""Names that a shell is offered."""

import os
import subprocess

import pytest

from cli.completion import KINDS, names
from core.paths import Workspace
from tests.kits.cli_kit import PROGRAM
from tests.kits.patience import PATIENCE_S
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """Two datasets, a release, label runs and two models, one with a name that no shell may see."""
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
    assert all(
        not names(kind, Workspace(tmp_path / "none"))
        for kind in ("dataset", "release", "label run", "model")
    )
    assert list(tmp_path.iterdir()) == []
    damaged = Workspace(tmp_path)
    damaged.catalog.write_text("no database")
    assert names("dataset", damaged) == []


def offered(typed: str, space: Workspace, shell: str = "bash") -> set[str]:
    """What a shell's script gets of the command, for words with {space} for the workspace."""
    line = f"proccorpus {typed}".format(space=f"--workspace {space.root}")
    variables = {"_PROCCORPUS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    variables |= (
        {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)} if shell == "bash" else {}
    )
    process = subprocess.run(
        [PROGRAM],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert process.stderr == ""
    return set(process.stdout.split())


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
def test_a_shell_is_offered_names_where_one_is_typed(typed, expected, space):
    assert offered(typed, space) == expected


def test_every_kind_of_name_is_known(tmp_path):
    assert {kind: names(kind, Workspace(tmp_path)) for kind in set(KINDS.values())}.keys() == set(
        KINDS.values()
    )
