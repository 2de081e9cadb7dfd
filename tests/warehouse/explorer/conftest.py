"""A furnished workspace, and a client of its explorer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from explorer_kit import furnish
from visitor import visit

from core.paths import Workspace


@pytest.fixture(scope="session")
def furnished(built, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Not for changing."""
    return furnish(built.copy(tmp_path_factory.mktemp("furnished")))


@pytest.fixture(scope="session")
def client(furnished: Workspace) -> Iterator[TestClient]:
    with visit(furnished) as client:
        yield client
