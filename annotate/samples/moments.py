"""Which moments of a run are asked about: drawn so that what is rare in robot data is not rare in samples."""

from collections.abc import Sequence

import numpy as np

from annotate.segments import IDLE, STEP, Segment

STATES = ("ongoing", "finished", "failed", "regressed", "stalled")
ONGOING, FINISHED, FAILED, REGRESSED, STALLED = range(len(STATES))
RARE_STATES = (FINISHED, FAILED, REGRESSED, STALLED)  # in the order in which they get their share of a quota
FILL_ORDER = (ONGOING, STALLED, FAILED, FINISHED, REGRESSED)  # who takes what is left of a quota, the commonest first
LOOK_BACK_S = 1.0
REGRESSION = 0.02  # of progress, over LOOK_BACK_S
STANDSTILL = 0.005  # gain of progress over LOOK_BACK_S below which a run stalls
SHORTEST_S = 0.3  # a state that lasts less in all is not looked for
MOST_PER_S = 5.0  # moments of a quota per second of a run: the same at every frame rate from there on
ROUNDING = 1e-9  # keeps a product that should be whole from being rounded down


def frame_states(progress: np.ndarray, segments: Sequence[Segment], fps: float) -> np.ndarray:
    """What each frame shows, as an index of STATES, int8 [num_frames].

    Finished: progress is 1. Regressed: less than a second before. Failed: in an attempt that came to nothing, or after
    the last attempt of a run that ends unfinished. Stalled: idle, or no gain within a second.
    """
    frames = np.arange(len(progress))
    look_back = round(LOOK_BACK_S * fps)
    earlier = np.maximum(frames - max(1, look_back), 0)
    gain = progress - progress[earlier]

    # Each rule overrules the ones before it. Frames of the first second have too little past to be called stalled.
    state = np.full(len(progress), ONGOING, np.int8)
    has_full_past = frames >= look_back
    state[has_full_past & (gain < STANDSTILL)] = STALLED
    for segment in segments:
        span = slice(segment.start_frame, segment.end_frame)
        if segment.kind == IDLE:
            state[span] = STALLED
        if segment.kind == STEP and not segment.completed:
            state[span] = FAILED
    if progress[-1] < 1:
        # What follows the last attempt of an unfinished run is part of its failure
        end_of_last_attempt = max((s.end_frame for s in segments if s.kind == STEP), default=0)
        state[end_of_last_attempt:] = FAILED
    state[gain < -REGRESSION] = REGRESSED
    state[progress >= 1] = FINISHED
    return state


def draw_moments(
    rng: np.random.Generator, state: np.ndarray, fps: float, quota: int, rare_share: float, *, ends: bool = False
) -> list[int]:
    """Distinct frames in order, as many as the quota says wherever the run has so many.

    Each rare state that the run has gets `rare_share` of them (one at least), ongoing work the rest; the moments of a
    state are spread over its frames, one drawn from each of equal parts. `ends`: the first and the last frame are in.

    Example: of 100 frames at 10 fps, the last 10 of them finished, a quota of 8 with a rare share of 1/8 draws 7 of the
    ongoing frames, one from each seventh of them, and 1 finished frame.
    """
    num_frames = len(state)
    # A short run gives few moments: more would be nearly the same pictures again
    quota = min(quota, num_frames, max(1, int(num_frames / fps * MOST_PER_S + ROUNDING)))
    if quota <= 0:
        return []
    fixed = [0, num_frames - 1][:quota] if ends and num_frames > 1 else []
    free = np.setdiff1d(np.arange(num_frames), fixed)
    frames_by_state = [free[state[free] == s] for s in range(len(STATES))]
    counts = _counts_by_state(
        [len(frames) for frames in frames_by_state],
        quota - len(fixed),
        rare_quota=max(1, round(quota * rare_share)),
        fewest_frames=SHORTEST_S * fps,
    )
    chosen = list(fixed)
    for frames, count in zip(frames_by_state, counts, strict=True):
        # Equal parts of the state's frames, one draw in each: spread out, and still by chance
        part_starts = np.arange(count + 1) * len(frames) // max(1, count)
        within_part = (rng.random(count) * np.diff(part_starts)).astype(int)
        chosen += frames[part_starts[:-1] + within_part].tolist()
    return sorted(chosen)


def _counts_by_state(available: Sequence[int], quota: int, rare_quota: int, fewest_frames: float) -> list[int]:
    """How many moments each state gets; `available`: how many frames each has."""
    counts = [0] * len(STATES)
    left = quota
    # First each rare state that lasts long enough gets its share ...
    for s in RARE_STATES:
        if available[s] >= fewest_frames and left:
            counts[s] = min(available[s], left, rare_quota)
            left -= counts[s]
    # ... then what is left goes to ongoing work, and to the others where a run has too little of it
    for s in FILL_ORDER:
        more = min(left, available[s] - counts[s])
        counts[s] += more
        left -= more
    return counts
