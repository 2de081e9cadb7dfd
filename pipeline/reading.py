"""What later stages read of a chunk: its usable episodes, their measurements, their segments."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from annotate import motion
from annotate.segments import Segment
from ingest.episode import EpisodeRecord, NativeStep, record_from_row
from warehouse.lake import Lake


def usable_records(lake: Lake, dataset: str, chunk: int) -> list[EpisodeRecord]:
    """Episodes of a chunk that listing found no fault with, in order."""
    rows = lake.dicts(
        "SELECT * FROM episode_facts f WHERE dataset = ? AND chunk = ? AND NOT EXISTS (SELECT 1 FROM findings x "
        "WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable') ORDER BY episode_index",
        [dataset, chunk],
    )
    return [record_from_row(r) for r in rows]


@dataclass(frozen=True)
class EpisodeSignals:
    """Measurements of one episode's preferred camera; arrays [num_frames]."""

    episode_index: int
    camera: str
    fps: float
    success: bool | None
    task: str | None
    steps: list[NativeStep]
    change: np.ndarray
    phash: np.ndarray
    gripper: np.ndarray | None
    speed: np.ndarray | None
    state: np.ndarray | None  # [num_frames, d]

    def signals(self) -> motion.Signals:
        return motion.Signals(
            self.fps,
            self.change,
            self.speed,
            self.gripper,
            self.success,
            self.task,
            self.state,
            episode_index=self.episode_index,
        )


def chunk_signals(lake: Lake, dataset: str, chunk: int) -> Iterator[EpisodeSignals]:
    """The measurements of each usable episode of a chunk, in order."""
    episodes = lake.rows(
        "SELECT c.episode_index, c.usable_cameras[1], c.fps, f.success, f.task, f.steps FROM episode_content c "
        "JOIN episode_facts f USING (dataset, episode_index) WHERE c.dataset = ? AND c.chunk = ? ORDER BY 1",
        [dataset, chunk],
    )
    table = lake.arrow(
        "SELECT episode_index, camera, visual_change, phash, gripper, speed FROM frames "
        "WHERE dataset = ? AND chunk = ? ORDER BY episode_index, camera, frame_index",
        [dataset, chunk],
    )
    states = lake.arrow(
        "SELECT episode_index, state FROM states WHERE dataset = ? AND chunk = ? ORDER BY episode_index, frame_index",
        [dataset, chunk],
    ).combine_chunks()
    index, state_index = table["episode_index"].to_numpy(), states["episode_index"].to_numpy()
    cameras = table["camera"].to_numpy(zero_copy_only=False)
    for episode, camera, fps, success, task, steps in episodes:
        a, b = np.searchsorted(index, [episode, episode + 1])
        at = a + np.flatnonzero(cameras[a:b] == camera)
        rows = table.slice(int(at[0]), len(at))

        c, d = np.searchsorted(state_index, [episode, episode + 1])
        flat = states["state"].slice(c, d - c).combine_chunks()

        def values(name: str, rows: pa.Table = rows) -> np.ndarray | None:
            return None if rows[name].null_count else rows[name].to_numpy()

        yield EpisodeSignals(
            episode,
            camera,
            fps,
            success,
            task,
            [NativeStep(**step) for step in steps or []],
            rows["visual_change"].to_numpy(),
            rows["phash"].to_numpy(),
            values("gripper"),
            values("speed"),
            flat.flatten().to_numpy().reshape(len(flat), -1) if len(flat) else None,
        )


def rows_of_episode(episode_of_row: np.ndarray, episode_index: int) -> slice:
    """The rows of an episode in a table that is ordered by episode.

    Example: rows_of_episode(np.array([0, 0, 2, 2, 2]), 2) == slice(2, 5)
    """
    start, end = np.searchsorted(episode_of_row, [episode_index, episode_index + 1])
    return slice(int(start), int(end))


def by_task(episodes: Iterable[EpisodeSignals]) -> dict[str | None, list[EpisodeSignals]]:
    found: dict[str | None, list[EpisodeSignals]] = {}
    for e in episodes:
        found.setdefault(e.task, []).append(e)
    return found


def chunk_segments(
    lake: Lake, dataset: str, chunk: int, view: str = "active_segments", label_run: str | None = None
) -> dict[int, tuple[list[Segment], int, str]]:
    """(segments, planned steps, label run) of each labelled episode of a chunk: of one run, or the active ones."""
    only = "AND label_run = ?" if label_run else ""
    rows = lake.dicts(
        f"SELECT * FROM {view} WHERE dataset = ? AND chunk = ? {only} ORDER BY episode_index, segment_index",
        [dataset, chunk, *([label_run] if label_run else [])],
    )
    found: dict[int, tuple[list[Segment], int, str]] = {}
    for r in rows:
        segment = Segment(**{k: r[k] for k in Segment.__dataclass_fields__})
        found.setdefault(r["episode_index"], ([], r["num_planned"], r["label_run"]))[0].append(segment)
    return found


PICTURE_PX = 64


def first_pictures(lake: Lake, dataset: str, chunk: int, episodes: Sequence[EpisodeSignals]) -> dict[int, np.ndarray]:
    """Luma of the first frame of the preferred camera, 0..1, float64 [PICTURE_PX ** 2]."""
    cameras = {e.episode_index: e.camera for e in episodes}
    rows = lake.rows(
        "SELECT episode_index, camera, sha256 FROM keyframes WHERE dataset = ? AND chunk = ? AND frame_index = 0 "
        "AND purpose = 'coarse'",
        [dataset, chunk],
    )
    found = {}
    for episode, camera, sha256 in rows:
        if cameras.get(episode) == camera:
            jpeg = np.frombuffer(lake.workspace.keyframe(sha256).read_bytes(), np.uint8)
            luma = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
            assert luma is not None, f"keyframe {sha256} is no picture"
            found[episode] = cv2.resize(luma, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA).ravel() / 255
    return found
