"""Held-out episodes that a model was trained on are told by their contents, whatever the split says now."""

import pytest

from pipeline.trained_on import held_out_text, seen_in_training
from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.releases.release import create_release, delete_release


@pytest.fixture
def lake(own: Made) -> Lake:
    return Lake(own.space)


def test_a_split_that_moved_between_releases(lake: Lake) -> None:
    release = create_release(lake, "r1", allow=["unknown"])
    card = {"release": "r1", "release_hash": release.config_hash}
    splits = lake.rows("SELECT dataset, episode_index, split FROM splits")
    trained = {(dataset, index) for dataset, index, split in splits if split == "train"}
    held_out = {(dataset, index) for dataset, index, _ in splits} - trained
    assert trained
    assert held_out
    lake.con.execute("UPDATE splits SET split = CASE split WHEN 'train' THEN 'test_id' ELSE 'train' END")
    assert seen_in_training(lake, card, trained) == trained
    assert seen_in_training(lake, card, held_out) == set()
    assert "of the 3 held-out episodes were trained on, by release r1" in held_out_text(3, trained, "r1")
    assert "never saw" in held_out_text(3, set(), "r1")


def test_a_release_that_is_gone_or_another_one(lake: Lake) -> None:
    release = create_release(lake, "r1", allow=["unknown"])
    assert seen_in_training(lake, {"release": "r1", "release_hash": "0" * 64}, [("tiny", 0)]) is None
    delete_release(lake, "r1")
    card = {"release": "r1", "release_hash": release.config_hash}
    assert seen_in_training(lake, card, [("tiny", 0)]) is None
    assert "cannot be told" in held_out_text(3, None, "r1")
    assert seen_in_training(lake, {}, [("tiny", 0)]) is None
