"""`--help` of every command, and what asking for it costs."""

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer

from cli.examples import EXAMPLES
from cli.main import COMMANDS, MODULES, main, make_app
from core.paths import ROOT
from tests.kits.cli_kit import DONE, PROGRAM, Built, environment, look_up, ok, proccorpus

FIXED = {"build", "inspect", "datasets", "status", "quarantine", "digest", "sql", "demo"}


def commands(group: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*above, name)
        yield from commands(command, (*above, name))


ALL = sorted(commands(typer.main.get_command(make_app())))


def test_the_fixed_commands_are_there(away: Path) -> None:
    out = ok(proccorpus("--help", cwd=away)).out
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("│ ")}
    assert listed >= FIXED
    assert ("datasets", "show") in ALL


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_of_a_command(
    command: tuple[str, ...], away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: what a process of its own costs is seen below."""
    monkeypatch.chdir(away)
    monkeypatch.setattr(sys, "argv", ["proccorpus", *command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (DONE, "")
    usage = said.out.splitlines()[1].strip()  # which begins with the program's name: here pytest's and ours
    assert usage.startswith("Usage: ")
    assert f"proccorpus {' '.join(command)}" in usage
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
    heavy = {"dagster", "torch", "numpy", "pyarrow", "duckdb", "cv2", "av", "webdataset", "matplotlib"}
    assert not imported & heavy


@pytest.mark.parametrize(
    ("command", "needs", "not_needed"),
    [
        ("status", {"duckdb", "pyarrow"}, {"av"}),
        ("sql", {"pyarrow"}, {"cv2", "av"}),
        ("quarantine", {"duckdb", "pyarrow"}, {"cv2", "av"}),
        ("inspect", {"pyarrow", "av"}, set()),
    ],
)
def test_a_look_imports_what_it_needs(
    command: str, needs: set[str], not_needed: set[str], built: Built, away: Path
) -> None:
    """DuckDB and pyarrow would try pandas as soon as they are given a value."""
    arguments = {"sql": ["SELECT dataset, 1.5 FROM episodes"], "inspect": [str(built.source)]}.get(command, [])
    of_lake = [] if command == "inspect" else ["--workspace", str(built.workspace)]
    words = [sys.executable, "-X", "importtime", PROGRAM, command, *arguments, *of_lake]
    done = subprocess.run(words, cwd=away, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    assert "tiny" in done.stdout or command == "quarantine"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert needs <= imported
    heavy = {"pandas", "dagster", "torch", "matplotlib", "transformers", "scipy", "starlette"}
    # What is refused is listed; what is imported of a package lists its modules, too
    assert not {name for name in imported if any(name.startswith(f"{h}.") for h in heavy | not_needed)}


def test_what_is_left_out_can_be_brought_back() -> None:
    code = """
import duckdb, pyarrow
from core.imports import bring_pandas_back, leave_out_pandas
leave_out_pandas()
try:
    import pandas
    raise AssertionError("pandas was imported")
except ModuleNotFoundError as e:
    print(e)
assert duckdb.connect().execute("SELECT ?", ["x"]).fetchall() == [("x",)]
assert pyarrow.array([1, None]).null_count == 1
bring_pandas_back()
import pandas
print(pandas.DataFrame({"a": [1]})["a"].sum(), duckdb.connect().execute("SELECT ?", [pandas.NaT]).fetchall())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["pandas is left out of this process: core.imports", "1 [(None,)]"]


def test_the_table_of_commands_says_what_their_modules_say() -> None:
    assert len(MODULES) == len(COMMANDS), "a command is under one heading"
    said = getattr(typer.main.get_command(make_app()), "commands")  # noqa: B009
    assert {name: command.get_short_help_str(1000) for name, command in said.items()} == {
        name: text for _, name, _, text in COMMANDS
    }
    apps = [import_module(module).app for module in set(MODULES.values())]
    assert sum(len(app.registered_commands) + len(app.registered_groups) for app in apps) == len(COMMANDS)


def test_help_has_five_groups_and_says_every_first_sentence_whole(away: Path) -> None:
    out = ok(proccorpus("-h", cwd=away)).out
    panels = [line.split()[1] for line in out.splitlines() if line.startswith("╭─ ")]
    headings = list(dict.fromkeys(heading for heading, *_ in COMMANDS))
    assert [panel for panel in panels if panel in headings] == headings
    assert len(headings) == 5
    said = " ".join(out.replace("│", " ").split()).replace("- ", "-")
    for _, name, _, text in COMMANDS:
        assert f"{name} {text}" in said


@pytest.mark.parametrize("words", EXAMPLES)
def test_examples_are_command_lines_that_we_have(words: str) -> None:
    for line in EXAMPLES[words]:
        program, *arguments = shlex.split(line)
        assert program == "proccorpus"
        assert line.startswith(f"proccorpus {words}".rstrip())
        look_up(arguments)


@pytest.mark.parametrize("words", ["build", "release create"])
def test_help_of_a_command_ends_with_its_examples(words: str, away: Path) -> None:
    out = ok(proccorpus(*words.split(), "-h", cwd=away)).out
    expected = ["Examples:", *EXAMPLES[words]]
    assert [line.strip() for line in out.splitlines() if line.strip()][-len(expected) :] == expected


def test_the_version_is_the_projects(away: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ok(proccorpus("--version", cwd=away)).out == f"proccorpus {project['version']}\n"


@pytest.mark.parametrize(
    ("typed", "offered"), [("sta", {"status"}), ("build --so", {"--source"}), ("sql --format j", {"json"})]
)
def test_a_shell_completes_commands_options_and_values(typed: str, offered: set[str], away: Path) -> None:
    result = proccorpus(
        cwd=away, _PROCCORPUS_COMPLETE="complete_bash", COMP_WORDS=f"proccorpus {typed}",
        COMP_CWORD=str(len(typed.split())),
    )  # fmt: skip
    assert set(ok(result).out.split()) == offered


def test_what_a_shell_sources_to_complete_can_be_shown(away: Path) -> None:
    # The shell is told by the process that asks; what follows keeps bash there
    asked = ["bash", "-c", f"{PROGRAM} --show-completion; echo asked"]
    done = subprocess.run(asked, cwd=away, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert "_PROCCORPUS_COMPLETE=complete_bash" in done.stdout


def test_a_name_that_is_no_command_is_told_with_the_nearest_one(away: Path) -> None:
    result = proccorpus("statsu", cwd=away)
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: No such command 'statsu'. Did you mean 'status'? proccorpus --help says more\n"


def test_an_option_that_is_none_is_told_with_the_nearest_one(away: Path) -> None:
    result = proccorpus("build", "--sorce", "x", cwd=away)
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: No such option: --sorce. Did you mean --source? proccorpus build --help says more\n"


def test_every_command_has_verbose_as_its_last_option(away: Path) -> None:
    for command in (("status",), ("shards", "verify"), ("eval",), ("export", "lerobot")):
        options = ok(proccorpus(*command, "--help", cwd=away)).out
        assert options.count("--verbose") == 1
        assert options.index("--verbose") < options.index("--help  ")
    assert "--verbose" not in ok(proccorpus("release", "--help", cwd=away)).out
