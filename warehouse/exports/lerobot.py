"""LeRobot v3.0 datasets: rows, videos and statistics of the source, with our labels in every form that LeRobot reads.

Parts are video files, then a data file with its episode rows for each chunk of the lake, then progress, then the
metadata. Episodes count from 0 in the export; `proccorpus_*` columns of meta/episodes say which they were.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import write_file
from ingest.episode import Episode, TimedPicture
from ingest.media.faces import FaceDetector, Hidden, without_faces
from ingest.media.video import DECODE_ALL, DecodeOptions
from warehouse.exports.common import (
    Exported,
    ExportEpisode,
    ExportError,
    ExportFolder,
    join_folder,
    open_folder,
    select,
)
from warehouse.exports.labels import chunk_labels
from warehouse.exports.lerobot_episodes import rows_part
from warehouse.exports.lerobot_features import OWN, Feature, SourceReader
from warehouse.exports.lerobot_plan import DATA_PATH, FILES_PER_CHUNK, VIDEO_PATH, ClipPlace, FileNumber, LerobotPlan
from warehouse.exports.options import LerobotOptions, Selection
from warehouse.exports.rabc import FILE as PROGRESS_FILE
from warehouse.exports.rabc import SCHEMA as PROGRESS_SCHEMA
from warehouse.exports.rabc import Kappas, configuration, example_size, kappa_table, metadata, rows
from warehouse.exports.statistics import combined_by_feature, shaped
from warehouse.exports.subtasks import SPARSE_STAGE, add_shares, proportions
from warehouse.exports.videos import ENCODED, VideoFile, write_video
from warehouse.lake import Lake

WHOLE_NUMBER = {"dtype": "int64", "shape": [1], "names": None}
NUMBER = {"dtype": "float32", "shape": [1], "names": None}
TEXT = {"dtype": "string", "shape": [1], "names": None}
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
    missing = 0
    for file in plan.files:
        first = file.clips[0].episode
        if (first.dataset, first.chunk) == chunk:
            missing += folder.done(_part_name(file)) is None
            _video_part(plan, folder, file)
    return missing


# Videos


def _part_name(file: VideoFile) -> str:
    return f"video {file.camera} {file.number}"


def _video_part(plan: LerobotPlan, folder: ExportFolder, file: VideoFile) -> None:
    """Write one video file, or take what the journal says of it; note its size and where its episodes begin."""
    first = file.clips[0].episode
    number = FileNumber.of(file.number)
    part = _part_name(file)
    facts = folder.done(part)
    if facts is None:
        name = number.path(VIDEO_PATH, video_key=file.camera)
        reader, hidden = plan.readers[first.dataset], Hidden()
        read, changed = reader.episode, ""
        if plan.options.blur:
            read, changed = _without_faces(reader, plan.detector, hidden), "faces are hidden"
        out = folder.path(name)
        written = write_video(file, reader.source, read, out, plan.fps, plan.options.codec, changed)
        facts = asdict(written)
        if plan.options.blur:
            facts |= {"hidden": asdict(hidden)}
        folder.finish_part(part, [name], facts)

    size = facts["height_px"], facts["width_px"]
    before = plan.sizes.setdefault(file.camera, size)
    if size != before:
        raise ExportError(
            f"{file.camera} is {size[1]} x {size[0]} in {first.dataset} episode {first.episode_index} and "
            f"{before[1]} x {before[0]} before: a LeRobot dataset has one size per camera, so choose with --dataset or "
            "--where"
        )
    for clip, start_s in zip(file.clips, facts["starts_s"], strict=True):
        plan.places[(file.camera, *clip.episode.key)] = ClipPlace(number, start_s)


def _without_faces(reader: SourceReader, detector: FaceDetector, hidden: Hidden) -> Callable[[ExportEpisode], Episode]:
    """Reads episodes whose cameras show no faces that the detector finds."""

    def read(e: ExportEpisode) -> Episode:
        episode = reader.episode(e)

        def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
            return without_faces(episode.frames(camera, options), e.fps, detector, hidden)

        return replace(episode, frames=frames)

    return read


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
    """Rows of the progress file, a chunk at a time, whose gains are added to `kappas`; NaN without a label."""
    for dataset, chunk, episodes in plan.selected.chunks():
        labels = chunk_labels(plan.selected, dataset, chunk, episodes)
        tables, ramps = [], []
        for e in episodes:
            number = plan.index[e.key]
            ramp = progress = np.full(e.num_frames, np.nan, np.float32)
            label = labels.get(e.episode_index)
            if label is not None:
                ramp, progress = label.ramp(), label.progress
                ramps.append(ramp)
            tables.append(rows(plan.starts[number], number, ramp, progress))
        kappas.add(ramps)
        yield pa.concat_tables(tables)


def _metadata_part(plan: LerobotPlan, folder: ExportFolder, kappas: Mapping[str, float | None]) -> dict[str, Any]:
    """info.json, tasks, statistics, proportions of SARM's stages and a card; returns facts for the manifest."""
    # The journal has the facts of every part that was written, in whichever process
    num_chunks = sum(1 for _ in plan.selected.chunks())
    chunks = [folder.parts[f"rows {number}"]["facts"] for number in range(num_chunks)]
    videos = [folder.parts[_part_name(file)]["facts"] for file in plan.files]
    # Notes tell what LeRobot cannot express: they stand in the card and in the manifest
    notes = [*plan.selected.label_notes(), *plan.notes, *_video_notes(videos), *_sarm_notes(chunks)]
    blurred = _blurred(videos)
    notes += _blur_notes(blurred)
    json_files = {"meta/info.json": _info(plan, folder), **_summed_files(plan, chunks)}
    for name, value in json_files.items():
        write_file(folder.path(name), json.dumps(value, indent=4, ensure_ascii=False).encode() + b"\n")
    tasks = pd.DataFrame({"task_index": list(plan.tasks.values())}, index=pd.Index(list(plan.tasks), name="task"))
    tasks.to_parquet(folder.path("meta/tasks.parquet"))
    write_file(folder.path("README.md"), _card(plan, kappas, notes).encode())
    folder.finish_part("metadata", [*json_files, "meta/tasks.parquet", "README.md"])

    videos_by_way = dict(Counter(video["how"] for video in videos))
    labelled = sum(chunk["labelled"] for chunk in chunks)
    facts = {"videos": videos_by_way, "labelled_episodes": labelled, "notes": notes}
    return facts | ({"blurred": blurred} if blurred else {})


def _summed_files(plan: LerobotPlan, chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The files of metadata that are put together of what the journal has of every chunk."""
    stats = combined_by_feature([chunk["stats"] for chunk in chunks])
    shares: dict[str, list[float]] = {}
    for chunk in chunks:
        add_shares(shares, chunk["shares"])
    return {
        "meta/stats.json": {name: shaped(s, picture=name in plan.cameras) for name, s in stats.items()},
        "meta/temporal_proportions_sparse.json": {SPARSE_STAGE: 1.0},
        "meta/temporal_proportions_dense.json": proportions(shares),
    }


def _sarm_notes(chunks: Sequence[Mapping[str, Any]]) -> list[str]:
    unfit = sum(chunk["not_for_sarm"] for chunk in chunks)
    if not unfit:
        return []
    return [f"{unfit} labelled episodes have no SARM stages: unfinished, with a step done twice, or with unnamed steps"]


def _video_notes(videos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why some videos were not copied."""
    reasons = Counter(video["why"] for video in videos if video["how"] == ENCODED)
    if not reasons:
        return []
    why = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    return [f"{reasons.total()} of {len(videos)} videos were encoded anew: {why}"]


def _blurred(videos: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What was hidden in all videos; {} where nothing was to be."""
    hidden = [Hidden(**video["hidden"]) for video in videos if "hidden" in video]
    if not hidden:
        return {}
    return asdict(
        Hidden(sum(h.pictures for h in hidden), sum(h.blurred for h in hidden), max(h.most_faces for h in hidden))
    )


def _blur_notes(blurred: Mapping[str, int]) -> list[str]:
    if not blurred:
        return []
    return [
        f"faces are hidden in {blurred['blurred']} of {blurred['pictures']} pictures, {blurred['most_faces']} at once "
        "at most; a detector misses some and takes other things for faces: look at the videos before they are published"
    ]


def _info(plan: LerobotPlan, folder: ExportFolder) -> dict[str, Any]:
    robots = plan.selected.lake.rows("SELECT DISTINCT robot FROM datasets SEMI JOIN selected USING (dataset)")
    fps = int(plan.fps) if plan.fps == round(plan.fps) else plan.fps
    features: dict[str, Feature] = dict(plan.features)
    for camera in plan.cameras:
        features[camera] = _video_feature(plan, folder, camera, fps)
    features |= {"timestamp": NUMBER} | dict.fromkeys(OWN[1:], WHOLE_NUMBER) | {"progress": NUMBER}
    features |= {"subtask": TEXT}
    features |= dict.fromkeys(("language_persistent", "language_events"), LANGUAGE)
    return {
        "codebase_version": "v3.0",
        "robot_type": robots[0][0] if len(robots) == 1 else None,
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
        "features": features,
    }


def _video_feature(plan: LerobotPlan, folder: ExportFolder, camera: str, fps: float) -> Feature:
    """A camera in info.json; its codec is that of its first file."""
    first = next(file for file in plan.files if file.camera == camera)
    codec = folder.parts[_part_name(first)]["facts"]["codec"]
    height, width = plan.sizes[camera]
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.fps": fps,
            "video.channels": 3,
            "is_depth_map": False,
        },
    }


def _card(plan: LerobotPlan, kappas: Mapping[str, float | None], notes: Sequence[str]) -> str:
    size = example_size(kappas)
    stated = {dataset: plan.selected.licences.get(dataset) or "not stated" for dataset in plan.selected.datasets}
    licences = "\n".join(f"- {dataset}: {licence}" for dataset, licence in stated.items())
    noted = "\n".join(f"- {note}" for note in notes) or "- none"
    return f"""# {", ".join(plan.selected.datasets)} with process labels (LeRobot v3.0)

{len(plan.episodes)} episodes, {plan.starts[-1]} frames, {plan.fps:g} frames per second. `manifest.json` says what it
was made of. `{PROGRESS_FILE}` is found by LeRobot beside the data; for a policy with chunks of {size} frames:

    lerobot-train --dataset.root=... \\
{configuration(kappas[size])}

{kappa_table(kappas, plan.fps)}

Licences:
{licences}

Notes:
{noted}
"""
