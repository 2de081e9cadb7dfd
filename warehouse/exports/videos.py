"""Pictures of exported episodes: whole video files copied, parts cut out between key frames, the rest encoded anew.

A file is copied only when all its episodes are exported, so that nothing that was not asked for (or was taken down)
travels along. Encoded anew is what a container does not let be cut (a part that begins at no key frame), what has no
file (pictures in rows or arrays) and what plays at other times than its rows.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError

from ingest.episode import Episode, EpisodeRecord
from ingest.formats import Format
from ingest.media.video import VIDEO_SUFFIXES, VideoError, decode, probe
from ingest.sources.files import Source
from warehouse.exports.common import ExportEpisode, ExportError

COPIED, CUT, ENCODED = "copied", "cut", "encoded"
TOLERANCE_S = 5e-5  # half of what LeRobot lets a frame's time be off
TICKS = 1000  # of the clock of a file that is written here, per frame


@dataclass(frozen=True)
class Clip:
    """An episode to be shown by one camera. `uri` None: there is no file to copy from.

    `shared`: the file may hold other episodes. `rate`: frames per second by which times in the file count.
    """

    episode: ExportEpisode
    uri: str | None
    shared: bool
    start_frame: int
    rate: float


@dataclass(frozen=True)
class VideoFile:
    """One file to write, and the episodes in it, in order; `whole`: a file of the source that holds no others."""

    camera: str
    number: int
    whole: bool
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class WrittenVideo:
    """`starts_s`: where each episode begins in the file, in the order of its clips."""

    how: str
    starts_s: tuple[float, ...]
    codec: str
    width_px: int
    height_px: int
    why: str = ""


def plan_files(camera: str, clips: Sequence[Clip], num_frames: Callable[[str, str], int | None]) -> list[VideoFile]:
    """The files of one camera in the order of their first episodes.

    `num_frames` of a file of the source, by dataset and uri: a shared one is whole when the clips fill it. (What the
    lake knows does not tell: it may have been built from some of the episodes.)
    """
    groups: dict[tuple[str, str | int], list[Clip]] = {}
    for c in clips:
        groups.setdefault((c.episode.dataset, c.uri or c.episode.episode_index), []).append(c)
    files: list[tuple[bool, tuple[Clip, ...]]] = []
    for (dataset, uri), group in groups.items():
        frames = sum(c.episode.num_frames for c in group)
        if isinstance(uri, str) and (not group[0].shared or frames == num_frames(dataset, uri)):
            files.append((True, tuple(sorted(group, key=lambda c: c.start_frame))))
        else:
            files += [(False, (c,)) for c in group]
    return [VideoFile(camera, number, whole, found) for number, (whole, found) in enumerate(files)]


def is_copyable(format_: Format, record: EpisodeRecord, uri: str) -> bool:
    """Is an episode's camera a video file whose frames, from start_frame on, are the episode's one by one?"""
    return format_.frames_as_in_file and uri.endswith(VIDEO_SUFFIXES) and uri != record.data_uri


def write_video(
    file: VideoFile, source: Source, read: Callable[[ExportEpisode], Episode], out: Path, fps: float, codec: str
) -> WrittenVideo:
    """Write one file, whose frames are to be `fps` to a second.

    Raises ExportError for an episode that shows fewer frames than it has rows.
    """
    why = "its pictures are in no video file"
    uri = file.clips[0].uri
    if uri is not None:
        path = source.resolve(uri)
        try:
            packets = Packets.read(path)
        except (OSError, FFmpegError, VideoError) as e:
            raise ExportError(f"{path} cannot be read ({e}): build its dataset again") from e
        spans = [packets.span(c.start_frame, c.episode.num_frames, c.rate) for c in file.clips]
        for c, span in zip(file.clips, spans, strict=True):
            if span is None:
                raise ExportError(
                    f"{path} does not hold the {c.episode.num_frames} frames of {c.episode.dataset} episode "
                    f"{c.episode.episode_index} from frame {c.start_frame} on: build the dataset again"
                )
        found = cast(list[range], spans)
        even = all(packets.is_even(span, fps) for span in found)
        if file.whole and even and path.suffix == ".mp4":
            shutil.copyfile(path, out)
            return _written(COPIED, out, [float(packets.times_s[s.start]) for s in found])
        if len(found) == 1 and packets.can_cut(found[0]) and (even or not packets.reordered):
            packets.cut(found[0], path, out, fps, keep_times=even)
            made = Packets.read(out)
            if made.is_even(range(len(made.times_s)), fps) and sum(1 for _ in decode(out)) == len(found[0]):
                return _written(CUT, out, [float(made.times_s[0])])
        why = "its frames are not at even times" if not even else "the part does not begin and end at key frames"
    starts, first = [], 0
    for c in file.clips:
        starts.append(first / fps)
        first += c.episode.num_frames
    encode(_pictures(file, read), out, fps, codec)
    return _written(ENCODED, out, starts, why)


def _written(how: str, out: Path, starts_s: Sequence[float], why: str = "") -> WrittenVideo:
    info = probe(out)
    return WrittenVideo(how, tuple(starts_s), info.codec, info.width_px, info.height_px, why)


def _pictures(file: VideoFile, read: Callable[[ExportEpisode], Episode]) -> Iterator[np.ndarray]:
    for c in file.clips:
        count = 0
        for _, _, picture in islice(read(c.episode).frames(file.camera), c.episode.num_frames):
            yield picture.rgb()
            count += 1
        if count != c.episode.num_frames:
            raise ExportError(
                f"{file.camera} of {c.episode.dataset} episode {c.episode.episode_index} shows {count} frames, its "
                f"rows are {c.episode.num_frames}: build the dataset again"
            )


@dataclass(frozen=True)
class Packets:
    """A video stream's packets. `times_s`: when each frame is shown, in order, float64 [n]; nothing is decoded.

    `order[k]` is the place, in the file, of the packet that is shown as frame k.
    """

    times_s: np.ndarray
    order: np.ndarray
    key: np.ndarray  # bool [n], by frame
    reordered: bool

    @classmethod
    def read(cls, path: Path) -> "Packets":
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            told = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.pts is not None and p.size]
            pts = np.array([p for p, _ in told], np.int64)
            base = float(stream.time_base or 0)
        order = np.argsort(pts, kind="stable")
        return cls(
            pts[order] * base, order, np.array([k for _, k in told], bool)[order], bool(np.any(np.diff(pts) < 0))
        )

    def span(self, start_frame: int, count: int, rate: float) -> range | None:
        """Frames of an episode that begins at `start_frame`, counted as ingest does; None where they are not there."""
        if start_frame == 0:
            first = 0
        else:
            numbers = np.round((self.times_s - self.times_s[0]) * rate)
            first = int(np.searchsorted(numbers, start_frame))
        return range(first, first + count) if first + count <= len(self.times_s) else None

    def is_even(self, span: range, fps: float) -> bool:
        """Is frame k of the span shown k / fps after its first?"""
        times = self.times_s[span.start : span.stop]
        return bool(np.all(np.abs(times - times[0] - np.arange(len(times)) / fps) < TOLERANCE_S))

    def can_cut(self, span: range) -> bool:
        """Can the span be decoded from its own packets alone?

        It begins at a key frame, its packets stand together, and where frames are reordered it ends before another
        key frame or with the file, so that none leans on a later one.
        """
        places = self.order[span.start : span.stop]
        together = int(places.max() - places.min()) == len(span) - 1
        ends = not self.reordered or span.stop == len(self.times_s) or bool(self.key[span.stop])
        return bool(self.key[span.start]) and int(places[0]) == int(places.min()) and together and ends

    def cut(self, span: range, path: Path, out: Path, fps: float, *, keep_times: bool) -> None:
        """Write the span's packets to a file of their own, unchanged; times anew from 0, or by `fps`."""
        places = self.order[span.start : span.stop]
        low, high = int(places.min()), int(places.max())
        clock = Fraction(1, round(fps * TICKS))
        with av.open(str(path)) as source, av.open(str(out), "w", options={"fflags": "+bitexact"}) as target:
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            copy.time_base = stream.time_base if keep_times else clock
            real = (p for p in source.demux(stream) if p.pts is not None and p.size)
            shift: int | None = None
            for k, packet in enumerate(islice(real, low, high + 1)):
                assert packet.pts is not None
                assert packet.dts is not None
                shift = packet.pts if shift is None else shift
                if keep_times:
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    # without a length a file's last frame would not be shown
                    packet.duration = packet.duration or round(1 / fps / packet.time_base)
                else:
                    packet.pts = packet.dts = k * TICKS
                    packet.duration, packet.time_base = TICKS, clock
                packet.stream = copy
                target.mux(packet)


ENCODERS = {
    "h264": ("libx264", {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "10", "g": "2"}),
}


def encode(pictures: Iterator[np.ndarray], out: Path, fps: float, codec: str) -> None:
    """Encode uint8 [h, w, 3] pictures; every second one is a key frame, so that any frame is found quickly.

    One thread and no text of the encoder's own in the file: equal pictures, equal bytes.
    """
    name, options = ENCODERS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder would tell of itself on stderr
    clock = Fraction(1, round(fps * TICKS))
    with av.open(str(out), "w", options={"fflags": "+bitexact"}) as container:
        stream = None
        for k, picture in enumerate(pictures):
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = cast(av.VideoStream, container.add_stream(name, rate=rate, options=options))
                stream.height, stream.width = picture.shape[:2]
                even = stream.height % 2 == 0 and stream.width % 2 == 0
                if not even and codec == "av1":
                    size = f"{stream.width} x {stream.height}"
                    raise ExportError(f"the encoder of AV1 takes pictures of even sizes, not {size}: --codec h264")
                stream.pix_fmt = "yuv420p" if even else "yuv444p"
                stream.codec_context.time_base = clock
                stream.codec_context.thread_count = 1
                stream.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k * TICKS, clock
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
