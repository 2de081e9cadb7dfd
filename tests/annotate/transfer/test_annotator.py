"""Labels that follow a labelled episode of the same task."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.config import MotionConfig, TransferConfig
from annotate.transfer import BY_PICTURES, Transferred, annotate, suggestion
from core.domain.label import Label, check_tiling
from tests.kits.motion_runs import episodes, tilings
from tests.kits.transfer_runs import FPS, PLAN, cuts_of, pace, run_along, shown_by, steps_of

CONFIG = TransferConfig()
MOTION = MotionConfig()


def labelled(runs, references) -> list[Transferred]:
    return annotate(runs, references, CONFIG, MOTION)


def test_labels_do_not_depend_on_the_order():
    runs = [run_along(pace(150 + 10 * k, k), k) for k in range(4)]
    references = [shown_by(pace(170, 20), 50), shown_by(pace(190, 21), 51)]
    in_order = labelled(runs, references)
    turned = labelled(runs[::-1], references[::-1])[::-1]
    for a, b in zip(in_order, turned, strict=True):
        assert a.label.segments == b.label.segments
        assert np.array_equal(a.label.progress, b.label.progress)


def test_no_reference_is_refused_but_another_task_is_not_believed():
    runs = [run_along(pace(150 + 10 * k, k), k) for k in range(4)]
    other_run = run_along(pace(170, 20), 50, course=5)
    reference_run, label = shown_by(pace(170, 20), 50)
    believed = labelled(runs, [(reference_run, label)])
    doubted = labelled(runs, [(other_run, label)])
    for a, b in zip(believed, doubted, strict=True):
        assert b.label.confidence < 0.6 * a.label.confidence


def test_pictures_alone_do_not_say_how_an_episode_ended():
    def seen(run):
        return replace(run, grippers=(), state=None, speed=None)

    signals, label = shown_by(pace(190, 9), 9)
    untold, with_outcome = labelled(
        [seen(run_along(pace(200, 1), 1)), seen(run_along(pace(200, 2), 2, success=True))],
        [(seen(signals), label)],
    )
    assert untold.label.confidence <= BY_PICTURES < with_outcome.label.confidence


def test_a_step_that_was_done_twice_ends_with_the_second_time():
    phases = pace(200, 3)
    first, _ = cuts_of(phases)
    steps = steps_of(phases)
    retried = [
        replace(steps[0], end_frame=first // 2, completed=False),
        replace(steps[0], start_frame=first // 2),
        *steps[1:],
    ]
    [transfer] = labelled([run_along(pace(180, 4), 4)], [shown_by(phases, 9, retried)])
    ends = [s.end_frame for s in transfer.label.segments if s.step is not None and s.completed][:-1]
    assert ends == pytest.approx(cuts_of(pace(180, 4)), abs=0.5 * FPS)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2).flatmap(lambda cameras: st.lists(episodes(cameras), min_size=3, max_size=3)),
    st.data(),
)
def test_any_signals_make_a_label_or_say_why_not(drawn, data):
    runs = [replace(run, episode_index=k) for k, run in enumerate(drawn)]
    references = [
        (
            run,
            Label(
                data.draw(tilings(len(run), PLAN)),
                len(PLAN),
                PLAN,
                np.linspace(0, 1, len(run)) ** 2,
            ),
        )
        for run in runs[:2]
    ]
    for run, transfer in zip(runs, labelled(runs, references), strict=True):
        if transfer.label is None:
            assert transfer.why_none
            continue
        check_tiling(transfer.label.segments, len(run), transfer.label.num_planned)
        assert ((transfer.label.progress >= 0) & (transfer.label.progress <= 1)).all()
        assert transfer.label.progress[0] == 0
        assert (transfer.alignment.frames < len(run)).all()


def test_nothing_that_can_be_compared():
    runs = [run_along(pace(50, k), k) for k in range(2)]
    blind = [type(run)(run.fps, run.change, None, episode_index=run.episode_index) for run in runs]
    assert suggestion(blind, [], [0, 1], CONFIG, MOTION) is None
