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
from typing import Any

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
from core.domain.episode import Episode
from core.domain.label import Label
from core.domain.label_run import human_run
from core.errors import UserError
from core.files import write_file
from ingest.episode import EpisodeData
from warehouse.exports.export import LabelExport, counted
from warehouse.exports.hub import README, card_head, with_features
from warehouse.exports.lerobot_plan import common_items, rate_of
from warehouse.exports.options import Selection
from warehouse.exports.selection import Selected
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
Task = tuple[str, str]  # dataset, instruction


class RoboDopamineExport(LabelExport):
    """The labelled episodes. One chunk's labels, and one episode's pictures of its pairs, are in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        # Each dataset's tasks are numbered in the order of their first episodes
        numbers: dict[str, count[int]] = defaultdict(count)
        tasks = {
            (dataset, task): f"raw_data/{dataset}/task_{next(numbers[dataset]):03d}"
            for dataset, task in dict.fromkeys(map(_task, self.selected.episodes))
        }
        done_at = self._ends()
        pairs: dict[str, list[dict[str, Any]]] = {}
        labelled = without_end = 0
        for e, label in self.labelled():
            labelled += 1
            end = done_at.get((_task(e), e.split))
            place = tasks[_task(e)]
            without_end += end is None
            facts = self.folder.part(
                f"{e.dataset} {e.episode_index}", self._write, e, label, end, place
            )
            pairs.setdefault(e.split or NO_SPLIT, []).extend(facts["pairs"])
        reason = (
            "runs have no pairs: no run of their task in their split is known to have succeeded"
        )
        notes = self.notes(labelled) + counted(without_end, reason)
        texts: dict[str, list] = {
            f"{place}/task_instruction.json": [text] if text else []
            for (_, text), place in tasks.items()
            if (self.folder.root / place).is_dir()  # of a task that has a labelled episode
        }
        texts |= {
            f"train_data/train_jsons/{split}.json": of_split for split, of_split in pairs.items()
        }
        for name, content in texts.items():
            self.folder.write(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        counts = {split: len(of_split) for split, of_split in pairs.items()}
        return {"samples": sum(counts.values()), "pairs": counts, "notes": notes}

    def _ends(self) -> dict[tuple[Task, str | None], str]:
        """Of each task in each split, the last frame of the first labelled episode that is known to have succeeded."""
        run = self.options.label_run
        end_pictures = dict[tuple[Task, str | None], str]()
        sql = "SELECT dataset, episode_index FROM episode_labels WHERE label_run = ?"
        by_run = set(self.lake.rows(sql, [run])) if run is not None else set()
        for e in self.selected.episodes:
            if e.success and (e.key in by_run if run is not None else e.label_run is not None):
                end_pictures.setdefault((_task(e), e.split), _picture(e, HIGH, e.num_frames - 1))
        return end_pictures

    def _write(self, e: Episode, label: Label, end: str | None, place: str) -> dict[str, Any]:
        """An episode's videos, its spans and the pictures of its pairs. `end`: where its task is done; None: none shows
        it."""
        raw = f"{place}/episode_{e.episode_index:06d}"
        reader = self.readers[e.dataset]
        spans = json.dumps(keyframes(label), indent=4, ensure_ascii=False) + "\n"
        write_file(self.folder.path(f"{raw}/annotated_keyframes.json"), spans.encode())
        names = camera_names(e.cameras, HIGH, _wrist)
        for camera, name in names.items():
            write_episode_video(reader, camera, e, self.folder.path(f"{raw}/{name}.mp4"))
        chosen = self._pairs(label.progress) if end is not None else []
        # Other episodes of the task may show where it is done by this one
        exported_frames = {0, e.num_frames - 1, *chain.from_iterable(chosen)}
        views = {name: camera for camera, name in names.items() if name in VIEWS}
        for name, camera in views.items():
            for number, (_, _, picture) in enumerate(
                islice(reader.episode(e).frames(camera), e.num_frames)
            ):
                if number in exported_frames:
                    _, jpeg = cv2.imencode(
                        ".jpg", picture.rgb()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
                    )
                    self.folder.path(_picture(e, name, number)).write_bytes(jpeg.tobytes())
        return {
            "pairs": [
                _item(e, views, end, pair, _percent(label.progress, *pair)) for pair in chosen
            ]
        }

    def _pairs(self, progress: np.ndarray) -> list[tuple[int, int]]:
        """Ordered pairs of frames, taken in turn from bins of their scores, so that no score is common."""
        moments = np.unique(np.linspace(0, len(progress) - 1, MOMENTS).round().astype(int)).tolist()
        bins: list[list[tuple[int, int]]] = [[] for _ in range(BINS)]
        for first_frame, second_frame in permutations(moments, 2):
            percent = _percent(progress, first_frame, second_frame)
            bins[min(BINS - 1, int((percent + 100) / 200 * BINS))].append(
                (first_frame, second_frame)
            )
        rng = np.random.default_rng(self.options.seed)
        shuffled: list[list[tuple[int, int]]] = []
        for of_bin in bins:
            shuffled.append([of_bin[k] for k in rng.permutation(len(of_bin))])
        in_turn = filter(None, chain.from_iterable(zip_longest(*shuffled)))
        return list(islice(in_turn, self.options.per_run))


def _name(e: Episode) -> str:
    return f"{e.dataset}_{e.episode_index:06d}"


def _task(e: Episode) -> Task:
    return e.dataset, e.task or ""


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


def keyframes(label: Label) -> list[dict[str, Any]]:
    """The spans of steps, as annotated_keyframes.json has them, spelt as there."""
    steps = [s for s in label.segments if s.step is not None]
    return [
        {"anotation": s.name, "start_frame_id": s.start_frame, "end_frame_id": s.end_frame}
        for s in steps
    ]


def score(first_progress: float, second_progress: float) -> float:
    """Percent: gained of what was left, or lost of what was there.

    Examples: score(0.5, 0.75) == 50; score(0.5, 0.25) == -50.
    """
    whole = 1 - first_progress if second_progress > first_progress else first_progress
    if second_progress == first_progress or whole <= 0:
        return 0.0
    # But for rounding it is never more
    return max(-100.0, min(100.0, 100 * (second_progress - first_progress) / whole))


def _percent(progress: np.ndarray, first_frame: int, second_frame: int) -> float:
    return score(float(progress[first_frame]), float(progress[second_frame]))


UNKNOWN = "unknown"
GRADES = (SUCCESSFUL, SUBOPTIMAL, FAILURE, UNKNOWN)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("lang_vector", pa.list_(pa.float32())),
        ("data_source", pa.string()),
        ("frames", pa.string()),
        ("is_robot", pa.bool_()),
        ("quality_label", pa.string()),
        ("partial_success", pa.float32()),
    ]
)


class RobometerExport(LabelExport):
    """The episodes that have an instruction: a trajectory without a task is none."""

    def write_rest(self) -> Mapping[str, Any]:
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for e, label in self.labels():
            if e.task:
                self.folder.part(f"{e.dataset} {e.episode_index}", self._write_videos, e)
                rows[e.split or NO_SPLIT] += _views(e, label)
        if not rows:
            raise UserError("nothing to export: none of the episodes selected has an instruction")
        counts = {
            split: self.folder.part(split, self._write_rows, split, of_split)
            for split, of_split in rows.items()
        }
        without = sum(not e.task for e in self.selected.episodes)
        notes = self.notes() + counted(without, "episodes without an instruction are left out")
        self.folder.write(README, self._readme(counts, notes))
        return {"trajectories": counts, "notes": notes}

    def _write_videos(self, e: Episode) -> None:
        for camera in e.cameras:
            write_episode_video(
                self.readers[e.dataset], camera, e, self.folder.path(_video(e, camera))
            )

    def _write_rows(self, split: str, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Returns how many there are of each grade."""
        tasks = sorted({row["task"] for row in rows})
        vectors = dict(zip(tasks, embed(tasks), strict=True))
        with_vectors = [row | {"lang_vector": vectors[row["task"]]} for row in rows]
        table = pa.Table.from_pylist(with_vectors, schema=with_features(SCHEMA))
        pq.write_table(
            table, self.folder.path(f"trajectories/{split}/part-000.parquet"), compression="zstd"
        )
        grade_counts = Counter(row["quality_label"] or UNKNOWN for row in rows)
        return {grade: grade_counts[grade] for grade in GRADES}

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


def _video(e: Episode, camera: str) -> str:
    return f"videos/{e.dataset}/{e.episode_index:06d}_{camera.replace('/', '_')}.mp4"


def _views(e: Episode, label: Label | None) -> list[dict[str, Any]]:
    """A row for each camera."""
    quality, share = grade(e.success, None if label is None else float(label.progress[-1]))
    return [
        {
            "id": f"{e.dataset}/{e.episode_index:06d}/{camera.replace('/', '_')}",
            "task": e.task,
            "data_source": e.dataset,
            "frames": _video(e, camera),
            "is_robot": True,
            "quality_label": quality,
            "partial_success": share,
        }
        for camera in e.cameras
    ]


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
