"""Cheap models first: as true as the dear one alone, at half of its tokens."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import benchmarks.vlm_stand_in as stand_ins
from annotate.config import VlmConfig
from annotate.vlm.pictures import EpisodeView
from benchmarks.hand_labels import HandLabelled, picture
from core.domain.label import STEP, Segment
from eval.annotators.truth import EpisodeTruth
from tests.kits.vlm_episodes import view_of

NO_SIGNALS: Any = None


def run_of(seed: int) -> HandLabelled:
    """Five steps of two to six seconds at 10 pictures a second."""
    edges = [0, *np.cumsum(np.random.default_rng(seed).integers(20, 60, 5)).tolist()]
    spans = enumerate(pairwise(edges))
    steps = tuple(Segment(f"Step {k}", *span, STEP, True, k) for k, span in spans)
    cuts = tuple(edges[1:-1])
    truth = EpisodeTruth("cr5_banana", seed, edges[-1], 10.0, None, cuts, (), (steps,))
    return HandLabelled(NO_SIGNALS, truth)


def shown(run: HandLabelled, *, success: bool | None) -> EpisodeView:
    n = run.truth.num_frames
    frames = tuple(range(0, n, 10))
    return view_of(n, fps=10.0, frames=frames, load=lambda some: dict.fromkeys(some, picture()))


def test_cheap_models_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(mistakes: stand_ins.Mistakes, *cheap: str) -> tuple[float, int]:
        config = VlmConfig(cheap_models=cheap)
        outcomes = [stand_ins.trial(run_of(seed), mistakes, config, 0) for seed in range(20)]
        return float(np.mean([o.f1 for o in outcomes])), sum(o.tokens for o in outcomes)

    monkeypatch.setattr(stand_ins, "view_of", shown)
    dear_f1, dear_tokens = tried(stand_ins.Mistakes())
    assert tried(stand_ins.CHEAP["small"])[0] < dear_f1 - 0.02, "it is of another quality"
    f1, tokens = tried(stand_ins.Mistakes(), *stand_ins.CHEAP)
    assert f1 > dear_f1 - 0.01
    assert 0 < tokens <= 0.5 * dear_tokens
