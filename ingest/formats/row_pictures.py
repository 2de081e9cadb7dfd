"""Pictures of rows that lie in files of their own: which belong to a file of rows, and which of them each row shows.

    episode_0.hdf5    episode_0.mp4, episode_0_front.mp4, episode_0/front.mp4, videos/front/episode_0.mp4
    run_7/rows.h5     run_7/videos/front.mp4, where no other rows lie in run_7

A folder of numbered pictures stands for a video. What a path says beside the name of the rows is the camera.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from posixpath import dirname, splitext

import numpy as np

from core.values import grouped
from ingest.episode import EpisodeData, EpisodeRecord, Match, TimedPicture, timed
from ingest.formats.array_pictures import PICTURE_WORDS, other_kind
from ingest.formats.folders import is_video, probed
from ingest.media.frames import DECODE_ALL, DecodeOptions, Picture, VideoError
from ingest.media.picture import decode_picture
from ingest.media.video import VideoInfo, decode, frame_times
from ingest.sources.files import Source
from ingest.sources.types import folders_above

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CAMERA = "video"  # where nothing names it
NO_NAMES = PICTURE_WORDS | {"video", "videos", "mp4", "recording", "recordings", "data", "frame"}
LAST_NUMBER = re.compile(r"[-_./]?[0-9]*\.[^./]*$")
BESIDE, FOLDERS = "pictures beside rows", "pictures by folder"  # of a source: looked for once
MAX_APART_S = 0.5  # by which rows and pictures may end apart
SEPARATOR = re.compile(r"[-_. ]")


def pictures_beside(source: Source, uri: str, row_uris: Collection[str]) -> dict[str, str]:
    """Videos and folders of pictures that belong to a file of rows, by camera; `row_uris`: all such files."""
    if BESIDE not in source.noted:
        source.noted[BESIDE] = _by_rows(source, row_uris)
    return source.noted[BESIDE].get(uri, {})


def _by_rows(source: Source, row_uris: Collection[str]) -> Mapping[str, dict[str, str]]:
    by_stem = grouped((splitext(uri)[0].rpartition("/")[2], uri) for uri in row_uris)
    by_folder = grouped((dirname(uri), uri) for uri in row_uris)
    cameras: dict[str, dict[str, str]] = defaultdict(dict)
    picture_places = {splitext(uri)[0]: uri for uri in source.files if is_video(uri)}
    picture_places |= {folder: folder for folder in _folders(source) if folder}
    for path in sorted(path for path in picture_places if not other_kind(path)):
        named_owners = _named_owners(path.split("/"), by_stem)
        alone = [uris for folder in folders_above(path) if (uris := by_folder.get(folder))][:1]
        owners = named_owners or {
            uri: path[len(dirname(uri)) :].split("/") for uri in chain(*alone)
        }
        for owner, parts in owners.items() if len(owners) == 1 else ():
            cameras[owner].setdefault(_camera(parts, owner.split("/")), picture_places[path])
    return cameras


def _camera(parts: Sequence[str], folders: Sequence[str]) -> str:
    """A camera's name: what the parts of its path say beyond the folders of its rows."""
    names = [p for p in parts if p and p not in folders and p.lower() not in NO_NAMES]
    return "/".join(names) or CAMERA


def _named_owners(parts: list[str], by_stem: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The rows whose name a part of the path has, or begins with, each with what else the path says; of several those
    that share most folders with it, then those of the longest name."""
    ranks = dict[str, tuple[int, int, list[str]]]()
    for place, part in enumerate(parts):
        for end in (*(match.start() for match in SEPARATOR.finditer(part)), len(part)):
            other_parts = [*parts[:place], part[end + 1 :], *parts[place + 1 :]]
            for owner in by_stem.get(part[:end], ()):
                rank = (len({*owner.split("/")} & {*other_parts}), end, other_parts)
                ranks[owner] = max(ranks.get(owner, rank), rank)
    best = max((rank[:2] for rank in ranks.values()), default=None)
    return {owner: other_parts for owner, (*rank, other_parts) in ranks.items() if (*rank,) == best}


def _folders(source: Source) -> dict[str, list[str]]:
    """Pictures in order, by the path that those of a camera share before their numbers."""
    if FOLDERS not in source.noted:
        pictures = (uri for uri in source.files if uri.lower().endswith(PICTURE_SUFFIXES))
        sets = grouped((LAST_NUMBER.sub("", uri), uri) for uri in sorted(pictures, key=natural))
        source.noted[FOLDERS] = {name: uris for name, uris in sets.items() if len(uris) > 1}
    return source.noted[FOLDERS]


def natural(text: str) -> list[str | int]:
    """Sort key: demo_2 before demo_10."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split(r"([0-9]{1,18})", text))]


def rate_by_video(source: Source, uris: Iterable[str], num_rows: int | None) -> float | None:
    """Rows a second, where they take as long as the first video that says how long it is; None where none does."""
    videos = [] if source.config.is_remote or not num_rows else list(filter(is_video, uris))[:1]
    infos = [info for uri in videos if isinstance(info := probed(source, uri), VideoInfo)]
    return next((i.fps * (num_rows or 1) / (i.num_frames or num_rows or 1) for i in infos), None)


def with_frames_beside(source: Source, episode: EpisodeData) -> EpisodeData:
    """Rows with the pictures of their cameras, which are files of their own."""
    record = episode.record
    uris = {video.camera: video.uri for video in record.videos}

    @cache
    def match(camera: str) -> Match:
        return _match(source, uris[camera], record, episode.timestamps_s)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        uri = uris[camera]
        pictures: Iterable[Picture]
        if uri in source.files:
            pictures = of_places(source.resolve(uri), match(camera).places, 0, options)
        else:
            pictures = pictures_of(source, _folders(source)[uri])
        yield from timed(pictures, record.fps)

    return replace(episode, frames=frames, match=match)


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
