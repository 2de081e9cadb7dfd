"""A real vLLM server for the session, serving a tiny random Qwen3-VL on a free port of this machine.

Its words are noise; the API, the pictures, the token counts and the guided decoding are vLLM's own.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from annotate.model_client.calls import Image
from annotate.model_client.server import Server
from annotate.pictures import encode_jpeg
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.published_kit import write_asked
from tests.kits.vllm_kit import MARK, NAME, SAMPLES, VllmServer, eventually_gone, tiny_config

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is for a real server."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("vllm")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_asked(tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture(scope="session")
def vllm_server(tiny_model: Path, tmp_path_factory) -> Iterator[VllmServer]:
    mark = uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        with Server(tiny_config(tiny_model, tmp_path_factory.mktemp("vllm"))) as server:
            patch.delenv(MARK)  # what tests start is not the server's
            yield VllmServer(server.endpoints[0], server.logs[0], tiny_model)
    assert eventually_gone(mark), "the server left processes behind"


@pytest.fixture(scope="session")
def pictures() -> list[Image]:
    """The front camera of an episode of the shipped sample, a picture a second."""
    source = Source(DatasetConfig(name="sim_short", source=str(SAMPLES / "sim_short")))
    episode = read_episode(source, list_episodes(source).records[0])
    camera = episode.record.videos[0].camera
    stride = round(episode.record.fps)
    return [
        Image.of(encode_jpeg(p.rgb(), 480)[0])
        for k, _, p in episode.frames(camera)
        if k % stride == 0
    ]
