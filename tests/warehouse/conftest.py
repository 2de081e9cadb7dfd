"""Lakes for tests. To make one costs 0.3 s of CPU, so most tests share one and use a dataset of their own."""

import itertools
import shutil
from pathlib import Path

import pytest

from warehouse.lake import Lake
from warehouse.workspace import Workspace

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
