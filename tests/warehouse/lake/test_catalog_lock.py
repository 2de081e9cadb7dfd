"""Turns of readers and committers: who has to wait, for how long, and that nobody waits for ever."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from core.paths import Workspace
from warehouse.lake import place
from warehouse.lake.place import committing_turn, reading_turn

Turn = Callable[[Workspace], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        (reading_turn, reading_turn, False),
        (reading_turn, committing_turn, True),
        (committing_turn, reading_turn, True),
        (committing_turn, committing_turn, True),
    ],
)
def test_who_waits(workspace, first, second, waits):
    has_turn = threading.Event()

    def take() -> None:
        with second(workspace):
            has_turn.set()

    other_thread = threading.Thread(target=take)
    with first(workspace):
        other_thread.start()
        assert has_turn.wait(0.1 if waits else 5) is not waits
    start_s = time.monotonic()
    other_thread.join(5)
    assert has_turn.is_set()
    assert time.monotonic() - start_s < 0.5, "SQLite would have slept for a second"


def test_nobody_waits_for_ever(workspace, monkeypatch):
    """SQLite's own locks decide then."""
    monkeypatch.setattr(place, "PATIENCE_S", 0.05)
    with committing_turn(workspace), reading_turn(workspace):
        pass
