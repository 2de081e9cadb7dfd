"""opensarm's data: LeRobot v2 rows with `reward` and `act_pri`, rollouts with progress.npy, and what people said.

    lerobot/    meta, data/chunk-000/episode_000000.parquet, videos/chunk-000/<camera>/episode_000000.mp4
    rollouts/episode_000000/    its videos, timestamp.npy, progress.npy, reward.npy
    labels.jsonl    the segments of labels that people made, in the words of opensarm's tool

What the forms are says annotate.conventions.reward_data. Episodes without a label are left out.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.reward_data import LABELS, PRIMITIVES, ROLLOUTS, label_of, primitive
from core.domain.episode import Episode
from core.domain.label import Label
from core.domain.label_run import human_run
from ingest.episode import EpisodeData
from warehouse.exports.export import counted
from warehouse.exports.labels import LabelExport
from warehouse.exports.lerobot_plan import common_items, rate_of
from warehouse.exports.options import Selection
from warehouse.exports.selection import Selected
from warehouse.exports.videos import camera_names, write_episode_video
from warehouse.lake import Lake

EPISODES_IN_CHUNK = 1000
SIDES = ("left", "right")
SUFFIX = "_camera-images-rgb"
COLUMNS = {
    "reward": "float32",
    "act_pri": "int64",
    "timestamp": "float64",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class OpensarmExport(LabelExport):
    """The labelled episodes; one episode's rows are in memory at a time."""

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        rate_of({e.fps for e in selected.episodes})  # LeRobot has one
        return selected

    def write_rest(self) -> Mapping[str, Any]:
        texts = dict.fromkeys(e.task or "" for e in self.selected.episodes)
        tasks = {text: k for k, text in enumerate(texts)}
        written: list[tuple[Episode, dict[str, Any]]] = []
        start = 0
        for k, (e, label) in enumerate(self.labelled()):
            written.append(
                (e, self.folder.part(f"episode {k}", self._write, e, label, k, start, tasks))
            )
            start += e.num_frames
        notes = self.notes(labelled=len(written))
        for column in ("state", "actions"):
            without = sum(column not in facts["names"] for _, facts in written)
            notes += counted(without, f"episodes have no column {column}: their source brings none")
        lines = [facts["line"] for _, facts in written if facts["line"]]
        self.folder.write(LABELS, _lines(lines))
        self._write_metadata(written, tasks, start)
        return {"notes": notes, "labelled_by_people": len(lines)}

    def _write(
        self,
        e: Episode,
        label: Label,
        number: int,
        start: int,
        tasks: Mapping[str, int],
    ) -> dict[str, Any]:
        """The files of an episode, as which it has this number and begins at the row `start`;
        returns what the metadata needs of it: names of dimensions, videos, and what a person
        said."""
        reader = self.readers[e.dataset]
        rollout = f"{ROLLOUTS}/episode_{number:06d}"
        chunk = f"chunk-{number // EPISODES_IN_CHUNK:03d}"
        videos: dict[str, Any] = {}
        # What is named left or right is that in opensarm's names of cameras, too; the first one is the top one
        sides = camera_names(
            e.cameras, "top", lambda name: next((s for s in SIDES if s in name), None), SUFFIX
        )
        for camera, name in sides.items():
            path = self.folder.path(f"lerobot/videos/{chunk}/{name}/episode_{number:06d}.mp4")
            videos[name] = write_episode_video(reader, camera, e, path)
            shutil.copyfile(path, self.folder.path(f"{rollout}/{name}.mp4"))
        timestamps = np.arange(e.num_frames) / e.fps
        progress = label.progress.astype(np.float64)
        np.save(self.folder.path(f"{rollout}/timestamp.npy"), timestamps)
        np.save(self.folder.path(f"{rollout}/progress.npy"), progress)
        np.save(self.folder.path(f"{rollout}/reward.npy"), np.diff(progress, prepend=0.0))

        names, columns = _of_source(reader.episode(e), e.num_frames)
        frames = np.arange(e.num_frames)
        # Of a label that names no steps the primitive is none
        steps = [
            "dummy" if s.step is None or not label.has_names else s.name for s in label.segments
        ]
        values = {
            "reward": progress,
            "act_pri": np.repeat([*map(primitive, steps)], [*map(len, label.segments)]),
            "timestamp": timestamps,
            "frame_index": frames,
            "episode_index": np.full(e.num_frames, number),
            "index": frames + start,
            "task_index": np.full(e.num_frames, tasks[e.task or ""]),
        }
        columns |= {name: values[name].astype(dtype) for name, dtype in COLUMNS.items()}
        data = self.folder.path(f"lerobot/data/{chunk}/episode_{number:06d}.parquet")
        pq.write_table(pa.table(columns), data, compression="snappy")
        line = self._line(e, label, number, f"{rollout}/{next(iter(videos))}.mp4")
        return {"names": names, "videos": videos, "line": line}

    def _line(self, e: Episode, label: Label, number: int, video: str) -> dict[str, Any] | None:
        """What a person said, as a line of opensarm's tool; None where the label is none of a person's."""
        if e.label_run != human_run(e.dataset) and not any(s.pace for s in label.segments):
            return None
        sql = "SELECT created_at, author FROM current_corrections WHERE status = 'accepted' AND dataset = ? "
        statements = self.lake.rows(sql + "AND episode_index = ?", list(e.key))
        when, author = statements[-1] if statements else (None, None)
        return {
            "ts": when and when.isoformat(),
            "user": author,
            "plan_id": "proccorpus",
            "episode_index": number,
            "episode_id": number,
            "video_path": video,
            "label": label_of(label.segments, label.progress, label.end, e.fps),
            "proccorpus": {"dataset": e.dataset, "episode_index": e.episode_index},
        }

    def _write_metadata(
        self,
        written: Sequence[tuple[Episode, Mapping[str, Any]]],
        tasks: Mapping[str, int],
        total_frames: int,
    ) -> None:
        """meta of the LeRobot v2.0 dataset. Features are those that all episodes have alike."""
        cameras, features = _features([facts for _, facts in written], written[0][0].fps)
        info = {
            "codebase_version": "v2.0",
            "robot_type": None,
            "fps": rate_of({e.fps for e, _ in written}),
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
        self.folder.write(
            "lerobot/meta/info.json", json.dumps(info, indent=1, ensure_ascii=False) + "\n"
        )
        of_episode = (
            {"episode_index": k, "tasks": [e.task or ""], "length": e.num_frames}
            | {"proccorpus_dataset": e.dataset, "proccorpus_episode_index": e.episode_index}
            for k, (e, _) in enumerate(written)
        )
        self.folder.write("lerobot/meta/episodes.jsonl", _lines(of_episode))
        of_task = ({"task_index": k, "task": text} for text, k in tasks.items())
        self.folder.write("lerobot/meta/tasks.jsonl", _lines(of_task))


def _features(written: Sequence[Mapping[str, Any]], fps: float) -> tuple[list[str], dict[str, Any]]:
    """Cameras and features that all episodes have alike."""
    first, *other_episodes = written
    names = common_items(first["names"], (episode["names"] for episode in other_episodes))
    common_cameras = set(first["videos"]).intersection(*(e["videos"] for e in other_episodes))
    cameras = [camera for camera in first["videos"] if camera in common_cameras]
    features = {
        c: {"dtype": "float64", "shape": [len(column_names)], "names": column_names}
        for c, column_names in names.items()
    }
    features |= {
        name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in COLUMNS.items()
    }
    for camera in cameras:
        video_facts = first["videos"][camera]
        features[camera] = {
            "dtype": "video",
            "shape": [video_facts["height_px"], video_facts["width_px"], 3],
            "names": ["height", "width", "channels"],
            "info": {"video.fps": fps, "video.codec": video_facts["codec"]},
        }
    return cameras, features


def _of_source(
    episode: EpisodeData, num_frames: int
) -> tuple[dict[str, list[str]], dict[str, pa.Array]]:
    """State and actions that have a row for each frame: the names of their dimensions, and their values."""
    vectors = {
        "state": (episode.state, episode.state_names),
        "actions": (episode.action, episode.action_names),
    }
    names = {}
    columns = {}
    for name, (values, stated_names) in vectors.items():
        if values is not None and len(values) == num_frames:
            names[name] = list(stated_names) or [f"dim_{k}" for k in range(values.shape[1])]
            flat = np.asarray(values, np.float64).ravel()
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return names, columns


def _lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
