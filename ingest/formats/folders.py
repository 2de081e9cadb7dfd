"""Folders of videos and tables: each camera of an episode is a video file of its own, other files say the rest."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.episode import CameraVideo, EpisodeRecord, FrameReader, TimedPicture, timed
from ingest.formats.listing import ListingBuilder, in_order, named
from ingest.formats.steps import StatedSpan, checked_steps, span_objects
from ingest.media.frames import DECODE_ALL, VIDEO_SUFFIXES, DecodeOptions, VideoError
from ingest.media.video import VideoInfo, decode, probe
from ingest.sources.files import Source


@dataclass
class EpisodeFiles:
    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    tables: dict[str, str] = field(default_factory=dict)  # uri by what it holds


Key = tuple[str, str]  # an episode by its task, which is "" where the dataset is one task's


def is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEO_SUFFIXES)


def joined(folder: str, name: str) -> str:
    """A path below a folder, which is "" where it is the root."""
    return f"{folder}/{name}" if folder else name


def object_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def episodes_of(
    listing: ListingBuilder,
    files: Mapping[Key, EpisodeFiles],
    folder_of: Callable[[str, str], str],
    first: tuple[str, ...],
    last: tuple[str, ...],
) -> Iterator[tuple[Key, str, EpisodeFiles, tuple[CameraVideo, ...]]]:
    """Each episode's key, source id, files and videos, in order of ids, with findings about cameras that it lacks.

    Every camera that any episode of a task has is expected in all of them, as an MP4 file in the episode's folder.
    `first` and `last` are cameras as `in_order` takes them.
    """
    cameras: dict[str, set[str]] = defaultdict(set)  # robots differ between tasks
    for (task, _), found in files.items():
        cameras[task].update(found.videos)
    order = in_order(set().union(*cameras.values()), listing.source.config.cameras, first, last)
    for source_id, key in sorted((joined(*key), key) for key in files):
        folder = folder_of(*key)
        expected = {camera: f"{folder}/{camera}.mp4" for camera in order if camera in cameras[key[0]]}
        yield key, source_id, files[key], videos_of(listing, files[key].videos, expected or {"": f"{folder}/*.mp4"})


def probed(source: Source, uri: str) -> VideoInfo | VideoError:
    """What the header of a video says, or why it cannot be read."""
    try:
        return probe(source.resolve(uri), source.config.limits)
    except VideoError as e:
        return e


def videos_of(
    listing: ListingBuilder, uri_by_camera: Mapping[str, str], expected: Mapping[str, str]
) -> tuple[CameraVideo, ...]:
    """The videos of the coming episode in the order of `expected`, with findings about those that it lacks.

    `expected`: by camera, in order of preference, the file that should be there.
    """
    if not uri_by_camera:
        files = list(expected.values())
        listing.unusable_next("no_video", f"no video file; looked for {named(files)}", files[0])
    elif missing := {camera: file for camera, file in expected.items() if camera not in uri_by_camera}:
        for camera, file in missing.items():
            listing.warn_next("missing_camera", f"there is no {file}", file, camera)
    return tuple(CameraVideo(camera, uri_by_camera[camera], 0) for camera in expected if camera in uri_by_camera)


def stated_steps(
    listing: ListingBuilder,
    stored: Any,
    name: str,
    span_of: Callable[[dict[str, Any]], StatedSpan],
    num_frames: int | None,
    form: str,
) -> dict[str, Any]:
    """`steps` and `steps_from` of the coming episode. One span that is wrong casts doubt on all: none is kept then."""
    try:
        steps = checked_steps(map(span_of, span_objects([] if stored is None else stored, name)), num_frames)
    except (ValueError, OverflowError) as e:
        listing.warn_next("bad_steps", str(e))
        return {}
    return {"steps": steps, "steps_from": form if steps else None}


def frames_of(source: Source, record: EpisodeRecord) -> FrameReader:
    """Episode.frames of a record. A file is decoded to its end, so that one that is too long is noticed."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        # A video inside a tar is unpacked now, when its frames are asked for
        yield from timed(decode(source.resolve(video.uri), options=options), record.fps)

    return frames
