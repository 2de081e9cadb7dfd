"""Rewards by shown runs: bars that grow, as the encoder grey sees them."""

import numpy as np
import pytest

from annotate.alignment.live import Guide, Shown
from annotate.alignment.moments import HZ
from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import load_encoder
from eval.reward.shown import UNLIKE, ShownConfig, ShownScorer
from eval.reward.views import Reward
from eval.reward.window import RewardError
from eval.rl.local import LocalSession
from tests.kits.laptop_kit import TASKS, scene
from training.laptop.reading import embed

FPS = 10.0
ENCODER = load_encoder(EmbeddingsConfig(encoder="grey"))


def shown(name: str, length: int, bound: float = 0.5) -> Shown:
    """A bar that grows evenly, in two steps."""
    at = np.linspace(0, 1, length)
    pictures = embed(ENCODER, [scene(TASKS[0], 0.05 + 0.9 * share) for share in at])
    return Shown(name, (pictures,), at, (at >= bound).astype(int), ("push", "let go"), length / HZ)


def scorer(lag: float = 0.0, hold_s: float = 0.5) -> ShownScorer:
    guide = Guide.of([shown("bars/0", 30), shown("bars/1", 40)])
    return ShownScorer(guide, ENCODER, ("camera",), ShownConfig(lag, hold_s))


def run(length: int, end: int = 0) -> list[np.ndarray]:
    """Of a bar that grows in so many frames, and then stands for some."""
    return [scene(TASKS[0], 0.05 + 0.9 * share) for share in (*np.linspace(0, 1, length), *np.ones(end))]


def rewards(of: ShownScorer, frames: list[np.ndarray]) -> list[Reward]:
    session = LocalSession(of, TASKS[0], FPS)
    return [session.append(rgb) for rgb in frames]


def test_a_run_is_told_where_it_is_and_what_is_done() -> None:
    found = rewards(scorer(), run(70, 10))
    progress = [r.progress for r in found]
    assert None not in progress
    assert np.abs(np.array(progress[:70], float) - np.linspace(0, 1, 70)).mean() < 0.08
    assert (found[5].step, found[5].step_name) == (0, "push")
    assert (found[-1].step, found[-1].step_name) == (1, "let go")
    assert {r.source for r in found} == {"shown"}


@pytest.mark.parametrize("strange", [np.zeros((64, 64, 3), np.uint8), scene(TASKS[1], 0.5)])
def test_a_picture_unlike_everything_shown_earns_nothing_and_is_no_success(strange: np.ndarray) -> None:
    found = rewards(scorer(), [*run(70)[:40], *[strange] * 20, *run(70)[40:]])
    assert {(r.progress, r.success, r.failure, r.unsure) for r in found[40:60]} == {(None, False, UNLIKE, UNLIKE)}
    before, after = found[39].progress, found[60].progress
    assert before is not None
    assert after == pytest.approx(before, abs=0.1)


def test_with_a_lag_numbers_are_of_the_second_before() -> None:
    found = rewards(scorer(lag=1.0), run(70))
    assert found[-1].about_s == pytest.approx(5.8, abs=0.21)


def test_a_run_of_other_cameras_is_refused() -> None:
    with pytest.raises(RewardError, match="the run is of a, b, and what is shown of camera"):
        scorer().stream(TASKS[0], FPS, cameras=("a", "b"))
