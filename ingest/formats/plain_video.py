"""Adapter for plain video files: one episode each, with an optional `<name>.json` beside it, and rows (video_rows).

Instead, or besides, a folder may have one side file, `metadata.json|jsonl|csv` or `episodes.csv`, with a row for each
video: `file` (or `file_name`, `video`; below that folder), `task`, `tasks`, `success`, `fps`, `group`. Rows with the
same `episode`, each with a `camera`, are one episode. JSON may give `steps`: a list of `name`, `start_s` or
`start_frame`, and `end_s` or `end_frame` (half-open). What `<name>.json` says overrules the row.
"""

import hashlib
import json
import math
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Listing, NativeStep, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, named, unique_texts
from ingest.formats.side_files import read_table
from ingest.formats.steps import StatedSpan, checked_steps, span_objects
from ingest.formats.video_rows import read_rows, with_rows
from ingest.formats.whole_videos import frames_of, videos_of
from ingest.media.video import VIDEO_SUFFIXES, VideoError, VideoInfo, probe
from ingest.outcomes import Evidence
from ingest.sources.files import Source

CAMERA = "video"  # where no row names it
SIDE_FILES = ("metadata.json", "metadata.jsonl", "metadata.csv", "episodes.csv")
ROWS = (".npz", ".npy", ".parquet", ".arrow", ".feather", ".hdf5", ".h5", ".hdf", ".tfrecord", ".pkl", ".mcap", ".bag")
FILE_COLUMNS = ("file", "file_name", "video")
FPS = 30.0
RATE_TOLERANCE = 0.01  # relative, between cameras of one episode
MAX_FPS = 1000.0


@dataclass
class Draft:
    """An episode before its place among the others is known."""

    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    expected: dict[str, str] = field(default_factory=dict)  # uri by camera as rows name them, also without a file
    rows: list[dict[str, Any]] = field(default_factory=list)


class BadRowError(Exception):
    """A row of a side file that cannot be used; `reason` is a finding's reason code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def recognises(source: Source) -> bool:
    return any(_is_video(uri) for uri in source.files)


def roots(uris: Iterable[str]) -> dict[str, str]:
    return {posixpath.dirname(uri): "" for uri in uris if _is_video(uri)}


def _is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEO_SUFFIXES)


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    # Rows first: each video that no row names is an episode by itself
    drafts = _Drafts(source)
    drafts.read_side_files(listing)
    drafts.add_other_videos()
    read: set[str] = set()
    for source_id in sorted(drafts.by_source_id):
        record, files = with_rows(listing, draft_record(listing, source_id, drafts.by_source_id[source_id]))
        listing.records.append(record)
        read.update(files)
    if not listing.records:
        listing.lists_nothing("no video file below the folder")
    rows = [uri for uri in source.files if uri.lower().endswith(ROWS) and uri not in read]
    if rows:
        listing.warn("rows_not_read", f"{len(rows)} files beside the videos: {named(rows)}", file=rows[0])
    cameras = in_order(listing.cameras_in_use(), source.config.cameras, (), ())
    return listing.listing("video", listing.first_fps(), cameras or [CAMERA])


# Which files are an episode


class _Drafts:
    """Episodes by source id: those that rows put together, and each other video by itself."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.by_source_id: dict[str, Draft] = {}
        self.named: set[str] = set()  # videos that a row names

    def read_side_files(self, listing: ListingBuilder) -> None:
        for uri in self.source.files:
            if posixpath.basename(uri) in SIDE_FILES and not self._is_of_one_video(uri):
                self._read_side_file(listing, uri)

    def _is_of_one_video(self, uri: str) -> bool:
        """Is metadata.json the JSON file of a video metadata.mp4?"""
        stem = uri.removesuffix(".json")
        return stem != uri and any(stem + suffix in self.source.files for suffix in VIDEO_SUFFIXES)

    def _read_side_file(self, listing: ListingBuilder, uri: str) -> None:
        try:
            table = read_table(self.source, uri)
        except RowsError as e:
            listing.warn(e.reason, str(e), file=uri)
            return
        for problem in table.problems:
            listing.warn("unreadable_data", f"{uri} {problem}", file=uri)
        for number, row in table.rows:
            self._add_usable(listing, uri, number, row)

    def _add_usable(self, listing: ListingBuilder, uri: str, number: int, row: dict[str, Any]) -> None:
        try:
            self._add(posixpath.dirname(uri), row)
        except BadRowError as e:
            listing.warn(e.reason, f"{uri} row {number}: {e}", file=uri)

    def _add(self, folder: str, row: dict[str, Any]) -> None:
        """Put a row's video into its episode. Raises BadRowError."""
        name, uri = self._video_of(folder, row)
        is_there = uri in self.source.files and _is_video(uri)
        # A second row of a video would make a second episode of the same pictures
        if uri in self.named:
            raise BadRowError("duplicate_episode", f"{name} is named before")
        episode, camera = row.get("episode"), row.get("camera")
        camera = str(camera) if isinstance(camera, str | int) else None

        # A row that names no camera of an episode is an episode by itself
        if camera is None or not isinstance(episode, str | int):
            if not is_there:
                raise BadRowError("no_video", f"{name} is no video file of the folder")
            camera = camera or CAMERA
            self.by_source_id[uri] = Draft({camera: uri}, {camera: uri}, [row])
            self.named.add(uri)
            return

        # Names of episodes count within the side file's folder
        draft = self.by_source_id.setdefault(posixpath.join(folder, str(episode)), Draft())
        if camera in draft.expected:
            raise BadRowError("bad_video_pointer", f"{camera} of episode {episode} is named before")
        draft.expected[camera] = uri
        draft.rows.append(row)
        # A camera without a file stays expected, so that the episode has a finding that it is missing
        if is_there:
            draft.videos[camera] = uri
            self.named.add(uri)

    def _video_of(self, folder: str, row: dict[str, Any]) -> tuple[str, str]:
        """A row's video: its name as the row has it, and its uri. Raises BadRowError."""
        names = [row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)]
        if not names:
            raise BadRowError("unreadable_data", f"names no file in {', '.join(FILE_COLUMNS)}")
        inside = posixpath.normpath(names[0])
        if inside.startswith(("/", "../")) or inside == "..":
            raise BadRowError("path_escape", f"{names[0]} leads out of the folder")
        return names[0], posixpath.join(folder, inside)

    def add_other_videos(self) -> None:
        """Videos that no row names, each an episode."""
        for uri in self.source.files:
            if _is_video(uri) and uri not in self.named:
                self.by_source_id[uri] = Draft({CAMERA: uri})


# What is known of an episode


def draft_record(listing: ListingBuilder, source_id: str, draft: Draft, steps_from: str = "side_file") -> EpisodeRecord:
    """The coming episode, with findings about it. Its rows say what is known of it, as those of a side file."""
    source, config, index = listing.source, listing.source.config, listing.next_index
    notes = _notes(listing, draft)
    has_several = len(draft.videos) > 1
    stated_fps = config.fps or _stated_fps(listing, notes)
    # Headers show a rate that nothing states, whether spans lie in the episode, and whether cameras agree
    infos: dict[str, VideoInfo] = {}
    if has_several or not stated_fps or "steps" in notes:
        infos = _probed(listing, draft)
    fps = stated_fps or next((info.fps for info in infos.values()), FPS)

    # Cameras that a row names count also without a file, so that they are found missing
    files = draft.expected | draft.videos
    cameras = in_order(files, config.cameras, (), ())
    videos = videos_of(listing, draft.videos, {camera: files[camera] for camera in cameras})
    tasks = _tasks(notes)
    if not tasks:
        uri = next(iter(draft.videos.values()), None)
        listing.warn("no_task", "no task beside the video or in a side file", index, file=uri)
    listing.evidence[index] = Evidence(listing.stated_outcome(notes))
    # The first camera whose header was read says how long the episode is
    counts = [infos[video.camera].num_frames for video in videos if video.camera in infos]
    num_frames = next(iter(counts), None)
    steps = _steps(listing, notes, fps, num_frames)
    return EpisodeRecord(
        episode_index=index,
        source_id=source_id,
        fps=fps,
        task=next(iter(tasks), None),
        tasks=tasks,
        num_rows=num_frames if has_several else None,  # cameras of one episode must have equally many
        videos=videos,
        steps=steps,
        steps_from=steps_from if steps else None,
        group=_group(notes, config.group_field, source_id),
        source_stamp=_stamp(source, videos, draft.rows),
    )


def _stamp(source: Source, videos: tuple[CameraVideo, ...], rows: list[dict[str, Any]]) -> str:
    """Changes with the sizes of the episode's files, and with its rows."""
    uris = [video.uri for video in videos]
    stamp = source.stamp([*uris, *map(_notes_uri, uris)], None)
    if not rows:
        return stamp
    return hashlib.sha256(f"{stamp} {json.dumps(rows, sort_keys=True)}".encode()).hexdigest()[:16]


def _group(notes: dict[str, Any], field_: str | None, source_id: str) -> str:
    """An episode's own group is its source id: an index moves when a file is added before it."""
    stated = notes.get(field_ or "group")
    return source_id if stated in (None, "") else str(stated)


def _notes_uri(uri: str) -> str:
    """The JSON file beside a video."""
    return uri.rsplit(".", 1)[0] + ".json"


def _notes(listing: ListingBuilder, draft: Draft) -> dict[str, Any]:
    """What rows and JSON files say of an episode; of several rows that say different things, the first counts."""
    # What is put in later overrules what is there: last rows first, then the files beside the videos
    notes: dict[str, Any] = {}
    for row in reversed(draft.rows):
        notes |= row
    for uri in map(_notes_uri, draft.videos.values()):
        if uri in listing.source.files:
            notes |= listing.read_object(uri, listing.next_index)
    return notes


def _probed(listing: ListingBuilder, draft: Draft) -> dict[str, VideoInfo]:
    """Headers by camera; a camera of another frame rate than the first one is taken out of the episode."""
    infos, errors = _headers(listing.source, draft)
    # Without any camera that can be opened the episode cannot be used
    record_error = listing.warn if infos else listing.unusable
    for camera, error in errors.items():
        record_error(error.reason, str(error), listing.next_index, camera=camera, file=draft.videos[camera])
    if infos:
        _take_out_other_rates(listing, draft, infos)
    return infos


def _headers(source: Source, draft: Draft) -> tuple[dict[str, VideoInfo], dict[str, VideoError]]:
    """Headers by camera, and why the other cameras have none."""
    infos: dict[str, VideoInfo] = {}
    errors: dict[str, VideoError] = {}
    for camera, uri in draft.videos.items():
        try:
            infos[camera] = probe(source.resolve(uri), source.config.limits)
        except VideoError as e:
            errors[camera] = e
    return infos, errors


def _take_out_other_rates(listing: ListingBuilder, draft: Draft, infos: dict[str, VideoInfo]) -> None:
    # Frames of several cameras are matched by their number, so that all must have one rate
    first_fps = next(iter(infos.values())).fps
    for camera, info in list(infos.items()):
        if abs(info.fps / first_fps - 1) <= RATE_TOLERANCE:
            continue
        detail = f"{info.fps:g} fps, the episode's first camera has {first_fps:g}: their frames do not match"
        listing.warn("frame_rate", detail, listing.next_index, camera=camera, file=draft.videos[camera])
        del infos[camera], draft.videos[camera]
        del draft.expected[camera]


def _stated_fps(listing: ListingBuilder, notes: dict[str, Any]) -> float | None:
    if "fps" not in notes:
        return None
    try:
        fps = float(notes["fps"])
    except (TypeError, ValueError, OverflowError):
        fps = math.nan
    if 0 < fps <= MAX_FPS:
        return fps
    listing.warn("frame_rate", f"fps is {str(notes['fps'])[:40]!r}", listing.next_index)
    return None


def _tasks(notes: dict[str, Any]) -> tuple[str, ...]:
    """`task`, then what else `tasks` has."""
    more = notes.get("tasks")
    return unique_texts([notes.get("task"), *(more if isinstance(more, list) else [more])])


def _steps(
    listing: ListingBuilder, notes: dict[str, Any], fps: float, num_frames: int | None
) -> tuple[NativeStep, ...]:
    spans = []
    try:
        for span in span_objects(notes.get("steps", []), "steps"):
            spans.append(StatedSpan(span.get("name"), _frame(span, "start", fps), _frame(span, "end", fps)))
        return checked_steps(spans, num_frames)
    except (ValueError, OverflowError) as e:
        listing.warn("bad_steps", str(e), listing.next_index)
        return ()


def _frame(span: dict[str, Any], edge: str, fps: float) -> Any:
    time_s = span.get(f"{edge}_s")
    if f"{edge}_frame" not in span and isinstance(time_s, int | float):
        return round(time_s * fps)
    return span.get(f"{edge}_frame")


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows, where there are any, and frames. Raises RowsError."""
    frames = frames_of(source, record)
    if record.data_uri is None:
        return Episode(record, None, None, None, frames)
    rows = read_rows(source, [video.uri for video in record.videos], record.num_rows)
    return Episode(record, rows.state, rows.action, None, frames, rows.state_names, rows.action_names)
