"""The bill: token arithmetic as the real processor has it, and calls as the annotator sends them."""

import json
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from annotate.config import VlmConfig
from annotate.model_client.tokens import ImageRule
from annotate.motion.observe import Signals
from annotate.vlm.cost import STRONG_SHARE, KeyframeSeries, corrections, predict
from benchmarks.hand_labels import HandLabelled
from benchmarks.vlm_bill import calls_of
from core.domain.label import STEP, Segment
from eval.annotators.truth import EpisodeTruth

SHAPE = KeyframeSeries(300, 30.0, tuple(range(0, 300, 30)), 480, 270)


# Pictures


def test_the_rule_of_a_models_folder(tmp_path: Path):
    file = tmp_path / "preprocessor_config.json"
    size = {"shortest_edge": 1024, "longest_edge": 262144}
    file.write_text(
        json.dumps({"size": size, "patch_size": 16, "merge_size": 2, "image_mean": [0.5]})
    )
    assert ImageRule.of(tmp_path) == ImageRule(1024, 262144, 32)
    assert ImageRule.of(tmp_path).tokens(96, 96) == 9 + 2
    file.write_text('{"size": 224}')
    with pytest.raises(
        ValueError, match=r"preprocessor_config.json does not say how pictures are scaled"
    ):
        ImageRule.of(tmp_path)


# Calls


def run_of(k: int) -> HandLabelled:
    """Three to six steps, 8 to 17 s long."""
    steps = 3 + k
    n = 240 + 90 * k
    edges = [round(j * n / steps) for j in range(steps + 1)]
    segments = tuple(
        Segment(f"Move part {j}", a, b, STEP, True, j) for j, (a, b) in enumerate(pairwise(edges))
    )
    truth = EpisodeTruth("d", k, n, 30.0, True, tuple(edges[1:-1]), (), (segments,))
    return HandLabelled(Signals(30.0, np.ones(n), None, task="t", episode_index=k), truth)


@pytest.mark.parametrize("settings", [{}, {"contact_sheet": False}, {"reason": True}])
def test_the_bill_is_within_a_tenth_of_what_exact_answers_take(settings: dict[str, bool]):
    """So that texts of prompts that grow are measured anew (`MEASURED`)."""
    config = VlmConfig.model_validate(settings)
    measured = [calls_of(run_of(k), config) for k in range(4)]
    calls = list(chain.from_iterable(run_calls for _, run_calls in measured))
    bill = predict(config, [shape for shape, _ in measured])
    assert bill.total.calls == len(calls)
    tokens = sum(call.prompt + call.reply for call in calls)
    total = bill.total
    assert abs((total.prompt_tokens + total.completion_tokens) / tokens - 1) < 0.1
    for stage, cost in bill.stages.items():
        prompts = sum(call.prompt for call in calls if call.stage == stage)
        assert abs(cost.prompt_tokens / prompts - 1) < 0.25, stage


def test_what_was_taken_before_corrects_the_bill():
    """Twice the calls of a stage, each with replies as long as they were; stages that asked nothing cost nothing."""
    call = {"status": "ok", "num_images": 1, "prompt_tokens": 1000, "completion_tokens": 50}
    calls = [call | {"stage": "plan", "call_key": k} for k in ("a", "b")]
    factors = corrections(VlmConfig(), [SHAPE], [*calls, calls[0] | {"status": "failed"}])
    ten = predict(VlmConfig(), [SHAPE] * 10, factors).stages
    assert ten["plan"].calls == 20
    assert round(ten["plan"].prompt_tokens) == 20_000
    assert round(ten["plan"].completion_tokens) == 1000
    assert ten["segment"].calls == ten["segment"].prompt_tokens == 0
    assert corrections(VlmConfig(), [SHAPE], []) == {}


def test_the_strong_model_is_asked_now_and_then():
    config = VlmConfig(passes=2, gate_tolerance_s=0.5, strong_model="strong")
    assert predict(config, [SHAPE]).stages["segment"].calls == 2 + STRONG_SHARE


def test_a_long_episode_has_windows():
    """601 pictures, 48 in a window, neighbours sharing at least 6: 15 windows."""
    shape = KeyframeSeries(9000, 30.0, tuple(range(0, 9000, 30)), 480, 270)
    stages = predict(VlmConfig(), [shape]).stages
    assert stages["segment"].calls == 15
    assert "refine" not in stages
