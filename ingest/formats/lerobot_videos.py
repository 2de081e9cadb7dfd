"""Which file, and from which frame on, shows an episode of a LeRobot dataset: a video, or the rows themselves where
they hold the pictures. Nothing is decoded."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ingest.episode import CameraVideo
from ingest.formats.lerobot_meta import VIDEO_V2, VIDEO_V3, Dataset, finite, locate, v2_numbers, video_rate, whole
from ingest.formats.lerobot_rows import Rows

MAX_START_S = 1e9  # no video is so long

Videos = dict[int, dict[str, CameraVideo]]  # by episode and camera
Doubts = dict[int, dict[str, str]]  # what is wrong with the metadata's pointer to a video


def find_videos(
    ds: Dataset, metadata: Mapping[int, dict[str, Any]], rows: Mapping[int, Rows], cameras: list[str]
) -> dict[int, tuple[CameraVideo, ...]]:
    """The videos of each episode by preference of cameras, with findings about those that it lacks."""
    videos: Videos = {e: {} for e in sorted({*metadata, *rows})}
    doubts: Doubts = defaultdict(dict)
    for episode in videos:
        for camera in cameras:
            if episode in rows and camera in rows[episode].pictures:
                video = CameraVideo(camera, rows[episode].uri, rows[episode].row_start)
            elif ds.version == "v3.0":
                video = _video_v3(ds, episode, metadata.get(episode, {}), camera, doubts)
            else:
                uri = locate(ds, "video_path", VIDEO_V2, video_key=camera, **v2_numbers(ds, episode))
                video = CameraVideo(camera, uri, 0) if uri else None
            if video:
                videos[episode][camera] = video
    if ds.version == "v3.0":
        _check_lengths(ds, videos, metadata, rows)
        _drop_shared_frames(videos, rows, doubts)
    for episode in filter(ds.wants, videos):
        _report(ds, episode, videos[episode], doubts.get(episode, {}), cameras)
    _report_unused_cameras(ds, videos, cameras)
    return {e: tuple(found.values()) for e, found in videos.items()}


def _video_v3(ds: Dataset, episode: int, meta: dict[str, Any], camera: str, doubts: Doubts) -> CameraVideo | None:
    chunk, file = whole(meta.get(f"videos/{camera}/chunk_index")), whole(meta.get(f"videos/{camera}/file_index"))
    start_s = finite(meta.get(f"videos/{camera}/from_timestamp"))
    if chunk is None or file is None or start_s is None or not 0 <= start_s < MAX_START_S:
        if meta:
            doubts[episode][camera] = f"no file or start time of {camera} in the metadata"
        return None
    uri = locate(ds, "video_path", VIDEO_V3, video_key=camera, chunk_index=chunk, file_index=file)
    return CameraVideo(camera, uri, round(start_s * video_rate(ds.info, camera, ds.fps))) if uri else None


def _check_lengths(
    ds: Dataset, videos: Videos, metadata: Mapping[int, dict[str, Any]], rows: Mapping[int, Rows]
) -> None:
    """Warn of a part of a video that is longer or shorter than the rows: decoding a shared file cannot show it."""
    for episode, found in videos.items():
        for camera in found if episode in rows else ():
            if camera in rows[episode].pictures:
                continue
            start_s, end_s = (finite(metadata[episode].get(f"videos/{camera}/{n}_timestamp")) for n in ("from", "to"))
            if start_s is None or end_s is None:
                continue
            frames = round((end_s - start_s) * video_rate(ds.info, camera, ds.fps))
            if frames != rows[episode].num_rows:
                detail = f"metadata gives it {frames} frames of video, its rows are {rows[episode].num_rows}"
                ds.warn("length_differs", detail, episode, camera=camera, file=found[camera].uri)


def _drop_shared_frames(videos: Videos, rows: Mapping[int, Rows], doubts: Doubts) -> None:
    """Take a video from all episodes that claim the same frames of it: at most one of them is right, and unknown."""
    spans: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for episode, found in videos.items():
        for video in found.values():
            if episode in rows:
                end = video.start_frame + rows[episode].num_rows
                spans[video.camera, video.uri].append((video.start_frame, end, episode))
    for (camera, uri), claims in spans.items():
        claims.sort()
        furthest, owner = claims[0][1], claims[0][2]
        for start, end, episode in claims[1:]:
            if start < furthest:
                for one, other in ((episode, owner), (owner, episode)):
                    doubts[one].setdefault(camera, f"claims frames of {uri} that episode {other} claims too")
                    videos[one].pop(camera, None)
            if end > furthest:
                furthest, owner = end, episode


def _report(
    ds: Dataset, episode: int, found: Mapping[str, CameraVideo], doubts: Mapping[str, str], cameras: list[str]
) -> None:
    tell = ds.warn if found else ds.unusable
    for camera, detail in doubts.items():
        tell("bad_video_pointer", detail, episode, camera=camera)
    if not found and not doubts:
        ds.unusable("no_video", f"no video file of {', '.join(cameras) or 'any camera'}", episode)
        return
    for camera in cameras:
        if camera not in found and camera not in doubts:
            ds.warn("missing_camera", f"no video file of {camera}", episode, camera=camera)


def _report_unused_cameras(ds: Dataset, videos: Videos, cameras: list[str]) -> None:
    """Say once what is so for every episode: a camera beside usable ones that none of them has."""
    used = {camera for found in videos.values() for camera in found}
    for camera in [c for c in cameras if c not in used] if used else []:
        doubts = [f for f in ds.findings if f.camera == camera and f.reason == "bad_video_pointer"]
        once = {(camera, "bad_video_pointer"), (camera, "missing_camera")}
        ds.findings = [f for f in ds.findings if (f.camera, f.reason) not in once]
        if doubts:
            ds.warn("bad_video_pointer", f"{len(doubts)} episodes: {doubts[0].detail}", camera=camera)
        else:
            detail = f"{camera} is declared in info.json, but no episode has a file"
            ds.warn("camera_without_files", detail, camera=camera)


def holds_other_episodes(info: dict[str, Any], uri: str) -> bool:
    """Is a video file shared, as v3 does it? By its name, else by the template that names it."""
    name = PurePosixPath(uri).stem
    if "episode_" in name or name.startswith("file-"):
        return name.startswith("file-")
    template = info.get("video_path")
    return not (isinstance(template, str) and "{episode_index" in template)
