"""proccorpus model, as a user has it: list, merge, check, publish, convert, and what each says of wrong use."""

import json
from pathlib import Path

import pytest

from core.paths import Workspace
from tests.kits.cli_kit import Result, command
from tests.kits.published_kit import write_adapter
from warehouse.lake import Lake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters and their base."""
    root = tmp_path_factory.mktemp("cli") / "w"
    Lake(Workspace(root)).con.close()
    write_adapter(root / "models", ("run", "other"), head={"pooling": "published"})
    return root


def ask(workspace: Path, *arguments: str | Path) -> Result:
    model_workspace = None if arguments[0] == "convert" else workspace
    return command("model", *arguments, cwd=workspace, workspace=model_workspace)


def test_listed_merged_and_checked(workspace: Path) -> None:
    result = ask(workspace, "merge", "--all", "--format", "json")
    assert result.code == 0, result.err
    assert [Path(r["model"]).name for r in json.loads(result.out)] == ["other.merged", "run.merged"]
    kinds = {
        r["model"]: r["is"] for r in json.loads(ask(workspace, "list", "--format", "json").out)
    }
    assert kinds == {
        "base": "whole",
        "other": "adapter of base",
        "other.merged": "other merged",
        "run": "adapter of base",
        "run.merged": "run merged",
    }
    checkpoint_rows = Lake(Workspace(workspace), read_only=True).rows(
        "SELECT training_run, path FROM checkpoints ORDER BY 1"
    )
    assert checkpoint_rows == [
        ("other.merged", "models/other.merged"),
        ("run.merged", "models/run.merged"),
    ]
    assert (
        0
        < json.loads(ask(workspace, "check", "run.merged", "--format", "json").out)["progress"]
        < 1
    )
