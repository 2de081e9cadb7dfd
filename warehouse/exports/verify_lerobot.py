"""Holds a LeRobot export against its source: LeRobot's own reader opens it, and all that it shows is compared with what
the build reads of the source.
"""

import filecmp
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.label import Episode
from core.errors import UserError, install_hint
from core.paths import Workspace
from ingest.episode import DecodeOptions, VideoError
from ingest.formats.lerobot_episode import refused
from ingest.formats.listing import named
from ingest.media.video import Frame, decode, frame_times
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.lerobot_plan import SEGMENT, VIDEO_PATH, LerobotPlan
from warehouse.exports.lerobot_rows import matrix, numbers_of, segment_row
from warehouse.exports.options import Selection
from warehouse.exports.selection import ExportedEpisode
from warehouse.exports.videos import ENCODED, Clip
from warehouse.lake import Lake
from warehouse.measured import ChangedError

COLUMNS = ("episode_index", "frame_index", "timestamp", "task_index", "index")
NUMBERS = ("float", "int", "uint", "bool")  # how names of numbers' types begin
LONGEST = 300  # characters of what LeRobot said

# Of 255, on average over a picture. Where videos were only copied, decoders give the same. An encoder's loss is below
# the second
MOST_OFF_COPIED = 0.5
MOST_OFF_ENCODED = 12.0
# An encoder's loss is noise, which is hardly there in the means of blocks (px): of two frames, those that differ tell
# which one is shown, and another picture is off in more than a few. A line through all of them shows colours that are
# off everywhere: on real robots' videos at most 2.3 of 255 after an encoder, 3.4 after another colour matrix
BLOCK_PX = 8
BLOCK_OFF = 12.0
BLOCK_SHARE = 0.05
MOVED_BLOCKS = 3
COLOURS_OFF = 3.0
FEW_BLOCKS = 400


def _keep_to_itself(copy: str) -> None:
    """LeRobot looks nothing up anywhere, copies rows to a folder, and prints nowhere."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": copy}
    os.environ.update(offline)
    sys.stdout = sys.stderr = StringIO()


def _cannot_open(error: Exception) -> "Verified":
    return Verified(version("lerobot"), (f"it cannot open it ({_first_line(error)})",))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:LONGEST]


@dataclass(frozen=True)
class Verified:
    """What LeRobot's reader found; `problems` is empty where all of it is as in the source.

    `most_off`: the largest mean difference of a picture to the source's, of 255; None where none were compared.
    `each`: of how many pictures, all of the videos that are no copies of the source's, our own reader shows the same.
    """

    lerobot: str
    problems: tuple[str, ...]
    episodes: int = 0
    frames: int = 0
    cameras: int = 0
    pictures: int = 0
    most_off: float | None = None
    each: int = 0

    def sentence(self) -> str:
        """The outcome in one line."""
        if self.problems:
            return f"NOT verified by LeRobot {self.lerobot}: {named(self.problems)}"
        if self.most_off is None:
            off = "faces hidden: not compared"
        else:
            off = f"at most {self.most_off:.1f} of 255 off"
        each = f"; all {self.each} of the videos that are no copies, by our own reader" * bool(
            self.each
        )
        return (
            f"Verified: LeRobot {self.lerobot} opens {self.episodes} episodes, {self.frames} frames and {self.cameras} "
            f"cameras with lengths, times, rows and tasks of the corpus; {self.pictures} pictures decoded, {off}{each}."
        )


def verify(lake: Lake, selection: Selection, out: Path, options: Any) -> Verified:
    """Of each episode all rows, and, as LeRobot shows them, the pictures of its first, middle and
    last frame, and where most changes; and all pictures of videos that are no copies of the
    source's, as our own reader shows them.

    Raises UserError where there is no whole export in the folder or LeRobot is not installed, and
    what readers of sources raise.
    """
    if not (out / MANIFEST).exists():
        raise UserError(f"{out} holds no export that is whole: there is nothing to verify")
    if find_spec("lerobot") is None:
        raise UserError(f"--verify needs LeRobot's own reader: {install_hint('train')}")
    # LeRobot takes its settings from the environment when it is imported, keeps a copy of the rows, and may break: so
    # it reads in a process that ends
    context = multiprocessing.get_context("spawn")
    with (
        TemporaryDirectory(prefix="proccorpus-verify-") as copy,
        ProcessPoolExecutor(1, context, initializer=_keep_to_itself, initargs=(copy,)) as pool,
    ):
        try:
            job = pool.submit(_verified, lake.workspace, selection, out, options.model_dump())
            return job.result()
        except BrokenExecutor as e:
            return _cannot_open(e)


def _verified(
    workspace: Workspace, selection: Selection, out: Path, settings: Mapping[str, Any]
) -> Verified:
    options = EXPORT_KINDS["lerobot"].read_options(settings)
    try:
        plan = LerobotPlan("lerobot", Lake(workspace, read_only=True), selection, options)
        try:
            comparison = LeRobotComparison(plan, out, partial(_looked_at, plan.lake))
        except Exception as e:  # the reader's word, whatever it is
            return _cannot_open(e)
        problems = tuple(dict.fromkeys(comparison.problems()))
    except ChangedError as e:  # which does not travel between processes
        raise UserError(str(e)) from e
    return Verified(
        lerobot=version("lerobot"),
        problems=problems,
        episodes=comparison.dataset.num_episodes,
        frames=len(comparison.rows["index"]),
        cameras=len(comparison.cameras),
        pictures=comparison.num_pictures,
        most_off=None if options.blur else comparison.most_off,
        each=comparison.num_shown,
    )


def _looked_at(lake: Lake, e: Episode) -> list[int]:
    """The frames of an episode whose pictures are compared."""
    [busiest] = lake.column(
        "SELECT arg_max(frame_index, visual_change) FROM frames WHERE dataset = ? AND episode_index = ? AND chunk = ?",
        [e.dataset, e.episode_index, e.chunk],
    )
    last = e.num_frames - 1
    largest_change = min(last, busiest or 0)
    return sorted({0, e.num_frames // 2, last, largest_change, max(0, largest_change - 1)})


class LeRobotComparison:
    """What LeRobot's reader shows of an export beside what it was made of; `frames`: of an episode, those whose
    pictures it is to show. `most_off` as in Verified, `num_pictures` and `num_shown` as `pictures` and `each` there.

    `rows`: arrays [frames, ...] by feature. Raises whatever LeRobot raises as it opens the folder.
    """

    def __init__(
        self, plan: LerobotPlan, out: Path, frames: Callable[[Episode], Collection[int]]
    ) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        self.plan = plan
        self.out = out
        self.frames = frames
        self.most_off = 0.0
        self.num_pictures = 0
        self.num_shown = 0
        # A file is asked once, not for each of its pictures
        self._is_plain = cache(_is_plain)
        self.dataset: Any = LeRobotDataset("local/export", root=out, video_backend="pyav")
        self.cameras = list(self.dataset.meta.camera_keys)
        kinds = {name: feature["dtype"] for name, feature in self.dataset.features.items()}
        stored = self.dataset.hf_dataset
        numeric = [n for n in stored.column_names if kinds.get(n, "").startswith(NUMBERS)]
        columns = stored.with_format("numpy").select_columns(numeric)[:]
        self.rows = {name: np.asarray(columns[name]) for name in numeric}
        self.rows |= {name: np.ravel(columns[name]) for name in COLUMNS}

    def problems(self) -> Iterator[str]:
        """What of the whole differs, then of each episode, in words."""
        plan = self.plan
        fps = float(self.dataset.fps)
        tasks = {int(row.task_index): str(text) for text, row in self.dataset.meta.tasks.iterrows()}
        differs = {
            f"{fps:g} fps, not {plan.fps:g}": fps != plan.fps,
            f"the cameras {named(self.cameras)}, not {named(plan.cameras)}": {*self.cameras}
            != {*plan.cameras},
            "other tasks": tasks != {k: text for text, k in plan.tasks.items()},
        }
        yield from filter(differs.get, differs)
        size = (self.dataset.num_episodes, len(self.rows["index"]))
        right_size = (len(plan.index), plan.starts[-1])
        if size != right_size:
            yield "it has {} episodes and {} frames, not {} and {}".format(*size, *right_size)
        described = pq.read_table(self.out / "meta/episodes")
        if described.schema.field("proccorpus_segments").type != pa.list_(SEGMENT):
            yield "steps of other types in meta/episodes"
            described = described.drop_columns("proccorpus_segments")
        stats = [name for name in described.schema.names if name.startswith("stats/")]
        rows = {row["episode_index"]: row for row in described.drop_columns(stats).to_pylist()}
        for number, x in enumerate(plan.episodes()):
            if number in rows:
                yield from self._of_episode(number, x, rows[number])

    @cached_property
    def was_encoded(self) -> bool:
        """Does the export say that it encoded videos? That decides how far pictures may be off."""
        manifest = json.loads((self.out / MANIFEST).read_text())
        return ENCODED in manifest.get("videos", {})

    def _of_episode(self, number: int, x: ExportedEpisode, row: Mapping[str, Any]) -> Iterator[str]:
        """`row`: of meta/episodes."""
        pictures: dict[tuple[int, str], np.ndarray] = {}
        for frame in self.frames(x.episode):
            try:
                item = self.dataset[row["dataset_from_index"] + frame]
                pictures |= {
                    (frame, camera): self._picture(item, number, camera) for camera in self.cameras
                }
            except Exception as e:  # the reader's word, whatever it is
                yield f"frame {frame} of episode {number}: {_first_line(e)}"
        self.num_pictures += len(pictures)
        is_own = self.rows["episode_index"] == number
        exported = {name: values[is_own] for name, values in self.rows.items()}
        for name, values in numbers_of(self.plan, x).items():
            if name in exported and not _are_equal(exported[name], values):
                yield f"other values of {name} in episode {number}"
        # Numbers as the file holds them
        segments = x.label and list(map(segment_row, x.label.segments))
        [right_steps] = pa.array([segments], pa.list_(SEGMENT)).to_pylist()
        if row.get("proccorpus_segments", right_steps) != right_steps:
            yield f"other steps in episode {number}"
        for camera in self.plan.cameras:
            prefix = f"videos/{camera}/"
            file = {name.removeprefix(prefix): value for name, value in row.items()}
            path = self.out / VIDEO_PATH.format(video_key=camera, **file)
            rows_s = exported["timestamp"]
            location = f"episode {number} by {camera}"
            try:
                yield from refused_pictures(path, file["from_timestamp"], rows_s, location)
                if not self.plan.options.blur:
                    start_s = file["from_timestamp"]
                    yield from self._of_video(path, start_s, x, number, camera, pictures)
            except (OSError, VideoError) as error:
                yield f"the video of {location}: {error}"

    def _picture(self, item: Mapping[str, Any], number: int, camera: str) -> np.ndarray:
        """uint8 [h, w, 3] as LeRobot shows it. PyAV, which it decodes by here, takes no notice of what a video states
        of its colours: of such a video the picture at LeRobot's time is decoded by our own reader."""
        meta = self.dataset.meta
        if camera in meta.video_keys:
            path = self.out / meta.get_video_file_path(number, camera)
            if not self._is_plain(path):
                begin_s = meta.episodes[number][f"videos/{camera}/from_timestamp"]
                place = frame_times(path).nearest(np.array([begin_s + float(item["timestamp"])]))[0]
                return next(decode(path, int(place), 1)).rgb()
        return (item[camera].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)

    def _of_video(
        self,
        path: Path,
        start_s: float,
        x: ExportedEpisode,
        number: int,
        camera: str,
        pictures: Mapping[tuple[int, str], np.ndarray],
    ) -> Iterator[str]:
        """Of an episode's pictures, those that LeRobot showed, and all where the video is no copy: the first that is
        none of the source's."""
        e = x.episode
        clip = Clip(x.reader, self.plan.cameras_of(e)[camera], e)
        times_s = start_s + np.arange(e.num_frames) / self.plan.fps
        uri = clip.uri
        copied = uri is not None and filecmp.cmp(x.reader.source.resolve(uri), path, shallow=False)
        ours = repeat(None) if copied else _exported(clip, path, times_s)
        compared = 0
        wrong: list[str] = []
        for (source, neighbours), picture in zip(_of_source(clip), ours, strict=False):
            for candidate in (picture, pictures.get((compared, camera))):
                if candidate is not None:
                    off, problem = difference(
                        candidate, source, neighbours, was_encoded=self.was_encoded
                    )
                    self.most_off = max(self.most_off, off)
                    if problem:
                        place = f"frame {compared} of episode {number} by {camera}"
                        wrong.append(f"{problem} at {place} ({off:.1f} of 255 off)")
            compared += 1
        if not copied:
            self.num_shown += compared
        yield from wrong[:1]
        if compared < e.num_frames:
            yield f"{compared} of {e.num_frames} frames of episode {number} by {camera}"


def _is_plain(path: Path) -> bool:
    """Does a video state no colours of its own and no turn? PyAV takes no notice of either."""
    first = next(decode(path))
    return not isinstance(first, Frame) or (first.has_usual_colours and not first.quarter_turns)


def _are_equal(exported: np.ndarray, values: Any) -> bool:
    """`values`: of a column, as it is to be written."""
    right = matrix(values) if isinstance(values, pa.Array) else np.asarray(values)
    is_float = exported.dtype.kind == "f"
    return exported.size == right.size and np.array_equal(
        exported.reshape(right.shape), right, equal_nan=is_float
    )


def refused_pictures(path: Path, start_s: float, rows_s: np.ndarray, location: str) -> list[str]:
    """How many pictures of a video LeRobot refuses because of their times; rows are at `rows_s` after `start_s`.
    Raises VideoError."""
    video = frame_times(path)
    pictures_s = video.seconds[video.nearest(start_s + rows_s)]
    count = int(refused(start_s, rows_s, pictures_s).sum())
    if not count:
        return []
    problem = f"LeRobot refuses {count} of {len(rows_s)} pictures of {location}"
    return [f"{problem}: in float32 they are not at the rows' times"]


def _of_source(clip: Clip) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Each picture of an episode as the build reads it, and those beside it."""
    frames = islice(clip.frames(), clip.episode.num_frames)
    pictures = (picture.rgb() for _, _, picture in frames)
    previous, picture = None, next(pictures, None)
    while picture is not None:
        following = next(pictures, None)
        yield picture, [p for p in (previous, following) if p is not None]
        previous, picture = picture, following


def _exported(clip: Clip, path: Path, times_s: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures of an exported video at the times of its rows; ends where they do not follow one
    another."""
    options = DecodeOptions(limits=clip.reader.source.config.limits)
    places = frame_times(path, options.limits).nearest(times_s)
    follow = np.diff(places) == 1
    count = len(times_s) if follow.all() else int(follow.argmin()) + 1
    return (frame.rgb() for frame in decode(path, int(places[0]), count, options))


def difference(
    picture: np.ndarray,
    source: np.ndarray,
    neighbours: list[np.ndarray],
    *,
    was_encoded: bool,
) -> tuple[float, str]:
    """How far a picture is off on average, of 255, and what is wrong with it, or nothing. `neighbours`: the source's
    pictures before and after."""
    if picture.shape != source.shape:
        return 255.0, "another picture"
    mean = float(np.abs(picture.astype(np.int16) - source).mean())
    if mean > (MOST_OFF_ENCODED if was_encoded else MOST_OFF_COPIED):
        return mean, "another picture"
    blocks = _blocks(picture)
    right = _blocks(source)
    for neighbour in map(_blocks, neighbours):
        has_moved = np.abs(neighbour - right).max(axis=2) > BLOCK_OFF
        is_nearer = (
            np.abs(blocks - neighbour)[has_moved].sum() < np.abs(blocks - right)[has_moved].sum()
        )
        if has_moved.sum() >= MOVED_BLOCKS and is_nearer:
            return mean, "the picture of the frame beside"
    if (np.abs(blocks - right).max(axis=2) > BLOCK_OFF).mean() > BLOCK_SHARE:
        return mean, "another picture"
    has_other_colours = _colours_off(blocks, right) > COLOURS_OFF + FEW_BLOCKS / blocks[..., 0].size
    return mean, "other colours" if has_other_colours else ""


def _colours_off(blocks: np.ndarray, right: np.ndarray) -> float:
    """By how much, of 255, one linear change of all colours moves the hundredth part of blocks that it moves most."""
    colours = right.reshape(-1, 3)
    terms = np.column_stack([colours, np.ones(len(colours))])
    change = np.linalg.lstsq(terms, blocks.reshape(-1, 3), rcond=None)[0]
    return float(np.quantile(np.abs(terms @ change - colours), 0.99))


def _blocks(picture: np.ndarray) -> np.ndarray:
    """float32 [h, w, 3]: means of blocks."""
    size = max(1, picture.shape[1] // BLOCK_PX), max(1, picture.shape[0] // BLOCK_PX)
    return cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
