"""Negatives in a whole run: labels out of the lake, counts in the card, the same after a kill."""

import pytest

from tests.kits.training_kit import killed_and_resumed, recipe
from training.folder import read_card
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import Release, create_release


@pytest.fixture
def release(corpus: Lake) -> Release:
    return create_release(corpus, "r1", allow=("unknown",))


def test_a_run_counts_what_it_was_shown_also_after_a_kill(corpus: Lake, release: Release) -> None:
    rates = {"rewound": 0.3, "stood_still": 0.4}
    of = recipe(data={"negatives": rates}, train={"steps": 4, "batch": 4, "save_every": 2})
    whole = train(corpus, release, of)
    made = read_card(whole.checkpoint)["negatives"]
    assert sum(made.values()) == whole.samples == 16
    assert made.keys() <= {"as_recorded", *rates}
    assert len(made) > 1

    again = killed_and_resumed(corpus, release, of, at=3)
    assert read_card(again.checkpoint)["negatives"] == made
    assert [p.loss for p in again.curve] == pytest.approx([p.loss for p in whole.curve], abs=1e-6)
