"""Pairs: of one task, the right way round, drawn by seed, and of every kind that the runs allow."""

from collections import Counter

import numpy as np

from annotate.preferences import ComparedRun, draw_pairs


def run(number: int, end: float = 1.0, task: str = "open", **more: object) -> ComparedRun:
    ramp = np.linspace(0, end, 16, dtype=np.float32)
    return ComparedRun("d", number, task, np.arange(0, 32, 2), ramp, **{"label_run": "r", **more})  # type: ignore[arg-type]


RUNS = [
    run(0, success=True, quality=0.9),
    run(1, success=True, quality=0.1),
    run(2, end=0.4, success=False, quality=0.05),
    run(3, task="close", success=True, quality=0.95),
    run(4, success=None, quality=0.2),
]


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
