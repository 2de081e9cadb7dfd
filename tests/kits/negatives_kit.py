"""Runs of two tasks, with labels at every frame and shards of their samples: bars that grow with
progress."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import cv2

from annotate.config import SamplesConfig
from annotate.samples import samples_stage
from annotate.samples.labelled_episode import LabelledEpisode
from core.paths import Workspace
from tests.kits.labelled import episode
from tests.kits.training_kit import bar
from training.negatives.samples import Labels
from warehouse.shards.shard import EntryContent, picture_name, shards_stage

TASKS = ("Put the red cup away", "Open the green drawer", "Put the blue bowl away")
STEPS = (
    ("Grasp the red cup", "Place the red cup"),
    ("Reach", "Pull"),
    ("Grasp the blue bowl", "Place the blue bowl"),
)
SAMPLES = SamplesConfig(progress_per_episode=12, window_frames=4, window_step_s=0.4)
FAMILIES = ("procvqa_b", "procvqa_c")


def runs(count: int = 6) -> Labels:
    """Each third one of each task; every second one ends unfinished."""
    episodes_made = [
        episode(
            e, seconds=6, finished=e % 2 == 0, task=TASKS[e % 3], steps=STEPS[e % 3]
        )  # 60 frames
        for e in range(count)
    ]
    return {e.episode.key: e for e in episodes_made}


def write_shards(root: Path, labels: Labels) -> list[Path]:
    space = Workspace(root)
    rows = samples_stage(list(labels.values()), SAMPLES).to_pylist()
    shards_made = [("train", _shard_episode(e, rows)) for e in labels.values()]
    tables = shards_stage(space, "d", 0, iter(shards_made), target_bytes=60_000)
    return [space.shard("train", row["shard"]) for row in tables["shards"].to_pylist()]


def _shard_episode(e: LabelledEpisode, rows: Sequence[dict]) -> EntryContent:
    episode_rows = [
        r for r in rows if r["episode_index"] == e.episode.episode_index and r["family"] in FAMILIES
    ]
    pictures = {}
    for picture in chain.from_iterable(row["pictures"] for row in episode_rows):
        bar_picture = bar(float(e.label.progress[picture["frame_index"]]))
        pictures[picture_name(e.episode.episode_index, picture)] = cv2.imencode(
            ".jpg", bar_picture
        )[1].tobytes()
    return EntryContent("d", e.episode.episode_index, episode_rows, pictures)
