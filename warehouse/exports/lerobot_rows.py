"""Rows of a LeRobot export, and what meta/episodes says of each episode: places, labels, quality, statistics.

Statistics of features are as LeRobot keeps them: per episode, and over all, combined in bounded memory.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, product
from math import modf, prod
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.label import Episode, Label, Segment
from core.errors import UserError
from core.pictures import load_keyframe
from core.values import grouped, spread
from ingest.formats.tables import read_columns
from ingest.media.video import decode, frame_times
from ingest.reasons import DataError
from warehouse.exports.export import Columns, row_of, schema_of
from warehouse.exports.lerobot_plan import (
    ACTION,
    DATA_PATH,
    EPISODES_PATH,
    LANGUAGE,
    NO_STEP,
    SEGMENT,
    TYPES,
    VIDEO_PATH,
    Feature,
    LerobotPlan,
    Question,
    language_columns,
    place,
    questions,
    rows_of,
    sarm_columns,
    sarm_shares,
    step_names,
    why_no_stages,
)
from warehouse.exports.selection import ExportedEpisode, SourceReader, outcome_assumed
from warehouse.lake.stored import coarse_keyframes

STAT_PICTURES = 4  # of each episode and camera
INTEGER = pa.int64()
NUMBER = pa.float64()
TEXT = pa.string()
QUALITY = {"length_z": NUMBER, "order_rarity": NUMBER, "jump": NUMBER, "contradicts": pa.bool_()}
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", *QUANTILES)
# Values that a part stands for where parts are joined
NUM_RANKS = 200

Stats = dict[str, list]  # NAMES, with one number per dimension, and count [1]


def write_rows(
    plan: LerobotPlan, number: int, dataset: str, chunk: int, episodes: Sequence[Episode]
) -> dict[str, Any]:
    """The data file of a chunk, one row group per episode, and the file with its episodes' metadata; returns what the
    metadata of the whole needs of it."""
    signs = ", ".join(QUALITY)
    quality_rows = plan.lake.dicts(
        f"SELECT q.episode_index, {signs} FROM label_quality q JOIN active_runs a USING (dataset, episode_index) "
        "WHERE q.dataset = ? AND q.chunk = ? AND q.label_run = coalesce(?, a.label_run)",
        [dataset, chunk, plan.selected.selection.label_run],
    )
    quality = {row.pop("episode_index"): row for row in quality_rows}
    cameras = plan.cameras_of(episodes[0])
    exported = {cameras[camera]: camera for camera in plan.cameras}
    questions_by_episode = questions(plan.selected, dataset, chunk, list(exported))
    pictures = coarse_keyframes(plan.lake, dataset, [e.episode_index for e in episodes], chunk)
    entries: list[EpisodeEntry] = []
    without_action = 0
    with pq.ParquetWriter(
        plan.folder.path(DATA_PATH.format(**place(number))), plan.schema, compression="snappy"
    ) as writer:
        for x in plan.selected.exported(episodes):
            e = x.episode
            of_episode = [
                (frame, exported[camera])
                for frame, camera in questions_by_episode.get(e.episode_index, [])
            ]
            table = _episode_table(plan, x, of_episode)
            writer.write_table(table, row_group_size=len(table))
            without_action += _without_action(table)
            tasks = table["task_index"].unique().to_pylist()
            of_label = quality.get(e.episode_index, {})
            stats = _statistics(plan, e, table, pictures)
            entries.append(EpisodeEntry(e, x.label, tasks, of_label, stats))
    columns = episode_columns(plan, number)
    rows = [row_of(columns, entry) for entry in entries]
    meta = plan.folder.path(EPISODES_PATH.format(**place(number)))
    described = pa.Table.from_pylist(rows, schema=schema_of(columns))
    pq.write_table(described, meta, compression="snappy")
    return {
        "stats": combined_by_feature([entry.stats for entry in entries]),
        "shares": [
            *chain.from_iterable(sarm_shares(entry.label, entry.e.num_frames) for entry in entries)
        ],
        "no_stages": {
            entry.e.episode_index: reason
            for entry in entries
            if entry.label and (reason := why_no_stages(entry.label))
        },
        "labelled": sum(entry.label is not None for entry in entries),
        "without_action": without_action,
    }


class EpisodeEntry(NamedTuple):
    """What a row of meta/episodes is of. `tasks`: the indices in its rows."""

    e: Episode
    label: Label | None
    tasks: list[int]
    quality: Mapping[str, Any]
    stats: Mapping[str, Stats]


# Where the episode came from, since the export numbers episodes anew, and what its label says
OURS: Columns = {
    "proccorpus_dataset": (TEXT, lambda r: r.e.dataset),
    "proccorpus_episode_index": (INTEGER, lambda r: r.e.episode_index),
    "proccorpus_source_id": (TEXT, lambda r: r.e.source_id),
    "proccorpus_split": (TEXT, lambda r: r.e.split),
    "proccorpus_label_run": (TEXT, lambda r: r.e.label_run),
    "proccorpus_segments": (
        pa.list_(SEGMENT),
        lambda r: r.label and list(map(segment_row, r.label.segments)),
    ),
    "proccorpus_num_planned": (INTEGER, lambda r: r.label and r.label.num_planned),
    "proccorpus_plan": (pa.list_(TEXT), lambda r: r.label and list(r.label.plan)),
    "proccorpus_as_far_as_episode": (
        INTEGER,
        lambda r: r.label and r.label.as_far_as and r.label.as_far_as.episode_index,
    ),
    "proccorpus_as_far_as_frame": (
        INTEGER,
        lambda r: r.label and r.label.as_far_as and r.label.as_far_as.frame_index,
    ),
    "success": (pa.bool_(), lambda r: r.e.success),
    "outcome_assumed": (pa.bool_(), lambda r: outcome_assumed(r.e)),
    "label_confidence": (pa.float32(), lambda r: r.label and r.label.confidence),
    "needs_review": (pa.bool_(), lambda r: r.label and r.label.needs_review),
    "end_progress": (NUMBER, lambda r: r.label and float(r.label.progress[-1])),
    **{name: (type_, lambda r, name=name: r.quality.get(name)) for name, type_ in QUALITY.items()},
}


def episode_columns(plan: LerobotPlan, file: int) -> Columns:
    """The columns of meta/episodes: LeRobot's, ours, and statistics, which are null where an episode has none. `file`:
    the number of the files of its rows, and of its metadata."""
    texts = list(plan.tasks)
    columns: Columns = {
        "episode_index": (INTEGER, lambda r: plan.index[r.e.key]),
        "tasks": (pa.list_(TEXT), lambda r: [texts[index] for index in r.tasks]),
        "length": (INTEGER, lambda r: r.e.num_frames),
        **_places("data", lambda r: file),
        "dataset_from_index": (INTEGER, lambda r: plan.starts[plan.index[r.e.key]]),
        "dataset_to_index": (INTEGER, lambda r: plan.starts[plan.index[r.e.key] + 1]),
    }
    # Where the episode lies in each camera's video file, which may hold several
    for camera in plan.cameras:

        def clip(r: EpisodeEntry, camera: str = camera) -> tuple[int, float]:
            return plan.places[(camera, *r.e.key)]

        columns |= _places(f"videos/{camera}", lambda r, clip=clip: clip(r)[0]) | {
            f"videos/{camera}/from_timestamp": (NUMBER, lambda r, clip=clip: clip(r)[1]),
            f"videos/{camera}/to_timestamp": (
                NUMBER,
                lambda r, clip=clip: clip(r)[1] + r.e.num_frames / plan.fps,
            ),
        }
    columns |= _places("meta/episodes", lambda r: file) | OURS | sarm_columns(plan.fps)
    for feature, name in product((*plan.numeric, *plan.cameras), (*NAMES, "count")):
        is_picture = feature in plan.cameras
        type_ = pa.list_(pa.list_(pa.list_(NUMBER))) if is_picture else pa.list_(NUMBER)
        columns[f"stats/{feature}/{name}"] = (
            pa.list_(INTEGER) if name == "count" else type_,
            lambda r, feature=feature, name=name, is_picture=is_picture: shaped(
                r.stats.get(feature, {}), picture=is_picture
            ).get(name),
        )
    return columns


def _places(prefix: str, file: Callable[[EpisodeEntry], int]) -> Columns:
    """In which of LeRobot's files something lies."""
    return {
        f"{prefix}/chunk_index": (INTEGER, lambda r: place(file(r))["chunk_index"]),
        f"{prefix}/file_index": (INTEGER, lambda r: place(file(r))["file_index"]),
    }


def _without_action(table: pa.Table) -> int:
    """Rows whose action is no number, such as the last one where a source has an observation more
    than actions."""
    if ACTION not in table.schema.names:
        return 0
    values = matrix(table[ACTION].combine_chunks())
    if values.dtype.kind != "f":
        return 0
    return int(np.isnan(values).any(axis=1).sum())


def matrix(values: pa.Array) -> np.ndarray:
    """[rows, d] of numbers, or of lists of d numbers."""
    flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)


def numbers_of(plan: LerobotPlan, x: ExportedEpisode) -> dict[str, Any]:
    """The episode's columns of numbers: features of the source, LeRobot's own columns, and progress."""
    e = x.episode
    frames = np.arange(e.num_frames)
    number = plan.index[e.key]
    # The task of each frame: the episode's instruction, or the step under way where the export says so
    is_by_step = plan.options.flavour == "subtask"
    steps = step_names(x.label, e.num_frames)
    return columns(x.reader, e, plan.features) | {
        "timestamp": (frames / plan.fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(e.num_frames, number),
        "index": frames + plan.starts[number],
        "task_index": [plan.tasks[(is_by_step and step) or e.task or ""] for step in steps],
        "progress": x.label.progress if x.label else np.full(e.num_frames, np.nan, np.float32),
    }


def _episode_table(
    plan: LerobotPlan, x: ExportedEpisode, episode_questions: Sequence[Question]
) -> pa.Table:
    """The episode's rows: numbers, and labels in words."""
    numbers = numbers_of(plan, x)
    words: dict[str, Any] = {"subtask": step_names(x.label, x.episode.num_frames)}
    if not plan.options.plain:
        times = numbers["timestamp"]
        language = language_columns(x.episode, x.label, times, episode_questions)
        words |= dict(zip(LANGUAGE, language, strict=True))
    return pa.table(numbers | words | plan.added_columns(x.episode), schema=plan.schema)


def columns(
    reader: SourceReader, e: Episode, requested_columns: Mapping[str, Feature]
) -> dict[str, pa.Array]:
    """An episode's rows of some features. Raises UserError where the source has changed since it was built, or the
    features are not those of the first episode."""
    if not requested_columns:
        return {}
    try:
        stored = _stored(reader, e, tuple(requested_columns))
        return {
            name: _shaped_as(name, feature, stored.get(name, pa.nulls(0)), e.num_frames)
            for name, feature in requested_columns.items()
        }
    except (DataError, pa.ArrowException) as error:
        raise UserError(f"rows of {e.dataset} episode {e.episode_index}: {error}") from error


def _stored(reader: SourceReader, e: Episode, names: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that an episode has, as its source holds them."""
    episode = reader.episode(e)  # refuses another recording's rows
    if reader.info is None:
        states = ((name, values) for name, values, _ in rows_of(episode) if values is not None)
        return {name: pa.array(values.ravel()) for name, values in states}
    record = reader.record(e)
    data = reader.source.resolve(record.data_uri or "")
    table = read_columns(data, record.row_start, e.num_frames, names)
    return {name: table[name].combine_chunks() for name in table.schema.names}


def _shaped_as(name: str, feature: Feature, values: pa.Array, num_frames: int) -> pa.Array:
    """A column of the feature's type and shape. Raises DataError."""
    while hasattr(values.type, "value_type"):
        values = values.flatten()
    width = prod(feature["shape"])
    if len(values) != num_frames * width:
        raise DataError(
            f"{name} has {len(values)} values in {num_frames} rows, and not {feature['shape']} in each as in the "
            "first episode: choose episodes by --episodes or --where"
        )
    flat = values.cast(TYPES[feature["dtype"]])
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _statistics(
    plan: LerobotPlan,
    e: Episode,
    table: pa.Table,
    pictures: Mapping[tuple[int, str], Mapping[int, str]],
) -> dict[str, Stats]:
    """By feature, of those with numbers; of cameras by some keyframes, else by the first picture of the export."""
    stats = {name: statistics(matrix(table[name].combine_chunks())) for name in plan.numeric}
    # Stored keyframes are spread over the episode; the first picture stands in only where none is stored
    space = plan.lake.workspace
    for camera in plan.cameras:
        in_source = plan.cameras_of(e)[camera]
        hashes = spread([*pictures.get((e.episode_index, in_source), {}).values()], STAT_PICTURES)
        keyframes = [
            load_keyframe(space, sha256) for sha256 in hashes if space.keyframe(sha256).exists()
        ]
        stats[camera] = picture_statistics(keyframes or [_first_picture(plan, camera, e)])
    return {name: of_feature for name, of_feature in stats.items() if of_feature is not None}


def _first_picture(plan: LerobotPlan, camera: str, e: Episode) -> np.ndarray:
    file, start_s = plan.places[(camera, *e.key)]
    path = plan.folder.root / VIDEO_PATH.format(video_key=camera, **place(file))
    first = frame_times(path).nearest(np.array([start_s]))[0]
    return next(decode(path, int(first), 1)).rgb()


def segment_row(segment: Segment) -> dict[str, Any]:
    """A segment as the column proccorpus_segments has it."""
    row = {field.name: getattr(segment, field.name) for field in SEGMENT}
    return row | {"step": NO_STEP if segment.step is None else segment.step}


def statistics(values: np.ndarray) -> Stats | None:
    """Statistics of values [n, d] (or [n]), without rows that are not numbers; None if no rows are left."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return None
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    stats = {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
    }
    stats |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in stats.items()} | {"count": [len(rows)]}


def picture_statistics(pictures: Sequence[np.ndarray]) -> Stats:
    """Of uint8 [h, w, 3] pictures: per colour over all pixels, on a scale of 0..1; `count` is of pictures."""
    # Of 256 levels a histogram says all, at a tenth of the time that sorting pixels takes
    counts = np.zeros((3, 256))
    for picture in pictures:
        counts += [
            cv2.calcHist([picture], [colour], None, [256], [0, 256])[:, 0] for colour in range(3)
        ]
    levels = np.arange(256) / 255
    below = counts.cumsum(axis=1)
    num_pixels = below[0, -1]

    def ranked(rank: float) -> np.ndarray:
        """The pixel of a rank, of each colour [3]."""
        return np.array([levels[np.searchsorted(of_colour, rank, "right")] for of_colour in below])

    mean = counts @ levels / num_pixels
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / num_pixels
    stats = {
        "min": ranked(0),
        "max": ranked(num_pixels - 1),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    for name, share in QUANTILES.items():
        fraction, rank = modf((num_pixels - 1) * share)
        stats[name] = (
            ranked(rank) * (1 - fraction) + ranked(min(rank + 1, num_pixels - 1)) * fraction
        )
    return {name: value.tolist() for name, value in stats.items()} | {"count": [len(pictures)]}


def combined(parts: Sequence[Stats]) -> Stats:
    """Statistics over parts, each by its count: exact but for the quantiles, which
    `_joined_quantiles` estimates."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    share = (counts / counts.sum())[:, None]

    def values(name: str) -> np.ndarray:
        """A statistic of all parts, [parts, d]."""
        return np.array([part[name] for part in parts], np.float64)

    means = values("mean")
    mean = (means * share).sum(axis=0)
    # the variance over all is that inside the parts, and that of their means
    variance = ((values("std") ** 2 + (means - mean) ** 2) * share).sum(axis=0)
    stats = {
        "min": values("min").min(axis=0),
        "max": values("max").max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    stats |= _joined_quantiles({name: values(name) for name in ("min", *QUANTILES, "max")}, counts)
    return {name: value.tolist() for name, value in stats.items()} | {"count": [int(counts.sum())]}


def _joined_quantiles(
    values: Mapping[str, np.ndarray], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Quantiles [d] over parts with statistics [parts, d]: each part stands for evenly spaced ranks of its values.

    LeRobot takes the mean of the parts' quantiles, which lies where no value is if the parts differ in place.
    """
    if len(counts) == 1:
        return {name: values[name][0] for name in QUANTILES}
    shares = [0.0, *QUANTILES.values(), 1.0]
    values_at_shares = np.stack([values[name] for name in ("min", *QUANTILES, "max")], axis=-1)
    ranks = (np.arange(NUM_RANKS) + 0.5) / NUM_RANKS
    weights = np.repeat(counts / counts.sum() / NUM_RANKS, NUM_RANKS)
    columns = []
    for part_values in values_at_shares.transpose(1, 0, 2):
        points = np.concatenate([np.interp(ranks, shares, part) for part in part_values])
        order = points.argsort(kind="stable")
        share_below = weights[order].cumsum() - weights[order] / 2
        columns.append(np.interp(list(QUANTILES.values()), share_below, points[order]))
    return dict(zip(QUANTILES, np.stack(columns, axis=1), strict=True))


def combined_by_feature(parts: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """The same for several features; a part need not have all."""
    by_feature = grouped(chain.from_iterable(part.items() for part in parts))
    return {name: combined(feature_stats) for name, feature_stats in by_feature.items()}


def shaped(stats: Stats, *, picture: bool) -> dict[str, Any]:
    """As stats.json has it: those of pictures are [3, 1, 1]; empty where there are none."""
    if not picture or not stats:
        return dict(stats)
    colours = {name: np.reshape(values, (-1, 1, 1)).tolist() for name, values in stats.items()}
    return colours | {"count": stats["count"]}
