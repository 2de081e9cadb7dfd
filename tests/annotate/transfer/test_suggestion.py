"""Which episode to label next."""

from annotate.motion.config import MotionConfig
from annotate.transfer.config import TransferConfig
from annotate.transfer.suggestion import Suggested, suggested
from tests.kits.transfer_runs import pace, run_along, shown_by

CONFIG, MOTION = TransferConfig(), MotionConfig()


def suggest(runs, references, candidates) -> Suggested:
    found = suggested(runs, references, candidates, CONFIG, MOTION)
    assert found is not None
    return found


def test_of_two_kinds_of_episodes_the_larger_comes_first_and_then_the_other():
    runs = [run_along(pace(150 + 5 * k, k), k) for k in range(5)]
    runs += [run_along(pace(150 + 5 * k, k), k, course=7) for k in range(5, 7)]
    found = suggest(runs, [], range(7))
    first, second, *_ = (one.episode_index for one in found.next_episodes)
    assert first < 5 <= second
    assert found.next_episodes[0].nearest_to == 6
    assert found.expected[2] < found.expected[1]
    assert found.judged_by == ("pictures", "state", "grippers")


def test_only_candidates_are_suggested_and_references_measure_each_other():
    runs = [run_along(pace(150 + 5 * k, k), k) for k in range(6)]
    references = [shown_by(pace(150 + 5 * k, k), k) for k in (0, 1)]
    found = suggest(runs, references, [3, 4])
    assert found.next_episodes[0].episode_index in (3, 4)
    assert {one.episode_index for one in found.next_episodes} <= {3, 4}
    assert found.measured is not None
    assert found.measured < 0.05


def test_nothing_that_can_be_compared():
    runs = [run_along(pace(50, k), k) for k in range(2)]
    blind = [type(run)(run.fps, run.change, None, episode_index=run.episode_index) for run in runs]
    assert suggested(blind, [], [0, 1], CONFIG, MOTION) is None
