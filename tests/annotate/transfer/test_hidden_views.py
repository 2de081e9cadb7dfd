"""A run laid beside its reference where each camera shows nothing for a while: by one camera, by the other, by both."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion import MotionConfig
from annotate.transfer import Reference, SeenRun, TransferConfig, annotate
from tests.kits.transfer_runs import PLAN, pace, run_along, steps_of

HIDDEN = ((0.15, 0.5), (0.6, 0.9))  # phases that each camera does not show
CAMERAS = {"first": (0,), "second": (1,), "both": (0, 1)}


def seen_by(phases: np.ndarray, episode: int, cameras: tuple[int, ...], *, hidden: bool) -> SeenRun:
    """A run of which nothing but pictures is known, by some of two cameras."""
    courses = [run_along(phases, episode, course=camera) for camera in (0, 1)]
    pictures = []
    for camera in cameras:
        [own] = courses[camera].pictures
        begins, ends = HIDDEN[camera]
        at = phases[courses[camera].frames]
        is_hidden = hidden & (begins <= at) & (at < ends)
        pictures.append(np.where(is_hidden[:, None], np.float32(0), own))
    signals = replace(courses[0].signals, speed=None, grippers=(), state=None)
    return SeenRun(signals, courses[0].frames, tuple(pictures))


def error(cameras: tuple[int, ...]) -> float:
    """Mean distance in phase between the moments of a run and those that it is taken to be like; 1: it follows none."""
    shown, followed = pace(200, 1), pace(240, 2)
    reference = Reference(seen_by(shown, 0, cameras, hidden=False), steps_of(shown), PLAN)
    runs = [reference.run, seen_by(followed, 1, cameras, hidden=True)]
    alignment = annotate(runs, [reference], TransferConfig(), MotionConfig())[1].alignment
    if alignment is None:
        return 1.0
    return float(np.abs(followed[alignment.frames] - shown[alignment.reference_frames]).mean())


def test_what_one_camera_hides_is_aligned_by_the_other() -> None:
    errors = {name: error(cameras) for name, cameras in CAMERAS.items()}
    assert errors["both"] < 0.5 * min(errors["first"], errors["second"]), errors
    assert errors["both"] == pytest.approx(0, abs=0.02), errors
