"""Checks of one run's pictures: a camera that is black, or shows one picture while the robot moves."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.signals import CameraSignals, RunSignals, is_moving
from annotate.spans import stretches
from ingest.signals.gripper import moving_dimensions

MIN_BLACK_S = 0.5
MIN_FROZEN_S = 1.5
# Mean change of luma, 0..1, of a picture that was encoded again: what the coding of a still picture makes of it
STILL_CHANGE = 4e-4
USUAL_STRETCHES = 3  # of one picture while the arm moves, in one run
ONE_PLACE = (
    0.25  # of the usual distance of the arm from the middle of its places: within it is one place
)
# Codecs give a still picture anew at key frames, and refine it in the frames after: so much changes in single frames
RECODED_CHANGE, RECODED_SHARE = 6e-3, 0.3  # and no more than this share of what motion changes
# Share of the moments of motion at which a camera has to change elsewhere in the run
MIN_SEES = 0.8
# A cut: change of luma from frame to frame, 0..1, and times the largest other one but for so many cuts
MIN_CUT = 0.03
CUT_TIMES = 4.0
MAX_CUTS = 6
MIN_FRAMES = 20
MIN_LEAP, STAYS_S = 0.12, 1.0  # of mean luma; wrist cameras of real sets go up to 0.10 in a frame
# Of sharpness, a logarithm: a camera that moves changes it by up to 0.15 in a frame, in up to so many frames
MIN_BLUR, BLUR_TIMES, MAX_BLURS = 0.2, 2.5, 3
CUT_IS_LIGHT = 0.8  # of the change: so much of it is of the mean brightness
MIN_MOTION_S = 0.8  # of motion within a stretch: so long an arm does not move unseen
# Share of a stretch in which there is motion; of a long one ENOUGH_MOTION_S are enough
MIN_MOTION = 0.7
ENOUGH_MOTION_S = 2.0


def black_stretches(run: RunSignals) -> Iterator[Finding]:
    """A camera is black for at least MIN_BLACK_S, in a run in which it also shows something."""
    for camera in run.cameras:
        if camera.is_black.all():
            continue
        for start, end in stretches(camera.is_black, _num_frames(MIN_BLACK_S, run.fps)):
            seconds = (end - start) / run.fps
            detail = f"{camera.camera} is black for {seconds:.1f} s from {start / run.fps:.1f} s on"
            yield run_fault(
                "camera_black",
                run.episode_index,
                start,
                end,
                detail,
                seconds,
                MIN_BLACK_S,
                "s",
                camera.camera,
            )


def frozen_stretches(run: RunSignals) -> Iterator[Finding]:
    """A camera shows one picture while the arm moves, or another camera sees motion, that it sees elsewhere."""
    for camera in run.cameras:
        spans = stretches(_shows_one_picture(camera), _num_frames(MIN_FROZEN_S, run.fps))
        witnessed = [(start, end, _witness(run, camera, start, end)) for start, end in spans]
        frozen = [span for span in witnessed if span[2]]
        if _are_at_one_place(run, [(start, end) for start, end, _ in frozen]):
            frozen = []
        for start, end, witness in frozen:
            seconds = (end - start) / run.fps
            detail = f"{camera.camera} shows one picture for {seconds:.1f} s from {start / run.fps:.1f} s on"
            text = f"{detail}, while {witness}"
            yield run_fault(
                "camera_frozen",
                run.episode_index,
                start,
                end,
                text,
                seconds,
                MIN_FROZEN_S,
                "s",
                camera.camera,
            )


def _are_at_one_place(run: RunSignals, spans: Sequence[tuple[int, int]]) -> bool:
    """Is the arm at one place in several stretches: one that the camera does not see?"""
    if len(spans) < USUAL_STRETCHES or run.state is None:
        return False
    arm = run.state[:, run.arm_dimensions("state")]
    is_active, spread = moving_dimensions(arm)
    places = arm[:, is_active] / spread[is_active]
    means = np.stack([places[start:end].mean(axis=0) for start, end in spans])
    distances = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    usual_distances = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    return float(np.median(distances)) < ONE_PLACE * float(np.median(usual_distances))


def _shows_one_picture(camera: CameraSignals) -> np.ndarray:
    """Frames that show the picture of the frame before, bool [n]; a picture that is coded again is the same one."""
    is_same = (camera.change < STILL_CHANGE) & ~camera.is_black
    if len(is_same) > 1:
        is_same[0] = is_same[1]
    changes = camera.change[~is_same]
    if len(changes):
        limit = min(RECODED_CHANGE, RECODED_SHARE * float(np.percentile(changes, 75)))
    else:
        limit = 0.0
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
        if other_camera is camera:
            continue
        moves = is_moving(other_camera.change.astype(np.float64)) & (
            other_camera.change > 2 * STILL_CHANGE
        )
        if _has_unseen_motion(moves, camera, is_in_span, run.fps):
            return f"{other_camera.camera} sees motion"
    return ""


def _has_unseen_motion(
    moves: np.ndarray, camera: CameraSignals, is_in_span: np.ndarray, fps: float
) -> bool:
    """Is there motion inside of a stretch, of a kind that the camera sees outside of it?"""
    moves_elsewhere = moves & ~is_in_span & ~camera.is_black
    num_moving = int((moves & is_in_span).sum())
    num_inside = int(is_in_span.sum())
    min_moving = max(
        _num_frames(MIN_MOTION_S, fps), min(MIN_MOTION * num_inside, ENOUGH_MOTION_S * fps)
    )
    if num_moving < min_moving or not moves_elsewhere.any():
        return False
    return float((camera.change[moves_elsewhere] >= STILL_CHANGE).mean()) >= MIN_SEES


def _num_frames(seconds: float, fps: float) -> int:
    return max(2, round(seconds * fps))


def picture_jumps(run: RunSignals) -> Iterator[Finding]:
    """From one frame to the next a camera shows something else: a cut, or a brightness or sharpness
    that leaps and stays."""
    for camera in run.cameras:
        if len(run) >= MIN_FRAMES:
            jump = (
                _cut_picture(camera)
                or _leap_of_light(camera, run.fps)
                or _leap_of_sharpness(camera, run.fps)
            )
            if jump:
                frame, size, usual_change, kind = jump
                unit = "logarithm" if "sharpness" in kind else "of luma"
                steps = f"by {size:.2f}; else it changes by up to {usual_change:.2f} from frame to frame"
                detail = f"{camera.camera}: {kind} at frame {frame}, {steps}"
                yield run_fault(
                    "camera_jumps",
                    run.episode_index,
                    frame,
                    frame + 1,
                    detail,
                    size,
                    usual_change,
                    unit,
                    camera.camera,
                )


def _cut_picture(camera: CameraSignals) -> tuple[int, float, float, str] | None:
    """The frame at which most changes, far more than at others but for a few cuts: frame, change, usual, in words."""
    change = camera.change[1:].astype(np.float64)
    # Where a black stretch begins and ends is told of that
    change[camera.is_black[1:] | camera.is_black[:-1]] = 0.0
    usual_change = float(np.sort(change)[-1 - MAX_CUTS])
    frame = int(np.argmax(change)) + 1
    size = float(change[frame - 1])
    if size < max(CUT_TIMES * usual_change, MIN_CUT):
        return None
    leap = abs(float(camera.luma_mean[frame] - camera.luma_mean[frame - 1]))
    return (
        frame,
        size,
        usual_change,
        "the brightness leaps" if leap >= CUT_IS_LIGHT * size else "what it shows leaps",
    )


def _leap_of_light(camera: CameraSignals, fps: float) -> tuple[int, float, float, str] | None:
    """The frame from which on the mean brightness is another one, likewise."""
    frame, step, size, usual_step = _largest_leap(camera.luma_mean, camera.is_black, fps, MAX_CUTS)
    if min(size, step) >= MIN_LEAP and size >= CUT_TIMES * usual_step:
        return (frame, size, usual_step, "the brightness leaps")
    return None


def _leap_of_sharpness(camera: CameraSignals, fps: float) -> tuple[int, float, float, str] | None:
    """The frame from which on the camera is out of focus, or in focus again, likewise."""
    frame, step, size, usual_step = _largest_leap(camera.sharpness, camera.is_black, fps, MAX_BLURS)
    if min(size, step) >= MIN_BLUR and step >= BLUR_TIMES * usual_step:
        return (frame, size, usual_step, "the sharpness leaps")
    return None


def _largest_leap(
    values: np.ndarray, is_black: np.ndarray, fps: float, max_cuts: int
) -> tuple[int, float, float, float]:
    """The largest step of values [n] that no black stretch makes: its frame, its size, by how much
    the medians before and after it differ, and the largest step but for `max_cuts`."""
    steps = np.abs(np.diff(values.astype(np.float64)))
    steps[is_black[1:] | is_black[:-1]] = 0.0
    frame = int(np.argmax(steps)) + 1
    around = _num_frames(STAYS_S, fps)
    median_before = float(np.median(values[max(0, frame - around) : frame]))
    median_after = float(np.median(values[frame : frame + around]))
    usual_step = float(np.sort(steps)[-1 - max_cuts])
    return frame, float(steps[frame - 1]), abs(median_after - median_before), usual_step
