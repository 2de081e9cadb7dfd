"""Checkpoints in this process: the head, generation in batches, seeded draws, weighed words, and another family."""

import json
import math
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from eval.benchmarks.question import PictureFile
from eval.held_out.evaluate import predict
from eval.reward import model as model_scorer
from eval.runners.local import TextRunner, answered
from eval.runners.prompt import ModelReply, PictureLimits, Prompt, Runner, Sampling, load_picture
from eval.runners.scored import ScorerRunner
from eval.runners.start import RunnerConfig, local_runner
from tests.kits.bench_kit import picture
from tests.kits.reward_kit import make_checkpoint
from training.folder import folder_hash
from training.heads import make_head
from training.model import ProgressModel, load_model, save_model
from training.pictures import Item
from training.recipe import HeadConfig, TinyConfig
from training.tiny import CHAT_TEMPLATE, make_backbone, make_processor, make_tokenizer
from training.transform import Transform

SIZES: Any = {"vocabulary": 400, "hidden": 32, "layers": 1, "heads": 4, "vision_hidden": 32, "vision_layers": 1}
SHOWN = PictureLimits(longest_px=64)


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TinyConfig(family=request.param, max_px=64, **SIZES)
    tokenizer = make_tokenizer(["How far is the bar? True False 40%"], config.vocabulary)
    model = ProgressModel(make_backbone(tokenizer, config, 3), make_head(HeadConfig(), config.hidden))
    folder = tmp_path_factory.mktemp("model") / request.param
    save_model(model, make_processor(tokenizer, config), folder, {"max_px": 64, "head": {}})
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for n in range(6):
        picture(folder / f"{n}.jpg", n / 5)
        shown = (PictureFile(folder / f"{n}.jpg"),) * (1 + n % 3)
        made.append(Prompt(f"k{n}", "\n".join(["<image>"] * len(shown)) + "\nHow far" + " is the bar?" * n, shown))
    return made


def texts(runner: Runner, prompts: Sequence[Prompt]) -> dict[str, str | None]:
    return {r.key: r.text or r.error for r in runner.answer(prompts)}


def test_the_head_answers_without_words(checkpoint: Path, prompts: list[Prompt], tmp_path: Path) -> None:
    alone = {r.key: r.progress for p in prompts for r in ScorerRunner(checkpoint, 1).answer([p])}
    runner = ScorerRunner(checkpoint, 4)
    together = {r.key: r.progress for r in runner.answer(prompts)}
    assert together == {k: pytest.approx(v, abs=1e-5) for k, v in alone.items()}
    assert all(v is not None and 0 < v < 1 for v in together.values())
    assert runner.settings["model_hash"] == folder_hash(checkpoint)

    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    bad = [PictureFile(tmp_path / name) for name in ("empty.jpg", "text.jpg", "gone.jpg")]
    broken = [Prompt(f"bad{k}", "<image> What?", (p,)) for k, p in enumerate(bad)]
    broken.append(Prompt("marks", "<image> <image> What?", prompts[0].pictures))
    told = {r.key: r for r in runner.answer([*prompts, *broken])}
    assert {k: told[k].progress for k in together} == {k: pytest.approx(v, abs=1e-5) for k, v in alone.items()}
    assert [told[p.key].progress for p in broken] == [None] * 4
    assert "neither a JPEG nor a PNG" in (told["bad0"].error or "")
    assert "2 image marks for 1 pictures" in (told["marks"].error or "")


def test_generation_does_not_depend_on_the_batch(checkpoint: Path, prompts: list[Prompt]) -> None:
    runner = TextRunner(checkpoint, Sampling(max_tokens=6), SHOWN, 4)
    together = texts(runner, prompts)
    runner.batch_size = 1
    assert texts(runner, prompts) == together
    assert set(together) == {p.key for p in prompts}


def test_draws_are_by_the_prompts_own_seed(checkpoint: Path, prompts: list[Prompt]) -> None:
    runner = TextRunner(checkpoint, Sampling(temperature=1.0, max_tokens=6), SHOWN, 4)
    together = texts(runner, prompts)
    runner.batch_size = 1
    assert texts(runner, prompts[::-1]) == together
    other = [Prompt(p.key, p.text, p.pictures, seed=1) for p in prompts]
    assert texts(runner, other) != together


def test_a_checkpoints_own_sampling_never_applies(checkpoint: Path, prompts: list[Prompt], tmp_path: Path) -> None:
    """As Qwen2.5-VL's: transformers takes what is not given from generation_config.json."""
    plain = texts(TextRunner(checkpoint, Sampling(max_tokens=8), SHOWN, 4), prompts)
    folder = tmp_path / "published"
    shutil.copytree(checkpoint, folder)
    path = folder / "generation_config.json"
    own = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 2, "top_k": 1, "temperature": 1e-6, "do_sample": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    assert texts(TextRunner(folder, Sampling(max_tokens=8), SHOWN, 4), prompts) == plain
    drawn = Sampling(temperature=1.0, max_tokens=8)
    assert texts(TextRunner(folder, drawn, SHOWN, 4), prompts) == texts(
        TextRunner(checkpoint, drawn, SHOWN, 4), prompts
    )


def test_sampling_is_given_and_recorded(checkpoint: Path, prompts: list[Prompt]) -> None:
    def said(**sampling: Any) -> dict[str, str | None]:
        return texts(TextRunner(checkpoint, Sampling(max_tokens=8, **sampling), SHOWN, 4), prompts)

    likeliest, drawn = said(), said(temperature=1.0)
    assert drawn != likeliest
    assert said(temperature=1.0, top_k=1) == likeliest
    assert said(temperature=1.0, top_p=1e-6) == likeliest
    assert said(temperature=1.0, seed=1) != drawn
    assert said(repetition_penalty=5.0) != likeliest
    settings = TextRunner(checkpoint, Sampling(top_p=0.9, top_k=50), SHOWN, 4).settings
    recorded = {k: settings[k] for k in ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed")}
    assert recorded == {
        "temperature": 0.0, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.0, "max_tokens": 512, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}, {"repetition_penalty": 0.0}, {"temperature": -1.0}]
)
def test_sampling_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    ((name, _),) = wrong.items()
    with pytest.raises(UserError, match=f"{name} is .*: give a number"):
        Sampling(**wrong)


def test_words_are_weighed(checkpoint: Path, prompts: list[Prompt]) -> None:
    runner = TextRunner(checkpoint, Sampling(), SHOWN, 4)
    asked = [Prompt(p.key, p.text, p.pictures, words=("True", "False")) for p in prompts]
    found = {r.key: r.words for r in runner.answer(asked)}
    assert all(w is not None and 0 < w["True"] < 1 and 0 < w["False"] < 1 for w in found.values())


def test_pixel_limits_change_how_many_tokens_a_picture_takes(checkpoint: Path, prompts: list[Prompt]) -> None:
    counts = []
    for area in (32 * 32, 64 * 64):
        limits = PictureLimits(64, area if area > 2000 else None, area)
        runner = TextRunner(checkpoint, Sampling(max_tokens=1), limits, 4)
        (reply,) = runner.answer(prompts[:1])
        counts.append(reply.prompt_tokens)
    assert counts[0] < counts[1]


def tiny_internvl(folder: Path) -> Path:
    """InternVL in its real classes: 16 px patches of a 32 px tile, four of them in one token."""
    from transformers import (
        AddedToken,
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        Qwen2Config,
    )

    tokenizer = make_tokenizer(["How far is the bar? Image-1"], 400)
    special = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    special["video_token"] = "<video>"
    tokenizer.add_tokens([AddedToken(t, special=True) for t in special.values()])
    for name, token in special.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    tokenizer.init_kwargs |= special
    text = Qwen2Config(
        vocab_size=448, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "image_size": [32, 32], "patch_size": [16, 16],
    }  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=image, image_seq_length=1)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    template = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>")
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=False),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def test_internvl_answers_with_pictures_first(prompts: list[Prompt], tmp_path: Path) -> None:
    folder = tiny_internvl(tmp_path / "internvl")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "internvl"
    runner = TextRunner(folder, Sampling(max_tokens=4), PictureLimits(), 4)
    assert runner.settings["prompt_format"] == "images_first"
    replies = {r.key: r for r in runner.answer(prompts)}
    assert {r.error for r in replies.values()} == {None}
    assert all(r.text is not None and r.completion_tokens for r in replies.values())
    with pytest.raises(UserError, match="not for internvl: it cuts pictures into tiles"):
        TextRunner(folder, Sampling(), PictureLimits(max_pixels=1000), 1)


@pytest.mark.parametrize("card", [{"converted_from": "ProcVLM-2B"}, {}])
def test_a_published_head_is_asked_after_the_answer_and_only_on_request(
    card: dict[str, str], prompts: list[Prompt], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "m", head=HeadConfig(pooling="published"), **card)
    config = RunnerConfig("m", sampling=Sampling(max_tokens=6), limits=SHOWN, batch_size=4)
    by_default = local_runner(config, folder)
    assert (by_default.settings["answer"], by_default.has_head) == ("text", False)
    two_pass = local_runner(replace(config, answer="head"), folder)
    assert (two_pass.settings["answer"], two_pass.has_head) == ("head after text", True)
    spoken = texts(by_default, prompts)
    replies = {r.key: r for r in two_pass.answer(prompts)}
    assert {k: r.text for k, r in replies.items()} == spoken

    # By hand: question and answer in one sequence; a published checkpoint's number is the plain sigmoid
    model, processor, _ = load_model(folder)
    for p in prompts:
        pictures = tuple(load_picture(picture, SHOWN) for picture in p.pictures)
        output = model(Transform(processor)([Item(p.text, pictures, spoken[p.key])]))
        assert output.raw is not None
        z = output.raw[0, 0].item()
        right = 1 / (1 + math.exp(-z if card else 0.1 - 1.2 * z))
        assert replies[p.key].progress == pytest.approx(right, abs=1e-5)


def test_the_head_runs_where_the_device_is(
    checkpoint: Path, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording device: model and every batch are placed on it."""
    placed: list[str] = []
    whole = torch.Tensor.to
    monkeypatch.setattr(model_scorer, "device", lambda: "recording")
    monkeypatch.setattr(ProgressModel, "to", lambda model, where: placed.append(f"model {where}") or model)

    def record(tensor: torch.Tensor, *where: Any, **more: Any) -> torch.Tensor:
        if where != ("recording",):
            return whole(tensor, *where, **more)
        placed.append("batch recording")
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", record)
    samples = [SimpleNamespace(row={"question": p.text}, pictures=[x.read() for x in p.pictures]) for p in prompts]
    facts = {"dataset": "d", "episode_index": 0, "task": "t", "first_picture": None, "states_of": lambda sample: None}
    episode: Any = SimpleNamespace(**facts, samples=samples)
    predicted = predict(local_runner(RunnerConfig("m"), checkpoint), [episode]).progress
    assert np.isfinite(predicted["d", 0]).all()
    assert set(placed) == {"model recording", "batch recording"}


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint"):
        TextRunner(tmp_path, Sampling(), PictureLimits(), 1)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(UserError, match=f"the checkpoint {tmp_path} cannot be loaded"):
        TextRunner(tmp_path, Sampling(), PictureLimits(), 1)


def test_the_next_batch_is_read_while_the_model_works(prompts: list[Prompt]) -> None:
    reading = threading.Semaphore(0)

    def load(prompt: Prompt) -> str:
        reading.release()
        return f"pictures of {prompt.key}"

    def work(loaded: Any) -> list[ModelReply]:
        # The second's come before the first is done
        assert all(reading.acquire(timeout=10) for _ in range(2))
        return [ModelReply(p.key, text=pictures) for p, pictures in loaded]

    three = [Prompt(f"k{n}", "<image>", prompts[0].pictures) for n in range(3)]
    replies = answered(three, 1, load, work)
    assert next(replies).text == "pictures of k2"  # the longest first, of equal ones the last key


def test_what_the_model_cannot_take_costs_its_own_prompt(prompts: list[Prompt]) -> None:
    def work(loaded: Any) -> list[ModelReply]:
        if any(p.key == "k1" for p, _ in loaded):
            raise ValueError("marks")
        return [ModelReply(p.key, text="done") for p, _ in loaded]

    four = [Prompt(f"k{n}", "<image>", prompts[0].pictures) for n in range(4)]
    replies = {r.key: r.text or r.error for r in answered(four, 4, lambda p: p.key, work)}
    assert replies == {"k0": "done", "k1": "ValueError: marks", "k2": "done", "k3": "done"}
