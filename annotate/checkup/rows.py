"""Checks of one run's rows: values that jump and come back, values that stand still while the robot
moves, frames that are missing between the times."""

from collections.abc import Iterator

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.signals import MOVING, RunSignals, is_moving
from annotate.signal_lag import FAST_PERCENTILE
from annotate.spans import stretches
from ingest.signals.gripper import moving_dimensions

# A jump: the value leaves for at most so many frames, and is back where it was
JUMP_FRAMES = 3
MIN_JUMP_STEPS = 4.0  # times the largest step of the rest of the run
MIN_JUMP_SHARE = 0.1  # of the range that the dimension has in the rest of the run
BACK = 0.25  # of the jump: so near is back
TURN = (2 * np.pi, 360.0)  # a full turn is no jump, but another name of the same angle
MAX_JUMPS = 5  # of one dimension that are told: more of them are the way of that signal

MIN_STUCK_S = 1.0
MIN_STUCK_SEEN = 0.5  # share of a stuck stretch at which pictures show motion
SEEN_CHANGE = 0.5  # of the change of pictures that the moving arm makes at the median
AT_REST = 0.05  # of its fast speed: a slower arm rests

MIN_MISSING, MIN_GAP = 5, 3  # frames of a run, or at one place
LONG_STEP = 1.6  # times the usual step: a frame is missing
SETTLES = 4  # rows after a long step within which a late stamp is made up for


def jumps(run: RunSignals) -> Iterator[Finding]:
    """A dimension of the arm's state is elsewhere for a frame or a few, farther than it moves in any other step."""
    if run.state is None or len(run.state) < 10:
        return
    arm = run.arm_dimensions("state")
    active, _ = moving_dimensions(run.state[:, arm])
    spans: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    for dimension in np.array(arm)[active].tolist():
        values = run.state[:, dimension]
        for start, end, size, usual_step in _jumps(values):
            spans.setdefault((start, end), []).append((dimension, size, usual_step))
    for (start, end), parts in sorted(spans.items()):
        dimension, size, usual_step = max(parts, key=lambda part: part[1] / part[2])
        name = run.title("state", dimension)
        extra = f" and {len(parts) - 1} more dimensions" if len(parts) > 1 else ""
        detail = (
            f"{name}{extra} jumps by {size:.3g} at frame {start} and is back {end - start} frame(s) later; "
            f"the largest other step is {usual_step:.3g}"
        )
        yield run_fault(
            "state_jumps",
            run.episode_index,
            start,
            end,
            detail,
            size,
            usual_step,
            "of the source",
            signal=name,
        )


def _jumps(values: np.ndarray) -> list[tuple[int, int, float, float]]:
    """Jumps of one dimension [n]: first frame, frame after the last one, size, largest step elsewhere."""
    steps = np.abs(np.diff(values))
    if not np.isfinite(steps).all() or not steps.any():
        return []
    # A jump is among the largest steps of its run; these are looked at in order of time
    largest = np.argsort(steps)[::-1][: 4 * MAX_JUMPS]
    spans: list[tuple[int, int, float, float]] = []
    for step in sorted(int(s) for s in largest):
        if spans and step < spans[-1][1]:
            continue
        for length in range(1, JUMP_FRAMES + 1):
            jump = _jump(values, steps, step + 1, step + 1 + length)
            if jump:
                spans.append(jump)
                break
    if len(spans) <= MAX_JUMPS:
        return spans
    return []


def _jump(
    values: np.ndarray, steps: np.ndarray, start: int, end: int
) -> tuple[int, int, float, float] | None:
    """The jump at frames start to end; None where the values there are an ordinary motion."""
    if start < 1 or end >= len(values):
        return None
    value_before = values[start - 1]
    value_after = values[end]
    size = float(np.abs(values[start:end] - (value_before + value_after) / 2).min())
    if (
        size == 0
        or abs(value_after - value_before) > BACK * size
        or _is_same_angle(values[start], value_before, size)
    ):
        return None
    other_steps = np.r_[steps[: start - 1], steps[end:]]
    # Steps of other jumps are no measure of ordinary motion
    usual_step = float(np.sort(other_steps)[-1 - min(4, len(other_steps) // 50)])
    if usual_step <= 0 or size < MIN_JUMP_STEPS * usual_step:
        return None
    other_values = np.r_[values[:start], values[end:]]
    low, high = np.percentile(other_values, (1, 99))
    if size < MIN_JUMP_SHARE * (high - low):
        return None
    return start, end, size, usual_step


def _is_same_angle(value: float, value_before: float, size: float) -> bool:
    """Is it the same angle a turn further, or the same rotation as the opposite quaternion?"""
    is_turn = any(abs(size - turn) < 0.05 * turn for turn in TURN)
    return is_turn or abs(value + value_before) < 0.05 * size


def stuck_stretches(run: RunSignals) -> Iterator[Finding]:
    """All dimensions of the arm's state keep their values for a stretch, while pictures change as
    they do when the arm moves."""
    if run.state is None or run.arm_moves is None or len(run.state) != len(run):
        return
    arm = run.state[:, run.arm_dimensions("state")]
    is_same = np.r_[False, (np.diff(arm, axis=0) == 0).all(axis=1)]
    for start, end in stretches(is_same, max(3, round(MIN_STUCK_S * run.fps))):
        witness = _stuck_witness(run, start, end)
        if witness:
            seconds = (end - start) / run.fps
            detail = f"the state keeps one value for {seconds:.1f} s from {start / run.fps:.1f} s on, while {witness}"
            yield run_fault(
                "state_stuck",
                run.episode_index,
                start,
                end,
                detail,
                seconds,
                MIN_STUCK_S,
                "s",
                signal="state",
            )


def _stuck_witness(run: RunSignals, start: int, end: int) -> str:
    """What shows motion while the state keeps its value, in words; empty where nothing does."""
    assert run.arm_moves is not None
    assert run.arm_speed is not None
    is_elsewhere = np.ones(len(run), bool)
    is_elsewhere[start:end] = False
    moves = run.arm_moves & is_elsewhere
    rests = (
        run.arm_speed <= AT_REST * np.percentile(run.arm_speed, FAST_PERCENTILE)
    ) & is_elsewhere
    if not moves.any():
        return ""
    for camera in run.cameras:
        change = camera.change
        moving_change = float(np.median(change[moves]))
        # Where the arm never rests, a stretch has to look as motion does
        if rests.sum() >= 5:
            resting = float(np.percentile(change[rests], FAST_PERCENTILE))
        else:
            resting = SEEN_CHANGE * moving_change
        limit = max(SEEN_CHANGE * moving_change, resting)
        if (change[start:end] >= limit).mean() >= MIN_STUCK_SEEN:
            return f"{camera.camera} shows motion"
    return ""


def missing_frames(run: RunSignals) -> Iterator[Finding]:
    """Frames that the rows' times leave out: gaps that no later row makes up for, as late stamps do."""
    if run.times_s is None or len(run.times_s) < 10 or not np.isfinite(run.times_s).all():
        return
    gaps, frame_interval = time_gaps(run.times_s)
    missing = sum(count for _, count in gaps)
    longest_row, longest = max(gaps, key=lambda gap: gap[1], default=(0, 0))
    if missing < MIN_MISSING and longest < MIN_GAP:
        return
    longest_place = f"the longest {longest * frame_interval:.2g} s before row {longest_row}"
    detail = (
        f"{missing} frames are missing at {len(gaps)} places by the rows' times, {longest_place}"
    )
    place = run.episode_index, gaps[0][0] - 1, gaps[-1][0] + 1
    yield run_fault("frames_missing", *place, detail, missing, 0.0, "frames", signal="times")


def time_gaps(times_s: np.ndarray) -> tuple[list[tuple[int, int]], float]:
    """Gaps of rows' times [n]: the row after each, and how many frames are missing; and the usual step in seconds."""
    steps = np.diff(times_s)
    frame_interval = float(np.median(steps))
    if frame_interval <= 0:
        return [], frame_interval
    # What remains of each time when every row had taken the usual step
    delays_s = times_s - np.arange(len(times_s)) * frame_interval
    gaps = []
    for k in np.flatnonzero(steps > LONG_STEP * frame_interval):
        delay_before = float(np.median(delays_s[max(0, k - SETTLES) : k + 1]))
        delay_after = float(np.median(delays_s[k + 1 : k + 2 + SETTLES]))
        count = round((delay_after - delay_before) / frame_interval)
        if count >= 1 and delay_after - delay_before > (LONG_STEP - 1) * frame_interval:
            gaps.append((int(k) + 1, count))
    return gaps, frame_interval


def idle_seconds(run: RunSignals) -> tuple[float, float]:
    """Seconds at the start and at the end in which neither arm, nor gripper, nor pictures move."""
    still = np.ones(len(run), bool)
    speed = run.arm_speed
    if speed is not None:
        still &= speed <= 0.2 * MOVING * float(np.percentile(speed, FAST_PERCENTILE))
    for curve in run.openings:
        if curve is not None and len(curve) == len(run):
            still &= np.abs(np.diff(curve, prepend=curve[0])) < 0.02
    if speed is None:
        still &= ~is_moving(run.cameras[0].change.astype(np.float64))
    moves = np.flatnonzero(~still)
    if not len(moves):
        return 0.0, 0.0
    return float(moves[0] / run.fps), float((len(run) - 1 - moves[-1]) / run.fps)
