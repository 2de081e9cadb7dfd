"""One video file for one episode and one camera, for formats that keep a file each."""

from pathlib import Path

from ingest.formats.lerobot_meta import video_rate
from ingest.formats.lerobot_videos import holds_other_episodes
from ingest.media.video import probe
from warehouse.exports.common import ExportEpisode
from warehouse.exports.lerobot_features import SourceReader
from warehouse.exports.videos import Clip, WrittenVideo, is_copyable, plan_files, write_video


def clip_of(reader: SourceReader, camera: str, e: ExportEpisode) -> Clip:
    """An episode's pictures by one camera, and the file of the source that they may be copied from."""
    record = reader.record(e)
    video = next(v for v in record.videos if v.camera == camera)
    swapped = camera in reader.source.config.cameras.bgr  # its colours are put right when it is decoded
    copyable = not swapped and is_copyable(reader.format, record, video.uri)
    uri = video.uri if copyable else None
    # Other formats than LeRobot's say nothing of a camera's own rate: it is the episode's
    if reader.info is None:
        return Clip(e, uri, False, video.start_frame, record.fps)

    # A LeRobot source says at what rate a camera films, and which files hold several episodes
    info = dict(reader.info)
    rate, shared = video_rate(info, camera, record.fps), holds_other_episodes(info, video.uri)
    return Clip(e, uri, shared, video.start_frame, rate)


def frames_of_file(reader: SourceReader, uri: str) -> int | None:
    return probe(reader.source.resolve(uri), reader.source.config.limits).num_frames


def write_episode_video(reader: SourceReader, camera: str, e: ExportEpisode, out: Path) -> WrittenVideo:
    """The episode's frames at its rate: copied, cut or encoded, as write_video can. Raises what write_video raises."""
    [file] = plan_files(camera, [clip_of(reader, camera, e)], lambda _, uri: frames_of_file(reader, uri))
    return write_video(file, reader.source, reader.episode, out, e.fps, "h264")
