"""Adapter for RoboTwin as its simulator writes it: `<task>/<config>/data/episode<k>.hdf5` with the joints of two arms
and encoded pictures, and `<task>/<config>/instructions/episode<k>.json` with lists of texts.
"""

import re
from collections.abc import Iterator

import h5py

from ingest.episode import Episode, EpisodeRecord, Listing, RowsError, TimedPicture
from ingest.formats.hdf5_episode import Found, lengths, matrix, stream, vectors
from ingest.formats.hdf5_file import Hdf5Error, encoded, natural, opened, read_picture
from ingest.formats.proprio import signals
from ingest.formats.side_files import read_json
from ingest.media.picture import SwappedPicture
from ingest.media.video import DECODE_ALL, DecodeOptions, Picture
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
    folders = {m[1] for u in source.files if (m := DATA_FILE.fullmatch(u))}
    beside = {m[1] for u in source.files if (m := BESIDE.fullmatch(u))}
    return bool(folders if source.config.format == "robotwin" else folders & beside)


def list_episodes(source: Source) -> Listing:
    found = Found(source)
    for uri in sorted((u for u in source.files if DATA_FILE.fullmatch(u)), key=natural):
        path = source.resolve(uri)
        at = len(found.findings)
        try:
            with opened(path) as file:
                cameras = found.cameras(uri, file)
                frames = next((d.shape[0] for d in cameras.values()), None)
                rows = lengths(vectors(file, STATE))
        except Hdf5Error as e:
            del found.findings[at:]
            found.lose(e, uri)
            continue
        num_rows = frames if rows is None else rows
        if rows is None:
            found.warn("no_data", "no joint_action: state and gripper are missing", uri)
        elif rows == 0:
            found.unusable("no_data", "its rows are none", uri)
        tasks, texts_uri = _tasks(found, uri)
        if not tasks:
            found.warn("no_task", f"no instruction in {texts_uri}", uri)
        fps = found.rate(None)
        found.add(uri, "", fps=fps, tasks=tasks, num_rows=num_rows, cameras=cameras, files=[texts_uri])
    return found.listing("robotwin")


def _tasks(found: Found, uri: str) -> tuple[tuple[str, ...], str]:
    """Instructions of the coming episode, seen ones first, and the file that they are in."""
    match = DATA_FILE.fullmatch(uri)
    texts_uri = f"{match[1]}instructions/{match[2]}.json" if match else ""
    if texts_uri not in found.source.files:
        return (), texts_uri
    try:
        stored = read_json(found.source, texts_uri)
    except RowsError as e:
        found.warn(e.reason, str(e), texts_uri)
        return (), texts_uri
    lists = [stored.get(k) for k in TEXT_LISTS] if isinstance(stored, dict) else []
    texts = [t.strip() for listed in lists if isinstance(listed, list) for t in listed if isinstance(t, str)]
    return tuple(dict.fromkeys(t for t in texts if t)), texts_uri


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    path = source.resolve(record.data_uri)
    try:
        with opened(path) as file:
            state, names = matrix(vectors(file, STATE))
    except Hdf5Error as e:
        raise RowsError(str(e), e.reason) from e
    if state is not None and len(state) != record.num_rows:
        raise RowsError(f"{len(state)} rows; there were {record.num_rows}")
    rest, gripper = signals(state, None, source.config.gripper, names)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        return stream(path, "", camera, _picture, record.fps)

    return Episode(record, rest, gripper, None, frames)


def _picture(dataset: h5py.Dataset, k: int) -> Picture:
    picture = read_picture(dataset, k)
    if len(dataset.shape) == 4:
        return picture
    head = encoded(dataset, k)[:HEAD_BYTES]
    return SwappedPicture(picture) if head.startswith(JPEG) and RIGHT_COLOURS not in head else picture
