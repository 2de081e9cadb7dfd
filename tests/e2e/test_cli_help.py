"""`--help` of every command, and what asking for it costs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from proccorpus import app
from tests.kits.cli_kit import PROGRAM, environment, ok, proccorpus

FIXED = {"build", "inspect", "datasets", "status", "quarantine", "digest", "sql", "demo"}


def commands(group: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*above, name)
        yield from commands(command, (*above, name))


ALL = sorted(commands(typer.main.get_command(app)))


def test_the_fixed_commands_are_there(away: Path) -> None:
    out = ok(proccorpus("--help", cwd=away)).out
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.split()}
    assert listed >= FIXED
    assert ("datasets", "show") in ALL


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_of_a_command(command: tuple[str, ...], away: Path) -> None:
    out = ok(proccorpus(*command, "--help", cwd=away)).out
    assert out.startswith("Usage: proccorpus " + " ".join(command))
    assert list(away.iterdir()) == []


def test_no_arguments_show_the_help(away: Path) -> None:
    result = proccorpus(cwd=away)
    assert result.code == 2
    assert "Usage: proccorpus" in result.out + result.err


def test_help_imports_nothing_heavy(away: Path) -> None:
    command = [sys.executable, "-X", "importtime", PROGRAM, "--help"]
    done = subprocess.run(command, cwd=away, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "typer" in imported, "the report of imports was read"
    heavy = {"dagster", "torch", "numpy", "pyarrow", "duckdb", "cv2", "av", "pydantic", "webdataset", "matplotlib"}
    assert not imported & heavy
