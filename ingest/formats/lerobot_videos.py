"""Which file, and from which frame on, shows an episode of a LeRobot dataset: a video, or the rows themselves where
they hold the pictures. Nothing is decoded."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ingest.episode import CameraVideo, Finding
from ingest.formats.lerobot_meta import LerobotListing, expected, locate, v2_numbers, v3_pointer, video_rate
from ingest.formats.lerobot_rows import EpisodeRows
from ingest.formats.listing import named
from ingest.formats.numbers import finite

MAX_START_S = 1e9  # no video is so long

Metadata = Mapping[int, dict[str, Any]]  # by episode
RowsByEpisode = Mapping[int, EpisodeRows]
Videos = dict[int, dict[str, CameraVideo]]  # by episode and camera
Doubts = dict[int, dict[str, str]]  # what is wrong with the metadata's pointer to a video, by episode and camera


def find_videos(
    dataset: LerobotListing, metadata: Metadata, rows: RowsByEpisode, cameras: list[str]
) -> dict[int, tuple[CameraVideo, ...]]:
    """The videos of each episode by preference of cameras, with findings about those that it lacks."""
    doubts: Doubts = defaultdict(dict)
    videos: Videos = {}
    for episode in sorted({*metadata, *rows}):
        found = [_video(dataset, episode, camera, metadata, rows, doubts) for camera in cameras]
        videos[episode] = {video.camera: video for video in found if video}
    # Files of v3 hold several episodes, so that pointers into them can be wrong
    if dataset.version == "v3.0":
        _check_lengths(dataset, videos, metadata, rows)
        _drop_shared_frames(videos, rows, doubts)
    # Rows of a remote episode that is not asked for are not looked for: no finding would be sure
    for episode in filter(dataset.wants, videos):
        looked_for = {camera: expected(dataset, episode, metadata.get(episode, {}), camera) for camera in cameras}
        _report(dataset, episode, videos[episode], doubts.get(episode, {}), looked_for)
    _report_unused_cameras(dataset, videos, cameras)
    return {episode: tuple(by_camera.values()) for episode, by_camera in videos.items()}


def _video(
    dataset: LerobotListing, episode: int, camera: str, metadata: Metadata, rows: RowsByEpisode, doubts: Doubts
) -> CameraVideo | None:
    """Where a camera's pictures of an episode are, if anywhere; what is wrong with a pointer is put into `doubts`."""
    if episode in rows and camera in rows[episode].pictures:
        return CameraVideo(camera, rows[episode].uri, rows[episode].row_start)
    if dataset.version != "v3.0":
        uri = locate(dataset, "video_path", {"video_key": camera, **v2_numbers(dataset, episode)})
        return CameraVideo(camera, uri, 0) if uri else None
    meta = metadata.get(episode, {})
    pointer, start_s = v3_pointer(meta, f"videos/{camera}"), finite(meta.get(f"videos/{camera}/from_timestamp"))
    if not pointer or start_s is None or not 0 <= start_s < MAX_START_S:
        # An episode that the metadata does not list has a finding that says so
        if meta:
            doubts[episode][camera] = f"no file or start time of {camera} in the metadata"
        return None
    uri = locate(dataset, "video_path", {"video_key": camera, **pointer})
    # The start time counts in the file's own rate, which need not be that of the rows
    start_frame = round(start_s * video_rate(dataset.info, camera, dataset.rate))
    return CameraVideo(camera, uri, start_frame) if uri else None


def _check_lengths(dataset: LerobotListing, videos: Videos, metadata: Metadata, rows: RowsByEpisode) -> None:
    """Warn of a part of a video that is longer or shorter than the rows: decoding a shared file cannot show it."""
    for episode in filter(rows.__contains__, videos):
        for camera, video in videos[episode].items():
            meta = metadata.get(episode, {})
            start_s, end_s = (finite(meta.get(f"videos/{camera}/{edge}_timestamp")) for edge in ("from", "to"))
            if camera in rows[episode].pictures or start_s is None or end_s is None:
                continue
            num_frames = round((end_s - start_s) * video_rate(dataset.info, camera, dataset.rate))
            if num_frames != rows[episode].num_rows:
                detail = f"metadata gives it {num_frames} frames of video, its rows are {rows[episode].num_rows}"
                dataset.warn("length_differs", detail, episode, camera=camera, file=video.uri)


def _drop_shared_frames(videos: Videos, rows: RowsByEpisode, doubts: Doubts) -> None:
    """Take a video from all episodes that claim the same frames of it: at most one of them is right, and unknown."""
    claims: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)  # frames, half-open, and episode
    for episode in filter(rows.__contains__, videos):
        for camera, video in videos[episode].items():
            end_frame = video.start_frame + rows[episode].num_rows
            claims[camera, video.uri].append((video.start_frame, end_frame, episode))
    for (camera, uri), of_file in claims.items():
        # Of the claims so far, the one that reaches furthest is the one that the next may overlap
        _, furthest, other = min(of_file)
        for start_frame, end_frame, episode in sorted(of_file)[1:]:
            if start_frame < furthest:
                for one, another in ((episode, other), (other, episode)):
                    doubts[one].setdefault(camera, f"claims frames of {uri} that episode {another} claims too")
                    videos[one].pop(camera, None)
            if end_frame > furthest:
                furthest, other = end_frame, episode


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


def _report_unused_cameras(dataset: LerobotListing, videos: Videos, cameras: Sequence[str]) -> None:
    """Say once what is so for every episode: a camera beside usable ones that none of them has."""
    used = set().union(*videos.values())
    of_each: dict[str, list[Finding]] = {camera: [] for camera in sorted({*cameras} - used)} if used else {}
    kept: list[Finding] = []
    for found in dataset.findings:
        is_replaced = found.reason in ("bad_video_pointer", "missing_camera")
        (of_each.get(found.camera or "", kept) if is_replaced else kept).append(found)
    dataset.findings = kept
    for camera, own in of_each.items():
        if told := [f.detail for f in own if f.reason == "bad_video_pointer"]:
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
