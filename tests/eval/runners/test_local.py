"""Checkpoints in this process: the head, generation in batches, seeded draws, weighed words, and another family."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import PictureFile
from eval.runners.local import TextRunner, open_runner
from eval.runners.prompt import PictureLimits, Prompt, Runner, Sampling
from eval.runners.start import RunnerConfig, local_runner
from tests.kits.bench_kit import picture
from tests.kits.reward_kit import make_checkpoint
from training.model import load_model
from training.pictures import Item
from training.recipe import HeadConfig
from training.transform import Transform

SHOWN = PictureLimits(longest_px=64)


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    folder = tmp_path_factory.mktemp("pictures")
    prompts_made = []
    for n in range(6):
        picture(folder / f"{n}.jpg", n / 5)
        files_shown = (PictureFile(folder / f"{n}.jpg"),) * (1 + n % 3)
        prompts_made.append(
            Prompt(
                f"k{n}",
                "\n".join(["<image>"] * len(files_shown)) + "\nHow far" + " is the bar?" * n,
                files_shown,
            )
        )
    return prompts_made


def spoken(folder: Path, batch_size: int, sampling: Sampling, limits: PictureLimits) -> TextRunner:
    return open_runner(folder, batch_size, answer="text", sampling=sampling, limits=limits)


def texts(runner: Runner, prompts: Sequence[Prompt]) -> dict[str, str | None]:
    return {r.key: r.text or r.error for r in runner.answer(prompts)}


def test_draws_are_by_the_prompts_own_seed(checkpoint: Path, prompts: list[Prompt]) -> None:
    runner = spoken(checkpoint, 4, Sampling(temperature=1.0, max_tokens=6), SHOWN)
    joint_texts = texts(runner, prompts)
    runner.batch_size = 1
    assert texts(runner, prompts[::-1]) == joint_texts
    other_prompts = [Prompt(p.key, p.text, p.pictures, seed=1) for p in prompts]
    assert texts(runner, other_prompts) != joint_texts


def test_sampling_is_given_and_recorded(checkpoint: Path, prompts: list[Prompt]) -> None:
    def said(**sampling: Any) -> dict[str, str | None]:
        return texts(spoken(checkpoint, 4, Sampling(max_tokens=8, **sampling), SHOWN), prompts)

    likeliest = said()
    drawn = said(temperature=1.0)
    assert drawn != likeliest
    assert said(temperature=1.0, top_k=1) == likeliest
    assert said(temperature=1.0, top_p=1e-6) == likeliest
    assert said(temperature=1.0, seed=1) != drawn
    assert said(repetition_penalty=5.0) != likeliest
    settings = spoken(checkpoint, 4, Sampling(top_p=0.9, top_k=50), SHOWN).settings
    recorded = {
        k: settings[k]
        for k in ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed")
    }
    assert recorded == {
        "temperature": 0.0, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.0, "max_tokens": 512, "seed": 0,
    }  # fmt: skip


def test_words_are_weighed(checkpoint: Path, prompts: list[Prompt]) -> None:
    runner = spoken(checkpoint, 4, Sampling(), SHOWN)
    word_prompts = [Prompt(p.key, p.text, p.pictures, words=("True", "False")) for p in prompts]
    words_by_key = {r.key: r.words for r in runner.answer(word_prompts)}
    assert all(
        w is not None and 0 < w["True"] < 1 and 0 < w["False"] < 1 for w in words_by_key.values()
    )


def test_pixel_limits_change_tokens(checkpoint: Path, prompts: list[Prompt]) -> None:
    counts = []
    for area in (32 * 32, 64 * 64):
        limits = PictureLimits(64, area if area > 2000 else None, area)
        runner = spoken(checkpoint, 4, Sampling(max_tokens=1), limits)
        (reply,) = runner.answer(prompts[:1])
        counts.append(reply.prompt_tokens)
    assert counts[0] < counts[1]


def test_internvl_answers_with_pictures_first(prompts: list[Prompt], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "internvl", "internvl")
    ours = open_runner(folder, 4, reasoning=True, sampling=Sampling(max_tokens=4)).answer(prompts)
    assert all(r.text is not None and r.progress is not None for r in ours)
    (folder / "card.json").unlink()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "internvl"
    runner = spoken(folder, 4, Sampling(max_tokens=4), PictureLimits())
    assert runner.settings["prompt_format"] == "images_first"
    replies = {r.key: r for r in runner.answer(prompts)}
    assert {r.error for r in replies.values()} == {None}
    assert all(r.text is not None and r.completion_tokens for r in replies.values())
    with pytest.raises(UserError, match="not for internvl: it cuts pictures into tiles"):
        spoken(folder, 1, Sampling(), PictureLimits(max_pixels=1000))


@pytest.mark.parametrize("card", [{"converted_from": "ProcVLM-2B"}, {}])
def test_a_published_head_is_asked(
    card: dict[str, str], prompts: list[Prompt], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "m", head=HeadConfig(pooling="published"), **card)
    options = EvaluationOptions(max_tokens=6, batch_size=4)
    config = RunnerConfig("m", options, longest_px=SHOWN.longest_px)
    by_default = local_runner(config, folder)
    assert (by_default.settings["answer"], by_default.has_head) == ("text", False)
    two_pass = local_runner(
        replace(config, options=options.model_copy(update={"answer": "head"})), folder
    )
    assert (two_pass.settings["answer"], two_pass.has_head) == ("head after text", True)
    texts_by_key = texts(by_default, prompts)
    replies = {r.key: r for r in two_pass.answer(prompts)}
    assert {k: r.text for k, r in replies.items()} == texts_by_key

    # By hand: question and answer in one sequence; a published checkpoint's number is the plain sigmoid
    model, processor, _ = load_model(folder)
    for p in prompts:
        pictures = tuple(picture.rgb(SHOWN.longest_px) for picture in p.pictures)
        output = model(Transform(processor)([Item(p.text, pictures, texts_by_key[p.key])]))
        assert output.raw is not None
        z = output.raw[0, 0].item()
        right = 1 / (1 + math.exp(-z if card else 0.1 - 1.2 * z))
        assert replies[p.key].progress == pytest.approx(right, abs=1e-5)
