"""Which moments of a run are asked about: drawn so that what is rare in robot data is not rare in samples."""

from collections.abc import Sequence

import numpy as np

from annotate.segments import IDLE, STEP, Segment

STATES = ("ongoing", "finished", "failed", "regressed", "stalled")
ONGOING, FINISHED, FAILED, REGRESSED, STALLED = range(len(STATES))
LOOK_BACK_S = 1.0
REGRESSION = 0.02  # of progress, over LOOK_BACK_S
STANDSTILL = 0.005
SHORTEST_S = 0.3  # a state that lasts less in all is not looked for
MOST_PER_S = 5.0  # moments of a quota per second of a run: the same at every frame rate from there on


def states(progress: np.ndarray, segments: Sequence[Segment], fps: float) -> np.ndarray:
    """What each frame shows, as an index of STATES, int8 [num_frames].

    Finished: progress is 1. Regressed: less than a second before. Failed: in an attempt that came to nothing, or after
    the last attempt of a run that ends unfinished. Stalled: idle, or no gain within a second.
    """
    n = len(progress)
    back = np.maximum(np.arange(n) - max(1, round(LOOK_BACK_S * fps)), 0)
    gain = progress - progress[back]
    found = np.full(n, ONGOING, np.int8)
    full = np.arange(n) >= round(LOOK_BACK_S * fps)
    found[full & (gain < STANDSTILL)] = STALLED
    last_step = max((s.end_frame for s in segments if s.kind == STEP), default=0)
    for s in segments:
        if s.kind == IDLE:
            found[s.start_frame : s.end_frame] = STALLED
        if s.kind == STEP and not s.completed:
            found[s.start_frame : s.end_frame] = FAILED
    if progress[-1] < 1:
        found[last_step:] = FAILED
    found[gain < -REGRESSION] = REGRESSED
    found[progress >= 1] = FINISHED
    return found


def drawn(
    rng: np.random.Generator, state: np.ndarray, fps: float, quota: int, rare_share: float, *, ends: bool = False
) -> list[int]:
    """Distinct frames in order, as many as the quota says wherever the run has so many.

    Each rare state that the run has gets `rare_share` of them (one at least), ongoing work the rest; the moments of a
    state are spread over its frames, one drawn from each of equal parts. `ends`: the first and the last frame are in.
    """
    n = len(state)
    quota = min(quota, n, max(1, int(n / fps * MOST_PER_S + 1e-9)))
    if quota <= 0:
        return []
    fixed = [0, n - 1][:quota] if ends and n > 1 else []
    free = np.setdiff1d(np.arange(n), fixed)
    have = [free[state[free] == s] for s in range(len(STATES))]
    left = quota - len(fixed)
    wanted = [0] * len(STATES)
    for s in (FINISHED, FAILED, REGRESSED, STALLED):
        if len(have[s]) >= SHORTEST_S * fps and left:
            wanted[s] = min(len(have[s]), left, max(1, round(quota * rare_share)))
            left -= wanted[s]
    for s in (ONGOING, STALLED, FAILED, FINISHED, REGRESSED):
        more = min(left, len(have[s]) - wanted[s])
        wanted[s] += more
        left -= more
    chosen = list(fixed)
    for frames, k in zip(have, wanted, strict=True):
        part = np.arange(k + 1) * len(frames) // max(1, k)  # where the equal parts begin
        chosen += frames[part[:-1] + (rng.random(k) * np.diff(part)).astype(int)].tolist()
    return sorted(chosen)
