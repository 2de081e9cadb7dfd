"""Made-up episodes for the annotators: arms that move or stand still, grippers that close, random
signals."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from annotate.motion.observe import GripperCurve, Signals
from core.domain.label import DONE, IDLE, STEP, Segment

TASKS = (
    None,
    "Open the drawer.",
    "Put the cup on the plate.",
    "Put the cup and the fork into the sink.",
)


def signals(n: int) -> st.SearchStrategy[np.ndarray]:
    """float64 [n]: constant, noise, steps, spikes."""
    value = st.floats(0, 10, width=32)

    def repeated(values: list[float]) -> np.ndarray:
        return np.repeat(values, -(-n // len(values)))[:n]

    return st.one_of(
        value.map(lambda v: np.full(n, v)),
        st.integers(0, 2**32).map(lambda s: np.random.default_rng(s).random(n)),
        st.lists(value, min_size=1, max_size=12).map(repeated),
        st.integers(0, 2**32).map(
            lambda s: (np.random.default_rng(s).random(n) > 0.95).astype(float)
        ),
    )


@st.composite
def episodes(draw: st.DrawFn, cameras: int = 0) -> Signals:
    n = draw(st.one_of(st.just(5), st.integers(2, 150)))
    fps = draw(st.sampled_from([5.0, 10.0, 29.97, 60.0]))
    optional = st.one_of(st.none(), signals(n))
    success = draw(st.sampled_from([None, True, False]))
    state = draw(st.one_of(st.none(), st.tuples(signals(n), signals(n)).map(np.column_stack)))
    curve = st.builds(GripperCurve, signals(n).map(lambda values: values / 10), st.booleans())
    grippers = draw(st.lists(curve, max_size=2))
    seen_frames = np.arange(0, n, draw(st.integers(1, 4)))
    pictures = [draw(st.tuples(*[signals(len(seen_frames))] * 5)) for _ in range(cameras)]
    return Signals(
        fps, draw(signals(n)), draw(optional), grippers, success, draw(st.sampled_from(TASKS)), state,
        pictures=tuple((seen_frames, np.column_stack(p).astype(np.float32)) for p in pictures),
    )  # fmt: skip


@st.composite
def tilings(draw: st.DrawFn, n: int, plan: Sequence[str]) -> list[Segment]:
    """Attempts at any planned steps, in any order, completed or not, stand-stills between them,
    done or not."""
    ends = [0, *sorted(draw(st.sets(st.integers(1, n - 1), max_size=6))), n]
    segments = []
    for start, end in pairwise(ends):
        step = draw(st.integers(-1, len(plan) - 1))
        segments.append(Segment("Stand still", start, end, IDLE, False))
        if step >= 0:
            segments[-1] = Segment(plan[step], start, end, STEP, draw(st.booleans()), step)
    if draw(st.booleans()):
        segments[-1] = Segment("Done", *ends[-2:], DONE)
    return segments
