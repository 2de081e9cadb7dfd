"""Unanswerable samples: why nothing fits, for every dataset, from anywhere in it."""

from collections import Counter
from dataclasses import replace

import numpy as np

from annotate.samples import samples_stage
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.unanswerable import UNANSWERABLE, Stranger
from tests.kits.labelled import STEPS, episode

MANY = SamplesConfig(unanswerable_per_episode=40)
DRAWER = ("Open the drawer", "Close the drawer")
STRANGERS = (Stranger(70, "train", "Wipe the window", ("front",), 50, 10.0),)


def rows(*episodes: LabelledEpisode, config: SamplesConfig = MANY, strangers: tuple[Stranger, ...] = ()) -> list[dict]:
    table = samples_stage(episodes, config, strangers)
    return [r for r in table.to_pylist() if r["family"] == UNANSWERABLE]


def two_cameras(index: int = 0) -> LabelledEpisode:
    e = episode(index, cameras=("front", "wrist"))
    return replace(e, unlike_cameras={"front": ("wrist",), "wrist": ("front",)})


def test_another_task_may_share_a_step_or_lie_beyond_the_chunk():
    wash = episode(1, task="Wash the pan", steps=(STEPS[0], "Wash the pan"))
    found = [r for r in rows(episode(0), wash, strangers=STRANGERS) if r["episode_index"] == 0]
    other_task = [r for r in found if r["reason"] == "other_task"]
    shown = {(r["variant"], r["pictures"][-1]["episode_index"]) for r in other_task}
    # In words: the other task's steps with the run's own picture, or its own steps with a picture of another task
    assert shown == {("text", 0), ("text", 1), ("text", 70), ("visual", 1), ("visual", 70)}
    for r in other_task:
        own_picture = r["pictures"][-1]["episode_index"] == 0
        assert own_picture == ("Wash the pan" in r["question"])
    frames = [p["frame_index"] for r in other_task for p in r["pictures"] if p["episode_index"] == 70]
    assert min(frames) >= 12  # it is under way
    assert max(frames) < 50
    assert all(r["num_tokens"] > 0 for r in found)


def test_the_same_task_in_other_words_and_other_splits_are_not_shown():
    again = episode(1, task="Place the cup away, please")
    assert "other_task" not in {r["reason"] for r in rows(episode(0), again)}
    held_out = replace(STRANGERS[0], split="val")
    found = rows(episode(0), episode(1, task="Use the drawer", split="val"), strangers=(held_out,))
    by_split = {r["episode_index"]: r["split"] for r in found} | {70: "val"}
    assert all(by_split[p["episode_index"]] == r["split"] for r in found for p in r["pictures"])
    assert 70 in {p["episode_index"] for r in found for p in r["pictures"]}


def test_another_camera_shows_the_same_moment_and_something_else():
    found = [r for r in rows(two_cameras()) if r["reason"] == "other_camera"]
    pairs = Counter((r["pictures"][0]["camera"], r["pictures"][-1]["camera"]) for r in found)
    assert pairs.keys() == {("front", "wrist"), ("wrist", "front")}
    assert all("seen by the same camera" in r["question"] for r in found)
    alike = replace(two_cameras(), unlike_cameras={})
    assert "other_camera" not in {r["reason"] for r in rows(alike)}


def test_the_picture_lies_well_outside_the_part_that_is_shown():
    e = episode()
    found = [r for r in rows(e) if r["reason"] == "not_shown"]
    before = 0
    for r in found:
        *demonstration, last = [p["frame_index"] for p in r["pictures"]]
        assert demonstration == sorted(demonstration)
        assert len(demonstration) >= 3
        if last < demonstration[0]:
            before += 1
            assert e.progress[demonstration[0]] - e.progress[last] >= 0.2
            assert demonstration[-1] == 179
        else:
            assert e.progress[last] - e.progress[demonstration[-1]] >= 0.2
            assert demonstration[0] == 0
    assert 4 < before < len(found) - 4


def test_without_a_task_or_anything_done_there_is_nothing_to_ask():
    assert rows(episode(task=None)) == []
    still = replace(episode(finished=False), segments=[], plan=(), progress=np.zeros(200, np.float32))
    assert rows(still) == []


def test_episodes_in_any_order_give_the_same_samples_of_every_family():
    episodes = [two_cameras(0), *(episode(k, finished=k % 2 == 0) for k in range(1, 6))]
    episodes += [episode(k, task="Use the drawer", steps=DRAWER) for k in range(6, 9)]
    forward, backward = (
        {r["sample_id"]: r for r in samples_stage(some, MANY, STRANGERS).to_pylist()}
        for some in (episodes, episodes[::-1])
    )
    assert forward == backward
    assert len({r["family"] for r in forward.values()}) > 4
