"""Negatives in a whole run: labels out of the lake, counts in the card, the same after a kill."""

import pytest

from annotate.samples.procvqa import PROGRESS, progress_answer
from tests.kits.training_kit import recipe
from training.folder import read_card
from training.labels import read_labels
from training.points import Point
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import Release, create_release
from warehouse.shards import read_samples


@pytest.fixture
def release(corpus: Lake) -> Release:
    return create_release(corpus, "r1", allow=("unknown",))


def test_labels_are_those_that_samples_were_made_of(corpus: Lake, release: Release) -> None:
    shards = release.paths(corpus.workspace, "train")
    labels, asked = read_labels(corpus, release, shards), 0
    for sample in read_samples(shards, frozenset({PROGRESS})):
        row = sample.row
        e = labels[row["dataset"], row["episode_index"]]
        assert e.progress[row["frames"][-1]] == pytest.approx(row["progress"])
        assert (e.label_run, e.split) == (row["label_run"], "train")
        assert str(e.task) in row["question"]
        assert progress_answer(e, row["frames"][-1]) == row["answer"]
        asked += 1
    assert asked > 5
    for split in ("val", "test_id"):
        assert not labels.keys() & read_labels(corpus, release, release.paths(corpus.workspace, split)).keys()


def test_a_run_counts_what_it_was_shown_also_after_a_kill(corpus: Lake, release: Release) -> None:
    rates = {"rewound": 0.3, "stood_still": 0.2, "cut_short": 0.2}
    of = recipe(data={"negatives": rates}, train={"steps": 4, "batch": 4, "save_every": 2})
    whole = train(corpus, release, of)
    made = read_card(whole.checkpoint)["negatives"]
    assert sum(made.values()) == whole.samples == 16
    assert made.keys() <= {"as_recorded", *rates}
    assert len(made) > 1

    def kill(point: Point) -> None:
        if point.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(corpus, release, of, kill)
    again = train(corpus, release, of, resume=True)
    assert read_card(again.checkpoint)["negatives"] == made
    assert [p.loss for p in again.curve] == pytest.approx([p.loss for p in whole.curve], abs=1e-6)


def test_without_rates_no_card_speaks_of_them(corpus: Lake, release: Release) -> None:
    run = train(corpus, release, recipe("plain", train={"steps": 1, "batch": 2}))
    assert "negatives" not in read_card(run.checkpoint)
