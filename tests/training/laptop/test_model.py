"""The model by itself: causal, blind to what lies before its window, and the same after a turn on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from annotate.embeddings.encoders import load_encoder
from tests.kits.laptop_kit import TASKS, small_config
from training.folder import ModelError, is_laptop
from training.laptop.model import (
    NO_TREND,
    OOD,
    LaptopModel,
    SeenWindow,
    hashed_text,
    laptop_loss,
    load_laptop,
    read_windows,
    save_laptop,
    trends_of,
)
from training.laptop.ood import ADAPTED, OodDetector

WIDTH = 6


def make_model() -> LaptopModel:
    torch.manual_seed(0)
    model = LaptopModel(small_config(), WIDTH, 4).eval()
    torch.nn.init.normal_(model.words.weight)
    return model


def test_windows_of_other_lengths():
    model, embeddings = (
        make_model(),
        list(np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)),
    )
    first = embeddings[0]

    def progress(pictures: list[np.ndarray], start: np.ndarray | None = first) -> float:
        return read_windows(model, [SeenWindow(TASKS[0], pictures, start)])[0].progress

    assert progress(embeddings[2:]) == progress([embeddings[2], embeddings[2], *embeddings[2:]])
    assert progress([embeddings[3], *embeddings]) == progress(embeddings)
    assert progress(embeddings, None) == progress(embeddings, embeddings[0])
    assert read_windows(model, []) == []


def test_another_encoder_is_refused(tmp_path: Path):
    config = small_config()
    save_laptop(LaptopModel(config, WIDTH, 4), load_encoder(config.embeddings), tmp_path, {})
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["encoder"]["title"] = "grey@32"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"grey@32.*bring that encoder"):
        load_laptop(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_laptop(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_laptop(tmp_path)


def test_former_checkpoints_are_refused(tmp_path: Path):
    save_laptop(
        make_model(),
        load_encoder(small_config().embeddings),
        tmp_path,
        {"head": {"pooling": "laptop"}},
    )
    own_tensors = load_file(tmp_path / "model.safetensors")
    old = {k: v for k, v in own_tensors.items() if not k.startswith("ood.")} | {
        "ood.farthest": torch.tensor(1.0)
    }
    save_file(old, tmp_path / "model.safetensors")
    with pytest.raises(
        ModelError, match="strangeness was told by the nearest pictures: train it again"
    ):
        load_laptop(tmp_path)


# The trend, as a recipe's choice


def test_trends():
    label = torch.tensor([[0.1, 0.3, 0.301, 0.2, torch.nan, 0.5]])
    assert trends_of(label).tolist() == [[NO_TREND, 2, 1, 0, NO_TREND, NO_TREND]]


def test_a_trend_is_learnt(tmp_path: Path):
    assert "trend_weight" not in small_config().model_dump()  # names of runs are as before
    config = small_config().model_copy(update={"trend_weight": 1.0})
    model = LaptopModel(config, WIDTH, 4)
    numbers = torch.randn(8, 5, WIDTH)
    label = torch.rand(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss, _ = laptop_loss(model, model(numbers, ["go"] * 8), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_laptop(model, load_encoder(config.embeddings), tmp_path, {})
    output = load_laptop(tmp_path)[0](numbers, ["go"] * 8)
    assert output.trend_logits is not None
    trends = trends_of(label)[:, 1:]
    assert (output.trend_logits.argmax(-1)[:, 1:] == trends).float().mean() > 0.8


# Hashed words


def test_order_counts():
    assert hashed_text("Open the drawer.", 4096) == hashed_text("open THE drawer", 4096)
    assert sorted(hashed_text("a b", 4096)) != sorted(hashed_text("b a", 4096))
    assert set(hashed_text("open the drawer", 4096)) & set(hashed_text("open the door", 4096))


def test_rows_stay_the_same():
    assert all(0 < row < 64 for row in hashed_text("push the bar", 64))
    # the word, and parts of <abcd>: checkpoints depend on it
    assert hashed_text("abcd", 4096) == (396, 1936, 690, 2154)


# What training never showed


SEEN = 256 + 64 * 4


def runs_of_change(count: int = 6, seed: int = 0, scene: int = 0) -> tuple[torch.Tensor, ...]:
    """Pictures of a scene that move away from their run's first one, each run another way; progress is how far they
    are; which run it is."""
    rng = np.random.default_rng(seed)
    start = np.random.default_rng(99 + scene).normal(size=SEEN) + 0.5 * rng.normal(
        size=(count, 1, SEEN)
    )
    way = 0.3 * rng.normal(size=(count, 1, SEEN))
    share = np.linspace(0, 1, 20)[None, :, None]
    embeddings = torch.from_numpy((start + 2 * share * way).reshape(-1, SEEN).astype(np.float32))
    first = torch.from_numpy(np.repeat(start[:, 0], 20, 0).astype(np.float32))
    label = torch.from_numpy(np.tile(share[0, :, 0], count).astype(np.float32))
    return embeddings, first, label, torch.arange(count).repeat_interleave(20)


def test_the_change_is_worth_in_other_runs_what_it_was_worth_in_training():
    detector = OodDetector(SEEN)
    detector.fit(*runs_of_change())
    embeddings, first, label, _ = runs_of_change(seed=1)
    guess = detector.by_change(embeddings, first)
    assert (guess - label).abs().mean() < 0.12
    # Not where it changed: the cells in another order say the same
    order = torch.cat([torch.arange(256), 256 + torch.arange(256).view(4, 64).flip(0).flatten()])
    assert torch.allclose(
        detector.by_change(embeddings[:, order], first[:, order]), guess, atol=1e-6
    )


def test_labels_that_are_missing_teach_nothing():
    embeddings, first, label, run = runs_of_change()
    has_label = torch.arange(len(label)) % 3 == 0
    first_detector = OodDetector(SEEN)
    second_detector = OodDetector(SEEN)
    first_detector.fit(embeddings, first, torch.where(has_label, label, torch.nan), run)
    second_detector.fit(embeddings[has_label], first[has_label], label[has_label], run[has_label])
    assert torch.allclose(first_detector.guess.weight, second_detector.guess.weight, atol=1e-4)


def test_what_lies_farther_from_the_nearest_than_a_held_out_run_does_is_ood():
    detector = OodDetector(SEEN)
    other_scene = runs_of_change(scene=1)[0]
    assert detector.score(other_scene).max() == 0  # nothing was learnt yet
    detector.fit(*runs_of_change(20))
    assert detector.score(runs_of_change(20)[0]).max() == 0
    held_out = detector.score(runs_of_change(20, seed=1)[0]) >= OOD
    assert held_out.float().mean() < 0.15
    assert detector.score(other_scene).min() == 1
    alone = OodDetector(SEEN)
    alone.fit(*runs_of_change(1))
    assert alone.score(other_scene).max() == 0, "of one run nobody knows what is usual"


def shown(*tasks: str) -> LaptopModel:
    """A model that training showed these tasks."""
    torch.manual_seed(0)
    model = LaptopModel(small_config(text_buckets=4096), SEEN, 4).train()
    torch.nn.init.normal_(model.words.weight)
    model(torch.zeros(len(tasks), 5, SEEN), tasks)
    return model.eval()


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("push the bar to the right", True),
        ("Push the bar!", True),
        ("pull the bar to the right", True),
        ("stack the cubes", False),
        ("put the milk and the bread into their bins, to the right of the sink", False),
        ("", True),
    ],
)
def test_an_instruction_counts_where_training_showed_most_of_what_it_says(
    said: str, understood: bool
):
    model = shown(*TASKS)
    embeddings = torch.randn(1, 5, SEEN, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with_text, untold = (model(embeddings, [text]).progress for text in (said, ""))
    assert torch.equal(with_text, untold) is (not understood or not said)


def test_ood_pictures_are_judged_by_their_change_alone():
    model = shown(*TASKS)
    model.ood.fit(*runs_of_change())
    (of_training, _, _, _), (embeddings, first, _, _) = runs_of_change(), runs_of_change(scene=1)
    window = torch.stack([first[0], *embeddings[[4, 8, 12, 16]]])[None]
    with torch.inference_mode():
        near = model(of_training[None, :5], [TASKS[0]])
        far = model(window, [TASKS[0]])
        other_output = model(window, [TASKS[1]])
    assert torch.equal(near.progress, torch.sigmoid(near.progress_logit))
    assert torch.equal(far.progress, far.by_change)
    assert torch.equal(far.progress, other_output.progress)
    assert bool((far.progress.diff() > 0).all())


def test_a_scene_that_was_learnt_later_is_half_ood():
    detector = OodDetector(SEEN)
    embeddings = runs_of_change()[0]
    new = runs_of_change(scene=1)[0]
    detector.fit(*runs_of_change())
    assert detector.score(new).min() == 1
    detector.widen(new)
    assert torch.equal(detector.score(new), torch.full((len(new),), ADAPTED))
    assert detector.score(embeddings).max() == 0
    assert detector.score(runs_of_change(scene=2)[0]).min() == 1
    detector.widen(runs_of_change(scene=2)[0])  # a further one takes nothing away
    assert detector.score(new).max() <= ADAPTED
