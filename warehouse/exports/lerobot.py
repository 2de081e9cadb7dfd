"""LeRobot v3.0 datasets: rows, videos and statistics of the source, with our labels in every form that LeRobot reads.

Parts are video files, then a data file with its episode rows for each chunk of the lake, then progress, then the
metadata. Episodes count from 0 in the export; `proccorpus_*` columns of meta/episodes say which they were.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import write_file
from warehouse.exports.common import Exported, ExportError, ExportFolder, Selection, join_folder, open_folder, select
from warehouse.exports.labels import chunk_labels
from warehouse.exports.lerobot_episodes import rows_part
from warehouse.exports.lerobot_features import OWN, Feature
from warehouse.exports.lerobot_plan import (
    DATA_PATH,
    FILES_PER_CHUNK,
    VIDEO_PATH,
    ClipPlace,
    LerobotOptions,
    LerobotPlan,
)
from warehouse.exports.rabc import FILE as PROGRESS_FILE
from warehouse.exports.rabc import SCHEMA as PROGRESS_SCHEMA
from warehouse.exports.rabc import Kappas, configuration, kappa_table, metadata, rows
from warehouse.exports.statistics import all_together, shaped
from warehouse.exports.subtasks import add_shares, proportions
from warehouse.exports.videos import ENCODED, VideoFile, write_video
from warehouse.lake import Lake

WHOLE_NUMBER, NUMBER = (
    {"dtype": "int64", "shape": [1], "names": None},
    {"dtype": "float32", "shape": [1], "names": None},
)
LANGUAGE = {"dtype": "language", "shape": [1], "names": None}


def export(
    lake: Lake, selection: Selection, out: Path, options: LerobotOptions = LerobotOptions(), *, overwrite: bool = False
) -> Exported:
    """Write a LeRobot v3.0 dataset. Raises ExportError, SourceError and what `select` raises.

    One episode's rows and one chunk's labels are in memory at a time. Episodes of several datasets go together where
    rate, cameras and their sizes are the same.
    """
    selected = select(lake, selection)
    plan = LerobotPlan(selected, options)
    folder = open_folder(out, "lerobot", selected.identity("lerobot", options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    for file in plan.files:
        _video_part(plan, folder, file)
    for number, (dataset, chunk, episodes) in enumerate(selected.chunks()):
        rows_part(plan, folder, number, dataset, chunk, episodes)
    kappas = _progress_part(plan, folder)
    facts = _metadata_part(plan, folder, kappas)
    return folder.finish(selected, options, facts | {"suggested_kappa": kappas})


def begin(
    lake: Lake, selection: Selection, out: Path, options: LerobotOptions, overwrite: bool
) -> list[tuple[str, int]]:
    """Prepare the folder; returns the chunks (dataset, chunk) whose videos `export_chunk` may write, in any order."""
    selected = select(lake, selection)
    LerobotPlan(selected, options)  # refuses what cannot be one dataset
    open_folder(out, "lerobot", selected.identity("lerobot", options), overwrite)
    return [(dataset, chunk) for dataset, chunk, _ in selected.chunks()]


def export_chunk(lake: Lake, selection: Selection, out: Path, options: LerobotOptions, chunk: tuple[str, int]) -> int:
    """Write the video files that begin in a chunk, beside processes that write others; how many were missing.

    Rows say where each episode's pictures begin in all videos, so `export` writes them.
    """
    selected = select(lake, selection)
    folder = join_folder(out, "lerobot", selected.identity("lerobot", options))
    if folder.manifest is not None:
        return 0
    plan = LerobotPlan(selected, options)
    mine = [f for f in plan.files if (f.clips[0].episode.dataset, f.clips[0].episode.chunk) == chunk]
    missing = sum(folder.done(_part_name(f)) is None for f in mine)
    for file in mine:
        _video_part(plan, folder, file)
    return missing


# Videos


def _part_name(file: VideoFile) -> str:
    return f"video {file.camera} {file.number}"


def _video_part(plan: LerobotPlan, folder: ExportFolder, file: VideoFile) -> None:
    """Write one video file, or take what the journal says of it."""
    numbers = {"chunk_index": file.number // FILES_PER_CHUNK, "file_index": file.number % FILES_PER_CHUNK}
    name = VIDEO_PATH.format(video_key=file.camera, **numbers)
    part = _part_name(file)
    facts = folder.done(part)
    if facts is None:
        reader = plan.readers[file.clips[0].episode.dataset]
        written = write_video(file, reader.source, reader.episode, folder.path(name), plan.fps, plan.options.codec)
        facts = asdict(written)
        folder.finish_part(part, [name], facts)
    size = facts["height_px"], facts["width_px"]
    if plan.sizes.setdefault(file.camera, size) != size:
        raise ExportError(
            f"{file.camera} is {size[1]} x {size[0]} in {file.clips[0].episode.dataset} episode "
            f"{file.clips[0].episode.episode_index} and {plan.sizes[file.camera][1]} x {plan.sizes[file.camera][0]} "
            "before: a LeRobot dataset has one size per camera, so choose with --dataset or --where"
        )
    for clip, start in zip(file.clips, facts["starts_s"], strict=True):
        plan.places[(file.camera, *clip.episode.key)] = ClipPlace(file.number, start)


# Progress and metadata


def _progress_part(plan: LerobotPlan, folder: ExportFolder) -> dict[str, float | None]:
    """LeRobot's progress file beside the data; the suggested kappa by action chunk."""
    if (facts := folder.done("progress")) is not None:
        return facts
    kappas = Kappas(plan.options.chunk_sizes)
    with pq.ParquetWriter(folder.path(PROGRESS_FILE), PROGRESS_SCHEMA, compression="snappy") as writer:
        for table in _progress_tables(plan, kappas):
            writer.write_table(table)
        writer.add_key_value_metadata(metadata(plan.selected, kappas.suggested()))
    folder.finish_part("progress", [PROGRESS_FILE], kappas.suggested())
    return kappas.suggested()


def _progress_tables(plan: LerobotPlan, kappas: Kappas) -> Iterator[pa.Table]:
    for dataset, chunk, episodes in plan.selected.chunks():
        labels = chunk_labels(plan.selected, dataset, chunk, episodes)
        tables, ramps = [], []
        for e in episodes:
            k, none = plan.index[e.key], np.full(e.num_frames, np.nan, np.float32)
            label = labels.get(e.episode_index)
            ramp = label.ramp() if label else none
            ramps += [ramp] if label else []
            tables.append(rows(plan.starts[k], k, ramp, label.progress if label else none))
        kappas.add(ramps)
        yield pa.concat_tables(tables)


def _metadata_part(plan: LerobotPlan, folder: ExportFolder, kappas: Mapping[str, float | None]) -> dict[str, Any]:
    """info.json, tasks, statistics, proportions of SARM's stages and a card; returns facts for the manifest."""
    parts = [folder.parts[f"rows {k}"]["facts"] for k in range(sum(1 for _ in plan.selected.chunks()))]
    shares: dict[str, list[float]] = {}
    for p in parts:
        add_shares(shares, p["shares"])
    videos = [folder.parts[_part_name(f)]["facts"] for f in plan.files]
    how = {h: sum(v["how"] == h for v in videos) for h in dict.fromkeys(v["how"] for v in videos)}
    notes = list(plan.notes)
    if anew := [v for v in videos if v["how"] == ENCODED]:
        why = ", ".join(f"{w} ({sum(v['why'] == w for v in anew)})" for w in dict.fromkeys(v["why"] for v in anew))
        notes.append(f"{len(anew)} of {len(videos)} videos were encoded anew: {why}")
    if unfit := sum(p["not_for_sarm"] for p in parts):
        notes.append(f"{unfit} labelled episodes have no SARM stages: unfinished, or with a step done twice")
    stats = all_together([p["stats"] for p in parts])
    texts_ = {
        "meta/info.json": _info(plan, folder),
        "meta/stats.json": {n: shaped(s, picture=n in plan.cameras) for n, s in stats.items()},
        "meta/temporal_proportions_sparse.json": {"task": 1.0},
        "meta/temporal_proportions_dense.json": proportions(shares),
    }
    for name, value in texts_.items():
        write_file(folder.path(name), json.dumps(value, indent=4, ensure_ascii=False).encode() + b"\n")
    tasks = pd.DataFrame({"task_index": list(plan.tasks.values())}, index=pd.Index(list(plan.tasks), name="task"))
    tasks.to_parquet(folder.path("meta/tasks.parquet"))
    write_file(folder.path("README.md"), _card(plan, kappas, notes).encode())
    folder.finish_part("metadata", [*texts_, "meta/tasks.parquet", "README.md"])
    return {"videos": how, "labelled_episodes": sum(p["labelled"] for p in parts), "notes": notes}


def _info(plan: LerobotPlan, folder: ExportFolder) -> dict[str, Any]:
    robots = {r[0] for r in plan.selected.lake.rows("SELECT robot FROM datasets SEMI JOIN selected USING (dataset)")}
    fps = int(plan.fps) if plan.fps == round(plan.fps) else plan.fps
    described: dict[str, Feature] = dict(plan.features)
    for camera in plan.cameras:
        first = next(f for f in plan.files if f.camera == camera)
        facts = folder.parts[_part_name(first)]["facts"]
        height, width = plan.sizes[camera]
        video = {"height": height, "width": width, "codec": facts["codec"], "fps": fps, "channels": 3}
        described[camera] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {f"video.{n}": v for n, v in video.items()} | {"is_depth_map": False},
        }
    described |= {"timestamp": NUMBER} | dict.fromkeys(OWN[1:], WHOLE_NUMBER) | {"progress": NUMBER}
    described |= {"subtask": {"dtype": "string", "shape": [1], "names": None}}
    described |= dict.fromkeys(("language_persistent", "language_events"), LANGUAGE)
    return {
        "codebase_version": "v3.0",
        "robot_type": robots.pop() if len(robots) == 1 else None,
        "fps": fps,
        "total_episodes": len(plan.episodes),
        "total_frames": plan.starts[-1],
        "total_tasks": len(plan.tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "splits": {"train": f"0:{len(plan.episodes)}"},
        "features": described,
    }


def _card(plan: LerobotPlan, kappas: Mapping[str, float | None], notes: Sequence[str]) -> str:
    size = "50" if "50" in kappas else next(iter(kappas))
    licences = "\n".join(f"- {d}: {plan.selected.licences.get(d) or 'not stated'}" for d in plan.selected.datasets)
    told = "\n".join(f"- {n}" for n in notes) or "- none"
    return f"""# {", ".join(plan.selected.datasets)} with process labels (LeRobot v3.0)

{len(plan.episodes)} episodes, {plan.starts[-1]} frames, {plan.fps:g} frames per second. `manifest.json` says what it
was made of. `{PROGRESS_FILE}` is found by LeRobot beside the data; for a policy with chunks of {size} frames:

    lerobot-train --dataset.root=... \\
{configuration(kappas[size])}

{kappa_table(kappas, plan.fps)}

Licences:
{licences}

Notes:
{told}
"""
