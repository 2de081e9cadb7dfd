"""What a LeRobot export is to have, from metadata alone: episodes, rate, cameras, features, tasks, files.

Low-dimensional features are those of a LeRobot source as they are, else state and gripper.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from math import prod
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from ingest.formats.lerobot_rows import picture_columns
from ingest.formats.tables import read_columns
from ingest.media.faces import FaceDetector, weights_file
from ingest.reasons import DataError
from warehouse.exports.export import Export, counted
from warehouse.exports.labels import each_label
from warehouse.exports.lerobot_labels import EVENTS, PERSISTENT, step_names, why_no_stages
from warehouse.exports.options import Selection
from warehouse.exports.selection import ExportEpisode, Selected, SourceReader, select
from warehouse.exports.videos import Clip, VideoFile, plan_files
from warehouse.lake import Lake

FILES_PER_CHUNK = 1000  # of data, and of each camera
RATE_TOLERANCE = 0.02  # measured frame rates that differ by less, as a share, are taken for one
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # LeRobot's, made anew for an export
OURS = ("progress", "subtask", "language_persistent", "language_events")  # our labels
NOT_IN_ROWS = ("video", "image", "language")  # kinds of features that are not numbers in the rows
NAMES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "string")
TYPES = {name: pa.type_for_alias(name) for name in NAMES}
STATE = "observation.state"

Feature = dict[str, Any]  # dtype, shape, names, as info.json has it


def place(number: int) -> dict[str, int]:
    """A file's place in LeRobot's folders, which hold so many files each."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def rate_of(rates: set[float]) -> float:
    """The one frame rate of some episodes; measured ones that differ by a hair come to a whole number.

    Examples: rate_of({29.97}) == 29.97; rate_of({29.9, 30.1}) == 30.0; rate_of({15.0, 30.0}) raises UserError
    """
    if len(rates) == 1:
        return rates.copy().pop()
    whole = float(round(median(rates)))
    # Rates that were measured from times scatter around the true one
    if whole and all(abs(rate / whole - 1) < RATE_TOLERANCE for rate in rates):
        return whole
    span = f"{min(rates):g} to {max(rates):g}"
    raise UserError(f"a LeRobot dataset has one frame rate, these episodes have {span}: add --where 'fps = ...'")


class LerobotPlan(Export):
    """What all parts of an export need to know. Raises UserError for episodes that cannot be one dataset.

    `index`: number of each episode in the export. `starts`: the global index of its first frame, and last the number
    of frames. Filled as videos are written: `sizes`, (height, width) of each camera; `codecs`, of its first file;
    `places`, by camera, dataset and episode, the number of the video's file and the seconds at which pictures begin.
    """

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = select(lake, selection)
        if not self.options.only_complete:
            return selected
        complete = {e.key for e, label in each_label(selected) if label and why_no_stages(label) is None}
        if len(complete) == len(selected.episodes):
            return selected
        return selected.only(complete, f"{len(selected.episodes) - len(complete)} episodes without SARM stages")

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.episodes = self.selected.episodes
        in_all = set.intersection(*(set(e.cameras) for e in self.episodes))
        if not in_all:
            raise UserError("the episodes have no camera in common: choose with --dataset or --where")
        self.cameras = [camera for camera in self.episodes[0].cameras if camera in in_all]  # those that all have
        self.fps = rate_of({e.fps for e in self.episodes})
        self.index = {e.key: number for number, e in enumerate(self.episodes)}
        self.starts = [0, *accumulate(e.num_frames for e in self.episodes)]
        self.sizes: dict[str, tuple[int, int]] = {}
        self.codecs: dict[str, str] = {}
        self.places: dict[tuple[str, str, int], tuple[int, float]] = {}
        if self.options.blur:
            weights_file()  # they may not be there

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector()

    @cached_property
    def _features(self) -> tuple[dict[str, Feature], list[str]]:
        """Low-dimensional features that all datasets have alike, and notes on what is left out."""
        first_episodes = {e.dataset: e for e in reversed(self.episodes)}
        found = [features(reader, first_episodes[dataset]) for dataset, reader in self.readers.items()]
        (first, _), *others = found
        common = {name: f for name, f in first.items() if all(of.get(name) == f for of, _ in others)}
        lost = set(chain.from_iterable(of for of, _ in found)) - common.keys()
        notes = [note for _, left_out in found for note in left_out]
        notes += [f"the feature {name} is left out: not all datasets have it alike" for name in sorted(lost)]
        return common, notes

    @property
    def features(self) -> dict[str, Feature]:
        return self._features[0]

    def plan_notes(self) -> list[str]:
        """What a user should know of this export, as far as metadata says it."""
        cameras = dict.fromkeys(chain.from_iterable(e.cameras for e in self.episodes))
        lost = [camera for camera in cameras if camera not in self.cameras]
        notes = [f"the camera {camera} is left out: not every episode has it" for camera in lost]
        if any(e.fps != self.fps for e in self.episodes):
            notes.append(f"frame rates of about {self.fps:g} were measured, and are taken as that")
        if self.fps != round(self.fps):
            notes.append(f"the frame rate is {self.fps}: LeRobot's metadata means a whole number")
        notes += self._features[1]
        return notes + counted(sum(not e.task for e in self.episodes), "episodes have no instruction")

    @cached_property
    def schema(self) -> pa.Schema:
        own = {"timestamp": pa.float32()} | dict.fromkeys(OWN[1:], pa.int64())
        ours = {"progress": pa.float32(), "subtask": pa.string()}
        language = {"language_persistent": PERSISTENT, "language_events": EVENTS}
        sizes = {name: (TYPES[feature["dtype"]], prod(feature["shape"])) for name, feature in self.features.items()}
        of_source = {name: value if size == 1 else pa.list_(value, size) for name, (value, size) in sizes.items()}
        return pa.schema([*of_source.items(), *(own | ours | language).items()])

    @cached_property
    def numeric(self) -> list[str]:
        """Features with statistics, less cameras."""
        return [f.name for f in self.schema if not pa.types.is_string(f.type) and not pa.types.is_list(f.type)]

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Task texts by index, in the order of their first episode; with the names of steps where they are tasks."""
        tasks = dict.fromkeys(e.task or "" for e in self.episodes)
        if self.options.flavour == "subtask":
            for e, label in each_label(self.selected):
                tasks |= dict.fromkeys(filter(None, step_names(label, e.num_frames)))
        return {text: index for index, text in enumerate(tasks)}

    @cached_property
    def files(self) -> list[VideoFile]:
        clips = {c: [Clip.of(self.readers[e.dataset], c, e) for e in self.episodes] for c in self.cameras}
        return list(chain.from_iterable(plan_files(camera, of_camera) for camera, of_camera in clips.items()))


def features(reader: SourceReader, first: ExportEpisode) -> tuple[dict[str, Feature], list[str]]:
    """Features that the dataset's episodes have rows for, and sentences about those that are left out.

    `first`: the dataset's first episode, whose rows are looked at.
    """
    dataset = reader.dataset
    if reader.info is None:
        episode = reader.episode(first)
        if episode.state is None:
            return {}, [f"{dataset}: its source has no state; actions are only taken from LeRobot sources"]
        width = episode.state.shape[1]
        names = list(episode.state_names) or [f"state_{k}" for k in range(width)]
        feature = {"dtype": "float32", "shape": [width], "names": names}
        return {STATE: feature}, [f"{dataset}: actions are only taken from LeRobot sources"]
    return _of_lerobot(reader, reader.info["features"], first)


def _of_lerobot(
    reader: SourceReader, declared: Mapping[str, Any], first: ExportEpisode
) -> tuple[dict[str, Feature], list[str]]:
    """Those of a LeRobot source, as its info.json declares them."""
    with pq.ParquetFile(reader.source.resolve(reader.record(first).data_uri or "")) as file:
        in_rows, skipped = set(file.schema_arrow.names), {*OWN, *OURS, *picture_columns(file.schema_arrow)}
    taken: dict[str, Feature] = {}
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
            notes.append(f"{reader.dataset}: the feature {name} ({kind}, shape {shape}) is left out")
        else:
            taken[name] = {"dtype": kind, "shape": shape, "names": feature.get("names")}
    return taken, notes


def columns(reader: SourceReader, e: ExportEpisode, wanted: Mapping[str, Feature]) -> dict[str, pa.Array]:
    """An episode's rows of some features. Raises UserError where the source has changed since it was built."""
    if reader.info is not None:
        return _stored(reader, e, wanted)
    if not wanted:
        return {}
    state, shape = reader.episode(e).state, wanted[STATE]["shape"]
    if state is None or state.shape != (e.num_frames, shape[0]):
        raise UserError(f"the state of {e.dataset} episode {e.episode_index} has another shape than the first's")
    return {STATE: _fixed(pa.array(state.astype(np.float32).ravel()), shape)}


def _stored(reader: SourceReader, e: ExportEpisode, wanted: Mapping[str, Feature]) -> dict[str, pa.Array]:
    """The same of a LeRobot source."""
    record, data = reader.record(e), reader.record(e).data_uri or ""
    if reader.source.stamp([*(video.uri for video in record.videos), data], record.num_rows) != record.source_stamp:
        raise UserError(f"the files of {e.dataset} episode {e.episode_index} have changed: build the dataset again")
    try:
        table = read_columns(reader.source.resolve(data), record.row_start, e.num_frames, tuple(wanted))
        return {name: _cast(table, name, feature, e.num_frames) for name, feature in wanted.items()}
    except (DataError, pa.ArrowException) as error:
        raise UserError(f"rows of {e.dataset} episode {e.episode_index}: {error}") from error


def _cast(table: pa.Table, name: str, feature: Feature, num_frames: int) -> pa.Array:
    if name not in table.schema.names:
        raise DataError(f"there is no column {name}")
    flat = table[name].combine_chunks()
    while hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    if len(flat) != num_frames * prod(feature["shape"]):
        raise DataError(f"column {name} has {len(flat)} values in {num_frames} rows, not {feature['shape']} each")
    return _fixed(flat.cast(TYPES[feature["dtype"]]), feature["shape"])


def _fixed(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    return flat if prod(shape) == 1 else pa.FixedSizeListArray.from_arrays(flat, prod(shape))
