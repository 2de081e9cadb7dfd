"""A LeRobot v3.0 dataset that lerobot 0.6.1 loads, holding only what a data collector would know."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .runs import Camera, Recipe, Run, in_files, video_of
from .stats import Stats, image_stats, table_stats
from .videos import IntArray, check_and_count_colours, concatenate, video_info

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"


def data_schema(recipe: Recipe) -> pa.Schema:
    return pa.schema(
        [
            ("observation.state", pa.list_(pa.float32(), len(recipe.state_names))),
            ("action", pa.list_(pa.float32(), len(recipe.action_names))),
            ("next.done", pa.bool_()),
            ("next.success", pa.bool_()),
            ("timestamp", pa.float32()),
            ("frame_index", pa.int64()),
            ("episode_index", pa.int64()),
            ("index", pa.int64()),
            ("task_index", pa.int64()),
        ]
    )


def data_table(run: Run, task_index: int, schema: pa.Schema) -> pa.Table:
    """The run's rows without the simulator's own columns.

    `next.success` is the outcome of the whole run, told at its last frame, as whoever records a robot would.
    """
    n = run.num_frames
    last = [False] * (n - 1) + [True]
    columns: dict[str, Any] = {
        "observation.state": run.rows["observation.state"].to_pylist(),
        "action": run.rows["action"].to_pylist(),
        "next.done": last,
        "next.success": [x and run.record["success"] for x in last],
        "timestamp": np.arange(n) / run.fps,
        "frame_index": range(n),
        "episode_index": [run.index] * n,
        "index": range(run.first, run.first + n),
        "task_index": [task_index] * n,
    }
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema=schema)


def features(
    recipe: Recipe, schema: pa.Schema, camera_info: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The `features` of `info.json`."""
    names = {"observation.state": recipe.state_names, "action": recipe.action_names}
    out: dict[str, dict[str, Any]] = {}
    for field in schema:
        if field.name in names:
            dims = names[field.name]
            out[field.name] = {"dtype": "float32", "shape": [len(dims)], "names": list(dims)}
        else:
            out[field.name] = {
                "dtype": str(field.type).replace("float", "float32"),
                "shape": [1],
                "names": None,
            }
    for key, info in camera_info.items():
        shape = [info["video.height"], info["video.width"], 3]
        out[key] = {
            "dtype": "video",
            "shape": shape,
            "names": ["height", "width", "channels"],
            "info": info,
        }
    return out


def write_data(
    recipe: Recipe, runs: Sequence[Run], tables: Sequence[pa.Table], root: Path
) -> list[dict[str, int]]:
    """Write the data files, one row group per episode; where each run is, as columns of `meta/episodes`."""
    where: list[dict[str, int]] = []
    for file_index, part in enumerate(in_files(runs, recipe.runs_per_data_file)):
        path = root / DATA_PATH.format(chunk_index=0, file_index=file_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, data_schema(recipe), compression="snappy") as writer:
            for run in part:
                writer.write_table(tables[run.index], row_group_size=run.num_frames)
                where.append(
                    {
                        "data/chunk_index": 0,
                        "data/file_index": file_index,
                        "dataset_from_index": run.first,
                        "dataset_to_index": run.first + run.num_frames,
                    }
                )
    return where


def write_videos(
    camera: Camera, source: Path, runs: Sequence[Run], root: Path
) -> tuple[list[dict[str, int | float]], list[IntArray]]:
    """Write and check the files of one camera; where each run is, as columns of `meta/episodes`, and its colours."""
    where: list[dict[str, int | float]] = []
    counts: list[IntArray] = []
    for file_index, part in enumerate(in_files(runs, camera.runs_per_file)):
        path = root / VIDEO_PATH.format(video_key=camera.key, chunk_index=0, file_index=file_index)
        concatenate([video_of(source, camera, run) for run in part], path, runs[0].fps)
        counts += check_and_count_colours(path, part, camera, source)
        for run in part:
            start = run.first - part[0].first  # frames before it in this file
            where.append(
                {
                    f"videos/{camera.key}/chunk_index": 0,
                    f"videos/{camera.key}/file_index": file_index,
                    f"videos/{camera.key}/from_timestamp": start / run.fps,
                    f"videos/{camera.key}/to_timestamp": (start + run.num_frames) / run.fps,
                }
            )
    return where, counts


def write_dataset(recipe: Recipe, source: Path, runs: Sequence[Run], root: Path) -> None:
    """A LeRobot v3.0 dataset at `root`, which must not exist."""
    tasks = list(dict.fromkeys(run.record["task"] for run in runs))
    schema = data_schema(recipe)
    tables = [data_table(run, tasks.index(run.record["task"]), schema) for run in runs]
    stats = [table_stats(table) for table in tables]
    total_stats = table_stats(pa.concat_tables(tables))
    rows: list[dict[str, Any]] = [
        {"episode_index": run.index, "tasks": [run.record["task"]], "length": run.num_frames}
        | where
        for run, where in zip(runs, write_data(recipe, runs, tables, root), strict=True)
    ]
    camera_info: dict[str, dict[str, Any]] = {}
    for camera in recipe.cameras:
        where, counts = write_videos(camera, source, runs, root)
        info = video_info(
            root / VIDEO_PATH.format(video_key=camera.key, chunk_index=0, file_index=0)
        )
        pixels = info["video.height"] * info["video.width"]
        for i, count in enumerate(counts):
            rows[i] |= where[i]
            stats[i][camera.key] = image_stats(count, pixels)
        total_stats[camera.key] = image_stats(np.sum(counts, axis=0), pixels)
        camera_info[camera.key] = info
    for row, run, of_run in zip(rows, runs, stats, strict=True):
        row |= {"success": run.record["success"], "start_state": run.start_state}
        row |= {
            f"stats/{f}/{k}": v for f, values in jsonable(of_run).items() for k, v in values.items()
        }
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}

    (root / EPISODES_PATH).parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES_PATH, compression="snappy")
    pq.write_table(task_table(tasks), root / "meta/tasks.parquet", compression="snappy")
    write_json(root / "meta/stats.json", jsonable(total_stats))
    write_json(
        root / "meta/info.json",
        dataset_info(recipe, runs, len(tasks), features(recipe, schema, camera_info)),
    )


def task_table(tasks: Sequence[str]) -> pa.Table:
    """As pandas would write a frame whose index is named `task`: LeRobot looks task texts up in that index."""

    def column(name: str, pandas_type: str, numpy_type: str) -> dict[str, str | None]:
        types = {"pandas_type": pandas_type, "numpy_type": numpy_type}
        return {"name": name, "field_name": name, **types, "metadata": None}

    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
    }
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def dataset_info(
    recipe: Recipe, runs: Sequence[Run], num_tasks: int, features: dict[str, Any]
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": recipe.robot_type,
        "fps": runs[0].fps,
        "total_episodes": len(runs),
        "total_frames": sum(run.num_frames for run in runs),
        "total_tasks": num_tasks,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "splits": {"train": f"0:{len(runs)}"},
        "features": features,
    }


def jsonable(stats: dict[str, Stats]) -> dict[str, dict[str, Any]]:
    return {
        feature: {k: v.tolist() for k, v in values.items()} for feature, values in stats.items()
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
