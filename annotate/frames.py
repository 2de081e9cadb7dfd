"""The frames stage: one streaming pass per video measures every frame and keeps coarse keyframes.

Decides which cameras, and so which episodes, can be used: a camera counts when it decodes to as many frames as the
episode has rows and shows something.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from annotate import visual_change as vc
from annotate.signal_lag import LagMeter, Proprioception, lag_row, proprioception
from annotate.stored_pictures import SharedPicture, encode_jpeg
from core.tables import TABLES
from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, RowsError
from ingest.formats.proprio import moving_dimensions
from ingest.identity import RATE_TOLERANCE
from ingest.media.video import DECODE_ALL, DecodeOptions, Picture, VideoError
from ingest.signals.gripper import GripperSignal, main_signal
from ingest.source import read_episode
from ingest.sources.files import Source

CODE_VERSION = "frames-6"
# A camera shows one picture when no cell of the grid spans this much luma (of 255) and the mean change is this small.
# Not exactly 0: each key frame of a compressed still picture differs from the frames before it.
FROZEN_LUMA, FROZEN_CHANGE = 16, 1e-3
MAX_DAMAGED = 0.1  # share of damaged frames above which a camera is not used
MIN_TIMES = 5  # rows that a frame rate is measured on


class FramesConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keyframe_interval_s: float = Field(default=1.0, gt=0, description="time between keyframes")
    keyframe_max_px: int = Field(default=480, ge=32, description="longer side of a keyframe")
    published_phash: bool = Field(default=False, description="compute the perceptual hash exactly as published; slow")
    min_frames: int = Field(default=5, ge=2, description="fewest frames of an episode; shorter ones are quarantined")


@dataclass(frozen=True)
class FramesResult:
    tables: dict[str, pa.Table]
    findings: list[Finding]
    decoded_frames: int


class Keeper(Protocol):
    """Is handed pictures while they are measured, for a later stage."""

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        """Every how many frames of an episode's camera it wants, from frame 0 on; 0: none.

        num_frames: as the listing says; None where it does not.
        """
        ...

    def keep(self, episode_index: int, camera: str, frame_index: int, picture: Picture) -> None:
        """The picture is valid until the next one."""

    def drop(self, episode_index: int, camera: str) -> None:
        """Those of a video that turned out to be damaged: another decoding may give others."""


@dataclass(frozen=True)
class Keyframe:
    frame_index: int
    sha256: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Measured:
    """One camera of one episode; arrays have one entry per frame."""

    camera: str
    change: np.ndarray  # float32
    phash: np.ndarray  # uint64
    luma_mean: np.ndarray  # float32
    is_black: np.ndarray  # bool
    luma_span: int  # largest minus least luma of the grid cell that varies most, of 255
    keyframes: list[Keyframe]
    damaged: int  # frames in which the decoder concealed errors
    grids_sha256: bytes

    def __len__(self) -> int:
        return len(self.change)


def frames_stage(
    source: Source,
    records: Iterable[EpisodeRecord],
    chunk: int,
    config: FramesConfig,
    store: Callable[[str, bytes], None],
    keepers: Sequence[Keeper] = (),
    signals: Sequence[GripperSignal] = (),
) -> FramesResult:
    """Measure the usable episodes of one chunk; `store(sha256, jpeg)` keeps a keyframe's bytes."""
    contents, frames, states, keyframes, findings = [], [], [], [], []
    lags, main = LagMeter(signals), main_signal(signals)
    decoded = 0
    for record in records:
        where = {"dataset": source.config.name, "episode_index": record.episode_index, "chunk": chunk}
        try:
            episode = read_episode(source, record)
            rows = proprioception(episode, signals)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "unusable", record.episode_index, file=record.data_uri))
            continue

        # An episode without a usable camera has findings and nothing else
        clock = timing(episode.timestamps_s, record.fps, certain=source.config.fps is not None)
        passing = _Pass(config, store, tuple(keepers), clock.fps)
        cameras = _measure_cameras(episode, passing, source.decoding_threads)
        decoded += cameras.decoded
        findings += cameras.findings
        if not cameras.usable:
            continue

        for reason, detail in clock.findings:
            findings.append(Finding(reason, detail, "warning", record.episode_index, file=record.data_uri))
        contents.append(where | _content_columns(episode, cameras.usable, clock))
        if rows.state is not None:
            states.append(_state_rows(where, rows.state))
        lags.add(episode, rows, cameras.usable[0].change, clock.fps)
        for camera in cameras.usable:
            frames.append(_frame_rows(where, rows, main, camera, clock.fps))
            # A coarse keyframe belongs to no label run: all annotators are shown the same ones
            made_for = {"camera": camera.camera, "purpose": "coarse", "label_run": ""}
            keyframes += [where | made_for | keyframe.__dict__ for keyframe in camera.keyframes]
    measured_lags = lags.lags()
    findings += lags.findings(measured_lags)
    of_chunk = {"dataset": source.config.name, "chunk": chunk}
    tables = {
        "episode_content": TABLES["episode_content"].rows(contents),
        "frames": pa.concat_tables([TABLES["frames"].empty(), *frames]),
        "states": pa.concat_tables([TABLES["states"].empty(), *states]),
        "keyframes": TABLES["keyframes"].rows(keyframes),
        "signal_lags": TABLES["signal_lags"].rows([of_chunk | lag_row(lag) for lag in measured_lags]),
    }
    return FramesResult(tables, findings, decoded)


@dataclass(frozen=True)
class _Problem:
    reason: str
    detail: str


@dataclass(frozen=True)
class _CameraResult:
    """What came of measuring one camera; `usable` None where it cannot be used, and then there is a problem."""

    usable: Measured | None
    problem: _Problem | None
    decoded: int  # frames
    is_damaged: bool


@dataclass(frozen=True)
class _Cameras:
    """The usable cameras of an episode, what is wrong with its cameras, and how many frames were decoded."""

    usable: list[Measured]
    findings: list[Finding]
    decoded: int


@dataclass(frozen=True)
class _Pass:
    """What is done with the pictures of an episode while they are measured; `fps`: of the episode."""

    config: FramesConfig
    store: Callable[[str, bytes], None]
    keepers: tuple[Keeper, ...]
    fps: float


def _measure_cameras(episode: Episode, passing: _Pass, threads: int) -> _Cameras:
    usable: list[Measured] = []
    problems: list[tuple[CameraVideo, _Problem]] = []
    decoded = 0
    for video in episode.record.videos:
        # The first usable camera is the preferred one
        result = _measure(episode, video.camera, passing, threads, is_preferred=not usable)
        decoded += result.decoded

        if result.usable:
            usable.append(result.usable)
        if result.problem:
            problems.append((video, result.problem))

    # A camera's trouble costs an episode only when no other camera is left
    severity = "warning" if usable else "unusable"
    index = episode.record.episode_index
    findings = [Finding(p.reason, p.detail, severity, index, video.camera, video.uri) for video, p in problems]
    return _Cameras(usable, findings, decoded)


def _measure(episode: Episode, camera: str, passing: _Pass, threads: int, *, is_preferred: bool) -> _CameraResult:
    num_frames = episode.record.num_rows
    wants = [(k, k.every(camera, passing.fps, num_frames, is_preferred=is_preferred)) for k in passing.keepers]
    wanting = [(keeper, every) for keeper, every in wants if every]
    try:
        measured = measure_camera(episode, camera, passing.config, passing.store, wanting, DecodeOptions(threads))
    except (VideoError, RowsError) as e:
        result = _CameraResult(None, _Problem(e.reason, str(e)), decoded=0, is_damaged=True)
    else:
        result = _judged(measured, episode.record, passing.config)
    if result.is_damaged:
        for keeper, _ in wanting:
            keeper.drop(episode.record.episode_index, camera)
    return result


def _judged(measured: Measured, record: EpisodeRecord, config: FramesConfig) -> _CameraResult:
    is_damaged = measured.damaged > 0
    obstacle = _obstacle(measured, record, config)
    if obstacle:
        return _CameraResult(None, obstacle, len(measured), is_damaged)
    return _CameraResult(measured, _damage(measured) if is_damaged else None, len(measured), is_damaged)


def _obstacle(m: Measured, record: EpisodeRecord, config: FramesConfig) -> _Problem | None:
    """Why a camera cannot be used."""
    if record.num_rows is not None and len(m) != record.num_rows:
        return _Problem("frame_count", f"{len(m)} frames decoded, the episode has {record.num_rows} rows")
    if len(m) < config.min_frames:
        return _Problem("too_short", f"{len(m)} frames; at least {config.min_frames} are needed")
    if m.damaged > MAX_DAMAGED * len(m):
        return _damage(m)
    if m.is_black.all():
        return _Problem("black_video", f"all {len(m)} frames are black")
    if m.luma_span < FROZEN_LUMA and m.change.mean() < FROZEN_CHANGE:
        return _Problem("frozen_video", f"all {len(m)} frames show one picture")
    return None


def _damage(m: Measured) -> _Problem:
    detail = f"{m.damaged} of {len(m)} frames are damaged: the decoder made up what it could not read"
    return _Problem("damaged_frames", detail)


@dataclass(frozen=True)
class Timing:
    """An episode's frame rate, and how far its rows' times leave it; `drift_s` None without times."""

    fps: float
    drift_s: float | None
    findings: tuple[tuple[str, str], ...]  # reason, detail


def timing(times_s: np.ndarray | None, stated_fps: float, *, certain: bool) -> Timing:
    """The frame rate by the rows' times [n], which overrules the stated one unless that is `certain` (the registry's).

    Measured as the mean of those steps that lie within half of the median step, so that neither jitter nor dropped
    frames count.
    """
    if times_s is None or len(times_s) < MIN_TIMES:
        return Timing(stated_fps, None, ())
    steps = np.diff(times_s)  # seconds from row to row
    usual = np.median(steps)
    if not np.isfinite(times_s).all() or usual <= 0:
        return Timing(stated_fps, None, (("timestamp_drift", "the rows' times do not increase"),))
    regular = np.abs(steps - usual) <= usual / 2
    # Three decimals: rates such as 29.97 are kept, rounding of the times is not
    measured = round(1.0 / float(steps[regular].mean()), 3)

    fps, findings = stated_fps, []
    if abs(measured / stated_fps - 1) > RATE_TOLERANCE:
        kept = "the registry's rate is kept" if certain else "the measured rate is used"
        findings.append(("frame_rate", f"stated {stated_fps:g} fps, the rows' times give {measured:g}: {kept}"))
        fps = stated_fps if certain else measured

    # Drift: how far a row's time is from where the frame rate puts it; half a frame counts
    drift = float(np.abs((times_s - times_s[0]) - np.arange(len(times_s)) / fps).max())
    if drift > 0.5 / fps:
        findings.append(("timestamp_drift", f"up to {drift:.2f} s from {fps:g} fps"))
    return Timing(fps, drift, tuple(findings))


def measure_camera(
    episode: Episode,
    camera: str,
    config: FramesConfig,
    store: Callable[[str, bytes], None],
    keepers: Sequence[tuple[Keeper, int]] = (),
    options: DecodeOptions = DECODE_ALL,
) -> Measured:
    """Measure every frame of one camera in one pass; `keepers`, each with every how many frames it wants.

    Raises VideoError.
    """
    # Keyframes are whole frames: the interval is at least one of them, however short it is in seconds
    every = max(1, round(config.keyframe_interval_s * episode.record.fps))
    meter = vc.FrameMeter()
    hashes: list[int] = []
    keyframes: list[Keyframe] = []
    damaged = 0
    for index, _, frame in episode.frames(camera, options):
        luma = frame.luma()
        half = vc.halved(luma)
        meter.add(half)
        damaged += frame.is_damaged
        if config.published_phash:
            hashes.append(vc.published_phash(frame))

        # Colours are only computed of pictures whose colours somebody asks for
        is_keyframe = index % every == 0
        if not keepers and not is_keyframe:
            continue
        picture = SharedPicture(frame, luma, half)
        for keeper, nth in keepers:
            if index % nth == 0:
                keeper.keep(episode.record.episode_index, camera, index, picture)
        if is_keyframe:
            keyframes.append(_keyframe(index, picture.rgb(), config, store))
    # The meter's hash is quick and near the published one; only who wants the published numbers pays for that one
    m = meter.read()
    phash = np.array(hashes, np.uint64) if config.published_phash else m.phash
    return Measured(camera, m.change, phash, m.luma_mean, m.is_black, m.luma_span, keyframes, damaged, m.sha256)


def _keyframe(k: int, rgb: np.ndarray, config: FramesConfig, store: Callable[[str, bytes], None]) -> Keyframe:
    data, width, height = encode_jpeg(rgb, config.keyframe_max_px)
    sha256 = hashlib.sha256(data).hexdigest()
    store(sha256, data)
    return Keyframe(k, sha256, width, height)


def _content_columns(episode: Episode, cameras: list[Measured], clock: Timing) -> dict[str, Any]:
    return {
        "num_frames": len(cameras[0]),
        "fps": clock.fps,
        "max_drift_s": clock.drift_s,
        "usable_cameras": [m.camera for m in cameras],
        "content_hash": _content_hash(episode, cameras),
    }


def _content_hash(episode: Episode, cameras: list[Measured]) -> str:
    h = hashlib.sha256((episode.record.task or "").encode())
    for m in sorted(cameras, key=lambda m: m.camera):
        h.update(m.camera.encode() + m.grids_sha256)
    for values in (episode.state, episode.action):
        h.update(b"-" if values is None else np.ascontiguousarray(values, np.float64).tobytes())
    return h.hexdigest()


def _frame_rows(where: dict, rows: Proprioception, main: int | None, m: Measured, fps: float) -> pa.Table:
    """Rows of `frames` of one camera; `main`: which gripper stands for all where one number is wanted."""
    n = len(m)
    gripper = None if main is None else rows.openings[main]
    motion = None if rows.state is None else speed(rows.state, fps)
    columns = {
        "dataset": pa.repeat(where["dataset"], n),
        "episode_index": np.full(n, where["episode_index"], np.int64),
        "camera": pa.repeat(m.camera, n),
        "frame_index": np.arange(n),
        "chunk": np.full(n, where["chunk"], np.int32),
        "timestamp_s": np.arange(n) / fps,
        "visual_change": m.change,
        "phash": m.phash,
        "gripper": pa.nulls(n, pa.float32()) if gripper is None else gripper.astype(np.float32),
        "grippers": _opening_lists(rows.openings, n),
        "speed": pa.nulls(n, pa.float32()) if motion is None else motion,
        "luma_mean": m.luma_mean,
        "is_black": m.is_black,
    }
    return pa.table(columns, schema=TABLES["frames"].schema)


def _state_rows(where: dict, state: np.ndarray) -> pa.Table:
    n, width = state.shape
    values = pa.array(np.ascontiguousarray(state, np.float32).ravel())
    columns = {
        "dataset": pa.repeat(where["dataset"], n),
        "episode_index": np.full(n, where["episode_index"], np.int64),
        "frame_index": np.arange(n),
        "chunk": np.full(n, where["chunk"], np.int32),
        "state": pa.ListArray.from_arrays(np.arange(0, n * width + 1, width, dtype=np.int32), values),
    }
    return pa.table(columns, schema=TABLES["states"].schema)


def _opening_lists(openings: Sequence[np.ndarray | None], n: int) -> pa.Array:
    """The openings of all grippers at each of n frames: lists of float32, null where one is not used."""
    if all(curve is None for curve in openings):
        return pa.nulls(n, pa.list_(pa.float32()))
    columns = [np.full(n, np.nan) if curve is None else curve for curve in openings]
    flat = np.column_stack(columns).astype(np.float32).ravel()
    values = pa.array(flat, mask=np.isnan(flat))
    return pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, len(columns), dtype=np.int32), values)


def speed(state: np.ndarray, fps: float) -> np.ndarray:
    """Root mean square speed over the dimensions that move, in standard deviations of the episode per second.

    float32 [n]; 0 at frame 0.
    """
    s = state.astype(np.float64)
    moving, spread = moving_dimensions(s)
    out = np.zeros(len(s), np.float32)
    if moving.any() and len(s) > 1:
        steps = np.diff(s[:, moving], axis=0) / spread[moving]
        out[1:] = np.sqrt((steps**2).mean(axis=1)) * fps
    return out
