"""What stages read of a chunk: its usable episodes and their measurements."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.alignment.engine import grey_features
from annotate.motion.observe import GripperCurve, Signals
from annotate.signal_lag import without_lag
from core.errors import UserError
from core.tables import TABLES
from ingest.episode import EpisodeRecord, record_from_row
from ingest.signals.gripper import GripperSignal
from warehouse.lake import Lake
from warehouse.lake.stored import rows_of_episode, stored_signals

# What is read of the measurements of a chunk: columns by table
MEASURED = {
    "episode_content": ("episode_index", "usable_cameras", "fps"),
    "frames": ("episode_index", "camera", "frame_index", "visual_change", "phash", "grippers", "speed"),
    "states": ("episode_index", "frame_index", "state"),
    "tiny_pictures": ("episode_index", "camera", "frame_index", "luma"),
    "signal_lags": ("signal", "lag_s", "is_corrected"),
}


def records_where(lake: Lake, where: str, values: Sequence[Any]) -> list[EpisodeRecord]:
    """What is listed of the episodes that fit a condition on episode_facts f, in order."""
    rows = lake.dicts(f"SELECT * FROM episode_facts f WHERE {where} ORDER BY episode_index", [*values])
    return [record_from_row(row) for row in rows]


def usable_records(lake: Lake, dataset: str, chunk: int) -> list[EpisodeRecord]:
    """Episodes of a chunk that listing found no fault with, in order."""
    unusable = (
        "FROM findings x WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable'"
    )
    return records_where(lake, f"dataset = ? AND chunk = ? AND NOT EXISTS ({unusable})", [dataset, chunk])


def records_of(lake: Lake, dataset: str, episodes: Iterable[int]) -> list[EpisodeRecord]:
    """What is listed of some episodes of any chunks, in order."""
    wanted = sorted(episodes)
    return records_where(lake, "dataset = ? AND list_contains(?, episode_index)", [dataset, wanted]) if wanted else []


def usable_episode(lake: Lake, dataset: str, episode_index: int) -> dict[str, Any]:
    """The row of `episodes` of one that somebody names. Raises UserError where it is not there or cannot be used."""
    rows = lake.dicts("SELECT * FROM episodes WHERE dataset = ? AND episode_index = ?", [dataset, episode_index])
    if not rows:
        raise UserError(f"{dataset} has no episode {episode_index}")
    if rows[0]["status"] != "ok":
        raise UserError(f"episode {episode_index} of {dataset} cannot be used: {rows[0]['reason']}")
    return rows[0]


@dataclass(frozen=True, kw_only=True)
class EpisodeSignals(Signals):
    """Measurements of one episode, without pictures; arrays [num_frames].

    views: the cameras that it is labelled by, the preferred one first.
    change: the visual change of the view in which most changes; phash: of the preferred camera.
    tiny: of each usable camera the frames int64 [k] of its tiny pictures, and their pixels uint8 [k, p].
    """

    record: EpisodeRecord
    views: tuple[str, ...]
    phash: np.ndarray
    tiny: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def camera(self) -> str:
        return self.views[0]

    def signals(self, cameras: Sequence[str] = ()) -> Signals:
        """What annotators are given; with the tiny pictures of these cameras, where it has them."""
        seen = [self.tiny.get(camera) for camera in cameras]
        return replace(self, pictures=tuple(found and (found[0], grey_features(found[1])) for found in seen))


def chunk_signals(
    lake: Lake, dataset: str, chunk: int, chosen: Collection[int] | None = None
) -> Iterator[EpisodeSignals]:
    """The measurements of each usable episode of a chunk, or of the chosen ones, in order."""
    of_chunk = of_episodes = "dataset = ? AND chunk = ?", [dataset, chunk]
    if chosen is not None:
        of_episodes = f"{of_chunk[0]} AND list_contains(?, episode_index)", [dataset, chunk, sorted(chosen)]
    with lake.reading():
        signals, named = stored_signals(lake.con, dataset), named_views(lake, dataset)
        records = {record.episode_index: record for record in records_where(lake, *of_episodes)}
        tables = _measured(lake, of_chunk, of_episodes)
    lags_s = {lag["signal"]: lag["lag_s"] for lag in tables["signal_lags"].to_pylist() if lag["is_corrected"]}
    frames, states, tiny = tables["frames"], tables["states"].combine_chunks(), tables["tiny_pictures"].combine_chunks()
    episode_of_tiny = tiny["episode_index"].to_numpy()
    episode_of_row, episode_of_state = frames["episode_index"].to_numpy(), states["episode_index"].to_numpy()
    cameras = frames["camera"].to_numpy(zero_copy_only=False)
    for content in tables["episode_content"].to_pylist():
        record, fps = records[content["episode_index"]], content["fps"]
        of_episode = rows_of_episode(episode_of_row, record.episode_index)
        views, of_view = labelled_by(named, content["usable_cameras"]), []
        for camera in views:
            # The rows of one camera of an episode follow one another
            of_camera = np.flatnonzero(cameras[of_episode] == camera)
            of_view.append(frames.slice(of_episode.start + int(of_camera[0]), len(of_camera)))
        speed, state = of_view[0]["speed"], states["state"][rows_of_episode(episode_of_state, record.episode_index)]
        late = round(lags_s.get("state", 0.0) * fps)
        yield EpisodeSignals(
            record=record,
            episode_index=record.episode_index,
            task=record.task,
            success=record.success,
            views=views,
            fps=fps,
            change=most_change([rows["visual_change"].to_numpy() for rows in of_view]),
            phash=of_view[0]["phash"].to_numpy(),
            grippers=_curves(of_view[0]["grippers"], signals, lags_s, fps),
            # None where a value is missing, or the source has none
            speed=None if speed.null_count else _earlier(speed.to_numpy(), late),
            state=_earlier(_matrix(state), late) if len(state) else None,
            tiny=_tiny(tiny, rows_of_episode(episode_of_tiny, record.episode_index)),
        )


def signals_of(lake: Lake, dataset: str, chunk_of: Mapping[int, int]) -> list[EpisodeSignals]:
    """The measurements of some usable episodes of any chunks, each of which is named, in order."""
    chosen: dict[int, list[int]] = {}
    for episode, chunk in sorted(chunk_of.items()):
        chosen.setdefault(chunk, []).append(episode)
    return [signals for chunk in sorted(chosen) for signals in chunk_signals(lake, dataset, chunk, chosen[chunk])]


def _tiny(table: pa.Table, of_episode: slice) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The tiny pictures of an episode by camera."""
    rows = table.slice(of_episode.start, of_episode.stop - of_episode.start)
    cameras, frames = rows["camera"].to_numpy(zero_copy_only=False), rows["frame_index"].to_numpy()
    pixels = np.frombuffer(b"".join(rows["luma"].to_pylist()), np.uint8).reshape(len(frames), -1)
    return {camera: (frames[cameras == camera], pixels[cameras == camera]) for camera in sorted(set(cameras))}


def _measured(lake: Lake, of_chunk: tuple[str, list], of_episodes: tuple[str, list]) -> dict[str, pa.Table]:
    """What the lake holds of a chunk's measurements, in order."""
    tables = {}
    for name, columns in MEASURED.items():
        where, values = of_episodes if "episode_index" in columns else of_chunk
        order = ", ".join(TABLES[name].key)
        tables[name] = lake.arrow(f"SELECT {', '.join(columns)} FROM {name} WHERE {where} ORDER BY {order}", values)
    return tables


def named_views(lake: Lake, dataset: str) -> tuple[str, ...]:
    """The cameras that a dataset's configuration names for its labels; a lake of an earlier version knows none."""
    [row] = lake.dicts("SELECT * FROM datasets WHERE dataset = ?", [dataset]) or [{}]
    return tuple(row.get("views") or ())


def labelled_by(views: Sequence[str], usable: Sequence[str]) -> tuple[str, ...]:
    """By which of an episode's usable cameras, by preference, it is labelled; the first is the main one.

    Example: of the views front and wrist an episode without a usable wrist camera has ("front",).
    """
    return tuple(camera for camera in views if camera in usable) or tuple(usable[:1])


def most_change(of_views: Sequence[np.ndarray]) -> np.ndarray:
    """The visual change of several views [num_frames] as one: of each frame that of the view in which most changes.

    So a view that a hand or the arm hides takes nothing away from what another one shows, and the noise of a view that
    shows nothing adds nothing (docs/data.md has what it is worth).
    """
    return of_views[0] if len(of_views) == 1 else np.max(of_views, axis=0)


def _curves(
    openings: pa.ChunkedArray, signals: Sequence[GripperSignal], lags_s: Mapping[str, float], fps: float
) -> tuple[GripperCurve, ...]:
    """The grippers that are used, each moved to where the pictures show it."""
    # Lists of one length or none at all; null: that gripper is not used
    if not len(openings) or openings.null_count:
        return ()
    by_signal = _matrix(openings).T.astype(np.float64)
    if len(by_signal) != len(signals):
        raise UserError(f"frames have {len(by_signal)} grippers, the dataset has {len(signals)}: build it again")
    curves = []
    for signal, row in zip(signals, by_signal, strict=True):
        opening = np.asarray(row)
        if not np.isfinite(opening).all():
            continue
        closing_s, opening_s = (lags_s.get(f"{signal.title}: {move}") for move in ("closing", "opening"))
        if closing_s is not None and opening_s is not None:
            opening = without_lag(opening, fps, closing_s, opening_s)
        curves.append(GripperCurve(opening, signal.has_polarity))
    return tuple(curves)


def _matrix(lists: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as rows [n, d]."""
    return lists.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _earlier(values: np.ndarray, frames: int) -> np.ndarray:
    """Rows [n, ...] as if they had come so many frames earlier; the rows at the ends are repeated."""
    return values[np.clip(np.arange(len(values)) + frames, 0, len(values) - 1)] if frames else values


def by_task(
    episodes: Iterable[EpisodeSignals], same_as: Mapping[str, str] = MappingProxyType({})
) -> dict[str | None, list[EpisodeSignals]]:
    """The episodes of each task text, in order; `same_as`: the text that stands for another."""
    episodes_by_task: dict[str | None, list[EpisodeSignals]] = {}
    for episode in episodes:
        task = same_as.get(episode.task, episode.task) if episode.task else episode.task
        episodes_by_task.setdefault(task, []).append(episode)
    return episodes_by_task


def task_signals(episodes: Sequence[EpisodeSignals]) -> list[Signals]:
    """What annotators are given of the episodes of one task, in order.

    They are compared by the cameras that half of them have: a single episode that lacks one does not take it from the
    rest.
    """
    having = Counter(camera for episode in episodes for camera in episode.tiny)
    cameras = sorted(camera for camera, count in having.items() if 2 * count >= len(episodes))
    return [episode.signals(cameras) for episode in episodes]
