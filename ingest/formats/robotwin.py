"""Adapter for RoboTwin as its simulator writes it: `<task>/<config>/data/episode<k>.hdf5` with the joints of two arms
and encoded pictures, and `<task>/<config>/instructions/episode<k>.json` with lists of texts.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import h5py

from ingest.episode import Episode, EpisodeRecord, Listing, RowsError, TimedPicture
from ingest.formats.hdf5_episode import Hdf5Listing, lengths, matrix, stream, vectors
from ingest.formats.hdf5_file import Hdf5Error, encoded, natural, opened, read_picture
from ingest.formats.listing import folders_of, texts_among
from ingest.limits import Limits
from ingest.media.picture import SwappedPicture
from ingest.media.video import DECODE_ALL, DecodeOptions, Picture
from ingest.outcomes import Evidence
from ingest.sources.files import Source

DATA_FILE = re.compile(r"((?:.*/)?)data/(episode[0-9]+)\.hdf5")
BESIDE = re.compile(r"((?:.*/)?)(?:instructions/[^/]+|scene_info\.json|seed\.txt)")  # what else the simulator writes
STATE = tuple(f"joint_action/{side}_{part}" for side in ("left", "right") for part in ("arm", "gripper"))
TEXT_LISTS = ("seen", "unseen")
# Pictures were RGB, encoded as if they were BGR, until a JPEG comment began to mark those that are right
# (github.com/RoboTwin-Platform/RoboTwin, issue 473 and pull request 500)
RIGHT_COLOURS = b"\xff\xfe\x00\x0aXPL-RGB1"
JPEG, HEAD_BYTES = b"\xff\xd8\xff", 4096


def recognises(source: Source) -> bool:
    """Files data/episode<k>.hdf5 beside what only RoboTwin writes, or when the registry says so."""
    if source.config.format == "robotwin":
        return bool(folders_of(DATA_FILE, source.files))
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks' configurations."""
    uris = list(uris)
    beside = folders_of(BESIDE, uris)
    return {folder: "" for folder in folders_of(DATA_FILE, uris) if folder in beside}


def list_episodes(source: Source) -> Listing:
    listing = Hdf5Listing(source)
    uris = [uri for uri in source.files if DATA_FILE.fullmatch(uri)]
    for uri in sorted(uris, key=natural):
        num_findings = len(listing.findings)
        try:
            facts = _file_facts(listing, uri)
        except Hdf5Error as e:
            del listing.findings[num_findings:]  # of a file that cannot be read this is all there is to say
            listing.add_lost(e, uri)
            continue
        _add_episode(listing, uri, facts)
    return listing.finished("robotwin")


class FileFacts(NamedTuple):
    cameras: tuple[str, ...]
    num_frames: int | None
    num_states: int | None
    evidence: Evidence


def _file_facts(listing: Hdf5Listing, uri: str) -> FileFacts:
    """Raises Hdf5Error."""
    limits = listing.source.config.limits
    with opened(listing.source.resolve(uri), limits) as file:
        cameras = listing.cameras(uri, file)
        num_frames = next((pictures.shape[0] for pictures in cameras.values()), None)
        evidence = listing.shown_outcome(uri, file, (listing.source.config.success_field,))
        return FileFacts(tuple(cameras), num_frames, lengths(vectors(file, STATE), limits), evidence)


def _add_episode(listing: Hdf5Listing, uri: str, facts: FileFacts) -> None:
    # Without states the pictures alone say how long the episode is
    num_rows = facts.num_frames if facts.num_states is None else facts.num_states
    if facts.num_states is None:
        listing.warn_next("no_data", "no joint_action: state and gripper are missing", uri)
    elif num_rows == 0:
        listing.unusable_next("no_data", "its rows are none", uri)
    texts_uri = _texts_uri(uri)
    tasks = _tasks(listing, texts_uri)
    if not tasks:
        listing.warn_next("no_task", f"no instruction in {texts_uri}", uri)
    # The files state no rate: the registry's or the default is used
    fps = listing.fps(None)
    listing.add(
        uri,
        "",
        fps=fps,
        tasks=tasks,
        num_rows=num_rows,
        cameras=facts.cameras,
        evidence=facts.evidence,
        files=[texts_uri],
    )


def _texts_uri(uri: str) -> str:
    """The file with the instructions of the episode in another file."""
    match = DATA_FILE.fullmatch(uri)
    return f"{match[1]}instructions/{match[2]}.json" if match else ""


def _tasks(listing: Hdf5Listing, texts_uri: str) -> tuple[str, ...]:
    """Instructions of the coming episode, seen ones first."""
    if texts_uri not in listing.source.files:
        return ()
    stored = listing.read_object(texts_uri, listing.next_index)
    texts: list[str] = []
    for name in TEXT_LISTS:
        if isinstance(listed := stored.get(name), list):
            texts += texts_among(listed)
    return tuple(dict.fromkeys(texts))


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    path, limits = source.resolve(record.data_uri), source.config.limits
    try:
        with opened(path, limits) as file:
            state, names = matrix(vectors(file, STATE), limits)
    except Hdf5Error as e:
        raise RowsError(str(e), e.reason) from e
    # A file that was replaced since it was listed is not the episode that the corpus knows
    if state is not None and len(state) != record.num_rows:
        raise RowsError(f"{len(state)} rows; there were {record.num_rows}")

    # Each file is one episode, whose pictures lie below the file's root
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        return stream(path, "", camera, partial(_picture, limits=limits), record.fps, limits)

    return Episode(record, state, None, None, frames, tuple(names))


def _picture(dataset: h5py.Dataset, k: int, limits: Limits) -> Picture:
    picture = read_picture(dataset, k, limits)
    if len(dataset.shape) == 4:
        return picture
    head = encoded(dataset, k, limits)[:HEAD_BYTES]
    has_swapped_colours = head.startswith(JPEG) and RIGHT_COLOURS not in head
    return SwappedPicture(picture) if has_swapped_colours else picture
