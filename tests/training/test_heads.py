"""The heads and their losses, by hand."""

import pytest
import torch

from training.heads import PublishedHead, head_json, head_of, make_head, two_bins
from training.recipe import HeadConfig


def test_published_structure_and_size() -> None:
    head = make_head(HeadConfig(pooling="published"), 2048)
    assert isinstance(head, PublishedHead)
    count = {n: sum(p.numel() for p in getattr(head, n).parameters()) for n in ("pooler", "value_head")}
    assert count["pooler"] == pytest.approx(1.05e6, rel=0.01)
    assert count["value_head"] == pytest.approx(33.6e6, rel=0.01)


def test_published_progress_is_a_shifted_sigmoid() -> None:
    head = make_head(HeadConfig(pooling="published"), 32)
    z = torch.tensor([[2.0], [-2.0], [0.0]])
    assert head.progress(z).tolist() == pytest.approx([0.9089, 0.0759, 0.4750], abs=1e-4)  # sigmoid(1.2 z - 0.1)
    assert make_head(HeadConfig(), 32).progress(z).tolist() == pytest.approx([0.8808, 0.1192, 0.5], abs=1e-4)


def test_published_tail_and_noise_are_for_training_alone() -> None:
    torch.manual_seed(0)
    head = make_head(HeadConfig(pooling="published", noise=0.0), 32)
    states, tokens = torch.randn(1, 40, 32), torch.ones(1, 40, dtype=torch.long)
    head.eval()
    assert torch.equal(head(states, tokens, tokens), head(states, tokens, tokens))
    head.train()
    seen = [head(states, tokens, tokens).item() for _ in range(4)]
    assert len(set(seen)) == 4  # the tail's features are dropped at random
    front = torch.cat([torch.ones(1, 26), torch.zeros(1, 14)], -1)  # without the last 14 of 40
    only_front = states.masked_fill((front == 0).unsqueeze(-1), 0)
    dropped = []
    hook = head.pooler.register_forward_pre_hook(lambda module, inputs: dropped.append(inputs[0]))  # type: ignore[union-attr]
    head(states, tokens, tokens)
    hook.remove()
    assert torch.equal(dropped[0] * front.unsqueeze(-1), only_front)
    tail = dropped[0][:, 26:]
    assert 0.3 < (tail == 0).float().mean() < 0.7
    noisy = make_head(HeadConfig(noise=0.5, done_weight=0), 32).train()
    assert noisy(states, tokens, tokens).item() != noisy(states, tokens, tokens).item()


def test_losses_by_hand_leave_out_samples_without_a_label() -> None:
    target = torch.tensor([0.5, float("nan"), 1.0])
    z = torch.logit(torch.tensor([0.2, 0.9, 0.98])).unsqueeze(-1)
    plain = make_head(HeadConfig(done_weight=0), 32)
    assert plain.loss(z, target).item() == pytest.approx(0.3 + 0.02, abs=1e-6)
    huber = make_head(HeadConfig(loss="huber", huber_beta=0.05, done_weight=0), 32).loss(z, target).item()
    assert huber == pytest.approx((0.3 - 0.025) + 0.02**2 / 0.1, abs=1e-6)
    assert plain.loss(z[1:2], target[1:2]).item() == 0


@pytest.mark.parametrize("loss", ["l1", "binned"])
def test_the_end_state_is_a_second_output_learnt_where_progress_is_1(loss: str) -> None:
    config = HeadConfig(loss=loss, bins=5, done_weight=0.5)  # type: ignore[arg-type]
    head = make_head(config, 32)
    states, mask = torch.randn(3, 4, 32), torch.ones(3, 4, dtype=torch.long)
    raw = head(states, mask, mask)
    assert raw.shape == (3, head.outputs + 1)
    assert torch.equal(head.done(raw), torch.sigmoid(raw[:, -1]))  # type: ignore[arg-type]
    target = torch.tensor([0.999, 1.0, float("nan")])
    without = make_head(config.model_copy(update={"done_weight": 0.0}), 32)
    assert without.done(raw[:, :-1]) is None
    assert torch.equal(head.progress(raw), without.progress(raw[:, :-1]))
    said = torch.sigmoid(raw[:2, -1])
    by_hand = without.loss(raw[:, :-1], target) - 0.5 * ((1 - said[0]).log() + said[1].log())
    assert head.loss(raw, target).item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert not HeadConfig(pooling="published").has_done


def test_a_head_from_before_the_end_state_is_made_as_it_was() -> None:
    old = head_json(make_head(HeadConfig(done_weight=0), 32))
    del old["done_weight"]
    assert not head_of(old).config.has_done


def test_binned_labels_are_expectations_of_their_bins() -> None:
    target = torch.tensor([0.0, 0.33, 0.5, 1.0])
    spread = two_bins(target, 11)
    assert torch.allclose(spread @ torch.linspace(0, 1, 11), target)
    assert ((spread > 0).sum(-1) <= 2).all()
    head = make_head(HeadConfig(loss="binned", bins=11, done_weight=0), 32)
    sure = (spread + 1e-9).log()
    assert torch.allclose(head.progress(sure), target, atol=1e-4)
    assert head.loss(sure, target).item() < head.loss(torch.zeros(4, 11), target).item()


@pytest.mark.parametrize("pooling", ["prompt", "published"])
def test_a_head_is_made_again_from_its_json(pooling: str) -> None:
    head = make_head(HeadConfig(pooling=pooling, loss="binned", bins=7, dropout=0.1), 32)  # type: ignore[arg-type]
    again = head_of(head_json(head))
    again.load_state_dict(head.state_dict())
    assert (type(again), again.config) == (type(head), head.config)
