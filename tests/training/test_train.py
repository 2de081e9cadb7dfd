"""Whole runs of tiny models: each class of recipe, killed and resumed; learning by heart; what goes wrong."""

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from core.files import whole_folder
from core.paths import ROOT
from tests.kits.training_kit import FAMILIES, make_items, make_parts, make_release, recipe
from training.card import add_scores, card_text
from training.checkpoint import load_state, saved_steps
from training.data import BatchStream, RowSource
from training.flops import cost
from training.loop import Point, Trainer, TrainingError, share_of_rate
from training.model import ModelError, ProgressModel, base_of, load_model, read_card, save_model
from training.recipe import Recipe, load_recipe
from training.train import TrainingRun, train
from training.transform import Item, Transform
from warehouse.lake import Lake
from warehouse.releases import Release


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("train") / "w", moments=24)


class KilledError(Exception):
    """What a kill in the middle of a run stands for."""


def killed_and_resumed(lake: Lake, release: Release, of: Recipe, at: int) -> TrainingRun:
    def kill(point: Point) -> None:
        if point.step == at:
            raise KilledError

    with pytest.raises(KilledError):
        train(lake, release, of, kill)
    return train(lake, release, of, resume=True)


def kinds(folder: Path) -> set[str]:
    return {p.suffix for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["tiny_full", "tiny_lora", "tiny_head", "tiny_qwen2_5"])
def test_each_class_of_recipe_and_its_resume(corpus: tuple[Lake, Release], name: str) -> None:
    lake, release = corpus
    dropout = {"head": {"dropout": 0.1, "noise": 0.1}, "train": {"save_every": 2}, "data": {"augment": True}}
    of = recipe(name, **dropout) if name == "tiny_full" else load_recipe(name)
    whole = train(lake, release, of)
    steps = whole.checkpoint.with_name(f"{whole.id}.steps")
    assert kinds(whole.checkpoint) == kinds(steps) == {".json", ".safetensors"}
    losses = [p.loss for p in whole.curve]
    again = killed_and_resumed(lake, release, of, at=3)
    assert [p.loss for p in again.curve] == pytest.approx(losses, abs=1e-6)
    assert [p.samples for p in again.curve] == [p.samples for p in whole.curve]

    model, processor, card = load_model(again.checkpoint)
    assert (card["release"], card["recipe"]["name"], card["samples"]) == ("bars1", name, again.samples)
    with torch.inference_mode():
        progress = model(Transform(processor)(make_items(2))).progress
    assert ((progress > 0) & (progress < 1)).all()
    for p in whole.curve:
        assert p.samples_per_s > 0
        assert p.tokens_per_s > 0
        assert 0 < p.mfu < 2
    rows = lake.rows(
        "SELECT steps, path FROM training_runs JOIN checkpoints USING (training_run) WHERE recipe = ?", [name]
    )
    assert rows == [(len(losses), f"models/{whole.id}")]


def test_what_is_frozen_stays_and_what_is_not_moves(corpus: tuple[Lake, Release]) -> None:
    lake, release = corpus
    sizes: dict[str, dict[str, bool]] = {}
    for name, of in {
        "head": load_recipe("tiny_head"),
        "language": recipe("frozen_vision", train={"vision_lr": 0, "merger_lr": 0, "save_every": 1, "keep": 9}),
    }.items():
        run = train(lake, release, of.model_copy(update={"train": of.train.model_copy(update={"save_every": 1})}))
        oldest = saved_steps(run.checkpoint.with_name(f"{run.id}.steps"))[0]
        first, last = (load_model(p)[0].state_dict() for p in (oldest, run.checkpoint))
        moved = {k for k in first if not torch.equal(first[k], last[k])}
        sizes[name] = {part: any(part in k for k in moved) for part in ("head.", "visual", "language_model")}
    assert sizes == {
        "head": {"head.": True, "visual": False, "language_model": False},
        "language": {"head.": True, "visual": False, "language_model": True},
    }


def fit(model: ProgressModel, transform: Transform, items: list[Item], of: Recipe) -> list[Point]:
    """Train on items that lie in memory."""
    stream = BatchStream(_Items(items), transform, of)
    trainer = Trainer(model, stream, of)
    trainer.run(lambda point: None, lambda: None)
    return trainer.curve


class _Items(RowSource):
    """Items as rows; the stream's decoding is not under test here."""

    def __init__(self, items: list[Item]) -> None:
        import cv2

        from warehouse.shards import Sample

        rows = []
        for i in items:
            jpegs = tuple(cv2.imencode(".png", p[:, :, ::-1])[1].tobytes() for p in i.pictures)
            rows.append(Sample({"question": i.question, "answer": i.answer, "progress": i.progress}, jpegs))
        super().__init__(rows, len(rows), 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_samples_are_learnt_by_heart(family: str) -> None:
    items = make_items()
    model, transform = make_parts(items, family, seed=1)
    of = recipe(family=family, train={"steps": 70, "batch": 8, "lr": 4e-3, "warmup": 0.1, "beta2": 0.98})
    curve = fit(model, transform, items, of)
    assert np.mean([p.loss for p in curve[-5:]]) < 0.1 * curve[0].loss
    with torch.inference_mode():
        learnt = model(transform(items)).progress
    assert spearmanr(learnt.numpy(), [i.progress for i in items]).statistic > 0.9


def test_accumulated_packed_and_whole_batches_make_the_same_step() -> None:
    items = make_items()
    curves = []
    for changes in (
        {"train": {"batch": 8}},
        {"train": {"batch": 2, "accumulation": 4}},
        {"train": {"batch": 2}, "data": {"packing": True, "window": 8, "sequence_length": 300}},
    ):
        model, transform = make_parts(items, seed=3)
        of = recipe(**{**changes, "train": changes["train"] | {"steps": 2, "schedule": "constant"}})
        curves.append([(p.loss, p.gradient_norm, p.samples) for p in fit(model, transform, items, of)])
    for curve in curves[1:]:
        for step, expected in zip(curve, curves[0], strict=True):
            assert step == pytest.approx(expected, rel=1e-4)


def test_schedules() -> None:
    of = recipe(train={"warmup": 0.1}).train
    assert [share_of_rate(x, of) for x in (0, 0.05, 0.1)] == pytest.approx([0, 0.5, 1])
    assert share_of_rate(0.55, of) == pytest.approx(0.5)
    assert share_of_rate(1.0, of) == pytest.approx(0)
    linear = recipe(train={"schedule": "linear"}).train
    assert share_of_rate(0.25, linear) == pytest.approx(0.75)


def test_flops_are_those_of_the_formula() -> None:
    items = make_items()
    model, transform = make_parts(items)
    language = model.backbone.model.language_model
    weights = sum(p.numel() for n, p in language.named_parameters() if p.ndim == 2 and "embed" not in n)
    whole = cost(model.backbone)
    assert whole.language == 6 * weights  # 2 forward, 4 backward
    assert whole.language_attention == 4 * 2 * 64 * 0.5 * 3
    for p in model.backbone.parameters():
        p.requires_grad_(False)
    frozen = cost(model.backbone)
    assert (frozen.language, frozen.vision) == (2 * weights, whole.vision / 3)
    padded, packed = transform(items), transform(items, [4, 4])
    assert whole.of(padded) == pytest.approx(whole.of(packed))


# What goes wrong


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    items = make_items()
    model, transform = make_parts(items)
    assert model.head is not None
    with torch.no_grad():
        model.head.value[-1].bias.fill_(float("nan"))  # type: ignore[index, union-attr, operator]
    with pytest.raises(TrainingError, match=r"^the loss is nan at step 0: lower train.lr \(now 0.001\)[^\n]*$"):
        fit(model, transform, items, recipe())


def test_out_of_memory_says_which_knob_to_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items()
    model, transform = make_parts(items)

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(model.backbone.model, "forward", full)
    with pytest.raises(TrainingError) as e:
        fit(model, transform, items, recipe())
    assert "out of memory at step 0 on a batch of 4 x " in str(e.value)
    for knob in ("train.batch (now 4)", "train.gradient_checkpointing", "data.sequence_length", "model.max_pixels"):
        assert knob in str(e.value)


def test_nothing_to_resume_is_said(corpus: tuple[Lake, Release]) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint to go on from in .*steps: begin without --resume"):
        train(*corpus, recipe("never_run"), resume=True)


def test_a_missing_checkpoint_is_said(corpus: tuple[Lake, Release], tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nmodel: {}\nhead: {}\ntrain: {steps: 1, batch: 1, lr: 1}\n")
    with pytest.raises(ModelError, match=f"there is no checkpoint {tmp_path}/gone"):
        train(*corpus, load_recipe(str(path), tmp_path / "gone"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="a model of the type 'llama'; known: qwen3_vl"):
        train(*corpus, load_recipe(str(path), tmp_path / "other"))


def test_a_checkpoint_trains_on_from_its_folder_whatever_its_name(corpus: tuple[Lake, Release], tmp_path: Path) -> None:
    lake, release = corpus
    items = make_items()
    model, transform = make_parts(items, "qwen2_5_vl")
    folder = tmp_path / "Qwen3-VL-it-says"  # the class is chosen by config.json
    save_model(model, transform.processor, folder, {"max_px": 64})
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nmodel: {max_pixels: 4096}\nhead: {}\ntrain: {steps: 1, batch: 2, lr: 1.0e-3}\n")
    run = train(lake, release, load_recipe(str(path), folder))
    trained, _, card = load_model(run.checkpoint)
    assert type(trained.backbone).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert card["recipe"]["model"]["path"] == str(folder)


class _Trap:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("/tmp/a-pickle-was-run",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    model, transform = make_parts(make_items())
    save_model(model, transform.processor, tmp_path / "m", {"max_px": 64})
    (tmp_path / "m" / "model.safetensors").unlink()
    for trapped in (tmp_path / "m" / name, tmp_path / "m" / "optimizer.pt"):
        trapped.write_bytes(pickle.dumps(_Trap()))
    (tmp_path / "m" / "progress_head.safetensors").rename(tmp_path / "head")
    with pytest.raises(ModelError, match=rf"^{tmp_path}/m keeps its weights pickled [^\n]*proccorpus model convert$"):
        load_model(tmp_path / "m")
    assert not Path("/tmp/a-pickle-was-run").exists()


@pytest.mark.parametrize("broken", ["progress_head.safetensors", "config.json", "model.safetensors", "card.json"])
def test_an_incomplete_checkpoint_is_refused(tmp_path: Path, broken: str) -> None:
    model, transform = make_parts(make_items())
    save_model(model, transform.processor, tmp_path, {})
    (tmp_path / broken).unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)


def write_half(folder: Path) -> None:
    def write() -> None:
        with whole_folder(folder) as half:
            (half / "state.json").write_text("{}")
            raise KilledError

    with pytest.raises(KilledError):
        write()


def test_resume_never_takes_what_was_half_written(corpus: tuple[Lake, Release]) -> None:
    lake, release = corpus
    of = recipe("half", train={"save_every": 1, "keep": 9})
    run = train(lake, release, of)
    steps = run.checkpoint.with_name(f"{run.id}.steps")
    write_half(steps / "step-00000009")
    assert [p.name for p in saved_steps(steps)] == ["step-00000001", "step-00000002", "step-00000003"]
    write_half(steps / "step-00000003")  # what is there stays
    assert load_state(saved_steps(steps)[-1])[0].step == 3
    state = saved_steps(steps)[-1] / "state.json"
    state.write_text(state.read_text()[:100])
    with pytest.raises(ModelError, match=r"step-00000003 cannot be gone on from"):
        train(lake, release, of, resume=True)


def test_a_state_of_other_data_or_processes_is_refused(corpus: tuple[Lake, Release]) -> None:
    lake, release = corpus
    of = recipe("others", train={"save_every": 2})
    run = train(lake, release, of)
    path = saved_steps(run.checkpoint.with_name(f"{run.id}.steps"))[-1] / "state.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"streams": facts["streams"] * 2, "chance": facts["chance"] * 2}))
    with pytest.raises(TrainingError, match="begun by 2 processes and cannot go on with 1"):
        train(lake, release, of, resume=True)


def test_a_card_takes_scores_and_is_read_by_people(corpus: tuple[Lake, Release]) -> None:
    run = train(*corpus, recipe("carded", train={"steps": 1}))
    add_scores(run.checkpoint, "held-out", {"voc": 0.9})
    add_scores(run.checkpoint, "held-out", {"voc": 0.91, "mae": 0.2})
    card = read_card(run.checkpoint)
    assert card["scores"] == {"held-out": {"voc": 0.91, "mae": 0.2}}
    text = card_text(card)
    for words in ("random weights", "`bars1`", "held-out: mae 0.2, voc 0.91", "recipe `carded`"):
        assert words in text
    assert base_of(run.checkpoint) is None


PROCESS = """
import json, os, sys
from pathlib import Path
import torch
from tests.kits.training_kit import recipe
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import get_release
from core.paths import Workspace
torch.set_num_threads(1)
lake = Lake(Workspace(Path(sys.argv[1])))
of = recipe("two", train={"batch": 2, "save_every": 2, "distributed": sys.argv[2]})
runs = [train(lake, get_release(lake), of, resume=resume) for resume in (False, True)]
if os.environ["RANK"] == "0":
    print(json.dumps([[[p.loss, p.gradient_norm, p.samples] for p in run.curve] for run in runs]))
torch.distributed.destroy_process_group()
"""


def two_processes(space: Path, distributed: str) -> list:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    arguments = [sys.executable, "-c", PROCESS, str(space), distributed]
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=common | {"RANK": str(k), "LOCAL_RANK": str(k), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    try:
        said = [p.communicate(timeout=600) for p in started]
    finally:
        for p in started:
            p.kill()
    assert [p.returncode for p in started] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    return json.loads(said[0][0].splitlines()[-1])


@pytest.mark.parametrize("distributed", ["none", "fsdp"])
def test_two_processes_make_the_steps_of_one(corpus: tuple[Lake, Release], distributed: str) -> None:
    lake, _ = corpus
    first, resumed = two_processes(lake.workspace.root, distributed)
    assert len(first) == 4
    assert first[-1][2] == 4 * 4  # two samples of each in each step
    for a, b in zip(first, resumed, strict=True):
        assert b == pytest.approx(a, abs=1e-6)
