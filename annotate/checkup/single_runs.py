"""What the checkup sees of one run, and measures of the run by itself.

Its pictures: how long a camera is black, or shows one picture while the
robot moves; leaps. Its rows: values that jump and come back, values that
stand still while the robot moves, frames that are missing between the
times; stored statistics; how alike rows and pictures are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement, duration, num_frames
from annotate.pictures import Measures
from annotate.signal_lag import FAST_PERCENTILE, compressed_curve, correlations, percentile
from annotate.spans import stretches
from ingest.episode import EpisodeData, StoredStatistics
from ingest.signals.gripper import GripperSignal, moving_dimensions, way_steps

MOVING = 0.25  # of its fast speed: an arm that is faster moves


@dataclass(frozen=True)
class CameraSignals(Measures):
    """What was measured of the pictures of one camera of a run."""

    camera: str


@dataclass(frozen=True)
class RunSignals:
    """One run with n frames.

    state, action: float64 [n, d] in the source's units, None where there is none. times_s: [n].
    openings: of each gripper [n], 0 closed to 1 open, or None. grippers: the signals that they are
    of. cameras: the usable ones, the preferred one first. statistics: what the source states of the
    values.
    """

    episode_index: int
    fps: float
    task: str | None
    success: bool | None
    times_s: np.ndarray | None
    state: np.ndarray | None
    action: np.ndarray | None
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    grippers: Sequence[GripperSignal]
    openings: Sequence[np.ndarray | None]
    cameras: Sequence[CameraSignals] = field(default=())
    statistics: Sequence[StoredStatistics] = ()

    def __len__(self) -> int:
        return len(self.cameras[0].change)

    def arm_dimensions(self, column: str) -> list[int]:
        """Dimensions of state or action that belong to no gripper or hand."""
        values: np.ndarray | None = getattr(self, column)
        if values is None:
            return []
        of_column = (signal for signal in self.grippers if signal.column == column)
        gripper_dimensions = set(chain.from_iterable(signal.dimensions for signal in of_column))
        return [d for d in range(values.shape[1]) if d not in gripper_dimensions]

    def title(self, column: str, dimension: int) -> str:
        """Such as "state[3] shoulder"."""
        names: tuple[str, ...] = getattr(self, f"{column}_names")
        name = names[dimension] if dimension < len(names) else ""
        if name != f"{column}[{dimension}]":
            return f"{column}[{dimension}] {name}".strip()
        return name

    @cached_property
    def arm_speed(self) -> np.ndarray | None:
        """How fast the arm moves from the frame before, [n], in standard deviations a frame; None where it does not.

        0 at frame 0, unlike in `signal_lag.arm_speed`: of short runs one frame more decides how
        late they seem.
        """
        if self.state is None or len(self.state) != len(self) or len(self) < 2:
            return None
        arm = self.state[:, self.arm_dimensions("state")]
        steps = None if np.isinf(arm).any() else way_steps(arm)
        if steps is None:
            return None
        return np.r_[0.0, steps]

    @cached_property
    def fast_speed(self) -> float:
        """What is fast of `arm_speed`; 0 where there is none."""
        return 0.0 if self.arm_speed is None else percentile(self.arm_speed, FAST_PERCENTILE)

    @cached_property
    def arm_moves(self) -> np.ndarray | None:
        """Does the arm move at each frame? bool [n]; None where there is no state that tells."""
        if self.arm_speed is None:
            return None
        return is_moving(self.arm_speed)


def is_moving(speed: np.ndarray) -> np.ndarray:
    """Frames at which a speed [n] is beyond a share of its fast one, bool [n]."""
    fast = percentile(speed, FAST_PERCENTILE)
    if fast > 0:
        return speed > MOVING * fast
    return np.zeros(len(speed), bool)


def run_signals(
    episode: EpisodeData,
    fps: float,
    grippers: Sequence[GripperSignal],
    openings: Sequence[np.ndarray | None],
    cameras: Sequence[CameraSignals],
) -> RunSignals:
    """What is known of a run once it was decoded."""
    record = episode.record
    return RunSignals(
        record.episode_index,
        fps,
        record.task,
        record.success,
        episode.timestamps_s,
        episode.state,
        episode.action,
        episode.state_names,
        episode.action_names,
        grippers,
        openings,
        cameras,
        episode.statistics,
    )


FROZEN = LIMITS["camera_frozen"]
LEAPS = LIMITS["camera_jumps"]
JUMPS = LIMITS["state_jumps"]
STUCK = LIMITS["state_stuck"]
MISSING = LIMITS["frames_missing"]
LATE = LIMITS["rows_late"]
STALE = LIMITS["stale_statistics"]
MOST_JUMPING = 4  # steps of other jumps, which are no measure of ordinary motion

# First frame, frame after the last one, size, largest step elsewhere
type Jump = tuple[int, int, float, float]


# Pictures


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
    if len(run) < LEAPS.frames:
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
    kind = "the brightness leaps" if light >= LEAPS.light * size else "what it shows leaps"
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
        around = num_frames(LEAPS.stays_s, run.fps)
        median_before = float(np.median(values[max(0, frame - around) : frame]))
        stays = abs(float(np.median(values[frame : frame + around])) - median_before)
        words = {"kind": f"the {'sharpness' if 'sharpness' in limit else 'brightness'} leaps"}
        yield leap._replace(measured=stays, size=min(stays, leap.measured), words=words)


# Rows


def jumps(run: RunSignals) -> Iterator[Measurement]:
    """A dimension of the arm's state is elsewhere for a frame or a few, farther than it moves in any other step."""
    if run.state is None or len(run.state) < 10:
        return
    arm = run.arm_dimensions("state")
    active, _ = moving_dimensions(run.state[:, arm])
    spans: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    sizes = _possible_jumps(run.state)
    for dimension in np.array(arm)[active].tolist():
        values = run.state[:, dimension]
        for start, end, size, usual_step in _jumps(values, sizes[:, :, dimension]):
            spans.setdefault((start, end), []).append((dimension, size, usual_step))
    for (start, end), parts in sorted(spans.items()):
        dimension, size, usual_step = max(parts, key=lambda part: part[1] / part[2])
        num_others = len(parts) - 1
        words = {
            "others": f" and {num_others} more dimensions" if num_others else "",
            "length": end - start,
        }
        yield Measurement(
            "state_jumps",
            run,
            size,
            usual_step,
            (start, end),
            signal=run.title("state", dimension),
            words=words,
        )


def _possible_jumps(values: np.ndarray) -> np.ndarray:
    """How far values [n, d] are elsewhere for a few frames, and then back.

    float64 [JUMPS.frames, n, d]: for 1, 2 .. frames from each frame on; 0
    where they are not, or not farther than in any but the largest steps.
    """
    sizes = np.zeros((JUMPS.frames, *values.shape))
    steps = np.sort(np.abs(np.diff(values, axis=0)), axis=0)
    # Those of a jump, and of others
    largest = JUMPS.frames + 1 + MOST_JUMPING
    least_size = JUMPS.times * steps[-1 - largest] if len(steps) > largest else 0.0
    for length in range(1, JUMPS.frames + 1):
        end = len(values) - length
        start_values = values[: end - 1]
        jump_values = values[1:end]
        end_values = values[length + 1 :]
        middle = (start_values + end_values) / 2
        distances = [np.abs(values[1 + k : end + k] - middle) for k in range(length)]
        size = np.minimum.reduce(distances)
        is_back = (np.abs(end_values - start_values) <= JUMPS.back * size) & (size > 0)
        # The same angle a turn further, or the same rotation as the opposite quaternion
        is_same = np.abs(jump_values + start_values) < 0.05 * size
        for turn in JUMPS.turns:
            is_same |= np.abs(size - turn) < 0.05 * turn
        is_far = (size >= least_size) & is_back & ~is_same
        sizes[length - 1, 1:end] = np.where(is_far, size, 0.0)
    return sizes


def _jumps(values: np.ndarray, sizes: np.ndarray) -> list[Jump]:
    """Jumps of one dimension [n] among those that are possible, [JUMPS.frames, n]."""
    steps = np.abs(np.diff(values))
    if not sizes.any() or not np.isfinite(steps).all():
        return []
    # A jump is among the largest steps of its run; these are looked at in order of time
    starts = np.argsort(steps)[::-1][: 4 * JUMPS.most] + 1
    spans: list[Jump] = []
    for start in np.sort(starts).tolist():
        is_within_last = spans and start <= spans[-1][1]
        for length in [] if is_within_last else (np.flatnonzero(sizes[:, start]) + 1).tolist():
            end = start + length
            size = float(sizes[length - 1, start])
            other_steps = np.sort(np.r_[steps[: start - 1], steps[end:]])
            usual_step = float(other_steps[-1 - min(MOST_JUMPING, len(other_steps) // 50)])
            low, high = np.percentile(np.r_[values[:start], values[end:]], (1, 99))
            if 0 < JUMPS.times * usual_step <= size and size >= JUMPS.share * (high - low):
                spans.append((start, end, size, usual_step))
                break
    if len(spans) <= JUMPS.most:
        return spans
    return []


def stuck_stretches(run: RunSignals) -> Iterator[Measurement]:
    """All dimensions of the arm's state keep their values for a stretch, while pictures change as
    they do when the arm moves."""
    if run.state is None or run.arm_moves is None or len(run.state) != len(run):
        return
    arm = run.state[:, run.arm_dimensions("state")]
    is_same = np.r_[False, (np.diff(arm, axis=0) == 0).all(axis=1)]
    for stretch in stretches(is_same, max(3, num_frames(STUCK.minimum, run.fps))):
        if witness := _stuck_witness(run, *stretch):
            words = {"witness": witness}
            yield duration("state_stuck", run, stretch, signal="state", words=words)


def _stuck_witness(run: RunSignals, start: int, end: int) -> str:
    """What shows motion while the state keeps its value, in words; empty where nothing does."""
    assert run.arm_moves is not None
    assert run.arm_speed is not None
    is_elsewhere = np.ones(len(run), bool)
    is_elsewhere[start:end] = False
    moves = run.arm_moves & is_elsewhere
    rests = (run.arm_speed <= STUCK.rest * run.fast_speed) & is_elsewhere
    if not moves.any():
        return ""
    for camera in run.cameras:
        change = camera.change
        moving_change = float(np.median(change[moves]))
        # Where the arm never rests, a stretch has to look as motion does
        if rests.sum() >= 5:
            resting = percentile(change[rests], FAST_PERCENTILE)
        else:
            resting = STUCK.change * moving_change
        limit = max(STUCK.change * moving_change, resting)
        if (change[start:end] >= limit).mean() >= STUCK.seen:
            return f"{camera.camera} shows motion"
    return ""


def missing_frames(run: RunSignals) -> Iterator[Measurement]:
    """Frames that the rows' times leave out: gaps that no later row makes up for, as late stamps do."""
    if run.times_s is None or len(run.times_s) < 10 or not np.isfinite(run.times_s).all():
        return
    gaps, frame_interval = time_gaps(run.times_s)
    missing = sum(count for _, count in gaps)
    longest_row, longest = max(gaps, key=lambda gap: gap[1], default=(0, 0))
    words = {
        "num_places": len(gaps),
        "longest_s": longest * frame_interval,
        "longest_row": longest_row,
    }
    if gaps:
        yield Measurement(
            "frames_missing",
            run,
            missing,
            0.0,
            (gaps[0][0] - 1, gaps[-1][0] + 1),
            signal="times",
            size=max(missing, MISSING.at_one_place * longest),
            words=words,
        )


def time_gaps(times_s: np.ndarray) -> tuple[list[tuple[int, int]], float]:
    """Gaps of rows' times [n]: the row after each, and how many frames are missing; and the usual step in seconds."""
    steps = np.diff(times_s)
    frame_interval = float(np.median(steps))
    after_long_steps = np.flatnonzero(steps > MISSING.long_step * frame_interval)
    if frame_interval <= 0 or not len(after_long_steps):
        return [], frame_interval
    # What remains of each time when every row had taken the usual step
    delays_s = times_s - np.arange(len(times_s)) * frame_interval
    gaps = []
    for k in after_long_steps:
        delay_before = float(np.median(delays_s[max(0, k - MISSING.settles) : k + 1]))
        delay_after = float(np.median(delays_s[k + 1 : k + 2 + MISSING.settles]))
        count = round((delay_after - delay_before) / frame_interval)
        if count >= 1 and delay_after - delay_before > (MISSING.long_step - 1) * frame_interval:
            gaps.append((int(k) + 1, count))
    return gaps, frame_interval


def idle_seconds(run: RunSignals) -> dict[str, float]:
    """Seconds at the `start` and at the `end` in which neither arm, nor gripper, nor pictures move."""
    still = np.ones(len(run), bool)
    speed = run.arm_speed
    if speed is not None:
        still &= speed <= 0.2 * MOVING * run.fast_speed
    for curve in run.openings:
        if curve is not None and len(curve) == len(run):
            still &= np.abs(np.diff(curve, prepend=curve[0])) < 0.02
    if speed is None:
        still &= ~is_moving(run.cameras[0].change.astype(np.float64))
    moves = np.flatnonzero(~still)
    if not len(moves):
        return {"start": 0.0, "end": 0.0}
    last = len(run) - 1 - moves[-1]
    return {"start": float(moves[0] / run.fps), "end": float(last / run.fps)}


def row_curve(run: RunSignals) -> np.ndarray | None:
    """Likeness of pictures and rows where rows are so many frames later, [2 * most + 1]; None where it tells nothing.

    How much pictures change is compared with how fast the arm moves, each as the square root of its share of what is
    fast, so that neither a cut nor a jerk decides. The mean over the cameras that show any change.
    """
    max_lag = max(3, round(LATE.most_s * run.fps))
    if run.arm_speed is None or len(run) < max(LATE.lengths * max_lag, LATE.frames):
        return None
    arm_motion = compressed_curve(run.arm_speed)
    # The change of frame 0 is not known
    changes = [np.r_[c.change[1:2], c.change[1:]].astype(np.float64) for c in run.cameras]
    seen_changes = [compressed_curve(change) for change in changes if change.std() > 0]
    if seen_changes:
        curves = correlations(np.stack(seen_changes), arm_motion[None], max_lag)
        return np.mean(curves[:, 0], axis=0)
    return None


def stale_statistics(run: RunSignals) -> Iterator[Measurement]:
    """Rows beyond the range that is stored of all rows; or another range or mean than is stored of this episode.

    What is stored of them and cannot be read is told, too.
    """
    for stored in run.statistics:
        values = run.state if stored.vector == "state" else run.action
        if stored.problem:
            yield Measurement(
                "stale_statistics unread",
                run,
                0.0,
                words={"problem": stored.problem},
            )
        elif values is None or not len(values) or not np.isfinite(values).all():
            continue
        elif (width := values.shape[1]) != len(stored.low):
            yield Measurement(
                "stale_statistics width",
                run,
                width,
                len(stored.low),
                signal=stored.vector,
                words={"file": stored.file},
            )
        else:
            yield _largest_difference(run, values, stored)


def _largest_difference(
    run: RunSignals, values: np.ndarray, stored: StoredStatistics
) -> Measurement:
    """What differs most, of which dimension, as measured and as stored."""
    measured = np.stack([values.max(axis=0), values.min(axis=0), values.mean(axis=0)])
    statements = np.stack([stored.high, stored.low, stored.mean])
    extent = np.maximum(stored.high - stored.low, 1e-9)
    spread = np.maximum(stored.spread, 1e-3 * extent)
    excess = np.abs(measured - statements) / [extent, extent, spread]
    excess /= np.array([STALE.range, STALE.range, STALE.mean])[:, None]
    # Rows of one episode have to reach its own ends and mean, but need not reach those of all rows
    if not stored.is_of_episode:
        excess[0, measured[0] < statements[0]] = 0
        excess[1, measured[1] > statements[1]] = 0
        excess[2] = 0
    kind, dimension = map(int, np.unravel_index(np.argmax(excess), excess.shape))
    statistic = ("largest value", "smallest value", "mean")[kind]
    value = float(measured[kind, dimension])
    statement = float(statements[kind, dimension])
    is_rounding = abs(value - statement) <= STALE.rounding * max(1.0, abs(statement))
    return Measurement(
        "stale_statistics",
        run,
        value,
        statement,
        signal=run.title(stored.vector, dimension),
        size=0.0 if is_rounding else float(excess[kind, dimension]),
        words={"file": stored.file, "kind": statistic},
    )
