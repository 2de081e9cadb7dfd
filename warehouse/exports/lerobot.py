"""LeRobot v3.0 datasets: rows, videos and statistics of the source, with our labels in every form that LeRobot reads.

Parts are video files, then a data file with its episode rows for each chunk of the lake, then progress, then the
metadata. Episodes count from 0 in the export; `proccorpus_*` columns of meta/episodes say which they were.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.lerobot_meta import video_rate
from ingest.lerobot_videos import holds_other_episodes
from ingest.video import decode, probe
from warehouse.exports.common import (
    Exported,
    ExportEpisode,
    ExportError,
    Folder,
    Selected,
    Selection,
    open_folder,
    select,
)
from warehouse.exports.labels import Label, chunk_labels, episode_quality
from warehouse.exports.lerobot_rows import OWN, Feature, column_type, columns, features, open_reader
from warehouse.exports.rabc import FILE as PROGRESS_FILE
from warehouse.exports.rabc import SCHEMA as PROGRESS_SCHEMA
from warehouse.exports.rabc import Kappas, configuration, kappa_table, metadata, rows
from warehouse.exports.statistics import (
    NAMES,
    Stats,
    all_together,
    picture_statistics,
    shaped,
    statistics,
)
from warehouse.exports.subtasks import (
    EVENTS,
    PERSISTENT,
    SPANS,
    add_shares,
    language_columns,
    proportions,
    sarm_columns,
    sarm_shares,
    sarm_stages,
    texts,
)
from warehouse.exports.videos import ENCODED, Clip, VideoFile, is_copyable, plan_files, write_video
from warehouse.lake import Lake
from warehouse.workspace import write_file

FILES_PER_CHUNK = 1000  # of data, and of each camera
STAT_PICTURES = 4  # of each episode and camera
RATE_TOLERANCE = 0.02
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
WHOLE_NUMBER, NUMBER = (
    {"dtype": "int64", "shape": [1], "names": None},
    {"dtype": "float32", "shape": [1], "names": None},
)
LANGUAGE = {"dtype": "language", "shape": [1], "names": None}
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


@dataclass(frozen=True)
class LerobotOptions:
    """`flavour` subtask: a frame's task is the step under way, which is all that 0.6 feeds to policies.

    `codec` is that of pictures that have to be encoded; `chunk_sizes` as in RabcOptions.
    """

    flavour: Literal["task", "subtask"] = "task"
    codec: Literal["h264", "av1"] = "h264"
    chunk_sizes: tuple[int, ...] = (16, 32, 50, 100)


@dataclass(frozen=True)
class Place:
    """Where an exported episode's pictures begin, by camera's file number and seconds."""

    file: int
    start_s: float


def export(
    lake: Lake, selection: Selection, out: Path, options: LerobotOptions = LerobotOptions(), *, overwrite: bool = False
) -> Exported:
    """Write a LeRobot v3.0 dataset. Raises ExportError, SourceError and what `select` raises.

    One episode's rows and one chunk's labels are in memory at a time. Episodes of several datasets go together where
    rate, cameras and their sizes are the same.
    """
    selected = select(lake, selection)
    work = Work(selected, options)
    folder = open_folder(out, "lerobot", selected.identity("lerobot", options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    for file in work.files:
        _video_part(work, folder, file)
    for number, (dataset, chunk, episodes) in enumerate(selected.chunks()):
        _rows_part(work, folder, number, dataset, chunk, episodes)
    kappas = _progress_part(work, folder)
    facts = _metadata_part(work, folder, kappas)
    return folder.finish(selected, options, facts | {"suggested_kappa": kappas})


def _rate(rates: set[float]) -> float:
    """The one frame rate of some episodes; measured ones that differ by a hair come to a whole number."""
    if len(rates) == 1:
        return rates.copy().pop()
    whole = float(round(median(rates)))
    if whole and all(abs(r / whole - 1) < RATE_TOLERANCE for r in rates):
        return whole
    told = f"{min(rates):g} to {max(rates):g}"
    raise ExportError(f"a LeRobot dataset has one frame rate, these episodes have {told}: add --where 'fps = ...'")


class Work:
    """What all parts of an export need to know; found once, from metadata alone."""

    def __init__(self, selected: Selected, options: LerobotOptions) -> None:
        self.selected, self.options = selected, options
        self.episodes = selected.episodes
        self.fps = _rate({e.fps for e in self.episodes})
        self.index = {e.key: k for k, e in enumerate(self.episodes)}
        self.starts = [0, *accumulate(e.num_frames for e in self.episodes)]
        self.cameras = [c for c in self.episodes[0].cameras if all(c in e.cameras for e in self.episodes)]
        if not self.cameras:
            raise ExportError("the episodes have no camera in common: choose with --dataset or --where")
        self.readers = {d: open_reader(selected, d) for d in selected.datasets}
        self.sizes: dict[str, tuple[int, int]] = {}

    @cached_property
    def _features(self) -> tuple[dict[str, Feature], list[str]]:
        """Low-dimensional features that all datasets have alike, and notes on what is left out."""
        firsts = {e.dataset: e for e in reversed(self.episodes)}
        per_dataset, notes = {}, []
        for dataset, reader in self.readers.items():
            per_dataset[dataset], told = features(reader, firsts[dataset])
            notes += told
        first, *others = per_dataset.values()
        common = {n: f for n, f in first.items() if all(o.get(n) == f for o in others)}
        lost = sorted({n for found in per_dataset.values() for n in found} - set(common))
        notes += [f"the feature {n} is left out: not all datasets have it alike" for n in lost]
        return common, notes

    @property
    def features(self) -> dict[str, Feature]:
        return self._features[0]

    @cached_property
    def notes(self) -> list[str]:
        """What a user should know of this export, as far as metadata tells."""
        seen = dict.fromkeys(c for e in self.episodes for c in e.cameras)
        lost = [c for c in seen if c not in self.cameras]
        notes = [f"the camera {c} is left out: not every episode has it" for c in lost]
        if any(e.fps != self.fps for e in self.episodes):
            notes.append(f"frame rates of about {self.fps:g} were measured, and are taken as that")
        if self.fps != round(self.fps):
            notes.append(f"the frame rate is {self.fps}: LeRobot's metadata means a whole number")
        without = sum(not e.task for e in self.episodes)
        return notes + self._features[1] + ([f"{without} episodes have no instruction"] if without else [])

    @cached_property
    def schema(self) -> pa.Schema:
        own = {"timestamp": pa.float32()} | dict.fromkeys(OWN[1:], pa.int64())
        ours = {"progress": pa.float32(), "subtask": pa.string()}
        language = {"language_persistent": PERSISTENT, "language_events": EVENTS}
        return pa.schema([*((n, column_type(f)) for n, f in self.features.items()), *(own | ours | language).items()])

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Task texts by index, in the order of their first episode; with the names of steps where they are tasks."""
        found = dict.fromkeys(e.task or "" for e in self.episodes)
        if self.options.flavour == "subtask":
            names = self.selected.lake.rows(
                "SELECT name FROM active_segments SEMI JOIN selected USING (dataset, episode_index) "
                "WHERE kind = 'step' GROUP BY name ORDER BY min((dataset, episode_index, segment_index))"
            )
            found |= dict.fromkeys(n for (n,) in names)
        return {text: k for k, text in enumerate(found)}

    @cached_property
    def files(self) -> list[VideoFile]:
        return [file for camera in self.cameras for file in self._files(camera)]

    def _files(self, camera: str) -> list[VideoFile]:
        clips = []
        for dataset, reader in self.readers.items():
            swapped = camera in reader.source.config.cameras.bgr
            for e in (e for e in self.episodes if e.dataset == dataset):
                record = reader.record(e)
                video = next(v for v in record.videos if v.camera == camera)
                copyable = not swapped and is_copyable(reader.adapter, record, video.uri)
                info = dict(reader.info) if reader.info else None
                rate = video_rate(info, camera, record.fps) if info else record.fps
                shared = info is not None and holds_other_episodes(info, video.uri)
                clips.append(Clip(e, video.uri if copyable else None, shared, video.start_frame, rate))
        return plan_files(camera, clips, self._frames_of_file)

    def _frames_of_file(self, dataset: str, uri: str) -> int | None:
        return probe(self.readers[dataset].source.resolve(uri)).num_frames

    @cached_property
    def places(self) -> dict[tuple[str, str, int], Place]:
        """By camera, dataset and episode; filled as videos are written."""
        return {}


# Videos


def _video_part(work: Work, folder: Folder, file: VideoFile) -> None:
    """Write one video file, or take what the journal says of it."""
    numbers = {"chunk_index": file.number // FILES_PER_CHUNK, "file_index": file.number % FILES_PER_CHUNK}
    name = VIDEO_PATH.format(video_key=file.camera, **numbers)
    part = f"video {file.camera} {file.number}"
    facts = folder.done(part)
    if facts is None:
        reader = work.readers[file.clips[0].episode.dataset]
        written = write_video(file, reader.source, reader.episode, folder.path(name), work.fps, work.options.codec)
        facts = asdict(written)
        folder.finish_part(part, [name], facts)
    size = facts["height_px"], facts["width_px"]
    if work.sizes.setdefault(file.camera, size) != size:
        raise ExportError(
            f"{file.camera} is {size[1]} x {size[0]} in {file.clips[0].episode.dataset} episode "
            f"{file.clips[0].episode.episode_index} and {work.sizes[file.camera][1]} x {work.sizes[file.camera][0]} "
            "before: a LeRobot dataset has one size per camera, so choose with --dataset or --where"
        )
    for clip, start in zip(file.clips, facts["starts_s"], strict=True):
        work.places[(file.camera, *clip.episode.key)] = Place(file.number, start)


# Rows


def _rows_part(
    work: Work, folder: Folder, number: int, dataset: str, chunk: int, episodes: Sequence[ExportEpisode]
) -> None:
    """The data file of a chunk, one row group per episode, and the file with its episodes' metadata."""
    part = f"rows {number}"
    if folder.done(part) is not None:
        return
    numbers = {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
    data, meta = DATA_PATH.format(**numbers), EPISODES_PATH.format(**numbers)
    labels = chunk_labels(work.selected, dataset, chunk, episodes)
    quality = _quality(work.selected, dataset, chunk)
    pictures = _keyframes(work.selected, dataset, chunk, work.cameras)
    lines, stats, shares = [], [], {}
    with pq.ParquetWriter(folder.path(data), work.schema, compression="snappy") as writer:
        for e in episodes:
            label = labels.get(e.episode_index)
            table = _episode_table(work, e, label)
            writer.write_table(table, row_group_size=len(table))
            found = _statistics(work, folder, e, table, pictures.get(e.episode_index, {}))
            line = _episode_line(work, e, label, numbers, table, quality.get(e.episode_index, {}))
            lines.append((line, found))
            stats.append(found)
            add_shares(shares, sarm_shares(label, e.num_frames))
    _write_episodes(work, folder.path(meta), lines)
    unfit = sum(label is not None and sarm_stages(label) is None for label in labels.values())
    folder.finish_part(
        part,
        [data, meta],
        {"stats": all_together(stats), "shares": shares, "not_for_sarm": unfit, "labelled": len(labels)},
    )


def _episode_table(work: Work, e: ExportEpisode, label: Label | None) -> pa.Table:
    n, k = e.num_frames, work.index[e.key]
    frames = np.arange(n)
    timestamps = (frames / work.fps).astype(np.float32)
    steps = texts(label, n)
    task = work.tasks[e.task or ""]
    shown = [work.tasks[s] if s else task for s in steps] if work.options.flavour == "subtask" else np.full(n, task)
    persistent, events = language_columns(label, timestamps)
    found = columns(work.readers[e.dataset], e, work.features) | {
        "timestamp": timestamps,
        "frame_index": frames,
        "episode_index": np.full(n, k),
        "index": frames + work.starts[k],
        "task_index": shown,
        "progress": label.progress if label else np.full(n, np.nan, np.float32),
        "subtask": steps,
        "language_persistent": persistent,
        "language_events": events,
    }
    return pa.table(found, schema=work.schema)


def _statistics(
    work: Work, folder: Folder, e: ExportEpisode, table: pa.Table, pictures: Mapping[str, list[Path]]
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
    for camera in work.cameras:
        shown = [_read_picture(p) for p in pictures.get(camera, [])] or [_first_picture(work, folder, camera, e)]
        told = picture_statistics(shown)
        assert told is not None
        found[camera] = told
    return found


def _first_picture(work: Work, folder: Folder, camera: str, e: ExportEpisode) -> np.ndarray:
    place = work.places[(camera, *e.key)]
    numbers = {"chunk_index": place.file // FILES_PER_CHUNK, "file_index": place.file % FILES_PER_CHUNK}
    path = folder.root / VIDEO_PATH.format(video_key=camera, **numbers)
    return next(decode(path, round(place.start_s * work.fps), 1, work.fps)).rgb()


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
    work: Work, e: ExportEpisode, label: Label | None, numbers: Mapping[str, int], table: pa.Table, quality: dict
) -> dict[str, Any]:
    """The episode's row of meta/episodes, without statistics."""
    k = work.index[e.key]
    by_index = list(work.tasks)
    line: dict[str, Any] = {
        "episode_index": k,
        "tasks": [by_index[t] for t in table["task_index"].unique().to_pylist()],
        "length": e.num_frames,
        "data/chunk_index": numbers["chunk_index"],
        "data/file_index": numbers["file_index"],
        "dataset_from_index": work.starts[k],
        "dataset_to_index": work.starts[k + 1],
        "meta/episodes/chunk_index": numbers["chunk_index"],
        "meta/episodes/file_index": numbers["file_index"],
    }
    for camera in work.cameras:
        place = work.places[(camera, *e.key)]
        line[f"videos/{camera}/chunk_index"] = place.file // FILES_PER_CHUNK
        line[f"videos/{camera}/file_index"] = place.file % FILES_PER_CHUNK
        line[f"videos/{camera}/from_timestamp"] = place.start_s
        line[f"videos/{camera}/to_timestamp"] = place.start_s + e.num_frames / work.fps
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
        | sarm_columns(label, e.num_frames, work.fps)
    )


def _episode_schema(work: Work) -> pa.Schema:
    whole, number, text = pa.int64(), pa.float64(), pa.string()
    found: dict[str, pa.DataType] = {"episode_index": whole, "tasks": pa.list_(text), "length": whole}
    found |= dict.fromkeys(("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"), whole)
    for camera in work.cameras:
        found |= {f"videos/{camera}/{n}_index": whole for n in ("chunk", "file")}
        found |= {f"videos/{camera}/{n}_timestamp": number for n in ("from", "to")}
    found |= dict.fromkeys(("meta/episodes/chunk_index", "meta/episodes/file_index"), whole)
    found |= {"proccorpus_dataset": text, "proccorpus_episode_index": whole, "proccorpus_source_id": text}
    found |= {"proccorpus_split": text, "proccorpus_label_run": text, "proccorpus_segments": SPANS}
    found["proccorpus_num_planned"] = whole
    found |= {"success": pa.bool_()} | QUALITY | SARM
    for name in _numeric(work):
        found |= {f"stats/{name}/{n}": pa.list_(number) for n in NAMES} | {f"stats/{name}/count": pa.list_(whole)}
    for camera in work.cameras:
        found |= {f"stats/{camera}/{n}": pa.list_(pa.list_(pa.list_(number))) for n in NAMES}
        found |= {f"stats/{camera}/count": pa.list_(whole)}
    return pa.schema(list(found.items()))


def _numeric(work: Work) -> list[str]:
    """Features with statistics, less cameras."""
    return [f.name for f in work.schema if not pa.types.is_string(f.type) and not pa.types.is_list(f.type)]


def _write_episodes(work: Work, path: Path, lines: Sequence[tuple[dict[str, Any], dict[str, Stats]]]) -> None:
    """Statistics of a feature that an episode has no numbers for are null."""
    rows_ = []
    for line, stats in lines:
        row = dict(line)
        for name, told in stats.items():
            for n, value in shaped(told, picture=name in work.cameras).items():
                row[f"stats/{name}/{n}"] = value
        rows_.append(row)
    pq.write_table(pa.Table.from_pylist(rows_, schema=_episode_schema(work)), path, compression="snappy")


# Progress and metadata


def _progress_part(work: Work, folder: Folder) -> dict[str, float | None]:
    """LeRobot's progress file beside the data; the suggested kappa by action chunk."""
    if (facts := folder.done("progress")) is not None:
        return facts
    kappas = Kappas(work.options.chunk_sizes)
    with pq.ParquetWriter(folder.path(PROGRESS_FILE), PROGRESS_SCHEMA, compression="snappy") as writer:
        for table in _progress_tables(work, kappas):
            writer.write_table(table)
        writer.add_key_value_metadata(metadata(work.selected, kappas.suggested()))
    folder.finish_part("progress", [PROGRESS_FILE], kappas.suggested())
    return kappas.suggested()


def _progress_tables(work: Work, kappas: Kappas) -> Iterator[pa.Table]:
    for dataset, chunk, episodes in work.selected.chunks():
        labels = chunk_labels(work.selected, dataset, chunk, episodes)
        tables, ramps = [], []
        for e in episodes:
            k, none = work.index[e.key], np.full(e.num_frames, np.nan, np.float32)
            label = labels.get(e.episode_index)
            ramp = label.ramp() if label else none
            ramps += [ramp] if label else []
            tables.append(rows(work.starts[k], k, ramp, label.progress if label else none))
        kappas.add(ramps)
        yield pa.concat_tables(tables)


def _metadata_part(work: Work, folder: Folder, kappas: Mapping[str, float | None]) -> dict[str, Any]:
    """info.json, tasks, statistics, proportions of SARM's stages and a card; returns facts for the manifest."""
    parts = [folder.parts[f"rows {k}"]["facts"] for k in range(sum(1 for _ in work.selected.chunks()))]
    shares: dict[str, list[float]] = {}
    for p in parts:
        add_shares(shares, p["shares"])
    videos = [folder.parts[f"video {f.camera} {f.number}"]["facts"] for f in work.files]
    how = {h: sum(v["how"] == h for v in videos) for h in dict.fromkeys(v["how"] for v in videos)}
    notes = list(work.notes)
    if anew := [v for v in videos if v["how"] == ENCODED]:
        why = ", ".join(f"{w} ({sum(v['why'] == w for v in anew)})" for w in dict.fromkeys(v["why"] for v in anew))
        notes.append(f"{len(anew)} of {len(videos)} videos were encoded anew: {why}")
    if unfit := sum(p["not_for_sarm"] for p in parts):
        notes.append(f"{unfit} labelled episodes have no SARM stages: unfinished, or with a step done twice")
    stats = all_together([p["stats"] for p in parts])
    texts_ = {
        "meta/info.json": _info(work, folder),
        "meta/stats.json": {n: shaped(s, picture=n in work.cameras) for n, s in stats.items()},
        "meta/temporal_proportions_sparse.json": {"task": 1.0},
        "meta/temporal_proportions_dense.json": proportions(shares),
    }
    for name, value in texts_.items():
        write_file(folder.path(name), json.dumps(value, indent=4, ensure_ascii=False).encode() + b"\n")
    tasks = pd.DataFrame({"task_index": list(work.tasks.values())}, index=pd.Index(list(work.tasks), name="task"))
    tasks.to_parquet(folder.path("meta/tasks.parquet"))
    write_file(folder.path("README.md"), _card(work, kappas, notes).encode())
    folder.finish_part("metadata", [*texts_, "meta/tasks.parquet", "README.md"])
    return {"videos": how, "labelled_episodes": sum(p["labelled"] for p in parts), "notes": notes}


def _info(work: Work, folder: Folder) -> dict[str, Any]:
    robots = {r[0] for r in work.selected.lake.rows("SELECT robot FROM datasets SEMI JOIN selected USING (dataset)")}
    fps = int(work.fps) if work.fps == round(work.fps) else work.fps
    described: dict[str, Feature] = dict(work.features)
    for camera in work.cameras:
        first = next(f for f in work.files if f.camera == camera)
        facts = folder.parts[f"video {camera} {first.number}"]["facts"]
        height, width = work.sizes[camera]
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
        "total_episodes": len(work.episodes),
        "total_frames": work.starts[-1],
        "total_tasks": len(work.tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "splits": {"train": f"0:{len(work.episodes)}"},
        "features": described,
    }


def _card(work: Work, kappas: Mapping[str, float | None], notes: Sequence[str]) -> str:
    size = "50" if "50" in kappas else next(iter(kappas))
    licences = "\n".join(f"- {d}: {work.selected.licences.get(d) or 'not stated'}" for d in work.selected.datasets)
    told = "\n".join(f"- {n}" for n in notes) or "- none"
    return f"""# {", ".join(work.selected.datasets)} with process labels (LeRobot v3.0)

{len(work.episodes)} episodes, {work.starts[-1]} frames, {work.fps:g} frames per second. `manifest.json` says what it
was made of. `{PROGRESS_FILE}` is found by LeRobot beside the data; for a policy with chunks of {size} frames:

    lerobot-train --dataset.root=... \\
{configuration(kappas[size])}

{kappa_table(kappas, work.fps)}

Licences:
{licences}

Notes:
{told}
"""
