"""Wrong use: exit code 2, one line that says what is wrong, and a lake that was not touched."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kits.cli_kit import USAGE, Built, assert_one_error_line, called, proccorpus, snapshot_of, write_config
from tests.kits.tiny_lerobot import rows_path

Arguments = Callable[[Path, Path], list[object]]  # (a folder to make things in, a good source) -> command line


def of_source(*options: object, name: object = "mine") -> Arguments:
    return lambda folder, source: ["build", "--source", source, "--name", name, *options]


def of_path(make: Callable[[Path, Path], Path], *options: object) -> Arguments:
    return lambda folder, source: ["build", "--source", make(folder, source), "--name", "mine", *options]


def of_config(change: Callable[[Path], object]) -> Arguments:
    """A good config and registry, then changed by a function of the folder that holds them."""

    def arguments(folder: Path, source: Path) -> list[object]:
        config = write_config(folder, source)
        change(folder)
        return ["build", "--config", config]

    return arguments


def of_yaml(text: str) -> Arguments:
    def arguments(folder: Path, source: Path) -> list[object]:
        path = folder / "mine.yaml"
        path.write_text(text.format(source=source))
        return ["build", "--config", path]

    return arguments


def literally(*arguments: object) -> Arguments:
    return lambda folder, source: list(arguments)


def empty_folder(folder: Path, source: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def notes_only(folder: Path, source: Path) -> Path:
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no robot data here\n")
    return folder / "notes"


def half_a_parquet(folder: Path, source: Path) -> Path:
    path = folder / "rows.parquet"
    path.write_bytes(rows_path(source, 0).read_bytes()[:200])
    return path


def append(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + text)


# case: (command line, what the error has to name)
CASES: dict[str, tuple[Arguments, str]] = {
    # what is built
    "missing path": (of_path(lambda folder, source: folder / "nowhere"), "nowhere"),
    "missing path with a format": (of_path(lambda f, s: f / "nowhere", "--as", "lerobot"), "nowhere"),
    "empty folder": (of_path(empty_folder), "empty"),
    "empty folder with a format": (of_path(empty_folder, "--as", "lerobot"), "empty"),
    "folder in no known format": (of_path(notes_only), "notes"),
    "truncated Parquet file": (of_path(half_a_parquet), "rows.parquet"),
    # how it is built
    "unknown format": (of_source("--as", "rosbag"), "rosbag"),
    "another format than it has": (of_source("--as", "rlds"), "its files look like lerobot"),
    "a part of a dataset": (of_path(lambda folder, source: source / "data"), "give that folder"),
    "unknown annotator": (of_source("--annotator", "oracle"), "oracle"),
    "bad name": (of_source(name="Not A Name"), "name"),
    "empty name": (of_source(name=""), "--name"),
    "word for episodes": (of_source("--episodes", "first"), "first"),
    "range that ends before it begins": (of_source("--episodes", "0,9-5"), "9-5"),
    "nothing for episodes": (of_source("--episodes", ""), "--episodes"),
    "no worker": (of_source("--workers", 0), "--workers"),
    "word for workers": (of_source("--workers", "two"), "--workers"),
    # configurations
    "missing config": (literally("build", "--config", "nowhere.toml"), "nowhere.toml"),
    "config is a folder": (lambda folder, source: ["build", "--config", folder], ""),
    "neither config nor source": (literally("build"), "--config"),
    "config and source": (lambda folder, source: [*of_source()(folder, source), "--config", "x.toml"], "--source"),
    "TOML that does not parse": (of_config(append("build.toml", "[samples\n")), "build.toml"),
    "TOML with a typo": (of_config(append("build.toml", "[samples]\nprogres_per_episode = 3\n")), "progres_per"),
    "TOML with a wrong value": (of_config(append("build.toml", "[motion]\nstep_min_s = -1\n")), "step_min_s"),
    "unknown dataset": (of_config(lambda f: (f / "build.toml").write_text('datasets = ["nobody"]\n')), "nobody"),
    "no dataset": (of_config(lambda folder: (folder / "build.toml").write_text("datasets = []\n")), "datasets"),
    "missing registry folder": (of_config(lambda folder: shutil.rmtree(folder / "registry")), "registry"),
    "registry YAML with a typo": (of_config(append("registry/tiny.yaml", "chunksize: 3\n")), "chunksize"),
    "registry YAML that does not parse": (of_config(append("registry/tiny.yaml", "cameras: {\n")), "tiny.yaml"),
    "registry YAML with a missing source": (of_yaml("name: mine\nsource: nowhere\n"), "nowhere"),
    "registry YAML without a source": (of_yaml("name: mine\n"), "source"),
    "registry YAML that is a list": (of_yaml("- name: mine\n"), "mine.yaml"),
    # the command line itself
    "unknown flag": (of_source("--speed", "high"), "--speed"),
    "unknown command": (literally("biuld"), "biuld"),
    "remote workspace": (of_source("--workspace", "s3://bucket/corpus"), "s3://"),
    "inspect a missing path": (literally("inspect", "nowhere"), "nowhere"),
    "inspect a part of a dataset": (lambda folder, source: ["inspect", source / "videos"], "give that folder"),
    "inspect as another format": (lambda folder, source: ["inspect", source, "--as", "hdf5"], "look like lerobot"),
    "inspect with the data's format to print in": (
        lambda folder, source: ["inspect", source, "--format", "lerobot"],
        "--format says how to print, --as lerobot what the data are",
    ),
    "inspect an empty folder": (lambda folder, source: ["inspect", empty_folder(folder, source)], "empty"),
    "unknown dataset to show": (literally("datasets", "show", "nobody"), "nobody"),
    "unknown output format": (literally("status", "--format", "xml"), "xml"),
    "sql without a workspace": (literally("sql"), "build one first"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_wrong_use_leaves_no_workspace(
    case: str,
    source: Path,
    away: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make, named = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    workspace = tmp_path / "workspace"
    arguments = make(folder, source)
    monkeypatch.chdir(away)
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(workspace))
    result = called(capfd, *arguments)
    line = assert_one_error_line(result)
    assert (result.code, result.out) == (USAGE, "")
    assert named in line
    assert not workspace.exists()
    assert list(away.iterdir()) == []


@pytest.mark.parametrize("options", [("--snapshot", 10**6), ("--release", "nobody")])
def test_sql_at_a_time_that_is_not_there(options: tuple[object, ...], built: Built, away: Path) -> None:
    result = proccorpus("sql", "SELECT 1", *options, cwd=away, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert_one_error_line(result)


def test_a_refused_build_changes_nothing_in_a_workspace_that_is_there(built: Built, away: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(built.workspace)
    empty = empty_folder(tmp_path, tmp_path)
    result = proccorpus("build", "--source", empty, "--name", "mine", cwd=away, workspace=built.workspace)
    assert result.code == USAGE
    assert_one_error_line(result)
    assert snapshot_of(built.workspace) == snapshot


def test_verbose_adds_the_traceback(away: Path) -> None:
    result = proccorpus("build", "--source", "nowhere", "--name", "mine", "--verbose", cwd=away)
    lines = result.err.splitlines()
    assert result.code == USAGE
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("error: ")
