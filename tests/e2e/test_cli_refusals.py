"""Wrong use: exit code 2, one line that says what is wrong, and a lake that was not touched."""

import shlex
from pathlib import Path

import pytest
import yaml

from core.paths import ROOT
from tests.kits.cli_kit import (
    USAGE,
    assert_one_error_line,
    called,
    command,
    snapshot_of,
    write_config,
)
from tests.kits.tiny_lerobot import rows_path

# By case: command line, what the error has to name, and how a file of a good configuration is changed
CASES: dict[str, list[str]] = yaml.safe_load((ROOT / "tests/data/refusals.yaml").read_text())


@pytest.fixture
def given(source: Path, tmp_path) -> Path:
    """A good configuration; an empty folder, one with notes, and half a file of rows."""
    folder = tmp_path / "made"
    write_config(folder, source)
    for name in ("empty", "notes"):
        (folder / name).mkdir()
    (folder / "notes" / "readme.txt").write_text("no robot data here\n")
    (folder / "rows.parquet").write_bytes(rows_path(source, 0).read_bytes()[:200])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_wrong_use_leaves_no_workspace(case, source, given, away, monkeypatch, capfd):
    words, named_text, *changed = CASES[case]
    if changed:
        file = given / changed[0]
        text = changed[1]
        file.write_text(text[1:] if text.startswith("=") else file.read_text() + text)
    workspace = given.with_name("workspace")
    monkeypatch.chdir(away)
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(workspace))
    result = called(capfd, *(word.format(made=given, source=source) for word in shlex.split(words)))
    line = assert_one_error_line(result)
    assert (result.code, result.out) == (USAGE, "")
    assert named_text in line
    assert not workspace.exists()
    assert list(away.iterdir()) == []


@pytest.mark.parametrize("options", [("--snapshot", 10**6), ("--release", "nobody")])
def test_sql_at_a_time_that_is_not_there(options, built, away):
    result = command("sql", "SELECT 1", *options, cwd=away, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert_one_error_line(result)


def test_a_refused_build_changes_nothing_in_a_workspace_that_is_there(built, away, given):
    snapshot = snapshot_of(built.workspace)
    result = command(
        "build", "--source", given / "empty", "--name", "mine", cwd=away, workspace=built.workspace
    )
    assert result.code == USAGE
    assert_one_error_line(result)
    assert snapshot_of(built.workspace) == snapshot


def test_verbose_adds_the_traceback(away):
    result = command("build", "--source", "nowhere", "--name", "mine", "--verbose", cwd=away)
    lines = result.err.splitlines()
    assert result.code == USAGE
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("error: ")
