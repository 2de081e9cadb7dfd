"""How likely a run failed: exact on made-up runs of a task, and silent where nothing is to be asked."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.quality import FEWEST
from annotate.unfinished import FARTHEST, SIGNS, RunEnd, doubts, of_task, signs_of

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


@pytest.mark.parametrize(
    ("odd", "sign"),
    [
        (run(to=0.4), ELSEWHERE),
        (run(last_hash=0xFFFFFFFF), PICTURE),
        (run(seconds=3.0), SHORTER),
        (replace(run(), end_progress=0.5), UNDONE),
    ],
)
def test_each_sign_is_named_by_what_makes_it(odd: RunEnd, sign: str):
    *others, found = doubts([*alike(8), odd])
    assert found is not None
    assert sign in found.because
    assert found.p_failure > 2 * max(other.p_failure for other in others if other)


def test_a_run_that_breaks_off_is_likely_to_have_failed_and_the_strongest_sign_stands_first():
    found = doubts([*alike(8), replace(run(seconds=2.5, to=0.5, last_hash=0xFFFF), end_progress=0.6)])[-1]
    assert found is not None
    assert found.p_failure > 0.95
    assert found.because[0] == SHORTER


def test_a_longer_run_is_no_sign():
    signs = signs_of([*alike(8), run(seconds=9.0)])
    assert signs[-1, SIGNS.index(SHORTER)] == 0


def test_a_run_that_ends_at_full_speed_among_runs_that_come_to_rest():
    moving = replace(run(), activity=np.ones(50))
    signs = signs_of([*alike(8), moving])
    assert signs[-1, SIGNS.index(SPEED)] == FARTHEST
    assert signs[:-1, SIGNS.index(SPEED)].max() < 0.1


def test_known_outcomes_are_not_guessed_and_failures_do_not_show_what_is_usual():
    failed = [run(seconds=2.5, to=0.5, last_hash=0xFFFF, success=False)] * 8
    found = doubts([*alike(6), *failed, run(seconds=2.5, to=0.5, last_hash=0xFFFF), run(success=True)])
    assert [doubt is None for doubt in found] == [False] * 6 + [True] * 8 + [False, True]
    assert found[14] is not None
    assert found[14].p_failure > 0.9


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


def test_the_order_of_runs_changes_nothing():
    runs = [*alike(8), run(to=0.4)]
    assert [d.p_failure for d in doubts(runs[::-1]) if d] == pytest.approx(
        [d.p_failure for d in doubts(runs)[::-1] if d]
    )


def test_one_odd_run_among_many_is_doubted_less_than_several():
    one, many = np.array([0.05] * 8 + [0.8]), np.array([0.05] * 8 + [0.8] * 6)
    rare = of_task(one, [None] * 9)[-1]
    assert rare < 0.5 < of_task(many, [None] * 14)[-1] < 0.8
    assert of_task(one, [True] * 8 + [None])[-1] < rare, "known successes say the same more surely"
    assert of_task(one, [False] * 8 + [None])[-1] > 0.9
    assert (np.argsort(of_task(many, [None] * 14), kind="stable") == np.argsort(many, kind="stable")).all()
