"""Holds a LeRobot export against its source: LeRobot's own reader opens it, and all that it shows is compared with what
the build reads of the source.
"""

import filecmp
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, islice, product, repeat, tee
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.episode import Episode
from core.errors import UserError, install_hint
from core.values import grouped
from ingest.formats.lerobot_frames import refused
from ingest.formats.listing import named
from ingest.media.frames import DecodeOptions, VideoError
from ingest.media.video import decode, frame_times
from warehouse.exports.export import MANIFEST
from warehouse.exports.lerobot_plan import SEGMENT, VIDEO_PATH, LerobotPlan
from warehouse.exports.lerobot_reading import Reading, read
from warehouse.exports.lerobot_rows import matrix, numbers_of, segment_row
from warehouse.exports.options import LerobotOptions, Selection
from warehouse.exports.videos import ENCODED, Clip
from warehouse.lake import Lake

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


@dataclass(frozen=True)
class Verified:
    """What LeRobot's reader found; `problems` is empty where all of it is as in the source.

    `most_off`: the largest mean difference of a picture to the source's, of 255; None where none were compared.
    `each`: of how many pictures, all of the videos that are no copies of the source's, our own reader shows the same.
    """

    lerobot: str
    episodes: int
    frames: int
    cameras: int
    pictures: int
    most_off: float | None
    problems: tuple[str, ...]
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
    for number, e in enumerate(plan.selected.episodes):
        places += [(number, frame) for frame in _looked_at(lake, e)]
    with TemporaryDirectory(prefix="proccorpus-verify-") as scratch:
        export = read(out, places, Path(scratch))
    if isinstance(export, str):
        return Verified(version("lerobot"), 0, 0, 0, 0, None, (f"it cannot open it ({export})",))
    problems = [
        f"frame {frame} of episode {number}: {reason}"
        for (number, frame), reason in export.refused.items()
    ]
    described = _described(out)
    problems += _compare(plan, export) + _compare_segments(plan, described)
    problems += _compare_times(plan, export, out, described)
    most_off = None
    each = 0
    if not options.blur:
        each, most_off, wrong = _compare_pictures(plan, export, out, described)
        problems += wrong
    return Verified(
        lerobot=export.facts["version"],
        episodes=export.facts["episodes"],
        frames=export.facts["frames"],
        cameras=len(export.facts["cameras"]),
        pictures=len(export.pictures),
        most_off=most_off,
        problems=tuple(dict.fromkeys(problems)),
        each=each,
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


def _compare(plan: LerobotPlan, export: Reading) -> list[str]:
    """What of the whole differs, in words; and which columns have other values, in which episodes."""
    facts = export.facts
    if (facts["episodes"], facts["frames"]) != (len(plan.index), plan.starts[-1]):
        export_size = f"{facts['episodes']} episodes and {facts['frames']} frames"
        return [f"it has {export_size}, not {len(plan.index)} and {plan.starts[-1]}"]
    differs = {
        f"{facts['fps']:g} fps, not {plan.fps:g}": facts["fps"] != plan.fps,
        f"the cameras {named(facts['cameras'])}, not {named(plan.cameras)}": {*facts["cameras"]}
        != {*plan.cameras},
        "other tasks": facts["tasks"] != {str(k): text for text, k in plan.tasks.items()},
    }
    wrong: dict[str, list[str]] = {}
    for number, x in enumerate(plan.episodes()):
        for name, values in numbers_of(plan, x).items():
            if name in export.rows and not _are_equal(export.rows_of(name, number), values):
                wrong.setdefault(name, []).append(str(number))
    return [
        *filter(differs.get, differs),
        *(f"other values of {name} in episode {named(of_name)}" for name, of_name in wrong.items()),
    ]


def _are_equal(exported: np.ndarray, values: Any) -> bool:
    """`values`: of a column, as it is to be written."""
    right = matrix(values) if isinstance(values, pa.Array) else np.asarray(values)
    is_float = exported.dtype.kind == "f"
    return exported.size == right.size and np.array_equal(
        exported.reshape(right.shape), right, equal_nan=is_float
    )


def _described(out: Path) -> pa.Table:
    """What meta/episodes says of steps and videos, a row for each episode."""
    files = [pq.read_table(path) for path in sorted((out / "meta/episodes").rglob("*.parquet"))]
    names = [name for name in files[0].schema.names if name.startswith("videos/")]
    chosen = ["episode_index", "proccorpus_segments", *names]
    return pa.concat_tables([file.select(chosen) for file in files])


def _compare_segments(plan: LerobotPlan, described: pa.Table) -> list[str]:
    """Which episodes have other steps than the corpus."""
    if described.schema.field("proccorpus_segments").type != pa.list_(SEGMENT):
        return ["steps of other types in meta/episodes"]
    labels = [x.label for x in plan.episodes()]
    segments = [label and list(map(segment_row, label.segments)) for label in labels]
    # Numbers as the file holds them
    expected = pa.array(segments, pa.list_(SEGMENT)).to_pylist()
    stored = dict(zip(*described.select([0, 1]).to_pydict().values(), strict=True))
    wrong = [str(k) for k, of_episode in enumerate(expected) if stored.get(k) != of_episode]
    return [f"other steps in episode {named(wrong)}"] if wrong else []


def _compare_pictures(
    plan: LerobotPlan, export: Reading, out: Path, described: pa.Table
) -> tuple[int, float, list[str]]:
    """The pictures that LeRobot showed, and all of the videos that are no copies, with the source's.

    Returns how many our own reader showed, how far they are off at most, and of each episode and camera the first that
    is wrong.
    """
    is_copy = lru_cache(maxsize=None)(partial(filecmp.cmp, shallow=False))
    # How far pictures may be off, by how the export says that its videos were written
    was_encoded = ENCODED in json.loads((out / MANIFEST).read_text()).get("videos", {})
    by_video = grouped(
        ((number, camera), (frame, picture))
        for (number, frame, camera), picture in export.pictures.items()
    )
    count = 0
    most_off = 0.0
    problems = list[str]()
    for camera, number, path, start_s in _videos(plan, out, described):
        e = plan.selected.episodes[number]
        clip = Clip.of(plan.selected.readers[e.dataset], plan.cameras_of(e)[camera], e)
        picture_by_frame = dict(by_video.get((number, camera), ()))
        location = f"episode {number} by {camera}"
        compared = 0
        wrong = list[str]()
        try:
            copied = clip.uri is not None and is_copy(clip.reader.source.resolve(clip.uri), path)
            times_s = start_s + np.arange(e.num_frames) / plan.fps
            ours = repeat(None) if copied else _exported(clip, path, times_s)
            for (source, neighbours), picture in zip(_of_source(clip), ours, strict=False):
                for candidate in (picture, picture_by_frame.get(compared)):
                    if candidate is not None:
                        mean, problem = _difference(
                            candidate, source, neighbours, was_encoded=was_encoded
                        )
                        most_off = max(most_off, mean)
                        if problem:
                            wrong.append(
                                f"{problem} at frame {compared} of {location} ({mean:.1f} of 255 off)"
                            )
                compared += 1
        except (OSError, VideoError) as error:
            problems.append(f"the video of {location}: {error}")
            continue
        count += 0 if copied else compared
        problems += wrong[:1]
        if compared < e.num_frames:
            problems.append(f"{compared} of {e.num_frames} frames of {location}")
    return count, most_off, problems


def _of_source(clip: Clip) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Each picture of an episode as the build reads it, and those beside it."""
    frames = clip.reader.episode(clip.episode).frames(clip.camera)
    pictures = (picture.rgb() for _, _, picture in islice(frames, clip.episode.num_frames))
    copies = tee(pictures, 3)
    earlier = chain([None], copies[0])
    later = chain(islice(copies[2], 1, None), [None])
    for previous, picture, successor in zip(earlier, copies[1], later, strict=False):
        yield picture, [p for p in (previous, successor) if p is not None]


def _exported(clip: Clip, path: Path, times_s: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures of an exported video at the times of its rows; ends where they do not follow one another."""
    options = DecodeOptions(limits=clip.reader.source.config.limits)
    places = frame_times(path, options.limits).nearest(times_s)
    follow = np.diff(places) == 1
    count = len(times_s) if follow.all() else int(follow.argmin()) + 1
    return (frame.rgb() for frame in decode(path, int(places[0]), count, options))


def _compare_times(plan: LerobotPlan, export: Reading, out: Path, described: pa.Table) -> list[str]:
    """Of which episodes and cameras LeRobot refuses pictures because of their times, and how many."""
    problems = []
    for camera, number, path, start_s in _videos(plan, out, described):
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


def _videos(
    plan: LerobotPlan, out: Path, described: pa.Table
) -> Iterator[tuple[str, int, Path, float]]:
    """Camera, episode, file and start in the file (s) of all videos that the export has; what it lacks is said of the
    rows."""
    rows = {
        row["episode_index"]: row
        for row in described.drop_columns("proccorpus_segments").to_pylist()
    }
    for camera, number in product(plan.cameras, range(len(plan.selected.episodes))):
        if number in rows:
            prefix = f"videos/{camera}/"
            row = {name.removeprefix(prefix): value for name, value in rows[number].items()}
            path = out / VIDEO_PATH.format(video_key=camera, **row)
            yield camera, number, path, row["from_timestamp"]


def _difference(
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
