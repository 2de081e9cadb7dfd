"""What a LeRobot export is to have, from metadata alone: episodes, rate, cameras, features, tasks, files; and labels in
the forms that LeRobot's tools read: language columns, names of steps, SARM's stages.

Low-dimensional features are those of a LeRobot source as they are, else state and action. Cameras of other sources than
LeRobot's are called observation.images.<camera>, as LeRobot's policies look for them.

Language columns (lerobot 0.6.1, datasets/language.py) hold what labels and samples say, in its styles.
`language_persistent`: rows that hold until the next one of their style: `subtask`, and, as its own annotator writes
them, `plan` (a numbered list of what is left, where a step begins); `memory` (what is complete by then).
`language_events`: `vqa`, a question about a camera's picture at a frame, with an answer in JSON.
Styles that nothing here fills: motion, task_aug, interjection, trace.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, product
from math import ceil, floor, prod
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.samples.procvqa import PROGRESS, task_text
from core.domain.label import STEP, Episode, Label, completed_steps
from core.errors import UserError
from core.names import is_name
from core.tables import TABLES
from core.values import grouped
from ingest.episode import EpisodeData
from ingest.episodes import RATE_TOLERANCE
from ingest.formats.lerobot_rows import picture_columns
from ingest.media.faces import FaceDetector, weights_file
from warehouse.exports.export import Columns, Export
from warehouse.exports.options import Selection
from warehouse.exports.selection import Selected, SourceReader, counted
from warehouse.exports.videos import Clip, VideoFile, plan_files
from warehouse.lake import Lake

_TEXTS = [pa.field("content", pa.string()), pa.field("style", pa.string())]
SEGMENT_COLUMNS = (
    "name",
    "start_frame",
    "end_frame",
    "kind",
    "completed",
    "step",
    "confidence",
    "notes",
    "named",
)
SEGMENT = pa.struct([TABLES["segments"].schema.field(name) for name in SEGMENT_COLUMNS])
NO_STEP = -1  # of an idle or done segment: LeRobot's merge_datasets would make floats of whole numbers with nulls
SPARSE_STAGE = "task"
Stage = tuple[str, int, int]  # name, first frame, last frame, as SARM takes it
# Name, share of its episode, where in it the stage begins, as a share
StageShare = tuple[str, float, float]


def _rows_type(tool_call: pa.DataType, *, timed: bool) -> pa.DataType:
    """A list of rows; `role` and `timestamp` are never null."""
    time = [pa.field("timestamp", pa.float32(), nullable=False)] if timed else []
    other_fields = [pa.field("camera", pa.string()), pa.field("tool_calls", pa.list_(tool_call))]
    return pa.list_(
        pa.struct([pa.field("role", pa.string(), nullable=False), *_TEXTS, *time, *other_fields])
    )


PERSISTENT = _rows_type(pa.json_(), timed=True)
EVENTS = _rows_type(pa.json_(), timed=False)
# Arrow makes no JSON out of Python's values: rows are made with texts in its place, and cast
_PERSISTENT_TEXT = _rows_type(pa.string(), timed=True)
_EVENTS_TEXT = _rows_type(pa.string(), timed=False)


# A frame and a camera, of whose picture a sample asks how far the task is
Question = tuple[int, str]


def questions(
    selected: Selected, dataset: str, chunk: int, cameras: Sequence[str]
) -> dict[int, list[Question]]:
    """By episode, the moments and the source's cameras that samples of progress were made of, of
    the active labels."""
    rows = selected.lake.rows(
        "SELECT DISTINCT s.episode_index, s.frames[-1], s.camera FROM samples s "
        "JOIN active_runs a USING (dataset, episode_index, label_run) WHERE s.dataset = ? AND s.chunk = ? "
        "AND s.family = ? AND s.progress IS NOT NULL AND list_contains(?, s.camera) ORDER BY ALL",
        [dataset, chunk, PROGRESS, list(cameras)],
    )
    return grouped((episode, (frame, camera)) for episode, frame, camera in rows)


def persistent_rows(label: Label | None, timestamps: np.ndarray) -> list[dict[str, Any]]:
    """Rows in order of time, style, of no camera; times are those of frames. None where a step has no name: the row
    before it would hold through it."""
    rows: list[dict[str, Any]] = []
    if label is None or not label.has_names:
        return rows
    remembers = False
    for segment in label.segments:
        plan, memory = _plan_and_memory(
            label, completed_steps(label.segments, segment.start_frame - 1)
        )
        # What was done and is undone must not be remembered on
        if memory is None and remembers:
            memory = "Nothing is done any more."
        remembers = remembers or memory is not None
        texts = {"memory": memory, "plan": plan, "subtask": segment.name}
        common = {"timestamp": float(timestamps[segment.start_frame]), "tool_calls": None}
        rows += [
            {"role": "assistant", "content": text, "style": style, **common}
            for style, text in texts.items()
            if text is not None
        ]
    return rows


def _plan_and_memory(label: Label, completed: set[int]) -> tuple[str | None, str | None]:
    """What is left of the planned steps, and what is complete; None where nothing is, or a step has
    no name."""
    if not all(map(is_name, label.plan)):
        return None, None
    remaining_names = [name for step, name in enumerate(label.plan) if step not in completed]
    names = "; ".join(label.plan[step] for step in sorted(completed) if step < len(label.plan))
    plan = "\n".join(f"{number}. {name}" for number, name in enumerate(remaining_names, 1))
    return plan or None, f"Done so far: {names}." if completed else None


def _event_rows(
    e: Episode, label: Label, episode_questions: Sequence[Question]
) -> dict[int, list[dict[str, Any]]]:
    """Rows by frame; at most one question for each frame and camera."""
    rows: dict[int, list[dict[str, Any]]] = {}
    task = task_text(e.task or "")
    for frame, camera in episode_questions:
        value = round(float(label.progress[frame]), 3)
        answer = json.dumps(
            {"attribute": "progress", "label": task, "value": value}, ensure_ascii=False
        )
        question = f"How much of the task is done by now, from 0 to 1? The task: {task}"
        rows.setdefault(frame, []).extend(
            {"role": role, "content": text, "style": "vqa", "camera": camera, "tool_calls": None}
            for role, text in (("assistant", answer), ("user", question))
        )
    return rows


def language_columns(
    e: Episode,
    label: Label | None,
    timestamps: np.ndarray,
    episode_questions: Sequence[Question],
) -> tuple[pa.Array, pa.Array]:
    """`language_persistent` (the same list in each row) and `language_events`, one row per frame."""
    persistent_row = pa.array([persistent_rows(label, timestamps)], _PERSISTENT_TEXT).cast(
        PERSISTENT
    )
    events = _event_rows(e, label, episode_questions) if label is not None else {}
    by_frame = [events.get(frame, []) for frame in range(len(timestamps))]
    return persistent_row.take(pa.array(np.zeros(len(timestamps), np.int64))), pa.array(
        by_frame, _EVENTS_TEXT
    ).cast(EVENTS)


def step_names(label: Label | None, num_frames: int) -> list[str]:
    """The name of the step under way at each frame; empty where there is none, and where it has no
    name."""
    names = [""] * num_frames
    for segment in label.segments if label and label.sure_of_names else ():
        if segment.kind == STEP and segment.named:
            names[segment.start_frame : segment.end_frame] = [segment.name] * len(segment)
    return names


# SARM


def why_no_stages(label: Label) -> str | None:
    """Why SARM cannot take a label's steps as its stages; None where it can.

    It takes each stage to happen exactly once, and the end of an episode for that of its task.
    """
    steps = [s for s in label.segments if s.kind == STEP]
    if not steps or not label.has_names:
        return "steps without names"
    if min(len({s.name for s in steps}), len({s.step for s in steps})) < len(steps):
        return "a step done twice"
    if [s.completed for s in steps] == [True] * label.num_planned:
        return None
    return "not finished"


def stages_of(label: Label | None) -> list[Stage] | None:
    if label is None or why_no_stages(label):
        return None
    return [(s.name, s.start_frame, s.end_frame - 1) for s in label.segments if s.kind == STEP]


def sarm_columns(fps: float) -> Columns:
    """SARM's columns: `dense` has the steps, `sparse` the task as one stage; None without stages."""

    values: Columns = {
        "names": (pa.string(), lambda stage: stage[0]),
        "start_frames": (pa.int64(), lambda stage: stage[1]),
        "end_frames": (pa.int64(), lambda stage: stage[2]),
        "start_times": (pa.float64(), lambda stage: stage[1] / fps),
        "end_times": (pa.float64(), lambda stage: stage[2] / fps),
    }
    stages = {
        "sparse": lambda r: [(SPARSE_STAGE, 0, r.e.num_frames - 1)],
        "dense": lambda r: stages_of(r.label),
    }
    return {
        f"{head}_subtask_{name}": (
            pa.list_(type_),
            lambda r, of_head=of_head, value=value: (
                stages_of(r.label) and [*map(value, of_head(r))]
            ),
        )
        for (head, of_head), (name, (type_, value)) in product(stages.items(), values.items())
    }


def sarm_shares(label: Label | None, num_frames: int) -> list[StageShare]:
    """Of the stages of an episode."""
    return [
        (name, (last + 1 - first) / num_frames, first / num_frames)
        for name, first, last in stages_of(label) or ()
    ]


def proportions(shares: Iterable[StageShare]) -> dict[str, float]:
    """Mean share of each stage over episodes, in the order in which stages begin on average; they sum to 1.

    Example: proportions([("pick", 0.4, 0.0), ("place", 0.6, 0.4)]) == {"pick": 0.4, "place": 0.6}
    """
    by_name = grouped((name, (share, start)) for name, share, start in shares)
    means = {name: np.mean(values, axis=0) for name, values in by_name.items()}
    order = sorted(means, key=lambda name: (means[name][1], name))
    whole = sum(float(mean[0]) for mean in means.values())
    return {name: float(means[name][0]) / whole for name in order}


FILES_PER_CHUNK = 1000  # of data, and of each camera
STAMP_TOLERANCE = 0.1  # how far, as a share, rows may be from the rate at which they are stamped
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
# LeRobot's, made anew for an export
OWN = {"timestamp": "float32"} | dict.fromkeys(
    ("frame_index", "episode_index", "index", "task_index"), "int64"
)
LANGUAGE = {"language_persistent": PERSISTENT, "language_events": EVENTS}
OURS = ("progress", "subtask", *LANGUAGE)  # our labels
NOT_IN_ROWS = ("video", "image", "language")  # kinds of features that are not numbers in the rows
NAMES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "string")
TYPES = {name: pa.type_for_alias(name) for name in NAMES}
STATE = "observation.state"
ACTION = "action"
PICTURES = "observation.images."

Feature = dict[str, Any]  # dtype, shape, names, as info.json has it


def place(number: int) -> dict[str, int]:
    """A file's place in LeRobot's folders, which hold so many files each."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def rate_of(rates: set[float], fps: float | None = None, *, may_stamp: bool = False) -> float:
    """The rate at which rows are stamped: `fps` where all rates are near it; without one
    that of all; measured ones that differ by a hair come to a whole number.
    `may_stamp`: another `fps` may be asked for. Raises UserError.

    Examples: rate_of({29.9, 30.1}) == 30.0; rate_of({18.4, 18.6}, 20.0) == 20.0
    """
    rate = _common_rate(rates) if fps is None else fps
    if rate is not None and (fps is None or _are_near(rates, fps)):
        return rate
    whole = float(round(median(rates)))
    is_near = _are_near(rates, whole)
    rates_text = f"these episodes have {_span(rates)}"
    if fps is None:
        stamp = f"stamp all rows at one, such as --fps {whole:g}, or " * (is_near and may_stamp)
        remedy = f"{stamp}add {_of_one(rates)}"
        raise UserError(f"a LeRobot dataset has one frame rate, {rates_text}: {remedy}")
    remedy = f"leave --fps out, and add {_of_one(rates)}"
    if is_near:
        remedy = f"give --fps {whole:g}"
    raise UserError(
        f"{rates_text} frames per second: at {fps:g} they would be more than a tenth too fast or too slow; {remedy}"
    )


def _common_rate(rates: Collection[float]) -> float | None:
    """None: they have none."""
    if len(rates) == 1:
        return next(iter(rates))
    whole = float(round(median(rates)))
    # Rates that were measured from times scatter around the true one
    if whole and all(abs(rate / whole - 1) < RATE_TOLERANCE for rate in rates):
        return whole
    return None


def _are_near(rates: set[float], fps: float) -> bool:
    return all(abs(fps / rate - 1) <= STAMP_TOLERANCE for rate in rates)


def _of_one(rates: set[float]) -> str:
    """The option that chooses the most of some rates that have a common one."""
    groups = grouped((round(rate), rate) for rate in sorted(rates))
    group = max(filter(_common_rate, [*groups.values(), [min(rates)]]), key=len)
    low = floor(1000 * min(group)) / 1000
    high = ceil(1000 * max(group)) / 1000
    return f"--where 'fps BETWEEN {low:.3f} AND {high:.3f}'"


def _span(rates: set[float]) -> str:
    return " to ".join(dict.fromkeys((f"{min(rates):g}", f"{max(rates):g}")))


class LerobotPlan(Export):
    """What all parts of an export need to know. Raises UserError for episodes that cannot be one dataset.

    `cameras`: those that all episodes have, as the export calls them.
    `index`: number of each episode in the export. `starts`: the global index of its first frame, and last the number
    of frames. Filled as videos are written: `sizes`, (height, width) of each camera; `codecs`, of its first file;
    `places`, by camera, dataset and episode, the number of the video's file and the seconds at which pictures begin.
    """

    # Columns that a kind adds to the rows, by their types in TYPES; values [n] of an episode's
    added: Mapping[str, str] = MappingProxyType({})

    def added_columns(self, e: Episode) -> dict[str, np.ndarray]:
        return {}

    only_labelled = True

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        if not self.options.only_complete:
            return selected
        complete = {
            x.episode.key
            for x in selected.exported(selected.episodes)
            if x.label and why_no_stages(x.label) is None
        }
        return selected.only(complete, "without SARM stages")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        in_all = set.intersection(*(set(self.cameras_of(e)) for e in self.selected.episodes))
        if not in_all:
            raise UserError(
                "the episodes have no camera in common: choose with --dataset or --where"
            )
        self.cameras = [
            camera for camera in self.cameras_of(self.selected.episodes[0]) if camera in in_all
        ]
        self.fps = rate_of(
            {e.fps for e in self.selected.episodes}, self.options.fps, may_stamp=True
        )
        self.index = {e.key: number for number, e in enumerate(self.selected.episodes)}
        self.starts = [0, *accumulate(e.num_frames for e in self.selected.episodes)]
        self.sizes: dict[str, tuple[int, int]] = {}
        self.codecs: dict[str, str] = {}
        self.places: dict[tuple[str, str, int], tuple[int, float]] = {}
        if self.options.blur:
            weights_file()  # they may not be there

    def cameras_of(self, e: Episode) -> dict[str, str]:
        """An episode's cameras in its source, by the names that they have in the export.

        Example: "camera/front", of a source that is none of LeRobot's, is observation.images.camera_front.
        """
        if self.selected.readers[e.dataset].info is not None:
            return {camera: camera for camera in e.cameras}
        cameras: dict[str, str] = {}
        for camera in e.cameras:
            is_named = camera.startswith(PICTURES)
            name = camera if is_named else PICTURES + camera.replace("/", "_")
            # "camera/front" and "camera_front" may both be there
            while name in cameras:
                name += "_"
            cameras[name] = camera
        return cameras

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector()

    @cached_property
    def _features(self) -> tuple[dict[str, Feature], list[str]]:
        """Low-dimensional features that all datasets have alike, and notes on what is left out."""
        first_episodes = {e.dataset: e for e in reversed(self.selected.episodes)}
        dataset_features = [
            features(reader, first_episodes[dataset])
            for dataset, reader in self.selected.readers.items()
        ]
        (first, _), *other_features = dataset_features
        shared = common_items(first, (dataset_part for dataset_part, _ in other_features))
        common = {name: f for name, f in shared.items() if name not in self.added}
        dropped_names = (
            set(chain.from_iterable(dataset_part for dataset_part, _ in dataset_features))
            - shared.keys()
        )
        notes = list(chain.from_iterable(exclusions for _, exclusions in dataset_features))
        notes += [
            f"the feature {name} is left out: not all datasets have it alike"
            for name in sorted(dropped_names)
        ]
        return common, notes

    @property
    def features(self) -> dict[str, Feature]:
        return self._features[0]

    def plan_notes(self) -> list[str]:
        """What a user should know of this export, as far as metadata says it."""
        cameras = dict.fromkeys(
            chain.from_iterable(self.cameras_of(e) for e in self.selected.episodes)
        )
        dropped_cameras = [camera for camera in cameras if camera not in self.cameras]
        notes = [
            f"the camera {camera} is left out: not every episode has it"
            for camera in dropped_cameras
        ]
        rates = {e.fps for e in self.selected.episodes}
        if rates != {self.fps}:
            off_s = max(
                abs(e.num_frames / self.fps - e.num_frames / e.fps) for e in self.selected.episodes
            )
            notes.append(
                f"rows are stamped at {self.fps:g} frames per second, though {_span(rates)} were measured: times are "
                f"up to {off_s:.2f} s off at the end of an episode"
            )
        if self.fps != round(self.fps):
            notes.append(f"the frame rate is {self.fps}: LeRobot's metadata means a whole number")
        notes += self._features[1]
        return notes + counted(
            sum(not e.task for e in self.selected.episodes), "episodes have no instruction"
        )

    @cached_property
    def own_features(self) -> dict[str, Feature]:
        """LeRobot's own columns, our labels, and what a kind adds."""
        types = OWN | {"progress": "float32", "subtask": "string", **self.added}
        if not self.options.plain:
            types |= dict.fromkeys(LANGUAGE, "language")
        return {
            name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in types.items()
        }

    @cached_property
    def schema(self) -> pa.Schema:
        fields: dict[str, pa.DataType] = {}
        for name, feature in (self.features | self.own_features).items():
            type_ = LANGUAGE.get(name) or TYPES[feature["dtype"]]
            width = prod(feature["shape"])
            fields[name] = type_ if width == 1 else pa.list_(type_, width)
        return pa.schema([*fields.items()])

    @cached_property
    def numeric(self) -> list[str]:
        """Features with statistics, less cameras."""
        return [
            f.name
            for f in self.schema
            if not pa.types.is_string(f.type) and not pa.types.is_list(f.type)
        ]

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Task texts by index, in the order of their first episode; with the names of steps where
        they are tasks."""
        tasks = dict.fromkeys(e.task or "" for e in self.selected.episodes)
        if self.options.flavour == "subtask":
            for x in self.episodes():
                tasks |= dict.fromkeys(filter(None, step_names(x.label, x.episode.num_frames)))
        return {text: index for index, text in enumerate(tasks)}

    @cached_property
    def files(self) -> list[VideoFile]:
        files: list[VideoFile] = []
        readers = self.selected.readers
        for camera in self.cameras:
            clips = (
                Clip(readers[e.dataset], self.cameras_of(e)[camera], e)
                for e in self.selected.episodes
            )
            files += plan_files(camera, clips, self.fps)
        return files


def common_items[V](
    first: Mapping[str, V], other_mappings: Iterable[Mapping[str, V]]
) -> dict[str, V]:
    """What a mapping and all others have under the same key, in the order of the first."""
    common = dict(first)
    for other_mapping in other_mappings:
        common = {key: value for key, value in common.items() if other_mapping.get(key) == value}
    return common


def features(reader: SourceReader, first: Episode) -> tuple[dict[str, Feature], list[str]]:
    """Features that the dataset's episodes have rows for, and sentences about those that are left out.

    `first`: the dataset's first episode, whose rows are looked at.
    """
    if reader.info is not None:
        return _of_lerobot(reader, reader.info["features"], first)
    episode = reader.episode(first)
    features_by_name: dict[str, Feature] = {}
    notes = []
    for name, values, dimension_names in rows_of(episode):
        if values is None:
            notes.append(f"{reader.dataset}: its source has no {name}")
            continue
        width = values.shape[1]
        names = list(dimension_names) or [f"{name.rpartition('.')[2]}_{k}" for k in range(width)]
        features_by_name[name] = {"dtype": "float32", "shape": [width], "names": names}
    return features_by_name, notes


def rows_of(episode: EpisodeData) -> tuple[tuple[str, np.ndarray | None, Sequence[str]], ...]:
    """State and action of an episode that is no LeRobot source's, by the names of their features: values float64 [n, d]
    and the names of their dimensions."""
    state = (episode.state, episode.state_names)
    action = (episode.action, episode.action_names)
    return (STATE, *state), (ACTION, *action)


def _of_lerobot(
    reader: SourceReader, declared: Mapping[str, Any], first: Episode
) -> tuple[dict[str, Feature], list[str]]:
    """Those of a LeRobot source, as its info.json declares them."""
    with pq.ParquetFile(reader.source.resolve(reader.record(first).data_uri or "")) as file:
        in_rows = set(file.schema_arrow.names)
        skipped = {*OWN, *OURS, *picture_columns(file.schema_arrow)}
    copied_features: dict[str, Feature] = {}
    notes = []
    for name, feature in declared.items():
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        if kind in NOT_IN_ROWS or name in skipped:
            continue
        shape = list(feature.get("shape") or [1])
        # What the source declares and cannot be given on is told in the card, not dropped in silence
        if name not in in_rows:
            notes.append(f"{reader.dataset}: the feature {name} is declared, but not in the rows")
        elif kind not in TYPES or len(shape) > 1:
            notes.append(
                f"{reader.dataset}: the feature {name} ({kind}, shape {shape}) is left out"
            )
        else:
            copied_features[name] = {"dtype": kind, "shape": shape, "names": feature.get("names")}
    return copied_features, notes
