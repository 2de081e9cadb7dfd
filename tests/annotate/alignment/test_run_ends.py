"""Which runs to ask about first: those that end unlike the others."""

from dataclasses import replace

from annotate.alignment.run_ends import worst_first
from annotate.config import MotionConfig
from tests.kits.transfer_runs import pace, run_along


def test_a_run_that_ends_elsewhere_comes_first():
    runs = [replace(run_along(pace(160, k), k), episode_index=k) for k in range(5)]
    stopped = replace(run_along(pace(160, 9)[:80], 9), episode_index=5)
    assert worst_first([*runs, stopped], MotionConfig())[0] == 5


def test_one_run_alone_or_what_cannot_be_compared_stays_in_order():
    (run,) = [run_along(pace(160, 0), 0)]
    assert worst_first([replace(run, episode_index=3)], MotionConfig()) == [3]
    blind = [replace(run, episode_index=k, pictures=(), state=None, grippers=()) for k in (2, 1)]
    assert worst_first(blind, MotionConfig()) == [1, 2]
