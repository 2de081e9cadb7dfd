"""A furnished workspace, and a client of its explorer."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from tests.kits.explorer_kit import furnish
from tests.kits.visitor import visit


@pytest.fixture(scope="session")
def furnished(made, tmp_path_factory) -> Workspace:
    """Not for changing."""
    return furnish(made.copy(tmp_path_factory.mktemp("furnished")))


@pytest.fixture(scope="session")
def client(furnished: Workspace) -> Iterator[TestClient]:
    with visit(furnished) as client:
        yield client
