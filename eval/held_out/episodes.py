"""Held-out episodes of a release: the moments to score, their pictures and their labels."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annotate.samples.procvqa import task_text
from core.errors import UserError
from eval.held_out.truth import GroundTruth, load_truth
from training.pictures import Item, decode_picture
from warehouse.lake import Lake
from warehouse.lake.compared import RunFacts, run_facts
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import Sample, expand, read_entry, read_index, read_samples

FAMILY = "procvqa_c"
PICTURE_PX = 256
RUNNING, REFERENCE = "running clock", "reference clock"  # by the task's mean length, by that of its references


@dataclass(frozen=True)
class HeldOut:
    """One episode and its scored moments in order of time; arrays [t]."""

    dataset: str
    episode_index: int
    split: str
    num_frames: int
    fps: float
    success: bool | None
    policy: str | None  # how the run was made, where ground truth says so
    samples: tuple[Sample, ...]
    frame_index: np.ndarray
    label: np.ndarray  # of the release
    truth: np.ndarray | None  # the simulator's, where there is some
    task: str | None = None  # in words, where the lake knows it
    same_as: str | None = None  # the task by which runs are compared; None: it is compared with itself alone
    quality: float | None = None  # of demonstration_quality
    # In seconds, of other runs: by the name of the clock that knows it
    lengths: Mapping[str, float] = field(default_factory=dict)

    @property
    def elapsed(self) -> np.ndarray:
        """Share of the episode's time gone by at each moment, 0..1."""
        return self.frame_index / max(1, self.num_frames - 1)

    @property
    def first_picture(self) -> bytes | None:
        """The run's frame 0 as JPEG, where a sample shows it."""
        sample = self.samples[0]
        # Samples of other families, and rows of files, may show other runs' pictures first
        if sample.row.get("family") != FAMILY or sample.row["frames"][0] != 0:
            return None
        return sample.pictures[0]

    def items(self, max_px: int) -> list[Item]:
        """The questions as the model sees them, without their answers."""
        start = self.first_picture
        first = decode_picture(start, max_px) if start else None
        return [
            Item(
                s.row["question"],
                tuple(decode_picture(p, max_px) for p in s.pictures),
                task=self.task,
                first=first,
            )
            for s in self.samples
        ]

    def pictures(self) -> Iterator[tuple[np.ndarray, ...]]:
        for s in self.samples:
            yield tuple(decode_picture(p, PICTURE_PX) for p in s.pictures)


@dataclass(frozen=True)
class SampleChoice:
    """Which samples of an episode are scored: those of these families, and of this form where it is given, that have a
    label. `most`: of so many episodes of each split, spread over all of it; None: of all."""

    families: frozenset[str] = frozenset({FAMILY})
    form: str | None = None
    most: int | None = None

    def takes(self, row: Mapping[str, Any]) -> bool:
        is_form = self.form is None or row.get("form") in (None, self.form)
        return row["family"] in self.families and is_form and row["progress"] is not None


ALL_MOMENTS = SampleChoice()


def held_out(
    lake: Lake, release: Release, splits: Sequence[str], truth: Path | None = None, asked: SampleChoice = ALL_MOMENTS
) -> list[HeldOut]:
    """The episodes of some splits of a release, from its shards and snapshot. Raises UserError or ShardError."""
    # The lake as it was when the release was cut: later builds may have changed an episode's facts
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(
        "SELECT dataset, episode_index, num_frames, fps, success, task FROM episodes WHERE status = 'ok'"
    ).fetchall()
    compared = run_facts(con)
    facts = {
        (dataset, episode): _Facts(num_frames, fps, success, task, compared[dataset, episode])
        for dataset, episode, num_frames, fps, success, task in rows
    }

    samples_by_episode = _samples_by_episode(lake, release, splits, asked)
    shown = set(con.execute("SELECT dataset, episode_index FROM current_references").fetchall())
    lengths = _usual_lengths(facts, shown)
    truths: dict[str, GroundTruth | None] = {}
    episodes = []
    for key in sorted(samples_by_episode):
        dataset, episode, _ = key
        if truth and dataset not in truths:
            truths[dataset] = load_truth(truth, dataset)
        its_facts = facts[dataset, episode]
        of_clocks = lengths[dataset, episode]
        episodes.append(_held_out_episode(key, samples_by_episode[key], its_facts, truths.get(dataset), of_clocks))
    return episodes


def _usual_lengths(
    facts: Mapping[tuple[str, int], "_Facts"], shown: Set[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, float]]:
    """By run the mean length in seconds of its task's other runs that did not fail, and of its references: `shown`."""
    seconds = {key: f.num_frames / f.fps for key, f in facts.items() if f.compared.same_as is not None}
    known = {RUNNING: {k for k in seconds if facts[k].success is not False}, REFERENCE: shown & seconds.keys()}
    found: dict[tuple[str, int], dict[str, float]] = {key: {} for key in facts}
    for name, runs in known.items():
        of_task: dict[str | None, list[float]] = defaultdict(list)
        for key in sorted(runs):
            of_task[facts[key].compared.same_as].append(seconds[key])
        sums = {task: (sum(lengths), len(lengths)) for task, lengths in of_task.items()}
        for key, own_s in seconds.items():
            total_s, count = sums.get(facts[key].compared.same_as, (0.0, 0))
            others = count - (key in runs)
            if others:
                found[key][name] = (total_s - own_s * (key in runs)) / others
    return found


def _samples_by_episode(
    lake: Lake, release: Release, splits: Sequence[str], asked: SampleChoice
) -> dict[tuple[str, int, str], list[Sample]]:
    """The samples that are scored by (dataset, episode, split)."""
    samples_by_episode: dict[tuple[str, int, str], list[Sample]] = {}
    for split in splits:
        paths = release.paths(lake.workspace, split)
        for s in _spread(paths, asked) if asked.most else read_samples(paths, asked.families):
            if asked.takes(s.row):
                samples_by_episode.setdefault((s.row["dataset"], s.row["episode_index"], split), []).append(s)
    return samples_by_episode


def _spread(paths: Sequence[Path], asked: SampleChoice) -> Iterator[Sample]:
    """Samples of at most so many episodes that have one of the families; the other episodes are not read."""
    there = [(path, e) for path in paths for e in read_index(path).entries if asked.families & set(e.family)]
    count = min(asked.most or len(there), len(there))
    for k in np.linspace(0, len(there) - 1, count).round().astype(int).tolist():
        rows, pictures = read_entry(*there[k])
        yield from (expand(row, pictures) for row in rows if asked.takes(row))


@dataclass(frozen=True)
class _Facts:
    """What the lake says of an episode."""

    num_frames: int
    fps: float
    success: bool | None
    task: str | None
    compared: RunFacts


def _held_out_episode(
    key: tuple[str, int, str],
    samples: list[Sample],
    facts: _Facts,
    truth: GroundTruth | None,
    lengths: Mapping[str, float],
) -> HeldOut:
    """Raises UserError where ground truth is of a run of another length."""
    dataset, episode, split = key
    # In order of time, as every array of the episode is
    samples = sorted(samples, key=lambda s: s.row["frames"][-1])
    frames = np.array([s.row["frames"][-1] for s in samples])

    # What only the simulator knows; another length means that it is of another run
    policy, true_progress = None, None
    if truth is not None:
        policy, true_progress = truth.policy.get(episode), truth.progress.get(episode)
    if true_progress is not None and len(true_progress) != facts.num_frames:
        raise UserError(
            f"{dataset} episode {episode}: ground truth has {len(true_progress)} frames, not {facts.num_frames}"
        )
    return HeldOut(
        dataset,
        episode,
        split,
        facts.num_frames,
        facts.fps,
        facts.success,
        policy=policy,
        samples=tuple(samples),
        frame_index=frames,
        label=np.array([s.row["progress"] for s in samples], np.float64),
        truth=None if true_progress is None else true_progress[frames].astype(np.float64),
        task=task_text(facts.task),
        same_as=facts.compared.same_as,
        quality=facts.compared.quality,
        lengths=lengths,
    )
