"""Pictures of rows: in arrays, or in files of their own.

Which arrays are a camera's colours, how their values lie, and one of them as RGB: names, shapes and types tell; of
floating-point numbers also the values of three rows. What is a picture of something else (depth, segments) is known by
its name, and left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from posixpath import dirname, splitext
from typing import NamedTuple

import numpy as np

from core.values import grouped, spread
from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Match,
    Picture,
    TimedPicture,
    VideoError,
    timed,
)
from ingest.formats.folders import is_video, probed
from ingest.media.camera_kinds import kind_by_name
from ingest.media.picture import ArrayPicture, array_picture, decode_picture
from ingest.media.video import VideoInfo, decode, frame_times
from ingest.signals.naming import words
from ingest.sources.files import Source, once
from ingest.sources.types import folders_above

MIN_SIDE = 8  # pixels: smaller things with three values are vectors
COLOUR_WORDS = frozenset({"rgb", "rgba", "bgr", "color", "colors", "colour", "colours"})
PICTURE_WORDS = COLOUR_WORDS | {
    "image", "images", "img", "imgs", "cam", "camera", "cameras", "gray", "grey", "grayscale", "picture", "pictures",
    "view", "frames", "pixels",
}  # fmt: skip
OTHER_KINDS = {
    "depth": "depth", "depths": "depth", "disparity": "depth", "seg": "segments", "segment": "segments",
    "segmentation": "segments", "segmentations": "segments", "semantic": "segments", "mask": "segments",
    "masks": "segments", "infra": "infrared", "infrared": "infrared", "flow": "optical flow",
    "normals": "surface normals", "pointcloud": "a point cloud",
}  # fmt: skip
SAMPLE_ROWS = 8  # of floating-point pictures, whose values tell the scale


class PictureForm(NamedTuple):
    """How the pictures of an array lie: channels before or after the sides, and what full brightness is."""

    channels_first: bool = False
    is_float: bool = False
    brightest: float = 255.0


def other_kind(path: str) -> str:
    """What an array of pictures shows other than colours, by the last word of its path that says anything; "" for
    colours.

    Example: other_kind("obs/front_depth") == "depth", other_kind("depth_camera/rgb") == "".
    """
    return kind_by_name(path, OTHER_KINDS, COLOUR_WORDS)


def is_called_picture(path: str) -> bool:
    """Does a part of the path say that there are pictures?"""
    return any(not PICTURE_WORDS.isdisjoint(words(part)) for part in path.split("/"))


def form_of(path: str, shape: Sequence[int | None], dtype: np.dtype | str) -> PictureForm | None:
    """How the pictures of an array lie, of which each row is one, by its description; None for what
    holds none.

    uint8 [t, h, w, 1, 3 or 4] and [t, 1, 3 or 4, h, w], [t, h, w] of a picture's name, and
    floating-point numbers likewise, whose `brightest` is not known yet (0).
    """
    dtype = np.dtype(dtype)
    is_float = dtype.kind == "f"
    sides = [size or 0 for size in shape[1:]]
    if dtype != np.uint8 and not is_float:
        return None
    is_grey = len(sides) == 2 and not is_float and min(sides) >= MIN_SIDE
    if is_grey and is_called_picture(path):
        return PictureForm()
    if len(sides) != 3:
        return None
    if sides[2] in (1, 3) and not is_float:
        return PictureForm()
    for channels_first, (channels, *other_sides) in ((False, sides[::-1]), (True, sides)):
        has_colours = channels == 3 or (channels in (1, 4) and is_called_picture(path))
        if has_colours and min(other_sides) >= MIN_SIDE:
            return PictureForm(channels_first, is_float, 0.0 if is_float else 255.0)
    return None


def scaled(
    form: PictureForm, num_rows: int, row: Callable[[int], np.ndarray]
) -> tuple[PictureForm | None, str]:
    """The form with what full brightness is, by a few rows; None and why not for values that are no pictures'.

    Raises ValueError where there are no rows.
    """
    if not form.is_float:
        return form, ""
    sample = np.stack([row(k) for k in spread(range(num_rows), SAMPLE_ROWS)])
    low = float(sample.min())
    high = float(sample.max())
    if not np.isfinite(sample).all() or low < 0 or high > 255:
        return (
            None,
            f"its values go from {low:.4g} to {high:.4g}, which are no picture's (0 to 1, or 0 to 255)",
        )
    return form._replace(brightest=1.0 if high <= 1 else 255.0), ""


def picture_of(array: np.ndarray, form: PictureForm, description: str) -> ArrayPicture:
    """One picture of an array, without its alpha channel; `description` names it in errors. Raises VideoError."""
    if form.channels_first:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[:, :, :3]
    if form.is_float:
        if not np.isfinite(array).all():
            raise VideoError(f"{description} holds values that are no numbers")
        array = np.clip(np.rint(array.astype(np.float64) * (255 / form.brightest)), 0, 255).astype(
            np.uint8
        )
    return array_picture(array, description)


# Files of their own: which belong to a file of rows, and which of their pictures each row shows
#
#     episode_0.hdf5    episode_0.mp4, episode_0_front.mp4, episode_0/front.mp4, videos/front/episode_0.mp4
#     run_7/rows.h5     run_7/videos/front.mp4, where no other rows lie in run_7
#
# A folder of numbered pictures stands for a video. What a path says beside the name of the rows is the camera

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CAMERA = "video"  # where nothing names it
NO_NAMES = PICTURE_WORDS | {"video", "videos", "mp4", "recording", "recordings", "data", "frame"}
LAST_NUMBER = re.compile(r"[-_./]?[0-9]*\.[^./]*$")
MAX_APART_S = 0.5  # by which rows and pictures may end apart
SEPARATOR = re.compile(r"[-_. ]")


@once
def pictures_beside(source: Source, *row_uris: str) -> Mapping[str, dict[str, str]]:
    """Videos and folders of pictures, by camera, that belong to each of all files of rows."""
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


@once
def _folders(source: Source) -> dict[str, list[str]]:
    """Pictures in order, by the path that those of a camera share before their numbers."""
    pictures = (uri for uri in source.files if uri.lower().endswith(PICTURE_SUFFIXES))
    sets = grouped((LAST_NUMBER.sub("", uri), uri) for uri in sorted(pictures, key=natural))
    return {name: uris for name, uris in sets.items() if len(uris) > 1}


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
