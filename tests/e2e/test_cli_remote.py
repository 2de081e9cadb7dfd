"""Datasets of the hub by the command line: what is needed is fetched, what fails says why, a later build goes on."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.registry import DatasetConfig
from pipeline.config import DatasetBuild
from tests.kits.cli_kit import (
    DONE,
    FAILED,
    USAGE,
    Result,
    assert_one_error_line,
    built_in_process,
    digest_of,
    proccorpus,
    rows,
)
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, serve

REPO = "someone/tiny"
TOKEN = "hf_secret"
CAMERA = "observation.images.front"


def video(episode: int) -> str:
    return f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    with serve(Hub(REPO, token=TOKEN)) as hub:
        hub.commit(files_of(source))
        yield hub


@pytest.fixture
def run(hub: Hub, away: Path, tmp_path) -> Callable[..., Result]:
    def run(
        *arguments: object, workspace: Path | None = tmp_path / "workspace", token: str = TOKEN
    ) -> Result:
        return proccorpus(
            *arguments, cwd=away, workspace=workspace, HF_ENDPOINT=hub.endpoint, HF_TOKEN=token
        )

    return run


@pytest.mark.faults
def test_a_file_that_cannot_be_fetched(run, hub, source, tmp_path):
    """Its chunk fails and says why, and so do shards that show its run."""
    registry = tmp_path / "tiny.yaml"
    commit = hub.branches["main"]
    workspace = tmp_path / "workspace"
    registry.write_text(f"name: tiny\nsource: hf://{REPO}\nrevision: {commit}\nchunk_size: 2\n")
    hub.refuse[video(2)] = [403]
    result = run("build", "--config", registry, "--workers", 2)
    assert result.code == FAILED
    assert (
        f"frames of tiny chunk 1 failed: DownloadError: tiny: cannot fetch {video(2)} from hf://{REPO}"
        in result.err
    )
    assert "403 refused" in result.err
    assert "HF_TOKEN" in result.err
    assert (
        f"shards of tiny chunk 0 failed: DownloadError: tiny: cannot fetch {video(2)}" in result.err
    )
    assert rows(workspace, "SELECT DISTINCT chunk FROM samples ORDER BY 1") == [(0,), (2,)]
    assert rows(workspace, "SELECT DISTINCT chunk FROM shards ORDER BY 1") == [(2,)]
    assert rows(workspace, "SELECT * FROM findings") == [], "not the episode's fault"
    assert not (workspace / "sources/tiny" / commit / video(2)).exists()
    hub.refuse.clear()
    hub.asked.clear()
    assert run("build", "--config", registry, "--workers", 1).code == DONE
    assert hub.fetched() == {video(2), video(3)}
    local = DatasetBuild(
        dataset=DatasetConfig(name="tiny", source=str(source), revision=commit, chunk_size=2)
    )
    assert digest_of(workspace) == built_in_process([local], tmp_path / "local")


def test_refusals(run, hub, source, tmp_path):
    build = ("build", "--name", "tiny", "--source")
    for arguments, code, reason_pattern in (
        ((*build, "hf://someone"), USAGE, "hf://owner/name"),
        ((*build, source, "--revision", "main"), USAGE, "--revision needs a dataset on the hub"),
        (
            (*build, f"hf://{REPO}", "--revision", "v9"),
            FAILED,
            "cannot fetch its revision .* at revision v9: 404",
        ),
    ):
        result = run(*arguments)
        assert result.code == code
        line = assert_one_error_line(result)
        assert re.search(reason_pattern, line), line
    result = run(*build, f"hf://{REPO}", token="wrong")
    assert (result.code, "HF_TOKEN" in assert_one_error_line(result)) == (FAILED, True)
    assert not (tmp_path / "workspace/catalog.sqlite").exists()
