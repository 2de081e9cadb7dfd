"""Adapter for plain video files: one episode each, with an optional `<name>.json` beside it, and rows of numbers.

Instead, or besides, a folder may have one side file, `metadata.json|jsonl|csv` or `episodes.csv`,
with a row for each video: `file` (or `file_name`, `video`; below that folder), `task`, `tasks`,
`success`, `fps`, `group`. Rows with the same `episode`, each with a `camera`, are one episode. JSON
may give `steps`: a list of `name`, `start_s` or `start_frame`, and `end_s` or `end_frame`
(half-open). What `<name>.json` says overrules the row.

    <name>.npz, <name>.npy              beside <name>.mp4: arrays by name, or one array
    <name>_actions.npy, ...             a word behind the video's name says what they are
    actions.npy, states.npz, ...        in a folder that holds one episode

The name of an array says whether it is of the state or of the action (the registry's `keys`
overrule it). The only array of an episode, without a name that says so, is taken as the action:
that says nothing wrong of where the arm was.
"""

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from core.values import short_hash
from ingest.episode import (
    CAMERA_RATE_TOLERANCE,
    VIDEO_SUFFIXES,
    EpisodeData,
    EpisodeRecord,
    Listing,
    VideoError,
)
from ingest.formats.facts import RATES_DIFFER
from ingest.formats.folders import frames_of, is_video, probed, stated_steps, videos_of
from ingest.formats.listing import (
    ListingBuilder,
    in_order,
    named,
    texts_among,
)
from ingest.formats.side_files import read_table
from ingest.formats.tables import (
    numbered_if_several,
    others_in_npz,
    rate_of,
    read_npy,
    read_npz,
)
from ingest.formats.tree import Part, account
from ingest.formats.tree_reader import ArrayTree, read_arrays, why_known
from ingest.formats.writers import (
    ACTION_WORDS,
    BESIDE_VIDEOS,
    LONE_ARRAY,
    STATE_WORDS,
    TIME_WORDS,
)
from ingest.media.video import VideoInfo, open_video
from ingest.reasons import DataError
from ingest.registry import Keys
from ingest.signals.naming import COLUMNS, words
from ingest.sources.files import Source, once

ROBODM_SUFFIX = ".mkv"
CAMERA = "video"  # where no row names it
SIDE_FILES = ("metadata.json", "metadata.jsonl", "metadata.csv", "episodes.csv")
ROWS = (
    ".npz",
    ".npy",
    ".parquet",
    ".arrow",
    ".feather",
    ".hdf5",
    ".h5",
    ".hdf",
    ".tfrecord",
    ".pkl",
    ".mcap",
    ".bag",
    ".db3",
)
FILE_COLUMNS = ("file", "file_name", "video")
NOTE_USES = {
    **dict.fromkeys((*FILE_COLUMNS, "camera"), ("camera", "names the video")),
    **dict.fromkeys(("task", "tasks"), ("instruction", "its name")),
    **dict.fromkeys(("episode", "group"), ("group", "its name")),
    "steps": ("steps", "spans with texts"),
    "fps": ("rate", "its name"),
}
FPS = 30.0
# Of rows beside videos
ARRAY_SUFFIXES = (".npz", ".npy")
SEPARATORS = "_-."


@dataclass
class Draft:
    """An episode before its place among the others is known."""

    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    # URI by camera as rows name them, also without a file
    expected: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def roots(uris: Iterable[str]) -> dict[str, str]:
    return {posixpath.dirname(uri): "" for uri in uris if is_video(uri)}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    drafts = _drafts(listing)
    read = set[str]()
    for source_id in sorted(drafts):
        add_draft(listing, source_id, drafts[source_id])
        read.update(with_rows(listing))
    rows = [uri for uri in source.files if uri.lower().endswith(ROWS) and uri not in read]
    if rows:
        listing.warn(
            "rows_not_read", f"{len(rows)} files beside the videos: {named(rows)}", file=rows[0]
        )
    cameras = in_order(listing.cameras_in_use(), source.config.cameras, (), ())
    return listing.listing("video", cameras or [CAMERA], nothing="no video file below the folder")


def _drafts(listing: ListingBuilder) -> dict[str, Draft]:
    """Rows of side files first: each video that no row names is an episode by itself."""
    source = listing.source
    drafts: dict[str, Draft] = {}
    used: set[str] = set()  # videos that a row names
    for uri in source.files:
        stem = uri.removesuffix(".json")
        # metadata.json may be that of metadata.mp4
        is_of_one = stem != uri and any(stem + suffix in source.files for suffix in VIDEO_SUFFIXES)
        if posixpath.basename(uri) in SIDE_FILES and not is_of_one:
            _read_side_file(listing, uri, drafts, used)
    return drafts | {
        uri: Draft({CAMERA: uri}) for uri in source.files if is_video(uri) and uri not in used
    }


def _read_side_file(
    listing: ListingBuilder, uri: str, drafts: dict[str, Draft], used: set[str]
) -> None:
    try:
        rows, problems = read_table(listing.source, uri)
    except DataError as e:
        listing.warn(e.reason, str(e), file=uri)
        return
    for problem in problems:
        listing.warn("unreadable_data", f"{uri} {problem}", file=uri)
    for number, row in rows:
        try:
            _add_row(listing, posixpath.dirname(uri), row, drafts, used)
        except DataError as e:
            listing.warn(e.reason, f"{uri} row {number}: {e}", file=uri)


def _add_row(
    listing: ListingBuilder,
    folder: str,
    row: dict[str, Any],
    drafts: dict[str, Draft],
    used: set[str],
) -> None:
    """Put a row's video into its episode. Raises DataError."""
    name = next((row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)), None)
    if name is None:
        raise DataError(f"names no file in {', '.join(FILE_COLUMNS)}")
    relative_path = posixpath.normpath(name)
    if relative_path.startswith(("/", "../")) or relative_path == "..":
        raise DataError(f"{name} leads out of the folder", "path_escape")
    uri = posixpath.join(folder, relative_path)
    is_there = uri in listing.source.files and is_video(uri)
    # A second row of a video would make a second episode of the same pictures
    if uri in used:
        raise DataError(f"{name} is named before", "duplicate_episode")
    episode = row.get("episode")
    camera = row.get("camera")
    camera = str(camera) if isinstance(camera, str | int) else None
    # A row that names no camera of an episode is an episode by itself
    if camera is None or not isinstance(episode, str | int):
        if not is_there:
            raise DataError(f"{name} is no video file of the folder", "no_video")
        camera = camera or CAMERA
        drafts[uri] = Draft({camera: uri}, {camera: uri}, [row])
        used.add(uri)
        return

    # Names of episodes count within the side file's folder
    draft = drafts.setdefault(posixpath.join(folder, str(episode)), Draft())
    if camera in draft.expected:
        raise DataError(f"{camera} of episode {episode} is named before", "bad_video_pointer")
    draft.expected[camera] = uri
    draft.rows.append(row)
    # A camera without a file stays expected, so that the episode has a finding that it is missing
    if is_there:
        draft.videos[camera] = uri
        used.add(uri)


# What is known of an episode


def add_draft(
    listing: ListingBuilder, source_id: str, draft: Draft, steps_from: str = "side_file"
) -> None:
    """The coming episode, with findings about it. Its rows say what is known of it, as those of a side file."""
    config = listing.source.config
    has_several = len(draft.videos) > 1
    # What is put in later overrules what is there: last rows first, then the files beside the videos
    notes: dict[str, Any] = {}
    for row in reversed(draft.rows):
        notes |= row
    for uri in draft.videos.values():
        notes |= listing.read_object(posixpath.splitext(uri)[0] + ".json", listing.next_index)
        _report_robodm(listing, uri)
    stated_fps = config.fps or _stated_fps(listing, notes, [*draft.videos.values()])
    # Headers show a rate that nothing states, whether spans lie in the episode, and whether cameras agree
    infos = _probed(listing, draft) if has_several or not stated_fps or "steps" in notes else {}
    fps = stated_fps or next((info.fps for info in infos.values()), FPS)

    listing.account_for_facts(f"{steps_from}: ", notes, NOTE_USES)
    # Cameras that a row names count also without a file, so that they are found missing
    files = draft.expected | draft.videos
    cameras = in_order(files, config.cameras, (), ())
    videos = videos_of(listing, draft.videos, {camera: files[camera] for camera in cameras})
    uris = [video.uri for video in videos]
    # The stamp changes with the sizes of the episode's files, and with its rows
    notes_uris = [posixpath.splitext(uri)[0] + ".json" for uri in uris]
    stamp = listing.source.stamp([*uris, *notes_uris], None)
    if draft.rows:
        stamp = short_hash(f"{stamp} {json.dumps(draft.rows, sort_keys=True)}")
    # The first camera whose header was read says how long the episode is
    num_frames = next(
        (infos[video.camera].num_frames for video in videos if video.camera in infos), None
    )

    listing.add(
        source_id,
        fps,
        tasks=texts_among([notes.get("task"), notes.get("tasks")]),
        num_rows=num_frames
        if has_several
        else None,  # cameras of one episode must have equally many
        videos=videos,
        facts=notes,
        # An episode's own group is its source id: an index moves when a file is added before it
        group=listing.group(notes, field="group"),
        no_task="no task beside the video or in a side file",
        source_stamp=stamp,
        **stated_steps(listing, notes.get("steps"), steps_from, num_frames, fps),
    )


def _report_robodm(listing: ListingBuilder, uri: str) -> None:
    """Say where a file holds a trajectory of Robo-DM, whose streams are states and pictures, some of them pickled."""
    source = listing.source
    # The headers of remote files would be fetched with all of the file
    if source.config.is_remote or not uri.lower().endswith(ROBODM_SUFFIX):
        return
    try:
        with open_video(source.resolve(uri), source.config.limits) as container:
            features = [
                name
                for stream in container.streams
                if (name := stream.metadata.get("FEATURE_NAME"))
            ]
            codec = container.streams.video[0].codec_context.name
    except VideoError:
        return  # what cannot be opened has a finding when it is decoded
    if not features:
        return
    detail = f"a trajectory of Robo-DM with the streams {named(features)}"
    if codec == "rawvideo":
        listing.unusable_next(
            "other_layout", f"{detail}: its pictures are pickled, which is not read", uri
        )
    else:
        listing.warn_next(
            "other_layout", f"{detail}: only the pictures of its first video stream are read", uri
        )


def _probed(listing: ListingBuilder, draft: Draft) -> dict[str, VideoInfo]:
    """Headers by camera; a camera of another frame rate than the first one is taken out of the episode."""
    probe_results = {camera: probed(listing.source, uri) for camera, uri in draft.videos.items()}
    infos = {
        camera: info for camera, info in probe_results.items() if not isinstance(info, VideoError)
    }
    # Without any camera that can be opened the episode cannot be used
    record_error = listing.warn if infos else listing.unusable
    for camera, error in probe_results.items():
        if isinstance(error, VideoError):
            record_error(
                error.reason,
                str(error),
                listing.next_index,
                camera=camera,
                file=draft.videos[camera],
            )
    # Frames of several cameras are matched by their number, so that all must have one rate
    first_fps = next((info.fps for info in infos.values()), 1.0)
    for camera, info in list(infos.items()):
        if abs(info.fps / first_fps - 1) > CAMERA_RATE_TOLERANCE:
            detail = f"{info.fps:g} fps, the episode's first camera has {first_fps:g}: their frames do not match"
            listing.warn_next("frame_rate", detail, draft.videos[camera], camera)
            del infos[camera], draft.videos[camera], draft.expected[camera]
    return infos


def _stated_fps(
    listing: ListingBuilder, notes: dict[str, Any], videos: Sequence[str]
) -> float | None:
    """What the notes say, with a finding where that is no rate, or another one than the first video's own."""
    if "fps" not in notes:
        return None
    try:
        fps = rate_of(float(notes["fps"]))
    except (TypeError, ValueError, OverflowError):
        fps = None
    if fps is None:
        listing.warn_next("frame_rate", f"fps is {str(notes['fps'])[:40]!r}")
        return None
    # The headers of remote files would be fetched with all of the file
    if videos and not listing.source.config.is_remote:
        info = probed(listing.source, videos[0])
        if not isinstance(info, VideoError) and abs(info.fps / fps - 1) > RATES_DIFFER:
            detail = f"fps is {fps:g}, the video has {info.fps:g}; the former counts"
            listing.warn_next("frame_rate", detail, videos[0])
    return fps


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows, where there are any, and frames. Raises DataError."""
    videos = [video.uri for video in record.videos]
    return read_arrays(
        record,
        lambda: _fitting(_tree(source, videos), record.num_rows),
        frames_of(source, record),
    )


# Rows beside videos: NumPy arrays of as many rows as the video has frames


def with_rows(listing: ListingBuilder) -> tuple[str, ...]:
    """Give the last episode the rows beside its videos, with a finding where they do not fit; the files they are in."""
    source = listing.source
    record = listing.records[-1]
    videos = [video.uri for video in record.videos]
    uris = array_files(source, videos)
    if not uris:
        return ()
    stamp = short_hash(f"{record.source_stamp} {source.stamp(list(uris), None)}")
    listing.records[-1] = replace(record, source_stamp=stamp)
    # By the first video whose header says it; a finding about others comes when they are decoded
    infos = (probed(source, uri) for uri in videos)
    counts = (info.num_frames for info in infos if isinstance(info, VideoInfo))
    num_frames = record.num_rows or next(filter(None, counts), None)
    try:
        tree = _tree(source, videos)
        fitting = _fitting(tree, num_frames)
    except DataError as e:
        listing.warn(e.reason, f"{e}; its rows are not used", record.episode_index, file=uris[0])
        return ()
    files = tuple(dict.fromkeys(part.file or "" for part in fitting.parts()))
    listing.records[-1] = replace(listing.records[-1], num_rows=num_frames, data_uri=files[0])
    _account_for_arrays(listing, tree, fitting, num_frames)
    return files


def _account_for_arrays(
    listing: ListingBuilder, tree: ArrayTree, fitting: ArrayTree, num_frames: int | None
) -> None:
    """What each array beside the videos of an episode, of which some are read, is used for."""
    uses = tree.roles().uses
    unfit_paths = uses.keys() - fitting.arrays.keys()
    problems = {
        path: f"{len(tree.arrays[path])} rows for {num_frames} frames" for path in unfit_paths
    }
    parts = [part._replace(shape=(None, *part.shape[1:])) for part in tree.parts()]
    times = {p.path for p in parts if not TIME_WORDS.isdisjoint(words(p.title))} - unfit_paths
    reasons = dict.fromkeys(times, "times: frames are counted")
    read = {path: uses[path] for path in fitting.arrays}
    account(listing.parts, parts, read, lambda part: reasons.get(part.path, ""), problems=problems)
    nothing = "rows of numbers alone are read, [n] or [n, d]"
    for uri in dict.fromkeys(part.file or "" for part in parts):
        if uri.lower().endswith(".npz"):
            account(listing.parts, others_in_npz(listing.source, uri), {}, why_known, nothing)


@once
def _folders(source: Source) -> dict[str, tuple[list[str], list[str]]]:
    """Arrays and videos of each folder."""
    folders: dict[str, tuple[list[str], list[str]]] = {}
    for uri in source.files:
        arrays, filmed = folders.setdefault(posixpath.dirname(uri), ([], []))
        if uri.lower().endswith(ARRAY_SUFFIXES):
            arrays.append(uri)
        elif is_video(uri):
            filmed.append(uri)
    return folders


def array_files(source: Source, videos: Sequence[str]) -> tuple[str, ...]:
    """The uris of arrays that belong to an episode of these videos, in order."""
    stems = [posixpath.splitext(uri)[0] for uri in videos]
    uris: list[str] = []
    for folder in dict.fromkeys(map(posixpath.dirname, videos)):
        arrays, filmed = _folders(source)[folder]
        # Asked for each video of what may be a large folder
        is_alone = len(filmed) <= len(videos) and set(filmed) <= set(videos)
        uris += [uri for uri in arrays if _belongs(uri, stems, is_alone)]
    return tuple(uris)


def _belongs(uri: str, stems: Sequence[str], is_alone: bool) -> bool:
    """Has a file the name of one of an episode's videos (without suffixes), with a word that says
    what it holds?

    In a folder of one episode the word alone is enough.
    """
    label = _label(uri, stems)
    if label is None:
        parts = words(posixpath.basename(posixpath.splitext(uri)[0]))
        return is_alone and bool(parts) and {*parts} <= ACTION_WORDS | STATE_WORDS
    return not label or not (ACTION_WORDS | STATE_WORDS).isdisjoint(words(label))


def _label(uri: str, stems: Sequence[str]) -> str | None:
    """What a file's name says behind that of a video; None for a file with another name.

    Example: _label("a/run_1_actions.npy", ["a/run_1"]) == "actions".
    """
    stem = posixpath.splitext(uri)[0]
    behind = [stem.removeprefix(video) for video in stems if stem.startswith(video)]
    labels = [
        remainder.strip(SEPARATORS)
        for remainder in behind
        if not remainder or remainder[0] in SEPARATORS
    ]
    return min(labels, key=len, default=None)


def _tree(source: Source, videos: Sequence[str]) -> ArrayTree:
    """All arrays of an episode, each called by its key in the file, then by what the file's name says.

    The only one, where nothing says what it is, is the action. Raises DataError.
    """
    stored = list(_stored_arrays(source, videos))
    keys = source.config.keys
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, Part] = {}
    for uri, label, key, values in stored:
        title = label if key.startswith("arr_") or not key else key
        if not title:
            usual_title = "action" if len(stored) == 1 else posixpath.splitext(uri)[1]
            title = next((c for c in COLUMNS if key in keys.joined(c)), usual_title)
        path = f"{uri}/{key}"
        names = numbered_if_several(title, values.shape[1])
        arrays[path] = values
        described[path] = Part(path, file=uri, title=title, names=names, called=(key, label))
    tree = ArrayTree(arrays, described, keys, BESIDE_VIDEOS)
    if len(arrays) == 1 and not tree.roles().uses:
        return tree._replace(keys=Keys(), writer=LONE_ARRAY)
    return tree


def _fitting(tree: ArrayTree, num_frames: int | None) -> ArrayTree:
    """State and action that have a row for each frame. Raises DataError where there are none."""
    uses = tree.roles().uses
    read = {path: values for path, values in tree.arrays.items() if path in uses}
    fitting = {path: values for path, values in read.items() if len(values) == num_frames}
    if not fitting:
        lengths = " or ".join(map(str, sorted({*map(len, read.values())}))) or "no"
        frames = "an unknown number of" if num_frames is None else num_frames
        raise DataError(f"{lengths} rows for {frames} frames", "length_differs")
    return tree._replace(arrays=fitting)


def _stored_arrays(
    source: Source, videos: Sequence[str]
) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Arrays of an episode: file, what its name says beside the video's, key in the file, values. Raises DataError."""
    stems = [posixpath.splitext(uri)[0] for uri in videos]
    for uri in array_files(source, videos):
        label = _label(uri, stems)
        if label is None:
            label = posixpath.basename(posixpath.splitext(uri)[0])
        if uri.lower().endswith(".npz"):
            stored = read_npz(source, uri)
        else:
            stored = {"": read_npy(source, uri)}
        yield from ((uri, label, key, values) for key, values in stored.items())
