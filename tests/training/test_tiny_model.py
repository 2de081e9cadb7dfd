"""The tiny model in its real classes: what it is given, what it may see, what it learns, and how it is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from training.data import augment, batches
from training.model import ModelError, Output, ProgressHead, ProgressModel, load_model, losses, save_model
from training.recipe import Recipe, RecipeError, load_recipe
from training.tiny import TinyConfig, make_backbone, make_processor, make_tokenizer
from training.train import TrainingError, fit, schedule
from training.transform import IGNORE, Item, Transform

SMALL = TinyConfig(vocabulary=400, hidden=64, layers=2, heads=4, vision_hidden=64, vision_layers=2, max_px=64)


def make_items(count: int = 8) -> list[Item]:
    """Pictures of a bar that grows with progress; one to three pictures each."""
    items = []
    for i in range(count):
        share = i / max(1, count - 1)
        picture = np.full((64, 64, 3), 40, np.uint8)
        picture[:, : round(64 * share)] = (200, 120, 30)
        n = 1 + i % 3
        question = "\n".join(["<image>"] * n) + "\nHow far is the bar?"
        items.append(Item(question, (picture,) * n, f"<progress>{100 * share:.2f}%</progress>", share))
    return items


@pytest.fixture(scope="module")
def parts() -> tuple[ProgressModel, Transform, list[Item]]:
    items = make_items()
    tokenizer = make_tokenizer([t for i in items for t in (i.question, i.answer or "")], SMALL.vocabulary)
    torch.manual_seed(0)
    model = ProgressModel(make_backbone(tokenizer, SMALL, 0), ProgressHead(SMALL.hidden)).eval()
    return model, Transform(make_processor(tokenizer, SMALL)), items


def test_a_picture_becomes_the_tokens_of_a_real_qwen3_vl(parts) -> None:
    _, transform, items = parts
    batch = transform(items[2:3])
    image = transform.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 3
    assert int((batch["input_ids"] == image).sum()) == 3 * 2 * 2  # 64 px: 4x4 patches, merged 2x2


def test_loss_is_on_the_answer_and_nothing_else(parts) -> None:
    _, transform, items = parts
    batch = transform(items[:3])
    for row, item in enumerate(items[:3]):
        labels = batch["labels"][row]
        text = transform.processor.tokenizer.decode(labels[labels != IGNORE])
        assert text == f"{item.answer}<|im_end|>"
        taught = labels != IGNORE
        assert not (taught & batch["prompt_mask"][row].bool()).any()
        assert (taught | batch["prompt_mask"][row].bool()).sum() == batch["attention_mask"][row].sum()


def test_training_and_serving_see_identical_tensors(parts) -> None:
    model, transform, items = parts
    for item in items:
        taught, asked = transform([item]), transform([Item(item.question, item.pictures)])
        n = asked["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "prompt_mask", "mm_token_type_ids"):
            assert torch.equal(taught[name][:, :n], asked[name]), name
        assert torch.equal(taught["pixel_values"], asked["pixel_values"])
        with torch.inference_mode():
            assert torch.allclose(model(taught).progress, model(asked).progress, atol=1e-6)


def test_the_head_cannot_see_the_answer(parts) -> None:
    model, transform, items = parts
    lie = [Item(i.question, i.pictures, "<progress>7.00%</progress>", i.progress) for i in items]
    with torch.inference_mode():
        assert torch.allclose(model(transform(items)).progress, model(transform(lie)).progress, atol=1e-6)


def test_batch_mates_do_not_change_a_score(parts) -> None:
    model, transform, items = parts
    with torch.inference_mode():
        alone = torch.cat([model(transform([i])).progress for i in items])
        assert torch.allclose(model(transform(items)).progress, alone, atol=1e-5)


def test_marks_and_pictures_must_match(parts) -> None:
    _, transform, items = parts
    with pytest.raises(ValueError, match="1 image marks for 2 pictures"):
        transform([Item("<image> what?", items[1].pictures)])


def test_losses_leave_out_items_without_a_label() -> None:
    output = Output(torch.tensor([0.2, 0.9], requires_grad=True), None)
    batch = {"progress": torch.tensor([0.5, float("nan")])}
    assert losses(output, batch, 0.0, 2.0).total.item() == pytest.approx(0.6)


def recipe(**changes: object) -> Recipe:
    base = {"name": "test", "model": SMALL, "steps": 60, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 5}
    return Recipe(**(base | changes))  # type: ignore[arg-type]


def test_eight_samples_are_learnt_by_heart_and_kept(parts, tmp_path: Path) -> None:
    _, transform, items = parts
    torch.manual_seed(1)
    model = ProgressModel(make_backbone(transform.processor.tokenizer, SMALL, 1), ProgressHead(SMALL.hidden))
    curve = fit(model, transform, items, recipe())
    assert np.mean([p.loss for p in curve[-5:]]) < 0.25 * curve[0].loss
    with torch.inference_mode():
        learnt = model(transform(items)).progress
    assert spearmanr(learnt.numpy(), [i.progress for i in items]).statistic > 0.9

    save_model(model, transform.processor, tmp_path / "m", {"max_px": 64})
    assert {p.suffix for p in (tmp_path / "m").iterdir()} == {".json", ".safetensors"}
    loaded, processor, card = load_model(tmp_path / "m")
    with torch.inference_mode():
        assert torch.equal(loaded(Transform(processor)(items)).progress, learnt)
    assert card == {"max_px": 64}


def test_training_is_repeatable(parts) -> None:
    _, transform, items = parts

    def run() -> list[float]:
        model = ProgressModel(make_backbone(transform.processor.tokenizer, SMALL, 2), ProgressHead(SMALL.hidden))
        return [p.loss for p in fit(model, transform, items, recipe(steps=3, augment=True))]

    torch.manual_seed(5)
    first = run()
    torch.manual_seed(5)
    assert run() == pytest.approx(first, abs=1e-6)


def test_a_loss_that_is_not_finite_stops_training(parts) -> None:
    _, transform, items = parts
    model = ProgressModel(make_backbone(transform.processor.tokenizer, SMALL, 2), ProgressHead(SMALL.hidden))
    with torch.no_grad():
        model.head.value[-1].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        fit(model, transform, items, recipe(steps=2))


@pytest.mark.parametrize("broken", ["progress_head.safetensors", "config.json", "model.safetensors"])
def test_an_incomplete_checkpoint_is_refused(parts, tmp_path: Path, broken: str) -> None:
    model, transform, _ = parts
    save_model(model, transform.processor, tmp_path, {})
    (tmp_path / broken).unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)


def test_augmentation_moves_all_pictures_of_an_item_alike() -> None:
    item = make_items()[5]
    changed = augment(item, np.random.default_rng(0))
    assert changed.progress == item.progress
    assert not np.array_equal(changed.pictures[0], item.pictures[0])
    assert all(np.array_equal(p, changed.pictures[0]) for p in changed.pictures)


def test_batches_go_over_all_items_once_a_pass() -> None:
    items = make_items(7)
    source = batches(items, 3, np.random.default_rng(0), augmented=False)
    seen = [i.progress for _ in range(7) for i in next(source)]
    for k in range(3):
        assert sorted(seen[7 * k : 7 * k + 7]) == sorted(i.progress for i in items)


def test_schedule_warms_up_and_ends_low() -> None:
    r = recipe(steps=100, warmup_steps=10)
    assert schedule(0, r) == pytest.approx(0.1)
    assert schedule(9, r) == 1
    assert schedule(99, r) < 0.01


def test_built_in_recipe_loads_and_typos_are_named(tmp_path: Path) -> None:
    assert load_recipe("tiny_cpu").name == "tiny_cpu"
    with pytest.raises(RecipeError, match="unknown recipe 'tiny'; known: tiny_cpu"):
        load_recipe("tiny")
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nsteps: 1\nbatch_size: 1\nlearning_rate: 1\nlr: 2\n")
    with pytest.raises(RecipeError, match="lr: extra inputs"):
        load_recipe(str(path))
    path.write_text("- a\n")
    with pytest.raises(RecipeError):
        load_recipe(str(path))
