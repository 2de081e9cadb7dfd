"""Adapter for raw episodes of Robo-Dopamine: a folder each, with a video per camera and the steps that people marked.

`annotated_keyframes.json` in the folder has spans of frames, `task_instruction.json` beside the folders wordings of the
one task. There are no states and no actions.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ingest.episode import Episode, EpisodeRecord, Listing
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, texts_among
from ingest.formats.plain_video import Draft, draft_record
from ingest.formats.steps import StatedSpan, span_objects, tells_times, with_exclusive_ends
from ingest.formats.whole_videos import frames_of, videos_in
from ingest.media.video import VIDEO_SUFFIXES
from ingest.sources.files import Source

KEYFRAMES, INSTRUCTION = "annotated_keyframes.json", "task_instruction.json"
NAME_KEYS = ("anotation", "annotation")  # the first as the published files spell it


def recognises(source: Source) -> bool:
    """A folder with keyframes and a video."""
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks, which hold those of episodes."""
    uris = list(uris)
    annotated = {posixpath.dirname(uri) for uri in uris if posixpath.basename(uri) == KEYFRAMES}
    filmed = {posixpath.dirname(uri) for uri in uris if _is_video(uri)}
    return {posixpath.dirname(folder): "" for folder in annotated & filmed}


def _is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEO_SUFFIXES)


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    videos: dict[str, dict[str, str]] = defaultdict(dict)
    for uri in source.files:
        if _is_video(uri):
            folder, name = posixpath.split(uri)
            videos[folder][posixpath.splitext(name)[0]] = uri
    # Every camera of the dataset is expected in each of its episodes
    cameras = sorted({camera for of_episode in videos.values() for camera in of_episode})

    for folder in sorted(videos):
        draft = Draft(videos[folder], videos_in(folder, cameras), [_notes(listing, folder)])
        listing.records.append(draft_record(listing, folder or ".", draft, "annotated_keyframes"))
    listing.records = _timed(listing.records)
    if not listing.records:
        listing.lists_nothing("no video file below the folder")
    in_use = in_order(listing.cameras_in_use(), source.config.cameras)
    return listing.listing("robo_dopamine", listing.first_fps(), in_use)


def _notes(listing: ListingBuilder, folder: str) -> dict[str, Any]:
    """What is known of an episode, in the words of a side file of plain videos."""
    notes: dict[str, Any] = {"tasks": _wordings(listing, folder)}
    uri = posixpath.join(folder, KEYFRAMES)
    if uri in listing.source.files:
        notes["steps"] = _side_file_steps(listing.read_json(uri, listing.next_index, default=[]))
    return notes


def _wordings(listing: ListingBuilder, folder: str) -> list[str]:
    """Texts of the task, from the file beside the episode's folder or in it."""
    for place in (posixpath.dirname(folder), folder):
        uri = posixpath.join(place, INSTRUCTION)
        if uri in listing.source.files:
            stored = listing.read_json(uri, listing.next_index)
            return texts_among(stored if isinstance(stored, list) else [stored])
    return []


def _side_file_steps(keyframes: Any) -> Any:
    """Keyframes as `steps` of a side file; what is no list of spans stays as it is, and is found as bad steps there."""
    try:
        spans = span_objects(keyframes, KEYFRAMES)
    except ValueError:
        return keyframes
    stated = []
    for span in spans:
        name = next((span[key] for key in NAME_KEYS if key in span), None)
        stated.append(StatedSpan(name, span.get("start_frame_id"), span.get("end_frame_id")))
    return [{"name": s.name, "start_frame": s.start, "end_frame": s.end} for s in with_exclusive_ends(stated)]


def _timed(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    """Without steps where every episode is one span: who has no steps to mark writes the whole run as one."""
    if any(tells_times(record.steps, record.num_rows) for record in records):
        return records
    return [replace(record, steps=(), steps_from=None) for record in records]


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    return Episode(record, None, None, None, frames_of(source, record))
