"""What an adapter says of a dataset: episode records, findings, and an episode's data.

`episode_index` counts episodes of one dataset; row k of an episode belongs to frame k of every camera.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.video import Frame

# Reason codes of findings: what each one means to the person who has to act on it
REASONS = {
    "no_metadata": "meta/info.json is absent, empty, not JSON, or lacks features or fps",
    "no_episodes": "the source was recognised, but it lists no episode",
    "no_data": "there is no table with the episode's rows",
    "unreadable_data": "the table with the episode's rows cannot be read (truncated, or not Parquet)",
    "lfs_pointer": "the file is a git-LFS pointer: fetch the real file with `git lfs pull`",
    "no_video": "no camera of the episode has a video file",
    "missing_camera": "this camera has no video file for the episode",
    "camera_without_files": "the camera is declared, but no episode has a file of it",
    "images_in_rows": "the camera's pictures are stored in the rows, which is not read yet",
    "bad_video_pointer": "the metadata does not say where the episode's video is, or cannot be right about it",
    "undecodable_video": "the video cannot be decoded",
    "frame_count": "the video has more or fewer frames than the episode has rows",
    "black_video": "every frame is black",
    "frozen_video": "no frame differs from the first",
    "too_short": "fewer frames than a label needs",
    "no_task": "the episode has no instruction",
    "not_in_metadata": "rows were found of an episode that the metadata does not list",
    "path_template": "the path template of info.json leads nowhere; the standard layout or a search was used",
    "length_differs": "the metadata gives another length than the rows have",
    "timestamp_drift": "the rows' timestamps do not follow the nominal frame rate; frames are matched by row number",
    "row_order": "the episode's rows do not stand together in its file",
    "stray_file": "a file in the layout's folders that the metadata does not name",
}


@dataclass(frozen=True)
class Finding:
    reason: str
    detail: str
    severity: str = "unusable"
    episode_index: int | None = None
    camera: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.reason not in REASONS or self.severity not in ("unusable", "warning"):
            raise ValueError(f"unknown finding {self.reason!r} / {self.severity!r}")


@dataclass(frozen=True)
class CameraVideo:
    camera: str
    uri: str  # relative to the source
    start_frame: int  # where the episode begins in the file


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode as its source lists it; nothing was decoded."""

    episode_index: int
    source_id: str
    fps: float
    task: str | None
    tasks: tuple[str, ...] = ()
    num_rows: int | None = None
    data_uri: str | None = None
    row_start: int = 0
    videos: tuple[CameraVideo, ...] = ()
    success: bool | None = None
    group: str = ""
    source_stamp: str = ""

    @property
    def cameras(self) -> list[str]:
        return [v.camera for v in self.videos]


@dataclass(frozen=True)
class Listing:
    """A dataset's facts, its episodes in order of episode_index, and what is wrong with them."""

    format: str
    fps: float | None
    robot: str | None
    cameras: tuple[str, ...]
    records: tuple[EpisodeRecord, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Episode:
    """Low-dimensional rows of one episode, and a frame iterator per camera.

    `state` and `gripper` have one row per frame: float64 [n, d] and [n] (opening, source units); None when the
    source has none. `frames(camera)` yields (frame_index, timestamp_s, frame), streaming, and raises VideoError.
    """

    record: EpisodeRecord
    state: np.ndarray | None
    gripper: np.ndarray | None
    timestamps_s: np.ndarray | None
    frames: Callable[[str], Iterator[tuple[int, float, Frame]]] = field(repr=False)


def record_row(record: EpisodeRecord) -> dict[str, Any]:
    """The record as columns of the table episode_facts (without dataset and chunk)."""
    row = {k: getattr(record, k) for k in record.__dataclass_fields__}
    row["tasks"] = list(record.tasks)
    row["videos"] = [v.__dict__ for v in record.videos]
    return row | {"cameras": record.cameras}


def record_from_row(row: dict[str, Any]) -> EpisodeRecord:
    """Inverse of record_row."""
    fields = {k: row[k] for k in EpisodeRecord.__dataclass_fields__}
    fields["tasks"] = tuple(row["tasks"])
    fields["videos"] = tuple(CameraVideo(**v) for v in row["videos"])
    return EpisodeRecord(**fields)
