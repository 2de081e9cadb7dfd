"""Made-up episodes for the motion annotator: arms that move or stand still, grippers that close, random signals."""

import numpy as np
from hypothesis import strategies as st

from annotate.signals import GripperCurve, Signals

FPS = 10.0
TASKS = (None, "Open the drawer.", "Put the cup on the plate.", "Put the cup and the fork into the sink.")


def moving(n: int, *still: tuple[int, int]) -> np.ndarray:
    """Speed 1, but 0 in some half-open spans."""
    speeds = np.ones(n)
    for a, b in still:
        speeds[a:b] = 0.0
    return speeds


def gripping(n: int, *events: tuple[int, str]) -> np.ndarray:
    """A gripper, open at first, that takes four frames to close or to open; events name when it holds, or lets go.

    It holds when it has closed, and lets go half-way to open.
    """
    g = np.ones(n)
    for moment, kind in events:
        ramp = np.array([0.75, 0.5, 0.25, 0.0]) if kind == "close" else np.array([0.25, 0.5, 0.75, 1.0])
        start = moment - (3 if kind == "close" else 1)
        g[start : start + 4] = ramp
        g[start + 4 :] = ramp[-1]
    return g


def curves(*openings: np.ndarray | None) -> tuple[GripperCurve, ...]:
    """Grippers whose open end is known; None: there is none."""
    return tuple(GripperCurve(opening) for opening in openings if opening is not None)


def signals(n: int) -> st.SearchStrategy[np.ndarray]:
    """float64 [n]: constant, noise, steps, spikes."""
    value = st.floats(0, 10, width=32)

    def repeated(values: list[float]) -> np.ndarray:
        return np.repeat(values, -(-n // len(values)))[:n]

    return st.one_of(
        value.map(lambda v: np.full(n, v)),
        st.integers(0, 2**32).map(lambda s: np.random.default_rng(s).random(n)),
        st.lists(value, min_size=1, max_size=12).map(repeated),
        st.integers(0, 2**32).map(lambda s: (np.random.default_rng(s).random(n) > 0.95).astype(float)),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Signals:
    n = draw(st.one_of(st.just(5), st.integers(2, 150)))
    fps = draw(st.sampled_from([5.0, 10.0, 29.97, 60.0]))
    optional = st.one_of(st.none(), signals(n))
    success = draw(st.sampled_from([None, True, False]))
    state = draw(st.one_of(st.none(), st.tuples(signals(n), signals(n)).map(np.column_stack)))
    curve = st.builds(GripperCurve, signals(n).map(lambda values: values / 10), st.booleans(), st.booleans())
    grippers = draw(st.lists(curve, max_size=2))
    return Signals(fps, draw(signals(n)), draw(optional), grippers, success, draw(st.sampled_from(TASKS)), state)
