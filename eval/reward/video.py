"""Rewards of a video, or of several cameras' videos of one run: decoded in one streaming pass, scored in batches."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched, groupby, zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

import cv2
import numpy as np

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import CutOffError, Moment, RewardError, Robot, Stream
from ingest.media.encoding import SHOWN, encode
from ingest.media.frames import CAMERA_RATE_TOLERANCE, VideoError
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


# A video with the reward's curve under the picture, for people: h264, yuv420p and fast start, which browsers play

PANEL_PX = 180  # height of all below the picture
STRIP_PX = 16  # height of the steps and the seconds each
LEAST_PX = 320  # width of the picture: smaller ones are enlarged
# Where curves are drawn
LEFT_PX, RIGHT_PX, TOP_PX, GROUND_PX = 30, 10, 36, PANEL_PX - 2 * STRIP_PX - 6
PAPER, INK, FAINT, LINE, LABEL, MARK, LOST = (
    (250, 250, 248), (40, 40, 40), (205, 205, 200), (31, 95, 170), (120, 165, 90), (214, 96, 20), (190, 40, 40),
)  # fmt: skip
STEPS = ((226, 236, 248), (248, 236, 214))  # in turn
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_overlay(
    out: Path, clip: RunClip, rows: Sequence[Mapping[str, Any]], partial: bool = False
) -> None:
    """Encode the first camera's frames with the curve of `rows` up to each, in one streaming pass. Raises RewardError.

    Behind it the clip's label, where it has one: its whole curve, and its steps by name. Where a row has no number the
    curve has a gap, with a mark on the ground line.
    """
    curve = clip.labelled
    steps = clip.steps
    last = max(rows[-1]["frame_index"], 1, len(curve) - 1)
    ground = None

    def images() -> Iterator[np.ndarray]:
        nonlocal ground
        camera = clip.cameras[0]
        for index, camera_frames in enumerate(frames(clip, partial)):
            picture = _even_sides(camera_frames[camera][1].rgb())
            step = next((name for start, end, name in steps if start <= index < end), "")
            if ground is None:
                ground = _panel_without_model(picture.shape[1], clip.fps, last, curve, steps)
            yield np.concatenate([picture, _panel(ground, rows, index, last, step)])

    encode(images(), out, clip.fps, SHOWN)


def _even_sides(rgb: np.ndarray) -> np.ndarray:
    """Both sides even, as yuv420p needs them."""
    scale = max(1.0, LEAST_PX / rgb.shape[1])
    height, width = (max(2, round(n * scale) // 2 * 2) for n in rgb.shape[:2])
    if rgb.shape[:2] == (height, width):
        return rgb
    return cv2.resize(rgb, (width, height))


def _curve_point(frame: float, last: int, progress: float, width: int) -> tuple[int, int]:
    x = LEFT_PX + frame / last * (width - LEFT_PX - RIGHT_PX)
    return round(x), round(GROUND_PX - progress * (GROUND_PX - TOP_PX))


def _draw_text(
    panel: np.ndarray,
    text: str,
    x: int,
    y: int,
    colour: tuple[int, int, int] = INK,
    scale: float = 0.36,
) -> None:
    cv2.putText(panel, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)


def _panel_without_model(
    width: int, fps: float, last: int, curve: Sequence[float], steps: Sequence[tuple[int, int, str]]
) -> np.ndarray:
    panel = np.full((PANEL_PX, width, 3), PAPER, np.uint8)
    for share in (0.0, 0.5, 1.0):
        (_, y), right = _curve_point(0, last, share, width), width - RIGHT_PX
        cv2.line(panel, (LEFT_PX, y), (right, y), FAINT, 1)
        _draw_text(panel, f"{share:g}", 4, y + 4)
        text = f"{share * last / fps:.1f} s"
        text_x = (
            LEFT_PX
            + round(share * (right - LEFT_PX))
            - round(share * cv2.getTextSize(text, FONT, 0.36, 1)[0][0])
        )
        _draw_text(panel, text, text_x, PANEL_PX - 5)
    for k, (start, end, name) in enumerate(steps):
        (x, _), (next_x, _) = (
            _curve_point(frame, last, 0.0, width) for frame in (start, min(end, last))
        )
        strip = panel[GROUND_PX + 4 : GROUND_PX + 4 + STRIP_PX, x:next_x]
        strip[:] = STEPS[k % 2]
        # Cut off where the step ends: it is drawn into the step's own part
        _draw_text(strip, name, 2, STRIP_PX - 5, scale=0.33)
    if len(curve):
        line = [_curve_point(f, last, float(p), width) for f, p in enumerate(curve)]
        cv2.polylines(panel, [np.array(line, np.int32)], False, LABEL, 2, cv2.LINE_AA)
        _draw_text(panel, "label", width - RIGHT_PX - 76, 25, LABEL)
        _draw_text(panel, "model", width - RIGHT_PX - 38, 25, LINE)
    return panel


def _panel(
    ground: np.ndarray, rows: Sequence[Mapping[str, Any]], frame_index: int, last: int, step: str
) -> np.ndarray:
    panel = ground.copy()
    past = [r for r in rows if r["frame_index"] <= frame_index]
    places = [
        _curve_point(r["frame_index"], last, r["progress"] or 0.0, panel.shape[1]) for r in past
    ]
    # Pieces are not joined: a line across a gap would show numbers that nobody gave
    for has, piece in groupby(
        zip(past, places, strict=True), lambda both: both[0]["progress"] is not None
    ):
        if has:
            cv2.polylines(
                panel,
                [np.array([point for _, point in piece], np.int32)],
                False,
                LINE,
                2,
                cv2.LINE_AA,
            )
        else:
            for _, point in piece:
                cv2.circle(panel, point, 3, LOST, -1, cv2.LINE_AA)
    if past:
        cv2.circle(
            panel, places[-1], 4, LOST if past[-1]["progress"] is None else MARK, -1, cv2.LINE_AA
        )
        _draw_text(panel, _row_in_words(past[-1]), 4, 12)
    _draw_text(panel[:, : -RIGHT_PX - 80], step, 4, 25)
    return panel


def _row_in_words(row: Mapping[str, Any]) -> str:
    if row["progress"] is None:
        return f"{row['timestamp_s']:.1f} s  no reward"
    done_text = "" if row["done"] is None else f"  done {row['done']:.2f}"
    return (
        f"{row['timestamp_s']:.1f} s  progress "
        f"{row['progress']:.2f}{done_text}{'  success' if row['success'] else ''}"
    )
