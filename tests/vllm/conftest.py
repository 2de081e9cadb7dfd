"""A real vLLM server for the session, serving a tiny random Qwen3-VL on a free port of this machine.

Its words are noise; the API, the pictures, the token counts and the guided decoding are vLLM's own.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from annotate.model_client.calls import Image
from annotate.pictures import encode_jpeg
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.cli_kit import PROGRAM, environment
from tests.kits.published_kit import write_asked
from tests.kits.vllm_kit import (
    CONTEXT_TOKENS,
    MARK,
    NAME,
    SAMPLES,
    VllmServer,
    eventually_gone,
    marked,
)

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
    """Started as people do, and killed at the end: nothing of it may be left then."""
    mark = uuid4().hex
    logs = tmp_path_factory.mktemp("vllm")
    options = {"model": tiny_model, "name": NAME, "port": 0, "max-model-len": CONTEXT_TOKENS}
    options |= {"max-num-seqs": 8, "log-dir": logs}
    words = [f"--{name}={value}" for name, value in options.items()]
    with subprocess.Popen(
        [PROGRAM, "vlm", "serve", *words],
        env=environment() | {MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as serve:
        assert serve.stdout is not None
        assert serve.stderr is not None
        try:
            line = serve.stdout.readline()  # nothing is said before it is ready, or dead
            assert line.startswith("tiny is ready at http://127.0.0.1:"), serve.stderr.read()
            endpoint = line.split()[4].rstrip(",")
            yield VllmServer(endpoint, logs / "vllm-0.log", tiny_model)
            assert len(marked(mark)) >= 3  # ours, the API's and the engine's
        finally:
            serve.kill()
        progress = serve.stderr.read()
    assert f"{endpoint} starting, " in progress
    assert eventually_gone(mark), "the killed server left processes behind"


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
