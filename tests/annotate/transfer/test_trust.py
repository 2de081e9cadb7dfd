"""References that mislead are not followed: labelled wrongly, or seen by a camera elsewhere. Right ones are."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion import MotionConfig
from annotate.segments import STEP, Segment
from annotate.transfer import Reference, SeenRun, TransferConfig, Transferred, annotate
from tests.kits.transfer_runs import FPS, PLAN, cuts_of, pace, run_along, shown_by, steps_of

PACES = [pace(n, seed) for seed, n in enumerate((120, 150, 100, 140, 180))]
RUNS = [run_along(phases, k) for k, phases in enumerate(PACES)]
MISLABELLED = "boundaries are where its arm or gripper does something"
ELSEWHERE = "another camera, or another place"


def in_the_wrong_order() -> Reference:
    """Boundaries of the first run, each most of a second from where its gripper does anything."""
    first, second = cuts_of(PACES[0])
    ends = [0, first - round(FPS), (first + second) // 2, len(PACES[0])]
    wrong = [Segment(name, ends[k], ends[k + 1], STEP, True, k) for k, name in enumerate(PLAN)]
    return Reference(RUNS[0], wrong, PLAN)


def by_another_camera() -> Reference:
    run = RUNS[0]
    turned = np.random.default_rng(5).permutation(run.pictures[0].shape[1])
    return Reference(replace(run, pictures=(run.pictures[0][:, turned] + 2,)), steps_of(PACES[0]), PLAN)


WRONG = {MISLABELLED: in_the_wrong_order(), ELSEWHERE: by_another_camera()}


def unmeasured(run: SeenRun) -> SeenRun:
    return replace(run, signals=replace(run.signals, state=None, grippers=()))


def labelled_by(*references: Reference) -> list[Transferred]:
    return annotate(RUNS, references, TransferConfig(), MotionConfig())


@pytest.mark.parametrize("why", WRONG)
def test_nobody_follows_a_wrong_reference(why: str):
    """Then the label that motion gives stays."""
    for one in labelled_by(WRONG[why])[1:]:
        assert one.label is None
        assert one.why_none is not None
        assert one.why_none.startswith("episode 0: ")
        assert why in one.why_none


@pytest.mark.parametrize("why", WRONG)
def test_a_right_reference_beside_a_wrong_one_is_followed(why: str):
    alone = labelled_by(shown_by(PACES[1], 1))[2:]
    both = labelled_by(WRONG[why], shown_by(PACES[1], 1))[2:]
    assert all(one.label for one in both)
    assert [one.label for one in both] == [one.label for one in alone]


def test_a_wrong_label_among_right_ones_is_outvoted():
    """Without an arm and a gripper nothing says where something happens, but the other references do."""

    runs = [unmeasured(run) for run in RUNS]
    wrong, *rights = [
        replace(reference, run=unmeasured(reference.run))
        for reference in (in_the_wrong_order(), shown_by(PACES[1], 1), shown_by(PACES[2], 2))
    ]
    labels = annotate(runs, [wrong, *rights], TransferConfig(), MotionConfig())
    for one, phases in zip(labels[3:], PACES[3:], strict=True):
        assert one.label is not None
        cuts = [segment.start_frame for segment in one.label.segments[1:]]
        assert np.abs(np.subtract(cuts, cuts_of(phases))).max() <= 0.5 * FPS
