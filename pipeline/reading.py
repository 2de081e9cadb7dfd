"""What stages read of a chunk: its usable episodes and their measurements."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from annotate import motion
from annotate.signal_lag import without_lag
from core.errors import UserError
from ingest.episode import EpisodeFrame, EpisodeRecord, NativeStep, record_from_row
from ingest.signals.gripper import GripperSignal
from warehouse.lake import Lake
from warehouse.lake.signals import stored_signals

KEPT = ("frames", "segments")  # stages whose tables others of the chunk read again
FRAME_COLUMNS = ["episode_index", "camera", "visual_change", "phash", "grippers", "speed"]
STATE_COLUMNS = ["episode_index", "state"]
PICTURE_PX = 64  # side of the pictures that failed runs are compared by


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
class Listed:
    """What a listing says of a chunk: its usable episodes in order, the dataset's grippers, the views that it names."""

    records: list[EpisodeRecord]
    grippers: list[GripperSignal]
    views: tuple[str, ...]

    @classmethod
    def read(cls, lake: Lake, dataset: str, chunk: int) -> "Listed":
        with lake.reading():
            records = usable_records(lake, dataset, chunk)
            return cls(records, stored_signals(lake.con, dataset), named_views(lake, dataset))


def records_of(lake: Lake, dataset: str, episodes: Iterable[int]) -> list[EpisodeRecord]:
    """What is listed of some episodes of any chunks, in order."""
    if not (wanted := sorted(episodes)):
        return []
    rows = lake.dicts(
        "SELECT * FROM episode_facts WHERE dataset = ? AND list_contains(?, episode_index) ORDER BY episode_index",
        [dataset, wanted],
    )
    return [record_from_row(r) for r in rows]


@dataclass(frozen=True)
class SourceSteps:
    """The subtask spans that the source of an episode brings, as in EpisodeRecord; none: empty."""

    steps: tuple[NativeStep, ...] = ()
    form: str | None = None
    plan: tuple[str, ...] = ()
    as_far_as: EpisodeFrame | None = None


@dataclass(frozen=True)
class EpisodeSignals:
    """Measurements of one episode; arrays [num_frames].

    camera: the preferred one. views: all that it is labelled by, that one first.
    change: the visual change of the view in which most changes; phash: of the preferred camera.
    """

    episode_index: int
    camera: str
    views: tuple[str, ...]
    fps: float
    success: bool | None
    success_source: str | None
    task: str | None
    native: SourceSteps
    change: np.ndarray
    phash: np.ndarray
    grippers: tuple[motion.GripperCurve, ...]
    speed: np.ndarray | None
    state: np.ndarray | None  # [num_frames, d]

    def signals(self) -> motion.Signals:
        return motion.Signals(
            self.fps,
            self.change,
            self.speed,
            self.grippers,
            self.success,
            self.task,
            self.state,
            episode_index=self.episode_index,
        )


@dataclass(frozen=True)
class _Facts:
    """What is known of an episode beside its frames. usable: the cameras that can be used, by preference."""

    episode_index: int
    usable: Sequence[str]
    fps: float
    success: bool | None
    success_source: str | None
    task: str | None
    native: SourceSteps


@dataclass(frozen=True)
class _Measured:
    """What the lake holds of some episodes of a chunk, in order, once their frames are measured.

    frames, states: rows by episode, camera and frame, and by episode and frame.
    lags_s: seconds that signals are behind the pictures, of those that labels are corrected by.
    """

    episodes: list[_Facts]
    frames: pa.Table
    states: pa.Table
    grippers: Sequence[GripperSignal]
    views: tuple[str, ...]
    lags_s: Mapping[str, float]


def chunk_signals(
    lake: Lake, dataset: str, chunk: int, chosen: Collection[int] | None = None
) -> Iterator[EpisodeSignals]:
    """The measurements of each usable episode of a chunk, or of the chosen ones, in order."""
    where, here = "dataset = ? AND chunk = ?", [dataset, chunk]
    if chosen is not None:
        where, here = f"{where} AND list_contains(?, episode_index)", [*here, sorted(chosen)]
    with lake.reading():
        episodes = lake.rows(
            "SELECT c.episode_index, c.usable_cameras, c.fps, f.success, f.success_source, f.task, f.steps, "
            f"f.steps_from, f.plan, f.as_far_as FROM (FROM episode_content WHERE {where}) c "
            "JOIN episode_facts f USING (dataset, episode_index) ORDER BY 1",
            here,
        )
        frames = lake.arrow(
            f"SELECT {', '.join(FRAME_COLUMNS)} FROM frames WHERE {where} ORDER BY episode_index, camera, frame_index",
            here,
        )
        states = lake.arrow(
            f"SELECT {', '.join(STATE_COLUMNS)} FROM states WHERE {where} ORDER BY episode_index, frame_index", here
        )
        grippers, views = stored_signals(lake.con, dataset), named_views(lake, dataset)
        lags_s = _corrected_lags(lake, dataset, chunk)
    facts = [
        _Facts(episode, usable, fps, success, success_source, task, _source_steps(*native))
        for episode, usable, fps, success, success_source, task, *native in episodes
    ]
    yield from _signals_of(_Measured(facts, frames, states, grippers, views, lags_s))


def _just_measured(listed: Listed, tables: Mapping[str, pa.Table]) -> _Measured:
    """The same of tables that the frames stage has just published."""
    records = {record.episode_index: record for record in listed.records}
    contents = tables["episode_content"].select(["episode_index", "usable_cameras", "fps"]).to_pylist()
    lags = tables["signal_lags"].select(["signal", "lag_s", "is_corrected"]).to_pylist()
    return _Measured(
        [_facts(records[row["episode_index"]], row["usable_cameras"], row["fps"]) for row in contents],
        tables["frames"].select(FRAME_COLUMNS),
        tables["states"].select(STATE_COLUMNS),
        listed.grippers,
        listed.views,
        {row["signal"]: row["lag_s"] for row in lags if row["is_corrected"]},
    )


def _facts(record: EpisodeRecord, usable: Sequence[str], fps: float) -> _Facts:
    native = SourceSteps(record.steps, record.steps_from, record.plan, record.as_far_as)
    return _Facts(record.episode_index, usable, fps, record.success, record.success_source, record.task, native)


def _signals_of(measured: _Measured) -> Iterator[EpisodeSignals]:
    table, states, lags_s = measured.frames, measured.states.combine_chunks(), measured.lags_s
    episode_of_row, episode_of_state = table["episode_index"].to_numpy(), states["episode_index"].to_numpy()
    cameras = table["camera"].to_numpy(zero_copy_only=False)
    for facts in measured.episodes:
        of_episode, fps = rows_of_episode(episode_of_row, facts.episode_index), facts.fps
        views = labelled_by(measured.views, facts.usable)
        of_view = {}
        for camera in views:
            # The rows of one camera of an episode follow one another
            of_camera = np.flatnonzero(cameras[of_episode] == camera)
            of_view[camera] = table.slice(of_episode.start + int(of_camera[0]), len(of_camera))
        frames = of_view[views[0]]
        late = round(lags_s.get("state", 0.0) * fps)
        state = states["state"][rows_of_episode(episode_of_state, facts.episode_index)]
        yield EpisodeSignals(
            episode_index=facts.episode_index,
            camera=views[0],
            views=views,
            fps=fps,
            success=facts.success,
            success_source=facts.success_source,
            task=facts.task,
            native=facts.native,
            change=most_change([rows["visual_change"].to_numpy() for rows in of_view.values()]),
            phash=frames["phash"].to_numpy(),
            grippers=_curves(frames["grippers"], measured.grippers, lags_s, fps),
            speed=_earlier(_complete(frames["speed"]), late),
            state=_earlier(_matrix(state), late),
        )


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
    shows nothing adds nothing (docs/adding-a-dataset.md has what it is worth).
    """
    return of_views[0] if len(of_views) == 1 else np.max(of_views, axis=0)


@dataclass
class ChunkMemory:
    """What the stages of a chunk leave for one another, from the first to the last of them: to read it of the lake
    again costs some 10 ms for each table.

    made: what a stage has published, by its name and by table. Until somebody else publishes of the chunk.
    """

    made: dict[str, Mapping[str, pa.Table]] = field(default_factory=dict)
    _listed: Listed | None = None
    _signals: list[EpisodeSignals] | None = None

    def listed(self, lake: Lake, dataset: str, chunk: int) -> Listed:
        if self._listed is None:
            self._listed = Listed.read(lake, dataset, chunk)
        return self._listed

    def chunk_signals(self, lake: Lake, dataset: str, chunk: int) -> list[EpisodeSignals]:
        if self._signals is None:
            if "frames" in self.made:
                of_chunk = _signals_of(_just_measured(self.listed(lake, dataset, chunk), self.made["frames"]))
            else:
                of_chunk = chunk_signals(lake, dataset, chunk)
            self._signals = list(of_chunk)
        return self._signals

    def keep(self, stage: str, tables: Mapping[str, pa.Table]) -> None:
        """A stage of the chunk was published."""
        if stage in KEPT:
            self.made[stage] = tables
        if stage == "frames":
            self._signals = None

    def forget(self) -> None:
        self.made.clear()
        self._listed = self._signals = None


def _corrected_lags(lake: Lake, dataset: str, chunk: int) -> dict[str, float]:
    """Seconds that signals of a chunk are behind its pictures, of those that labels are corrected by."""
    rows = lake.rows(
        "SELECT signal, lag_s FROM signal_lags WHERE dataset = ? AND chunk = ? AND is_corrected", [dataset, chunk]
    )
    return dict(rows)


def _curves(
    openings: pa.ChunkedArray, signals: Sequence[GripperSignal], lags_s: Mapping[str, float], fps: float
) -> tuple[motion.GripperCurve, ...]:
    """The grippers that are used, each moved to where the pictures show it."""
    # Lists of one length or none at all; null: that gripper is not used
    if not len(openings) or openings.null_count:
        return ()
    flat = openings.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    by_signal = flat.reshape(len(openings), -1).T.astype(np.float64)
    if len(by_signal) != len(signals):
        raise UserError(f"frames have {len(by_signal)} grippers, the dataset has {len(signals)}: build it again")
    curves = []
    for signal, opening in zip(signals, by_signal, strict=True):
        if not np.isfinite(opening).all():
            continue
        closing_s, opening_s = (lags_s.get(f"{signal.title}: {way}") for way in ("closing", "opening"))
        if closing_s is not None and opening_s is not None:
            opening = without_lag(opening, fps, closing_s, opening_s)
        curves.append(motion.GripperCurve(opening, signal.has_polarity, signal.kind == "hand"))
    return tuple(curves)


def _earlier(values: np.ndarray | None, frames: int) -> np.ndarray | None:
    """Rows [n, ...] as if they had come so many frames earlier; the rows at the ends are repeated."""
    if values is None or not frames:
        return values
    n = len(values)
    return values[np.clip(np.arange(n) + frames, 0, n - 1)]


def _source_steps(
    steps: Sequence[Mapping[str, Any]] | None,
    form: str | None,
    plan: Sequence[str] | None,
    as_far_as: Mapping[str, int] | None,
) -> SourceSteps:
    """Columns of episode_facts as they are read; rows of earlier versions lack some of them."""
    spans = tuple(NativeStep(**step) for step in steps or ())
    return SourceSteps(spans, form, tuple(plan or ()), EpisodeFrame(**as_far_as) if as_far_as else None)


def _complete(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column as an array; None where a value is missing."""
    return None if column.null_count else column.to_numpy()


def _matrix(states: pa.ChunkedArray) -> np.ndarray | None:
    """State vectors [num_frames, d]; None where the source has none."""
    if not len(states):
        return None
    return states.combine_chunks().flatten().to_numpy().reshape(len(states), -1)


def rows_of_episode(episode_of_row: np.ndarray, episode_index: int) -> slice:
    """The rows of an episode in a table that is ordered by episode.

    Example: rows_of_episode(np.array([0, 0, 2, 2, 2]), 2) == slice(2, 5)
    """
    start, end = np.searchsorted(episode_of_row, [episode_index, episode_index + 1])
    return slice(int(start), int(end))


def by_task(
    episodes: Iterable[EpisodeSignals], same_as: Mapping[str, str] = MappingProxyType({})
) -> dict[str | None, list[EpisodeSignals]]:
    """The episodes of each task text, in order; `same_as`: the text that stands for another."""
    episodes_by_task: dict[str | None, list[EpisodeSignals]] = {}
    for episode in episodes:
        task = same_as.get(episode.task, episode.task) if episode.task else episode.task
        episodes_by_task.setdefault(task, []).append(episode)
    return episodes_by_task


def signals_by_task(
    lake: Lake, dataset: str, chunk: int, of_chunk: Iterable[EpisodeSignals]
) -> Iterator[list[motion.Signals]]:
    """What the motion annotator is given of the runs of each task, in order; `of_chunk`: the chunk's measurements."""
    episodes_by_task = by_task(of_chunk)

    # Where an object lay is read from the first pictures, for tasks that some episode failed
    troubled = [episodes for episodes in episodes_by_task.values() if any(e.success is False for e in episodes)]
    pictures = first_pictures(lake, dataset, chunk, list(chain.from_iterable(troubled)))
    for episodes in episodes_by_task.values():
        yield [replace(e.signals(), picture=pictures.get(e.episode_index)) for e in episodes]


def first_pictures(lake: Lake, dataset: str, chunk: int, episodes: Sequence[EpisodeSignals]) -> dict[int, np.ndarray]:
    """Luma of the first frame of the preferred camera, 0..1, float64 [PICTURE_PX ** 2]."""
    if not episodes:
        return {}
    cameras = {e.episode_index: e.camera for e in episodes}
    rows = lake.rows(
        "SELECT episode_index, camera, sha256 FROM keyframes WHERE dataset = ? AND chunk = ? AND frame_index = 0 "
        "AND purpose = 'coarse'",
        [dataset, chunk],
    )
    pictures = {}
    for episode, camera, sha256 in rows:
        # One camera per episode: pictures of different cameras cannot be compared
        if cameras.get(episode) == camera:
            jpeg = np.frombuffer(lake.workspace.keyframe(sha256).read_bytes(), np.uint8)
            luma = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
            assert luma is not None, f"keyframe {sha256} is no picture"
            small = cv2.resize(luma, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA)
            pictures[episode] = small.ravel() / 255
    return pictures
