"""Rows of a LeRobot export, and what meta/episodes says of each episode: places, labels, quality, statistics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.media.video import decode
from warehouse.exports.common import ExportEpisode, ExportFolder, Selected
from warehouse.exports.labels import Label, chunk_labels, episode_quality
from warehouse.exports.lerobot_features import columns
from warehouse.exports.lerobot_plan import DATA_PATH, EPISODES_PATH, FILES_PER_CHUNK, VIDEO_PATH, LerobotPlan
from warehouse.exports.statistics import NAMES, Stats, all_together, picture_statistics, shaped, statistics
from warehouse.exports.subtasks import (
    SPANS,
    add_shares,
    language_columns,
    sarm_columns,
    sarm_shares,
    sarm_stages,
    texts,
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
    f"{head}_subtask_{name}": pa.list_(type_)
    for head in ("sparse", "dense")
    for name, type_ in (
        ("names", pa.string()),
        ("start_frames", pa.int64()),
        ("end_frames", pa.int64()),
        ("start_times", pa.float64()),
        ("end_times", pa.float64()),
    )
}


def rows_part(
    plan: LerobotPlan, folder: ExportFolder, number: int, dataset: str, chunk: int, episodes: Sequence[ExportEpisode]
) -> None:
    """The data file of a chunk, one row group per episode, and the file with its episodes' metadata."""
    part = f"rows {number}"
    if folder.done(part) is not None:
        return
    numbers = {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
    data, meta = DATA_PATH.format(**numbers), EPISODES_PATH.format(**numbers)
    labels = chunk_labels(plan.selected, dataset, chunk, episodes)
    quality = _quality(plan.selected, dataset, chunk)
    pictures = _keyframes(plan.selected, dataset, chunk, plan.cameras)
    lines, stats, shares = [], [], {}
    with pq.ParquetWriter(folder.path(data), plan.schema, compression="snappy") as writer:
        for e in episodes:
            label = labels.get(e.episode_index)
            table = _episode_table(plan, e, label)
            writer.write_table(table, row_group_size=len(table))
            found = _statistics(plan, folder, e, table, pictures.get(e.episode_index, {}))
            line = _episode_line(plan, e, label, numbers, table, quality.get(e.episode_index, {}))
            lines.append((line, found))
            stats.append(found)
            add_shares(shares, sarm_shares(label, e.num_frames))
    _write_episodes(plan, folder.path(meta), lines)
    unfit = sum(label is not None and sarm_stages(label) is None for label in labels.values())
    folder.finish_part(
        part,
        [data, meta],
        {"stats": all_together(stats), "shares": shares, "not_for_sarm": unfit, "labelled": len(labels)},
    )


def _episode_table(plan: LerobotPlan, e: ExportEpisode, label: Label | None) -> pa.Table:
    n, k = e.num_frames, plan.index[e.key]
    frames = np.arange(n)
    timestamps = (frames / plan.fps).astype(np.float32)
    steps = texts(label, n)
    task = plan.tasks[e.task or ""]
    shown = [plan.tasks[s] if s else task for s in steps] if plan.options.flavour == "subtask" else np.full(n, task)
    persistent, events = language_columns(label, timestamps)
    found = columns(plan.readers[e.dataset], e, plan.features) | {
        "timestamp": timestamps,
        "frame_index": frames,
        "episode_index": np.full(n, k),
        "index": frames + plan.starts[k],
        "task_index": shown,
        "progress": label.progress if label else np.full(n, np.nan, np.float32),
        "subtask": steps,
        "language_persistent": persistent,
        "language_events": events,
    }
    return pa.table(found, schema=plan.schema)


def _statistics(
    plan: LerobotPlan, folder: ExportFolder, e: ExportEpisode, table: pa.Table, pictures: Mapping[str, list[Path]]
) -> dict[str, Stats]:
    found = {}
    for name in table.schema.names:
        values = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        if pa.types.is_string(values.type) or pa.types.is_list(values.type):
            continue
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        if (told := statistics(numbers.reshape(e.num_frames, -1))) is not None:
            found[name] = told
    for camera in plan.cameras:
        shown = [_read_picture(p) for p in pictures.get(camera, [])] or [_first_picture(plan, folder, camera, e)]
        told = picture_statistics(shown)
        assert told is not None
        found[camera] = told
    return found


def _first_picture(plan: LerobotPlan, folder: ExportFolder, camera: str, e: ExportEpisode) -> np.ndarray:
    place = plan.places[(camera, *e.key)]
    numbers = {"chunk_index": place.file // FILES_PER_CHUNK, "file_index": place.file % FILES_PER_CHUNK}
    path = folder.root / VIDEO_PATH.format(video_key=camera, **numbers)
    return next(decode(path, round(place.start_s * plan.fps), 1, plan.fps)).rgb()


def _keyframes(
    selected: Selected, dataset: str, chunk: int, cameras: Sequence[str]
) -> dict[int, dict[str, list[Path]]]:
    """Files of some of the stored keyframes of each episode, spread over it."""
    found: dict[int, dict[str, list[Path]]] = {}
    for episode, camera, hashes in selected.lake.rows(
        "SELECT episode_index, camera, list(sha256 ORDER BY frame_index) FROM keyframes WHERE dataset = ? "
        "AND chunk = ? AND purpose = 'coarse' AND list_contains(?, camera) GROUP BY 1, 2",
        [dataset, chunk, list(cameras)],
    ):
        at = np.unique(np.linspace(0, len(hashes) - 1, STAT_PICTURES).round().astype(int))
        paths = [selected.lake.workspace.keyframe(hashes[k]) for k in at]
        found.setdefault(episode, {})[camera] = [p for p in paths if p.exists()]
    return found


def _read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None, f"keyframe {path} is no picture"
    return picture


def _quality(selected: Selected, dataset: str, chunk: int) -> dict[int, dict[str, Any]]:
    """Signs that the active label may be wrong, by episode."""
    rows_ = selected.lake.dicts(
        "SELECT q.episode_index, q.length_z, q.order_rarity, q.jump, q.contradicts FROM label_quality q "
        "JOIN active_runs a USING (dataset, episode_index, label_run) WHERE q.dataset = ? AND q.chunk = ?",
        [dataset, chunk],
    )
    return {r.pop("episode_index"): r for r in rows_}


# Episodes


def _episode_line(
    plan: LerobotPlan, e: ExportEpisode, label: Label | None, numbers: Mapping[str, int], table: pa.Table, quality: dict
) -> dict[str, Any]:
    """The episode's row of meta/episodes, without statistics."""
    k = plan.index[e.key]
    by_index = list(plan.tasks)
    line: dict[str, Any] = {
        "episode_index": k,
        "tasks": [by_index[t] for t in table["task_index"].unique().to_pylist()],
        "length": e.num_frames,
        "data/chunk_index": numbers["chunk_index"],
        "data/file_index": numbers["file_index"],
        "dataset_from_index": plan.starts[k],
        "dataset_to_index": plan.starts[k + 1],
        "meta/episodes/chunk_index": numbers["chunk_index"],
        "meta/episodes/file_index": numbers["file_index"],
    }
    for camera in plan.cameras:
        place = plan.places[(camera, *e.key)]
        line[f"videos/{camera}/chunk_index"] = place.file // FILES_PER_CHUNK
        line[f"videos/{camera}/file_index"] = place.file % FILES_PER_CHUNK
        line[f"videos/{camera}/from_timestamp"] = place.start_s
        line[f"videos/{camera}/to_timestamp"] = place.start_s + e.num_frames / plan.fps
    spans = [s.__dict__ for s in label.spans] if label else None
    return (
        line
        | {"proccorpus_dataset": e.dataset, "proccorpus_episode_index": e.episode_index}
        | {"proccorpus_source_id": e.source_id, "proccorpus_split": e.split, "proccorpus_label_run": e.label_run}
        | {"proccorpus_segments": spans, "proccorpus_num_planned": label.num_planned if label else None}
        | {"success": e.success}
        | dict.fromkeys(QUALITY)
        | episode_quality(label)
        | quality
        | sarm_columns(label, e.num_frames, plan.fps)
    )


def _episode_schema(plan: LerobotPlan) -> pa.Schema:
    whole, number, text = pa.int64(), pa.float64(), pa.string()
    found: dict[str, pa.DataType] = {"episode_index": whole, "tasks": pa.list_(text), "length": whole}
    found |= dict.fromkeys(("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"), whole)
    for camera in plan.cameras:
        found |= {f"videos/{camera}/{n}_index": whole for n in ("chunk", "file")}
        found |= {f"videos/{camera}/{n}_timestamp": number for n in ("from", "to")}
    found |= dict.fromkeys(("meta/episodes/chunk_index", "meta/episodes/file_index"), whole)
    found |= {"proccorpus_dataset": text, "proccorpus_episode_index": whole, "proccorpus_source_id": text}
    found |= {"proccorpus_split": text, "proccorpus_label_run": text, "proccorpus_segments": SPANS}
    found["proccorpus_num_planned"] = whole
    found |= {"success": pa.bool_()} | QUALITY | SARM
    for name in _numeric(plan):
        found |= {f"stats/{name}/{n}": pa.list_(number) for n in NAMES} | {f"stats/{name}/count": pa.list_(whole)}
    for camera in plan.cameras:
        found |= {f"stats/{camera}/{n}": pa.list_(pa.list_(pa.list_(number))) for n in NAMES}
        found |= {f"stats/{camera}/count": pa.list_(whole)}
    return pa.schema(list(found.items()))


def _numeric(plan: LerobotPlan) -> list[str]:
    """Features with statistics, less cameras."""
    return [f.name for f in plan.schema if not pa.types.is_string(f.type) and not pa.types.is_list(f.type)]


def _write_episodes(plan: LerobotPlan, path: Path, lines: Sequence[tuple[dict[str, Any], dict[str, Stats]]]) -> None:
    """Statistics of a feature that an episode has no numbers for are null."""
    rows_ = []
    for line, stats in lines:
        row = dict(line)
        for name, told in stats.items():
            for n, value in shaped(told, picture=name in plan.cameras).items():
                row[f"stats/{name}/{n}"] = value
        rows_.append(row)
    pq.write_table(pa.Table.from_pylist(rows_, schema=_episode_schema(plan)), path, compression="snappy")
