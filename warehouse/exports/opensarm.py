"""opensarm's data: LeRobot v2 rows with `reward` and `act_pri`, rollouts with progress.npy, and what people said.

    lerobot/    meta, data/chunk-000/episode_000000.parquet, videos/chunk-000/<camera>/episode_000000.mp4
    rollouts/episode_000000/    its videos, timestamp.npy, progress.npy, reward.npy
    labels.jsonl    the segments of labels that people made, in the words of opensarm's tool

What the forms are says annotate.conventions.opensarm. Episodes without a label are left out.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.opensarm import LABELS, PRIMITIVES, ROLLOUTS, label_of, primitive
from annotate.label_run import human_run
from core.files import write_file
from warehouse.exports.common import Exported, ExportEpisode, ExportFolder, open_folder
from warehouse.exports.episode_videos import write_episode_video
from warehouse.exports.labels import ActiveLabel, each_label, left_out_notes, no_labels, select_for_labels
from warehouse.exports.lerobot_features import SourceReader, open_reader
from warehouse.exports.lerobot_plan import rate_of
from warehouse.exports.options import LabelOptions, Selection
from warehouse.lake import Lake

KIND = "opensarm"
EPISODES_IN_CHUNK = 1000
SUFFIX = "_camera-images-rgb"
PLAN_ID = "proccorpus"


@dataclass(frozen=True)
class _Written:
    """What the metadata needs of an episode; `line` of labels.jsonl, None where no person made the label."""

    episode: ExportEpisode
    cameras: tuple[str, ...]
    state_names: tuple[str, ...] | None
    action_names: tuple[str, ...] | None
    video: dict[str, Any]
    line: dict[str, Any] | None

    def facts(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "episode"}


def export(
    lake: Lake,
    selection: Selection,
    out: Path,
    options: LabelOptions = LabelOptions(),
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the labelled episodes; an export that broke off goes on. Raises ExportError, SourceError and what `select`
    raises. One episode's rows are in memory at a time."""
    selected = select_for_labels(lake, selection, options.label_run)
    folder = open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    rate_of({e.fps for e in selected.episodes})  # LeRobot has one: before anything is written
    readers = {dataset: open_reader(selected, dataset) for dataset in selected.datasets}
    said = _said(selected.lake)
    tasks = {text: k for k, text in enumerate(dict.fromkeys(e.task or "" for e in selected.episodes))}
    written: list[_Written] = []
    start = 0
    for e, label in each_label(selected, options.label_run):
        if label is None:
            continue
        number = len(written)
        part = f"episode {number}"
        facts = folder.done(part)
        if facts is None:
            done = _write(folder, readers[e.dataset], e, label, number, start, tasks[e.task or ""], said)
            folder.finish_part(part, _names(number, done.cameras), done.facts())
            facts = done.facts()
        written.append(_read_back(e, facts))
        start += e.num_frames
    if not written:
        raise no_labels(selected)
    notes = left_out_notes(selected, options.label_run, labelled=len(written)) + _lacking(written)
    _metadata(folder, written, tasks, start)
    return folder.finish(
        selected, options, {"notes": notes, "labelled_by_people": sum(w.line is not None for w in written)}
    )


def _read_back(e: ExportEpisode, facts: Mapping[str, Any]) -> _Written:
    """What the journal has of an episode, which a resumed export reads."""
    lists = {k: None if facts[k] is None else tuple(facts[k]) for k in ("state_names", "action_names")}
    return _Written(e, tuple(facts["cameras"]), **lists, video=facts["video"], line=facts["line"])


def _said(lake: Lake) -> dict[tuple[str, int], dict[str, Any]]:
    """Who said so and when, of each corrected episode."""
    rows = lake.dicts(
        "SELECT dataset, episode_index, author, created_at FROM current_corrections WHERE status = 'accepted'"
    )
    return {(row["dataset"], row["episode_index"]): row for row in rows}


def _names(number: int, cameras: Sequence[str]) -> list[str]:
    rollout = f"{ROLLOUTS}/episode_{number:06d}"
    videos = [_video(number, camera) for camera in cameras] + [f"{rollout}/{camera}.mp4" for camera in cameras]
    return [_data(number), *videos, *(f"{rollout}/{name}.npy" for name in ("timestamp", "progress", "reward"))]


def _data(number: int) -> str:
    return f"lerobot/data/chunk-{number // EPISODES_IN_CHUNK:03d}/episode_{number:06d}.parquet"


def _video(number: int, camera: str) -> str:
    return f"lerobot/videos/chunk-{number // EPISODES_IN_CHUNK:03d}/{camera}/episode_{number:06d}.mp4"


def camera_names(cameras: Sequence[str]) -> dict[str, str]:
    """opensarm's names of cameras: the first one is the top one, and what is named left or right is that.

    Example: camera_names(["front", "left_wrist"]) has "top_camera-images-rgb" and "left_camera-images-rgb".
    """
    names: dict[str, str] = {}
    for k, camera in enumerate(cameras):
        plain = camera.split(".")[-1].replace("/", "_")
        side = next((side for side in ("left", "right") if side in plain.lower()), None)
        name = f"top{SUFFIX}" if k == 0 else f"{side or plain}{SUFFIX}"
        # Two wrists of one side: the second one keeps a name of its own
        names[camera] = f"{plain}{SUFFIX}" if name in names.values() else name
    return names


def _write(
    folder: ExportFolder,
    reader: SourceReader,
    e: ExportEpisode,
    label: ActiveLabel,
    number: int,
    start: int,
    task_index: int,
    said: Mapping[tuple[str, int], Mapping[str, Any]],
) -> _Written:
    names = camera_names(e.cameras)
    video: dict[str, Any] = {}
    for camera, name in names.items():
        path = folder.path(_video(number, name))
        made = write_episode_video(reader, camera, e, path)
        video[name] = {"height": made.height_px, "width": made.width_px, "codec": made.codec}
        _linked(path, folder.path(f"{ROLLOUTS}/episode_{number:06d}/{name}.mp4"))
    episode = reader.episode(e)
    timestamps = np.arange(e.num_frames) / e.fps
    progress = label.progress.astype(np.float64)
    rollout = folder.path(f"{ROLLOUTS}/episode_{number:06d}/progress.npy").parent
    np.save(rollout / "timestamp.npy", timestamps)
    np.save(rollout / "progress.npy", progress)
    np.save(rollout / "reward.npy", np.diff(progress, prepend=0.0))

    steps = np.full(e.num_frames, PRIMITIVES.index("dummy"))
    if label.has_names:
        steps = np.repeat([primitive(s.name) if s.step is not None else len(PRIMITIVES) - 1 for s in label.segments],
                          [len(s) for s in label.segments])  # fmt: skip
    columns: dict[str, Any] = {}
    for name, values in (("state", episode.state), ("actions", episode.action)):
        if values is not None and len(values) == e.num_frames:
            flat = pa.array(np.asarray(values, np.float64).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    columns |= {
        "reward": progress.astype(np.float32),
        "act_pri": steps.astype(np.int64),
        "timestamp": timestamps,
        "frame_index": np.arange(e.num_frames),
        "episode_index": np.full(e.num_frames, number),
        "index": np.arange(e.num_frames) + start,
        "task_index": np.full(e.num_frames, task_index),
    }
    pq.write_table(pa.table(columns), folder.path(_data(number)), compression="snappy")
    return _Written(
        e,
        tuple(names.values()),
        _dimensions(episode.state_names, episode.state) if "state" in columns else None,
        _dimensions(episode.action_names, episode.action) if "actions" in columns else None,
        video,
        _line(e, label, number, names, said.get(e.key)),
    )


def _dimensions(names: Sequence[str], values: np.ndarray | None) -> tuple[str, ...]:
    assert values is not None
    return tuple(names) or tuple(f"dim_{k}" for k in range(values.shape[1]))


def _linked(path: Path, other: Path) -> None:
    """The same bytes under another name; a copy where the disk has no links."""
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _line(
    e: ExportEpisode, label: ActiveLabel, number: int, names: Mapping[str, str], said: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """What a person said, as a line of opensarm's tool; None where the label is none of a person's."""
    by_person = e.label_run == human_run(e.dataset) or any(s.pace for s in label.segments)
    if not by_person:
        return None
    top = next(iter(names.values()))
    return {
        "ts": said["created_at"].isoformat() if said else None,
        "user": said["author"] if said else None,
        "plan_id": PLAN_ID,
        "episode_index": number,
        "episode_id": number,
        "video_path": f"{ROLLOUTS}/episode_{number:06d}/{top}.mp4",
        "label": label_of(label.segments, label.progress, label.end, e.fps),
        "proccorpus": {"dataset": e.dataset, "episode_index": e.episode_index},
    }


def _lacking(written: Sequence[_Written]) -> list[str]:
    notes = []
    for name, column in (("state_names", "state"), ("action_names", "actions")):
        count = sum(getattr(w, name) is None for w in written)
        if count:
            notes.append(f"{count} episodes have no column {column}: their source brings none")
    return notes


def _metadata(folder: ExportFolder, written: Sequence[_Written], tasks: Mapping[str, int], total_frames: int) -> None:
    """meta of the LeRobot v2.0 dataset, and the lines of people's labels."""
    first = written[0]
    names = {"state": first.state_names, "actions": first.action_names}
    features: dict[str, Any] = {
        column: {"dtype": "float64", "shape": [len(dims)], "names": list(dims)}
        for column, dims in names.items()
        if dims is not None and all(getattr(w, f"{column.rstrip('s')}_names") == dims for w in written)
    }
    features |= {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in (
        ("reward", "float32"), ("act_pri", "int64"), ("timestamp", "float64"), ("frame_index", "int64"),
        ("episode_index", "int64"), ("index", "int64"), ("task_index", "int64"),
    )}  # fmt: skip
    cameras = [camera for camera in first.cameras if all(camera in w.cameras for w in written)]
    for camera in cameras:
        seen = first.video[camera]
        features[camera] = {
            "dtype": "video",
            "shape": [seen["height"], seen["width"], 3],
            "names": ["height", "width", "channels"],
            "info": {"video.fps": first.episode.fps, "video.codec": seen["codec"]},
        }
    info = {
        "codebase_version": "v2.0",
        "robot_type": None,
        "fps": rate_of({w.episode.fps for w in written}),
        "total_episodes": len(written),
        "total_frames": total_frames,
        "total_tasks": len(tasks),
        "total_videos": len(written) * len(cameras),
        "total_chunks": (len(written) - 1) // EPISODES_IN_CHUNK + 1,
        "chunks_size": EPISODES_IN_CHUNK,
        "splits": {"train": f"0:{len(written)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
        "act_pri": list(PRIMITIVES),
    }
    episodes = [
        {
            "episode_index": k,
            "tasks": [w.episode.task or ""],
            "length": w.episode.num_frames,
            "proccorpus_dataset": w.episode.dataset,
            "proccorpus_episode_index": w.episode.episode_index,
        }
        for k, w in enumerate(written)
    ]
    files = {
        "lerobot/meta/info.json": json.dumps(info, indent=1, ensure_ascii=False) + "\n",
        "lerobot/meta/episodes.jsonl": _lines(episodes),
        "lerobot/meta/tasks.jsonl": _lines({"task_index": k, "task": text} for text, k in tasks.items()),
        LABELS: _lines(w.line for w in written if w.line is not None),
    }
    for name, text in files.items():
        write_file(folder.path(name), text.encode())
    folder.finish_part("metadata", list(files))


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
