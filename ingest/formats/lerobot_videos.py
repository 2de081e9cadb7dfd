"""Which file, and from which frame on, shows an episode of a LeRobot dataset: a video, or the rows themselves where
they hold the pictures. Nothing is decoded."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ingest.episode import CameraVideo
from ingest.formats.lerobot_meta import (
    VIDEO_V2,
    VIDEO_V3,
    LerobotListing,
    expected,
    finite,
    locate,
    v2_numbers,
    video_rate,
    whole,
)
from ingest.formats.lerobot_rows import EpisodeRows
from ingest.formats.listing import named

MAX_START_S = 1e9  # no video is so long

Metadata = Mapping[int, dict[str, Any]]  # by episode
RowsByEpisode = Mapping[int, EpisodeRows]
Videos = dict[int, dict[str, CameraVideo]]  # by episode and camera
Doubts = dict[int, dict[str, str]]  # what is wrong with the metadata's pointer to a video, by episode and camera


class Claim(NamedTuple):
    """Frames of a shared file that an episode claims; half-open."""

    start_frame: int
    end_frame: int
    episode: int


def find_videos(
    dataset: LerobotListing, metadata: Metadata, rows: RowsByEpisode, cameras: list[str]
) -> dict[int, tuple[CameraVideo, ...]]:
    """The videos of each episode by preference of cameras, with findings about those that it lacks."""
    doubts: Doubts = defaultdict(dict)
    videos = _located(dataset, metadata, rows, cameras, doubts)
    # Files of v3 hold several episodes, so that pointers into them can be wrong
    if dataset.version == "v3.0":
        _check_lengths(dataset, videos, metadata, rows)
        _drop_shared_frames(videos, rows, doubts)
    # Rows of a remote episode that is not asked for are not looked for: no finding would be sure
    for episode in filter(dataset.wants, videos):
        looked_for = {camera: _expected(dataset, episode, camera, metadata.get(episode, {})) for camera in cameras}
        _report(dataset, episode, videos[episode], doubts.get(episode, {}), looked_for)
    _report_unused_cameras(dataset, videos, cameras)
    return {episode: tuple(by_camera.values()) for episode, by_camera in videos.items()}


def _located(
    dataset: LerobotListing, metadata: Metadata, rows: RowsByEpisode, cameras: list[str], doubts: Doubts
) -> Videos:
    """Where metadata and rows say that videos are; what is wrong with pointers is put into `doubts`."""
    videos: Videos = {}
    for episode in sorted({*metadata, *rows}):
        candidates = [_video(dataset, episode, camera, metadata, rows, doubts) for camera in cameras]
        videos[episode] = {video.camera: video for video in candidates if video}
    return videos


def _video(
    dataset: LerobotListing, episode: int, camera: str, metadata: Metadata, rows: RowsByEpisode, doubts: Doubts
) -> CameraVideo | None:
    """Where a camera's pictures of an episode are, if anywhere."""
    if episode in rows and camera in rows[episode].pictures:
        return CameraVideo(camera, rows[episode].uri, rows[episode].row_start)
    if dataset.version == "v3.0":
        return _video_v3(dataset, episode, metadata.get(episode, {}), camera, doubts)
    uri = locate(dataset, "video_path", VIDEO_V2, video_key=camera, **v2_numbers(dataset, episode))
    return CameraVideo(camera, uri, 0) if uri else None


def _video_v3(
    dataset: LerobotListing, episode: int, meta: dict[str, Any], camera: str, doubts: Doubts
) -> CameraVideo | None:
    chunk, file = whole(meta.get(f"videos/{camera}/chunk_index")), whole(meta.get(f"videos/{camera}/file_index"))
    start_s = finite(meta.get(f"videos/{camera}/from_timestamp"))
    if chunk is None or file is None or start_s is None or not 0 <= start_s < MAX_START_S:
        # An episode that the metadata does not list has a finding that says so
        if meta:
            doubts[episode][camera] = f"no file or start time of {camera} in the metadata"
        return None
    uri = locate(dataset, "video_path", VIDEO_V3, video_key=camera, chunk_index=chunk, file_index=file)
    # The start time counts in the file's own rate, which need not be that of the rows
    start_frame = round(start_s * video_rate(dataset.info, camera, dataset.fps))
    return CameraVideo(camera, uri, start_frame) if uri else None


def _expected(dataset: LerobotListing, episode: int, camera: str, meta: Mapping[str, Any]) -> str:
    """The file that should show a camera of an episode; v3 without a pointer to it: what such files are called."""
    numbers = v2_numbers(dataset, episode)
    if dataset.version != "v3.0":
        return expected(dataset, "video_path", VIDEO_V2, video_key=camera, **numbers)
    chunk, file = whole(meta.get(f"videos/{camera}/chunk_index")), whole(meta.get(f"videos/{camera}/file_index"))
    if chunk is None or file is None:
        return f"videos/{camera}/chunk-*/file-*.mp4"
    numbers |= {"chunk_index": chunk, "file_index": file}
    return expected(dataset, "video_path", VIDEO_V3, video_key=camera, **numbers)


def _check_lengths(dataset: LerobotListing, videos: Videos, metadata: Metadata, rows: RowsByEpisode) -> None:
    """Warn of a part of a video that is longer or shorter than the rows: decoding a shared file cannot show it."""
    for episode in filter(rows.__contains__, videos):
        for video in videos[episode].values():
            if video.camera not in rows[episode].pictures:
                _check_length(dataset, episode, video, metadata[episode], rows[episode].num_rows)


def _check_length(
    dataset: LerobotListing, episode: int, video: CameraVideo, meta: dict[str, Any], num_rows: int
) -> None:
    start_s = finite(meta.get(f"videos/{video.camera}/from_timestamp"))
    end_s = finite(meta.get(f"videos/{video.camera}/to_timestamp"))
    if start_s is None or end_s is None:
        return
    num_frames = round((end_s - start_s) * video_rate(dataset.info, video.camera, dataset.fps))
    if num_frames != num_rows:
        detail = f"metadata gives it {num_frames} frames of video, its rows are {num_rows}"
        dataset.warn("length_differs", detail, episode, camera=video.camera, file=video.uri)


def _drop_shared_frames(videos: Videos, rows: RowsByEpisode, doubts: Doubts) -> None:
    """Take a video from all episodes that claim the same frames of it: at most one of them is right, and unknown."""
    for (camera, uri), claims in _claims(videos, rows).items():
        for episode, other in _overlaps(sorted(claims)):
            detail = f"claims frames of {uri} that episode {other} claims too"
            doubts[episode].setdefault(camera, detail)
            videos[episode].pop(camera, None)


def _overlaps(claims: list[Claim]) -> Iterator[tuple[int, int]]:
    """Episodes of sorted claims that share frames, as pairs, each both ways round."""
    # Of the claims so far, the one that reaches furthest is the one that the next may overlap
    furthest = claims[0]
    for claim in claims[1:]:
        if claim.start_frame < furthest.end_frame:
            yield claim.episode, furthest.episode
            yield furthest.episode, claim.episode
        if claim.end_frame > furthest.end_frame:
            furthest = claim


def _claims(videos: Videos, rows: RowsByEpisode) -> dict[tuple[str, str], list[Claim]]:
    """Claims of episodes with rows, by camera and file."""
    claims: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for episode in filter(rows.__contains__, videos):
        for video in videos[episode].values():
            end_frame = video.start_frame + rows[episode].num_rows
            claims[video.camera, video.uri].append(Claim(video.start_frame, end_frame, episode))
    return claims


def _report(
    dataset: LerobotListing,
    episode: int,
    videos: Mapping[str, CameraVideo],
    doubts: Mapping[str, str],
    looked_for: Mapping[str, str],
) -> None:
    """Findings about what an episode lacks; `looked_for`: the file that each camera should have."""
    # What is doubtful beside a usable video is a warning; without one the episode cannot be used
    record = dataset.warn if videos else dataset.unusable
    for camera, detail in doubts.items():
        record("bad_video_pointer", detail, episode, camera=camera)
    if not videos and not doubts:
        files = list(looked_for.values())
        detail = f"no video file; looked for {named(files)}" if files else "meta/info.json declares no camera"
        dataset.unusable("no_video", detail, episode, file=next(iter(files), "meta/info.json"))
        return
    # A camera with a doubt has its finding already
    for camera, file in looked_for.items():
        if camera not in videos and camera not in doubts:
            dataset.warn("missing_camera", f"there is no {file}", episode, camera=camera, file=file)


def _report_unused_cameras(dataset: LerobotListing, videos: Videos, cameras: list[str]) -> None:
    """Say once what is so for every episode: a camera beside usable ones that none of them has."""
    used = {camera for by_camera in videos.values() for camera in by_camera}
    if not used:
        return
    unused = dict.fromkeys(camera for camera in cameras if camera not in used)
    # One finding in the place of an unused camera's findings of every episode
    of_episodes = {(camera, reason) for camera in unused for reason in ("bad_video_pointer", "missing_camera")}
    doubts: dict[str | None, list[str]] = defaultdict(list)
    for f in dataset.findings:
        if f.reason == "bad_video_pointer":
            doubts[f.camera].append(f.detail)
    dataset.findings = [f for f in dataset.findings if (f.camera, f.reason) not in of_episodes]
    for camera in unused:
        if told := doubts[camera]:
            dataset.warn("bad_video_pointer", f"{len(told)} episodes: {told[0]}", camera=camera)
        else:
            detail = f"{camera} is declared in info.json, but no episode has a file"
            dataset.warn("camera_without_files", detail, camera=camera)


def holds_other_episodes(info: dict[str, Any], uri: str) -> bool:
    """Is a video file shared, as v3 does it? By its name, else by the template that names it."""
    name = PurePosixPath(uri).stem
    if "episode_" in name or name.startswith("file-"):
        return name.startswith("file-")
    template = info.get("video_path")
    return not (isinstance(template, str) and "{episode_index" in template)
