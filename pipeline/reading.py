"""What stages read of a chunk: its usable episodes and their measurements."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.alignment.engine import grey_features
from annotate.motion.observe import GripperCurve, Signals
from annotate.signal_lag import opening_without_lag
from core.errors import UserError
from core.tables import TABLES
from core.values import grouped
from ingest.episode import EpisodeRecord, record_from_row
from ingest.signals.gripper import GripperSignal
from warehouse.lake import Lake
from warehouse.lake.connection import LakeConnection
from warehouse.lake.stored import rows_of_episode, stored_signals

# What is read of the measurements of a chunk: columns by table
MEASURED = {
    "episode_content": ("episode_index", "usable_cameras", "fps"),
    "frames": (
        "episode_index",
        "camera",
        "frame_index",
        "visual_change",
        "phash",
        "grippers",
        "speed",
    ),
    "states": ("episode_index", "frame_index", "state"),
    "tiny_pictures": ("episode_index", "camera", "frame_index", "luma"),
    "signal_lags": ("signal", "lag_s", "is_corrected"),
}


def records_where(
    lake: LakeConnection, condition: str, values: Sequence[Any]
) -> list[EpisodeRecord]:
    """What is listed of the episodes that fit a condition on episode_facts f, in order."""
    rows = lake.dicts(
        f"SELECT * FROM episode_facts f WHERE {condition} ORDER BY episode_index", [*values]
    )
    return [record_from_row(row) for row in rows]


def usable_records(lake: LakeConnection, dataset: str, chunk: int) -> list[EpisodeRecord]:
    """Episodes of a chunk that listing found no fault with, in order."""
    unusable = (
        "FROM findings x WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable'"
    )
    return records_where(
        lake, f"dataset = ? AND chunk = ? AND NOT EXISTS ({unusable})", [dataset, chunk]
    )


def records_of(lake: Lake, dataset: str, episodes: Iterable[int]) -> list[EpisodeRecord]:
    """What is listed of some episodes of any chunks, in order."""
    indices = sorted(episodes)
    if indices:
        return records_where(
            lake, "dataset = ? AND list_contains(?, episode_index)", [dataset, indices]
        )
    return []


def chunk_signals(
    lake: LakeConnection, dataset: str, chunk: int, chosen: Collection[int] | None = None
) -> Iterator[Signals]:
    """The measurements of each usable episode of a chunk, or of the chosen ones, in order."""
    tables = ChunkTables(lake, dataset, chunk, chosen)
    for content in tables.contents:
        yield tables.signals_of(content)


class ChunkTables:
    """What the lake holds of a chunk's measurements, read once for all of its episodes.

    contents: a row of `episode_content` for each usable episode, or chosen one, in order.
    """

    def __init__(
        self, lake: LakeConnection, dataset: str, chunk: int, chosen: Collection[int] | None
    ) -> None:
        with lake.reading():
            self.grippers = stored_signals(lake.holding("FROM signals"), dataset)
            self.named_views = named_views(lake, dataset)
            condition, values = _condition(dataset, chunk, chosen)
            self.records = {
                record.episode_index: record for record in records_where(lake, condition, values)
            }
            tables = {name: _measured(lake, name, dataset, chunk, chosen) for name in MEASURED}
        self.contents = tables["episode_content"].to_pylist()
        lags = tables["signal_lags"].to_pylist()
        self.lags_s = {lag["signal"]: lag["lag_s"] for lag in lags if lag["is_corrected"]}
        self.frames = tables["frames"]
        self.states = tables["states"].combine_chunks()
        self.tiny_pictures = tables["tiny_pictures"].combine_chunks()
        # Of each row, to find those of an episode and a camera
        self.frame_episodes = self.frames["episode_index"].to_numpy()
        self.frame_cameras = self.frames["camera"].to_numpy(zero_copy_only=False)
        self.state_episodes = self.states["episode_index"].to_numpy()
        self.tiny_episodes = self.tiny_pictures["episode_index"].to_numpy()

    def signals_of(self, content: Mapping[str, Any]) -> Signals:
        """The measurements of one episode, by its row of `episode_content`; state and speed moved by their lag."""
        record = self.records[content["episode_index"]]
        fps = content["fps"]
        views = labelled_by(self.named_views, content["usable_cameras"])
        rows_by_view = [self.frames_of(record.episode_index, camera) for camera in views]
        main_view = rows_by_view[0]
        speed = main_view["speed"]
        state = self.states_of(record.episode_index)
        late = round(self.lags_s.get("state", 0.0) * fps)
        return Signals(
            record=record,
            episode_index=record.episode_index,
            task=record.task,
            success=record.success,
            views=views,
            fps=fps,
            # Of each frame that of the view in which most changes: a view that a hand or the arm hides takes nothing
            # away from what another one shows, and the noise of a view that shows nothing adds nothing (docs/data.md
            # has what it is worth)
            change=np.max([rows["visual_change"].to_numpy() for rows in rows_by_view], axis=0),
            phash=main_view["phash"].to_numpy(),
            grippers=_curves(main_view["grippers"], self.grippers, self.lags_s, fps),
            # None where a value is missing, or the source has none
            speed=None if speed.null_count else _earlier(speed.to_numpy(), late),
            state=_earlier(_matrix(state), late) if len(state) else None,
            tiny=self.tiny_pictures_of(record.episode_index),
        )

    def frames_of(self, episode_index: int, camera: str) -> pa.Table:
        """Rows of `frames` of one camera of an episode, which follow one another."""
        of_episode = rows_of_episode(self.frame_episodes, episode_index)
        of_camera = np.flatnonzero(self.frame_cameras[of_episode] == camera)
        return self.frames.slice(of_episode.start + int(of_camera[0]), len(of_camera))

    def states_of(self, episode_index: int) -> pa.ChunkedArray:
        """State vectors of an episode; empty where the source has none."""
        return self.states["state"][rows_of_episode(self.state_episodes, episode_index)]

    def tiny_pictures_of(self, episode_index: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By camera the frames int64 [k] of an episode's tiny pictures, and their pixels uint8 [k, p]."""
        of_episode = rows_of_episode(self.tiny_episodes, episode_index)
        rows = self.tiny_pictures.slice(of_episode.start, of_episode.stop - of_episode.start)
        cameras = rows["camera"].to_numpy(zero_copy_only=False)
        frames = rows["frame_index"].to_numpy()
        pixels = np.frombuffer(b"".join(rows["luma"].to_pylist()), np.uint8).reshape(
            len(frames), -1
        )
        return {
            camera: (frames[cameras == camera], pixels[cameras == camera])
            for camera in sorted(set(cameras))
        }


def signals_of(lake: Lake, dataset: str, chunk_of: Mapping[int, int]) -> list[Signals]:
    """The measurements of some usable episodes of any chunks, each of which is named, in order."""
    chosen = grouped((chunk, episode) for episode, chunk in sorted(chunk_of.items()))
    return [
        signals
        for chunk in sorted(chosen)
        for signals in chunk_signals(lake, dataset, chunk, chosen[chunk])
    ]


def _measured(
    lake: LakeConnection, name: str, dataset: str, chunk: int, chosen: Collection[int] | None
) -> pa.Table:
    """The columns of a table that measurements are read from, of a chunk or of its chosen episodes, in order."""
    columns = MEASURED[name]
    is_by_episode = "episode_index" in columns
    condition, values = _condition(dataset, chunk, chosen if is_by_episode else None)
    order = ", ".join(TABLES[name].key)
    return lake.arrow(
        f"SELECT {', '.join(columns)} FROM {name} WHERE {condition} ORDER BY {order}", values
    )


def _condition(dataset: str, chunk: int, chosen: Collection[int] | None) -> tuple[str, list[Any]]:
    """An SQL condition, and its values, for the rows of a chunk, or of the chosen episodes in it."""
    condition = "dataset = ? AND chunk = ?"
    if chosen is None:
        return condition, [dataset, chunk]
    return f"{condition} AND list_contains(?, episode_index)", [dataset, chunk, sorted(chosen)]


def named_views(lake: LakeConnection, dataset: str) -> tuple[str, ...]:
    """The cameras that a dataset's configuration names for its labels; a lake of an earlier version knows none."""
    [row] = lake.dicts("SELECT * FROM datasets WHERE dataset = ?", [dataset]) or [{}]
    return tuple(row.get("views") or ())


def labelled_by(views: Sequence[str], usable: Sequence[str]) -> tuple[str, ...]:
    """By which of an episode's usable cameras, by preference, it is labelled; the first is the main one.

    Example: of the views front and wrist an episode without a usable wrist camera has ("front",).
    """
    return tuple(camera for camera in views if camera in usable) or tuple(usable[:1])


def _curves(
    openings: pa.ChunkedArray,
    signals: Sequence[GripperSignal],
    lags_s: Mapping[str, float],
    fps: float,
) -> tuple[GripperCurve, ...]:
    """The grippers that are used, each moved to where the pictures show it."""
    # Lists of one length or none at all; null: that gripper is not used
    if not len(openings) or openings.null_count:
        return ()
    by_signal = _matrix(openings).T.astype(np.float64)
    if len(by_signal) != len(signals):
        raise UserError(
            f"frames have {len(by_signal)} grippers, the dataset has {len(signals)}: build it again"
        )
    curves = []
    for signal, row in zip(signals, by_signal, strict=True):
        opening = np.asarray(row)
        if not np.isfinite(opening).all():
            continue
        closing_s, opening_s = (
            lags_s.get(f"{signal.title}: {move}") for move in ("closing", "opening")
        )
        if closing_s is not None and opening_s is not None:
            opening = opening_without_lag(opening, fps, closing_s, opening_s)
        curves.append(GripperCurve(opening, signal.has_polarity))
    return tuple(curves)


def _matrix(lists: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as rows [n, d]."""
    return lists.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _earlier(values: np.ndarray, frames: int) -> np.ndarray:
    """Rows [n, ...] as if they had come so many frames earlier; the rows at the ends are repeated."""
    return values[np.clip(np.arange(len(values)) + frames, 0, len(values) - 1)]


def by_task(
    episodes: Iterable[Signals], same_as: Mapping[str, str] = MappingProxyType({})
) -> dict[str | int, list[Signals]]:
    """The episodes of each task text, in order; `same_as`: the text that stands for another.

    Nobody knows what an episode without a text has in common with others: it is alone, under its episode_index.
    """
    return grouped(
        ((e.task and same_as.get(e.task, e.task)) or e.episode_index, e) for e in episodes
    )


def task_signals(episodes: Sequence[Signals]) -> list[Signals]:
    """What annotators are given of the episodes of one task, in order.

    They are compared by the cameras that half of them have: a single episode that lacks one does not take it from the
    rest.
    """
    having = Counter(camera for episode in episodes for camera in episode.tiny)
    cameras = sorted(camera for camera, count in having.items() if 2 * count >= len(episodes))
    compared = []
    for episode in episodes:
        # None of a camera that has none
        pictures = [episode.tiny.get(camera) for camera in cameras]
        features = [picture and (picture[0], grey_features(picture[1])) for picture in pictures]
        compared.append(replace(episode, pictures=tuple(features)))
    return compared
