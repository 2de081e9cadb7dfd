"""Episodes that a model was trained on are told by recording and by contents, whatever their split or number is now."""

import pytest

from tests.kits.made_corpus import Made
from training.trained_on import (
    UNKNOWN,
    TrainedOn,
    ids_of,
    seen_among,
    seen_by_release,
    seen_of,
    seen_text,
)
from warehouse.lake import Lake
from warehouse.releases.release import create_release, delete_release

SWAPPED = "UPDATE splits SET split = CASE split WHEN 'train' THEN 'test_id' ELSE 'train' END"


@pytest.fixture
def lake(own: Made) -> Lake:
    return Lake(own.space)


def test_a_split_that_moved_between_releases(lake: Lake) -> None:
    release = create_release(lake, "r1", allow=["unknown"])
    splits = lake.rows("SELECT dataset, episode_index, split FROM splits")
    trained = {(dataset, index) for dataset, index, split in splits if split == "train"}
    held_out = {(dataset, index) for dataset, index, _ in splits} - trained
    assert trained
    assert held_out
    card = {"trained_on": seen_by_release(lake, release).as_json()}
    lake.con.execute(SWAPPED)
    second_release = create_release(lake, "r2", allow=["unknown"])
    assert seen_among(lake, card, second_release, trained).episodes == trained
    assert seen_among(lake, card, second_release, held_out).episodes == set()
    seen_episodes = seen_among(lake, card, second_release, trained | held_out)
    assert seen_episodes.by_slice({"all": trained | held_out, "split test_id": held_out}) == {
        "all": len(trained),
        "split test_id": 0,
    }
    # Also once the release that it was trained on is gone
    delete_release(lake, "r1")
    assert seen_among(lake, card, second_release, trained | held_out) == seen_episodes
    assert f"{len(trained)} of the 5 held-out episodes were trained on" in seen_text(
        seen_episodes, 5, "r1"
    )
    assert "never saw" in seen_text(seen_among(lake, card, second_release, held_out), 3, "r1")


def test_one_id_is_enough_recording_or_contents(lake: Lake) -> None:
    """Numbers move, videos are encoded anew, and a copy in another dataset is another recording."""
    release = create_release(lake, "r1", allow=["unknown"])
    [(recording, content)] = lake.rows(
        "SELECT r.recording, content_hash FROM recordings r JOIN episode_content USING (dataset, episode_index) "
        "WHERE episode_index = 3"
    )
    assert {recording, content} <= ids_of(lake, [("tiny", 3)])["tiny", 3]
    for known_ids in (recording, content):
        card = {"trained_on": TrainedOn(frozenset([known_ids])).as_json()}
        assert seen_among(lake, card, release, [("tiny", 2), ("tiny", 3)]).episodes == {("tiny", 3)}


def test_a_model_of_an_earlier_version_is_judged_by_its_release(lake: Lake) -> None:
    release = create_release(lake, "r1", allow=["unknown"])
    all_episodes = lake.rows("SELECT dataset, episode_index FROM splits")
    card = {"release": "r1", "release_hash": release.config_hash}
    keys = {(dataset, index) for dataset, index in all_episodes}
    shown_seen = seen_among(lake, card, release, keys)
    assert shown_seen.is_all
    assert shown_seen.episodes == set(
        lake.rows("SELECT DISTINCT dataset, episode_index FROM samples WHERE split = 'train'")
    )
    other_seen = seen_among(lake, card | {"release_hash": "0" * 64}, release, keys)
    assert (other_seen.episodes, other_seen.is_all) == (set(), False)
    assert other_seen.by_slice({"all": keys}) == {}
    assert "cannot be told" in seen_text(other_seen, 5, "r1")
    # What is known of a model that also saw other things counts
    partly = (UNKNOWN | seen_of(lake, [("tiny", 3)])).as_json()
    seen_episodes = seen_among(lake, {"trained_on": partly}, release, keys)
    assert seen_episodes.by_slice({"all": keys}) == {"all": 1}
    assert "1 of the 5" in seen_text(seen_episodes, 5, None)
    assert "cannot be told" in seen_text(seen_episodes, 5, None)
