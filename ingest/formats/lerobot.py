"""Adapter for LeRobot datasets v2.0, v2.1 and v3.0, told apart by what is on disk.

All have meta/info.json and Parquet rows. v2 has one data file and one video per episode, and JSON-lines metadata; v3
packs many episodes into one file and keeps its metadata in Parquet. Path templates come from info.json, then the
standard ones; a file that neither names is searched for by its own name. Lengths come from rows.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, TimedPicture, timed
from ingest.formats.lerobot_meta import (
    DATA_FILE,
    EPISODE_FILE,
    LerobotListing,
    cameras_of,
    episode_metadata,
    expected,
    read_info,
    task_texts,
    version_of,
    video_rate,
)
from ingest.formats.lerobot_rows import EpisodeRows, find_rows, read_pictures
from ingest.formats.lerobot_signals import read_signals, signal_columns
from ingest.formats.lerobot_steps import native_steps
from ingest.formats.lerobot_videos import find_videos, holds_other_episodes
from ingest.formats.listing import ListingBuilder, folders_of, texts_among
from ingest.formats.numbers import vectors
from ingest.formats.tables import read_columns
from ingest.media.frames import DECODE_ALL, DecodeOptions, Picture
from ingest.media.video import decode
from ingest.outcomes import NO_EVIDENCE, Outcome, OutcomeEvidence, stated
from ingest.reasons import DataError
from ingest.sources.files import Source

TIME = "timestamp"
FOLDER = re.compile(r"^(meta|data/chunk-[^/]*|videos/([^/]+/)?chunk-[^/]*)$")
VIDEO_FILE = re.compile(r"^videos/.*(episode_\d+|file-\d+)\.mp4$")
# Files by which a dataset is known in any folder
ROOT = re.compile(
    r"((?:[^/]+/)*?)(?:meta/info\.json|meta/(?:episodes|tasks)[./].+|data/chunk-\d+/(?:episode_|file-)\d+\.parquet|"
    r"videos/(?:[^/]+/)?chunk-\d+/(?:[^/]+/)?(?:episode_|file-)\d+\.mp4)"
)


def recognises(source: Source) -> bool:
    """A folder with meta/, or with data/ or videos/ laid out as LeRobot does; also when files are lacking."""
    if any(FOLDER.match(folder) for folder in source.folders):
        return True
    return any(pattern.match(uri) for uri in source.files for pattern in (EPISODE_FILE, DATA_FILE, VIDEO_FILE))


def roots(uris: Iterable[str]) -> dict[str, str]:
    return folders_of(ROOT, uris)


def list_episodes(source: Source) -> Listing:
    where = "meta/info.json"
    try:
        info = read_info(source)
        dataset = LerobotListing(source, info=info, version=version_of(source, info))
        cameras, where = cameras_of(dataset), "meta"
        _add_episodes(dataset, cameras)
    except DataError as e:
        # Metadata that cannot be read (only info.json says where an episode lies), or that claims too much
        listing = ListingBuilder(source)
        listing.unusable(e.reason, str(e), file=where)
        return listing.listing("lerobot", (), numbered=True)
    # One finding for each template, not for each file
    for template, count in dataset.searched.items():
        if count:
            detail = f"{template} of info.json leads nowhere for {count} files; found them otherwise"
            dataset.warn("path_template", detail)
    # Cameras that info.json declares and no episode has are none of the dataset
    used = set(dataset.cameras_in_use())
    robot = info.get("robot_type")
    return dataset.listing(
        f"lerobot_{dataset.version}",
        [camera for camera in cameras if camera in used],
        fps=dataset.rate,
        robot=robot if isinstance(robot, str) else None,
        numbered=True,
        nothing="the metadata lists no episode and there are no rows",
    )


def _add_episodes(dataset: LerobotListing, cameras: list[str]) -> None:
    """Raises DataError: more episodes than the limit."""
    limits = dataset.source.config.limits
    metadata = episode_metadata(dataset)
    limits.check("max_episodes", len(metadata), "episodes that the metadata lists")
    texts = task_texts(dataset)
    rows = find_rows(dataset, metadata)
    limits.check("max_episodes", len(rows), "episodes that have rows")
    steps = native_steps(dataset, metadata, rows)
    for episode, videos in find_videos(dataset, metadata, rows, cameras).items():
        of_rows = rows.get(episode)
        _check(dataset, episode, metadata.get(episode), of_rows)
        record = _record(dataset, episode, metadata.get(episode, {}), of_rows, videos, texts)
        if s := steps.get(episode):
            record = replace(record, steps=s.steps, steps_from=s.form, plan=s.plan, as_far_as=s.as_far_as)
        dataset.records.append(record)


def _record(
    dataset: LerobotListing,
    episode: int,
    meta: dict[str, Any],
    rows: EpisodeRows | None,
    videos: tuple[CameraVideo, ...],
    texts: Mapping[int, str],
) -> EpisodeRecord:
    # What the metadata says counts before what the last row says
    facts = meta if rows is None else {**rows.facts, **meta}
    # GR00T-flavoured sets list quality labels ("valid") among an episode's tasks: only the rows tell them apart
    named = [texts[index] for index in rows.task_indices if index in texts] if rows and rows.row_tasks else []
    tasks = texts_among([named or meta.get("tasks"), *map(facts.get, dataset.source.config.keys.language)])
    if not tasks:
        dataset.warn("no_task", "no instruction in rows or metadata", episode)
    dataset.evidence[episode] = _evidence(dataset, meta, rows)
    record = EpisodeRecord(
        episode_index=episode,
        source_id=f"episode_{episode:06d}",
        fps=dataset.rate,
        task=next(iter(tasks), None),
        tasks=tasks,
        videos=videos,
        group=dataset.group(facts, f"episode {episode}"),
    )
    video_uris = [video.uri for video in videos]
    # Without rows (lost, or remote and not asked for) there are only videos to be stamped
    if rows is None:
        return replace(record, source_stamp=dataset.source.stamp(video_uris, None))
    return replace(
        record,
        num_rows=rows.num_rows,
        data_uri=rows.uri,
        row_start=rows.row_start,
        source_stamp=dataset.source.stamp([*video_uris, rows.uri], rows.num_rows),
    )


def _evidence(dataset: LerobotListing, meta: dict[str, Any], rows: EpisodeRows | None) -> OutcomeEvidence:
    """What metadata and rows say of an episode's outcome; the registry's field is taken at its word in both."""
    registered = dataset.source.config.success_field
    of_rows = rows.evidence if rows else NO_EVIDENCE
    flag = next((flag for flag in of_rows.flags if flag.name == registered), None)
    outcome = stated(meta, [registered])
    if outcome is None and flag is not None:
        outcome = Outcome(flag.at_end, f"column {registered}")
    if outcome is None and rows is not None:
        outcome = stated(rows.facts, [registered], "column")  # a word in the last row
    return replace(of_rows, stated=outcome or dataset.stated_outcome(meta))


def _check(dataset: LerobotListing, episode: int, meta: dict[str, Any] | None, rows: EpisodeRows | None) -> None:
    """Find what is wrong with an episode's rows, and where they differ from the metadata."""
    if meta is None:
        dataset.warn("not_in_metadata", "has rows, but the metadata does not list it", episode)
    if rows is not None:
        stated_rows, limits = (meta or {}).get("length"), dataset.source.config.limits
        if rows.num_rows == 0:
            dataset.unusable("no_data", "its table has no rows", episode, file=rows.uri)
        elif problem := limits.excess("max_rows", rows.num_rows, f"{rows.uri}: rows of one episode"):
            dataset.unusable("over_limit", problem, episode, file=rows.uri)
        if stated_rows not in (None, rows.num_rows):
            detail = f"metadata says {stated_rows} frames, its rows are {rows.num_rows}"
            dataset.warn("length_differs", detail, episode)
    elif episode not in dataset.lost and dataset.wants(episode):
        # Its file, or without a pointer to one any file, may be a git-LFS pointer
        file = expected(dataset, episode, meta or {})
        pointers = fnmatch.filter(sorted(dataset.pointers), file)
        lost = ("lfs_pointer", "its rows are in a git-LFS pointer"), ("no_data", f"no rows; looked for {file}")
        dataset.unusable(*lost[not pointers], episode, file=(*pointers, file)[0])


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows and frames of one episode; raises DataError when the rows cannot be read."""
    info = read_info(source)
    # Only the columns of state, action and time are read
    path, columns = source.resolve(record.data_uri or ""), (*signal_columns(info), TIME)
    rows = read_columns(path, record.row_start, record.num_rows or 0, columns, source.config.limits)
    times = vectors(rows[TIME], TIME) if TIME in rows.column_names else None
    state, action, names_by = read_signals(source, info, rows)
    times_s = None if times is None else times[:, 0]
    return EpisodeData(record, state, action, times_s, partial(_frames, source, info, record), names_by)


def _frames(
    source: Source, info: dict[str, Any], record: EpisodeRecord, camera: str, options: DecodeOptions = DECODE_ALL
) -> Iterator[TimedPicture]:
    """Episode.frames of a record: from a video of its own, from one that it shares, or from its rows."""
    video = next(v for v in record.videos if v.camera == camera)
    num_rows = record.num_rows or 0
    if video.uri == record.data_uri:
        # The table itself holds the pictures, or names their files
        pictures: Iterable[Picture] = read_pictures(source, video.uri, video.start_frame, num_rows, camera)
    else:
        # A file of its own is decoded to its end, so that one that is too long is noticed
        limit = num_rows if holds_other_episodes(info, video.uri) else None
        rate = video_rate(info, camera, record.fps)
        pictures = decode(source.resolve(video.uri), video.start_frame, limit, rate, options)
    yield from timed(pictures, record.fps)
