"""Shared by the HDF5 adapters: they gather a dataset's episodes and findings, and stream pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ingest.episode import CameraVideo, EpisodeRecord, Finding, Listing, TimedPicture
from ingest.formats.cameras import scene_first
from ingest.formats.hdf5_file import Hdf5Error, cameras_of, checked, find, guarded, numbers, opened, value, walk
from ingest.formats.listing import ListingBuilder
from ingest.formats.proprio import joined
from ingest.limits import Limits
from ingest.media.video import Picture, VideoError
from ingest.outcomes import NO_EVIDENCE, SUCCESS_FIELDS, Evidence, Flag, Outcome, Reward, row_values, truth

DEFAULT_FPS = 10.0
MAX_NAMED = 8  # datasets in a message
REWARD_KEYS = ("rewards", "reward")


@dataclass
class Hdf5Listing(ListingBuilder):
    """A dataset's episodes as they are gathered, in order of source_id."""

    without_rate: int = 0

    def warn_next(self, reason: str, detail: str, uri: str, camera: str | None = None) -> None:
        """A warning of the episode that comes next."""
        self.warn(reason, detail, self.next_index, camera=camera, file=uri)

    def unusable_next(self, reason: str, detail: str, uri: str) -> None:
        """What makes the episode that comes next unusable."""
        self.unusable(reason, detail, self.next_index, file=uri)

    def add_lost(self, error: Hdf5Error, uri: str, key: str = "") -> None:
        """An episode that cannot be read at all; a file that cannot be opened counts as one."""
        self.unusable_next(error.reason, str(error), uri)
        self.add(uri, key, fps=self.source.config.fps or DEFAULT_FPS)

    def fps(self, stated: float | None) -> float:
        """The registry's frame rate, else the stated one, else the default."""
        if not self.source.config.fps and stated is None:
            self.without_rate += 1
        return self.source.config.fps or stated or DEFAULT_FPS

    def cameras(self, uri: str, group: h5py.Group) -> dict[str, h5py.Dataset]:
        """Cameras of the coming episode that can be read, by preference; finds what is wrong with the others."""
        # A camera that cannot be read is reported, and the others are used
        escapes: list[str] = []
        readable: dict[str, h5py.Dataset] = {}
        limits = self.source.config.limits
        cameras = cameras_of(group, escapes, limits)
        for camera in scene_first(cameras, self.source.config.cameras):
            try:
                readable[camera] = checked(cameras[camera], limits)
            except Hdf5Error as e:
                self.warn_next(e.reason, str(e), uri, camera)
        for path in escapes:
            self.warn_next("path_escape", f"{path} is a link to another file; not followed", uri)
        if not readable:
            self._report_no_pictures(uri, group)
        return readable

    def _report_no_pictures(self, uri: str, group: h5py.Group) -> None:
        """Say what else is there, by which a registry's author may see what the pictures are called."""
        paths = [path for path, _ in walk(group, [], self.source.config.limits)]
        detail = f"no pictures that can be read among its {len(paths)} datasets: {', '.join(paths[:MAX_NAMED])}"
        self.unusable_next("no_video", detail, uri)

    def shown_outcome(self, uri: str, group: h5py.Group, registered: Sequence[str]) -> Evidence:
        """What the coming episode's group says of its outcome: `registered` fields at their word, then the usual ones.

        A dataset has a value per row, of which the last counts; a single value or an attribute is stated once.
        """
        stated: Outcome | None = None
        flags: list[Flag] = []
        for name in dict.fromkeys((*registered, *SUCCESS_FIELDS)):
            stored = self._fact(uri, group, name)
            flag = row_values(stored).flag(name) if _has_rows(stored) else None
            success = truth(stored)
            if flag and name not in registered:
                flags.append(flag)
            elif flag:
                stated = stated or Outcome(flag.at_end, f"column {name}")
            elif success is not None:
                stated = stated or Outcome(success, f"metadata {name}")
        return Evidence(stated, tuple(flags), reward=self._reward(uri, group))

    def _reward(self, uri: str, group: h5py.Group) -> Reward | None:
        for name in REWARD_KEYS:
            stored = self._fact(uri, group, name)
            if _has_rows(stored) and (reward := row_values(stored).reward(name)):
                return reward
        return None

    def _fact(self, uri: str, group: h5py.Group, name: str) -> Any:
        """A small value of the coming episode; None, with a finding, where it cannot be read: the rest is used."""
        try:
            with guarded(f"{uri}, {name}"):
                return value(group, name, self.source.config.limits)
        except Hdf5Error as e:
            self.warn_next(e.reason, f"{e}; it says nothing of success", uri)
            return None

    def add(
        self,
        uri: str,
        key: str,
        *,
        fps: float,
        tasks: tuple[str, ...] = (),
        num_rows: int | None = None,
        cameras: Iterable[str] = (),
        evidence: Evidence = NO_EVIDENCE,
        group: str = "",
        files: Iterable[str] = (),
    ) -> None:
        """The coming episode: the group `key` of a file; `files` are others that say something of it."""
        # The id has the group's name, not its place, which other episodes of the file would move
        source_id = f"{uri}#{key.rpartition('/')[2]}" if key else uri
        self.evidence[self.next_index] = evidence
        self.records.append(
            EpisodeRecord(
                episode_index=self.next_index,
                source_id=source_id,
                fps=fps,
                task=next(iter(tasks), None),
                tasks=tasks,
                num_rows=num_rows,
                data_uri=uri,
                data_key=key,
                videos=tuple(CameraVideo(camera, uri, 0) for camera in cameras),
                group=group or source_id,
                source_stamp=self.source.stamp([uri, *files], num_rows),
            )
        )

    def finished(self, format_: str) -> Listing:
        """The listing, with findings that only all episodes together show."""
        cameras = set(self.cameras_in_use())
        self.findings += self._missing_cameras(cameras)
        if self.without_rate:
            detail = f"nothing states the frame rate of {self.without_rate} episodes; {DEFAULT_FPS:g} fps is assumed"
            self.warn("no_frame_rate", detail)
        if not self.records:
            self.lists_nothing("no file holds an episode")
        return self.listing(format_, self.first_fps(), scene_first(cameras, self.source.config.cameras))

    def _missing_cameras(self, cameras: set[str]) -> list[Finding]:
        """Cameras that an episode lacks and other episodes have, where no finding gives the reason yet."""
        # A camera that cannot be read has a finding that says more
        explained = {(finding.episode_index, finding.camera) for finding in self.findings}
        missing = []
        for record in self.records:
            # An episode without any camera has a finding that says so
            lacking = cameras.difference(record.cameras) if record.videos else ()
            unexplained = [camera for camera in sorted(lacking) if (record.episode_index, camera) not in explained]
            missing += [_without_camera(record, camera) for camera in unexplained]
        return missing


def _without_camera(record: EpisodeRecord, camera: str) -> Finding:
    detail = f"no pictures of {camera}, which other episodes have"
    return Finding("missing_camera", detail, "warning", record.episode_index, camera, record.data_uri)


def _has_rows(stored: Any) -> bool:
    """Several numbers or truths, one for each row."""
    return isinstance(stored, np.ndarray) and stored.size > 1 and stored.dtype.kind in "biuf"


def vectors(group: h5py.Group, paths: Iterable[str]) -> dict[str, h5py.Dataset]:
    """Those of some paths where there are rows of numbers."""
    datasets = {}
    for path in paths:
        dataset = find(group, path)
        if isinstance(dataset, h5py.Dataset) and dataset.shape and dataset.dtype.kind in "fiub":
            datasets[path] = dataset
    return datasets


def lengths(parts: dict[str, h5py.Dataset], limits: Limits) -> int | None:
    """Rows of vectors that belong side by side; None for none. Raises Hdf5Error when they differ."""
    rows = {path: part.shape[0] for path, part in parts.items()}
    if len(set(rows.values())) > 1:
        raise Hdf5Error(f"vectors of one episode differ in length: {rows}")
    for part in parts.values():
        checked(part, limits)
    return next(iter(rows.values()), None)


def matrix(parts: dict[str, h5py.Dataset], limits: Limits) -> tuple[np.ndarray | None, list[str]]:
    """Vectors side by side, float64 [n, d], and a name per dimension. Raises Hdf5Error.

    Example: the names of "obs/ee_pos" [n, 2] and "obs/gripper" [n, 1] are ee_pos_0, ee_pos_1 and gripper_0.
    """
    lengths(parts, limits)
    columns = {path: numbers(part, limits) for path, part in parts.items()}
    names: list[str] = []
    for path, values in columns.items():
        vector = path.rpartition("/")[2]
        names += [f"{vector}_{k}" for k in range(values.shape[1])]
    return joined(list(columns.values())), names


def stream(
    path: Path, key: str, camera: str, picture: Callable[[h5py.Dataset, int], Picture], fps: float, limits: Limits
) -> Iterator[TimedPicture]:
    """(k, time in s, picture) of one camera of the episode at a group of a file. Raises VideoError."""
    try:
        with opened(path, limits) as file:
            # Found and checked anew: the file may be another one than when it was listed
            dataset = _pictures_of(find(file, key), camera, limits)
            if dataset is None:
                raise VideoError(f"{path.name} has no pictures of {camera} any more")
            checked(dataset, limits)
            for k in range(dataset.shape[0]):
                yield k, k / fps, picture(dataset, k)
    except Hdf5Error as e:
        raise VideoError(str(e), e.reason) from e


def _pictures_of(group: Any, camera: str, limits: Limits) -> h5py.Dataset | None:
    return cameras_of(group, [], limits).get(camera) if isinstance(group, h5py.Group) else None
