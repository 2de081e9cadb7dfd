"""Adapter for LeRobot datasets v2.0, v2.1 and v3.0, told apart by what is on disk.

All have meta/info.json and Parquet rows. v2 has one data file and one video per episode, and
JSON-lines metadata; v3 packs many episodes into one file and keeps its metadata in Parquet. Path
templates come from info.json, then the standard ones; a file that neither names is searched for by
its own name. Lengths come from rows.
"""

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ingest.episode import (
    DECODE_ALL,
    CameraVideo,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Listing,
    Match,
    Picture,
    TimedPicture,
    VideoError,
    timed,
)
from ingest.formats.lerobot_episode import (
    OF_ALL,
    POINTERS,
    VideoSpan,
    counted_rows,
    match,
    read_signals,
    refusal,
    signal_columns,
    span_of,
    stored_statistics,
)
from ingest.formats.lerobot_meta import (
    DATA_FILE,
    EPISODE_FILE,
    INFO,
    LerobotListing,
    episode_metadata,
    expected,
    locate,
    read_info,
    task_texts,
    v2_numbers,
    v3_pointer,
    version_of,
    video_rate,
)
from ingest.formats.lerobot_parts import account_for_parts, cameras_of
from ingest.formats.lerobot_rows import (
    END_MARK,
    Episodes,
    StoredEpisode,
    find_rows,
    read_pictures,
    with_metadata,
)
from ingest.formats.lerobot_steps import NO_STEPS, TASK_COLUMN, native_steps
from ingest.formats.listing import ListingBuilder, folders_of, named, texts_among
from ingest.formats.row_pictures import of_places
from ingest.formats.tables import finite, read_columns, vectors, whole
from ingest.media.video import frame_times
from ingest.outcomes import OutcomeEvidence, stated
from ingest.reasons import DataError
from ingest.sources.files import Source, once

TIME = "timestamp"
FOLDER = re.compile(r"^(meta|data/chunk-[^/]*|videos/([^/]+/)?chunk-[^/]*)$")
VIDEO_FILE = re.compile(r"^videos/.*(episode_\d+|file-\d+)\.mp4$")
# Files by which a dataset is known in any folder
ROOT = re.compile(
    r"((?:[^/]+/)*?)(?:meta/info\.json|meta/(?:episodes|tasks)[./].+|data/chunk-\d+/(?:episode_|file-)\d+\.parquet|"
    r"videos/(?:[^/]+/)?chunk-\d+/(?:[^/]+/)?(?:episode_|file-)\d+\.mp4)"
)
PICTURE_FILE = re.compile(r"(.*?(?:episode[-_](\d+))?)/[^/]+\.(?:png|jpe?g)", re.IGNORECASE)
MAX_START_S = 1e9  # no video is so long
NOT_RECORDED = ""  # of a camera that the metadata leaves empty in an episode: nothing is wrong
LAST_FRAME = 2**62  # beyond every file's

Videos = dict[int, dict[str, CameraVideo]]  # by episode and camera
# What is wrong with the metadata's pointer to a video, by episode and camera
Doubts = dict[int, dict[str, str]]


def find_videos(
    dataset: LerobotListing, episodes: Episodes, cameras: list[str]
) -> dict[int, tuple[CameraVideo, ...]]:
    """The videos of each episode by preference of cameras, with findings about those that it lacks."""
    doubts: Doubts = defaultdict(dict)
    videos: Videos = {}
    for index, episode in episodes.items():
        camera_videos = [
            _video(dataset, index, episode, camera, doubts[index]) for camera in cameras
        ]
        videos[index] = {video.camera: video for video in camera_videos if video}
    # Files of v3 hold several episodes, so that pointers into them can be wrong
    if dataset.version == "v3.0":
        _drop_shared_frames(dataset, videos, episodes, doubts)
    _report(dataset, episodes, videos, doubts, cameras)
    return {index: tuple(by_camera.values()) for index, by_camera in videos.items()}


def _video(
    dataset: LerobotListing, index: int, episode: StoredEpisode, camera: str, doubts: dict[str, str]
) -> CameraVideo | None:
    """Where a camera's pictures of an episode are, if anywhere; what is wrong with a pointer is put into `doubts`."""
    meta = episode.meta
    if camera in episode.pictures:
        return CameraVideo(camera, episode.uri, episode.row_start)
    if dataset.version != "v3.0":
        uri = locate(dataset, "video_path", {"video_key": camera, **v2_numbers(dataset, index)})
        if uri:
            return CameraVideo(camera, uri, 0)
        return None
    pointer = v3_pointer(meta, f"videos/{camera}")
    start_s = finite(meta.get(f"videos/{camera}/from_timestamp"))
    if meta and all(whole(meta.get(f"videos/{camera}/{k}")) is None for k in POINTERS):
        doubts[camera] = NOT_RECORDED
        return None
    if not pointer or start_s is None or not 0 <= start_s < MAX_START_S:
        # An episode that the metadata does not list has a finding that says so
        if meta:
            doubts[camera] = f"no file or start time of {camera} in the metadata"
        return None
    uri = locate(dataset, "video_path", {"video_key": camera, **pointer})
    if uri is None:
        return None
    # Times count in the file's own rate, which need not be that of the rows
    rate = dataset.video_rates[camera]
    end_s = finite(meta.get(f"videos/{camera}/to_timestamp"))
    begin_s = start_s
    if episode.uri and end_s is not None:
        # Decoding a shared file cannot show that a part of it is longer or shorter than the rows
        num_frames = round((end_s - start_s) * rate)
        num_rows = episode.num_rows
        if num_frames != num_rows:
            detail = f"metadata gives it {num_frames} frames of video, its rows are {num_rows}"
            dataset.warn("length_differs", detail, index, camera=camera, file=uri)
        # Rows may have been taken away at the start
        later_s = _first_time(dataset, episode) if num_frames > num_rows else 0.0
        start_s += later_s if 0 < round(later_s * rate) <= num_frames - num_rows else 0.0
    start_frame = round(start_s * rate)
    if episode.uri and rate == dataset.rate:
        first = start_frame - round(begin_s * rate)
        num_rows = min(episode.num_rows, dataset.source.config.limits.max_rows)
        if refused := refusal(begin_s, range(first, first + num_rows), rate):
            dataset.warn("timestamp_drift", refused, index, camera=camera, file=uri)
    return CameraVideo(camera, uri, start_frame)


def _first_time(dataset: LerobotListing, episode: StoredEpisode) -> float:
    """The time of an episode's first row, in seconds; 0 where it cannot be read, which is found when all are."""
    path = dataset.source.resolve(episode.uri)
    with suppress(DataError):
        first = read_columns(path, episode.row_start, 1, (TIME,), dataset.source.config.limits)
        times = vectors(first[TIME], TIME) if TIME in first.column_names else None
        if times is not None and np.isfinite(times).all():
            return float(times[0, 0])
    return 0.0


def _drop_shared_frames(
    dataset: LerobotListing, videos: Videos, episodes: Episodes, doubts: Doubts
) -> None:
    """Take a video from all episodes that claim the same frames of it: at most one of them is right, and unknown."""
    # Frames, half-open, and episode
    claims: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for index, by_camera in videos.items():
        for camera, video in by_camera.items():
            if (episode := episodes[index]).uri:
                end_frame = min(
                    video.start_frame + episode.num_rows,
                    _stated_end(dataset, episode.meta, video),
                )
                claims[camera, video.uri].append((video.start_frame, end_frame, index))
    for (camera, uri), of_file in claims.items():
        # Of the claims so far, the one that reaches furthest is the one that the next may overlap
        furthest, holder = 0, -1
        for start_frame, end_frame, index in sorted(of_file):
            if start_frame < furthest:
                for claimant, other_episode in ((index, holder), (holder, index)):
                    doubts[claimant].setdefault(
                        camera, f"claims frames of {uri} that episode {other_episode} claims too"
                    )
                    videos[claimant].pop(camera, None)
            if end_frame > furthest:
                furthest, holder = end_frame, index


def _stated_end(dataset: LerobotListing, meta: Mapping[str, Any], video: CameraVideo) -> int:
    """The frame of its file at which an episode ends by the metadata; without a sensible one any is."""
    end_s = finite(meta.get(f"videos/{video.camera}/to_timestamp"))
    if end_s is None or not 0 <= end_s < MAX_START_S:
        return LAST_FRAME
    end_frame = round(end_s * dataset.video_rates[video.camera])
    return end_frame if end_frame > video.start_frame else LAST_FRAME


def _report(
    dataset: LerobotListing,
    episodes: Episodes,
    videos: Videos,
    doubts: Doubts,
    cameras: Sequence[str],
) -> None:
    """Findings about what episodes lack; one of a camera that none of them has beside usable ones."""
    used = set().union(*videos.values())
    unused: dict[str, list[str]] = {camera: [] for camera in sorted({*cameras} - used) if used}
    incomplete = filter(lambda index: len(videos[index]) < max(1, len(cameras)), videos)
    # Rows of a remote episode that is not asked for are not looked for: no finding would be sure
    for index in filter(dataset.wants, incomplete):
        present = videos[index]
        doubt = doubts[index]
        files = {
            camera: expected(dataset, index, episodes[index].meta, camera) for camera in cameras
        }
        if not present and {*doubt.values()} <= {NOT_RECORDED}:
            reason, detail = _no_video(dataset, index, files)
            dataset.unusable(reason, detail, index, file=next(iter(files.values()), INFO))
            continue
        # What is doubtful beside a usable video is a warning; without one the episode cannot be used
        record = dataset.warn if present else dataset.unusable
        for camera in (*doubt, *(camera for camera in cameras if camera not in doubt)):
            detail = doubt.get(camera, f"there is no {files[camera]}")
            if camera in present or detail == NOT_RECORDED:
                continue
            if camera in unused and present:
                unused[camera] += [detail] if camera in doubt else []
            elif camera in doubt:
                record("bad_video_pointer", detail, index, camera=camera)
            else:
                dataset.warn("missing_camera", detail, index, camera=camera, file=files[camera])
    for camera, details in unused.items():
        if details:
            detail = f"{len(details)} episodes: {details[0]}"
            dataset.warn("bad_video_pointer", detail, camera=camera)
        else:
            detail = f"{camera} is declared in info.json, but no episode has a file"
            dataset.warn("camera_without_files", detail, camera=camera)


def _no_video(dataset: LerobotListing, index: int, files: Mapping[str, str]) -> tuple[str, str]:
    """The reason why an episode has no pictures, and where these may be."""
    if files:
        detail = f"no video file; looked for {named([*files.values()])}"
    else:
        detail = f"{INFO} declares no camera"
    counts = _pictures_by_episode(dataset.source)[index]
    pictures = {f: n for f, n in counts.items() if not {*files}.isdisjoint(f.split("/"))}
    if pictures:
        # LeRobot keeps the pictures of a recording so until it has made a video of them
        detail += f"; {sum(pictures.values())} pictures lie in {named([*pictures])}: make such videos of them"
        return "other_layout", detail
    return "no_video", detail


@once
def _pictures_by_episode(source: Source) -> defaultdict[int, Counter[str]]:
    """How many loose pictures folders have, by the episode that they name, -1 for none."""
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for file_match in filter(None, map(PICTURE_FILE.fullmatch, source.files)):
        counts[int(file_match[2] or -1)][file_match[1]] += 1
    return counts


def holds_other_episodes(info: dict[str, Any], uri: str) -> bool:
    """Is a video file shared, as v3 does it? By its name, else by the template that names it."""
    name = PurePosixPath(uri).stem
    if "episode_" in name or name.startswith("file-"):
        return name.startswith("file-")
    template = info.get("video_path")
    return not (isinstance(template, str) and "{episode_index" in template)


# The adapter


def recognises(source: Source) -> bool:
    """A folder with meta/, or with data/ or videos/ laid out as LeRobot does; also when files are lacking."""
    if any(FOLDER.match(folder) for folder in source.contents.folders):
        return True
    patterns = (EPISODE_FILE, DATA_FILE, VIDEO_FILE)
    return any(pattern.match(uri) for uri, pattern in product(source.files, patterns))


def roots(uris: Iterable[str]) -> dict[str, str]:
    return folders_of(ROOT, uris)


def list_episodes(source: Source) -> Listing:
    location = "meta/info.json"
    try:
        info = read_info(source)
        dataset = LerobotListing(source, info=info, version=version_of(source, info))
        cameras = cameras_of(dataset)
        location = "meta"
        _add_episodes(dataset, cameras)
    except DataError as e:
        # Metadata that cannot be read (only info.json says where an episode lies), or that claims too much
        listing = ListingBuilder(source)
        listing.unusable(e.reason, str(e), file=location)
        return listing.listing("lerobot", (), numbered=True)
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
    episodes = with_metadata(rows, metadata)
    steps = native_steps(dataset, episodes)
    videos_by_episode = find_videos(dataset, episodes, cameras)
    lost = {f.episode_index for f in dataset.findings if f.severity == "unusable"}
    for index, videos in videos_by_episode.items():
        dataset.number = index
        _check(dataset, index, episodes[index], is_lost=index in lost)
        s = steps.get(index, NO_STEPS)
        _add(
            dataset,
            index,
            episodes[index],
            videos,
            texts,
            steps=s.steps,
            steps_from=s.form or None,
            plan=s.plan,
            as_far_as=s.as_far_as,
        )
    account_for_parts(dataset, episodes, cameras)
    if all(map(dataset.wants, episodes)):
        _check_totals(dataset, episodes)


def _check_totals(dataset: LerobotListing, episodes: Episodes) -> None:
    """Find where info.json and the statistics count other episodes or rows than there are.

    Rows are counted where every episode has some: one without is a finding of its own.
    """
    has_rows = all(episode.uri for episode in episodes.values())
    num_rows = sum(episode.num_rows for episode in episodes.values()) if has_rows else None
    claims = (
        (f"{INFO} says {{}} episodes", dataset.info.get("total_episodes"), len(episodes)),
        (f"{INFO} says {{}} frames", dataset.info.get("total_frames"), num_rows),
        (f"{OF_ALL} is of {{}} rows", counted_rows(dataset.source), num_rows),
    )
    differences = [
        (words.format(n), count)
        for words, n, count in claims
        if count is not None and whole(n) not in (None, count)
    ]
    if differences:
        detail = "; ".join(f"{claim}, there are {count}" for claim, count in differences)
        dataset.warn("length_differs", detail, file=INFO)


def _add(
    dataset: LerobotListing,
    index: int,
    episode: StoredEpisode,
    videos: tuple[CameraVideo, ...],
    texts: Mapping[int, str],
    **steps: Any,
) -> None:
    """Add an episode, with its `steps`; `texts`: of tasks, by their numbers."""
    meta = episode.meta
    # What the metadata says counts before what the last row says
    facts = {**episode.facts, **meta}
    # GR00T-flavoured sets list quality labels ("valid") among an episode's tasks: only the rows tell them apart
    row_tasks = [texts[number] for number in episode.task_indices if number in texts]
    stated_texts = texts_among(map(facts.get, dataset.source.config.keys.language))
    tasks = texts_among([row_tasks or meta.get("tasks"), *stated_texts])
    if len(row_tasks) > 1:
        # Rows that change their task name steps. The whole is then a text in the columns that the registry names, or
        # one of the metadata that is no step's; a single word there is a label of quality
        sentences = (text for text in texts_among([meta.get("tasks")]) if len(text.split()) > 1)
        whole_tasks = stated_texts or tuple(text for text in sentences if text not in row_tasks)
        steps_by_column = {TASK_COLUMN: row_tasks}
        tasks = whole_tasks or dataset.whole_task(tuple(row_tasks), steps_by_column, None)
    dataset.add(
        f"episode_{index:06d}",
        dataset.rate,
        tasks=tasks,
        num_rows=episode.num_rows if episode.uri else None,
        data_uri=episode.uri or None,
        row_start=episode.row_start,
        videos=videos,
        facts=facts,
        evidence=_evidence(dataset, episode),
        group=dataset.group(facts, f"episode {index}"),
        no_task="no instruction in rows or metadata",
        **steps,
    )


def _evidence(dataset: LerobotListing, episode: StoredEpisode) -> OutcomeEvidence:
    """What metadata and rows say of an episode's outcome; the registry's field is taken at its word in both."""
    registered = [dataset.source.config.success_field]
    flags = {flag.name: flag.at_end for flag in episode.evidence.flags}
    # A flag, or a word in the last row
    stated_by_rows = stated({**episode.facts, **flags}, registered, "column")
    return replace(episode.evidence, stated=stated(episode.meta, registered) or stated_by_rows)


def _check(dataset: LerobotListing, index: int, episode: StoredEpisode, *, is_lost: bool) -> None:
    """Find what is wrong with an episode's rows, and where they differ from the metadata; `is_lost`: it has a finding
    that it cannot be used.
    """
    meta = episode.meta
    limits = dataset.source.config.limits
    if not meta:
        dataset.warn("not_in_metadata", "has rows, but the metadata does not list it", index)
    if episode.uri:
        if episode.num_rows == 0:
            dataset.unusable("no_data", "its table has no rows", index, file=episode.uri)
        elif problem := limits.excess(
            "max_rows", episode.num_rows, f"{episode.uri}: rows of one episode"
        ):
            dataset.unusable("over_limit", problem, index, file=episode.uri)
        if episode.ends_early:
            dataset.warn(
                "bad_episode_ends",
                f"{END_MARK} is set in a row that has others behind it",
                index,
                file=episode.uri,
            )
        if meta.get("length") not in (None, episode.num_rows):
            detail = f"metadata says {meta['length']} frames, its rows are {episode.num_rows}"
            dataset.warn("length_differs", detail, index)
    elif not is_lost and dataset.wants(index):
        # Its file, or without a pointer to one any file, may be a git-LFS pointer
        file = expected(dataset, index, meta)
        pointers = fnmatch.filter(sorted(dataset.pointers), file)
        if pointers:
            detail = "its rows are in a git-LFS pointer"
            dataset.unusable("lfs_pointer", detail, index, file=pointers[0])
        else:
            dataset.unusable("no_data", f"no rows; looked for {file}", index, file=file)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows and frames of one episode; raises DataError when the rows cannot be read."""
    info = read_info(source)
    # Only the columns of state, action and time are read
    path = source.resolve(record.data_uri or "")
    columns = (*signal_columns(source), TIME)
    rows = read_columns(path, record.row_start, record.num_rows or 0, columns, source.config.limits)
    times = vectors(rows[TIME], TIME) if TIME in rows.column_names else None
    signals = read_signals(source, rows)
    times_s = None if times is None else times[:, 0]
    matching = cache(partial(_match, source, info, record, times_s))
    frames = partial(_frames, source, record, matching)
    return EpisodeData(
        record,
        signals.state,
        signals.action,
        times_s,
        frames,
        signals.names_by,
        matching,
        stored_statistics(source, record.number_in_source, signals.roles),
    )


def _match(
    source: Source,
    info: dict[str, Any],
    record: EpisodeRecord,
    times_s: np.ndarray | None,
    camera: str,
) -> Match:
    """EpisodeData.match of a record. Raises DataError where the metadata cannot be read."""
    video = next(v for v in record.videos if v.camera == camera)
    if video.uri == record.data_uri:
        return Match()
    rate = video_rate(info, camera, record.fps)
    is_shared = holds_other_episodes(info, video.uri)
    if is_shared:
        span = span_of(source, camera, record.number_in_source, video.start_frame / rate)
    else:
        span = VideoSpan()
    try:
        times = frame_times(source.resolve(video.uri), source.config.limits)
    except VideoError:
        # Decoding it says what is wrong; a file that only lacks times is read from its beginning
        if is_shared and not video.start_frame:
            return Match(np.arange(record.num_rows or 0))
        return Match()
    return match(times, times_s, record.num_rows or 0, span)


def _frames(
    source: Source,
    record: EpisodeRecord,
    matching: Callable[[str], Match],
    camera: str,
    options: DecodeOptions = DECODE_ALL,
) -> Iterator[TimedPicture]:
    """Episode.frames of a record: from a video of its own, from one that it shares, or from its rows."""
    video = next(v for v in record.videos if v.camera == camera)
    if video.uri == record.data_uri:
        # The table itself holds the pictures, or names their files
        pictures: Iterable[Picture] = read_pictures(
            source, video.uri, video.start_frame, record.num_rows or 0, camera
        )
    else:
        pictures = of_places(
            source.resolve(video.uri), matching(camera).places, video.start_frame, options
        )
    yield from timed(pictures, record.fps)
