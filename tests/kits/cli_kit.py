"""Running the command line as a user does, and references that are computed without it."""

import contextlib
import contextvars
import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import cli.main
from cli.commands import make_app
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from tests.kits.lake_kit import opened
from warehouse.lake import digest, forget_lakes

PROGRAM = Path(sys.executable).parent / "proccorpus"
DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
STAGES = ("episodes", "frames", "demonstrations", "segments", "progress", "samples", "shards")
# what would make a run of the tests depend on the shell it is started from
LEFT_OUT = ("PROCCORPUS_", "DAGSTER", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "COLUMNS")
# what a build or a training says in a log while it goes on
PROGRESS = re.compile(r"^(.*; )?\d+ of \d+ done, \d+:\d\d\n", re.MULTILINE)


def environment(**added: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)} | added


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Built:
    """A source, the config that names it, the workspace that it was built into, and what the build
    said."""

    source: Path
    config: Path
    workspace: Path
    result: Result


def of_workspace(workspace: Path | None) -> list[object]:
    return ["--workspace", workspace] if workspace else []


def proccorpus(
    *arguments: object, cwd: Path, workspace: Path | None = None, timeout_s: float = 600, **env: str
) -> Result:
    """Run the installed console script to its end: where a process of its own, or its environment,
    matters."""
    words = [*map(str, (*arguments, *of_workspace(workspace)))]
    process = subprocess.run(
        [str(PROGRAM), *words], cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    return Result(process.returncode, process.stdout, without_progress(process.stderr))


class Output(io.TextIOWrapper):
    """A stream in the place of Python's own; `text`: all that was written."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, "utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()


def command(*arguments: object, cwd: Path, workspace: Path | None = None) -> Result:
    """The command line in this process, from a folder: to start one costs more than most
    commands."""
    out = Output()
    err = Output()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_here(*arguments, *of_workspace(workspace))
    forget_lakes()
    return Result(code, out.text, without_progress(err.text))


def called(capture: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """The command line in this process."""
    capture.readouterr()
    code = run_here(*arguments)
    captured = capture.readouterr()
    return Result(code, captured.out, captured.err)


def run_here(*arguments: object) -> int:
    """The exit code of the command line in this process."""
    former_argv = sys.argv
    sys.argv = ["proccorpus", *map(str, arguments)]
    try:
        # What a command sets for its process, such as --format, ends with it
        contextvars.copy_context().run(cli.main.main)
    except SystemExit as e:
        return int(e.code or 0)
    finally:
        sys.argv = former_argv
    return 0


def without_progress(err: str) -> str:
    return PROGRESS.sub("", err)


def ok(result: Result) -> Result:
    """The result of a command that has to succeed without a word on stderr."""
    assert (result.code, result.err) == (DONE, ""), result
    return result


def assert_one_error_line(result: Result) -> str:
    """stderr is one line that begins with `error:`; returns it."""
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: "), result.err
    assert len(lines[0]) > len("error: ")
    return lines[0]


def write_config(folder: Path, source: Path, settings: str = "", *, chunk_size: int = 2) -> Path:
    """A TOML config with a registry folder beside it that has the dataset `tiny`; returns the
    config's path."""
    relative = os.path.relpath(source, folder / "registry")
    entry = f"source: {relative}\nchunk_size: {chunk_size}\n"
    return write_configs(folder, {"tiny": entry}, settings)


def write_configs(folder: Path, entries: Mapping[str, str], settings: str = "") -> Path:
    """The same of several datasets, with what their registry entries say beside the name."""
    registry = folder / "registry"
    registry.mkdir(parents=True, exist_ok=True)
    for name, entry in entries.items():
        (registry / f"{name}.yaml").write_text(f"name: {name}\n{entry}")
    path = folder / "build.toml"
    path.write_text(
        f'datasets = {json.dumps(list(entries))}\nregistry = ["registry"]\n{settings}\n'
    )
    return path


def rows(workspace: Path, sql: str) -> list[tuple]:
    """A query, without the command line."""
    with opened(Workspace(workspace), read_only=True) as lake:
        return lake.rows(sql)


def column(workspace: Path, sql: str) -> list:
    """The values of a query of one column."""
    return [value for (value,) in rows(workspace, sql)]


def stage_times(workspace: Path) -> dict[tuple[str, int], Any]:
    """When the newest run of each (stage, chunk) was finished; chunk -1 is the dataset as a
    whole."""
    return {
        (stage, chunk): finished
        for stage, chunk, finished in rows(
            workspace, "SELECT stage, chunk, max(finished_at) FROM stage_runs GROUP BY 1, 2"
        )
    }


def stages_redone(
    workspace: Path, former_times: dict[tuple[str, int], Any]
) -> set[tuple[str, int]]:
    """(stage, chunk) whose newest run is newer than `former_times` had it; the lines of `episodes`
    left out."""
    current_times = stage_times(workspace)
    return {
        key
        for key, finished in current_times.items()
        if key[0] != "episodes" and former_times.get(key) != finished
    }


def digest_of(workspace: Path) -> dict[str, str]:
    with opened(Workspace(workspace), read_only=True) as lake:
        return digest(lake)


def snapshot_of(workspace: Path) -> int:
    """Grows with each transaction that changed the lake."""
    with opened(Workspace(workspace), read_only=True) as lake:
        return lake.snapshot()


def built_in_process(builds: Sequence[DatasetBuild], workspace: Path) -> dict[str, str]:
    """The digest of an uninterrupted build by one process: what the command line has to come to as
    well."""
    report = run_build(Workspace(workspace), builds, workers=1)
    assert not report.failed
    return digest_of(workspace)


@functools.cache
def _whole_command() -> Any:
    return typer.main.get_command(make_app())


def look_up(arguments: list[str], whole: bool = True) -> None:
    """Raises where a command, an option or a value is none of ours, or (`whole`) is missing."""
    command = _whole_command()
    if len(arguments) == 1 and arguments[0].startswith(
        "--"
    ):  # parsing would do it, such as --install-completion
        assert any(arguments[0] in option.opts for option in command.params)
        return
    try:
        _parsed(command, "proccorpus", arguments)
    except typer.BadParameter as e:
        if whole or not str(e).startswith("Missing"):
            raise


def _parsed(command: Any, name: str, arguments: list[str]) -> None:
    with command.make_context(name, list(arguments)) as context:
        if hasattr(command, "commands"):
            later_words = [*context._protected_args, *context.args]
            if not later_words:  # the name of a group alone
                return
            found_command, inner, later_words = command.resolve_command(context, later_words)
            assert found_command
            assert inner
            _parsed(inner, found_command, later_words)
