"""The transfer annotator: on made-up runs of one course, and on random ones."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from annotate.motion import MotionConfig
from annotate.segments import STEP, Segment, check_tiling, finished
from annotate.transfer import Reference, SeenRun, TransferConfig, Transferred, annotate
from tests.kits.transfer_runs import (
    ENDS,
    FPS,
    PLAN,
    cuts_of,
    pace,
    random_run,
    random_segments,
    run_along,
    shown_by,
    steps_of,
)

LENGTHS = (120, 150, 100, 140, 180)
PACES = [pace(n, seed) for seed, n in enumerate(LENGTHS)]
RUNS = [run_along(phases, k) for k, phases in enumerate(PACES)]
NEAR = round(0.2 * FPS)


def labelled(runs: list[SeenRun], *references: Reference) -> list[Transferred]:
    given = annotate(runs, references, TransferConfig(), MotionConfig())
    assert len(given) == len(runs)
    for run, one in zip(runs, given, strict=True):
        check(run, one)
    return given


def check(run: SeenRun, one: Transferred) -> None:
    """What holds for every run: a label and an alignment, or neither and why."""
    assert (one.label is None) == (one.alignment is None) == (one.why_none is not None)
    assert one.p_failure is None or 0 <= one.p_failure <= 1
    if one.label is None or one.alignment is None:
        return
    check_tiling(one.label.segments, len(run), one.label.num_planned)
    assert all(s.confidence is None or 0 <= s.confidence <= 1 for s in one.label.segments)
    its = one.alignment
    assert len({len(array) for array in (its.frames, its.episodes, its.reference_frames, its.distances)}) == 1
    assert np.isfinite(its.distances).all()
    assert (np.diff(its.frames) > 0).all()


def segments(one: Transferred) -> list[Segment]:
    assert one.label is not None, one.why_none
    return one.label.segments


def steps(one: Transferred) -> list[tuple[int | None, bool]]:
    return [(s.step, s.completed) for s in segments(one)]


def cuts(one: Transferred) -> list[int]:
    return [s.start_frame for s in segments(one)[1:]]


def without_pictures(run: SeenRun) -> SeenRun:
    return replace(run, frames=np.array([], np.int64), pictures=())


# One reference and more


def test_one_reference_labels_the_others():
    itself, *others = labelled(RUNS, shown_by(PACES[0], 0))
    assert itself.label is None
    for one, phases in zip(others, PACES[1:], strict=True):
        assert steps(one) == [(0, True), (1, True), (2, True)]
        assert one.label is not None
        assert one.label.plan == PLAN
        assert [s.name for s in segments(one)] == list(PLAN)
        assert np.abs(np.subtract(cuts(one), cuts_of(phases))).max() <= NEAR


@pytest.mark.parametrize("kinds", ["pictures", "states and grippers", "grippers"])
def test_any_kind_of_signals_will_do(kinds: str):
    """A little less exactly."""

    def only(run: SeenRun) -> SeenRun:
        signals = run.signals
        if kinds == "pictures":
            return replace(run, signals=replace(signals, state=None, grippers=()))
        state = None if kinds == "grippers" else signals.state
        return without_pictures(replace(run, signals=replace(signals, state=state)))

    _, *others = labelled([only(run) for run in RUNS], Reference(only(RUNS[0]), steps_of(PACES[0]), PLAN))
    for one, phases in zip(others, PACES[1:], strict=True):
        assert [step for step, _ in steps(one)] == [0, 1, 2]
        assert np.abs(np.subtract(cuts(one), cuts_of(phases))).max() <= 2 * NEAR


def test_the_alignment_names_the_moment_of_the_reference():
    others = labelled(RUNS, shown_by(PACES[0], 0))[1:]
    for one, phases in zip(others, PACES[1:], strict=True):
        its = one.alignment
        assert its is not None
        assert set(its.episodes.tolist()) == {0}
        assert its.follows.all()
        assert np.abs(PACES[0][its.reference_frames] - phases[its.frames]).mean() < 0.03


def test_several_references_vote():
    """One puts its boundaries half a second late; two others do not. Marks cannot show it: nothing grips."""

    def plain(run: SeenRun) -> SeenRun:
        still = np.ones(len(run))
        return replace(run, signals=replace(run.signals, grippers=(), state=None, speed=still, change=still))

    runs = [plain(run) for run in RUNS]
    references = [Reference(plain(shown.run), shown.segments, PLAN) for shown in map(shown_by, PACES[:3], range(3))]
    late = [
        replace(s, start_frame=s.start_frame + 10 * (k > 0), end_frame=s.end_frame + 10 * (k < 2))
        for k, s in enumerate(references[0].segments)
    ]
    references[0] = replace(references[0], segments=late)
    voted, misled = labelled(runs, *references), labelled(runs, references[0])
    for k in (3, 4):
        truth = cuts_of(PACES[k])
        assert np.abs(np.subtract(cuts(voted[k]), truth)).max() <= 2 * NEAR
        assert np.subtract(cuts(misled[k]), truth).min() > NEAR


def test_stand_stills_of_a_run_are_its_own():
    """It waits for two seconds in the middle of the second step; the reference does not."""
    at = int(np.searchsorted(PACES[1], 0.6))
    waits = np.concatenate([PACES[1][:at], np.full(40, PACES[1][at]), PACES[1][at:]])
    runs = [*RUNS, run_along(waits, 9)]
    one = labelled(runs, shown_by(PACES[0], 0))[-1]
    assert steps(one) == [(0, True), (1, False), (None, False), (1, True), (2, True)]
    rest = segments(one)[2]
    assert abs(rest.start_frame - at) <= NEAR
    assert abs(rest.end_frame - at - 40) <= NEAR


# Runs that fail


def test_a_run_that_stops_midway_is_unfinished():
    stopped = pace(140, 9)
    stopped = stopped[: int(np.searchsorted(stopped, 0.6))]
    *others, one = labelled([*RUNS, run_along(stopped, 9)], shown_by(PACES[0], 0))
    assert one.p_failure is not None
    assert one.p_failure > 0.9
    assert steps(one) == [(0, True), (1, False)]
    assert abs(cuts(one)[0] - int(np.searchsorted(stopped, ENDS[0]))) <= NEAR
    assert all(other.p_failure < 0.65 for other in others[1:] if other.p_failure is not None)


def test_what_the_source_says_of_the_outcome_counts():
    """A run that looks whole is unfinished where the source says so; one that ends oddly is finished."""
    runs = [*RUNS, run_along(pace(140, 8), 8, success=False)]
    failed = labelled(runs, shown_by(PACES[0], 0))[-1]
    assert not finished(segments(failed), len(PLAN))
    for success in (None, True):
        run = run_along(PACES[1], 9, success=success)
        assert run.signals.state is not None
        moved = run.signals.state + 0.4 * (np.arange(len(run)) >= len(run) - 10)[:, None]
        odd = labelled([*RUNS, replace(run, signals=replace(run.signals, state=moved))], shown_by(PACES[0], 0))[-1]
        assert odd.p_failure is not None
        assert odd.p_failure > 0.65
        assert finished(segments(odd), len(PLAN)) == bool(success)


def test_a_second_attempt_shows_the_failed_one():
    """It loses the thing after it grasped, goes back, and does it again."""
    phases = np.concatenate([np.linspace(0, 0.46, 50), np.linspace(0.46, 0.2, 25), np.linspace(0.2, 1, 80)])
    one = labelled([*RUNS, run_along(phases, 9)], shown_by(PACES[0], 0))[-1]
    assert steps(one) == [(0, True), (1, False), (0, True), (1, True), (2, True)]
    assert finished(segments(one), len(PLAN))
    grasps_again = 75 + int(np.searchsorted(phases[75:], ENDS[0]))
    assert abs(cuts(one)[2] - grasps_again) <= NEAR


def test_a_run_without_the_references_failure_shows_none():
    phases = np.concatenate([np.linspace(0, 0.46, 50), np.linspace(0.46, 0.2, 25), np.linspace(0.2, 1, 80)])
    first, again = (int(np.searchsorted(part, ENDS[0])) for part in (phases[:50], phases[75:]))
    released = 75 + int(np.searchsorted(phases[75:], ENDS[1]))
    ends = [0, first, 55, 75 + again, released, len(phases)]
    done = [(0, True), (1, False), (0, True), (1, True), (2, True)]
    said = [
        Segment(PLAN[step], ends[k], ends[k + 1], STEP, completed, step) for k, (step, completed) in enumerate(done)
    ]
    runs = [run_along(its, k, success=True) for k, its in enumerate(PACES)]
    for one, its in zip(labelled(runs, shown_by(phases, 9, said)), PACES, strict=True):
        assert steps(one) == [(0, True), (1, True), (2, True)]
        assert np.abs(np.subtract(cuts(one), cuts_of(its))).max() <= 2 * NEAR


# What does not matter


def test_the_order_of_runs_and_references_does_not_matter():
    runs = [run_along(pace(60 + 3 * k, k), k) for k in range(14)]
    references = [shown_by(pace(60 + 3 * k, k), k) for k in (0, 3, 5)]
    order = np.random.default_rng(1).permutation(len(runs)).tolist()
    straight = labelled(runs, *references)
    shuffled = labelled([runs[i] for i in order], *references[::-1])
    for k, one in zip(order, shuffled, strict=True):
        assert one.label == straight[k].label
        assert one.p_failure == straight[k].p_failure
        assert one.alignment is not None
        for name, values in vars(one.alignment).items():
            assert np.array_equal(values, getattr(straight[k].alignment, name)), name


def test_the_same_runs_give_the_same_labels():
    once, again = (labelled(RUNS, shown_by(PACES[0], 0)) for _ in range(2))
    assert [one.label for one in once] == [one.label for one in again]


def test_the_number_of_moments_a_second_hardly_matters():
    for hz in (5.0, 20.0):
        given = annotate(RUNS, [shown_by(PACES[0], 0)], TransferConfig(hz=hz), MotionConfig())
        for one, phases in zip(given[1:], PACES[1:], strict=True):
            assert np.abs(np.subtract(cuts(one), cuts_of(phases))).max() <= 2 * NEAR


def test_two_runs_are_enough():
    """What is usual is not counted from the reference beside itself."""
    itself, one = labelled(RUNS[:2], shown_by(PACES[0], 0))
    assert itself.label is None
    assert np.abs(np.subtract(cuts(one), cuts_of(PACES[1]))).max() <= NEAR
    assert one.alignment is not None
    assert float(one.alignment.distances.mean()) < 1.2


# No label


def test_a_copy_of_its_reference_is_no_distance_away():
    """Levels of grippers can be equal to the last digit: nothing is divided by that."""
    runs = [without_pictures(replace(run, signals=replace(run.signals, state=None))) for run in RUNS]
    copy = replace(runs[0], signals=replace(runs[0].signals, episode_index=9))
    *_, one = labelled([*runs, copy], Reference(runs[0], steps_of(PACES[0]), PLAN))
    assert cuts(one) == cuts_of(PACES[0])


def test_a_reference_of_another_task_is_not_followed():
    other = Reference(run_along(PACES[0], 20, course=5), steps_of(PACES[0]), PLAN)
    assert all(one.label is None for one in labelled(RUNS, other))
    # Nor does it keep others from being followed
    beside = labelled(RUNS, other, shown_by(PACES[0], 0))
    assert [one.label for one in beside][1:].count(None) == 0
    assert all(set(one.alignment.episodes.tolist()) == {0} for one in beside if one.alignment is not None)


def test_without_references_there_are_no_labels():
    assert labelled([], shown_by(PACES[0], 0)) == []
    assert all(one.label is None for one in labelled(RUNS))


def test_with_nothing_to_compare_there_are_no_labels():
    def bare(run: SeenRun) -> SeenRun:
        return without_pictures(replace(run, signals=replace(run.signals, state=None, grippers=())))

    for one in labelled([bare(run) for run in RUNS], Reference(bare(RUNS[0]), steps_of(PACES[0]), PLAN)):
        assert one.label is None
        assert one.why_none is not None
        assert "in common" in one.why_none


# Random ones


@pytest.mark.parametrize("seed", range(12))
def test_every_label_tiles_its_run(seed: int):
    """Whatever runs and references are like: `labelled` checks what it gives; numbers that are none raise."""
    num_labels = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in range(6):
            draws = np.random.default_rng([seed, case])
            cameras, grippers, has_state, has_speed = draws.integers(0, [3, 3, 2, 2])
            kinds = int(cameras), int(grippers), bool(has_state), bool(has_speed)
            lengths = draws.integers(5, 90, draws.integers(1, 6))
            lengths[0] = draws.choice([1, 2, 5, 6])
            runs = [random_run(draws, k, int(n), kinds) for k, n in enumerate(lengths)]
            plan = tuple(f"Do thing {k}" for k in range(draws.integers(1, 5)))
            shows = [*runs[: draws.integers(len(runs)) + 1], random_run(draws, 50, int(draws.integers(5, 90)), kinds)]
            references = [Reference(run, random_segments(draws, len(run), plan), plan) for run in shows[-3:]]
            num_labels += sum(one.label is not None for one in labelled(runs, *references))
    assert num_labels > 0
