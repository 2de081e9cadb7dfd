"""Labels that follow a labelled episode of the same task."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.config import MotionConfig
from annotate.motion.structure import SURE
from annotate.segments import check_tiling
from annotate.transfer.annotator import Reference, Transferred, annotate
from annotate.transfer.config import TransferConfig
from tests.kits.transfer_runs import (
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

CONFIG, MOTION = TransferConfig(), MotionConfig()


def labelled(runs, references) -> list[Transferred]:
    return annotate(runs, references, CONFIG, MOTION)


def off_s(transferred: Transferred, phases: np.ndarray) -> float:
    """The farthest boundary from the truth."""
    assert transferred.label is not None
    ends = [s.end_frame for s in transferred.label.segments if s.step is not None and s.completed][:-1]
    return max(abs(a - b) / FPS for a, b in zip(ends, cuts_of(phases), strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_each_episode_gets_the_steps_and_the_progress_of_its_references(count: int):
    ways = [pace(n, seed) for n, seed in ((200, 1), (150, 2), (260, 3), (180, 4))]
    references = [shown_by(pace(200 + 20 * k, 10 + k), 100 + k) for k in range(count)]
    found = labelled([run_along(way, k) for k, way in enumerate(ways)], references)
    for way, one in zip(ways, found, strict=True):
        assert one.label is not None
        assert one.label.plan == PLAN
        assert off_s(one, way) <= 0.5
        assert np.abs(one.label.curve - way).mean() < 0.03
        assert one.label.confidence > 0.7


def test_labels_depend_neither_on_the_order_nor_on_references_listed_twice():
    runs = [run_along(pace(150 + 10 * k, k), k) for k in range(4)]
    references = [shown_by(pace(170, 20), 50), shown_by(pace(190, 21), 51)]
    usual, turned = labelled(runs, references), labelled(runs[::-1], references[::-1])[::-1]
    for a, b in zip(usual, turned, strict=True):
        assert a.label is not None
        assert b.label is not None
        assert a.label.segments == b.label.segments
        assert np.array_equal(a.label.curve, b.label.curve)


def test_a_reference_is_laid_beside_the_others_alone():
    references = [shown_by(pace(170, 20), 50), shown_by(pace(190, 21), 51)]
    [one] = labelled([references[0].signals], references)
    assert one.alignment is not None
    assert set(one.alignment.episodes) == {51}
    [none] = labelled([references[0].signals], references[:1])
    assert none.label is None
    assert none.why_none


def test_no_reference_is_refused_but_another_task_is_not_believed():
    runs = [run_along(pace(150 + 10 * k, k), k) for k in range(4)]
    other = run_along(pace(170, 20), 50, course=5)
    believed = labelled(runs, [shown_by(pace(170, 20), 50)])
    doubted = labelled(runs, [Reference(other, steps_of(pace(170, 20)), PLAN, pace(170, 20))])
    for a, b in zip(believed, doubted, strict=True):
        assert a.label is not None
        assert b.label is not None
        assert b.label.confidence < 0.6 * a.label.confidence


def test_an_episode_that_stops_has_not_completed_what_follows():
    phases = pace(200, 1) * 0.6
    [one, *_] = labelled(
        [run_along(phases, 0), *(run_along(pace(180, k), k) for k in (2, 3))], [shown_by(pace(190, 9), 9)]
    )
    assert one.label is not None
    assert {s.step for s in one.label.segments if s.completed and s.step is not None} == {0}
    assert one.label.curve[-1] == pytest.approx(0.6, abs=0.08)


def test_what_is_known_of_the_outcome_counts():
    runs = [run_along(pace(200, k), k, success=k > 0) for k in range(3)]
    failed, *succeeded = labelled(runs, [shown_by(pace(190, 9), 9)])
    assert failed.label is not None
    assert failed.label.curve[-1] < 1
    assert not all(s.completed for s in failed.label.segments if s.step is not None)
    assert all(one.label is not None and one.label.curve[-1] == 1 for one in succeeded)


def test_pictures_alone_do_not_say_how_an_episode_ended():
    def seen(run):
        return replace(run, grippers=(), state=None, speed=None)

    reference = shown_by(pace(190, 9), 9)
    reference = replace(reference, signals=seen(reference.signals))
    untold, told = labelled(
        [seen(run_along(pace(200, 1), 1)), seen(run_along(pace(200, 2), 2, success=True))], [reference]
    )
    assert untold.label is not None
    assert told.label is not None
    assert untold.label.confidence <= SURE < told.label.confidence


def test_a_step_that_was_done_twice_ends_with_the_second_time():
    phases = pace(200, 3)
    first, second = cuts_of(phases)
    steps = steps_of(phases)
    retried = [
        replace(steps[0], end_frame=first // 2, completed=False),
        replace(steps[0], start_frame=first // 2),
        *steps[1:],
    ]
    [one] = labelled([run_along(pace(180, 4), 4)], [shown_by(phases, 9, retried)])
    assert off_s(one, pace(180, 4)) <= 0.5
    assert second > first


@pytest.mark.parametrize("seed", range(12))
def test_any_signals_make_a_label_or_say_why_not(seed: int):
    draws = np.random.default_rng(seed)
    kinds = (int(draws.integers(3)), int(draws.integers(3)), bool(draws.integers(2)), bool(draws.integers(2)))
    runs = [random_run(draws, k, int(draws.integers(5, 200)), kinds) for k in range(4)]
    references = [
        Reference(run, random_segments(draws, len(run), PLAN), PLAN, draws.random(len(run))) for run in runs[:2]
    ]
    for run, one in zip(runs, labelled(runs, references), strict=True):
        if one.label is None:
            assert one.why_none
            continue
        check_tiling(one.label.segments, len(run), one.label.num_planned)
        assert one.label.curve is not None
        assert ((one.label.curve >= 0) & (one.label.curve <= 1)).all()
        assert one.label.curve[0] == 0
        assert one.alignment is not None
        assert (one.alignment.frames < len(run)).all()
