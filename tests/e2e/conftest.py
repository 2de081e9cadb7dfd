"""One tiny dataset and one workspace built from it by the command line, shared by all tests of a session."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kits.cli_kit import DONE, Built, Result, command, ok, write_config
from tests.kits.made_corpus import made_once
from tests.kits.tiny_lerobot import make_dataset


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """Five good episodes, 110 frames; not for changing."""
    folder = made_once(tmp_path_factory, "tiny", lambda folder: make_dataset(folder / "source"))
    return folder / "source"


@pytest.fixture(scope="session")
def built(source: Path, tmp_path_factory) -> Built:
    """Built from the config's registry in chunks of two episodes, by one worker; not for changing."""

    def make(folder: Path) -> None:
        config = write_config(folder / "project", source)
        away = folder / "away"
        away.mkdir()
        words = ("build", "--config", config, "--workers", 1)
        result = ok(command(*words, cwd=away, workspace=folder / "workspace"))
        assert list(away.iterdir()) == [], "a build leaves nothing in the folder it is started from"
        (folder / "said").write_text(result.out)

    folder = made_once(tmp_path_factory, "built", make)
    result = Result(DONE, (folder / "said").read_text(), "")
    space = shutil.copytree(folder / "workspace", tmp_path_factory.mktemp("built") / "workspace")
    return Built(source, folder / "project" / "build.toml", space, result)


@pytest.fixture
def own(built: Built, tmp_path) -> Built:
    """A copy of source, config and workspace that a test may change. Times of files are kept:
    nothing is stale."""
    source = shutil.copytree(built.source, tmp_path / "own" / "source")
    workspace = shutil.copytree(built.workspace, tmp_path / "own" / "workspace")
    config = write_config(tmp_path / "own" / "project", source)
    return Built(source, config, workspace, built.result)


@pytest.fixture
def away(tmp_path) -> Path:
    """A folder to start commands from that is neither the project nor holds anything."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


@pytest.fixture
def ask(own: Built, away: Path) -> Callable[..., Result]:
    """A command on the workspace of one's own."""

    def run(*arguments: object) -> Result:
        return command(*arguments, cwd=away, workspace=own.workspace)

    return run


@pytest.fixture
def build(away: Path) -> Callable[..., Result]:
    """`proccorpus build` of a config into a workspace."""

    def run(config: Path, workspace: Path, *options: object) -> Result:
        return command("build", "--config", config, *options, cwd=away, workspace=workspace)

    return run
