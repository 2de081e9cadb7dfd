"""What is exported."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made
from warehouse.exports import verify_lerobot
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def made_lake(made: Made) -> Iterator[Lake]:
    """The lake of the shared corpus; not for changing."""
    with opened(made.space, read_only=True) as lake:
        yield lake


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path) -> None:
    """LeRobot is to find all it needs in the folder."""
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_CACHE", str(tmp_path / "hf"))):
        monkeypatch.setenv(name, value)


@pytest.fixture
def lerobot_in_thread(monkeypatch) -> None:
    """LeRobot's reader works in this process, which has imported it: a process of its own needs seconds for that."""

    def executor(workers: int, *_: Any, **__: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(verify_lerobot, "ProcessPoolExecutor", executor)
