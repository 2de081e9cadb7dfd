"""Progress at each picture in one pass: causal, packed as padded, learnt, kept in a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.reward.model import open_model
from eval.reward.window import RewardError, Window
from tests.kits.training_kit import FAMILIES, bar, make_parts, recipe
from training.folder import read_card
from training.heads import make_head
from training.loop import Point
from training.model import ModelOutput, ProgressModel, load_model, losses, save_model
from training.pictures import Item
from training.pixels import normalised
from training.recipe import HeadConfig
from training.train import train
from training.transform import Transform, chat
from warehouse.lake import Lake
from warehouse.releases import create_release

HEAD = HeadConfig(each_weight=0.5)
HEAD_ALONE = {"steps": 2, "text_weight": 0}
QUESTION = "<image>\n<image>\n<image>\nHow far is the bar?"


def item(shares: tuple[float, ...], words: str = "How far is the bar?") -> Item:
    question = "\n".join(["<image>"] * len(shares)) + f"\n{words}"
    return Item(question, tuple(map(bar, shares)), "<progress>1%</progress>", shares[-1], each=shares)


THREE = item((0.1, 0.9, 0.4))
ITEMS = [THREE, item((0.7,)), replace(item((0.2, 0.3)), each=None), item((0.5, 0.6))]


def parts(family: str = "qwen3_vl", head: HeadConfig = HEAD) -> tuple[ProgressModel, Transform]:
    model, transform = make_parts(ITEMS, family, head)
    transform.processor.words_first = head.has_each
    return model, transform


@torch.inference_mode()
def output(model: ProgressModel, transform: Transform, items: list[Item], packed: bool = False) -> ModelOutput:
    return model(normalised(transform.as_bytes(items, packed)), with_text=True)


def each(model: ProgressModel, transform: Transform, items: list[Item], packed: bool = False) -> torch.Tensor:
    found = output(model, transform, items, packed).each
    assert found is not None
    return found


def test_words_come_before_pictures_and_lose_nothing() -> None:
    turn = chat(QUESTION, words_first=True)[0]["content"]
    assert turn == [{"type": "text", "text": "How far is the bar?\n"}, *[{"type": "image"}] * 3]
    assert chat("a <image> b", words_first=True)[0]["content"][0]["text"] == "a\nb\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_at_a_picture_nothing_after_it_is_known(family: str) -> None:
    model, transform = parts(family)
    whole = each(model, transform, [THREE])[0]
    assert whole.unique().numel() == 3
    for k in (1, 2):
        cut = item((0.1, 0.9, 0.4)[:k])
        torch.testing.assert_close(each(model, transform, [cut])[0], whole[:k], atol=1e-5, rtol=0)
    other = each(model, transform, [item((0.1, 0.9, 1.0))])[0]
    torch.testing.assert_close(other[:2], whole[:2], atol=1e-5, rtol=0)
    assert abs(other[2] - whole[2]) > 1e-5
    # The words are known at every picture
    asked = each(model, transform, [item((0.1, 0.9, 0.4), "How far is it, the curtain?")])[0]
    assert ((asked - whole).abs() > 1e-6).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_as_padded(family: str) -> None:
    model, transform = parts(family)
    padded, packed = (output(model, transform, ITEMS, packed) for packed in (False, True))
    assert padded.each is not None
    assert packed.each is not None
    assert torch.isnan(padded.each).sum(1).tolist() == [0, 2, 1, 1]
    torch.testing.assert_close(packed.each, padded.each, atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(packed.progress, padded.progress, atol=1e-5, rtol=0)
    sums = [losses(model.head, o, transform(ITEMS, packed)).progress for o, packed in ((padded, False), (packed, True))]
    torch.testing.assert_close(*sums, atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", ["l1", "binned"])
def test_each_sample_counts_once_however_many_pictures_it_has(loss: Any) -> None:
    head = make_head(HeadConfig(each_weight=2.0, loss=loss, done_weight=0), 8)
    raw = torch.randn(2, 3, head.outputs, generator=torch.Generator().manual_seed(0))
    nan = float("nan")
    target = torch.tensor([[0.2, 0.4, 0.6], [0.5, nan, nan]])
    by_hand = head.loss(raw[0], target[0]) / 3 + head.loss(raw[1, :1], target[1, :1])
    assert head.each_loss(raw, target).item() == pytest.approx(2 * by_hand.item(), rel=1e-5)
    assert head.each_loss(raw, torch.full((2, 3), nan)).item() == 0


def test_a_checkpoint_keeps_it_and_scores_a_window_in_one_pass(tmp_path: Path) -> None:
    model, transform = parts()
    folder = tmp_path / "m"
    window = {"profile": "balanced", "window_frames": 3, "window_step_s": 0.2, "picture_max_px": 64}
    save_model(model, transform.processor, folder, {"max_px": 64, "window": window})
    again, processor, _ = load_model(folder)
    assert Transform(processor).words_first
    expected = each(model, transform, ITEMS)
    torch.testing.assert_close(each(again, Transform(processor), ITEMS), expected, equal_nan=True)
    scorer = open_model(folder)
    found = scorer.at_pictures([replace(i, answer=None) for i in ITEMS])
    assert [len(f) for f in found] == [3, 1, 2, 2]
    assert found[0] == pytest.approx(expected[0].tolist(), abs=1e-5)
    # The last picture's number of the other outputs is as from any scorer
    assert scorer.ask(ITEMS)[0].progress == pytest.approx(output(model, transform, ITEMS).progress[0].item(), abs=1e-5)


def test_a_model_without_it_says_so(tmp_path: Path) -> None:
    model, transform = parts(head=HeadConfig())
    save_model(model, transform.processor, tmp_path / "m", {"max_px": 64})
    scorer = open_model(tmp_path / "m", window=Window(2, 0.2))
    assert output(model, transform, [THREE]).each is None
    with pytest.raises(RewardError, match=r"train it with head\.each_weight"):
        scorer.at_pictures([THREE])


def test_it_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model, transform = parts()
    batch = transform(ITEMS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        found = losses(model.head, model(batch), batch)
        optimizer.zero_grad()
        (found.progress / found.labels).backward()
        optimizer.step()
    assert each(model, transform, [THREE])[0].tolist() == pytest.approx([0.1, 0.9, 0.4], abs=0.12)


@pytest.mark.parametrize("more", [{}, {"lora": {"rank": 4, "alpha": 8}}], ids=["full", "lora"])
def test_a_run_learns_from_labels_at_each_picture(corpus: Lake, more: dict[str, Any]) -> None:
    release = create_release(corpus, "r1", allow=("unknown",))
    of = recipe(f"each{len(more)}", head={"each_weight": 1.0}, train=HEAD_ALONE, **more)
    points: list[Point] = []
    run = train(corpus, release, of, points.append)
    assert np.isfinite([p.loss for p in points]).all()
    plain = recipe(f"plain{len(more)}", train=HEAD_ALONE, **more)
    assert points[0].loss > 1.3 * train(corpus, release, plain).curve[0].loss
    card = read_card(run.checkpoint)
    assert card["head"]["each_weight"] == 1.0
    assert "negatives" not in card
    model, processor, _ = load_model(run.checkpoint)
    assert each(model, Transform(processor), [THREE]).shape == (1, 3)
