"""Measures of one run's rows: values that jump and come back, values that stand still while the robot
moves, frames that are missing between the times; stored statistics; how alike rows and pictures are."""

from collections.abc import Iterator

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement, duration, num_frames
from annotate.checkup.signals import MOVING, RunSignals, is_moving
from annotate.signal_lag import FAST_PERCENTILE, compressed_curve, correlations, percentile
from annotate.spans import stretches
from ingest.episode import StoredStatistics
from ingest.signals.gripper import moving_dimensions

JUMPS = LIMITS["state_jumps"]
STUCK = LIMITS["state_stuck"]
MISSING = LIMITS["frames_missing"]
LATE = LIMITS["rows_late"]
STALE = LIMITS["stale_statistics"]
MOST_JUMPING = 4  # steps of other jumps, which are no measure of ordinary motion

# First frame, frame after the last one, size, largest step elsewhere
type Jump = tuple[int, int, float, float]


def jumps(run: RunSignals) -> Iterator[Measurement]:
    """A dimension of the arm's state is elsewhere for a frame or a few, farther than it moves in any other step."""
    if run.state is None or len(run.state) < 10:
        return
    arm = run.arm_dimensions("state")
    active, _ = moving_dimensions(run.state[:, arm])
    spans: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    starts = _possible_starts(run.state)
    for dimension in np.array(arm)[active].tolist():
        values = run.state[:, dimension]
        for start, end, size, usual_step in _jumps(values, starts[:, dimension]):
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


def _possible_starts(values: np.ndarray) -> np.ndarray:
    """Frames of values [n, d] from which they are elsewhere for a few frames, and then back, bool [n, d]; where they
    are farther than they move in any but the largest steps, which may be those of jumps."""
    may_start = np.zeros(values.shape, bool)
    steps = np.sort(np.abs(np.diff(values, axis=0)), axis=0)
    largest = JUMPS.frames + 1 + MOST_JUMPING
    least_size = JUMPS.times * steps[-1 - largest] if len(steps) > largest else 0.0
    for length in range(1, JUMPS.frames + 1):
        end = len(values) - length
        earlier = values[: end - 1]
        later = values[length + 1 :]
        middle = (earlier + later) / 2
        distances = [np.abs(values[1 + k : end + k] - middle) for k in range(length)]
        size = np.minimum.reduce(distances)
        may_start[1:end] |= (np.abs(later - earlier) <= JUMPS.back * size) & (size >= least_size)
    return may_start


def _jumps(values: np.ndarray, may_start: np.ndarray) -> list[Jump]:
    """Jumps of one dimension [n], where one may start."""
    if not may_start.any():
        return []
    steps = np.abs(np.diff(values))
    if not np.isfinite(steps).all() or not steps.any():
        return []
    # A jump is among the largest steps of its run; these are looked at in order of time
    largest = np.argsort(steps)[::-1][: 4 * JUMPS.most]
    spans: list[Jump] = []
    for step in sorted(largest[may_start[largest + 1]].tolist()):
        if spans and step < spans[-1][1]:
            continue
        for length in range(1, JUMPS.frames + 1):
            jump = _jump(values, steps, step + 1, step + 1 + length)
            if jump:
                spans.append(jump)
                break
    if len(spans) <= JUMPS.most:
        return spans
    return []


def _jump(values: np.ndarray, steps: np.ndarray, start: int, end: int) -> Jump | None:
    """The jump at frames start to end; None where the values there are an ordinary motion."""
    if start < 1 or end >= len(values):
        return None
    value_before = values[start - 1]
    value_after = values[end]
    size = float(np.abs(values[start:end] - (value_before + value_after) / 2).min())
    if (
        size == 0
        or abs(value_after - value_before) > JUMPS.back * size
        or _is_same_angle(values[start], value_before, size)
    ):
        return None
    other_steps = np.r_[steps[: start - 1], steps[end:]]
    usual_step = float(np.sort(other_steps)[-1 - min(MOST_JUMPING, len(other_steps) // 50)])
    if usual_step <= 0 or size < JUMPS.times * usual_step:
        return None
    other_values = np.r_[values[:start], values[end:]]
    low, high = np.percentile(other_values, (1, 99))
    if size < JUMPS.share * (high - low):
        return None
    return start, end, size, usual_step


def _is_same_angle(value: float, value_before: float, size: float) -> bool:
    """Is it the same angle a turn further, or the same rotation as the opposite quaternion?"""
    is_turn = any(abs(size - turn) < 0.05 * turn for turn in JUMPS.turns)
    return is_turn or abs(value + value_before) < 0.05 * size


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
    low = values.min(axis=0)
    high = values.max(axis=0)
    mean = values.mean(axis=0)
    extent = np.maximum(stored.high - stored.low, 1e-9)
    above = high - stored.high
    below = stored.low - low
    # Rows of one episode need not reach the ends of all rows, but have to reach its own
    if stored.is_of_episode:
        above = np.abs(above)
        below = np.abs(below)
    excesses = {
        "largest value": (high, stored.high, above / extent / STALE.range),
        "smallest value": (low, stored.low, below / extent / STALE.range),
    }
    if stored.is_of_episode:
        spread = np.maximum(stored.spread, 1e-3 * extent)
        excesses["mean"] = (mean, stored.mean, np.abs(mean - stored.mean) / spread / STALE.mean)
    statistic = max(excesses, key=lambda name: float(excesses[name][2].max()))
    measured, stored_values, excess = excesses[statistic]
    dimension = int(np.argmax(excess))
    value = float(measured[dimension])
    statement = float(stored_values[dimension])
    is_rounding = abs(value - statement) <= STALE.rounding * max(1.0, abs(statement))
    return Measurement(
        "stale_statistics",
        run,
        value,
        statement,
        signal=run.title(stored.vector, dimension),
        size=0.0 if is_rounding else float(excess[dimension]),
        words={"file": stored.file, "kind": statistic},
    )
