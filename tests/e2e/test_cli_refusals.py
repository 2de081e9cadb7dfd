"""Wrong use: exit code 2, one line that says what is wrong, and a lake that was not touched."""

import shlex
from pathlib import Path

import pytest

from tests.kits.cli_kit import (
    USAGE,
    Built,
    assert_one_error_line,
    called,
    command,
    snapshot_of,
    write_config,
)
from tests.kits.tiny_lerobot import rows_path

BUILD = "build --source {source} --name mine"
NAMED = "--name mine"
CONFIG = "build --config {made}/build.toml"
ENTRY = "build --config {made}/registry/tiny.yaml"
# case: command line, what the error has to name, and what is added to a file of a good configuration ("=": instead)
CASES: dict[str, tuple[str, ...]] = {
    # what is built
    "missing path": (f"build --source {{made}}/nowhere {NAMED}", "nowhere"),
    "missing path with a format": (
        f"build --source {{made}}/nowhere --as lerobot {NAMED}",
        "nowhere",
    ),
    "empty folder": (f"build --source {{made}}/empty {NAMED}", "empty"),
    "empty folder with a format": (f"build --source {{made}}/empty --as lerobot {NAMED}", "empty"),
    "folder in no known format": (f"build --source {{made}}/notes {NAMED}", "notes"),
    "truncated Parquet file": (f"build --source {{made}}/rows.parquet {NAMED}", "rows.parquet"),
    # how it is built
    "unknown format": (f"{BUILD} --as rosbag", "rosbag"),
    "another format than it has": (f"{BUILD} --as rlds", "its files look like lerobot"),
    "a part of a dataset": (f"build --source {{source}}/data {NAMED}", "give that folder"),
    "unknown annotator": (f"{BUILD} --annotator oracle", "oracle"),
    "bad name": ("build --source {source} --name 'Not A Name'", "name"),
    "empty name": ("build --source {source} --name ''", "--name"),
    "word for episodes": (f"{BUILD} --episodes first", "first"),
    "range that ends before it begins": (f"{BUILD} --episodes 0,9-5", "9-5"),
    "nothing for episodes": (f"{BUILD} --episodes ''", "--episodes"),
    "no worker": (f"{BUILD} --workers 0", "--workers"),
    "word for workers": (f"{BUILD} --workers two", "--workers"),
    # configurations
    "missing config": ("build --config nowhere.toml", "nowhere.toml"),
    "config is a folder": ("build --config {made}", ""),
    "neither config nor source": ("build", "--config"),
    "config and source": (f"{BUILD} --config x.toml", "--source"),
    "TOML that does not parse": (CONFIG, "build.toml", "build.toml", "[samples\n"),
    "TOML with a typo": (
        CONFIG,
        "progres_per",
        "build.toml",
        "[samples]\nprogres_per_episode = 3\n",
    ),
    "TOML with a wrong value": (CONFIG, "step_min_s", "build.toml", "[motion]\nstep_min_s = -1\n"),
    "unknown dataset": (CONFIG, "nobody", "build.toml", '=datasets = ["nobody"]\n'),
    "no dataset": (CONFIG, "datasets", "build.toml", "=datasets = []\n"),
    "missing registry folder": (
        CONFIG,
        "none",
        "build.toml",
        '=datasets = ["tiny"]\nregistry = ["none"]\n',
    ),
    "registry YAML with a typo": (CONFIG, "chunksize", "registry/tiny.yaml", "chunksize: 3\n"),
    "registry YAML that does not parse": (
        CONFIG,
        "tiny.yaml",
        "registry/tiny.yaml",
        "cameras: {\n",
    ),
    "registry YAML with a missing source": (
        ENTRY,
        "nowhere",
        "registry/tiny.yaml",
        "=name: mine\nsource: nowhere\n",
    ),
    "registry YAML without a source": (ENTRY, "source", "registry/tiny.yaml", "=name: mine\n"),
    "registry YAML that is a list": (ENTRY, "tiny.yaml", "registry/tiny.yaml", "=- name: mine\n"),
    # the command line itself
    "unknown flag": (f"{BUILD} --speed high", "--speed"),
    "unknown command": ("biuld", "biuld"),
    "remote workspace": (f"{BUILD} --workspace s3://bucket/corpus", "s3://"),
    "inspect a missing path": ("inspect nowhere", "nowhere"),
    "inspect a part of a dataset": ("inspect {source}/videos", "give that folder"),
    "inspect as another format": ("inspect {source} --as hdf5", "look like lerobot"),
    "inspect with the data's format to print in": (
        "inspect {source} --format lerobot",
        "--format says how to print, --as lerobot what the data are",
    ),
    "inspect an empty folder": ("inspect {made}/empty", "empty"),
    "unknown dataset to show": ("datasets show nobody", "nobody"),
    "unknown output format": ("status --format xml", "xml"),
    "sql without a workspace": ("sql", "build one first"),
}


@pytest.fixture
def given(source: Path, tmp_path: Path) -> Path:
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
def test_wrong_use_leaves_no_workspace(
    case: str,
    source: Path,
    given: Path,
    away: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
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
def test_sql_at_a_time_that_is_not_there(
    options: tuple[object, ...], built: Built, away: Path
) -> None:
    result = command("sql", "SELECT 1", *options, cwd=away, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert_one_error_line(result)


def test_a_refused_build_changes_nothing_in_a_workspace_that_is_there(
    built: Built, away: Path, given: Path
) -> None:
    snapshot = snapshot_of(built.workspace)
    result = command(
        "build", "--source", given / "empty", "--name", "mine", cwd=away, workspace=built.workspace
    )
    assert result.code == USAGE
    assert_one_error_line(result)
    assert snapshot_of(built.workspace) == snapshot


def test_verbose_adds_the_traceback(away: Path) -> None:
    result = command("build", "--source", "nowhere", "--name", "mine", "--verbose", cwd=away)
    lines = result.err.splitlines()
    assert result.code == USAGE
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("error: ")
