"""Rows of a LeRobot export, and what meta/episodes says of each episode: places, labels, quality, statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.media.video import decode
from warehouse.exports.common import ExportEpisode, ExportFolder, Selected
from warehouse.exports.labels import ActiveLabel, chunk_labels, episode_quality
from warehouse.exports.language import Question, language_columns, questions
from warehouse.exports.lerobot_features import columns
from warehouse.exports.lerobot_plan import DATA_PATH, EPISODES_PATH, VIDEO_PATH, FileNumber, LerobotPlan
from warehouse.exports.statistics import NAMES, Stats, combined_by_feature, picture_statistics, shaped, statistics
from warehouse.exports.subtasks import (
    SEGMENT,
    STAGE_COLUMNS,
    add_shares,
    sarm_columns,
    sarm_shares,
    sarm_stages,
    segment_rows,
    step_names,
)

STAT_PICTURES = 4  # of each episode and camera
QUALITY = {
    "label_confidence": pa.float32(),
    "needs_review": pa.bool_(),
    "end_progress": pa.float64(),
    "length_z": pa.float64(),
    "order_rarity": pa.float64(),
    "jump": pa.float64(),
    "contradicts": pa.bool_(),
}
SARM = {
    f"{head}_subtask_{name}": pa.list_(type_) for head in ("sparse", "dense") for name, type_ in STAGE_COLUMNS.items()
}


@dataclass(frozen=True)
class EpisodeMetadata:
    """What meta/episodes says of an episode: its row, and statistics by feature."""

    row: dict[str, Any]
    stats: dict[str, Stats]


def rows_part(
    plan: LerobotPlan, folder: ExportFolder, number: int, dataset: str, chunk: int, episodes: Sequence[ExportEpisode]
) -> None:
    """The data file of a chunk, one row group per episode, and the file with its episodes' metadata."""
    part = f"rows {number}"
    # A resumed export keeps what the journal says is finished
    if folder.done(part) is not None:
        return
    file = FileNumber.of(number)
    data, meta = file.path(DATA_PATH), file.path(EPISODES_PATH)
    labels = chunk_labels(plan.selected, dataset, chunk, episodes)
    quality = _quality(plan.selected, dataset, chunk)
    asked = questions(plan.selected, dataset, chunk, plan.cameras)
    pictures = _keyframes(plan.selected, dataset, chunk, plan.cameras)
    written: list[EpisodeMetadata] = []
    shares: dict[str, list[float]] = {}
    with pq.ParquetWriter(folder.path(data), plan.schema, compression="snappy") as writer:
        for e in episodes:
            label = labels.get(e.episode_index)
            table = _episode_table(plan, e, label, asked.get(e.episode_index, []))
            writer.write_table(table, row_group_size=len(table))
            stats = _statistics(plan, folder, e, table, pictures.get(e.episode_index, {}))
            row = _episode_row(plan, e, label, file, table, quality.get(e.episode_index, {}))
            written.append(EpisodeMetadata(row, stats))
            add_shares(shares, sarm_shares(label, e.num_frames))
    _write_episodes(plan, folder.path(meta), written)
    # The metadata part, perhaps of a later process, sums these up without reading the rows again
    facts = {
        "stats": combined_by_feature([episode.stats for episode in written]),
        "shares": shares,
        "not_for_sarm": sum(sarm_stages(label) is None for label in labels.values()),
        "labelled": len(labels),
    }
    folder.finish_part(part, [data, meta], facts)


def _episode_table(
    plan: LerobotPlan, e: ExportEpisode, label: ActiveLabel | None, asked: Sequence[Question]
) -> pa.Table:
    """The episode's rows: features of the source, LeRobot's own columns, and our labels."""
    n, number = e.num_frames, plan.index[e.key]
    frames = np.arange(n)
    timestamps = (frames / plan.fps).astype(np.float32)
    steps = step_names(label, n)
    persistent, events = language_columns(e, label, timestamps, asked)
    own = {
        "timestamp": timestamps,
        "frame_index": frames,
        "episode_index": np.full(n, number),
        "index": frames + plan.starts[number],
        "task_index": _task_indices(plan, e, steps),
        "progress": label.progress if label else np.full(n, np.nan, np.float32),
        "subtask": steps,
        "language_persistent": persistent,
        "language_events": events,
    }
    return pa.table(columns(plan.readers[e.dataset], e, plan.features) | own, schema=plan.schema)


def _task_indices(plan: LerobotPlan, e: ExportEpisode, steps: Sequence[str]) -> Sequence[int] | np.ndarray:
    """The task of each frame: the episode's instruction, or the step under way where the export says so."""
    instruction = plan.tasks[e.task or ""]
    if plan.options.flavour != "subtask":
        return np.full(e.num_frames, instruction)
    return [plan.tasks[step] if step else instruction for step in steps]


def _statistics(
    plan: LerobotPlan, folder: ExportFolder, e: ExportEpisode, table: pa.Table, pictures: Mapping[str, list[Path]]
) -> dict[str, Stats]:
    """By feature, of those with numbers; of cameras by some keyframes, else by the first picture of the export."""
    stats: dict[str, Stats] = {}
    for name in _numeric(plan):
        numbers = _numbers(table[name].combine_chunks())
        of_feature = None if numbers is None else statistics(numbers.reshape(e.num_frames, -1))
        if of_feature is not None:
            stats[name] = of_feature
    # Stored keyframes are spread over the episode; the first picture stands in only where none is stored
    for camera in plan.cameras:
        keyframes = [_read_picture(path) for path in pictures.get(camera, [])]
        of_camera = picture_statistics(keyframes or [_first_picture(plan, folder, camera, e)])
        assert of_camera is not None, "there is one picture at least"
        stats[camera] = of_camera
    return stats


def _numbers(values: pa.Array) -> np.ndarray | None:
    """A column's numbers, float64, one after the other; None for texts."""
    if pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    if pa.types.is_string(values.type):
        return None
    return values.to_numpy(zero_copy_only=False).astype(np.float64)


def _first_picture(plan: LerobotPlan, folder: ExportFolder, camera: str, e: ExportEpisode) -> np.ndarray:
    place = plan.places[(camera, *e.key)]
    path = folder.root / place.file.path(VIDEO_PATH, video_key=camera)
    return next(decode(path, round(place.start_s * plan.fps), 1, plan.fps)).rgb()


def _keyframes(
    selected: Selected, dataset: str, chunk: int, cameras: Sequence[str]
) -> dict[int, dict[str, list[Path]]]:
    """Files of some of the stored keyframes, by episode and camera, spread over the episode."""
    stored = selected.lake.rows(
        "SELECT episode_index, camera, list(sha256 ORDER BY frame_index) FROM keyframes WHERE dataset = ? "
        "AND chunk = ? AND purpose = 'coarse' AND list_contains(?, camera) GROUP BY 1, 2",
        [dataset, chunk, list(cameras)],
    )
    files: dict[int, dict[str, list[Path]]] = {}
    for episode, camera, hashes in stored:
        spread = np.unique(np.linspace(0, len(hashes) - 1, STAT_PICTURES).round().astype(int))
        paths = [selected.lake.workspace.keyframe(hashes[k]) for k in spread]
        files.setdefault(episode, {})[camera] = [path for path in paths if path.exists()]
    return files


def _read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None, f"keyframe {path} is no picture"
    return picture


def _quality(selected: Selected, dataset: str, chunk: int) -> dict[int, dict[str, Any]]:
    """Signs that the active label may be wrong, by episode."""
    rows = selected.lake.dicts(
        "SELECT q.episode_index, q.length_z, q.order_rarity, q.jump, q.contradicts FROM label_quality q "
        "JOIN active_runs a USING (dataset, episode_index, label_run) WHERE q.dataset = ? AND q.chunk = ?",
        [dataset, chunk],
    )
    return {row.pop("episode_index"): row for row in rows}


# Episodes


def _episode_row(
    plan: LerobotPlan,
    e: ExportEpisode,
    label: ActiveLabel | None,
    file: FileNumber,
    table: pa.Table,
    quality: Mapping[str, Any],
) -> dict[str, Any]:
    """The episode's row of meta/episodes, without statistics. `file` holds its rows, and is that of its metadata."""
    number = plan.index[e.key]
    task_texts = list(plan.tasks)
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [task_texts[index] for index in table["task_index"].unique().to_pylist()],
        "length": e.num_frames,
        "data/chunk_index": file.chunk_index,
        "data/file_index": file.file_index,
        "dataset_from_index": plan.starts[number],
        "dataset_to_index": plan.starts[number + 1],
        "meta/episodes/chunk_index": file.chunk_index,
        "meta/episodes/file_index": file.file_index,
    }
    # Where the episode lies in each camera's video file, which may hold several: seconds from the file's start
    for camera in plan.cameras:
        place = plan.places[(camera, *e.key)]
        row[f"videos/{camera}/chunk_index"] = place.file.chunk_index
        row[f"videos/{camera}/file_index"] = place.file.file_index
        row[f"videos/{camera}/from_timestamp"] = place.start_s
        row[f"videos/{camera}/to_timestamp"] = place.start_s + e.num_frames / plan.fps
    # Where the episode came from: the export numbers episodes anew
    row |= {
        "proccorpus_dataset": e.dataset,
        "proccorpus_episode_index": e.episode_index,
        "proccorpus_source_id": e.source_id,
        "proccorpus_split": e.split,
        "proccorpus_label_run": e.label_run,
        "proccorpus_segments": segment_rows(label) if label else None,
        "proccorpus_num_planned": label.num_planned if label else None,
        "proccorpus_plan": list(label.plan) if label else None,
        "proccorpus_as_far_as_episode": label.as_far_as.episode_index if label and label.as_far_as else None,
        "proccorpus_as_far_as_frame": label.as_far_as.frame_index if label and label.as_far_as else None,
        "success": e.success,
    }
    # columns of QUALITY that nothing is known of are null
    row |= dict.fromkeys(QUALITY) | episode_quality(label) | dict(quality)
    return row | sarm_columns(label, e.num_frames, plan.fps)


def _episode_schema(plan: LerobotPlan) -> pa.Schema:
    """Types of meta/episodes; the order of the columns is LeRobot's, then ours."""
    whole, number, text = pa.int64(), pa.float64(), pa.string()
    types: dict[str, pa.DataType] = {"episode_index": whole, "tasks": pa.list_(text), "length": whole}
    types |= dict.fromkeys(("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"), whole)
    for camera in plan.cameras:
        video = f"videos/{camera}"
        types |= {f"{video}/chunk_index": whole, f"{video}/file_index": whole}
        types |= {f"{video}/from_timestamp": number, f"{video}/to_timestamp": number}
    types |= dict.fromkeys(("meta/episodes/chunk_index", "meta/episodes/file_index"), whole)
    types |= {"proccorpus_dataset": text, "proccorpus_episode_index": whole, "proccorpus_source_id": text}
    types |= {"proccorpus_split": text, "proccorpus_label_run": text, "proccorpus_segments": pa.list_(SEGMENT)}
    types |= {"proccorpus_num_planned": whole, "proccorpus_plan": pa.list_(text)}
    types |= {"proccorpus_as_far_as_episode": whole, "proccorpus_as_far_as_frame": whole}
    types |= {"success": pa.bool_()} | QUALITY | SARM
    for name in _numeric(plan):
        types |= _stat_types(name, pa.list_(number))
    for camera in plan.cameras:
        types |= _stat_types(camera, pa.list_(pa.list_(pa.list_(number))))
    return pa.schema(list(types.items()))


def _stat_types(feature: str, numbers: pa.DataType) -> dict[str, pa.DataType]:
    return {f"stats/{feature}/{name}": numbers for name in NAMES} | {f"stats/{feature}/count": pa.list_(pa.int64())}


def _numeric(plan: LerobotPlan) -> list[str]:
    """Features with statistics, less cameras."""
    return [f.name for f in plan.schema if not pa.types.is_string(f.type) and not pa.types.is_list(f.type)]


def _write_episodes(plan: LerobotPlan, path: Path, episodes: Sequence[EpisodeMetadata]) -> None:
    """Statistics of a feature that an episode has no numbers for are null."""
    rows = []
    for episode in episodes:
        row = dict(episode.row)
        for feature, stats in episode.stats.items():
            values = shaped(stats, picture=feature in plan.cameras)
            row |= {f"stats/{feature}/{name}": value for name, value in values.items()}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=_episode_schema(plan)), path, compression="snappy")
