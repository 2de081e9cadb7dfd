"""Episodes whose every camera is a video file of its own."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ingest.episode import CameraVideo, EpisodeRecord, FrameReader, TimedPicture, timed
from ingest.formats.listing import ListingBuilder, named
from ingest.media.video import DECODE_ALL, DecodeOptions, VideoError, decode
from ingest.sources.archives import ArchiveError
from ingest.sources.files import Source


class EpisodeKey(NamedTuple):
    """An episode by its task, which is "" where the dataset is one task's."""

    task: str
    episode: str

    @property
    def source_id(self) -> str:
        return f"{self.task}/{self.episode}" if self.task else self.episode


def videos_of(
    listing: ListingBuilder, uri_by_camera: Mapping[str, str], expected: Mapping[str, str]
) -> tuple[CameraVideo, ...]:
    """The videos of the coming episode in the order of `expected`, with findings about those that it lacks.

    `expected`: by camera, in order of preference, the file that should be there.
    """
    index = listing.next_index
    if not uri_by_camera:
        files = list(expected.values())
        listing.unusable("no_video", f"no video file; looked for {named(files)}", index, file=files[0])
        return ()
    videos = []
    for camera, file in expected.items():
        if camera in uri_by_camera:
            videos.append(CameraVideo(camera, uri_by_camera[camera], 0))
        else:
            listing.warn("missing_camera", f"there is no {file}", index, camera=camera, file=file)
    return tuple(videos)


def videos_in(folder: str, cameras: Iterable[str]) -> dict[str, str]:
    """The video that each camera should have in an episode's folder; any one, where no camera is known."""
    return {camera: f"{folder}/{camera}.mp4" for camera in cameras} or {"": f"{folder}/*.mp4"}


def cameras_by_task(videos: Mapping[EpisodeKey, Iterable[str]]) -> dict[str, set[str]]:
    """Cameras that any episode of a task has, from those of each episode: robots differ between tasks."""
    cameras: dict[str, set[str]] = defaultdict(set)
    for key, names in videos.items():
        cameras[key.task].update(names)
    return cameras


def frames_of(source: Source, record: EpisodeRecord) -> FrameReader:
    """Episode.frames of a record. A file is decoded to its end, so that one that is too long is noticed."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        # A video inside a tar is unpacked now, when its frames are asked for
        try:
            path = source.resolve(video.uri)
        except ArchiveError as e:
            raise VideoError(str(e)) from e
        yield from timed(decode(path, options=options), record.fps)

    return frames
