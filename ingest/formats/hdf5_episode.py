"""Shared by the HDF5 adapters: what an episode's group shows, and its pictures."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from ingest.episode import EpisodeRecord, FrameReader, Listing, TimedPicture
from ingest.formats.hdf5_file import cameras_of, checked, find, guarded, opened, value, walk
from ingest.formats.listing import ListingBuilder, scene_first
from ingest.media.frames import DECODE_ALL, DecodeOptions, Picture
from ingest.outcomes import SUCCESS_FIELDS, Flag, Outcome, OutcomeEvidence, flag_of, known, reward_of, truth
from ingest.reasons import DataError
from ingest.sources.files import Source

REWARD_KEYS = ("rewards", "reward")
MAX_NAMED = 8  # datasets in a message


def group_of(file: h5py.File, record: EpisodeRecord) -> h5py.Group:
    """The group of an episode that was listed. Raises DataError: the file is another one by now."""
    group = find(file, record.data_key)
    if not isinstance(group, h5py.Group):
        detail = f"there is no group {record.data_key} any more: the file has changed since it was listed"
        raise DataError(f"{record.data_uri}: {detail}", "no_data")
    return group


def cameras_in(listing: ListingBuilder, uri: str, group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Cameras of the coming episode that can be read, by preference; finds what is wrong with the others."""
    escapes: list[str] = []
    readable: dict[str, h5py.Dataset] = {}
    limits = listing.source.config.limits
    cameras = cameras_of(group, escapes, limits)
    for camera in scene_first(cameras, listing.source.config.cameras):
        try:
            readable[camera] = checked(cameras[camera], limits)
        except DataError as e:
            listing.warn_next(e.reason, str(e), uri, camera)
    for path in escapes:
        listing.warn_next("path_escape", f"{path} is a link to another file; not followed", uri)
    if not readable:
        # What else is there, by which a registry's author may see what the pictures are called
        paths = [path for path, _ in walk(group, [], limits)]
        detail = f"no pictures that can be read among its {len(paths)} datasets: {', '.join(paths[:MAX_NAMED])}"
        listing.unusable_next("no_video", detail, uri)
    return readable


def evidence_in(listing: ListingBuilder, uri: str, group: h5py.Group, registered: Sequence[str]) -> OutcomeEvidence:
    """What the coming episode's group says of its outcome: `registered` fields at their word, then the usual ones.

    A dataset has a value per row, of which the last counts; a single value or an attribute is stated once.
    """

    def fact(name: str) -> Any:
        """A small value; None, with a finding, where it cannot be read: the rest is used."""
        try:
            with guarded(f"{uri}, {name}"):
                return value(group, name, listing.source.config.limits)
        except DataError as e:
            listing.warn_next(e.reason, f"{e}; it says nothing of success", uri)
            return None

    stated: Outcome | None = None
    flags: list[Flag] = []
    for name in dict.fromkeys((*registered, *SUCCESS_FIELDS)):
        stored = fact(name)
        flag, success = flag_of(name, _of_rows(stored)), truth(stored)
        if flag and name not in registered:
            flags.append(flag)
        elif flag:
            stated = stated or Outcome(flag.at_end, f"column {name}")
        elif success is not None:
            stated = stated or Outcome(success, f"metadata {name}")
    rewards = (reward_of(name, _of_rows(fact(name))) for name in REWARD_KEYS)
    return OutcomeEvidence(stated, tuple(flags), reward=next(filter(None, rewards), None))


def _of_rows(stored: Any) -> np.ndarray:
    """Several numbers or truths, one for each row; other things are no values."""
    has_rows = isinstance(stored, np.ndarray) and stored.size > 1 and stored.dtype.kind in "biuf"
    return known(stored if has_rows else ())


def frames_of(source: Source, record: EpisodeRecord, picture: Callable[[h5py.Dataset, int], Picture]) -> FrameReader:
    """Episode.frames of an episode at a group of a file; `picture` reads one of a camera's dataset."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        limits, uri = source.config.limits, record.data_uri or ""
        with opened(source, uri) as file:
            # Found and checked anew: the file may be another one than when it was listed
            if camera not in (found := cameras_of(group_of(file, record), [], limits)):
                raise DataError(f"{uri}: there are no pictures of {camera} any more", "missing_camera")
            pictures = checked(found[camera], limits)
            for k in range(pictures.shape[0]):
                yield k, k / record.fps, picture(pictures, k)

    return frames


def finished(listing: ListingBuilder, format_: str) -> Listing:
    cameras = scene_first(listing.cameras_in_use(), listing.source.config.cameras)
    listing.find_missing(sorted(cameras), "no pictures of {}, which other episodes have")
    return listing.listing(format_, cameras, nothing="no file holds an episode")
