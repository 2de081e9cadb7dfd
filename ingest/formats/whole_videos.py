"""Episodes whose every camera is a video file of its own."""

from collections.abc import Iterable, Iterator, Mapping

from ingest.episode import CameraVideo, EpisodeRecord, Finding, FrameReader, TimedPicture, timed
from ingest.media.video import DECODE_ALL, DecodeOptions, VideoError, decode
from ingest.sources.archives import ArchiveError
from ingest.sources.files import Source


def videos_of(
    found: Mapping[str, str], expected: Iterable[str], index: int, findings: list[Finding]
) -> tuple[CameraVideo, ...]:
    """The videos (uri by camera) of an episode in the order of `expected`, with findings about those that it lacks."""
    if not found:
        findings.append(Finding("no_video", "no video file of any camera", "unusable", index))
        return ()
    for camera in expected:
        if camera not in found:
            findings.append(Finding("missing_camera", f"no video file of {camera}", "warning", index, camera))
    return tuple(CameraVideo(c, found[c], 0) for c in expected if c in found)


def frames_of(source: Source, record: EpisodeRecord) -> FrameReader:
    """Episode.frames of a record. A file is decoded to its end, so that one that is too long is noticed."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        try:
            path = source.resolve(video.uri)
        except ArchiveError as e:
            raise VideoError(str(e)) from e
        yield from timed(decode(path, options=options), record.fps)

    return frames
