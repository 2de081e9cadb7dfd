"""Held-out episodes of a release: the moments to score, their pictures and their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.held_out.truth import TruthError, load_truth
from training.transform import Item, decode_picture
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import Sample, read_samples

FAMILY = "procvqa_c"
PICTURE_PX = 256


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

    @property
    def elapsed(self) -> np.ndarray:
        """Share of the episode's time gone by at each moment, 0..1."""
        return self.frame_index / max(1, self.num_frames - 1)

    def items(self, max_px: int) -> list[Item]:
        """The questions as the model sees them, without their answers."""
        return [Item(s.row["question"], tuple(decode_picture(p, max_px) for p in s.pictures)) for s in self.samples]

    def pictures(self) -> Iterator[tuple[np.ndarray, ...]]:
        for s in self.samples:
            yield tuple(decode_picture(p, PICTURE_PX) for p in s.pictures)


def held_out(lake: Lake, release: Release, splits: Sequence[str], truth: Path | None = None) -> list[HeldOut]:
    """The episodes of some splits of a release, from its shards and snapshot. Raises TruthError or ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    facts = {
        (d, e): (n, fps, success)
        for d, e, n, fps, success in con.execute(
            "SELECT dataset, episode_index, num_frames, fps, success FROM episodes WHERE status = 'ok'"
        ).fetchall()
    }
    by_episode: dict[tuple[str, int, str], list[Sample]] = {}
    for split in splits:
        for s in read_samples(release.paths(lake.workspace, split), frozenset({FAMILY})):
            by_episode.setdefault((s.row["dataset"], s.row["episode_index"], split), []).append(s)
    truths = {d: load_truth(truth, d) if truth else None for d in {k[0] for k in by_episode}}
    episodes = []
    for (dataset, episode, split), samples in sorted(by_episode.items()):
        samples.sort(key=lambda s: s.row["frames"][-1])
        frames = np.array([s.row["frames"][-1] for s in samples])
        num_frames, fps, success = facts[dataset, episode]
        known = truths[dataset]
        true = known.progress.get(episode) if known else None
        if true is not None and len(true) != num_frames:
            raise TruthError(f"{dataset} episode {episode}: ground truth has {len(true)} frames, not {num_frames}")
        episodes.append(
            HeldOut(
                dataset,
                episode,
                split,
                num_frames,
                fps,
                success,
                known.policy.get(episode) if known else None,
                tuple(samples),
                frames,
                np.array([s.row["progress"] for s in samples], np.float64),
                None if true is None else true[frames].astype(np.float64),
            )
        )
    return episodes
