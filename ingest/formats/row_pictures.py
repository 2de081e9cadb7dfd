"""Pictures of rows that lie in files of their own: which belong to a file of rows, and which of them each row shows.

    episode_0.hdf5    episode_0.mp4, episode_0_front.mp4, episode_0/front.mp4, videos/front/episode_0.mp4
    run_7/rows.h5     run_7/videos/front.mp4, where no other rows lie in run_7

A folder of pictures stands for a video. What a path says beside the name of the rows is the camera.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import repeat
from pathlib import Path
from posixpath import dirname, splitext

import numpy as np

from ingest.episode import EpisodeRecord, FrameReader, Match, TimedPicture, timed
from ingest.formats.array_pictures import PICTURE_WORDS, other_kind
from ingest.formats.folders import is_video, probed
from ingest.media.frames import DECODE_ALL, DecodeOptions, Picture, VideoError
from ingest.media.picture import decode_picture
from ingest.media.video import VideoInfo, decode, frame_times
from ingest.sources.files import Source

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CAMERA = "video"  # where nothing names it
NO_NAMES = PICTURE_WORDS | {"video", "videos", "mp4", "recording", "recordings", "data"}
BESIDE, FOLDERS = "pictures beside rows", "pictures by folder"  # of a source: looked for once
MAX_APART_S = 0.5  # by which rows and pictures may end apart
SEPARATOR = re.compile(r"[-_. ]")


def pictures_beside(source: Source, uri: str, row_uris: Collection[str]) -> dict[str, str]:
    """Videos and folders of pictures that belong to a file of rows, by camera; `row_uris`: all such files."""
    if BESIDE not in source.noted:
        source.noted[BESIDE] = _by_rows(source, row_uris)
    return source.noted[BESIDE].get(uri, {})


def _by_rows(source: Source, row_uris: Collection[str]) -> Mapping[str, dict[str, str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for uri in row_uris:
        by_stem[splitext(uri)[0].rpartition("/")[2]].append(uri)
        by_folder[dirname(uri)].append(uri)
    cameras: dict[str, dict[str, str]] = defaultdict(dict)
    shown = {splitext(uri)[0]: uri for uri in source.files if is_video(uri)}
    shown |= {folder: folder for folder in _folders(source) if folder}
    for path, uri in sorted(shown.items()):
        parts = path.split("/")
        owners = _named_owners(parts, by_stem) or _only_owner(parts, by_folder)
        if len(owners) == 1 and not other_kind(path):
            [(owner, rest)] = owners.items()
            cameras[owner].setdefault("/".join(rest) or CAMERA, uri)
    return cameras


def _named_owners(parts: list[str], by_stem: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The rows whose name a part of the path has, or begins with, each with what else the path says; of several those
    that share most folders with it, then those of the longest name."""
    found = dict[str, tuple[tuple[int, int], list[str]]]()
    for place, part in enumerate(parts):
        ends = [*(match.start() for match in SEPARATOR.finditer(part)), len(part)]
        for end in ends:
            for owner in by_stem.get(part[:end], ()):
                folders = owner.split("/")[:-1]
                label = part[end:].strip("-_. ")
                others = [*parts[:place], *([label] if label else []), *parts[place + 1 :]]
                rank = (len({*folders} & {*others}), end)
                found[owner] = max(found.get(owner, (rank, [])), (rank, _names(others, folders)))
    best = max((rank for rank, _ in found.values()), default=None)
    return {owner: rest for owner, (rank, rest) in found.items() if rank == best}


def _only_owner(parts: list[str], by_folder: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The rows that lie alone in the nearest folder above that has any."""
    for depth in range(len(parts) - 1, -1, -1):
        owners = by_folder.get("/".join(parts[:depth]), [])
        if owners:
            return {owners[0]: _names(parts[depth:], [])} if len(owners) == 1 else {}
    return {}


def _names(parts: Iterable[str], folders: Collection[str]) -> list[str]:
    """Those parts of a path that name a camera."""
    return [part for part in parts if part not in folders and part.lower() not in NO_NAMES]


def _folders(source: Source) -> dict[str, list[str]]:
    """The pictures in each folder that holds several, in order."""
    if FOLDERS not in source.noted:
        folders: dict[str, list[str]] = defaultdict(list)
        for uri in source.files:
            if uri.lower().endswith(PICTURE_SUFFIXES):
                folders[dirname(uri)].append(uri)
        several = {folder: uris for folder, uris in folders.items() if len(uris) > 1}
        source.noted[FOLDERS] = {f: sorted(uris, key=_numbers) for f, uris in several.items()}
    return source.noted[FOLDERS]


def _numbers(uri: str) -> list[tuple[int, str]]:
    """Sort key: frame_2 before frame_10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split("([0-9]{1,18})", uri)
    ]


def rate_by_video(source: Source, uris: Iterable[str], num_rows: int | None) -> float | None:
    """Rows a second, where they take as long as the first video that says how long it is; None where none does."""
    for info in (
        () if source.config.is_remote else map(probed, repeat(source), filter(is_video, uris))
    ):
        if isinstance(info, VideoInfo):
            return info.fps * (num_rows or 1) / (info.num_frames or num_rows or 1)
    return None


def frames_beside(
    source: Source, record: EpisodeRecord, times_s: np.ndarray | None
) -> tuple[FrameReader, Callable[[str], Match]]:
    """EpisodeData.frames and .match of rows whose cameras are files of their own; `times_s`: those of the rows."""
    uris = {video.camera: video.uri for video in record.videos}

    @cache
    def match(camera: str) -> Match:
        return _match(source, uris[camera], record, times_s)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        uri = uris[camera]
        pictures: Iterable[Picture]
        if uri in source.files:
            pictures = of_places(source.resolve(uri), match(camera).places, 0, options)
        else:
            pictures = pictures_of(source, _folders(source)[uri])
        yield from timed(pictures, record.fps)

    return frames, match


def pictures_of(source: Source, uris: Iterable[str]) -> Iterator[Picture]:
    """Pictures that are files of their own. Raises VideoError."""
    for uri in uris:
        yield decode_picture(source.resolve(uri).read_bytes(), uri, source.config.limits)


def _match(source: Source, uri: str, record: EpisodeRecord, times_s: np.ndarray | None) -> Match:
    """By number where there are as many; else by time, where rows and pictures take equally long; else the whole file,
    so that its length is found."""
    num_rows = record.num_rows or 0
    try:
        video = frame_times(source.resolve(uri), source.config.limits)
    except VideoError:
        return Match()
    if len(video.ticks) == num_rows:
        return Match()
    rows_s = np.arange(num_rows) / record.fps if times_s is None else times_s - times_s[0]
    shown_s = video.seconds - video.seconds[0]
    if not num_rows or not abs(shown_s[-1] - rows_s[-1]) <= MAX_APART_S:
        return Match()
    doubt = f"{num_rows} rows and {len(shown_s)} pictures take the same time: each row has the picture of its time"
    return Match(video.nearest(rows_s + video.seconds[0]), doubt)


def of_places(
    path: Path, places: np.ndarray | None, start_frame: int, options: DecodeOptions
) -> Iterator[Picture]:
    """The pictures of a file at some places, in order; None: all from a frame on, so that too many are noticed."""
    if places is None:
        yield from decode(path, start_frame, options=options)
        return
    if not len(places):
        return
    offsets = (places - places[0]).tolist()
    requested_frames = options.wanted
    if requested_frames is not None:
        requested_frames = frozenset(offsets[row] for row in requested_frames if row < len(offsets))
    pictures = decode(
        path, int(places[0]), offsets[-1] + 1, replace(options, wanted=requested_frames)
    )
    # Rows that come faster than pictures share some
    times_used = Counter(offsets)
    for offset, picture in enumerate(pictures):
        yield from repeat(picture, times_used[offset])
