"""Write the videos of exported episodes: copy whole files, cut parts out, encode
the rest.

A file is copied only when all of its episodes are exported, so that no episode
that was not asked for, or was taken down, travels along. A part of a file is cut
out when it begins at a key frame. A clip is encoded anew when it does not begin
at a key frame, when its pictures are in no video file, or when the file's times
are not those of the rows.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from core.domain.label import Episode
from core.errors import UserError
from core.values import grouped
from ingest.episode import (
    VIDEO_SUFFIXES,
    CameraVideo,
    DecodeOptions,
    FrameTimes,
    TimedPicture,
    VideoError,
)
from ingest.formats.lerobot import holds_other_episodes
from ingest.formats.lerobot_episode import refused
from ingest.media.encoding import TICKS, encode
from ingest.media.groups import is_shown
from ingest.media.video import Frame, decode, frame_times, open_video, probe
from ingest.reasons import LIMITS, DataError, Limits
from warehouse.exports.selection import ExportedEpisode, SourceReader, counted_pictures

COPIED = "copied"
CUT = "cut"
ENCODED = "encoded"
Change = Callable[[Iterator[TimedPicture], Episode], Iterator[TimedPicture]]
TOLERANCE_S = 5e-5  # half of what LeRobot lets a frame's time be off


@dataclass(frozen=True)
class Clip:
    """An episode to be shown by one camera, as its source calls it."""

    reader: SourceReader
    camera: str
    episode: Episode

    @cached_property
    def video(self) -> CameraVideo:
        """What the listing says of it."""
        videos = self.reader.record(self.episode).videos
        return next(video for video in videos if video.camera == self.camera)

    @cached_property
    def uri(self) -> str | None:
        """A video file that has its frames one by one, as they are, so that they may be copied; None: there is none."""
        uri = self.video.uri
        reader = self.reader
        is_copyable = (
            reader.format.frames_as_in_file
            and uri.endswith(VIDEO_SUFFIXES)
            and uri != reader.record(self.episode).data_uri
            # its colours are put right when it is decoded
            and self.camera not in reader.source.config.cameras.bgr
        )
        return uri if is_copyable else None

    @cached_property
    def places(self) -> np.ndarray:
        """Which picture of the file each of the episode's frames is, in the order
        of showing: int64 [num_frames].

        Raises UserError where the source is not as it was.
        """
        e = self.episode
        try:
            places = self.reader.episode(e).match(self.camera).places
        except DataError as error:
            location = f"{e.dataset} episode {e.episode_index}"
            raise UserError(
                f"{error}: the files of {location} have changed: build the dataset again"
            ) from error
        places = np.arange(e.num_frames) if places is None else places
        if len(places) < e.num_frames:
            raise UserError(
                f"{self.uri} has {len(places)} of {e.num_frames} frames: build {e.dataset} again"
            )
        return places[: e.num_frames]

    def frames(self) -> Iterator[TimedPicture]:
        """As the build reads them."""
        return self.reader.episode(self.episode).frames(self.camera)

    @property
    def is_stretch(self) -> bool:
        """Does each frame follow the one before it in the file?"""
        return bool((np.diff(self.places) == 1).all())


@dataclass(frozen=True)
class VideoFile:
    """One file to write, and the episodes in it, in order; `whole`: a file of the source that holds
    no others."""

    camera: str
    number: int
    whole: bool
    clips: tuple[Clip, ...]


def plan_files(camera: str, clips: Iterable[Clip], fps: float) -> list[VideoFile]:
    """The files of one camera in the order of their first episodes. A file of the source is parted where LeRobot would
    refuse a frame of the whole."""
    # The clips of one file of the source go together; a clip without a file is a group of its own
    groups = grouped(
        ((clip.episode.dataset, clip.uri or clip.episode.episode_index), clip) for clip in clips
    )
    files: list[VideoFile] = []
    for group in groups.values():
        # A whole file keeps the source's order of episodes, so its bytes can be copied
        if _is_whole_file(group):
            parts = _parts(sorted(group, key=lambda clip: clip.video.start_frame), fps)
            whole = len(parts) == 1
        else:
            parts = [[clip] for clip in group]
            whole = False
        files += [
            VideoFile(camera, len(files) + k, whole, tuple(part)) for k, part in enumerate(parts)
        ]
    return files


def _parts(clips: Sequence[Clip], fps: float) -> list[list[Clip]]:
    """Clips that follow one another, in as few files as LeRobot shows all frames of."""
    parts: list[list[Clip]] = []
    first = 0  # frame of its file at which a clip begins
    for clip in clips:
        frames = np.arange(clip.episode.num_frames)
        if not parts or refused(first / fps, frames / fps, (first + frames) / fps).any():
            parts.append([])
            first = 0
        parts[-1].append(clip)
        first += len(frames)
    return parts


def _is_whole_file(clips: Sequence[Clip]) -> bool:
    """Are clips of one file of the source all that it holds? What the lake knows does not tell: it may have been built
    from some of the episodes."""
    first = clips[0]
    source = first.reader.source
    info = first.reader.info
    # A LeRobot source says which files hold several episodes
    if first.uri is None or info is None or not holds_other_episodes(info, first.uri):
        return first.uri is not None
    return (
        sum(c.episode.num_frames for c in clips)
        == probe(source.resolve(first.uri), source.config.limits).num_frames
    )


def camera_names(
    cameras: Sequence[str], first: str, name_of: Callable[[str], str | None], end: str = ""
) -> dict[str, str]:
    """Names of an episode's cameras by another convention: that of the first, of others what `name_of` makes of them,
    in lower case, where it does and no other has it, else their own; `end`: of each name.

    Example: camera_names(["front", "left_wrist"], "top", {"left_wrist": "left"}.get) has "top" and "left".
    """
    names = {cameras[0]: f"{first}{end}"}
    for camera in cameras[1:]:
        plain = camera.split(".")[-1].replace("/", "_")
        name = f"{name_of(plain.lower()) or plain}{end}"
        names[camera] = f"{plain}{end}" if name in names.values() else name
    return names


def write_episode_video(x: ExportedEpisode, camera: str, out: Path) -> dict[str, Any]:
    """A file for one episode, at its rate: copied, cut or encoded, as `write_video` can."""
    [file] = plan_files(camera, [Clip(x.reader, camera, x.episode)], x.episode.fps)
    return write_video(file, out, x.episode.fps)


def write_video(
    file: VideoFile,
    out: Path,
    fps: float,
    codec: str = "h264",
    changed: str = "",
    change: Change | None = None,
) -> dict[str, Any]:
    """Write one file, whose frames are to be `fps` to a second.

    Returns `how` it was made and `why` it was encoded; `starts_s`, where each
    clip begins in the file; `codec`, size. `changed`: how the pictures that
    `change` makes of an episode's differ from the file's, which are then not
    copied. Raises UserError for an episode that shows fewer frames than it has rows.
    """
    source = file.clips[0].reader.source
    uri = file.clips[0].uri
    starts_s = None
    method = ENCODED
    reason = changed or "its pictures are in no video file"
    if uri is not None and not changed:
        method, starts_s, reason = _without_encoding(
            file, source.resolve(uri), out, fps, source.config.limits
        )
    if starts_s is None:
        encode(_pictures(file, change), out, fps, codec)
        firsts = accumulate((clip.episode.num_frames for clip in file.clips[:-1]), initial=0)
        starts_s = [first / fps for first in firsts]
    info = probe(out, source.config.limits)
    size = {"codec": info.codec, "width_px": info.width_px, "height_px": info.height_px}
    return {"how": method, "starts_s": starts_s, **size, "why": reason}


def _without_encoding(
    file: VideoFile, path: Path, out: Path, fps: float, limits: Limits
) -> tuple[str, list[float] | None, str]:
    """(how, where each clip begins in the file, "") where it can be copied or cut; else (ENCODED, None, why not).
    Raises UserError where the source's file is not as it was."""
    try:
        video = frame_times(path, limits)
    except (OSError, VideoError) as e:
        raise UserError(f"{path} cannot be read ({e}): build its dataset again") from e
    if reason := _why_encoded(file, path, limits):
        return ENCODED, None, reason
    spans = [span_of(clip, path, video) for clip in file.clips]
    # A whole file with the right times stays as it is
    is_whole = file.whole and sum(map(len, spans)) == len(video.ticks)
    if is_whole and are_even(video, spans, fps) and path.suffix == ".mp4":
        shutil.copyfile(path, out)
        return COPIED, [float(video.seconds[span.start]) for span in spans], ""
    # A stretch of a file is cut out, unless new times would not be in the order of packets
    stretch = range(spans[0].start, spans[-1].stop)
    is_even = are_even(video, spans, fps, float(video.seconds[stretch.start]))
    is_stretch = all(one.stop == following.start for one, following in pairwise(spans))
    if is_stretch and can_cut(video, stretch) and (is_even or not is_reordered(video)):
        cut(path, stretch, out, fps, limits, keep_times=is_even)
        parted = frame_times(out, limits)
        spans = [range(s.start - stretch.start, s.stop - stretch.start) for s in spans]
        can_be_decoded = sum(1 for _ in decode(out, options=DecodeOptions(limits=limits)))
        is_all = len(parted.ticks) == can_be_decoded == len(stretch)
        if is_all and are_even(parted, spans, fps):
            return CUT, [float(parted.seconds[span.start]) for span in spans], ""
    if is_even:
        reason = "the part does not begin and end at key frames"
    else:
        reason = "its frames are not at even times"
    return ENCODED, None, reason


def _why_encoded(file: VideoFile, path: Path, limits: Limits) -> str:
    """Why a file's pictures have to be encoded anew whatever its packets are; "": they need not."""
    # Not all players turn a video as it says
    first = next(decode(path, options=DecodeOptions(limits=limits)), None)
    if isinstance(first, Frame) and first.quarter_turns:
        return "it is stored turned"
    if all(clip.is_stretch for clip in file.clips):
        return ""
    return "its rows leave out frames"


def _pictures(file: VideoFile, change: Change | None) -> Iterator[np.ndarray]:
    for clip in file.clips:
        frames = change(clip.frames(), clip.episode) if change else clip.frames()
        yield from counted_pictures(frames, file.camera, clip.episode)


def span_of(clip: Clip, path: Path, video: FrameTimes) -> range:
    """The frames of a clip, which is one stretch, in its file. Raises UserError where the file lacks them."""
    first = int(clip.places[0])
    e = clip.episode
    if first + e.num_frames > len(video.ticks):
        raise UserError(
            f"{path} does not hold the {e.num_frames} frames of {e.dataset} episode {e.episode_index} from frame "
            f"{first} on: build the dataset again"
        )
    return range(first, first + e.num_frames)


def are_even(video: FrameTimes, spans: Iterable[range], fps: float, zero_s: float = 0.0) -> bool:
    """Is frame k of each span shown k / fps after its first, also as LeRobot computes it? `zero_s`: the time from
    which those of the file are to count."""
    for span in spans:
        times_s = video.seconds[span.start : span.stop] - zero_s
        rows_s = np.arange(len(times_s)) / fps
        is_even = np.abs(times_s - times_s[0] - rows_s) < TOLERANCE_S
        if not is_even.all() or refused(times_s[0], rows_s, times_s).any():
            return False
    return True


def is_reordered(video: FrameTimes) -> bool:
    """Do packets stand in another order than their pictures are shown in?"""
    return bool((np.diff(video.order) < 0).any())


def can_cut(video: FrameTimes, span: range) -> bool:
    """Can the span be decoded from its own packets alone?

    It begins at a key frame, its packets stand together, and where frames are
    reordered it ends before another key frame or with the file, so that none
    leans on a later one.
    """
    places = video.order[span.start : span.stop]
    begins_at_key = bool(video.is_key[span.start]) and int(places[0]) == int(places.min())
    is_contiguous = int(places.max() - places.min()) == len(span) - 1
    is_last = span.stop == len(video.ticks)
    ends_before_key = not is_reordered(video) or is_last or bool(video.is_key[span.stop])
    return begins_at_key and is_contiguous and ends_before_key


def cut(
    path: Path, span: range, out: Path, fps: float, limits: Limits = LIMITS, *, keep_times: bool
) -> None:
    """Write the span's packets to a file of their own, unchanged; times anew from 0, or by `fps`."""
    # Packets stand in order of decoding, frames in order of showing: the cut takes what the span needs
    places = frame_times(path, limits).order[span.start : span.stop]
    first = int(places.min())
    last = int(places.max())
    clock = Fraction(1, round(fps * TICKS))
    with (
        open_video(path, limits) as source,
        av.open(str(out), "w", options={"fflags": "+bitexact"}) as target,
    ):
        stream = source.streams.video[0]
        # The decoder of AV1 is no encoder, which a copy does not need
        copy = target.add_stream_from_template(stream, opaque=True)
        copy.time_base = stream.time_base if keep_times else clock
        start: int | None = None
        for number, packet in enumerate(
            islice(filter(is_shown, source.demux(stream)), first, last + 1)
        ):
            assert packet.pts is not None
            start = packet.pts if start is None else start
            if keep_times:
                packet.pts, packet.dts = packet.pts - start, cast(int, packet.dts) - start
                # without a length a file's last frame would not be shown
                packet.duration = packet.duration or round(1 / fps / packet.time_base)
            else:
                packet.pts = packet.dts = number * TICKS
                packet.duration = TICKS
                packet.time_base = clock
            packet.stream = copy
            target.mux(packet)
