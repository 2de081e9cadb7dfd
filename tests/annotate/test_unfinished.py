"""How likely a run failed: exact on made-up runs of a task, and silent where nothing is to be asked."""

from dataclasses import replace

import numpy as np

from annotate.quality import FEWEST
from annotate.unfinished import FARTHEST, SIGNS, RunEnd, doubts, signs_of

FPS = 10.0
ELSEWHERE, PICTURE, SHORTER, SPEED, UNDONE = SIGNS


def run(seconds: float = 5.0, to: float = 1.0, last_hash: int = 0, success: bool | None = None) -> RunEnd:
    """A run that goes to a place at even speed and stands still for half a second."""
    n = round(seconds * FPS)
    activity = np.r_[np.ones(n - 5), np.zeros(5)]
    way = np.linspace(0, to, n)
    return RunEnd(success, FPS, activity, np.stack([way, np.sin(9 * way)], axis=1), last_hash, 1.0)


def alike(count: int) -> list[RunEnd]:
    """Runs of a task that end nearly alike."""
    return [run(5.0 + 0.1 * (k % 3), 1.0 + 0.002 * k, last_hash=1 << k) for k in range(count)]


def test_runs_that_end_alike_are_hardly_in_doubt():
    for doubt in doubts(alike(8)):
        assert doubt is not None
        assert doubt.p_failure < 0.2


def test_too_few_runs_show_nothing():
    assert doubts(alike(FEWEST - 1)) == [None] * (FEWEST - 1)
    assert all(doubts(alike(FEWEST)))
    assert doubts([*alike(FEWEST - 1), run(success=False)]) == [None] * FEWEST
    assert doubts([]) == []


def test_without_states_pictures_and_times_decide():
    blind = [replace(r, state=None) for r in [*alike(8), run(seconds=3.0, to=0.4, last_hash=0xFFFFFF)]]
    signs = signs_of(blind)
    assert not signs[:, SIGNS.index(ELSEWHERE)].any()
    assert signs[-1, SIGNS.index(PICTURE)] == FARTHEST
    mixed = [*alike(8), replace(run(), state=np.zeros((50, 3)))]  # another robot's
    assert not signs_of(mixed)[:, SIGNS.index(ELSEWHERE)].any()
    still = [replace(r, state=np.ones((50, 2))) for r in blind]
    assert not signs_of(still)[:, SIGNS.index(ELSEWHERE)].any()
