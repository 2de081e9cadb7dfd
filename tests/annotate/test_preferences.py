"""Pairs: of one task, the right way round, drawn by seed, and of every kind that the runs allow."""

from collections import Counter

import numpy as np
import pytest

from annotate.preferences import FURTHER_BY, WHOLE, ComparedRun, draw_pairs


def run(number: int, end: float = 1.0, task: str = "open", **run_fields: object) -> ComparedRun:
    ramp = np.linspace(0, end, 16, dtype=np.float32)
    return ComparedRun(
        "d", number, task, np.arange(0, 32, 2), ramp, **{"label_run": "r", **run_fields}
    )  # type: ignore[arg-type]


RUNS = [
    run(0, success=True, quality=0.9),
    run(1, success=True, quality=0.1),
    run(2, end=0.4, success=False, quality=0.05),
    run(3, task="close", success=True, quality=0.95),
    run(4, success=None, quality=0.2),
]


def test_the_chosen_part_is_ahead_and_of_the_same_task() -> None:
    pairs = draw_pairs(RUNS, 8, seed=3)
    by_number = {r.episode_index: r for r in RUNS}
    for pair in pairs:
        chosen = by_number[pair.chosen.episode_index]
        rejected = by_number[pair.rejected.episode_index]
        assert chosen.same_as == rejected.same_as
        if pair.why == "further":
            (ahead,), (behind,) = pair.chosen.progress, pair.rejected.progress
            assert ahead is not None
            assert behind is not None
            assert ahead - behind == pytest.approx(pair.margin)
            assert pair.margin >= FURTHER_BY
        elif pair.why == "outcome":
            assert (chosen.success, rejected.success) == (True, False)
            assert (pair.chosen.frames, pair.rejected.frames) == ((30,), (30,))
        else:
            assert (chosen.episode_index, rejected.episode_index) == (0, 1)
            assert pair.margin == pytest.approx(0.8)
            assert len(pair.chosen.frames) == WHOLE
            assert (pair.chosen.frames[0], pair.chosen.frames[-1]) == (0, 30)
    assert {p.why for p in pairs} == {"further", "outcome", "quality"}


def test_no_pair_comes_twice_and_each_run_has_its_share() -> None:
    pairs = draw_pairs(RUNS, 5, seed=3)
    assert len(set(pairs)) == len(pairs)
    counts = Counter(p.why for p in pairs)
    # Two successes against one failure, and one pair of qualities: there are no more of them
    assert counts["outcome"] == 2
    assert counts["quality"] == 1
    assert 15 <= counts["further"] <= 25


def test_equal_seeds_draw_equal_pairs_whatever_else_there_is() -> None:
    pairs = draw_pairs(RUNS, 4, seed=3)
    assert draw_pairs(RUNS[::-1], 4, seed=3) == pairs
    of_open = [p for p in pairs if p.chosen.episode_index != 3]
    assert draw_pairs([r for r in RUNS if r.same_as == "open"], 4, seed=3) == of_open
    assert draw_pairs(RUNS, 4, seed=4) != pairs
