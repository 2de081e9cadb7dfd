"""Decoded runs for benchmarks/checkup.py: each set is decoded once, and its pictures are kept in a temporary folder.

A picture is kept as it is after its last halving (annotate/pictures.py), so that what is measured of a kept picture is
what is measured of the whole one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time

import numpy as np

from annotate.checkup.single_runs import CameraSignals, RunSignals, run_signals
from annotate.config import FRAMES_VERSION, FramesConfig
from annotate.frames import TINY_HZ, every_nth, frames_stage, timing
from annotate.pictures import GRID, FrameMeter, half_picture
from annotate.signal_lag import proprioception
from ingest.episode import EpisodeData, EpisodeRecord, Picture
from ingest.episodes import settle
from ingest.registry import DatasetConfig
from ingest.signals.gripper import GripperSignal
from ingest.signals.survey import survey
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source

NO_KEYFRAMES = FramesConfig(keyframe_interval_s=1e9)
INDEX = "cameras.json"  # of a kept dataset: its cameras by episode, and what decoding took


@dataclass(frozen=True)
class DecodedRun:
    """A run with n frames: its rows, and of each usable camera the measures and the pictures, uint8 [n, h, w]."""

    episode: EpisodeData
    grippers: Sequence[GripperSignal]
    cameras: Sequence[CameraSignals]
    pictures: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.cameras[0].change)

    @property
    def index(self) -> int:
        return self.episode.record.episode_index

    @property
    def fps(self) -> float:
        """As the build measures it by the rows' times."""
        return timing(self.episode.timestamps_s, self.episode.record.fps, certain=False)[0]

    def openings(self) -> Sequence[np.ndarray | None]:
        return proprioception(self.episode, self.grippers).openings

    def signals(self) -> RunSignals:
        """What the checkup is given of the run."""
        return run_signals(self.episode, self.fps, self.grippers, self.openings(), self.cameras)

    def with_pictures(self, camera: str, pictures: np.ndarray) -> "DecodedRun":
        """The run with other pictures [n, h, w] of a camera, measured anew."""
        cameras = [
            measured(camera, pictures, every_nth(TINY_HZ, self.episode.record.fps))
            if camera_measures.camera == camera
            else camera_measures
            for camera_measures in self.cameras
        ]
        return replace(self, cameras=cameras, pictures={**self.pictures, camera: pictures})


@dataclass(frozen=True)
class DecodedSet:
    """The runs of a dataset that have pictures. decoding_s: of CPU, when they were decoded."""

    name: str
    runs: Sequence[DecodedRun]
    decoding_s: float


def measured(camera: str, pictures: np.ndarray, tiny_every: int) -> CameraSignals:
    """What the frames stage measures of a camera's pictures [n, h, w]."""
    meter = FrameMeter(tiny_every)
    for picture in pictures:
        meter.add(np.ascontiguousarray(picture))
    return CameraSignals(camera=camera, **vars(meter.read()))


@dataclass
class PictureKeeper:
    """Keeps every picture of every camera that the frames stage measures."""

    pictures: dict[tuple[int, str], list[np.ndarray]] = field(default_factory=dict)

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        return 1

    def keep(
        self,
        episode_index: int,
        camera: str,
        frame_index: int,
        picture: Picture,
        half_luma: np.ndarray,
    ) -> None:
        self.pictures.setdefault((episode_index, camera), []).append(smallest_half(picture.luma()))

    def drop(self, episode_index: int, camera: str) -> None:
        del self.pictures[episode_index, camera]


def smallest_half(luma: np.ndarray) -> np.ndarray:
    """A picture [h, w] after all halvings by which it becomes a grid; of its own memory."""
    picture = luma
    while (half := half_picture(picture, GRID)) is not picture:
        picture = half
    if picture is luma:
        return picture.copy()
    return picture


def decoded_set(folder: Path, cache_folder: Path) -> DecodedSet:
    """The runs of a dataset; `cache_folder`: where pictures are looked for, and kept."""
    source = Source(DatasetConfig(name="checked", source=str(folder.resolve())))
    listing = settle(list_episodes(source), source.config)
    grippers = survey(source, listing.records, listing.robot).signals
    unusable_episodes = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    records = [
        record for record in listing.records if record.episode_index not in unusable_episodes
    ]
    place = cache_folder / f"{folder.name}-{_fingerprint(source)}"
    if not (place / INDEX).exists():
        _decode(source, records, grippers, place)
    index = json.loads((place / INDEX).read_text())
    runs = [
        _decoded(
            read_episode(source, record),
            grippers,
            index["cameras"][str(record.episode_index)],
            place,
        )
        for record in records
        if str(record.episode_index) in index["cameras"]
    ]
    return DecodedSet(folder.name, runs, index["decoding_s"])


def _fingerprint(source: Source) -> str:
    """Changes with the dataset's files and with the code that decides which cameras can be used."""
    text = repr([FRAMES_VERSION, sorted((uri, file.size) for uri, file in source.files.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _decode(
    source: Source, records: Sequence[EpisodeRecord], grippers: Sequence[GripperSignal], place: Path
) -> None:
    """Decode all runs by the stage that the build runs, and keep the pictures of usable cameras; the index comes last,
    so that a place that has it is whole."""
    place.mkdir(parents=True, exist_ok=True)
    cameras = {}
    decoding_s = 0.0
    for record in records:
        keeper = PictureKeeper()
        start_s = process_time()
        stored = frames_stage(
            source, [record], 0, NO_KEYFRAMES, lambda *_: None, [keeper], grippers
        )
        decoding_s += process_time() - start_s
        for content in stored.tables["episode_content"].to_pylist():
            cameras[record.episode_index] = content["usable_cameras"]
            for number, camera in enumerate(content["usable_cameras"]):
                pictures = np.stack(keeper.pictures[record.episode_index, camera])
                np.save(place / f"{record.episode_index}-{number}.npy", pictures)
    (place / INDEX).write_text(json.dumps({"cameras": cameras, "decoding_s": decoding_s}))


def _decoded(
    episode: EpisodeData, grippers: Sequence[GripperSignal], cameras: Sequence[str], place: Path
) -> DecodedRun:
    record = episode.record
    pictures = {
        camera: np.load(place / f"{record.episode_index}-{number}.npy", mmap_mode="r")
        for number, camera in enumerate(cameras)
    }
    stride = every_nth(TINY_HZ, record.fps)
    cameras_measured = [
        measured(camera, camera_pictures, stride) for camera, camera_pictures in pictures.items()
    ]
    return DecodedRun(episode, grippers, cameras_measured, pictures)
