"""Held-out episodes of a release: the moments to score, as questions, and their labels."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from core.domain.episode import Episode
from core.errors import UserError
from core.values import grouped
from eval.benchmarks.procvqa import ALL_MOMENTS, SampleChoice, sample_questions
from eval.benchmarks.question import Question
from warehouse.lake import Lake
from warehouse.lake.episodes import usable_episodes
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import RunFacts, run_facts
from warehouse.releases.release import Release

# By the task's mean length, by that of its references
RUNNING, REFERENCE = "running clock", "reference clock"


def load_truth(folder: Path, dataset: str) -> dict[int, dict[str, Any]]:
    """What only a simulator knows of a dataset, as samples/truth/<dataset> holds it, by episode; empty without it.

    Of each episode: `progress` at each frame, float64 [num_frames], `policy`: how the run was made, and `success`: was
    the task done?
    """
    if not (folder / dataset / "episodes.parquet").exists():
        return {}
    episodes = pq.read_table(
        folder / dataset / "episodes.parquet", columns=["episode_index", "policy", "success"]
    )
    frames = pq.read_table(folder / dataset / "frames.parquet").sort_by(
        [("episode_index", "ascending"), ("frame_index", "ascending")]
    )
    # On one thread, so that each list keeps the order of the frames
    lists = frames.group_by("episode_index", use_threads=False).aggregate(
        [("true_progress", "list")]
    )
    curves = (curve.values.to_numpy() for curve in lists["true_progress_list"])
    progress = dict(zip(lists["episode_index"].to_pylist(), curves, strict=True))
    return {
        row["episode_index"]: row | {"progress": progress.get(row["episode_index"])}
        for row in episodes.to_pylist()
    }


@dataclass(frozen=True)
class EpisodeQuestions:
    """The questions about the scored moments of an episode, in order of time; arrays [t]."""

    episode: Episode
    questions: tuple[Question, ...]
    frame_index: np.ndarray
    label: np.ndarray  # of the release
    truth: np.ndarray | None = None  # the simulator's, where there is some
    policy: str | None = None  # how the run was made, where ground truth says so
    # The task by which runs are compared; None: it is compared with itself alone
    same_as: str | None = None
    quality: float | None = None  # of demonstration_quality
    # In seconds, of other runs: by the name of the clock that knows it
    lengths: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        return self.episode.key

    @property
    def elapsed(self) -> np.ndarray:
        """Share of the episode's time gone by at each moment, 0..1."""
        return self.frame_index / max(1, self.episode.num_frames - 1)


def held_out(
    lake: Lake,
    release: Release,
    splits: Sequence[str],
    truth: Path | None = None,
    choice: SampleChoice = ALL_MOMENTS,
) -> list[EpisodeQuestions]:
    """The episodes of some splits of a release, from its shards and snapshot. Raises UserError or ShardError."""
    # The lake as it was when the release was cut: later builds may have changed an episode's facts
    con = open_for_users(lake.workspace, release.snapshot)
    known_episodes = {episode.key: episode for episode in usable_episodes(con)}
    length_s = {key: episode.duration_s for key, episode in known_episodes.items()}
    compared = run_facts(con)
    references = set(
        con.execute("SELECT dataset, episode_index FROM current_references").fetchall()
    )
    lengths = _usual_lengths(length_s, compared, references)
    by_episode: dict[tuple[str, int, str], list[Question]] = {}
    for split in splits:
        questions = sample_questions("held-out", con, release.paths(lake.workspace, split), choice)
        by_episode |= grouped(((q.dataset, int(q.trajectory), split), q) for q in questions)
    truths: dict[str, dict[int, dict[str, Any]]] = {}
    episodes = []
    for dataset, index, split in sorted(by_episode):
        if truth and dataset not in truths:
            truths[dataset] = load_truth(truth, dataset)
        # In order of time, as every array of the episode is
        questions = sorted(by_episode[dataset, index, split], key=lambda q: q.row["frames"][-1])
        first = questions[0]
        episode = replace(known_episodes[dataset, index], split=split)
        facts = compared[episode.key]
        frames = np.array([q.frame_index for q in questions])
        episode_truth = truths.get(dataset, {}).get(index, {})
        true_progress = episode_truth.get("progress")
        if true_progress is not None and len(true_progress) != episode.num_frames:
            raise UserError(
                f"{dataset} episode {index}: ground truth has {len(true_progress)} frames, "
                f"not {episode.num_frames}"
            )
        # Samples of other families may show other runs' pictures first
        if first.family == "procvqa_c" and first.row["frames"][0] == 0:
            start = first.pictures[0]
        else:
            start = None
        episode_set = EpisodeQuestions(
            episode,
            questions=tuple(replace(q, first=start) for q in questions),
            frame_index=frames,
            label=np.array([q.progress for q in questions], np.float64),
            policy=episode_truth.get("policy"),
            truth=None if true_progress is None else true_progress[frames].astype(np.float64),
            same_as=facts.same_as,
            quality=facts.quality,
            lengths=lengths[episode.key],
        )
        episodes.append(episode_set)
    return episodes


def _usual_lengths(
    length_s: Mapping[tuple[str, int], float],
    facts: Mapping[tuple[str, int], RunFacts],
    references: Set[tuple[str, int]],
) -> dict[tuple[str, int], dict[str, float]]:
    """By run the mean length in seconds of its task's other runs that did not fail, and of its references:
    `references`."""
    runs_by_name = {
        RUNNING: {k for k in length_s if facts[k].success is not False},
        REFERENCE: references & length_s.keys(),
    }
    usual_lengths: dict[tuple[str, int], dict[str, float]] = {key: {} for key in length_s}
    for name, runs in runs_by_name.items():
        of_task = grouped((facts[key].same_as, length_s[key]) for key in sorted(runs))
        sums = {task: (sum(lengths), len(lengths)) for task, lengths in of_task.items()}
        for key, own_s in length_s.items():
            total_s, count = sums.get(facts[key].same_as, (0.0, 0))
            num_others = count - (key in runs)
            if num_others:
                usual_lengths[key][name] = (total_s - own_s * (key in runs)) / num_others
    return usual_lengths
