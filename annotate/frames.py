"""The frames stage: one streaming pass per video measures every frame and keeps coarse keyframes.

Decides which cameras, and so which episodes, can be used: a camera counts when it decodes to as
many frames as the episode has rows and shows something.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from annotate import pictures as vc
from annotate.checkup.checks import Checkup
from annotate.checkup.single_runs import CameraSignals, run_signals, time_gaps
from annotate.config import FramesConfig
from annotate.content_hash import content_columns
from annotate.pictures import encode_jpeg
from annotate.signal_lag import Lag, LagMeter, Proprioception, proprioception
from core.tables import TABLES, without_episodes
from core.wall import memory_wall
from ingest.episode import (
    DECODE_ALL,
    CameraVideo,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Finding,
    Match,
    Picture,
)
from ingest.episodes import RATE_TOLERANCE
from ingest.reasons import DataError, trouble
from ingest.recordings import Fingerprint, file_digest, moments_of, rows_fingerprint
from ingest.signals.gripper import GripperSignal, main_signal, moving_dimensions
from ingest.signals.missing import known_episode
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError

# A camera shows one picture when no cell of the grid spans this much luma (of 255) and the mean change is this small.
# Not exactly 0: each key frame of a compressed still picture differs from the frames before it.
FROZEN_LUMA = 16
FROZEN_CHANGE = 1e-3
MAX_DAMAGED = 0.1  # share of damaged frames above which a camera is not used
NO_DOUBT = Match()
MIN_TIMES = 5  # rows that a frame rate is measured on
TINY_HZ = 5.0  # tiny pictures a second, at most: as often as episodes are compared


@dataclass(frozen=True)
class FramesResult:
    """What was measured of a chunk.

    place: its dataset and chunk. episode_tables, episode_findings: of single episodes; the lags are
    of all together. fingerprints: of each episode with contents, by what its recording is told.
    """

    place: dict[str, Any]
    episode_tables: dict[str, pa.Table]
    episode_findings: list[Finding]
    meter: LagMeter
    checkup: Checkup
    decoded_frames: int
    fingerprints: dict[int, Fingerprint]

    @cached_property
    def lags(self) -> list[Lag]:
        return self.meter.lags()

    @property
    def tables(self) -> dict[str, pa.Table]:
        """All tables of the stage, by name."""
        lags = TABLES["signal_lags"].rows([self.place | vars(lag) for lag in self.lags])
        return self.episode_tables | {"signal_lags": lags}

    @property
    def findings(self) -> list[Finding]:
        return [*self.episode_findings, *self.meter.findings(self.lags), *self.checkup.faults()]

    def without(self, episodes: Collection[int]) -> "FramesResult":
        """What would have been measured had some episodes not been there; their fingerprints stay."""
        return replace(
            self,
            episode_tables=without_episodes(self.episode_tables, episodes),
            episode_findings=[f for f in self.episode_findings if f.episode_index not in episodes],
            meter=self.meter.without(episodes),
            checkup=self.checkup.without(episodes),
        )


class Keeper(Protocol):
    """Is handed pictures while they are measured, for a later stage."""

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        """Every how many frames of an episode's camera it wants, from frame 0 on; 0: none.

        num_frames: as the listing says; None where it does not.
        """
        ...

    def keep(
        self,
        episode_index: int,
        camera: str,
        frame_index: int,
        picture: Picture,
        half_luma: np.ndarray,
    ) -> None:
        """The picture, and its luma by `half_picture`, are valid until the next one."""

    def drop(self, episode_index: int, camera: str) -> None:
        """Those of a video that turned out to be damaged: another decoding may give others."""


Store = Callable[[str, bytes], None]  # keeps a keyframe's bytes by their sha256
Wanting = Sequence[tuple[Keeper, int]]  # keepers, each with every how many frames it wants
Measure = Callable[..., "Measured"]  # as measure_camera


@dataclass(frozen=True)
class Measured:
    """One camera of one episode."""

    measures: CameraSignals
    moments: tuple[int, ...]  # perceptual hashes by which the recording is told
    keyframes: list[dict[str, Any]]  # rows of `keyframes`
    damaged: int  # frames in which the decoder concealed errors
    tiny_every: int  # frames from one tiny picture to the next
    was_decoded: bool = True  # else an earlier pass measured it

    def __len__(self) -> int:
        return len(self.measures.change)

    @property
    def camera(self) -> str:
        return self.measures.camera


def frames_stage(
    source: Source,
    records: Iterable[EpisodeRecord],
    chunk: int,
    config: FramesConfig,
    store: Store,
    keepers: Sequence[Keeper] = (),
    signals: Sequence[GripperSignal] = (),
    measure: Measure | None = None,
) -> FramesResult:
    """Measure the usable episodes of one chunk; `measure`: what measures a camera, as `measure_camera`."""
    place = {"dataset": source.config.name, "chunk": chunk}
    parts = defaultdict[str, list](list)
    findings = []
    meter = LagMeter(signals)
    checkup = Checkup(source.config.name)
    main = main_signal(signals)
    fingerprints = dict[int, Fingerprint]()
    decoded = 0
    for record in records:
        key = place | {"episode_index": record.episode_index}
        try:
            with memory_wall(source.config.limits.max_memory_bytes):
                episode = read_episode(source, record)
                filled, lacks = known_episode(episode)
                rows = proprioception(filled, signals)
                fps, drift_s, off = timing(
                    episode.timestamps_s, record.fps, certain=source.config.fps is not None
                )
                usable, wrong, of_cameras = _cameras(
                    episode,
                    keepers,
                    fps,
                    partial(
                        measure or measure_camera,
                        episode,
                        config=config,
                        store=store,
                        options=DecodeOptions(source.decoding_threads),
                    ),
                    config,
                )
        except (DataError, MemoryError) as e:
            findings.append(
                Finding(*trouble(e), "unusable", record.episode_index, file=record.data_uri)
            )
            continue
        decoded += of_cameras
        findings += wrong
        # An episode without a usable camera has findings and nothing else
        if not usable:
            continue
        for reason, detail in (*off, *(("nan_state", detail) for detail in lacks)):
            findings.append(
                Finding(reason, detail, "warning", record.episode_index, file=record.data_uri)
            )
        findings += _time_findings(episode, usable, bool(off))
        pictures = {camera.camera: camera.measures.sha256 for camera in usable}
        row = {"num_frames": len(usable[0]), "fps": fps, "max_drift_s": drift_s}
        hashes = content_columns(episode, pictures, signals, source.config.grippers)
        parts["episode_content"].append(key | row | {"usable_cameras": list(pictures)} | hashes)
        fingerprints[record.episode_index] = _fingerprint(source, episode, usable, hashes)
        if rows.state is not None:
            parts["states"].append(
                rows_of("states", key, len(rows.state), state=lists_of(rows.state))
            )
        meter.add(filled, rows, usable[0].measures.change, fps)
        measures = [camera.measures for camera in usable]
        checkup.add(run_signals(filled, fps, signals, rows.openings, measures))
        for camera in usable:
            parts["frames"].append(_frame_rows(key, rows, main, camera, fps))
            parts["tiny_pictures"].append(_tiny_rows(key, camera))
            # A coarse keyframe belongs to no label run: all annotators are shown the same ones
            made_for = {"camera": camera.camera, "purpose": "coarse", "label_run": ""}
            parts["keyframes"] += [key | made_for | keyframe for keyframe in camera.keyframes]
    tables = {name: TABLES[name].rows(parts[name]) for name in ("episode_content", "keyframes")} | {
        # Of many short runs in one piece: whoever reads the table pays for each piece
        name: pa.concat_tables([TABLES[name].empty(), *parts.pop(name, ())]).combine_chunks()
        for name in ("frames", "tiny_pictures", "states")
    }
    return FramesResult(place, tables, findings, meter, checkup, decoded, fingerprints)


def _fingerprint(
    source: Source, episode: EpisodeData, usable: Sequence[Measured], hashes: Mapping[str, Any]
) -> Fingerprint:
    """What the recording is told by: its rows, its pictures at a few moments, the bytes of its own video."""
    try:
        file = file_digest(source, episode.record)
    except (DataError, SourceError, OSError):
        file = None  # a layer that is not known: the pictures were decoded, and tell the recording
    return replace(
        rows_fingerprint(episode),
        num_frames=len(usable[0]),
        moments={camera.camera: camera.moments for camera in usable},
        file=file,
        contents=frozenset([hashes["content_hash"], *hashes["former_hashes"]]),
    )


def _cameras(
    episode: EpisodeData,
    keepers: Sequence[Keeper],
    fps: float,
    measure: Callable[..., Measured],
    config: FramesConfig,
) -> tuple[list[Measured], list[Finding], int]:
    """An episode's usable cameras, what is wrong with any, and how many frames were decoded; `fps`: of the episode."""
    record = episode.record
    decoded = 0
    usable: list[Measured] = []
    problems: list[tuple[CameraVideo, tuple[str, str]]] = []
    for video in record.videos:
        # The first usable camera is the preferred one
        wants = [
            (k, k.every(video.camera, fps, record.num_rows, is_preferred=not usable))
            for k in keepers
        ]
        wanting = [(keeper, frame_step) for keeper, frame_step in wants if frame_step]
        measured = None
        try:
            measured = measure(video.camera, wanting=wanting)
            obstacle = _obstacle(measured, record, config)
            damage = _damage(measured) if measured.damaged else None
            decoded += len(measured) if measured.was_decoded else 0
        except (DataError, MemoryError) as e:
            obstacle = trouble(e)
            damage = None
        if measured and not obstacle:
            usable.append(measured)
        if measured is None or damage:
            for keeper, _ in wanting:
                keeper.drop(record.episode_index, video.camera)
        if problem := obstacle or damage:
            problems.append((video, problem))
    # A camera's trouble costs an episode only when no other camera is left
    severity = "warning" if usable else "unusable"
    index = record.episode_index
    return (
        usable,
        [Finding(*p, severity, index, video.camera, video.uri) for video, p in problems],
        decoded,
    )


def _time_findings(
    episode: EpisodeData, usable: Sequence[Measured], is_irregular: bool
) -> list[Finding]:
    """Of each usable camera, how far its pictures are from the times of the rows, unless these are
    irregular, which has a finding of its own; and how many have no row."""
    findings = list[Finding]()
    names = {camera.camera for camera in usable}
    for video in episode.record.videos:
        matched = episode.match(video.camera) if video.camera in names else NO_DOUBT
        if matched.doubt and not (is_irregular and matched.reason == "timestamp_drift"):
            place = episode.record.episode_index, video.camera, video.uri
            findings.append(Finding(matched.reason, matched.doubt, "warning", *place))
    return findings


def _obstacle(m: Measured, record: EpisodeRecord, config: FramesConfig) -> tuple[str, str] | None:
    """Why a camera cannot be used: (reason, detail)."""
    num_frames = len(m)
    measures = m.measures
    if record.num_rows not in (None, num_frames):
        return (
            "length_differs",
            f"{num_frames} frames decoded, the episode has {record.num_rows} rows",
        )
    if num_frames < config.min_frames:
        return "too_short", f"{num_frames} frames; at least {config.min_frames} are needed"
    if m.damaged > MAX_DAMAGED * num_frames:
        return _damage(m)
    if measures.is_black.all():
        return "camera_black", f"all {num_frames} frames are black"
    if measures.luma_span < FROZEN_LUMA and measures.change.mean() < FROZEN_CHANGE:
        return "camera_frozen", f"all {num_frames} frames show one picture"
    return None


def _damage(m: Measured) -> tuple[str, str]:
    detail = (
        f"{m.damaged} of {len(m)} frames are damaged: the decoder made up what it could not read"
    )
    return "undecodable_video", detail


def timing(
    times_s: np.ndarray | None, stated_fps: float, *, certain: bool
) -> tuple[float, float | None, list[tuple[str, str]]]:
    """The frame rate by the rows' times [n], which overrules the stated one unless that is
    `certain` (the registry's); seconds by which the times leave it, None without times; findings
    (reason, detail).

    Measured as the mean of those steps that lie within half of the median step, so that neither
    jitter nor dropped frames count.
    """
    if times_s is None or len(times_s) < MIN_TIMES:
        return stated_fps, None, []
    steps = np.diff(times_s)  # seconds from row to row
    usual_step_s = np.median(steps)
    if not np.isfinite(times_s).all() or usual_step_s < 0.0005:  # no camera is so fast
        return (
            stated_fps,
            None,
            [("timestamp_drift", "the rows' times do not increase, or too little")],
        )
    regular = np.abs(steps - usual_step_s) <= usual_step_s / 2
    # Three decimals: rates such as 29.97 are kept, rounding of the times is not
    measured = round(1.0 / float(steps[regular].mean()), 3)

    fps = stated_fps
    findings = []
    if abs(measured / stated_fps - 1) > RATE_TOLERANCE:
        rate_note = "the registry's rate is kept" if certain else "the measured rate is used"
        findings.append(
            (
                "frame_rate",
                f"stated {stated_fps:g} fps, the rows' times give {measured:g}: {rate_note}",
            )
        )
        fps = stated_fps if certain else measured

    # Drift: how far a row's time is from where the frame rate puts it; half a frame counts
    drift = float(np.abs((times_s - times_s[0]) - np.arange(len(times_s)) / fps).max())
    if drift > 0.5 / fps:
        missing = sum(count for _, count in time_gaps(times_s)[0])
        if missing:
            cause = f"{missing} frames are missing"
        else:
            cause = "no frame is missing: the recorder's clock is uneven"
        findings.append(("timestamp_drift", f"up to {drift:.2f} s from {fps:g} fps; {cause}"))
    return fps, drift, findings


def every_nth(hz: float, fps: float) -> int:
    """Which frames are looked at: 0 and every n-th after it, at most `hz` a second.

    Example: every_nth(5, 30) == 6; every_nth(5, 12) == 3; every_nth(5, 4) == 1
    """
    return max(1, int(np.ceil(fps / hz - 1e-9)))


def measure_camera(
    episode: EpisodeData,
    camera: str,
    config: FramesConfig,
    store: Store,
    wanting: Wanting = (),
    options: DecodeOptions = DECODE_ALL,
) -> Measured:
    """Measure every frame of one camera in one pass. Raises VideoError."""
    # Keyframes are whole frames: the interval is at least one of them, however short it is in seconds
    keyframe_step = max(1, round(config.keyframe_interval_s * episode.record.fps))
    tiny_every = every_nth(TINY_HZ, episode.record.fps)
    meter = vc.FrameMeter(tiny_every)
    hashes: list[int] = []
    keyframes: list[dict[str, Any]] = []
    damaged = 0
    for index, _, frame in episode.frames(camera, options):
        half_luma = vc.half_picture(frame.luma())
        meter.add(half_luma)
        damaged += frame.is_damaged
        if config.published_phash:
            hashes.append(vc.published_phash(frame))

        for keeper, nth in wanting:
            if index % nth == 0:
                keeper.keep(episode.record.episode_index, camera, index, frame, half_luma)
        if index % keyframe_step == 0:
            data, width, height = encode_jpeg(frame.rgb(), config.keyframe_max_px)
            sha256 = hashlib.sha256(data).hexdigest()
            store(sha256, data)
            keyframes.append(
                {"frame_index": index, "sha256": sha256, "width_px": width, "height_px": height}
            )
    # The meter's hash is quick and near the published one; only who wants the published numbers pays for that one
    measures = CameraSignals(camera=camera, **vars(meter.read()))
    moments = moments_of(measures.phash)
    if config.published_phash:
        measures = replace(measures, phash=np.array(hashes, np.uint64))
    return Measured(measures, moments, keyframes, damaged, tiny_every)


def _frame_rows(
    key: dict, rows: Proprioception, main: int | None, m: Measured, fps: float
) -> pa.Table:
    """Rows of `frames` of one camera; `main`: which gripper stands for all where one number is wanted."""
    n = len(m)
    gripper = None if main is None else rows.openings[main]
    # The openings of all grippers at each frame: null where one is not used
    openings = np.stack(
        [np.full(n, np.nan) if curve is None else curve for curve in rows.openings or [None]],
        axis=1,
    )
    is_used = any(curve is not None for curve in rows.openings)
    return rows_of(
        "frames",
        key,
        n,
        camera=pa.repeat(m.camera, n),
        timestamp_s=np.arange(n) / fps,
        visual_change=m.measures.change,
        phash=m.measures.phash,
        gripper=pa.nulls(n, pa.float32()) if gripper is None else gripper.astype(np.float32),
        grippers=lists_of(openings, np.isnan(openings))
        if is_used
        else pa.nulls(n, pa.list_(pa.float32())),
        speed=pa.nulls(n, pa.float32()) if rows.state is None else speed(rows.state, fps),
        luma_mean=m.measures.luma_mean,
        is_black=m.measures.is_black,
    )


def _tiny_rows(key: dict, m: Measured) -> pa.Table:
    n = len(m.measures.tiny)
    luma = pa.array([picture.tobytes() for picture in m.measures.tiny], pa.binary())
    frame_column = {"frame_index": np.arange(n) * m.tiny_every}
    return rows_of(
        "tiny_pictures", key, n, camera=pa.repeat(m.camera, n), luma=luma, **frame_column
    )


def rows_of(table: str, key: Mapping[str, Any], n: int, **columns: Any) -> pa.Table:
    """Rows of n frames, from 0 on unless told otherwise."""
    common = {
        "dataset": pa.repeat(key["dataset"], n),
        "episode_index": np.full(n, key["episode_index"], np.int64),
        "frame_index": np.arange(n),
        "chunk": np.full(n, key["chunk"], np.int32),
    }
    return pa.table(common | columns, schema=TABLES[table].schema)


def lists_of(values: np.ndarray, nulls: np.ndarray | None = None) -> pa.Array:
    """A list of float32 for each row of [n, d]; `nulls` bool [n, d]."""
    n, width = values.shape
    flat = pa.array(
        values.astype(np.float32).ravel(), mask=None if nulls is None else nulls.ravel()
    )
    return pa.ListArray.from_arrays(np.arange(0, n * width + 1, width, dtype=np.int32), flat)


def speed(state: np.ndarray, fps: float) -> np.ndarray:
    """Root mean square speed over the dimensions that move, in standard deviations of the episode per second.

    float32 [n]; 0 at frame 0.
    """
    s = state.astype(np.float64)
    is_moving, spread = moving_dimensions(s)
    out = np.zeros(len(s), np.float32)
    if is_moving.any() and len(s) > 1:
        steps = np.diff(s[:, is_moving], axis=0) / spread[is_moving]
        out[1:] = np.sqrt((steps**2).mean(axis=1)) * fps
    return out
