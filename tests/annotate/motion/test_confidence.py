"""Confidence: what shows a boundary decides; what shows nothing is not sure."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from annotate.label import plain_label
from annotate.motion import GripperCurve, MotionConfig, Signals, annotate
from annotate.motion.annotator import with_evidence
from annotate.motion.confidence import SHARES, BoundaryEvidence, LabelEvidence, of_episode, of_segments, with_confidence
from annotate.segments import DONE, Segment
from tests.kits.motion_runs import FPS, episodes, going, gripping, moving

CONFIG = MotionConfig()
N = 100
CLOSES, OPENS = 30, 60


def shown(run: Signals) -> LabelEvidence:
    [(_, evidence)] = with_evidence([run], CONFIG)
    return evidence


def carrying(gripper: GripperCurve | None, task: str | None = "Put the cup on the plate.") -> Signals:
    return Signals(FPS, np.zeros(N), moving(N), (gripper,) if gripper else (), None, task)


CUP = GripperCurve(gripping(N, (CLOSES, "close"), (OPENS, "open")))


def test_a_gripper_that_closes_and_opens_shows_what_ends_there():
    found = shown(carrying(CUP)).boundaries
    assert BoundaryEvidence.CLOSES in found
    assert BoundaryEvidence.OPENS in found
    assert set(found) <= {
        BoundaryEvidence.CLOSES,
        BoundaryEvidence.OPENS,
        BoundaryEvidence.CARRIES,
        BoundaryEvidence.BEGINS_TO_CLOSE,
    }


def test_its_moves_say_less_where_nothing_shows_which_way_it_closes():
    [(label, evidence)] = with_evidence([carrying(replace(CUP, has_polarity=False), task=None)], CONFIG)
    assert set(evidence.boundaries) == {BoundaryEvidence.MOVES}
    [sure] = annotate([carrying(CUP, task=None)], CONFIG)
    assert label.confidence is not None
    assert sure.confidence is not None
    assert label.confidence < sure.confidence


def test_a_stand_still_is_surer_of_the_arm_than_of_the_picture():
    speed = moving(N, (40, 60), (90, N))
    by_state = Signals(FPS, np.zeros(N), speed)
    by_pictures = Signals(FPS, speed, None)
    assert shown(by_state).boundaries == (
        BoundaryEvidence.STANDS_STILL,
        BoundaryEvidence.STANDS_STILL,
        BoundaryEvidence.ENDS_AT_REST,
    )
    assert shown(by_pictures).boundaries == (
        BoundaryEvidence.PICTURE_STANDS_STILL,
        BoundaryEvidence.PICTURE_STANDS_STILL,
        BoundaryEvidence.ENDS_IN_STILL_PICTURE,
    )
    [of_state], [of_pictures] = annotate([by_state], CONFIG), annotate([by_pictures], CONFIG)
    assert of_pictures.confidence < of_state.confidence


def test_a_run_that_shows_nothing_is_not_sure():
    for task in (None, "Put the cup on the plate.", "Open the drawer."):
        [(label, evidence)] = with_evidence([Signals(FPS, np.ones(N), None, task=task)], CONFIG)
        assert evidence == LabelEvidence((), (BoundaryEvidence.ONLY_STEP,))
        assert label.confidence == label.segments[0].confidence == SHARES[BoundaryEvidence.ONLY_STEP] < 0.35


def test_where_an_only_step_ends_does_not_make_it_sure():
    label = plain_label([Segment("Wave", 0, 80, step=0), Segment("Done", 80, N, DONE)], 1, "Wave.")
    sure = with_confidence(label, LabelEvidence((BoundaryEvidence.ENDS_AT_REST,), (BoundaryEvidence.ONLY_STEP, None)))
    at_rest, alone = SHARES[BoundaryEvidence.ENDS_AT_REST], SHARES[BoundaryEvidence.ONLY_STEP]
    assert [s.confidence for s in sure.segments] == pytest.approx([(at_rest + alone) / 2, at_rest])
    assert sure.confidence == pytest.approx((at_rest + alone) / 2)


def test_a_turn_is_named_as_such():
    state = going((30, (1.0, 0.0)), (20, (0.0, 1.0)), (10, (0.0, 0.0)))
    speed = np.linalg.norm(np.diff(state, axis=0, prepend=state[:1]), axis=1)
    run = Signals(FPS, np.zeros(len(state)), speed, task="Open the drawer.", state=state)
    assert shown(run).boundaries == (BoundaryEvidence.TURNS, BoundaryEvidence.ENDS_AT_REST)


def test_segments_and_episode_are_means_over_boundaries():
    nan = float("nan")
    assert of_segments([1.0, 0.4], [nan] * 3) == pytest.approx([1.0, 0.7, 0.4])
    assert of_segments([], [0.1]) == [0.1]
    assert of_segments([nan, 0.4], [nan] * 3)[1:] == pytest.approx([0.4, 0.4])
    # Not weighted by length: each boundary counts once
    assert of_episode([1.0, 0.4], [nan] * 3) == pytest.approx(0.7)
    assert of_episode([0.9], [0.1, nan]) == pytest.approx(0.5)


@settings(deadline=None, max_examples=200)
@given(episodes())
def test_every_label_says_how_sure_it_is(run: Signals):
    [(label, evidence)] = with_evidence([run], CONFIG)
    assert len(evidence.boundaries) == len(label.segments) - 1 == len(evidence.inside) - 1
    least, most = min(SHARES.values()), max(SHARES.values())
    stated = [label.confidence, *(s.confidence for s in label.segments)]
    assert all(sure is not None and least - 1e-9 <= sure <= most + 1e-9 for sure in stated)


@settings(deadline=None, max_examples=100)
@given(episodes())
def test_pictures_alone_are_no_evidence_of_grippers_and_arms(run: Signals):
    blind = replace(run, grippers=(), state=None, speed=None)
    assert set(shown(blind).boundaries) <= {
        BoundaryEvidence.PICTURE_STANDS_STILL,
        BoundaryEvidence.ENDS_IN_STILL_PICTURE,
        BoundaryEvidence.DIPS,
        BoundaryEvidence.OTHER_RUNS,
    }
