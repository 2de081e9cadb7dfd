"""Unanswerable samples: why nothing fits, for every dataset, from anywhere in it."""

from dataclasses import replace

import numpy as np

from annotate.samples import samples_stage
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.unanswerable import UNANSWERABLE, Stranger
from tests.kits.labelled import episode

MANY = SamplesConfig(unanswerable_per_episode=40)
DRAWER = ("Open the drawer", "Close the drawer")
STRANGERS = (Stranger(70, "train", "Wipe the window", ("front",), 50, 10.0),)


def rows(*episodes: LabelledEpisode, config: SamplesConfig = MANY, strangers: tuple[Stranger, ...] = ()) -> list[dict]:
    table = samples_stage(episodes, config, strangers)
    return [r for r in table.to_pylist() if r["family"] == UNANSWERABLE]


def kinds(found: list[dict]) -> set[tuple[str, str]]:
    return {(r["variant"], r["reason"]) for r in found}


def two_cameras(index: int = 0) -> LabelledEpisode:
    e = episode(index, cameras=("front", "wrist"))
    return replace(e, unlike_cameras={"front": ("wrist",), "wrist": ("front",)})


def test_without_a_task_or_anything_done_there_is_nothing_to_ask():
    assert rows(episode(task=None)) == []
    still = replace(episode(finished=False), segments=[], plan=(), progress=np.zeros(200, np.float32))
    assert rows(still) == []


def test_episodes_and_strangers_in_any_order_give_the_same_samples():
    episodes = [two_cameras(0), episode(1), episode(2, task="Use the drawer", steps=DRAWER)]
    assert rows(*episodes, strangers=STRANGERS) != []
    ids = {r["sample_id"] for r in rows(*episodes, strangers=STRANGERS)}
    assert {r["sample_id"] for r in rows(*reversed(episodes), strangers=STRANGERS)} == ids
