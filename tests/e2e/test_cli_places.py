"""Workspaces that may only be read, paths with marks that mean something elsewhere, and names that are too long."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits.cli_kit import DONE, FAILED, command, environment
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import make_dataset

# Gives up root's right to write anywhere, then runs commands one after another, and asks pages of the explorer
READER = """
import ctypes, os, sys
for right in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    ctypes.CDLL(None).prctl(24, right, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""
RUN = """
import contextlib, io, json, sys
from pathlib import Path
from cli.main import main
from core.paths import Workspace
told = []
for arguments in json.loads(sys.argv[1]):
    out = io.StringIO()
    sys.argv[1:] = [*arguments, "--workspace", PLACE]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
    told.append([code, out.getvalue()])
from tests.kits.visitor import visit
with visit(Workspace(Path(PLACE))) as client:
    pages = {page: client.get(page).status_code for page in PAGES}
print(json.dumps([told, pages]))
"""
READING = (
    *(
        ["status"],
        ["show", "quarantine"],
        ["show", "schema"],
        ["show", "digest"],
        ["doctor"],
        ["show", "current_outcomes"],
        ["show", "current_corrections"],
    ),
    ["sql", "SELECT count(*) FROM episodes"],
    *(["show", "releases"], ["show", "current_references"]),
)
WRITING = (["gc"], ["takedown", "tiny", "--reason", "asked for"], ["release", "create", "new"])
PAGES = (
    "/",
    "/episodes",
    "/episode/tiny/0",
    "/sql?q=SELECT+1",
    "/releases",
    "/leaderboard",
    "/review",
    "/compare/tiny",
)


@pytest.fixture
def read_only(made: Made, tmp_path) -> Iterator[Path]:
    """A copy of a corpus that nobody may write."""
    root = made.copy(tmp_path).space.root
    paths = [root, *root.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield root
    for path in paths:
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.slow
def test_a_workspace_that_may_only_be_read(read_only):
    script = f"PLACE, PAGES = {str(read_only)!r}, {PAGES!r}\n{RUN}"
    commands = json.dumps([*READING, *WRITING])
    process = subprocess.run(
        [sys.executable, "-c", READER, script, commands],
        cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    results, pages = json.loads(process.stdout.splitlines()[-1])
    for arguments, (code, message) in zip(READING, results, strict=False):
        assert code == DONE, (arguments, message)
    for arguments, (code, message) in zip(WRITING, results[len(READING) :], strict=True):
        assert code == FAILED, (arguments, message)
        assert len(message.splitlines()) == 1, (arguments, message)
        assert "permission denied" in message
        assert str(read_only) in message
    assert pages == dict.fromkeys(PAGES, 200)


@pytest.mark.fuzz
def test_a_path_with_marks(tmp_path):
    place = tmp_path / "a #1 ?x&y%20z +ü it's"
    source = make_dataset(place / "set #1?&%41")
    result = command(
        "build", "--source", source, "--name", "odd", cwd=tmp_path, workspace=place / "w"
    )
    assert result.code == DONE, result.err
    sql = "SELECT count(*) AS n FROM episodes"
    assert command("sql", sql, "--format", "json", cwd=tmp_path, workspace=place / "w").json == [
        {"n": 5}
    ]
    assert [p.name for p in tmp_path.iterdir()] == [place.name]
    assert {p.name for p in place.iterdir()} == {source.name, "w"}


@pytest.mark.fuzz
def test_names_that_are_too_long(tmp_path, made):
    long = "x" * 300
    for arguments in (("build", "--source", made.source), ("status",)):
        result = command(*arguments, cwd=tmp_path, workspace=tmp_path / long)
        assert result.code != DONE
        assert len(result.err.strip().splitlines()) == 1, result.err
    result = command(
        "build", "--source", made.source, "--name", long, cwd=tmp_path, workspace=tmp_path / "w"
    )
    assert result.code != DONE
    assert len(result.err.strip().splitlines()) == 1, result.err
    shutil.rmtree(tmp_path / "w", ignore_errors=True)
    assert os.listdir(tmp_path) == []
