"""One workspace built from a tiny dataset by the build loop; tests that change it take a copy."""

import os

import pytest
from made_corpus import Made, build_of
from tiny_lerobot import make_dataset

from assets.build import run_build
from warehouse.workspace import Workspace


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell that runs the tests has set is not what is tested."""
    for name in [n for n in os.environ if n.startswith(("DAGSTER", "PROCCORPUS"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Five episodes in three chunks, up to date, unknown to Dagster; not for changing."""
    folder = tmp_path_factory.mktemp("made")
    build = build_of(make_dataset(folder / "source"))
    space = Workspace(folder / "workspace")
    report = run_build(space, [build], workers=1)
    assert not report.failed
    return Made(space, build, report)
