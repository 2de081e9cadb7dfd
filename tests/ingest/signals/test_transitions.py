"""When a signal goes from one end to the other."""

import numpy as np

from ingest.signals.transitions import transitions

FPS = 10


def crossings(*parts: tuple[int, float]) -> list[tuple[int, int, bool]]:
    """Of a signal that stays so many frames at each level."""
    relative = np.concatenate([np.full(count, level) for count, level in parts])
    return [(move.start, move.end, move.rises) for move in transitions(relative, FPS)]


def test_from_one_end_to_the_other() -> None:
    assert crossings((5, 0.0), (1, 0.5), (5, 1.0)) == [(4, 6, True)]
    assert crossings((5, 1.0), (5, 0.0), (5, 1.0)) == [(4, 5, False), (9, 10, True)]


def test_the_ends_are_those_of_the_run() -> None:
    """A person opens a gripper now more, now less."""
    assert crossings((5, 0.1), (5, 0.4)) == [(4, 5, True)]
    assert crossings((5, 0.1), (5, 0.3)) == []  # it hardly moves
    assert crossings((10, 0.7)) == []


def test_a_twitch_is_none() -> None:
    assert crossings((10, 0.0), (3, 1.0), (10, 0.0)) == []
    assert crossings((10, 0.0), (5, 1.0), (10, 0.0)) == [(9, 10, True), (14, 15, False)]


def test_half_way_and_back_is_none() -> None:
    assert crossings((10, 0.0), (10, 0.5), (10, 0.0), (10, 1.0)) == [(29, 30, True)]
