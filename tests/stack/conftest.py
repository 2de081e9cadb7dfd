"""Servers that the tests of the stack share."""

from collections.abc import Iterator

import pytest

from tests.kits import servers
from tests.kits.ray_kit import ray_head


@pytest.fixture(scope="session")
def database() -> Iterator[servers.Postgres]:
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, str]]:
    with servers.s3() as settings:
        yield settings


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The dashboard's address of a Ray head of our own, with a second node."""
    with ray_head(second_node=True) as url:
        yield url
