"""Data for reward models of others: Robo-Dopamine's raw runs and pairs of states, Robometer's trajectories, opensarm's.

Robo-Dopamine's forms (FlagOpen/Robo-Dopamine @bd69c78f, dataset/):

    raw_data/<dataset>/task_000/task_instruction.json
    raw_data/<dataset>/task_000/episode_000003/    cam_high.mp4, ..., annotated_keyframes.json
    train_data/<dataset>_000003/<camera>/frame_000012.jpg
    train_data/train_jsons/<split>.json    pairs: {id, image, task, conversations}

A pair shows a state before and one after, by every camera, beside where the task begins and where it is done; its score
is what was gained of what was left, or lost of what was there, in percent. Its wording is ours. Ends of spans are the
frames after them, as in the published example.

Robometer's (annotate.conventions.reward_data), for `load_dataset`:

    trajectories/<split>/part-000.parquet    id, task, lang_vector, data_source, frames, is_robot, quality_label, ...
    videos/<dataset>/000003_<camera>.mp4    what `frames` names, relative to the folder

opensarm's: LeRobot v2 rows with `reward` and `act_pri`, rollouts with progress.npy, and what people said:

    lerobot/    meta, data/chunk-000/episode_000000.parquet, videos/chunk-000/<camera>/episode_000000.mp4
    rollouts/episode_000000/    its videos, timestamp.npy, progress.npy, reward.npy
    labels.jsonl    the segments of labels that people made, in the words of opensarm's tool

Of Robo-Dopamine and opensarm, episodes without a label are left out."""

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count, islice, permutations, product, zip_longest
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.reward_data import (
    FAILURE,
    LABELS,
    PRIMITIVES,
    ROLLOUTS,
    SUBOPTIMAL,
    SUCCESSFUL,
    grade,
    label_of,
    primitive,
)
from annotate.similarity import embed
from core.domain.label import Episode, Label
from core.domain.label_run import human_run
from core.errors import UserError
from core.files import write_file
from core.values import grouped
from ingest.episode import EpisodeData
from warehouse.exports.export import README, Columns, Export, card_head, write_rows
from warehouse.exports.lerobot_plan import common_items, rate_of, rows_of
from warehouse.exports.options import Selection
from warehouse.exports.selection import ExportedEpisode, Selected, counted
from warehouse.exports.videos import camera_names, write_episode_video
from warehouse.lake import Lake
from warehouse.releases.release import markdown_table

HIGH = "cam_high"
LEFT = "cam_left_wrist"
RIGHT = "cam_right_wrist"
VIEWS = {HIGH: "front", LEFT: "left wrist", RIGHT: "right wrist"}
MOMENTS = 24  # of an episode, that pairs are made of
BINS = 25  # of scores, from which pairs are taken in turn
QUALITY = 90
NO_SPLIT = "train"
STR = pa.string()
QUESTION = """How much nearer to its goal is a robot after a while?
The task: {task}
Where such a task begins: <image>
Where it is done: <image>
Before, by camera:
{before}
After, by camera:
{after}
Answer with <score>, a percentage with its sign, and </score>: of what was left before, how much was gained; or, where
it is farther from the goal, of what was there before, how much was lost; 0.0% where nothing has changed."""
Task = tuple[str, str, int]  # dataset, instruction, and of a run without one its number


class RoboDopamineExport(Export):
    """The labelled episodes. One chunk's labels, and one episode's pictures of its pairs, are in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        # Each dataset's tasks are numbered in the order of their first episodes
        numbers: dict[str, count[int]] = defaultdict(count)
        tasks = {
            task: f"raw_data/{task[0]}/task_{next(numbers[task[0]]):03d}"
            for task in dict.fromkeys(map(_task, self.selected.episodes))
        }
        done_at = self._ends()
        pairs: dict[str, list[dict[str, Any]]] = {}
        ends: list[str | None] = []
        for x in self.labelled():
            e = x.episode
            ends.append(done_at.get((_task(e), e.split)))
            name = f"{e.dataset} {e.episode_index}"
            facts = self.folder.part(name, self._write, x, ends[-1], tasks[_task(e)])
            pairs.setdefault(e.split or NO_SPLIT, []).extend(facts["pairs"])
        reason = (
            "runs have no pairs: no run of their task in their split is known to have succeeded"
        )
        notes = self.notes(len(ends)) + counted(ends.count(None), reason)
        for (_, text, _), place in tasks.items():
            # Of a task that has a labelled episode
            if (self.folder.root / place).is_dir():
                self.folder.write_json(f"{place}/task_instruction.json", [text] if text else [])
        for split, of_split in pairs.items():
            self.folder.write_json(f"train_data/train_jsons/{split}.json", of_split)
        counts = {split: len(of_split) for split, of_split in pairs.items()}
        return {"samples": sum(counts.values()), "pairs": counts, "notes": notes}

    def _ends(self) -> dict[tuple[Task, str | None], str]:
        """Of each task in each split, the last frame of the first labelled episode that is known to
        have succeeded."""
        # The first one counts: it is set last
        return {
            (_task(e), e.split): _picture(e, HIGH, e.num_frames - 1)
            for e in reversed(self.selected.episodes)
            if e.success and e.label_run is not None
        }

    def _write(self, x: ExportedEpisode, end: str | None, place: str) -> dict[str, Any]:
        """An episode's videos, its spans and the pictures of its pairs. `end`: where its task is done; None: none shows
        it."""
        e = x.episode
        raw = f"{place}/episode_{e.episode_index:06d}"
        label = x.label
        assert label is not None
        # Spelt as published
        spans = [
            {"anotation": s.name, "start_frame_id": s.start_frame, "end_frame_id": s.end_frame}
            for s in label.segments
            if s.step is not None
        ]
        text = json.dumps(spans, indent=4, ensure_ascii=False) + "\n"
        write_file(self.folder.path(f"{raw}/annotated_keyframes.json"), text.encode())
        names = camera_names(e.cameras, HIGH, _wrist)
        for camera, name in names.items():
            write_episode_video(x, camera, self.folder.path(f"{raw}/{name}.mp4"))
        chosen = self._pairs(label.progress) if end is not None else []
        # Other episodes of the task may show where it is done by this one
        exported_frames = {0, e.num_frames - 1, *chain.from_iterable(chosen)}
        views = {name: camera for camera, name in names.items() if name in VIEWS}
        for name, camera in views.items():
            for number, picture in enumerate(x.pictures(camera)):
                if number in exported_frames:
                    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
                    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], quality)
                    self.folder.path(_picture(e, name, number)).write_bytes(jpeg.tobytes())
        items = (
            _item(e, views, end, pair, score(*label.progress[[*pair]].tolist())) for pair in chosen
        )
        return {"pairs": [*items]}

    def _pairs(self, progress: np.ndarray) -> list[tuple[int, int]]:
        """Ordered pairs of frames, taken in turn from bins of their scores, so that no score is common."""
        moments = np.unique(np.linspace(0, len(progress) - 1, MOMENTS).round().astype(int)).tolist()
        pairs = [(score(*progress[[*pair]].tolist()), pair) for pair in permutations(moments, 2)]
        bins = grouped((min(BINS - 1, int((p + 100) / 200 * BINS)), pair) for p, pair in pairs)
        rng = np.random.default_rng(self.options.seed)
        orders = [rng.permutation(len(bins[k])) for k in sorted(bins)]
        shuffled = [
            list(map(bins[k].__getitem__, order))
            for k, order in zip(sorted(bins), orders, strict=True)
        ]
        in_turn = filter(None, chain.from_iterable(zip_longest(*shuffled)))
        return list(islice(in_turn, self.options.per_run))


def _name(e: Episode) -> str:
    return f"{e.dataset}_{e.episode_index:06d}"


def _task(e: Episode) -> Task:
    """A run without a text is of no other run's task."""
    return e.dataset, e.task or "", 0 if e.task else e.episode_index


def _picture(e: Episode, camera: str, frame: int) -> str:
    return f"train_data/{_name(e)}/{camera}/frame_{frame:06d}.jpg"


def _item(
    e: Episode, views: Iterable[str], end: str | None, pair: tuple[int, int], percent: float
) -> dict[str, Any]:
    first_frame, second_frame = pair
    marks = "\n".join(f"{VIEWS[view]}: <image>" for view in views)
    question = QUESTION.format(task=e.task or "", before=marks, after=marks)
    return {
        "id": f"{_name(e)}-bf_{first_frame:06d}-af_{second_frame:06d}",
        "image": [
            _picture(e, HIGH, 0),
            end,
            *(_picture(e, view, frame) for frame, view in product(pair, views)),
        ],
        "task": e.task or "",
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"<score>{percent:+.1f}%</score>"},
        ],
    }


def _wrist(camera: str) -> str | None:
    """Of Robo-Dopamine's names of cameras, wrists are left and right; the first one is the high one."""
    if re.search("left|right|wrist|hand", camera):
        return RIGHT if "right" in camera else LEFT
    return None


def score(first_progress: float, second_progress: float) -> float:
    """Percent: gained of what was left, or lost of what was there.

    Examples: score(0.5, 0.75) == 50; score(0.5, 0.25) == -50.
    """
    whole = 1 - first_progress if second_progress > first_progress else first_progress
    if second_progress == first_progress or whole <= 0:
        return 0.0
    # But for rounding it is never more
    return max(-100.0, min(100.0, 100 * (second_progress - first_progress) / whole))


UNKNOWN = "unknown"
GRADES = (SUCCESSFUL, SUBOPTIMAL, FAILURE, UNKNOWN)


class CameraOfEpisode(NamedTuple):
    """What a row of Robometer's is of: an episode by one camera. `grade`: of what quality, and how far it came."""

    episode: Episode
    camera: str
    grade: tuple[str | None, float | None]
    vector: Sequence[float]


def _view_name(view: CameraOfEpisode, separator: str) -> str:
    e = view.episode
    return f"{e.dataset}/{e.episode_index:06d}{separator}{view.camera.replace('/', '_')}"


def _video(view: CameraOfEpisode) -> str:
    return f"videos/{_view_name(view, '_')}.mp4"


TRAJECTORIES: Columns = {
    "id": (STR, lambda v: _view_name(v, "/")),
    "task": (STR, lambda v: v.episode.task),
    "lang_vector": (pa.list_(pa.float32()), lambda v: v.vector),
    "data_source": (STR, lambda v: v.episode.dataset),
    "frames": (STR, _video),
    "is_robot": (pa.bool_(), lambda v: True),
    "quality_label": (STR, lambda v: v.grade[0]),
    "partial_success": (pa.float32(), lambda v: v.grade[1]),
}


class RobometerExport(Export):
    """The episodes that have an instruction: a trajectory without a task is none."""

    def write_rest(self) -> Mapping[str, Any]:
        exported = [
            (x, grade(x.episode.success, x.label and float(x.label.progress[-1])))
            for x in self.episodes()
            if x.episode.task
        ]
        if not exported:
            raise UserError("nothing to export: none of the episodes selected has an instruction")
        texts = sorted({e.task for e in self.selected.episodes if e.task})
        vectors = dict(zip(texts, embed(texts), strict=True))
        views: dict[str, list[CameraOfEpisode]] = {}
        for x, of_label in exported:
            e = x.episode
            of_episode = [CameraOfEpisode(e, c, of_label, vectors[e.task or ""]) for c in e.cameras]
            self.folder.part(f"{e.dataset} {e.episode_index}", self._write_videos, x, of_episode)
            views.setdefault(e.split or NO_SPLIT, []).extend(of_episode)
        counts = {
            split: self.folder.part(split, self._write_rows, split, of_split)
            for split, of_split in views.items()
        }
        without = sum(not e.task for e in self.selected.episodes)
        notes = self.notes() + counted(without, "episodes without an instruction are left out")
        self.folder.write(README, self._readme(counts, notes))
        return {"trajectories": counts, "notes": notes}

    def _write_videos(self, x: ExportedEpisode, views: Sequence[CameraOfEpisode]) -> None:
        for view in views:
            write_episode_video(x, view.camera, self.folder.path(_video(view)))

    def _write_rows(self, split: str, views: Sequence[CameraOfEpisode]) -> dict[str, int]:
        """Returns how many there are of each grade."""
        write_rows(self.folder, f"trajectories/{split}/part", TRAJECTORIES, [views])
        counts = Counter(view.grade[0] or UNKNOWN for view in views)
        return {name: counts[name] for name in GRADES}

    def _readme(self, counts: Mapping[str, Mapping[str, int]], notes: Sequence[str]) -> str:
        files = {"trajectories": {split: f"trajectories/{split}/*.parquet" for split in counts}}
        noted = "".join(f"\n- {note}" for note in notes)
        return f"""{card_head(self.selected, files)}
# Trajectories in Robometer's form

One row per run and camera. `frames` is the path of a video in this folder; `partial_success` is where its label ends.
A run that did not succeed is suboptimal from 0.5 on. Unknown: nobody says how the run ended, and no label does.

{markdown_table(("split", *GRADES), [(split, *of_split.values()) for split, of_split in counts.items()])}
{noted}

```python
from datasets import load_dataset

rows = load_dataset("THIS_FOLDER", split="{next(iter(counts))}")
```
"""


EPISODES_IN_CHUNK = 1000
SIDES = ("left", "right")
SUFFIX = "_camera-images-rgb"


class Rollout(NamedTuple):
    """What opensarm's rows are of: a labelled episode, its number in the export, and that of its task. `index`: of its
    frames in the export, int64 [n]."""

    label: Label
    fps: float
    number: int
    task: int
    index: np.ndarray


def _primitives(r: Rollout) -> np.ndarray:
    """The number of the primitive at each frame; where steps have no names it is none."""
    segments = r.label.segments
    is_named_step = [r.label.has_names and s.step is not None for s in segments]
    steps = [
        s.name if is_named else "dummy" for s, is_named in zip(segments, is_named_step, strict=True)
    ]
    return np.repeat([*map(primitive, steps)], [*map(len, segments)])


ROWS: Columns = {
    "reward": (pa.float32(), lambda r: r.label.progress),
    "act_pri": (pa.int64(), _primitives),
    "timestamp": (pa.float64(), lambda r: (r.index - r.index[0]) / r.fps),
    "frame_index": (pa.int64(), lambda r: r.index - r.index[0]),
    "episode_index": (pa.int64(), lambda r: np.full_like(r.index, r.number)),
    "index": (pa.int64(), lambda r: r.index),
    "task_index": (pa.int64(), lambda r: np.full_like(r.index, r.task)),
}
ARRAYS = {
    "timestamp": lambda r: (r.index - r.index[0]) / r.fps,
    "progress": lambda r: r.label.progress.astype(np.float64),
    "reward": lambda r: np.diff(r.label.progress.astype(np.float64), prepend=0.0),
}


class OpensarmExport(Export):
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
        for k, x in enumerate(self.labelled()):
            assert x.label is not None
            index = np.arange(x.episode.num_frames) + start
            rollout = Rollout(x.label, x.episode.fps, k, tasks[x.episode.task or ""], index)
            written.append((x.episode, self.folder.part(f"episode {k}", self._write, x, rollout)))
            start += x.episode.num_frames
        notes = self.notes(labelled=len(written))
        for column in ("state", "actions"):
            without = sum(column not in facts["names"] for _, facts in written)
            notes += counted(without, f"episodes have no column {column}: their source brings none")
        lines = [facts["line"] for _, facts in written if facts["line"]]
        self.folder.write_lines(LABELS, lines)
        self._write_metadata(written, tasks, start)
        return {"notes": notes, "labelled_by_people": len(lines)}

    def _write(self, x: ExportedEpisode, r: Rollout) -> dict[str, Any]:
        """The files of an episode; returns what the metadata needs of it: names of dimensions, videos, and what a
        person said."""
        folder = f"{ROLLOUTS}/episode_{r.number:06d}"
        chunk = f"chunk-{r.number // EPISODES_IN_CHUNK:03d}"
        videos: dict[str, Any] = {}
        # What is named left or right is that in opensarm's names of cameras, too; the first one is the top one
        sides = camera_names(
            x.episode.cameras,
            "top",
            lambda name: next((s for s in SIDES if s in name), None),
            SUFFIX,
        )
        for camera, name in sides.items():
            path = self.folder.path(f"lerobot/videos/{chunk}/{name}/episode_{r.number:06d}.mp4")
            videos[name] = write_episode_video(x, camera, path)
            shutil.copyfile(path, self.folder.path(f"{folder}/{name}.mp4"))
        for name, values in ARRAYS.items():
            np.save(self.folder.path(f"{folder}/{name}.npy"), values(r))
        names, columns = _of_source(x.rows, len(r.index))
        columns |= {n: pa.array(values(r)).cast(type_) for n, (type_, values) in ROWS.items()}
        data = self.folder.path(f"lerobot/data/{chunk}/episode_{r.number:06d}.parquet")
        pq.write_table(pa.table(columns), data, compression="snappy")
        line = self._line(x.episode, r.label, r.number, f"{folder}/{next(iter(videos))}.mp4")
        return {"names": names, "videos": videos, "line": line}

    def _line(self, e: Episode, label: Label, number: int, video: str) -> dict[str, Any] | None:
        """What a person said, as a line of opensarm's tool; None where the label is none of a
        person's."""
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
        self.folder.write_json("lerobot/meta/info.json", info, indent=1)
        of_episode = (
            {"episode_index": k, "tasks": [e.task or ""], "length": e.num_frames}
            | {"proccorpus_dataset": e.dataset, "proccorpus_episode_index": e.episode_index}
            for k, (e, _) in enumerate(written)
        )
        self.folder.write_lines("lerobot/meta/episodes.jsonl", of_episode)
        of_task = ({"task_index": k, "task": text} for text, k in tasks.items())
        self.folder.write_lines("lerobot/meta/tasks.jsonl", of_task)


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
        name: {"dtype": type_.to_pandas_dtype().__name__, "shape": [1], "names": None}
        for name, (type_, _) in ROWS.items()
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
    names: dict[str, list[str]] = {}
    columns: dict[str, pa.Array] = {}
    for name, (_, values, dimensions) in zip(("state", "actions"), rows_of(episode), strict=True):
        if values is not None and len(values) == num_frames:
            width = values.shape[1]
            names[name] = list(dimensions) or [f"dim_{k}" for k in range(width)]
            columns[name] = pa.FixedSizeListArray.from_arrays(values.ravel(), width)
    return names, columns
