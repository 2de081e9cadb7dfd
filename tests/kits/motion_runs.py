"""Made-up episodes for the motion annotator: arms that move or stand still, grippers that close, random signals."""

import numpy as np
from hypothesis import strategies as st

from annotate.signals import GripperCurve, Signals

TASKS = (None, "Open the drawer.", "Put the cup on the plate.", "Put the cup and the fork into the sink.")


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
