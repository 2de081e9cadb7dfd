"""What the HDF5 adapters share: gathering a dataset's episodes with what is wrong with them, and streaming pictures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from ingest.episode import CameraVideo, EpisodeRecord, Finding, Listing, TimedPicture
from ingest.formats.cameras import scene_first
from ingest.formats.hdf5_file import Hdf5Error, cameras_of, checked, find, numbers, opened, walk
from ingest.formats.proprio import joined
from ingest.media.video import Picture, VideoError
from ingest.sources.files import Source

DEFAULT_FPS = 10.0
MAX_NAMED = 8  # datasets in a message


@dataclass
class Found:
    """A dataset's episodes as they are gathered, in order of source_id."""

    source: Source
    records: list[EpisodeRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    without_rate: int = 0

    def warn(self, reason: str, detail: str, uri: str, camera: str | None = None) -> None:
        """Of the episode that comes next."""
        self.findings.append(Finding(reason, detail, "warning", len(self.records), camera, uri))

    def unusable(self, reason: str, detail: str, uri: str) -> None:
        self.findings.append(Finding(reason, detail, "unusable", len(self.records), None, uri))

    def lose(self, error: Hdf5Error, uri: str, key: str = "") -> None:
        """An episode that cannot be read at all; a file that cannot be opened counts as one."""
        self.unusable(error.reason, str(error), uri)
        self.add(uri, key, fps=self.source.config.fps or DEFAULT_FPS)

    def rate(self, stated: float | None) -> float:
        """The registry's frame rate, else the stated one, else the default."""
        if not self.source.config.fps and stated is None:
            self.without_rate += 1
        return self.source.config.fps or stated or DEFAULT_FPS

    def cameras(self, uri: str, group: h5py.Group) -> dict[str, h5py.Dataset]:
        """Cameras of the coming episode that can be read, by preference; says what is wrong with the others."""
        escapes: list[str] = []
        good: dict[str, h5py.Dataset] = {}
        found = cameras_of(group, escapes)
        for camera in scene_first(found, self.source.config.cameras):
            try:
                good[camera] = checked(found[camera])
            except Hdf5Error as e:
                self.warn(e.reason, str(e), uri, camera)
        for path in escapes:
            self.warn("path_escape", f"{path} is a link to another file; not followed", uri)
        if not good:
            there = [path for path, _ in walk(group, [])]
            detail = f"no pictures that can be read among its {len(there)} datasets: {', '.join(there[:MAX_NAMED])}"
            self.unusable("no_video", detail, uri)
        return good

    def add(
        self,
        uri: str,
        key: str,
        *,
        fps: float,
        tasks: tuple[str, ...] = (),
        num_rows: int | None = None,
        cameras: Iterable[str] = (),
        success: bool | None = None,
        group: str = "",
        files: Iterable[str] = (),
    ) -> None:
        """The coming episode: the group `key` of a file; `files` are others that say something of it."""
        source_id = f"{uri}#{key.rpartition('/')[2]}" if key else uri
        self.records.append(
            EpisodeRecord(
                episode_index=len(self.records),
                source_id=source_id,
                fps=fps,
                task=tasks[0] if tasks else None,
                tasks=tasks,
                num_rows=num_rows,
                data_uri=uri,
                data_key=key,
                videos=tuple(CameraVideo(c, uri, 0) for c in cameras),
                success=success,
                group=group or source_id,
                source_stamp=self.source.stamp([uri, *files], num_rows),
            )
        )

    def listing(self, format_: str) -> Listing:
        cameras = {c for r in self.records for c in r.cameras}
        told = {(f.episode_index, f.camera) for f in self.findings}
        findings = list(self.findings)
        for r in self.records:
            for camera in sorted(cameras.difference(r.cameras)) if r.videos else ():
                if (r.episode_index, camera) not in told:
                    detail = f"no pictures of {camera}, which other episodes have"
                    findings.append(Finding("missing_camera", detail, "warning", r.episode_index, camera, r.data_uri))
        if self.without_rate:
            detail = f"nothing states the frame rate of {self.without_rate} episodes; {DEFAULT_FPS:g} fps is assumed"
            findings.append(Finding("no_frame_rate", detail, "warning"))
        if not self.records:
            findings.append(Finding("no_episodes", "no file holds an episode"))
        return Listing(
            format_,
            self.records[0].fps if self.records else None,
            self.source.config.robot,
            tuple(scene_first(cameras, self.source.config.cameras)),
            tuple(self.records),
            tuple(findings),
            numbered=False,
        )


def vectors(group: h5py.Group, paths: Iterable[str]) -> dict[str, h5py.Dataset]:
    """Those of some paths where there are rows of numbers."""
    found = {path: find(group, path) for path in paths}
    return {p: d for p, d in found.items() if isinstance(d, h5py.Dataset) and d.shape and d.dtype.kind in "fiub"}


def lengths(parts: dict[str, h5py.Dataset]) -> int | None:
    """Rows of vectors that belong side by side; None for none. Raises Hdf5Error when they differ."""
    rows = {path: part.shape[0] for path, part in parts.items()}
    if len(set(rows.values())) > 1:
        raise Hdf5Error(f"vectors of one episode differ in length: {rows}")
    for part in parts.values():
        checked(part)
    return next(iter(rows.values()), None)


def matrix(parts: dict[str, h5py.Dataset]) -> tuple[np.ndarray | None, list[str]]:
    """Vectors side by side, float64 [n, d], and a name per dimension: `path_0`, `path_1`, ... Raises Hdf5Error.

    Of a gripper with several joints only the first keeps the name: fingers can move in opposite directions (robosuite's
    Panda: 0..0.04 and -0.04..0), so that their mean says nothing.
    """
    lengths(parts)
    columns = {path: numbers(part) for path, part in parts.items()}
    names = []
    for path, values in columns.items():
        name = path.rpartition("/")[2]
        other = "finger" if "gripper" in name else name
        names += [f"{name if i == 0 else other}_{i}" for i in range(values.shape[1])]
    return joined(list(columns.values())), names


def stream(
    path: Path, key: str, camera: str, picture: Callable[[h5py.Dataset, int], Picture], fps: float
) -> Iterator[TimedPicture]:
    """(k, time in s, picture) of one camera of the episode at a group of a file. Raises VideoError."""
    try:
        with opened(path) as file:
            group = find(file, key)
            dataset = cameras_of(group, []).get(camera) if isinstance(group, h5py.Group) else None
            if dataset is None:
                raise VideoError(f"{path.name} has no pictures of {camera} any more")
            checked(dataset)
            for k in range(dataset.shape[0]):
                yield k, k / fps, picture(dataset, k)
    except Hdf5Error as e:
        raise VideoError(str(e), e.reason) from e
