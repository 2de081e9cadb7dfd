"""Lakes for tests. To make one costs 0.3 s of CPU, so most tests share one and use a dataset of their own."""

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.paths import Workspace
from warehouse.lake import Lake

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "assets"), str(TESTS / "e2e")]  # where corpora are made for tests

from made_corpus import Made, make  # noqa: E402

numbers = itertools.count()


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(Workspace(tmp_path_factory.mktemp("shared") / "it's a corpus"))  # a quote, blanks: paths stand in SQL


@pytest.fixture
def ds() -> str:
    """The name of a dataset that no other test uses."""
    return f"d{next(numbers)}"


@pytest.fixture(scope="session")
def empty_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty") / "corpus"
    Lake(Workspace(root)).con.close()
    return root


@pytest.fixture
def workspace(tmp_path: Path, empty_corpus: Path) -> Workspace:
    """A workspace of the test's own, empty, copied from one that was made once."""
    shutil.copytree(empty_corpus, tmp_path / "corpus")
    return Workspace(tmp_path / "corpus")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Five episodes in three chunks, in three splits, without a licence; not for changing."""
    return make(tmp_path_factory.mktemp("built"))


@pytest.fixture
def own(built: Made, tmp_path: Path) -> Made:
    """A copy of it for a test to change."""
    return built.copy(tmp_path)


@pytest.fixture
def corpus(own: Made) -> Iterator[Lake]:
    """The lake of that copy."""
    lake = Lake(own.space)
    yield lake
    lake.con.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server on loopback with the bucket `corpora`."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy"}
    for name, value in (settings | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="corpora")
    yield client
    server.stop()
    S3FileSystem.clear_instance_cache()  # they know this server, and the next test has another
