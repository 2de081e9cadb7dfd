"""A hub's dataset in Dagster: read at the commit of its first build, until somebody asks for the newest."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.defs.corpus.jobs import source_revisions
from assets.defs.resources import CorpusResource
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from tests.assets.defs.corpus.test_assets import requests
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, public_hub
from tests.kits.tiny_lerobot import make_dataset
from warehouse.lake import open_lake

REPO = "someone/tiny"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with public_hub(REPO) as hub:
        hub.commit(files_of(make_dataset(tmp_path / "tiny")))
        yield hub


@pytest.fixture
def space(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    space = Workspace(tmp_path / "w")
    build = DatasetBuild(dataset=DatasetConfig(name="tiny", source=f"hf://{REPO}"), episodes=(0,))
    assert run_build(space, [build], workers=1).failed == []
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(space.root))
    monkeypatch.delenv("PROCCORPUS_CONFIG", raising=False)
    return space


def test_a_newer_commit_is_read_when_it_is_asked_for(hub: Hub, space: Workspace) -> None:
    first = hub.branches["main"]
    build_job = defs().resolve_job_def("build")
    with dg.instance_for_test() as instance:
        assert requests(source_revisions, instance) == []
        second = hub.commit(hub.commits[first] | {"README.md": b"moved on"})

        # A job reads what was read before, unless it is told otherwise
        assert build_job.execute_in_process(instance=instance).success
        assert _revision(space) == first
        assert CorpusResource().build("tiny").commit == first
        (request,) = requests(source_revisions, instance)
        assert build_job.execute_in_process(request.run_config, instance).success
        assert _revision(space) == second
        assert CorpusResource().build("tiny").commit == second
        assert requests(source_revisions, instance) == []


def _revision(space: Workspace) -> str:
    return open_lake(space).rows("SELECT source_revision FROM datasets")[0][0]
