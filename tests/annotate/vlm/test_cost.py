"""Predictions: token arithmetic as the real processor has it, and costs that follow from the annotator itself."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotate.model_client.calls import Request
from annotate.model_client.tokens import FORMAT_TOKENS, ImageRule, TokenMeter, blank, size_px
from annotate.vlm import cost
from annotate.vlm.config import Price, VlmConfig
from annotate.vlm.cost import Cost, EpisodeShape, Expected, calibrated, costs_by_stage, predict, replay

SHAPE = EpisodeShape(300, 30.0, tuple(range(0, 300, 30)), 480, 270, "Stack the cups")


# Pictures


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((96, 96), 64), ((256, 256), 64), ((480, 270), 15 * 8), ((480, 360), 15 * 11), ((640, 480), 300), ((1, 200), 114)],
)
def test_tokens_of_a_picture(size: tuple[int, int], tokens: int):
    assert ImageRule().tokens(*size) == tokens + 2


def test_it_is_the_arithmetic_of_the_real_processor():
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in rng.integers(1, 700, (300, 2)) if max(w, h) <= 200 * min(w, h)]
    sizes += [(96, 96), (240, 180), (320, 240), (480, 270), (1920, 1080), (48, 48), (80, 48), (16, 3000)]
    for rule in (ImageRule(), ImageRule(32 * 32, 512 * 512), ImageRule(56 * 56, 28 * 28 * 1280, 28)):
        processor = transformers.Qwen2VLImageProcessor(
            size={"shortest_edge": rule.min_px, "longest_edge": rule.max_px},
            patch_size=rule.unit_px // 2,
            merge_size=2,
        )
        for width, height in sizes:
            patches = processor.get_number_of_image_patches(height, width, {})
            assert rule.tokens(width, height) == patches // 4 + 2, (width, height, rule)


def test_the_rule_of_a_models_folder(tmp_path: Path):
    file = tmp_path / "preprocessor_config.json"
    size = {"shortest_edge": 1024, "longest_edge": 262144}
    file.write_text(json.dumps({"size": size, "patch_size": 16, "merge_size": 2, "image_mean": [0.5]}))
    assert ImageRule.of(tmp_path) == ImageRule(1024, 262144, 32)
    assert ImageRule.of(tmp_path).tokens(96, 96) == 9 + 2
    file.write_text('{"size": 224}')
    with pytest.raises(ValueError, match=r"preprocessor_config.json does not say how pictures are scaled"):
        ImageRule.of(tmp_path)


def test_a_request_is_texts_pictures_and_format():
    picture = blank(480, 270)
    assert size_px(picture.jpeg) == (480, 270)
    request = Request("plan", "s" * 40, ("t" * 9, picture, "u" * 4), {}, 10)
    assert TokenMeter().prompt(request) == FORMAT_TOKENS + 10 + 3 + (120 + 2) + 1
    assert TokenMeter(chars_per_token=1).prompt(request) == FORMAT_TOKENS + 40 + 9 + 4 + (120 + 2)
    assert TokenMeter(chars_per_token=1).reply({"a": 1, "b": "ü"}) == len('{"a":1,"b":"ü"}') + 1


# Calls


def test_calls_follow_the_annotator():
    """11 pictures in one window; 3 boundaries, each narrowed from 44 frames to 7 and to 1."""
    p = predict(VlmConfig(), [SHAPE], Expected(steps=4, changes=3)).stages
    assert {s: (c.calls, c.images) for s, c in p.items()} == {
        "plan": (1, 11),
        "segment": (1, 11),
        "refine": (6, 48),
        "verify": (1, 11),
        "reason": (1, 11),
    }
    assert p["plan"].image_tokens == 11 * (15 * 8 + 2)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"refine": False}, {"plan": 1, "segment": 1, "verify": 1, "reason": 1}),
        ({"verify": False, "reason": False}, {"plan": 1, "segment": 1, "refine": 6}),
        ({"passes": 2}, {"plan": 1, "segment": 2, "refine": 6, "verify": 1, "reason": 1}),
    ],
)
def test_stages_that_are_off_cost_nothing(change: dict[str, Any], expected: dict[str, int]):
    p = predict(VlmConfig(**change), [SHAPE], Expected(steps=4, changes=3))
    assert {stage: c.calls for stage, c in p.stages.items()} == expected


def test_the_strong_model_is_asked_now_and_then():
    config = VlmConfig(passes=2, gate_tolerance_s=0.5, strong_model="strong")
    p = predict(config, [SHAPE], Expected(strong_share=0.25)).stages
    assert p["segment"].calls == 2.25


def test_a_long_episode_has_windows_that_agree():
    """301 pictures, 24 in a window, neighbours sharing at least 6: 17 windows."""
    shape = EpisodeShape(9000, 30.0, tuple(range(0, 9000, 30)), 480, 270, "Clean the kitchen")
    p = predict(VlmConfig(), [shape], Expected(steps=6, changes=40)).stages
    assert p["segment"].calls == 17
    assert p["refine"].calls == 2 * 40
    asked = asyncio.run(replay(VlmConfig(), shape, Expected(steps=6, changes=40)))
    told = [c for r, v in asked if r.stage == "segment" for c in v["changes"]]
    assert 40 < len(told) < 80  # some are seen in two windows


def test_every_typical_reply_is_valid():
    jsonschema = pytest.importorskip("jsonschema")
    for expected in (Expected(), Expected(2, 1, 0.0), Expected(16, 60, 1.0)):
        asked = asyncio.run(replay(VlmConfig(passes=2), SHAPE, expected))
        assert {r.stage for r, _ in asked} == set(cost.STAGES)
        for request, value in asked:
            jsonschema.validate(value, request.schema)


def test_pictures_that_are_alike_share_their_reasoning():
    still = EpisodeShape(**SHAPE.__dict__ | {"phash": lambda: np.zeros(300, np.uint64)})
    asked = asyncio.run(replay(VlmConfig(), still, Expected(steps=4, changes=3)))
    (told,) = (v for r, v in asked if r.stage == "reason")
    moving = asyncio.run(replay(VlmConfig(), SHAPE, Expected(steps=4, changes=3)))
    (more,) = (v for r, v in moving if r.stage == "reason")
    assert (len(told), len(more)) == (4, 5)  # one per segment; one per two seconds


def test_fractions_are_met_on_average():
    p = predict(VlmConfig(), [SHAPE] * 100, Expected(steps=4, changes=3.4)).stages
    assert p["refine"].calls == pytest.approx(2 * 340, abs=4)


def test_many_episodes_are_sampled():
    shapes = [EpisodeShape(**SHAPE.__dict__ | {"num_frames": n}) for n in range(100, 1300)]
    p = predict(VlmConfig(), shapes)
    assert (p.episodes, p.stages["plan"].calls) == (1200, pytest.approx(1200))


def test_nothing_costs_nothing():
    p = predict(VlmConfig(price=Price(usd_per_gpu_hour=2)), [])
    assert (p.stages, p.gpu_hours, p.usd, p.total.calls) == ({}, 0, 0, 0)


# Money


def test_hours_and_money():
    price = Price(
        usd_per_million_prompt_tokens=2,
        usd_per_million_completion_tokens=8,
        usd_per_gpu_hour=3,
        gpus=4,
        prompt_tokens_per_s=1000,
        completion_tokens_per_s=100,
    )
    p = predict(VlmConfig(price=price), [SHAPE] * 10)
    prompt, completion = p.total.prompt_tokens, p.total.completion_tokens
    assert p.gpu_hours == pytest.approx((prompt / 1000 + completion / 100) / 3600 * 4)
    assert p.usd == pytest.approx(prompt * 2e-6 + completion * 8e-6 + p.gpu_hours * 3)


# Calibration


def calls_of(asked: list[tuple[Request, dict[str, Any]]], text_factor: float, reply_factor: float) -> list[dict]:
    """Rows of vlm_calls of a model whose tokens are other than estimated."""
    meter = TokenMeter()
    return [
        {
            "call_key": f"{k}",
            "stage": r.stage,
            "status": "ok",
            "num_images": len(r.images),
            "prompt_tokens": round(meter.prompt(r) * text_factor),
            "completion_tokens": round(meter.reply(v) * reply_factor),
        }
        for k, (r, v) in enumerate(asked)
    ]


def test_what_was_labelled_calibrates_the_rest():
    truth = Expected(steps=6, changes=9, text_share=0.8)
    lengths = range(200, 600, 20)
    shapes = [EpisodeShape(n, 30.0, tuple(range(0, n, 30)), 480, 270, "Stack the cups") for n in lengths]
    asked = [asyncio.run(replay(VlmConfig(), s, truth)) for s in shapes]
    rows = [calls_of(a, 1.3, 0.7) for a in asked]
    for k, row in enumerate(rows):
        for call in row:
            call["call_key"] += f" of {k}"
    pilots = slice(0, None, 4)
    seen = [c for row in rows[pilots] for c in row]
    expected = calibrated(VlmConfig(), shapes[pilots], 6, 9, seen)
    p = predict(VlmConfig(), shapes, expected)
    for row in p.beside(c for r in rows for c in r):
        assert abs(row["calls_error"]) < 0.03, row
        assert abs(row["prompt_tokens_error"]) < 0.03, row
        assert abs(row["completion_tokens_error"]) < 0.05, row
    blind = predict(VlmConfig(), shapes).beside(c for r in rows for c in r)
    assert abs(blind[-1]["completion_tokens_error"]) > 0.1  # without calibration it is another model's


def test_corrections_are_factors():
    plain = predict(VlmConfig(), [SHAPE]).stages["refine"]
    corrected = Expected(corrections={"refine": Cost(2.0, 2.0, 2.0, 3.0, 1.0)})
    found = predict(VlmConfig(), [SHAPE], corrected).stages["refine"]
    assert found.calls == 2 * plain.calls
    assert found.prompt_tokens == pytest.approx(3 * plain.prompt_tokens)
    assert found.completion_tokens == pytest.approx(plain.completion_tokens)


def test_only_answers_count_and_each_once():
    row = {"call_key": "a", "stage": "plan", "status": "ok", "num_images": 3}
    row |= {"prompt_tokens": 10, "completion_tokens": 2}
    rows = [row, row, row | {"call_key": "b", "status": "refused"}, row | {"call_key": "c", "stage": "eval"}]
    assert costs_by_stage(rows) == {"plan": Cost(1, 3, 0, 10, 2)}


def test_rows_end_with_the_sum():
    p = predict(VlmConfig(), [SHAPE] * 3)
    *stages, all_ = p.rows()
    assert [r["stage"] for r in stages] == list(cost.STAGES)
    assert all_["stage"] == "all"
    counted = Counter[str]()
    for r in stages:
        counted.update({k: v for k, v in r.items() if k != "stage"})
    assert dict(counted) == {k: v for k, v in all_.items() if k != "stage"}
