"""Holds a LeRobot export against its source: LeRobot's own reader opens both, and they are compared frame by frame.

A source that LeRobot's reader does not open, as one of another format, is read as the build reads it.
"""

import filecmp
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.episode import Episode
from core.errors import UserError, install_hint
from ingest.formats.lerobot_frames import refused
from ingest.formats.listing import named
from ingest.media.frames import DecodeOptions, VideoError
from ingest.media.video import decode, frame_times
from warehouse.exports.export import MANIFEST
from warehouse.exports.labels import each_label
from warehouse.exports.lerobot_plan import SEGMENT, VIDEO_PATH, LerobotPlan
from warehouse.exports.lerobot_reading import Place, Reading, read
from warehouse.exports.lerobot_rows import columns, matrix, segment_row
from warehouse.exports.options import LerobotOptions, Selection
from warehouse.exports.selection import SourceReader
from warehouse.exports.videos import ENCODED, Clip
from warehouse.lake import Lake

TIME_S = 1e-4  # what LeRobot lets a frame's time be off
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

type Moment = tuple[int, str]  # frame and camera


@dataclass(frozen=True)
class Verified:
    """What LeRobot's reader found; `problems` is empty where all of it is as in the source.

    `most_off`: the largest mean difference of a picture to the source's, of 255; None where none were compared.
    `by_lerobot`: how many pictures were compared with what LeRobot shows of the source itself. `each`: of how many
    pictures, all of the videos that are no copies of the source's, our own reader shows the same.
    """

    lerobot: str
    episodes: int
    frames: int
    cameras: int
    pictures: int
    most_off: float | None
    problems: tuple[str, ...]
    by_lerobot: int = 0
    each: int = 0

    def sentence(self) -> str:
        """The outcome in one line."""
        if self.problems:
            return f"NOT verified by LeRobot {self.lerobot}: {named(self.problems)}"
        parts = [
            f"Verified: LeRobot {self.lerobot} opens {self.episodes} episodes, {self.frames} frames and {self.cameras} "
            "cameras with lengths, times, rows and tasks of the corpus"
        ]
        if self.most_off is None:
            parts.append(f"{self.pictures} pictures decoded, faces hidden: not compared")
        else:
            parts.append(
                f"{self.pictures} pictures decoded, at most {self.most_off:.1f} of 255 off"
            )
        if self.by_lerobot:
            parts.append(f"{self.by_lerobot} of them as LeRobot shows the source")
        if self.each:
            parts.append(f"all {self.each} of the videos that are no copies, by our own reader")
        return f"{'; '.join(parts)}."


def verify(lake: Lake, selection: Selection, out: Path, options: LerobotOptions) -> Verified:
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
    plan = LerobotPlan("lerobot", lake, selection, options)
    places: list[tuple[int, int]] = []
    for number, e in enumerate(plan.episodes):
        places += [(number, frame) for frame in _looked_at(lake, e)]
    with TemporaryDirectory(prefix="proccorpus-verify-") as scratch:
        export = read(out, places, Path(scratch))
    if isinstance(export, str):
        return Verified(version("lerobot"), 0, 0, 0, 0, None, (f"it cannot open it ({export})",))
    problems = [
        f"frame {frame} of episode {number}: {reason}"
        for (number, frame), reason in export.refused.items()
    ]
    problems += _compare(plan, export) + _compare_segments(plan, out)
    problems += _compare_times(plan, export, out)
    sources = _Sources(plan, places)
    problems += _compare_features(plan, export, sources)
    verified = Verified(
        lerobot=export.facts["version"],
        episodes=export.facts["episodes"],
        frames=export.facts["frames"],
        cameras=len(export.facts["cameras"]),
        pictures=len(export.pictures),
        most_off=None,
        problems=tuple(problems),
    )
    if options.blur:
        return verified
    # How far pictures may be off, by how the export says that its videos were written
    was_encoded = ENCODED in json.loads((out / MANIFEST).read_text()).get("videos", {})
    pictures = _compare_pictures(plan, export, sources, was_encoded=was_encoded)
    videos = _compare_each(plan, out, was_encoded=was_encoded)
    return replace(
        verified,
        most_off=max(pictures.most_off, videos.most_off),
        problems=tuple(dict.fromkeys((*problems, *pictures.problems, *videos.problems))),
        by_lerobot=pictures.count,
        each=videos.count,
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


class _Sources:
    """What the export's sources show at the frames looked at and beside them: by LeRobot where it opens them."""

    def __init__(self, plan: LerobotPlan, places: list[Place]) -> None:
        self.plan = plan
        self.frames: dict[int, set[int]] = {}
        for number, frame in places:
            neighbours = {frame - 1, frame, frame + 1} & {*range(plan.episodes[number].num_frames)}
            self.frames.setdefault(number, set()).update(neighbours)
        self.readings = {
            dataset: self._read(dataset, reader) for dataset, reader in plan.readers.items()
        }

    def _read(self, dataset: str, reader: SourceReader) -> Reading | None:
        if reader.info is None:
            return None
        places: list[tuple[int, int]] = []
        for number, e in enumerate(self.plan.episodes):
            if e.dataset == dataset:
                places += [(e.episode_index, frame) for frame in self.frames[number]]
        with TemporaryDirectory(prefix="proccorpus-verify-") as scratch:
            reading = read(reader.source.root, places, Path(scratch))
        if isinstance(reading, str):
            return None
        return reading

    def feature(self, e: Episode, name: str) -> np.ndarray:
        """[num_frames, d]"""
        reading = self.readings[e.dataset]
        reader = self.plan.readers[e.dataset]
        if reading is not None and name in reading.rows:
            return reading.rows_of(name, e.episode_index).reshape(e.num_frames, -1)
        return matrix(columns(reader, e, self.plan.features)[name])

    def pictures(self, number: int) -> tuple[dict[Moment, np.ndarray], set[Moment]]:
        """Those of an episode, and which of them LeRobot shows; of the others our own reader's."""
        e = self.plan.episodes[number]
        moments = [*product(self.frames[number], self.plan.cameras)]
        reading = self.readings[e.dataset]
        pictures: dict[Moment, np.ndarray] = {}
        if reading is not None:
            for frame, camera in moments:
                if (picture := reading.pictures.get((e.episode_index, frame, camera))) is not None:
                    pictures[frame, camera] = picture
        by_lerobot = {*pictures}
        for camera in dict.fromkeys(
            camera for frame, camera in moments if (frame, camera) not in pictures
        ):
            for frame, _, picture in (
                self.plan.readers[e.dataset].episode(e).frames(self.plan.cameras_of(e)[camera])
            ):
                if frame in self.frames[number]:
                    pictures.setdefault((frame, camera), picture.rgb().copy())
        return pictures, by_lerobot


def _compare(plan: LerobotPlan, export: Reading) -> list[str]:
    """What differs, in words."""
    facts = export.facts
    if (facts["episodes"], facts["frames"]) != (len(plan.episodes), plan.starts[-1]):
        export_size = f"{facts['episodes']} episodes and {facts['frames']} frames"
        return [f"it has {export_size}, not {len(plan.episodes)} and {plan.starts[-1]}"]
    differs = {
        f"{facts['fps']:g} fps, not {plan.fps:g}": facts["fps"] != plan.fps,
        f"the cameras {named(facts['cameras'])}, not {named(plan.cameras)}": {*facts["cameras"]}
        != {*plan.cameras},
    }
    return [*filter(differs.get, differs), *_compare_rows(plan, export)]


def _compare_rows(plan: LerobotPlan, export: Reading) -> list[str]:
    """Each kind of difference once, with the episodes that it is in."""
    rows = export.rows
    lengths = np.diff(plan.starts)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(plan.starts[-1])
    frame = index - np.repeat(plan.starts[:-1], lengths)
    # A frame's task is its episode's, or any where steps are tasks
    exported_tasks = np.array(
        [export.facts["tasks"].get(str(k)) for k in rows["task_index"].tolist()], object
    )
    tasks = np.repeat(np.array([e.task or "" for e in plan.episodes], object), lengths)
    wrong = {
        "another length": rows["episode_index"] != episode,
        "frames out of order": (rows["frame_index"] != frame) | (rows["index"] != index),
        "other times": np.abs(rows["timestamp"] - frame / plan.fps) >= TIME_S,
        "another task": ~np.isin(exported_tasks, list(plan.tasks))
        if plan.options.flavour == "subtask"
        else exported_tasks != tasks,
    }
    episodes_by_problem = {
        problem: np.unique(episode[is_wrong]).astype(str).tolist()
        for problem, is_wrong in wrong.items()
        if is_wrong.any()
    }
    return [
        f"{problem} in episode {named(episodes)}"
        for problem, episodes in episodes_by_problem.items()
    ]


def _compare_features(plan: LerobotPlan, export: Reading, sources: _Sources) -> list[str]:
    """Which features of the source have other values, in which episodes."""
    wrong: dict[str, list[str]] = {}
    for name, (number, e) in product(plan.features, enumerate(plan.episodes)):
        if name not in export.rows:
            continue
        ours = export.rows_of(name, number)
        theirs = sources.feature(e, name)
        same_size = ours.size == theirs.size
        if not same_size or not np.array_equal(
            ours.reshape(theirs.shape), theirs, equal_nan=ours.dtype.kind == "f"
        ):
            wrong.setdefault(name, []).append(str(number))
    return [
        f"other values of {name} in episode {named(episodes)}" for name, episodes in wrong.items()
    ]


def _compare_segments(plan: LerobotPlan, out: Path) -> list[str]:
    """Which episodes have other steps than the corpus."""
    stored = dict[int, Any]()
    for path in sorted((out / "meta/episodes").rglob("*.parquet")):
        table = pq.read_table(path, columns=["episode_index", "proccorpus_segments"])
        if table.schema.field("proccorpus_segments").type != pa.list_(SEGMENT):
            return [f"steps of other types in {path.relative_to(out)}"]
        stored |= {row["episode_index"]: row["proccorpus_segments"] for row in table.to_pylist()}
    wrong = []
    for number, (_, label) in enumerate(each_label(plan.selected)):
        segments = label and [segment_row(segment) for segment in label.segments]
        # Numbers as the file holds them
        expected = pa.array([segments], pa.list_(SEGMENT)).to_pylist()[0]
        if stored.get(number) != expected:
            wrong.append(str(number))
    if wrong:
        return [f"other steps in episode {named(wrong)}"]
    return []


class _Comparison(NamedTuple):
    """How many pictures were compared, the largest mean difference, of 255, and what is wrong."""

    count: int
    most_off: float
    problems: list[str]


def _compare_pictures(
    plan: LerobotPlan, export: Reading, sources: _Sources, *, was_encoded: bool
) -> _Comparison:
    """All pictures that were read of the export with those of the source; `count`: of those that LeRobot shows of the
    source."""
    off = [0.0]
    wrong = list[str]()
    num_by_lerobot = 0
    exported: dict[int, dict[Moment, np.ndarray]] = {}
    for (number, frame, camera), picture in export.pictures.items():
        if camera in plan.cameras:
            exported.setdefault(number, {})[frame, camera] = picture
    for number, of_episode in exported.items():
        pictures, by_lerobot = sources.pictures(number)
        num_by_lerobot += len(by_lerobot & of_episode.keys())
        for (frame, camera), picture in of_episode.items():
            neighbours = [
                pictures[k, camera] for k in (frame - 1, frame + 1) if (k, camera) in pictures
            ]
            mean, problem = _difference(
                picture, pictures.get((frame, camera)), neighbours, was_encoded=was_encoded
            )
            off.append(mean)
            if problem:
                wrong.append(
                    f"{problem} at frame {frame} of episode {number} by {camera} ({mean:.1f} of 255 off)"
                )
    return _Comparison(num_by_lerobot, max(off), wrong)


def _compare_each(plan: LerobotPlan, out: Path, *, was_encoded: bool) -> _Comparison:
    """All pictures of the videos that are no copies, as our own reader shows them and the source's; of each episode and
    camera the first that is wrong."""
    is_copy = lru_cache(maxsize=None)(partial(filecmp.cmp, shallow=False))
    count = 0
    most_off = 0.0
    problems = list[str]()
    for camera, number, path, start_s in _videos(plan, out):
        e = plan.episodes[number]
        reader = plan.readers[e.dataset]
        clip = Clip.of(reader, plan.cameras_of(e)[camera], e)
        times_s = start_s + np.arange(e.num_frames) / plan.fps
        try:
            if clip.uri is not None and is_copy(reader.source.resolve(clip.uri), path):
                continue
            off = [
                _difference(*pictures, was_encoded=was_encoded)
                for pictures in _beside(clip, path, times_s)
            ]
        except (OSError, VideoError) as error:
            problems.append(f"the video of episode {number} by {camera}: {error}")
            continue
        count += len(off)
        most_off = max([most_off, *(mean for mean, _ in off)])
        problems += _first_problem(off, e.num_frames, f"episode {number} by {camera}")
    return _Comparison(count, most_off, problems)


def _first_problem(off: list[tuple[float, str]], num_frames: int, location: str) -> list[str]:
    """What is wrong with the pictures of an episode, of which `off` has one entry each."""
    if len(off) < num_frames:
        problems = [f"{len(off)} of {num_frames} frames of {location}"]
    else:
        problems = []
    wrong = next((k for k, (_, problem) in enumerate(off) if problem), None)
    if wrong is not None:
        mean, problem = off[wrong]
        problems.append(f"{problem} at frame {wrong} of {location} ({mean:.1f} of 255 off)")
    return problems


def _compare_times(plan: LerobotPlan, export: Reading, out: Path) -> list[str]:
    """Of which episodes and cameras LeRobot refuses pictures because of their times, and how many."""
    problems = []
    for camera, number, path, start_s in _videos(plan, out):
        rows_s = export.rows_of("timestamp", number)
        try:
            video = frame_times(path)
        except VideoError as error:
            problems.append(f"the video of episode {number} by {camera}: {error}")
            continue
        pictures_s = video.seconds[video.nearest(start_s + rows_s)]
        if num_refused := int(refused(start_s, rows_s, pictures_s).sum()):
            problems.append(
                f"LeRobot refuses {num_refused} of {len(rows_s)} pictures of episode {number} by "
                f"{camera}: in float32 they are not at the rows' times"
            )
    return problems


def _videos(plan: LerobotPlan, out: Path) -> Iterator[tuple[str, int, Path, float]]:
    """Camera, episode, file and start in the file (s) of all videos that the export has; what it lacks is said of the
    rows."""
    rows = _video_rows(out)
    for camera, number in product(plan.cameras, range(len(plan.episodes))):
        if number in rows:
            prefix = f"videos/{camera}/"
            row = {name.removeprefix(prefix): value for name, value in rows[number].items()}
            path = out / VIDEO_PATH.format(video_key=camera, **row)
            yield camera, number, path, row["from_timestamp"]


def _video_rows(out: Path) -> dict[int, dict[str, Any]]:
    """By episode, what meta/episodes says of its videos."""
    rows = dict[int, dict[str, Any]]()
    for path in sorted((out / "meta/episodes").rglob("*.parquet")):
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name.startswith("videos/")]
            for row in file.read(columns=["episode_index", *names]).to_pylist():
                rows[row.pop("episode_index")] = row
    return rows


def _beside(
    clip: Clip, path: Path, times_s: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Each picture of an export at the times of its rows, the source's, and those beside that; ends where one does, or
    where pictures do not follow one another."""
    reader = clip.reader
    options = DecodeOptions(limits=reader.source.config.limits)
    places = frame_times(path, options.limits).nearest(times_s)
    follow = np.diff(places) == 1
    count = len(times_s) if follow.all() else int(follow.argmin()) + 1
    frames = reader.episode(clip.episode).frames(clip.camera)
    source = (picture.rgb() for _, _, picture in islice(frames, len(times_s)))
    previous_picture: np.ndarray | None = None
    current_picture = next(source, None)
    for frame in decode(path, int(places[0]), count, options):
        if current_picture is None:
            return
        next_picture = next(source, None)
        yield (
            frame.rgb(),
            current_picture,
            [picture for picture in (previous_picture, next_picture) if picture is not None],
        )
        previous_picture = current_picture
        current_picture = next_picture


def _difference(
    picture: np.ndarray,
    source: np.ndarray | None,
    neighbours: list[np.ndarray],
    *,
    was_encoded: bool,
) -> tuple[float, str]:
    """How far a picture is off on average, of 255, and what is wrong with it, or nothing. `neighbours`: the source's
    pictures before and after."""
    if source is None or picture.shape != source.shape:
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
