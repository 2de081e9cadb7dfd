"""Plan a LeRobot export from metadata alone: episodes, rate, cameras, features, tasks, files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from statistics import median

import pyarrow as pa

from ingest.media.faces import FaceDetector, weights_file
from warehouse.exports.common import ExportEpisode, ExportError, Selected
from warehouse.exports.episode_videos import clip_of, frames_of_file
from warehouse.exports.labels import chunk_labels
from warehouse.exports.language import EVENTS, PERSISTENT
from warehouse.exports.lerobot_features import OWN, Feature, column_type, features, open_reader
from warehouse.exports.options import LerobotOptions
from warehouse.exports.subtasks import step_names
from warehouse.exports.videos import VideoFile, plan_files

FILES_PER_CHUNK = 1000  # of data, and of each camera
RATE_TOLERANCE = 0.02  # measured frame rates that differ by less, as a share, are taken for one
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True)
class FileNumber:
    """A file's place in LeRobot's folders, which hold so many files each."""

    chunk_index: int
    file_index: int

    @classmethod
    def of(cls, number: int) -> "FileNumber":
        return cls(number // FILES_PER_CHUNK, number % FILES_PER_CHUNK)

    def path(self, pattern: str, **names: str) -> str:
        """One of the patterns above, filled in."""
        return pattern.format(chunk_index=self.chunk_index, file_index=self.file_index, **names)


@dataclass(frozen=True)
class ClipPlace:
    """Where an exported episode's pictures begin, by camera's file and seconds."""

    file: FileNumber
    start_s: float


def rate_of(rates: set[float]) -> float:
    """The one frame rate of some episodes; measured ones that differ by a hair come to a whole number.

    Examples: rate_of({29.97}) == 29.97; rate_of({29.9, 30.1}) == 30.0; rate_of({15.0, 30.0}) raises ExportError
    """
    if len(rates) == 1:
        return rates.copy().pop()
    whole = float(round(median(rates)))
    # Rates that were measured from times scatter around the true one
    if whole and all(abs(rate / whole - 1) < RATE_TOLERANCE for rate in rates):
        return whole
    span = f"{min(rates):g} to {max(rates):g}"
    raise ExportError(f"a LeRobot dataset has one frame rate, these episodes have {span}: add --where 'fps = ...'")


def _cameras_of_all(episodes: Sequence[ExportEpisode]) -> list[str]:
    """The cameras that every episode has, in the order of the first one's."""
    in_all = set(episodes[0].cameras).intersection(*(e.cameras for e in episodes))
    return [camera for camera in episodes[0].cameras if camera in in_all]


def _common(per_dataset: Sequence[dict[str, Feature]]) -> dict[str, Feature]:
    """The features that every dataset has, and has alike."""
    first, *others = per_dataset
    return {name: feature for name, feature in first.items() if all(o.get(name) == feature for o in others)}


class LerobotPlan:
    """What all parts of an export need to know. Raises ExportError for episodes that cannot be one dataset.

    `index`: number of each episode in the export. `starts`: the global index of its first frame, and last the number
    of frames. `sizes`: (height, width) of each camera, filled as videos are written.
    """

    def __init__(self, selected: Selected, options: LerobotOptions) -> None:
        self.selected, self.options = selected, options
        self.episodes = selected.episodes
        self.fps = rate_of({e.fps for e in self.episodes})
        self.index = {e.key: number for number, e in enumerate(self.episodes)}
        self.starts = [0, *accumulate(e.num_frames for e in self.episodes)]
        self.cameras = _cameras_of_all(self.episodes)
        if not self.cameras:
            raise ExportError("the episodes have no camera in common: choose with --dataset or --where")
        self.readers = {dataset: open_reader(selected, dataset) for dataset in selected.datasets}
        self.sizes: dict[str, tuple[int, int]] = {}
        # Before anything is written: the weights may not be there
        self.detector = FaceDetector()
        if options.blur:
            weights_file()

    @cached_property
    def _features(self) -> tuple[dict[str, Feature], list[str]]:
        """Low-dimensional features that all datasets have alike, and notes on what is left out."""
        first_episodes = {e.dataset: e for e in reversed(self.episodes)}
        per_dataset: list[dict[str, Feature]] = []
        notes: list[str] = []
        for dataset, reader in self.readers.items():
            of_dataset, left_out = features(reader, first_episodes[dataset])
            per_dataset.append(of_dataset)
            notes += left_out
        common = _common(per_dataset)
        lost = set(chain.from_iterable(per_dataset)) - common.keys()
        notes += [f"the feature {name} is left out: not all datasets have it alike" for name in sorted(lost)]
        return common, notes

    @property
    def features(self) -> dict[str, Feature]:
        return self._features[0]

    @cached_property
    def notes(self) -> list[str]:
        """What a user should know of this export, as far as metadata says it."""
        notes = [*self._camera_notes(), *self._rate_notes(), *self._features[1]]
        without = sum(not e.task for e in self.episodes)
        if without:
            notes.append(f"{without} episodes have no instruction")
        return notes

    def _camera_notes(self) -> list[str]:
        cameras = dict.fromkeys(chain.from_iterable(e.cameras for e in self.episodes))
        lost = [camera for camera in cameras if camera not in self.cameras]
        return [f"the camera {camera} is left out: not every episode has it" for camera in lost]

    def _rate_notes(self) -> list[str]:
        notes = []
        if any(e.fps != self.fps for e in self.episodes):
            notes.append(f"frame rates of about {self.fps:g} were measured, and are taken as that")
        if self.fps != round(self.fps):
            notes.append(f"the frame rate is {self.fps}: LeRobot's metadata means a whole number")
        return notes

    @cached_property
    def schema(self) -> pa.Schema:
        own = {"timestamp": pa.float32()} | dict.fromkeys(OWN[1:], pa.int64())
        ours = {"progress": pa.float32(), "subtask": pa.string()}
        language = {"language_persistent": PERSISTENT, "language_events": EVENTS}
        of_source = {name: column_type(feature) for name, feature in self.features.items()}
        return pa.schema([*of_source.items(), *(own | ours | language).items()])

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Task texts by index, in the order of their first episode; with the names of steps where they are tasks."""
        tasks = dict.fromkeys(e.task or "" for e in self.episodes)
        if self.options.flavour == "subtask":
            for dataset, chunk, episodes in self.selected.chunks():
                labels = chunk_labels(self.selected, dataset, chunk, episodes)
                for e in episodes:
                    tasks |= dict.fromkeys(filter(None, step_names(labels.get(e.episode_index), e.num_frames)))
        return {text: index for index, text in enumerate(tasks)}

    @cached_property
    def files(self) -> list[VideoFile]:
        return [file for camera in self.cameras for file in self._files(camera)]

    def _files(self, camera: str) -> list[VideoFile]:
        clips = [clip_of(self.readers[e.dataset], camera, e) for e in self.episodes]
        return plan_files(camera, clips, lambda dataset, uri: frames_of_file(self.readers[dataset], uri))

    @cached_property
    def places(self) -> dict[tuple[str, str, int], ClipPlace]:
        """By camera, dataset and episode; filled as videos are written."""
        return {}
