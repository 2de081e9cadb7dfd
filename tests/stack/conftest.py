"""Servers that the tests of the stack share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "assets"), str(HERE.parent / "e2e")]

import servers  # noqa: E402
from ray_kit import ray_head  # noqa: E402


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
    """The dashboard's address of a Ray head of our own."""
    with ray_head() as url:
        yield url
