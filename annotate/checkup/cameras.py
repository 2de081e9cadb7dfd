"""Measures of one run's pictures: how long a camera is black, or shows one picture while the robot moves; leaps."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement, duration, num_frames
from annotate.checkup.signals import CameraSignals, RunSignals, is_moving
from annotate.signal_lag import percentile
from annotate.spans import stretches
from ingest.signals.gripper import moving_dimensions

FROZEN = LIMITS["camera_frozen"]
JUMPS = LIMITS["camera_jumps"]


def black_stretches(run: RunSignals) -> Iterator[Measurement]:
    """A camera is black, in a run in which it also shows something."""
    for camera in run.cameras:
        if not camera.is_black.all():
            for stretch in stretches(camera.is_black, 2):
                yield duration("camera_black", run, stretch, camera.camera)


def frozen_stretches(run: RunSignals) -> Iterator[Measurement]:
    """A camera shows one picture while the arm moves, or another camera sees motion, that it sees elsewhere."""
    min_frames = num_frames(FROZEN.minimum, run.fps)
    for camera in run.cameras:
        spans = stretches(_shows_one_picture(camera), min_frames)
        witnesses = {span: _witness(run, camera, *span) for span in spans}
        frozen = [span for span in spans if witnesses[span]]
        for span in [] if _are_at_one_place(run, frozen) else frozen:
            words = {"witness": witnesses[span]}
            yield duration("camera_frozen", run, span, camera.camera, words=words)


def _are_at_one_place(run: RunSignals, spans: Sequence[tuple[int, int]]) -> bool:
    """Is the arm at one place in several stretches: one that the camera does not see?"""
    if len(spans) < FROZEN.usual_stretches or run.state is None:
        return False
    arm = run.state[:, run.arm_dimensions("state")]
    is_active, spread = moving_dimensions(arm)
    places = arm[:, is_active] / spread[is_active]
    means = np.stack([places[start:end].mean(axis=0) for start, end in spans])
    distances = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    usual_distances = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    return float(np.median(distances)) < FROZEN.one_place * float(np.median(usual_distances))


def _shows_one_picture(camera: CameraSignals) -> np.ndarray:
    """Frames that show the picture of the frame before, bool [n]; a picture that is coded again is the same one."""
    is_same = (camera.change < FROZEN.still_change) & ~camera.is_black
    if len(is_same) > 1:
        is_same[0] = is_same[1]
    if not is_same.any():
        return is_same
    changes = camera.change[~is_same]
    usual_change = percentile(changes, 75) if len(changes) else 0.0
    limit = min(FROZEN.recoded_change, FROZEN.recoded_share * usual_change)
    has_same_neighbours = np.r_[is_same[1:], False] & np.r_[False, is_same[:-1]]
    return is_same | (has_same_neighbours & (camera.change < limit) & ~camera.is_black)


def _witness(run: RunSignals, camera: CameraSignals, start: int, end: int) -> str:
    """What moved while a camera stood still, in words; empty where nothing did that the camera sees elsewhere."""
    is_in_span = np.zeros(len(run), bool)
    is_in_span[start:end] = True
    # An arm that rests is no witness, and then what another camera sees may be beyond this one's view
    if run.arm_moves is not None:
        if _has_unseen_motion(run.arm_moves, camera, is_in_span, run.fps):
            return "the arm moves"
        return ""
    for other_camera in run.cameras:
        change = other_camera.change
        moves = is_moving(change.astype(np.float64)) & (change > 2 * FROZEN.still_change)
        if other_camera is not camera and _has_unseen_motion(moves, camera, is_in_span, run.fps):
            return f"{other_camera.camera} sees motion"
    return ""


def _has_unseen_motion(
    moves: np.ndarray, camera: CameraSignals, is_in_span: np.ndarray, fps: float
) -> bool:
    """Is there motion inside of a stretch, of a kind that the camera sees outside of it?"""
    moves_elsewhere = moves & ~is_in_span & ~camera.is_black
    num_moving = int((moves & is_in_span).sum())
    num_enough = min(FROZEN.motion * int(is_in_span.sum()), FROZEN.enough_s * fps)
    if num_moving < max(num_frames(FROZEN.motion_s, fps), num_enough) or not moves_elsewhere.any():
        return False
    return float((camera.change[moves_elsewhere] >= FROZEN.still_change).mean()) >= FROZEN.sees


def picture_jumps(run: RunSignals) -> Iterator[Measurement]:
    """From one frame to the next a camera shows something else: a cut, or a brightness or sharpness
    that leaps and stays."""
    if len(run) < JUMPS.frames:
        return
    for camera in run.cameras:
        yield from _leap("camera_jumps", run, camera, camera.change[1:])
        yield from _leap_that_stays("camera_jumps light", run, camera, camera.luma_mean)
        yield from _leap_that_stays("camera_jumps sharpness", run, camera, camera.sharpness)


def _leap(
    limit: str, run: RunSignals, camera: CameraSignals, steps: np.ndarray
) -> Iterator[Measurement]:
    """The largest step of [n - 1], beside the largest one but for the `cuts` of its limit; none of a small one."""
    # Where a black stretch begins and ends is told of that
    steps = np.where(camera.is_black[1:] | camera.is_black[:-1], 0.0, steps.astype(np.float64))
    frame = int(np.argmax(steps)) + 1
    size = float(steps[frame - 1])
    if size < LIMITS[limit].minimum:
        return
    light = abs(float(camera.luma_mean[frame] - camera.luma_mean[frame - 1]))
    kind = "the brightness leaps" if light >= JUMPS.light * size else "what it shows leaps"
    usual_step = float(np.sort(steps)[-1 - LIMITS[limit].cuts])
    stretch = frame, frame + 1
    words = {"kind": kind}
    yield Measurement(limit, run, size, usual_step, stretch, camera.camera, words=words)


def _leap_that_stays(
    limit: str, run: RunSignals, camera: CameraSignals, values: np.ndarray
) -> Iterator[Measurement]:
    """By how much the medians before and after the largest step of values [n] differ, where that is less."""
    for leap in _leap(limit, run, camera, np.abs(np.diff(values.astype(np.float64)))):
        frame, _ = leap.stretch or (0, 0)
        around = num_frames(JUMPS.stays_s, run.fps)
        median_before = float(np.median(values[max(0, frame - around) : frame]))
        stays = abs(float(np.median(values[frame : frame + around])) - median_before)
        words = {"kind": f"the {'sharpness' if 'sharpness' in limit else 'brightness'} leaps"}
        yield leap._replace(measured=stays, size=min(stays, leap.measured), words=words)
