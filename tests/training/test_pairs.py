"""Pairs of a batch's samples, and the head of a Qwen model that learns from them which is further."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from annotate.preferences import FURTHER_BY
from tests.kits.negatives_kit import TASKS, runs
from tests.kits.training_kit import bar, make_parts, recipe
from training.heads import make_head
from training.model import losses
from training.pairs import BatchPairs
from training.pictures import Item
from training.recipe import HeadConfig
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import create_release

RUNS = runs(6)  # each third one of each task
HEAD = {"preference_weight": 0.5}
FURTHER = {"preferences": {"further": 1.0}}


def rows(*told: tuple[int, float | None], **more: Any) -> list[dict[str, Any]]:
    return [{"dataset": "d", "episode_index": e, "progress": p, "negative": "as_recorded"} | more for e, p in told]


def pairs(shown: list[dict[str, Any]], rate: float = 9) -> list[tuple[int, int]]:
    return [(a, b) for a, b in BatchPairs(rate, RUNS)(shown, np.random.default_rng(0)).tolist()]


def test_moments_of_one_task_that_are_apart_are_compared_the_further_one_first() -> None:
    assert len(set(TASKS)) == 3
    # 0 and 3 are of one task, 1 of another
    shown = rows((0, 0.2), (3, 0.9), (1, 0.5), (0, 0.2 + 0.9 * FURTHER_BY), (3, None), (99, 0.0))
    assert pairs(shown) == [(1, 0), (1, 3)]
    assert pairs([{**shown[0], "negative": "other_task"}, *shown[1:]]) == [(1, 2 + 1)]
    assert pairs(rows((0, 0.1), (0, 0.9), negative="rewound")) == [(1, 0)]
    assert pairs([]) == []
    nameless = {key: replace(e, task=None) for key, e in RUNS.items()}
    assert BatchPairs(9, nameless)(shown, np.random.default_rng(0)).shape == (0, 2)


def test_at_most_so_many_are_drawn() -> None:
    shown = rows(*((0, k / 8) for k in range(8)))
    every, some = set(pairs(shown)), pairs(shown, 0.5)
    assert len(every) == 28
    assert len(some) == len(set(some)) == 4
    assert set(some) < every


@pytest.mark.parametrize("loss", ["l1", "binned"])
def test_its_output_is_beside_the_others(loss: Any) -> None:
    plain, compares = (HeadConfig(loss=loss, preference_weight=weight) for weight in (0, 1))
    torch.manual_seed(0)
    without = make_head(plain, 16)
    torch.manual_seed(0)
    head = make_head(compares, 16)
    states, mask = torch.randn(3, 5, 16), torch.ones(3, 5)
    raw, own = head(states, mask, mask), without(states, mask, mask)
    # What else is drawn at random does not depend on it
    assert torch.equal(raw[:, :-1], own)
    assert torch.equal(head.progress(raw), without.progress(own))
    done, own_done, score = head.done(raw), without.done(own), head.preference(raw)
    assert done is not None
    assert own_done is not None
    assert torch.equal(done, own_done)
    assert score is not None
    assert torch.equal(score, raw[:, -1])
    assert without.preference(own) is None


def test_which_is_further_is_learnt_from_pairs_alone() -> None:
    torch.manual_seed(0)
    shares = (0.1, 0.4, 0.7, 1.0)
    items = [Item("<image>\nHow far is the bar?", (bar(s),), "x") for s in shares]
    model, transform = make_parts(items, head=HeadConfig(preference_weight=1))
    batch = transform(items) | {"pairs": torch.tensor([[k, j] for k in range(4) for j in range(k)])}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(40):
        found = losses(model.head, model(batch), batch)
        optimizer.zero_grad()
        found.preference.backward()
        optimizer.step()
        curve.append((float(found.preference.detach()) / 6, int(found.right)))
    assert curve[0][0] == pytest.approx(np.log(2), abs=0.1)
    assert curve[-1][0] < 0.3 * curve[0][0]
    assert curve[-1][1] == 6
    score = model(batch).score
    assert score is not None
    assert (score.diff() > 0).all()


def test_a_run_reports_loss_and_accuracy(corpus: Lake) -> None:
    release = create_release(corpus, "r1", allow=("unknown",))
    of = recipe(head=HEAD, data=FURTHER, train={"steps": 3, "batch": 4})
    told = [p.extra for p in train(corpus, release, of).curve]
    with_pairs = [extra for extra in told if extra]
    assert with_pairs
    for extra in with_pairs:
        assert extra.keys() == {"preference", "preference_accuracy"}
        assert 0 < extra["preference"] < 5
        assert 0 <= extra["preference_accuracy"] <= 1
    plain = train(corpus, release, recipe("plain", train={"steps": 1, "batch": 4}))
    assert plain.curve[0].extra == {}


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"data": FURTHER}, "go together"),
        ({"head": HEAD}, "go together"),
        ({"head": HEAD, "data": {"preferences": {"further": 1, "outcome": 1}}}, "outcome and quality are for a laptop"),
        ({"head": HEAD | {"each_weight": 1}, "data": FURTHER}, "without each_weight"),
    ],
)
def test_what_cannot_be_compared_is_refused(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        recipe(**sections)
