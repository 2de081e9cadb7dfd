"""Progress: a dense label in 0..1 from segments and visual change. Two modes, both O(n).

Ours: each planned step has a budget; an attempt at a step spends it as the arm comes nearer to
where the step ends, along the visual change above the noise floor, and along the time in which
there is any. A frozen arm earns nothing, an unfinished run stops at its completed share, a step
begun again takes its progress back. `procvlm`: the published ProcVLM formula (arXiv 2605.08774) as
implemented there, defects included.

A person may state more. A segment has a pace: `fast` rises twice as steeply as `slow`, `adjust`
stands still, `mistake` falls as steeply as `slow` rises. How steep that is follows from where the
curve ends. From the catastrophic frame on all progress is lost. Paces and slopes are those of
opensarm's labelling tool (xdofai/opensarm @6dd65047, generate_progress.py).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from annotate.config import MOST_OF_ATTEMPT, ProgressConfig
from annotate.pictures import hamming
from annotate.spans import equal_spans
from core.domain.label import IDLE, Segment, StatedEnd, slopes_of, undo

# A step's weight is its share of length times the number of steps, clipped
BUDGET_CLIP = (0.85, 1.15)
PUBLISHED_CLIP = (0.75, 1.25)
WAY_S = 0.2  # an arm's way is measured from point to point, this far apart: an arm that trembles between goes no way
NOT_STEPS = ("", "done", "done.", "not done", "not done.")


def budgets(lengths: Sequence[float | None]) -> np.ndarray:
    """Share of the whole task of each planned step, float64 [k], summing to 1.

    `lengths` are durations of the planned steps, None for one that was never attempted: it counts
    as a mean one. A weight is K x length / total, clipped, then made to sum to 1 over the planned
    steps.

    Example: budgets([30, 10]) has the weights 1.5 and 0.5, clipped to 1.15 and 0.85: it is [0.575,
    0.425].
    """
    mean = _mean_length(lengths)
    relative = [1.0 if length is None else length / mean for length in lengths]
    weights = np.clip(relative, *BUDGET_CLIP)
    return weights / weights.sum()


def _mean_length(lengths: Sequence[float | None]) -> float:
    """Of the attempted steps; 1 where none has any length, so that all weigh alike."""
    attempted = [length for length in lengths if length is not None]
    total = sum(attempted)
    if total > 0:
        return total / len(attempted)
    return 1.0


def progress(
    segments: Sequence[Segment],
    num_planned: int,
    change: np.ndarray,
    fps: float,
    config: ProgressConfig,
    end: float | None = None,
    state: np.ndarray | None = None,
) -> np.ndarray:
    """Our label, float32 [n]; `change` [n] is the visual change to the frame before, per frame.

    `state` [n, d] is that of the arm without its gripper, in the source's units; None where there
    is none.

    0 at frame 0; 1 at the end exactly when all planned steps are complete; rises only, except where
    a completed step is begun again. Frame i owns the change between frames i-1 and i, so what
    crosses a boundary is counted. `end`: where an unfinished run is known to end; its last attempt
    makes up for it as far as its budget allows.

    Example: two steps of equal budget, the first completed at frame 50 and the second not completed
    in frames 50 to 100. The label rises from 0 to 0.5 up to frame 49, and to 0.5 + 0.5 *
    `incomplete_share` = 0.75 up to frame 99.
    """
    motion = np.maximum(0.0, np.asarray(change, np.float64) - config.noise_floor_per_s / fps)
    account = _Account(budgets(_step_lengths(segments, num_planned)))
    out = np.zeros(len(change))
    attempts = _attempts(segments)
    next_frame = 0  # first frame whose label is not known yet
    for parts in attempts:
        # The first part says where the attempt begins, the last one whether it completed the step
        first = parts[0]
        last = parts[-1]
        step = first.step
        assert step is not None

        # Up to the attempt nothing is earned; a completed step that is begun again takes its progress back
        out[next_frame : first.start_frame] = account.level()
        account.begin(step)

        # How much of what the attempt earns is earned at each of its frames
        frames = np.concatenate([np.arange(max(1, s.start_frame), s.end_frame) for s in parts])
        earned = _earned_shares(motion[frames], even=last.completed)
        if state is not None and _earns_something(earned):
            near, straight = nearness(state[np.r_[max(0, frames[0] - 1), frames]], fps)
            earned = straight * near[1:] + (1 - straight) * earned

        # The share of its budget that the step has earned before the attempt and after it
        level_before = account.partial.pop(step, 0.0)
        base = account.level()
        budget = account.budgets[step]
        level_after = 1.0
        if not last.completed:
            goal = config.incomplete_share
            if end is not None and parts is attempts[-1]:
                goal = min(MOST_OF_ATTEMPT, (end - base) / budget)
            level_after = level_before + max(0.0, goal - level_before) * _earns_something(earned)

        out[first.start_frame : last.end_frame] = base + budget * level_before
        out[frames] = base + budget * (level_before + (level_after - level_before) * earned)
        for part, next_part in pairwise(parts):  # stand-stills between parts keep what was earned
            out[part.end_frame : next_part.start_frame] = out[part.end_frame - 1]
        account.close(step, level_after, completed=last.completed)
        if len(earned):
            out[last.end_frame - 1] = account.level()  # exactly, without what rounding leaves
        next_frame = last.end_frame
    out[next_frame:] = account.level()
    out[0] = 0.0
    return np.clip(out, 0.0, 1.0).astype(np.float32)


class _Account:
    """What has been earned of each step's budget."""

    def __init__(self, budgets: np.ndarray) -> None:
        self.budgets = budgets
        self.done: set[int] = set()
        # Share of its budget that a step not completed has earned so far
        self.partial: dict[int, float] = {}

    def level(self) -> float:
        """Progress so far; exactly 1 when all planned steps are complete."""
        if len(self.done) == len(self.budgets):
            return 1.0
        complete = sum(self.budgets[step] for step in self.done)
        incomplete = sum(self.budgets[step] * share for step, share in self.partial.items())
        return float(complete + incomplete)

    def begin(self, step: int) -> None:
        """An attempt at `step` begins: one at a completed step undoes it and what came after it."""
        if step in self.done:
            self.done = undo(self.done, step)
            self.partial = {k: share for k, share in self.partial.items() if k < step}

    def close(self, step: int, share: float, *, completed: bool) -> None:
        """An attempt at `step` has ended with that share of its budget."""
        if completed:
            self.done = self.done | {step}
        else:
            self.partial[step] = share


def _attempts(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Attempts at planned steps in their parts: one that a stand-still interrupts goes on after it."""
    attempts: list[list[Segment]] = []
    rested = False
    for segment in segments:
        # Only rest leaves an attempt open: after `done` the arm begins anew
        if segment.step is None:
            rested = segment.kind == IDLE
            continue
        # It goes on with the one before, where that did not complete the step
        if (
            rested
            and attempts
            and (attempts[-1][-1].step, attempts[-1][-1].completed) == (segment.step, False)
        ):
            attempts[-1].append(segment)
        else:
            attempts.append([segment])
        rested = False
    return attempts


def _earned_shares(motion: np.ndarray, *, even: bool) -> np.ndarray:
    """Share of a step done up to each frame, ending at 1: half by the change seen, half by the time in which any was.

    When nothing is seen to move: evenly in time for a step that was completed all the same, nothing
    for another.
    """
    n = len(motion)
    total = motion.sum()
    if total <= 0:
        if even:
            return np.arange(1, n + 1) / max(1, n)
        return np.zeros(n)
    moves = motion > 0
    return (np.cumsum(motion) / total + np.cumsum(moves) / moves.sum()) / 2


def _earns_something(earned: np.ndarray) -> bool:
    return bool(earned[-1:].sum() > 0)


def nearness(state: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
    """How much nearer the arm is to its end than where it began, float64 [n] in 0..1, and how straight its way is.

    Never falling, 1 at the end. Straight: the distance from start to end over the length of the
    way; 0 for a way that ends where it began, of which nearness tells nothing.
    """
    s = np.asarray(state, np.float64)
    distance_left = np.linalg.norm(s - s[-1], axis=1)  # distance to the end, [n]
    last = len(s) - 1
    # Few points, so that the trembling of an arm does not make its way longer
    points = s[np.r_[np.arange(0, last, max(1, round(WAY_S * fps))), last]]
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    if distance_left[0] <= 0 or length <= 0:
        return np.ones(len(s)), 0.0
    nearest_so_far = np.maximum.accumulate(np.clip(1 - distance_left / distance_left[0], 0, 1))
    straight = min(1.0, float(distance_left[0]) / length)
    return nearest_so_far, straight


def _step_lengths(segments: Sequence[Segment], num_planned: int) -> list[float | None]:
    """Frame intervals of the last attempt at each planned step; one left uncompleted says nothing of its length."""
    # Nothing leads to frame 0
    length_of = {
        s.step: float(s.end_frame - max(1, s.start_frame)) for s in segments if s.completed
    }
    return [length_of.get(step) for step in range(num_planned)]


def procvlm_labels(segments: Sequence[Segment], num_planned: int, num_frames: int) -> list[str]:
    """Per-frame names as the published flattening would make them from these segments.

    Only completed steps have both ends, so only they are labelled, each from the end of the one
    before; what remains is `done` when more than half of the planned steps completed, else it
    stretches the last step.
    """
    steps = [s for s in segments if s.step is not None]
    last_attempts = {s.step: s for s in steps}
    completed = [s for s in steps if s.completed and last_attempts[s.step] is s]
    labels: list[str] = []
    for s in completed:
        labels += [s.name] * (min(num_frames - 1, s.end_frame) - len(labels))

    # The frames after the last completed step belong to none: how much of the plan was completed names them
    missing = num_planned - len(completed)
    if missing * 2 < num_planned:
        last_label = "done"
    elif labels:
        last_label = labels[-1]
    else:
        last_label = "not done"
    return labels + [last_label] * (num_frames - len(labels))


def procvlm_progress(labels: Sequence[str], hashes: np.ndarray) -> np.ndarray:
    """The published formula, float32 [n]: per-frame step names and 64-bit perceptual hashes [n] to progress.

    Within a span, change is 0.5 + Hamming / 64, its first frame excluded; the span's budget is
    clipped as published; the label is the exclusive prefix sum over the total, so each label lags
    one frame.
    """
    # A span's budget goes to its frames in proportion to their change
    n = len(labels)
    change = 0.5 + hamming(np.asarray(hashes, np.uint64)) / 64.0
    steps = _step_spans(labels)
    total_length = sum(end - start for start, end in steps)
    gain = np.zeros(n)
    for start, end in steps:
        # Each span's first frame earns nothing, as published, so a span of one frame earns nothing at all
        step_change = change[start + 1 : end]
        if len(step_change):
            weight = np.clip(len(steps) * (end - start) / total_length, *PUBLISHED_CLIP)
            gain[start + 1 : end] = weight * step_change / step_change.sum()
    total = gain.sum()
    if total == 0:
        return np.zeros(n, np.float32)

    # Exclusive, so that each label lags one frame, as published
    gain_before = np.r_[0.0, np.cumsum(gain)[:-1]]
    return (gain_before / total).astype(np.float32)


def _step_spans(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Half-open spans of frames with one and the same name of a step."""
    return [
        (start, end)
        for start, end in equal_spans(labels)
        if labels[start].strip().lower() not in NOT_STEPS
    ]


def stated_progress(
    segments: Sequence[Segment], ordinary: np.ndarray, end: StatedEnd
) -> np.ndarray:
    """Progress as stated, float32 [n]; `ordinary` [n] is what `progress` makes of the segments alone.

    Without paces it is the ordinary curve, stretched to the final progress. With paces: 0 at frame
    0, straight inside each segment, the final progress at the end (that of the ordinary curve where
    none is stated). Segments without a pace of their own: a step is slow, all else stands still.
    Where nothing rises, the way to the end is even.

    Example: fast in frames 0-4, mistake in frames 5-6, ending at 0.6: 4 x 2 - 2 x 1 = 6 parts of
    0.1 each, so it rises to 0.8 at frame 4 and falls to 0.6 at frame 6.
    """
    last = (len(ordinary) if end.catastrophic_frame is None else end.catastrophic_frame) - 1
    final = float(ordinary[last]) if end.final_progress is None else end.final_progress
    curve = np.asarray(ordinary, np.float64)
    if any(s.pace is not None for s in segments):
        slopes = slopes_of(segments)
        slopes[0] = 0.0  # nothing leads to frame 0
        curve = np.cumsum(slopes)
    if curve[last] > 0:
        out = np.clip(curve * (final / curve[last]), 0.0, 1.0)
    else:
        out = np.zeros(len(ordinary))
        out[: last + 1] = np.linspace(0.0, final, last + 1)
    # exactly, without what rounding leaves
    if end.final_progress is not None:
        out[last] = final
    out[last + 1 :] = 0.0
    out[0] = 0.0
    return out.astype(np.float32)
