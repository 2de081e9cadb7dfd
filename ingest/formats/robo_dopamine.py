"""Adapter for raw episodes of Robo-Dopamine: a folder each, with a video per camera and the steps that people marked.

`annotated_keyframes.json` in the folder has spans of frames, `task_instruction.json` beside the
folders wordings of the one task. There are no states and no actions.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats.folders import frames_of, is_video, tells_times
from ingest.formats.listing import ListingBuilder, in_order
from ingest.formats.plain_video import Draft, add_draft
from ingest.sources.files import Source

KEYFRAMES = "annotated_keyframes.json"


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks, which hold those of episodes: with keyframes and a video each."""
    uris = list(uris)
    annotated = {posixpath.dirname(uri) for uri in uris if posixpath.basename(uri) == KEYFRAMES}
    filmed = {posixpath.dirname(uri) for uri in uris if is_video(uri)}
    return {posixpath.dirname(folder): "" for folder in annotated & filmed}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    videos: dict[str, dict[str, str]] = defaultdict(dict)
    for uri in filter(is_video, source.files):
        folder, name = posixpath.split(uri)
        videos[folder][posixpath.splitext(name)[0]] = uri
    # Every camera of the dataset is expected in each of its episodes
    cameras = sorted(set().union(*videos.values()))
    for folder in sorted(videos):
        expected = {camera: f"{folder}/{camera}.mp4" for camera in cameras}
        notes: dict[str, Any] = {
            "tasks": listing.texts_beside(posixpath.join(folder, KEYFRAMES))[0]
        }
        if (uri := posixpath.join(folder, KEYFRAMES)) in source.files:
            notes["steps"] = listing.read_json(uri, listing.next_index, default=[])
        add_draft(
            listing, folder or ".", Draft(videos[folder], expected, [notes]), "annotated_keyframes"
        )
    # Where every episode is one span there are no steps: who has none to mark writes the whole run as one
    if not any(tells_times(record.steps, record.num_rows) for record in listing.records):
        listing.records = [replace(record, steps=(), steps_from=None) for record in listing.records]
    return listing.listing(
        "robo_dopamine",
        in_order(listing.cameras_in_use(), source.config.cameras),
        nothing="no video file below the folder",
    )


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    return EpisodeData(record, None, None, None, frames_of(source, record))
