"""A real vLLM server for the session, serving a tiny random Qwen3-VL on a free port of this machine.

Its words are noise; the API, the pictures, the token counts and the guided decoding are vLLM's own.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from annotate.client import Image
from annotate.frames import encode_jpeg
from annotate.server import ServerConfig, default_python, requests_in_log, running_server
from ingest.files import Source
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "samples"
NAME = "tiny"
MARK = "PROCCORPUS_TEST_RUN"  # in the environment of every process of a server


@dataclass(frozen=True)
class VllmServer:
    url: str  # base, ends in /v1
    log: Path
    model_dir: Path
    name: str = NAME

    def requests(self, status: int | None = None) -> int:
        """Chat completions it was asked for so far, by its own log."""
        return requests_in_log(self.log, status)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is for a real server; those that start their own come first, so that one runs at a time."""
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker("vllm")
    items.sort(key=lambda item: HERE in item.path.parents and item.path.stem != "test_lifecycle")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model."""
    folder = tmp_path_factory.mktemp("model") / NAME
    subprocess.run([default_python(), HERE / "make_tiny_model.py", folder], check=True, timeout=300)
    return folder


def tiny_config(model: Path, logs: Path) -> ServerConfig:
    return ServerConfig(
        str(model),
        served_name=NAME,
        port=0,
        device="cpu",
        max_model_len=8192,
        max_num_seqs=8,
        cpu_kvcache_gib=1,
        log_dir=logs,
        ready_timeout_s=300,
    )


@pytest.fixture(scope="session")
def vllm_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    mark = uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        with running_server(tiny_config(tiny_model, tmp_path_factory.mktemp("vllm"))) as server:
            patch.delenv(MARK)  # what tests start is not the server's
            yield VllmServer(server.endpoints[0], server.logs[0], tiny_model)
    assert marked(mark) == [], "the server left processes behind"


def marked(mark: str) -> list[int]:
    """The processes of this machine that were started under a mark, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture(scope="session")
def pictures() -> list[Image]:
    """The front camera of an episode of the shipped sample, a picture a second."""
    source = Source(DatasetConfig(name="sim_short", source=str(SAMPLES / "sim_short")))
    episode = read_episode(source, list_episodes(source).records[0])
    camera = episode.record.videos[0].camera
    every = round(episode.record.fps)
    return [Image.of(encode_jpeg(p.rgb(), 480)[0]) for k, _, p in episode.frames(camera) if k % every == 0]
