"""Whole runs of tiny models, killed and resumed; what goes wrong."""

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy  # its parts are imported when they are used
import torch
from safetensors import safe_open

from core.files import whole_folder
from tests.kits.files import Trap
from tests.kits.training_kit import (  # isort
    FAMILIES,
    KilledError,
    killed_and_resumed,
    make_items,
    make_parts,
    make_release,
    recipe,
    small,
)
from training import backbones
from training.batches import BatchStream
from training.card import add_scores, card_text
from training.checkpoint import (
    StepWriter,
    TrainerState,
    learning_tensors,
    load_state,
    read_tensors,
    remove_old,
    step_folder,
)
from training.data import RowSource
from training.folder import ModelError, TrainingError, base_of, read_card
from training.loop import Trainer, batches_each, share_of_rate
from training.model import ProgressModel, load_model, save_model
from training.pictures import Item
from training.published import merge
from training.recipe import HeadConfig, Recipe, load_recipe
from training.runs import Point, saved_steps
from training.train import train
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases.release import Release
from warehouse.shards.shard import Sample


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("train") / "w", moments=24)


def kinds(folder: Path) -> set[str]:
    return {p.suffix for p in folder.rglob("*") if p.is_file()}


def test_an_unsaved_adapter_is_said(corpus, monkeypatch):
    # As by transformers 5.24.0 and peft 0.21.2, which raised when the training was over
    monkeypatch.setattr(backbones, "MIN_PEFT_VERSION", "99.0")
    steps: list[Point] = []
    run_recipe = recipe("unsaved", lora={"rank": 4, "alpha": 8})
    with pytest.raises(ModelError, match=r"saves adapters only with peft 99\.0"):
        train(*corpus, run_recipe, steps.append)
    assert steps == []
    # What has no adapter is trained
    train(*corpus, recipe("saved", train={"steps": 1}), steps.append)
    assert len(steps) == 1


def marked(mark: pytest.MarkDecorator, *names: str) -> list[object]:
    return [pytest.param(name, marks=mark) for name in names]


# test_attention.py has the gradients of each family
BY_HEART = [
    FAMILIES[0],
    *marked(pytest.mark.slow, "qwen3_5"),
    *marked(pytest.mark.long, "qwen2_5_vl", "internvl"),
]
RECIPES = [
    "tiny_full",
    "tiny_head",
    *marked(pytest.mark.slow, "tiny_lora"),
    *marked(pytest.mark.long, "tiny_qwen2_5"),
]


@pytest.mark.parametrize("name", RECIPES)
def test_each_class_of_recipe_and_its_resume(corpus, name):
    lake, release = corpus
    dropout = {
        "head": {"dropout": 0.1, "noise": 0.1},
        "train": {"save_every": 2},
        "data": {"augment": True},
    }
    run_recipe = recipe(name, **dropout) if name == "tiny_full" else load_recipe(name)
    whole = train(lake, release, run_recipe)
    steps = whole.checkpoint.with_name(f"{whole.id}.steps")
    assert kinds(whole.checkpoint) == kinds(steps) == {".json", ".safetensors"}
    losses = [p.loss for p in whole.curve]
    resumed_run = killed_and_resumed(lake, release, run_recipe, kill_step=3)
    assert [p.loss for p in resumed_run.curve] == pytest.approx(losses, abs=1e-6)
    assert [p.samples for p in resumed_run.curve] == [p.samples for p in whole.curve]

    model, processor, card = load_model(resumed_run.checkpoint)
    assert (card["release"], card["recipe"]["name"], card["samples"]) == (
        "bars1",
        name,
        resumed_run.samples,
    )
    with torch.inference_mode():
        progress = model(Transform(processor)(make_items(2))).progress
    assert ((progress > 0) & (progress < 1)).all()
    for p in whole.curve:
        assert p.samples_per_s > 0
        assert p.tokens_per_s > 0
        assert p.mfu is None
    rows = lake.rows(
        "SELECT steps, path FROM training_runs JOIN checkpoints USING (training_run) WHERE recipe = ?",
        [name],
    )
    assert rows == [(len(losses), f"models/{whole.id}")]


SHIPPED = [
    *marked(pytest.mark.slow, "procvlm_sft", "procvlm_oneshot_lora"),
    *marked(
        pytest.mark.long, "procvlm_sft_published", "progresslm_sft_nothink", "progresslm_sft_full"
    ),
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_goes_on_within_a_window_to_the_last_bit(corpus, name):
    lake, release = corpus
    run_recipe = small(name)
    whole = train(lake, release, run_recipe)
    resumed_run = killed_and_resumed(lake, release, run_recipe, kill_step=3)
    assert [(p.loss, p.gradient_norm, p.samples) for p in resumed_run.curve] == [
        (p.loss, p.gradient_norm, p.samples) for p in whole.curve
    ]


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.long), 3])
def test_the_second_stage_has_longer_rows_and_is_gone_on_with(corpus, at):
    data = {
        "packing": True,
        "window": 16,
        "sequence_length": 128,
        "longer_length": 384,
        "longer_from": 0.5,
    }
    settings = {"steps": 6, "batch": 1, "accumulation": 2, "save_every": 1}
    run_recipe = recipe(f"stages{at}", data=data, head={"noise": 0.1}, train=settings)
    whole = train(*corpus, run_recipe)
    tokens = np.diff([0, *(p.tokens for p in whole.curve)])
    assert max(tokens[:3]) <= 2 * 128 < min(tokens[3:])
    resumed_run = killed_and_resumed(*corpus, run_recipe, kill_step=at)
    assert [(p.loss, p.tokens) for p in resumed_run.curve] == [
        (p.loss, p.tokens) for p in whole.curve
    ]


def test_what_is_frozen_stays_and_what_is_not_moves(corpus):
    lake, release = corpus
    sizes: dict[str, dict[str, bool]] = {}
    for name, part_recipe in {
        "head": load_recipe("tiny_head"),
        "language": recipe("frozen_vision", train={"vision_lr": 0, "merger_lr": 0, "warmup": 0.1}),
    }.items():
        runs = [
            part_recipe.model_copy(
                update={"train": part_recipe.train.model_copy(update={"steps": n})}
            )
            for n in (1, 3)
        ]
        first, last = (load_model(train(lake, release, r).checkpoint)[0].state_dict() for r in runs)
        moved_names = {k for k in first if not torch.equal(first[k], last[k])}
        sizes[name] = {
            part: any(part in k for k in moved_names)
            for part in ("head.", "visual", "language_model")
        }
    assert sizes == {
        "head": {"head.": True, "visual": False, "language_model": False},
        "language": {"head.": True, "visual": False, "language_model": True},
    }


def fit(
    model: ProgressModel, transform: Transform, items: list[Item], run_recipe: Recipe
) -> list[Point]:
    """Train on items that lie in memory."""
    stream = BatchStream([_Items(items)], transform, run_recipe)
    trainer = Trainer(model, stream, run_recipe)
    trainer.run(lambda point: None, lambda: None)
    return trainer.curve


class _Items(RowSource):
    def __init__(self, items: list[Item]) -> None:
        rows = []
        for k, i in enumerate(items):
            pngs = tuple(cv2.imencode(".png", p[:, :, ::-1])[1].tobytes() for p in i.pictures)
            row = {
                "sample_id": f"s{k}",
                "question": i.question,
                "answer": i.answer,
                "progress": i.progress,
            }
            rows.append(Sample(row, pngs))
        super().__init__(rows, len(rows), 0)


@pytest.mark.parametrize("family", BY_HEART)
def test_eight_samples_are_learnt_by_heart(family):
    items = make_items()
    model, transform = make_parts(items, family, seed=1)
    run_recipe = recipe(
        family=family, train={"steps": 70, "batch": 8, "lr": 4e-3, "warmup": 0.1, "beta2": 0.98}
    )
    curve = fit(model, transform, items, run_recipe)
    assert np.mean([p.loss for p in curve[-5:]]) < 0.1 * curve[0].loss
    with torch.inference_mode():
        learnt = model(transform(items)).progress
    correlation: Any = scipy.stats.spearmanr(learnt.numpy(), [i.progress for i in items])
    assert correlation.statistic > 0.9


@pytest.mark.parametrize("family", [FAMILIES[0], *marked(pytest.mark.slow, *FAMILIES[1:])])
def test_an_adapter_resumes_and_is_merged(corpus, tmp_path, family):
    packed = {"packing": True, "window": 16, "sequence_length": 300}
    run_recipe = recipe(
        f"packed_{family}",
        family,
        lora={"rank": 4, "alpha": 8},
        data=packed,
        train={"save_every": 2, "batch": 1},
    )
    whole = train(*corpus, run_recipe)
    resumed_run = killed_and_resumed(*corpus, run_recipe, kill_step=3)
    losses = [p.loss for p in whole.curve]
    assert [p.loss for p in resumed_run.curve] == pytest.approx(losses, abs=1e-6)
    merge(resumed_run.checkpoint, tmp_path / "merged")
    progress = []
    for folder in (resumed_run.checkpoint, tmp_path / "merged"):
        model, processor, _ = load_model(folder)
        with torch.inference_mode():
            progress.append(model(Transform(processor)(make_items(3))).progress)
    assert torch.allclose(*progress, atol=1e-5)


def test_accumulated_packed_and_whole_batches_make_the_same_step():
    items = make_items()
    curves = []
    for changes in (
        {"train": {"batch": 8}},
        {"train": {"batch": 2, "accumulation": 4}},
        {"train": {"batch": 2}, "data": {"packing": True, "window": 8, "sequence_length": 300}},
    ):
        model, transform = make_parts(items, seed=3)
        run_recipe = recipe(
            **{**changes, "train": changes["train"] | {"steps": 2, "schedule": "constant"}}
        )
        curves.append(
            [(p.loss, p.gradient_norm, p.samples) for p in fit(model, transform, items, run_recipe)]
        )
    for curve in curves[1:]:
        for step, expected in zip(curve, curves[0], strict=True):
            assert step == pytest.approx(expected, rel=1e-4)


def test_schedules():
    train_settings = recipe(train={"warmup": 0.1}).train
    assert [share_of_rate(x, train_settings) for x in (0, 0.05, 0.1)] == pytest.approx([0, 0.5, 1])
    assert share_of_rate(0.55, train_settings) == pytest.approx(0.5)
    assert share_of_rate(1.0, train_settings) == pytest.approx(0)
    linear = recipe(train={"schedule": "linear"}).train
    assert share_of_rate(0.25, linear) == pytest.approx(0.75)


def test_a_loss_that_is_not_finite_ends_the_run():
    items = make_items()
    model, transform = make_parts(items)
    with torch.no_grad():
        model.head.value[-1].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"^the loss is nan at step 0.* \(now 0.001\)[^\n]*$"):
        fit(model, transform, items, recipe())


def test_all_samples_of_a_step_with_a_spoilt_gradient_are_named():
    items = make_items()
    model, transform = make_parts(items)
    run_recipe = recipe(train={"batch": 2, "accumulation": 4})
    trainer = Trainer(model, BatchStream([_Items(items)], transform, run_recipe), run_recipe)
    next(trainer.plain.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError) as e:
        trainer.run(lambda point: None, lambda: None)
    assert "\n" not in str(e.value)
    assert str(e.value).startswith("the norm of the gradient is nan at step 0")
    assert str(e.value).endswith("Its samples: " + ", ".join(f"s{k}" for k in range(8)))


def test_out_of_memory_says_which_knob_to_turn(monkeypatch):
    items = make_items()
    model, transform = make_parts(items)

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(model.backbone.model, "forward", full)
    with pytest.raises(TrainingError) as e:
        fit(model, transform, items, recipe())
    assert "out of memory at step 0 on a batch of 4 x " in str(e.value)
    for knob in (
        "train.batch (now 4)",
        "train.recompute",
        "data.sequence_length",
        "model.max_pixels",
    ):
        assert knob in str(e.value)


def test_a_missing_checkpoint_is_said(corpus, tmp_path):
    with pytest.raises(TrainingError, match="begin without --resume"):
        train(*corpus, recipe("never_run"), resume=True)
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nmodel: {}\nhead: {}\ntrain: {steps: 1, batch: 1, lr: 1}\n")
    with pytest.raises(ModelError, match=f"there is no checkpoint {tmp_path}/gone"):
        train(*corpus, load_recipe(str(path), tmp_path / "gone"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="type 'llama'; known: qwen3_vl"):
        train(*corpus, load_recipe(str(path), tmp_path / "other"))


def test_a_checkpoint_trains_on(corpus, tmp_path):
    lake, release = corpus
    items = make_items()
    model, transform = make_parts(items, "qwen2_5_vl")
    folder = tmp_path / "Qwen3-VL-it-says"
    save_model(model, transform.processor, folder, {"max_px": 64})
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\nmodel: {max_pixels: 4096}\nhead: {}\ntrain: {steps: 1, batch: 2, lr: 1.0e-3}\n"
    )
    run = train(lake, release, load_recipe(str(path), folder))
    trained, _, card = load_model(run.checkpoint)
    assert type(trained.backbone).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert card["recipe"]["model"]["path"] == str(folder)


@pytest.fixture
def saved(tmp_path) -> Path:
    model, transform = make_parts(make_items())
    save_model(model, transform.processor, tmp_path / "m", {"max_px": 64})
    return tmp_path / "m"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_and_not_opened(saved, tmp_path, name):
    (saved / "model.safetensors").unlink()
    for trapped in (saved / name, saved / "optimizer.pt"):
        trapped.write_bytes(pickle.dumps(Trap(tmp_path / "a-pickle-was-run")))
    (saved / "progress_head.safetensors").rename(tmp_path / "head")
    with pytest.raises(ModelError, match=rf"^{saved} keeps its weights pickled [^\n]*$"):
        load_model(saved)
    assert not (tmp_path / "a-pickle-was-run").exists()


@pytest.mark.parametrize(
    "broken", ["progress_head.safetensors", "config.json", "model.safetensors", "card.json"]
)
def test_an_incomplete_checkpoint_is_refused(saved, broken):
    (saved / broken).unlink()
    with pytest.raises(ModelError, match=str(saved)):
        load_model(saved)


def write_half(folder: Path) -> None:
    with suppress(KilledError), whole_folder(folder) as half:
        (half / "state.json").write_text("{}")
        raise KilledError


def test_resume_never_takes_what_was_half_written(corpus):
    lake, release = corpus
    run_recipe = recipe("half", train={"save_every": 1, "keep": 9})
    run = train(lake, release, run_recipe)
    steps = run.checkpoint.with_name(f"{run.id}.steps")
    write_half(steps / "step-00000009")
    assert [p.name for p in saved_steps(steps)] == [
        "step-00000001",
        "step-00000002",
        "step-00000003",
    ]
    write_half(steps / "step-00000003")
    assert load_state(saved_steps(steps)[-1]).step == 3
    state = saved_steps(steps)[-1] / "state.json"
    state.write_text(state.read_text()[:100])
    with pytest.raises(ModelError, match=r"^cannot resume from .*step-00000003"):
        train(lake, release, run_recipe, resume=True)


def test_a_step_stays_what_it_is_with_other_processes():
    run_recipe = recipe(train={"accumulation": 2})
    assert [batches_each(run_recipe, 3, world) for world in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(TrainingError, match=r"by 3 .* 6 batches .* one of 1, 2, 3, 6"):
        batches_each(run_recipe, 3, 4)


def test_a_checkpoint_of_another_model_or_with_a_hole_is_refused(tmp_path):
    model, _ = make_parts(make_items())
    optimizer = torch.optim.AdamW(model.parameters())
    writer = StepWriter(tmp_path, keep=2)
    writer.write(TrainerState(1, 0, 0, 1, {}, [], []), learning_tensors(model, optimizer))
    writer.wait()
    (folder,) = saved_steps(tmp_path)
    other_model, _ = make_parts(make_items(), head=HeadConfig(done_weight=0))
    with pytest.raises(ModelError, match=r"-00000001: .* head\.\S+ is .* missing here$"):
        read_tensors(folder, other_model, torch.optim.AdamW(other_model.parameters()))
    next(folder.glob("*.safetensors")).write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"^cannot resume from .*step-00000001: [^\n]*$"):
        read_tensors(folder, model, optimizer)


def test_a_checkpoint_that_fails_midway_never_looks_whole(tmp_path, monkeypatch):
    model, _ = make_parts(make_items())
    tensors = learning_tensors(model, torch.optim.AdamW(model.parameters()))

    def full(*args: Any, **kwargs: Any) -> bytes:
        raise OSError("No space left on device")

    writer = StepWriter(tmp_path, keep=2)
    writer.write(TrainerState(1, 0, 0, 1, {}, [], []), tensors)
    writer.wait()
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save", full)
        writer.write(TrainerState(2, 0, 0, 1, {}, [], []), tensors)
        with pytest.raises(ModelError, match=r"step-00000002 .* No space left on device$"):
            writer.wait()
    assert [p.name for p in saved_steps(tmp_path)] == ["step-00000001"]
    # What was left half-written is no hindrance
    writer.write(TrainerState(2, 0, 0, 1, {}, [], []), tensors)
    writer.wait()
    assert [p.name for p in saved_steps(tmp_path)] == ["step-00000001", "step-00000002"]
    assert not list(tmp_path.glob(".*"))


def test_checkpoints_are_kept_by_number_and_by_size(tmp_path):
    def fill() -> None:
        for step in range(1, 5):
            folder = step_folder(tmp_path, step)
            folder.mkdir(exist_ok=True)
            (folder / "state.json").write_text("{}")
            (folder / "shard.safetensors").write_bytes(bytes(1_000_000))

    for keep, steps_left in ((3, [2, 3, 4]), (1, [4])):
        fill()
        remove_old(tmp_path, keep)
        assert [p.name for p in saved_steps(tmp_path)] == [
            f"step-{step:08d}" for step in steps_left
        ]


def test_a_card_takes_scores_and_is_read_by_people(corpus):
    run = train(*corpus, recipe("carded", train={"steps": 1}))
    add_scores(run.checkpoint, "held-out", {"voc": 0.9})
    add_scores(run.checkpoint, "held-out", {"voc": 0.91, "mae": 0.2})
    card = read_card(run.checkpoint)
    assert card["scores"] == {"held-out": {"voc": 0.91, "mae": 0.2}}
    text = card_text(card)
    for words in ("random weights", "`bars1`", "held-out: mae 0.2, voc 0.91", "recipe `carded`"):
        assert words in text
    assert base_of(run.checkpoint) is None


def test_another_shard_is_refused(tmp_path):
    lake, release = make_release(tmp_path / "w")
    card = read_card(train(lake, release, recipe("read", train={"steps": 1})).checkpoint)
    assert card["read"] == {s.address: s.sha256 for s in release.shards("train")}
    assert f"- {release.shards('train')[0].address}: " in card_text(card)
    path = release.paths(lake.workspace, "train")[-1]
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    for run_recipe in (recipe("other"), load_recipe("laptop")):
        with pytest.raises(TrainingError, match=rf"{path.name}: its bytes .* release verify bars1"):
            train(lake, release, run_recipe)


def weights_of(folder: Path) -> dict[str, str]:
    with safe_open(folder / "model.safetensors", "pt") as weights:
        return {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118


def test_a_checkpoint_keeps_its_precision(corpus, tmp_path):
    lake, release = corpus
    whole = train(
        lake, release, recipe("halved", train={"dtype": "bfloat16", "steps": 1})
    ).checkpoint
    assert set(weights_of(whole).values()) == {"BF16"}
    assert json.loads((whole / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in load_model(whole)[0].backbone.parameters()} == {torch.bfloat16}
    # As version 0.1.0 wrote it
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert {p.dtype for p in load_model(whole)[0].backbone.parameters()} == {torch.bfloat16}

    # An adapter on it, and both as one model
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\nmodel: {}\nhead: {}\nlora: {rank: 4, alpha: 8}\n"
        "train: {steps: 1, batch: 2, lr: 1.0e-3, dtype: bfloat16}\n"
    )
    adapter = train(lake, release, load_recipe(str(path), whole)).checkpoint
    merge(adapter, tmp_path / "merged")
    assert weights_of(tmp_path / "merged") == weights_of(whole)
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == "bfloat16"
