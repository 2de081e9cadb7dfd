"""Adapter for RoboTwin as its simulator writes it: `<task>/<config>/data/episode<k>.hdf5` with the joints of two arms
and encoded pictures, and `<task>/<config>/instructions/episode<k>.json` with lists of texts.
"""

import re
from collections.abc import Collection, Iterable
from functools import partial

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing
from ingest.formats import hdf5_file as h5
from ingest.formats.array_roles import why_known
from ingest.formats.hdf5_parts import parts_of
from ingest.formats.listing import (
    ListingBuilder,
    account_for_fields,
    folders_of,
    texts_among,
)
from ingest.formats.tree import Uses, account
from ingest.formats.writers import ROBOTWIN
from ingest.media.frames import Picture
from ingest.media.picture import swapped
from ingest.outcomes import SUCCESS_FIELDS
from ingest.reasons import DataError
from ingest.sources.files import Source

DATA_FILE = re.compile(r"((?:.*/)?)data/(episode[0-9]+)\.hdf5")
# What else the simulator writes
BESIDE = re.compile(r"((?:.*/)?)(?:instructions/[^/]+|scene_info\.json|seed\.txt)")
STATE = ROBOTWIN.state[0]
TEXT_LISTS = ("seen", "unseen")
# Pictures were RGB, encoded as if they were BGR, until a JPEG comment began to mark those that are right
# (github.com/RoboTwin-Platform/RoboTwin, issue 473 and pull request 500)
RIGHT_COLOURS = b"\xff\xfe\x00\x0aXPL-RGB1"
JPEG = b"\xff\xd8\xff"
HEAD_BYTES = 4096


def recognises(source: Source) -> bool:
    """Files data/episode<k>.hdf5 beside what only RoboTwin writes, or when the registry says so."""
    if source.config.format == "robotwin":
        return bool(folders_of(DATA_FILE, source.files))
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks' configurations."""
    uris = list(uris)
    sibling_folders = folders_of(BESIDE, uris)
    return {folder: "" for folder in folders_of(DATA_FILE, uris) if folder in sibling_folders}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri in sorted(filter(DATA_FILE.fullmatch, source.files), key=h5.natural):
        num_findings = len(listing.findings)
        try:
            _add_episode(listing, uri)
        except DataError as e:
            # Of a file that cannot be read this is all there is to say
            del listing.findings[num_findings:]
            listing.add_lost(e, uri, uri)
    return h5.finished(listing, "robotwin")


def _add_episode(listing: ListingBuilder, uri: str) -> None:
    """Raises DataError."""
    source = listing.source
    with h5.opened(source, uri) as file:
        members = h5.members_of(file, source.config.limits)
        cameras, _ = h5.cameras_in(listing, uri, members.datasets, members.escapes)
        evidence, _ = h5.evidence_in(listing, uri, file, (source.config.success_field,))
        # Without states the pictures alone say how long the episode is
        num_states = h5.length_of(h5.rows_in(file, STATE), source.config.limits)
        num_frames = next((len(members.datasets[path]) for path in cameras.values()), None)
        _account(listing, uri, members, cameras.values())
    num_rows = num_frames if num_states is None else num_states
    if num_states is None:
        listing.warn_next("no_data", "no joint_action: state and gripper are missing", uri)
    elif num_rows == 0:
        listing.unusable_next("no_data", "its rows are none", uri)
    texts_uri = DATA_FILE.sub(r"\1instructions/\2.json", uri)
    stored = listing.read_object(texts_uri, listing.next_index)
    texts_by: Uses = dict.fromkeys(TEXT_LISTS, ("instruction", "RoboTwin keeps it there"))
    account_for_fields(listing.parts, "instructions: ", stored, texts_by, {}, file=texts_uri)
    listing.add(
        uri,
        listing.fps(None),  # the files state no rate: the registry's or the default is used
        tasks=texts_among(
            stored[name] for name in TEXT_LISTS if isinstance(stored.get(name), list)
        ),
        num_rows=num_rows,
        data_uri=uri,
        videos=[CameraVideo(camera, uri, 0) for camera in cameras],
        evidence=evidence,
        files=[texts_uri],
        no_task=f"no instruction in {texts_uri}",
    )


def _account(
    listing: ListingBuilder, uri: str, members: h5.Members, cameras: Collection[str]
) -> None:
    """Record each dataset as used, known or unknown."""
    uses: Uses = {
        **dict.fromkeys(STATE, ("state", "RoboTwin keeps it there")),
        **dict.fromkeys(SUCCESS_FIELDS, ("outcome", "its name says so")),
        **dict.fromkeys(cameras, ("camera", "it holds pictures")),
    }
    parts = parts_of(members.datasets, uri)
    why_left_out = partial(why_known, writer=ROBOTWIN)
    account(listing.parts, parts, uses, why_left_out, "RoboTwin writes nothing of that name")


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows and frames of one episode; raises DataError when the rows cannot be read."""
    with h5.opened(source, record.data_uri or "") as file:
        state = h5.table_of(h5.rows_in(file, STATE), source.config.limits)
    return EpisodeData(record, state, None, None, h5.frames_of(source, record, _picture))


def _picture(pictures: h5.Pictures, k: int) -> Picture:
    """Picture k, with its colours put right where they were encoded as if they were BGR."""
    picture = pictures.picture(k)
    if pictures.form is not None:
        return picture
    head = h5.encoded(pictures.dataset, k, pictures.limits)[:HEAD_BYTES]
    has_swapped_colours = head.startswith(JPEG) and RIGHT_COLOURS not in head
    if has_swapped_colours:
        return swapped(picture)
    return picture
