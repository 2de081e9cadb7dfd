"""Progress: a dense label in 0..1 from segments and visual change. Two modes, both O(n).

Ours: each planned step has a budget; an attempt at a step spends it as the arm comes nearer to where the step ends,
along the visual change above the noise floor, and along the time in which there is any. A frozen arm earns nothing, an
unfinished run stops at its completed share, a step begun again takes its progress back.
`procvlm`: the published ProcVLM formula (arXiv 2605.08774) as implemented there, defects included.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.segments import IDLE, Segment, undo
from annotate.visual_change import hamming

CODE_VERSION = "progress-5"
BUDGET_CLIP = (0.85, 1.15)  # a step's weight is its share of length times the number of steps, clipped
PUBLISHED_CLIP = (0.75, 1.25)
MOST = 0.95  # of its budget that an attempt can earn that was not completed
WAY_S = 0.2  # an arm's way is measured from point to point, this far apart: what trembles between is no way
NOT_STEPS = ("", "done", "done.", "not done", "not done.")


class ProgressConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_floor_per_s: float = Field(default=0.015, ge=0, description="visual change per second of a still picture")
    incomplete_share: float = Field(
        default=0.5, ge=0, le=MOST, description="how much of its budget an attempt that was not completed can earn"
    )


def budgets(lengths: Sequence[float | None]) -> np.ndarray:
    """Share of the whole task of each planned step, float64 [k], summing to 1.

    `lengths` are durations of the planned steps, None for one that was never attempted: it counts as a mean one. A
    weight is K x length / total, clipped, then made to sum to 1 over the planned steps.
    """
    known = [x for x in lengths if x is not None]
    mean = sum(known) / len(known) if known and sum(known) > 0 else 1.0
    weights = np.clip([1.0 if x is None else x / mean for x in lengths], *BUDGET_CLIP)
    return weights / weights.sum()


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

    `state` [n, d] is that of the arm without its gripper, in the source's units; None where there is none.

    0 at frame 0; 1 at the end exactly when all planned steps are complete; rises only, except where a completed step
    is begun again. Frame i owns the change between frames i-1 and i, so what crosses a boundary is counted. `end`:
    where an unfinished run is known to end; its last attempt makes up for it as far as its budget allows.
    """
    moved = np.maximum(0.0, np.asarray(change, np.float64) - config.noise_floor_per_s / fps)
    share = budgets(_step_lengths(segments, num_planned))
    out = np.zeros(len(change))
    tries = _tries(segments)
    done: set[int] = set()
    partial: dict[int, float] = {}  # share of its budget that a step not completed has earned so far

    def level() -> float:
        if len(done) == num_planned:
            return 1.0
        return float(sum(share[k] for k in done) + sum(share[k] * p for k, p in partial.items()))

    at = 0
    for parts in tries:
        first, last = parts[0], parts[-1]
        step = first.step
        assert step is not None
        out[at : first.start_frame] = level()
        if step in done:
            done = undo(done, step)
            partial = {k: p for k, p in partial.items() if k < step}
        frames = np.concatenate([np.arange(max(1, s.start_frame), s.end_frame) for s in parts])
        earned = _earned(moved[frames], even=last.completed)
        if state is not None and earned[-1:].sum() > 0:
            near, straight = nearing(state[np.r_[max(0, frames[0] - 1), frames]], fps)
            earned = straight * near[1:] + (1 - straight) * earned
        start = partial.pop(step, 0.0)
        base = level()
        wanted = config.incomplete_share
        if end is not None and parts is tries[-1]:
            wanted = min(MOST, (end - base) / share[step])
        stop = 1.0 if last.completed else start + max(0.0, wanted - start) * (earned[-1:].sum() > 0)
        out[first.start_frame : last.end_frame] = base + share[step] * start
        out[frames] = base + share[step] * (start + (stop - start) * earned)
        for a, b in pairwise(parts):  # stand-stills between parts keep what was earned
            out[a.end_frame : b.start_frame] = out[a.end_frame - 1]
        if last.completed:
            done = done | {step}
        else:
            partial[step] = stop
        if len(earned):
            out[last.end_frame - 1] = level()  # exactly, without what rounding leaves
        at = last.end_frame
    out[at:] = level()
    out[0] = 0.0
    return np.clip(out, 0.0, 1.0).astype(np.float32)


def _tries(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Attempts at planned steps in their parts: one that a stand-still interrupts goes on after it."""
    tries: list[list[Segment]] = []
    rested = False
    for s in segments:
        if s.step is None:
            rested = s.kind == IDLE
            continue
        if rested and tries and tries[-1][-1].step == s.step and not tries[-1][-1].completed:
            tries[-1].append(s)
        else:
            tries.append([s])
        rested = False
    return tries


def _earned(moved: np.ndarray, *, even: bool) -> np.ndarray:
    """Share of a step done up to each frame, ending at 1: half by the change seen, half by the time in which any was.

    When nothing is seen to move: evenly in time for a step that was completed all the same, nothing for another.
    """
    total = moved.sum()
    if total <= 0:
        return np.arange(1, len(moved) + 1) / max(1, len(moved)) if even else np.zeros(len(moved))
    seen = moved > 0
    return (np.cumsum(moved) / total + np.cumsum(seen) / seen.sum()) / 2


def nearing(state: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
    """How much nearer the arm is to its end than where it began, float64 [n] in 0..1, and how straight its way is.

    Never falling, 1 at the end. Straight: the distance from start to end over the length of the way; 0 for a way that
    ends where it began, of which nearness tells nothing.
    """
    s = np.asarray(state, np.float64)
    left = np.linalg.norm(s - s[-1], axis=1)
    points = s[np.r_[np.arange(0, len(s) - 1, max(1, round(WAY_S * fps))), len(s) - 1]]
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    if left[0] <= 0 or length <= 0:
        return np.ones(len(s)), 0.0
    return np.maximum.accumulate(np.clip(1 - left / left[0], 0, 1)), min(1.0, float(left[0]) / length)


def _step_lengths(segments: Sequence[Segment], num_planned: int) -> list[float | None]:
    """Frame intervals of the last attempt at each planned step; one left uncompleted says nothing of its length."""
    lengths: list[float | None] = [None] * num_planned
    for s in segments:
        if s.step is not None and s.completed:
            lengths[s.step] = float(s.end_frame - max(1, s.start_frame))  # nothing leads to frame 0
    return lengths


def procvlm_labels(segments: Sequence[Segment], num_planned: int, num_frames: int) -> list[str]:
    """Per-frame names as the published flattening would make them from these segments.

    Only completed steps have both ends, so only they are labelled, each from the end of the one before; what remains is
    `done` when more than half of the planned steps completed, else it stretches the last step.
    """
    labels: list[str] = []
    steps = [s for s in segments if s.step is not None]
    last_of = {s.step: s for s in steps}  # on retries the last attempt counts
    kept = [s for s in steps if last_of[s.step] is s]
    completed = [s for s in kept if s.completed]
    for s in completed:
        labels += [s.name] * (min(num_frames - 1, s.end_frame) - len(labels))
    missing = num_planned - len(completed)
    rest = "done" if missing * 2 < num_planned else (labels[-1] if labels else "not done")
    return labels + [rest] * (num_frames - len(labels))


def procvlm_progress(labels: Sequence[str], hashes: np.ndarray) -> np.ndarray:
    """The published formula, float32 [n]: per-frame step names and 64-bit perceptual hashes [n] to progress.

    Within a span, change is 0.5 + Hamming / 64, its first frame excluded; the span's budget is clipped as published;
    the label is the exclusive prefix sum over the total, so each label lags one frame.
    """
    n = len(labels)
    change = 0.5 + hamming(np.asarray(hashes, np.uint64)) / 64.0
    spans = _runs(labels)
    valid = [(a, b) for a, b, name in spans if name.strip().lower() not in NOT_STEPS]
    total_length = sum(b - a for a, b in valid)
    gain = np.zeros(n)
    for a, b in valid:
        inside = change[a + 1 : b]
        if len(inside):
            weight = np.clip(len(valid) * (b - a) / total_length, *PUBLISHED_CLIP)
            gain[a + 1 : b] = weight * inside / inside.sum()
    total = gain.sum()
    if total == 0:
        return np.zeros(n, np.float32)
    before = np.r_[0.0, np.cumsum(gain)[:-1]]
    return (before / total).astype(np.float32)


def _runs(labels: Sequence[str]) -> list[tuple[int, int, str]]:
    cuts = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
    return [(a, b, labels[a]) for a, b in pairwise(cuts) if b > a]
