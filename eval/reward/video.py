"""Rewards of a video, or of several cameras' videos of one run: decoded in one streaming pass, scored in batches."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched, zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

import numpy as np

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import CutOffError, Moment, RewardError, Robot, Stream
from ingest.episode import CAMERA_RATE_TOLERANCE, VideoError
from ingest.media.curve_panel import CurvePanel
from ingest.media.encoding import SHOWN, encode
from ingest.media.video import Frame, VideoInfo, decode, probe
from ingest.reasons import CHANGED_DURING_BUILD, DataError

SCORE_FPS = 4.0
AT_ONCE = 32  # moments that are scored together

Row = dict[str, Any]


class RgbPicture(Protocol):
    """A frame that is converted when its colours are asked for: uint8 [h, w, 3]."""

    def rgb(self) -> np.ndarray: ...


Shown = tuple[float | None, RgbPicture]  # a frame, and its time in seconds where the file says it


ReadCamera = Callable[[str], Iterator[Shown]]  # a camera's frames in order


@dataclass(frozen=True)
class RunClip:
    """A run to score, by some of its cameras; all have the same frames.

    num_frames: None where nobody says it. title: for people. read: the frames of a camera in order; raises VideoError,
    DataError. robot: the state and the action at a frame. labelled: a label's progress at each frame; steps: its (first
    frame, end, name).
    """

    cameras: tuple[str, ...]
    fps: float
    num_frames: int | None
    title: str
    read: ReadCamera = field(repr=False)
    robot: Callable[[int], Robot] = lambda frame: {}
    labelled: Sequence[float] = ()
    steps: Sequence[tuple[int, int, str]] = ()


def open_clip(
    videos: Mapping[str, Path],
    probe: Callable[[Path], VideoInfo] = probe,
    read: ReadCamera | None = None,
) -> RunClip:
    """A run's videos by camera: by their headers, as `probe` reads them. `read`: what decodes them in the place of
    this process. Raises RewardError."""
    infos = {camera: _checked_header(path, probe) for camera, path in videos.items()}
    first_camera, first = next(iter(infos.items()))
    for camera, info in infos.items():
        # Headers round one rate in different ways: a small difference is none.
        if abs(info.fps - first.fps) > CAMERA_RATE_TOLERANCE * first.fps:
            raise RewardError(
                f"the cameras have different rates: {camera} {info.fps:g}, {first_camera} {first.fps:g} frames/s"
            )
    # As the header states it, or its duration. One that states no length contradicts no other.
    counts = {
        c: info.num_frames or round((info.duration_s or 0) * info.fps) or None
        for c, info in infos.items()
    }
    if len(set(counts.values()) - {None}) > 1:
        listed = ", ".join(f"{camera} {n}" for camera, n in counts.items())
        raise RewardError(f"the cameras have different lengths in frames: {listed}")
    title = ", ".join(path.name for path in videos.values())
    if read is None:
        read = functools.partial(_decoded, videos)
    return RunClip(tuple(videos), first.fps, counts[first_camera], title, read)


def _decoded(videos: Mapping[str, Path], camera: str) -> Iterator[Shown]:
    """The frames of a camera's video. Raises VideoError."""
    # Nothing is passed over here, so there are frames alone.
    for frame in cast("Iterator[Frame]", decode(videos[camera])):
        time_s = frame.picture.time
        yield float(time_s) if time_s is not None else None, frame


def _checked_header(path: Path, probe: Callable[[Path], VideoInfo]) -> VideoInfo:
    if not path.is_file():
        raise RewardError(f"there is no video {path}")
    try:
        return probe(path)
    except VideoError as e:
        raise RewardError(str(e)) from e


def frames(clip: RunClip, partial: bool = False) -> Iterator[dict[str, Shown]]:
    """The frames of all cameras, side by side. Raises RewardError for a video without any; for one that ends before
    its header says, or before another camera's, after the frames that are there, unless `partial`."""
    count = 0
    cause = ""
    try:
        # As long as the longest, so that a camera which ends before the others is noticed.
        for camera_frames in zip_longest(*map(clip.read, clip.cameras)):
            if None in camera_frames:
                break
            yield dict(zip(clip.cameras, camera_frames, strict=True))
            count += 1
    except DataError as e:
        # Another recording than was asked for
        if e.reason == CHANGED_DURING_BUILD:
            raise
        cause = f" ({e})"
    if not count:
        raise RewardError(f"{clip.title}: there is no frame to score{cause}")
    if not partial and (cause or count < (clip.num_frames or 0)):
        promised = f" of {clip.num_frames} that the header promises" if clip.num_frames else ""
        raise CutOffError(
            f"{clip.title} is cut off or damaged: {count} frames decode{promised}{cause}"
        )


def last_pictures(clip: RunClip, partial: bool = False) -> tuple[int, dict[str, np.ndarray]]:
    """Number of frames, and the last pictures by camera: a pass of its own, for the baselines.
    Raises RewardError."""
    [(count, last)] = deque(enumerate(frames(clip, partial), 1), maxlen=1)
    return count, {camera: picture.rgb() for camera, (_, picture) in last.items()}


def score_clip(
    scorer: Scorer,
    clip: RunClip,
    task: str,
    *,
    score_fps: float = SCORE_FPS,
    steps: Sequence[str] = (),
    partial: bool = False,
    reasoning: bool = False,
) -> Iterator[Row]:
    """A row for each scored frame, in order; memory does not grow with the video.

    With `partial`, of a video that is cut off, the last row says so and has no number. Raises RewardError.
    """
    stream = clip_stream(scorer, clip, task, score_fps, steps, partial)
    for moments in batched(clip_moments(stream, clip, partial), AT_ONCE):
        yield from scored_rows(scorer, moments, reasoning)
    # With `partial` alone: else `frames` has raised for the missing ones.
    if stream.appended < (clip.num_frames or 0):
        failure = f"the video is cut off here: {stream.appended} of {clip.num_frames} frames decode"
        yield reward_row(
            stream.appended,
            stream.appended / clip.fps,
            Reward(scorer.source, None, failure=failure),
            0.0,
        )


def clip_moments(stream: Stream, clip: RunClip, partial: bool = False) -> Iterator[Moment]:
    """What is to be scored of a clip, in order, in one streaming pass. Raises RewardError."""
    for camera_frames in frames(clip, partial):
        if stream.is_wanted:
            pictures = {c: picture.rgb() for c, (_, picture) in camera_frames.items()}
        else:
            pictures = None
        time_s, _ = next(iter(camera_frames.values()))
        moment = stream.append(pictures, time_s, robot=clip.robot(stream.appended))
        if moment is not None:
            yield moment


def clip_stream(
    scorer: Scorer,
    clip: RunClip,
    task: str,
    score_fps: float,
    steps: Sequence[str] = (),
    partial: bool = False,
) -> Stream:
    """The stream that a clip is: with its end, where a baseline has to know it. Raises RewardError."""
    if score_fps > clip.fps * (1 + CAMERA_RATE_TOLERANCE):
        raise RewardError(
            f"the video has {clip.fps:g} frames a second, of which {score_fps:g} cannot be scored"
        )
    options: dict[str, Any] = {"num_frames": clip.num_frames}
    # These baselines know how the run ends: its length and last picture take a pass before the scoring one.
    if scorer.source in ("clock", "visual"):
        count, last = last_pictures(clip, partial)
        options = {
            "num_frames": count,
            "duration_s": (max(count, clip.num_frames or 0) - 1) / clip.fps,
        }
        options |= {"goal": last} if scorer.source == "visual" else {}
    return scorer.stream(
        task, clip.fps, steps, cameras=clip.cameras, score_fps=score_fps, **options
    )


def scored_rows(scorer: Scorer, moments: Sequence[Moment], reasoning: bool = False) -> list[Row]:
    """The rows of some moments, scored together; latency_s is the time of that, in equal parts."""
    start_s = perf_counter()
    rewards = scorer.score(moments)
    latency_s = (perf_counter() - start_s) / max(1, len(moments))
    return [
        reward_row(m.frame_index, m.timestamp_s, r, latency_s, reasoning)
        for m, r in zip(moments, rewards, strict=True)
    ]


def reward_row(
    frame_index: int, timestamp_s: float, reward: Reward, latency_s: float, reasoning: bool = False
) -> Row:
    """A reward as files and servers give it."""
    row: Row = {
        "frame_index": frame_index,
        "timestamp_s": round(timestamp_s, 6),
        "progress": reward.progress,
        "done": reward.done,
        "success": reward.success,
        "source": reward.source,
        "failure": reward.failure,
        "unsure": reward.unsure,
        "latency_s": round(latency_s, 6),
    }
    if reward.cameras:
        row["cameras"] = dict(reward.cameras)
    if reward.source == "shown":
        row |= {name: getattr(reward, name) for name in ("about_s", "step", "step_name", "spread")}
    if reasoning:
        row["reasoning"] = reward.reasoning
    return row


def write_overlay(
    out: Path, clip: RunClip, rows: Sequence[Mapping[str, Any]], partial: bool = False
) -> None:
    """Encode the first camera's frames with the curve of `rows` up to each, in one streaming pass; behind it the
    clip's label, where it has one. Raises RewardError.
    """
    panel = CurvePanel(clip.fps, rows, clip.steps, clip.labelled)
    camera = clip.cameras[0]
    images = (
        panel.below(camera_frames[camera][1].rgb(), index)
        for index, camera_frames in enumerate(frames(clip, partial))
    )
    encode(images, out, clip.fps, SHOWN)
