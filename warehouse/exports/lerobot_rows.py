"""Rows of a LeRobot export, and what meta/episodes says of each episode: places, labels, quality, statistics.

Statistics of features are as LeRobot keeps them: per episode, and over all, combined in bounded memory.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import modf, prod
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.episode import Episode
from core.domain.label import Label, Segment
from core.errors import UserError
from core.values import grouped, spread
from ingest.formats.tables import read_columns
from ingest.media.video import decode, frame_times
from ingest.reasons import DataError
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
    sum_shares,
    why_no_stages,
)
from warehouse.exports.selection import SourceReader, chunk_labels, outcome_assumed
from warehouse.lake.stored import coarse_keyframes, load_keyframe

STAT_PICTURES = 4  # of each episode and camera
INTEGER = pa.int64()
NUMBER = pa.float64()
TEXT = pa.string()
QUALITY = {"length_z": NUMBER, "order_rarity": NUMBER, "jump": NUMBER, "contradicts": pa.bool_()}
OF_CHUNK = "WHERE dataset = ? AND chunk = ?"
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
    labels = chunk_labels(plan.selected, dataset, chunk, episodes)
    quality = {
        row.pop("episode_index"): row
        for row in plan.lake.dicts(
            f"SELECT episode_index, {', '.join(QUALITY)} FROM label_quality "
            f"SEMI JOIN active_runs USING (dataset, episode_index, label_run) {OF_CHUNK}",
            [dataset, chunk],
        )
    }
    cameras = plan.cameras_of(episodes[0])
    exported = {cameras[camera]: camera for camera in plan.cameras}
    questions_by_episode = questions(plan.selected, dataset, chunk, list(exported))
    pictures = coarse_keyframes(plan.lake, dataset, [e.episode_index for e in episodes], chunk)
    rows: list[dict[str, tuple[pa.DataType, Any]]] = []
    all_stats: list[dict[str, Stats]] = []
    shares: list[dict[str, list[float]]] = []
    without_action = 0
    with pq.ParquetWriter(
        plan.folder.path(DATA_PATH.format(**place(number))), plan.schema, compression="snappy"
    ) as writer:
        for e in episodes:
            label = labels.get(e.episode_index)
            of_episode = [
                (frame, exported[camera])
                for frame, camera in questions_by_episode.get(e.episode_index, [])
            ]
            table = _episode_table(plan, e, label, of_episode)
            writer.write_table(table, row_group_size=len(table))
            stats = _statistics(plan, e, table, pictures)
            row = _episode_row(plan, e, label, number, table, quality.get(e.episode_index, {}))
            rows.append(row | _stats_columns(plan, stats))
            all_stats.append(stats)
            shares.append(sarm_shares(label, e.num_frames))
            without_action += _without_action(table)
    schema = pa.schema([(name, type_) for name, (type_, _) in rows[0].items()])
    meta = plan.folder.path(EPISODES_PATH.format(**place(number)))
    values = pa.Table.from_pylist(list(map(_values, rows)), schema=schema)
    pq.write_table(values, meta, compression="snappy")
    return {
        "stats": combined_by_feature(all_stats),
        "shares": sum_shares(shares),
        "no_stages": {
            index: reason
            for index, label in sorted(labels.items())
            if (reason := why_no_stages(label))
        },
        "labelled": len(labels),
        "without_action": without_action,
    }


def _values(row: Mapping[str, tuple[pa.DataType, Any]]) -> dict[str, Any]:
    return {name: value for name, (_, value) in row.items()}


def _without_action(table: pa.Table) -> int:
    """Rows whose action is no number, such as the last one where a source has an observation more than actions."""
    if ACTION not in table.schema.names:
        return 0
    values = table[ACTION].combine_chunks()
    is_list = pa.types.is_fixed_size_list(values.type)
    number_type = values.type.value_type if is_list else values.type
    if not pa.types.is_floating(number_type):
        return 0
    return int(np.isnan(matrix(values)).any(axis=1).sum())


def matrix(values: pa.Array) -> np.ndarray:
    """[rows, d] of numbers, or of lists of d numbers."""
    flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)


def _episode_table(
    plan: LerobotPlan,
    e: Episode,
    label: Label | None,
    episode_questions: Sequence[Question],
) -> pa.Table:
    """The episode's rows: features of the source, LeRobot's own columns, and our labels."""
    n = e.num_frames
    number = plan.index[e.key]
    frames = np.arange(n)
    timestamps = (frames / plan.fps).astype(np.float32)
    steps = step_names(label, n)
    # The task of each frame: the episode's instruction, or the step under way where the export says so
    instruction = plan.tasks[e.task or ""]
    by_step = plan.options.flavour == "subtask"
    language = {}
    if not plan.options.plain:
        language = dict(
            zip(LANGUAGE, language_columns(e, label, timestamps, episode_questions), strict=True)
        )
    own_columns = {
        "timestamp": timestamps,
        "frame_index": frames,
        "episode_index": np.full(n, number),
        "index": frames + plan.starts[number],
        "task_index": [plan.tasks[step] if by_step and step else instruction for step in steps],
        "progress": label.progress if label else np.full(n, np.nan, np.float32),
        "subtask": steps,
        **plan.added_columns(e),
        **language,
    }
    return pa.table(
        columns(plan.readers[e.dataset], e, plan.features) | own_columns, schema=plan.schema
    )


def columns(
    reader: SourceReader, e: Episode, requested_columns: Mapping[str, Feature]
) -> dict[str, pa.Array]:
    """An episode's rows of some features. Raises UserError where the source has changed since it was built."""
    if reader.info is not None:
        return _stored(reader, e, requested_columns)
    if not requested_columns:
        return {}
    rows: dict[str, pa.Array] = {}
    for name, values, _ in rows_of(reader.episode(e)):
        if name not in requested_columns:
            continue
        shape = requested_columns[name]["shape"]
        if values is None or values.shape != (e.num_frames, *shape):
            raise UserError(
                f"{name} of {e.dataset} episode {e.episode_index} has another shape than the first's "
                f"({shape[0]} numbers in each of {e.num_frames} rows): choose episodes by --episodes or --where"
            )
        rows[name] = _fixed(pa.array(values.astype(np.float32).ravel()), shape)
    return rows


def _stored(
    reader: SourceReader, e: Episode, requested_columns: Mapping[str, Feature]
) -> dict[str, pa.Array]:
    """The same of a LeRobot source."""
    record = reader.record(e)
    data = reader.record(e).data_uri or ""
    reader.episode(e)  # refuses another recording's rows
    try:
        table = read_columns(
            reader.source.resolve(data), record.row_start, e.num_frames, tuple(requested_columns)
        )
        return {
            name: _cast(table, name, feature, e.num_frames)
            for name, feature in requested_columns.items()
        }
    except (DataError, pa.ArrowException) as error:
        raise UserError(f"rows of {e.dataset} episode {e.episode_index}: {error}") from error


def _cast(table: pa.Table, name: str, feature: Feature, num_frames: int) -> pa.Array:
    if name not in table.schema.names:
        raise DataError(f"there is no column {name}")
    flat = table[name].combine_chunks()
    while hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    if len(flat) != num_frames * prod(feature["shape"]):
        raise DataError(
            f"column {name} has {len(flat)} values in {num_frames} rows, not {feature['shape']} each"
        )
    return _fixed(flat.cast(TYPES[feature["dtype"]]), feature["shape"])


def _fixed(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    if prod(shape) == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, prod(shape))


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


def _episode_row(
    plan: LerobotPlan,
    e: Episode,
    label: Label | None,
    file: int,
    table: pa.Table,
    quality: Mapping[str, Any],
) -> dict[str, tuple[pa.DataType, Any]]:
    """The type and the value of each column of meta/episodes, without statistics: LeRobot's, then ours. `file`: the
    number of the file that holds its rows, and of that of its metadata."""
    number = plan.index[e.key]
    task_texts = list(plan.tasks)
    file_place = place(file)
    row: dict[str, tuple[pa.DataType, Any]] = {
        "episode_index": (INTEGER, number),
        "tasks": (
            pa.list_(TEXT),
            [task_texts[index] for index in table["task_index"].unique().to_pylist()],
        ),
        "length": (INTEGER, e.num_frames),
        "data/chunk_index": (INTEGER, file_place["chunk_index"]),
        "data/file_index": (INTEGER, file_place["file_index"]),
        "dataset_from_index": (INTEGER, plan.starts[number]),
        "dataset_to_index": (INTEGER, plan.starts[number + 1]),
    }
    # Where the episode lies in each camera's video file, which may hold several: seconds from the file's start
    for camera in plan.cameras:
        video, start_s = plan.places[(camera, *e.key)]
        row |= {f"videos/{camera}/{name}": (INTEGER, index) for name, index in place(video).items()}
        row[f"videos/{camera}/from_timestamp"] = (NUMBER, start_s)
        row[f"videos/{camera}/to_timestamp"] = (NUMBER, start_s + e.num_frames / plan.fps)
    row |= {f"meta/episodes/{name}": (INTEGER, index) for name, index in file_place.items()}
    # Where the episode came from: the export numbers episodes anew
    of_label: dict[str, Any] = {}
    if label:
        of_label = vars(label) | {
            "segments": list(map(segment_row, label.segments)),
            "plan": list(label.plan),
            "end": float(label.progress[-1]),
        }
    as_far_as = of_label.get("as_far_as")
    row |= {
        "proccorpus_dataset": (TEXT, e.dataset),
        "proccorpus_episode_index": (INTEGER, e.episode_index),
        "proccorpus_source_id": (TEXT, e.source_id),
        "proccorpus_split": (TEXT, e.split),
        "proccorpus_label_run": (TEXT, e.label_run),
        "proccorpus_segments": (pa.list_(SEGMENT), of_label.get("segments")),
        "proccorpus_num_planned": (INTEGER, of_label.get("num_planned")),
        "proccorpus_plan": (pa.list_(TEXT), of_label.get("plan")),
        "proccorpus_as_far_as_episode": (INTEGER, as_far_as and as_far_as.episode_index),
        "proccorpus_as_far_as_frame": (INTEGER, as_far_as and as_far_as.frame_index),
        "success": (pa.bool_(), e.success),
        "outcome_assumed": (pa.bool_(), outcome_assumed(e)),
        "label_confidence": (pa.float32(), of_label.get("confidence")),
        "needs_review": (pa.bool_(), of_label.get("needs_review")),
        "end_progress": (NUMBER, of_label.get("end")),
        **{name: (type_, quality.get(name)) for name, type_ in QUALITY.items()},
    }
    return row | sarm_columns(label, e.num_frames, plan.fps)


def segment_row(segment: Segment) -> dict[str, Any]:
    """A segment as the column proccorpus_segments has it."""
    row = {field.name: getattr(segment, field.name) for field in SEGMENT}
    return row | {"step": NO_STEP if segment.step is None else segment.step}


def _stats_columns(
    plan: LerobotPlan, stats: Mapping[str, Stats]
) -> dict[str, tuple[pa.DataType, Any]]:
    """Statistics of a feature that an episode has no numbers for are null."""
    row: dict[str, tuple[pa.DataType, Any]] = {}
    for feature in (*plan.numeric, *plan.cameras):
        is_picture = feature in plan.cameras
        numbers = pa.list_(pa.list_(pa.list_(NUMBER))) if is_picture else pa.list_(NUMBER)
        values = shaped(stats[feature], picture=is_picture) if feature in stats else {}
        row |= {f"stats/{feature}/{name}": (numbers, values.get(name)) for name in NAMES}
        row[f"stats/{feature}/count"] = (pa.list_(INTEGER), values.get("count"))
    return row


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
    """Statistics over parts, each by its count: exact but for the quantiles, which `_joined_quantiles` estimates."""
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
    """As stats.json has it: those of pictures are [3, 1, 1]."""
    if not picture:
        return dict(stats)
    colours = {name: np.reshape(values, (-1, 1, 1)).tolist() for name, values in stats.items()}
    return colours | {"count": stats["count"]}
