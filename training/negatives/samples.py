"""Samples of ProcVQA's family c, changed into negatives: pictures, question, answer and progress fit one another.

A changed sample's row says how it was made (`negative`) and which frames it shows (`frames`). What cannot be changed as
it was drawn stays as it was recorded: a run that has no instruction, a window of one picture, a moment without a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.procvqa import PROGRESS, progress_answer, task_text
from training.data import Unread, unread
from training.negatives.windows import Instructions, draw_kind, draw_speed, shown_of, window_places
from training.recipe import AS_RECORDED, OTHER_TASK, NegativesConfig
from warehouse.lake import Lake
from warehouse.lake.references import joined_texts
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import dataset_gates, labels_of, usable_episodes
from warehouse.releases.release import Release
from warehouse.shards.shard import Sample, named_picture, read_index

Row = Mapping[str, Any]
# By dataset and episode
Labels = Mapping[tuple[str, int], LabelledEpisode]


def read_labels(lake: Lake, release: Release, shards: Sequence[Path]) -> Labels:
    """The episodes that lie in some shards, by their labels at the release's snapshot; those without one
    are missing. Four bytes for each frame, and the names of segments. Raises ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    episodes: dict[str, set[int]] = {}
    for index in map(read_index, shards):
        episodes.setdefault(index.dataset, set()).update(
            int(e.key.rpartition("-")[2]) for e in index.entries
        )
    labels = {}
    same_as = joined_texts(con)
    gates = dataset_gates(con)
    for dataset, of_dataset in sorted(episodes.items()):
        indices = sorted(of_dataset)
        stored = labels_of(con, dataset, episodes=indices, whole=True)
        condition = "dataset = ? AND list_contains(?, episode_index)"
        for episode in usable_episodes(con, condition, [dataset, indices]):
            label = stored.get(episode.episode_index)
            if label is None or not label.has_progress:
                continue
            # Names are used as far as samples use them
            label = label.with_task(episode.task).with_gate(gates[dataset])
            episode = replace(episode, same_as=same_as.get((dataset, episode.task or "")))
            labels[episode.key] = LabelledEpisode(episode, label, picture_sizes={})
    return labels


@dataclass(frozen=True)
class SampleNegatives:
    """`labels` of the episodes that training shows: instructions and progress are theirs."""

    config: NegativesConfig
    labels: Labels

    def __call__(self, samples: Sequence[Unread], rng: np.random.Generator) -> list[Unread]:
        """The samples as drawn, in order: changed, or as they were recorded. Each draw of `rng` belongs to one."""
        return [self._drawn(sample, rng) for sample in samples]

    def _drawn(self, sample: Unread, rng: np.random.Generator) -> Unread:
        """One sample changed, or as it was recorded."""
        row = sample.row
        if row["family"] != PROGRESS or row["progress"] is None:
            return sample
        kind = draw_kind(self.config, rng)
        e = self.labels.get((row["dataset"], row["episode_index"]))
        negative = self._made(kind, sample, e, rng) if e else None
        return negative or replace(sample, row={**row, "negative": AS_RECORDED})

    def _made(
        self, kind: str, sample: Unread, e: LabelledEpisode, rng: np.random.Generator
    ) -> Unread | None:
        """None where it cannot be made."""
        if kind == OTHER_TASK:
            return self._told_otherwise(sample, e, rng)
        if kind == "other_speed":
            return _played(sample, draw_speed(rng))
        places = shown_of(kind, len(sample.row["frames"]), rng).tolist()
        if kind != AS_RECORDED:
            return _shown(kind, sample, places, e)
        return None

    # The instruction

    @cached_property
    def _instructions(self) -> Instructions:
        instructed = [e for e in self.labels.values() if e.label.task]
        same_as = {task_text(e.label.task): task_text(e.same_as) for e in instructed}
        return Instructions([task_text(e.label.task) for e in instructed], same_as)

    @cached_property
    def _first_told(self) -> dict[str, LabelledEpisode]:
        """Of each instruction an episode whose steps have names."""
        return {
            task_text(e.label.task): e
            for e in reversed(list(self.labels.values()))
            if e.has_actions
        }

    def _told_otherwise(
        self, sample: Unread, e: LabelledEpisode, rng: np.random.Generator
    ) -> Unread | None:
        row = sample.row
        instruction = task_text(e.label.task)
        # An instruction that stands twice in a question, or not at all, would leave the right one in it
        if not e.label.task or row["question"].count(instruction) != 1:
            return None
        wrong = self._instructions.other(instruction, rng)
        if wrong is None:
            return None
        wrong_episode = self._first_told.get(wrong) or _without_names(e)
        # A question that asks for actions is not answered without them
        if row["variant"] == "progress" and not wrong_episode.has_actions:
            return None
        # The answer about a run of which nothing is done: all steps remain
        label = replace(
            wrong_episode.label,
            segments=(),
            plan=wrong_episode.steps,
            progress=np.zeros(1, np.float32),
        )
        changes = {
            "question": row["question"].replace(instruction, wrong),
            "answer": _answer(replace(wrong_episode, label=label), 0, row),
        }
        return replace(sample, row={**row, **changes, "progress": 0.0, "negative": OTHER_TASK})


def _answer(e: LabelledEpisode, frame: int, row: Row) -> str:
    """In the form that the row's question asks for."""
    if row["variant"] != "progress":
        e = _without_names(e)
    return progress_answer(e, frame)


def _without_names(e: LabelledEpisode) -> LabelledEpisode:
    return replace(e, label=replace(e.label, sure_of_names=False))


def _progress(e: LabelledEpisode, frame: int) -> float:
    if frame < len(e.label.progress):
        return float(e.label.progress[frame])
    return float("nan")


def _shown(kind: str, sample: Unread, places: list[int], e: LabelledEpisode) -> Unread | None:
    """The sample with its own pictures in another order; None where these are the same, or where it has no label."""
    row = sample.row
    if places == list(range(len(places))):
        return None
    frames = [row["frames"][k] for k in places]
    changes: dict[str, Any] = {
        "frames": frames,
        "pictures": [row["pictures"][k] for k in places],
        "negative": kind,
    }
    if frames[-1] != row["frames"][-1]:
        progress = _progress(e, frames[-1])
        if np.isnan(progress):
            return None
        changes |= {"progress": progress, "answer": _answer(e, frames[-1], row)}
    return Unread(
        {**row, **changes},
        lambda: tuple(sample.sizes()[k] for k in places),
        lambda: tuple(sample.pictures()[k] for k in places),
    )


def _played(sample: Unread, speed: float) -> Unread | None:
    """The sample with pictures so many times as far apart: of those that its entry holds, the nearest."""
    row = sample.row
    picture_names = _frames_of(sample.entry, row["episode_index"], row["camera"])
    count = len(row["frames"])
    last_frame = row["frames"][-1]
    if count < 2 or last_frame not in picture_names:
        return None
    frame_indices = np.array(sorted(picture_names))
    step = speed * (last_frame - row["frames"][0]) / (count - 1)
    frames = frame_indices[window_places(frame_indices, last_frame, step, count)[0]].tolist()
    if frames == list(row["frames"]):
        return None
    names = [picture_names[f] for f in frames]
    changes = {"frames": frames, "pictures": names, "negative": "other_speed"}
    return unread(Sample({**row, **changes}, tuple(sample.entry[name] for name in names)))


def _frames_of(entry: Mapping[str, bytes], episode: int, camera: str) -> dict[int, str]:
    """The unedited pictures of an entry's own episode by one camera: frame to name."""
    names = {}
    for name in entry:
        picture = named_picture(episode, name)
        if picture and (picture["episode_index"], picture["camera"], picture["edit"]) == (
            episode,
            camera,
            "",
        ):
            names[picture["frame_index"]] = name
    return names
