"""Which run to label next: made-up runs of one course, of several ways, and of no signals at all."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotate.motion import MotionConfig
from annotate.segments import Segment
from annotate.transfer import Reference, SeenRun, TransferConfig
from annotate.transfer.suggestion import Suggested, left_out_errors, suggested
from tests.kits.transfer_runs import pace, run_along, shown_by, steps_of

PACES = {k: pace(100 + 9 * k, k) for k in range(6)}
RUNS = [run_along(phases, k) for k, phases in PACES.items()]
# Three more runs do the task another way
OTHERS = [run_along(pace(110 + 5 * k, k), k, course=1) for k in (10, 11, 12)]


def of(runs: Sequence[SeenRun], *references: Reference, candidates: Collection[int] | None = None) -> Suggested:
    every = {run.signals.episode_index for run in runs}
    given = suggested(runs, references, every if candidates is None else candidates, TransferConfig(), MotionConfig())
    assert given is not None
    return given


def names(given: Suggested) -> list[int]:
    return [run.episode_index for run in given.next_runs]


def test_the_first_run_is_of_the_way_that_most_go_and_the_second_of_the_other():
    first, second, *_ = names(of([*RUNS, *OTHERS]))
    assert first in PACES
    assert second in (10, 11, 12)


def test_what_is_far_from_the_references_comes_next():
    given = of([*RUNS, *OTHERS], shown_by(PACES[2], 2))
    first = given.next_runs[0]
    assert first.episode_index in (10, 11, 12)
    assert first.nearest_to == 2, "the others of its way"
    assert 2 not in names(given)
    assert len(given.next_runs) == 4, "five references in all"


def test_a_run_that_breaks_off_is_not_the_first():
    broken_off = run_along(PACES[0][: len(PACES[0]) // 2], 0)
    assert names(of([broken_off, *RUNS[1:]]))[0] != 0


def test_only_candidates_are_named_and_the_order_of_runs_does_not_count():
    runs = [*RUNS, *OTHERS]
    assert set(names(of(runs, candidates=(1, 3)))) == {1, 3}
    assert of(runs[::-1]) == of(runs)


def test_errors_are_expected_of_up_to_five_references_and_never_of_all_runs():
    assert list(of(RUNS).expected) == [1, 2, 3, 4, 5]
    assert list(of(RUNS[:3]).expected) == [1, 2]
    assert all(0 < error < 1 for error in of(RUNS).expected.values())
    # Runs of two ways are off further with one of them labelled
    mixed = of([*RUNS, *OTHERS]).expected
    assert mixed[1] > of(RUNS).expected[1] + 0.01
    assert mixed[2] < mixed[1]


def test_references_are_measured_by_each_other():
    references = [shown_by(PACES[k], k) for k in (1, 4)]
    errors = left_out_errors(RUNS, references, TransferConfig(), MotionConfig())
    assert list(errors) == [1, 4]
    assert max(errors.values()) < 0.03
    assert left_out_errors(RUNS, references[:1], TransferConfig(), MotionConfig()) == {}

    # A label that says something else is far from the other one
    wrong = replace(references[1], segments=shifted(PACES[4]))
    agreeing, contradicting = of(RUNS, *references), of(RUNS, references[0], wrong)
    assert agreeing.measured == pytest.approx(np.mean(list(errors.values())))
    assert contradicting.measured is not None
    assert agreeing.measured is not None
    assert contradicting.measured > 3 * agreeing.measured


def shifted(phases: np.ndarray) -> list[Segment]:
    """Steps that each end half a second late and the second one much later."""
    first, second, third = steps_of(phases)
    late = first.end_frame + 25
    return [
        replace(first, end_frame=late),
        replace(second, start_frame=late, end_frame=second.end_frame + 12),
        replace(third, start_frame=second.end_frame + 12),
    ]


def test_what_the_source_says_of_outcomes_counts():
    failed = [replace(run, signals=replace(run.signals, success=run.signals.episode_index > 2)) for run in RUNS]
    finished = [replace(run, signals=replace(run.signals, success=True)) for run in RUNS]
    assert of(failed).expected[1] > of(finished).expected[1] + 0.02


def test_runs_without_anything_in_common_suggest_nothing():
    bare = [SeenRun(replace(run.signals, state=None, grippers=(), speed=None), np.zeros(0, np.int64)) for run in RUNS]
    assert suggested(bare, [], range(6), TransferConfig(), MotionConfig()) is None
    by_state = [SeenRun(replace(run.signals, grippers=()), np.zeros(0, np.int64)) for run in RUNS]
    assert of(by_state).judged_by == ("state",)
    assert of(RUNS).judged_by == ("pictures", "state", "grippers")
