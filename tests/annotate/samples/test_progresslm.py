"""ProgressLM samples: true to the label, of pictures that may be compared, n/a where nothing fits."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.samples import edits, samples_stage
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.segments import IDLE, Segment
from core.errors import FailedError
from tests.kits.labelled import episode

CONFIG = SamplesConfig()
OTHER = ("Open the drawer", "Close the drawer")


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    found = samples_stage(episodes, config).to_pylist()
    return [r for r in found if r["family"].startswith("progresslm")]


def corpus() -> list[LabelledEpisode]:
    """Ten runs of a task, the odd ones unfinished; five of another; two cameras where the index divides by 3."""
    runs = [
        episode(i, finished=i % 2 == 0, cameras=("front", "wrist") if i % 3 == 0 else ("front",)) for i in range(10)
    ]
    return runs + [episode(i, task="Use the drawer", steps=OTHER) for i in range(10, 15)]


def test_without_text_or_whole_run_there_is_nothing_to_compare_with():
    assert rows(episode(task=None)) == []
    never = replace(episode(finished=False), segments=[Segment("rest", 0, 200, IDLE)], plan=())
    assert rows(never) == []


# Edits


def test_an_editor_is_an_entry_point_and_must_edit():
    with pytest.raises(FailedError, match=r"no installed package has the proccorpus.image_editors entry point 'x'"):
        edits.load_editor("x")
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FailedError, match="left a picture as it was, although told: take the cup away"):
        edits.edited(rgb, "take the cup away", 1, lambda rgb, instruction, seed: rgb, "still")
    with pytest.raises(FailedError, match=r"did not return an array uint8 \[h, w, 3\]"):
        edits.edited(rgb, "take the cup away", 1, lambda rgb, instruction, seed: rgb / 2, "half")
    made = edits.edited(rgb, "", 3, lambda rgb, instruction, seed: rgb + np.uint8(seed), "lamp")
    assert (made == 3).all()
    config = SamplesConfig(image_editor="lamp", unanswerable_per_episode=20)
    asked = [r for r in rows(*corpus(), config=config) if r["reason"] == "edited"]
    assert asked
    assert all(r["edit_instruction"].startswith("Take away, or replace by something else,") for r in asked)
    assert {r["edit_instruction"] for r in rows(*corpus(), config=config) if r["reason"] != "edited"} == {None}
