"""Predictions: token arithmetic as the real processor has it, and costs that follow from the annotator itself."""

import asyncio
import json
from pathlib import Path

import pytest

from annotate.config import VlmConfig
from annotate.model_client.tokens import ImageRule
from annotate.vlm.cost import EpisodeShape, Expected, predict, replay

SHAPE = EpisodeShape(300, 30.0, tuple(range(0, 300, 30)), 480, 270, "Stack the cups")


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


def test_the_strong_model_is_asked_now_and_then():
    config = VlmConfig(passes=2, gate_tolerance_s=0.5, strong_model="strong")
    p = predict(config, [SHAPE], Expected(strong_share=0.25)).stages
    assert p["segment"].calls == 2.25


def test_a_long_episode_has_windows_that_agree():
    """601 pictures, 48 in a window, neighbours sharing at least 6: 15 windows."""
    shape = EpisodeShape(9000, 30.0, tuple(range(0, 9000, 30)), 480, 270, "Clean the kitchen")
    p = predict(VlmConfig(), [shape], Expected(steps=6, changes=40)).stages
    assert p["segment"].calls == 15
    assert "refine" not in p
    requests = asyncio.run(replay(VlmConfig(), shape, Expected(steps=6, changes=40)))
    change_rows = [c for r, v in requests if r.stage == "segment" for c in v["changes"]]
    assert 40 < len(change_rows) < 80  # some are seen in two windows
