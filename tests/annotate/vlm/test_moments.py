"""ArmMoments that an arm's signals show, and a model's boundaries beside them."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from annotate.config import MotionConfig, VlmConfig
from annotate.motion.observe import GripperCurve, Signals
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.moments import NO_MOMENTS, ArmMoments, moments_of, settled_starts
from annotate.vlm.windows import Span
from core.domain.label import DONE, IDLE
from tests.kits.vlm_episodes import knowing, view_of

FPS = 10.0
N = 200
GAP = 5  # frames between pictures: two a second


def arm(closes_at: int = 60, stops: tuple[int, int] = (100, 120), slow_at: int = 160) -> Signals:
    """It moves, closes its gripper, stands still for two seconds, and is slow at the end."""
    speed = np.ones(N)
    speed[stops[0] : stops[1]] = 0.0
    speed[slow_at - 4 : slow_at + 5] = np.abs(np.arange(-4, 5)) / 10
    opening = np.clip(1 - (np.arange(N) - closes_at) / 5, 0, 1)
    return Signals(FPS, speed, speed, [GripperCurve(opening)])


def test_rests_grips_and_slow_moments_are_found_where_they_are():
    run_moments = moments_of(arm(), MotionConfig())
    assert run_moments.comes_to_rest == pytest.approx((100,), abs=1)
    assert run_moments.sets_out == pytest.approx((120,), abs=1)
    assert run_moments.grips == pytest.approx((60,), abs=1)
    assert any(abs(frame - 160) <= 1 for frame in run_moments.slow)
    still = Signals(FPS, np.zeros(N), np.zeros(N), [GripperCurve(np.ones(N))])
    assert moments_of(still, MotionConfig()) == NO_MOMENTS


SEEN = (60, 100, 120, 160)  # where a person cuts the run of `arm`
LABELS = (0, 1, IDLE, 2, 3)
AT = ArmMoments(comes_to_rest=(100,), sets_out=(120,), grips=(60,), slow=(160,))


def spans(starts: Sequence[int], labels: Sequence[int | str] = LABELS) -> list[Span]:
    """As a model tells them that sees pictures GAP frames apart."""
    inner = [
        Span(label, start - 3, start + 2, True)
        for label, start in zip(labels[1:], starts, strict=True)
    ]
    return [Span(labels[0], -1, 0, True), *inner]


def put(
    starts: Sequence[int], moments: ArmMoments = AT, labels: Sequence[int | str] = LABELS
) -> list[int]:
    return settled_starts(spans(starts, labels), [0, *starts], moments, FPS, N)[1:]


def test_boundaries_that_lie_off_what_the_arm_shows_are_put_there():
    assert put([55, 106, 114, 167]) == [*SEEN]
    assert put([62, 98, 121, 158]) == [62, 98, 121, 158], (
        "as exact as the pictures: nothing is known better"
    )
    assert put([55, 106, 114, 167], NO_MOMENTS) == [55, 106, 114, 167]
    # Half a second off on the whole, one of them too far from any moment
    assert put([55, 106, 114, 180]) == [60, 100, 120, 180]
    # Only moments of slowness: what is within half a second of them stays
    assert put([55, 156], ArmMoments(slow=(60, 160)), (0, 1, 2)) == [55, 156]
    assert put([54, 154], ArmMoments(slow=(60, 160)), (0, 1, 2)) == [60, 160]


def test_a_moment_is_of_one_boundary_and_of_its_kind():
    # Nobody stands still before the first step ends, so it does not begin where the arm comes to rest
    assert put([94, 130], ArmMoments(comes_to_rest=(100,), grips=(124,)), (0, 1, 2)) == [94, 124]
    assert put([94, 130], ArmMoments(comes_to_rest=(100,), grips=(124,)), (0, DONE, 2)) == [
        100,
        124,
    ]
    # Two boundaries, one moment: the nearer one gets it; and no boundary passes another
    assert put([54, 68], ArmMoments(grips=(60,)), (0, 1, 2)) == [60, 68]
    crossed = put([55, 62], ArmMoments(grips=(48,), comes_to_rest=(69,)), (0, IDLE, 2))
    assert crossed == sorted(crossed)


def test_a_label_says_where_the_arm_decided():
    view = view_of(300, moments=ArmMoments(grips=(84, 205)), frames=(0,))
    model = knowing([(0, "1", True), (99, "2", True), (190, "3", True)])
    label = asyncio.run(annotate_episode(view, model, VlmConfig(verify=False, contact_sheet=False)))
    assert [s.start_frame for s in label.segments] == [0, 84, 205]
    assert "put where the arm shows it, 0.5 s off the model's" in (label.segments[1].notes or "")


def test_equal_parts_that_were_moved_are_doubted_all_the_same():
    model = knowing([(0, "1", True), (100, "2", True), (200, "3", True)])
    moved_label = asyncio.run(
        annotate_episode(
            view_of(300, moments=ArmMoments(grips=(84, 221))), model, VlmConfig(contact_sheet=False)
        )
    )
    assert [s.start_frame for s in moved_label.segments] == [0, 84, 221]
    assert "the model divides the run into equal parts" in moved_label.notes
    assert moved_label.needs_review
