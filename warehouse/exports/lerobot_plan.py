"""What all parts of a LeRobot export need to know: episodes, rate, cameras, features, tasks, files."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from statistics import median
from typing import Literal

import pyarrow as pa

from ingest.formats.lerobot_meta import video_rate
from ingest.formats.lerobot_videos import holds_other_episodes
from ingest.media.video import probe
from warehouse.exports.common import ExportError, Selected
from warehouse.exports.lerobot_features import OWN, Feature, column_type, features, open_reader
from warehouse.exports.subtasks import EVENTS, PERSISTENT
from warehouse.exports.videos import Clip, VideoFile, is_copyable, plan_files

FILES_PER_CHUNK = 1000  # of data, and of each camera
RATE_TOLERANCE = 0.02
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True)
class LerobotOptions:
    """`flavour` subtask: a frame's task is the step under way, which is all that 0.6 feeds to policies.

    `codec` is that of pictures that have to be encoded; `chunk_sizes` as in RabcOptions.
    """

    flavour: Literal["task", "subtask"] = "task"
    codec: Literal["h264", "av1"] = "h264"
    chunk_sizes: tuple[int, ...] = (16, 32, 50, 100)


@dataclass(frozen=True)
class ClipPlace:
    """Where an exported episode's pictures begin, by camera's file number and seconds."""

    file: int
    start_s: float


def rate_of(rates: set[float]) -> float:
    """The one frame rate of some episodes; measured ones that differ by a hair come to a whole number."""
    if len(rates) == 1:
        return rates.copy().pop()
    whole = float(round(median(rates)))
    if whole and all(abs(r / whole - 1) < RATE_TOLERANCE for r in rates):
        return whole
    told = f"{min(rates):g} to {max(rates):g}"
    raise ExportError(f"a LeRobot dataset has one frame rate, these episodes have {told}: add --where 'fps = ...'")


class LerobotPlan:
    """What all parts of an export need to know; found once, from metadata alone."""

    def __init__(self, selected: Selected, options: LerobotOptions) -> None:
        self.selected, self.options = selected, options
        self.episodes = selected.episodes
        self.fps = rate_of({e.fps for e in self.episodes})
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
                copyable = not swapped and is_copyable(reader.format, record, video.uri)
                info = dict(reader.info) if reader.info else None
                rate = video_rate(info, camera, record.fps) if info else record.fps
                shared = info is not None and holds_other_episodes(info, video.uri)
                clips.append(Clip(e, video.uri if copyable else None, shared, video.start_frame, rate))
        return plan_files(camera, clips, self._frames_of_file)

    def _frames_of_file(self, dataset: str, uri: str) -> int | None:
        return probe(self.readers[dataset].source.resolve(uri)).num_frames

    @cached_property
    def places(self) -> dict[tuple[str, str, int], ClipPlace]:
        """By camera, dataset and episode; filled as videos are written."""
        return {}
