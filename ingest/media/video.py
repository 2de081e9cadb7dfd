"""Streaming video decoding with PyAV: h264, AV1, MPEG-4 and whatever else FFmpeg reads.

Every video is opened here, whoever asks: only containers that hold their pictures themselves, only
plain files, and only within `ingest.reasons`.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, dropwhile, islice
from pathlib import Path
from queue import SimpleQueue
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane

from core.files import file_version
from core.wall import is_left_out, memory_wall, time_wall
from ingest.episode import (
    DECODE_ALL,
    SKIPPED,
    DecodeOptions,
    FrameTimes,
    Picture,
    Planes,
    SkippedFrame,
    VideoError,
)
from ingest.media.groups import (
    Container,
    Decoded,
    Packet,
    check_complete,
    decode_group,
    decoded,
    groups_from,
    is_shown,
    play,
    time_of,
)
from ingest.reasons import LIMITS, Limits
from ingest.sources.types import LFS_MARK

# Pixel formats whose first plane is 8-bit luma
LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray")
# Those whose first plane is luma of more bits, the lowest of two bytes
DEEP_LUMA = re.compile(r"yuva?4\d\dp(9|1[0246])le")
PLANE_FORMATS = ("yuv420p", "yuvj420p")
YUV_FORMATS = ("yuv", "nv", "p0")
# Colour matrices that a file may state, by FFmpeg's numbers, as its scaler knows them; all others are BT.601's, which
# is that of files without a statement, too
MATRICES = {1: 1, 7: 7, 9: 9, 10: 9}  # BT.709, SMPTE 240M, BT.2020 (two of them)
BT601 = 5
LIMITED, FULL = 1, 2  # 16 to 235, 0 to 255
# Containers that are read, as FFmpeg calls them, by first bytes; MP4 and MOV are the rest. None names other files
CONTAINERS = {b"\x1a\x45\xdf\xa3": "matroska", b"RIFF": "avi"}
MP4 = "mov"
BLOCK = 16  # frames and the rest of their group: what one thread decodes at once
# Of all pictures of a group, a byte and a half each: a few groups are held
GROUP_PIXELS = 20_000_000
LONG = 128  # frames: of fewer, more threads than one cost more than they give
# That FFmpeg may take for a file's tables: ten hours of frames take a fifth of it
OPEN_BYTES = 1 << 30
FRAME_BYTES = 8  # that the smallest frames take, with their entries in the file's tables
# For one packet: in a damaged file FFmpeg searches for the next one up to the end
READ_TIMEOUT_S = 30.0
MOST_IDLE = 4  # files that stay open, one a camera


@dataclass
class _Playing:
    """A file that is decoded: its pictures behind the last one that was handed over, which was shown at a tick.

    pictures None: it was not played. codecs: the decoders of its blocks.
    """

    container: Container
    pictures: Iterator[Decoded] | None = None
    tick: int | None = None
    codecs: tuple[VideoCodecContext, ...] = ()


_idle = dict[tuple, _Playing]()


@dataclass(frozen=True)
class Frame(Picture):
    """A picture as a video decoder hands it over: in the colours that the file states, and upright."""

    picture: Decoded

    def luma(self) -> np.ndarray:
        """uint8 [h, w], in the range that the file has it in; a view of the decoder's buffer where
        the format allows: do not keep it."""
        if self.picture.format.name in LUMA_FORMATS:
            return self._upright(_view(self.picture.planes[0]))
        if (deep := DEEP_LUMA.fullmatch(self.picture.format.name)) is None:
            return self._upright(self.picture.to_ndarray(format="gray"))
        # The scaler would stretch 16..235 to 0..255 on the way to eight bits
        levels = _view(self.picture.planes[0], "<u2")
        doubled = levels >> (int(deep[1]) - 9)
        return self._upright(np.minimum((doubled + 1) >> 1, 255).astype(np.uint8))

    def rgb(self) -> np.ndarray:
        """uint8 [h, w, 3]"""
        if self.has_usual_colours:
            return self._upright(self.picture.to_ndarray(format="rgb24"))
        matrix = MATRICES.get(self.picture.colorspace)
        is_full = self._is_full_range
        # PyAV before 16 takes neither from the frame, and looks at neither unless something differs: RGB has no range
        rgb = self.picture.reformat(
            format="rgb24",
            src_colorspace=matrix or BT601,
            dst_colorspace=BT601,
            src_color_range=FULL if is_full else LIMITED,
            dst_color_range=LIMITED if is_full else FULL,
        )
        return self._upright(rgb.to_ndarray())

    def planes(self) -> Planes | None:
        # Pictures are stored by BT.601, as JPEG is
        if self.picture.format.name not in PLANE_FORMATS or self.picture.colorspace in MATRICES:
            return None
        views = map(_view, self.picture.planes)
        y, u, v = map(self._upright, views) if self.quarter_turns else views
        return Planes(y, u, v, self._is_full_range)

    @property
    def has_usual_colours(self) -> bool:
        """Are they those that PyAV takes all pictures to have? Other readers show it otherwise if they are not."""
        is_usual_range = self._is_full_range == self.picture.format.name.startswith("yuvj")
        is_usual = self.picture.colorspace not in MATRICES and is_usual_range
        return is_usual or not self.picture.format.name.startswith(YUV_FORMATS)

    @property
    def _is_full_range(self) -> bool:
        return self.picture.color_range == FULL or self.picture.format.name.startswith("yuvj")

    @property
    def quarter_turns(self) -> int:
        """By how many quarters, anticlockwise, what is stored is turned to be shown, as phones' videos state it."""
        return round(self.picture.rotation / 90) % 4

    def _upright(self, pixels: np.ndarray) -> np.ndarray:
        turns = self.quarter_turns
        if turns:
            return np.ascontiguousarray(np.rot90(pixels, turns))
        return pixels

    @property
    def is_damaged(self) -> bool:
        """Did the decoder find errors in it, and conceal them?"""
        return self.picture.is_corrupt

    @property
    def is_key(self) -> bool:
        return bool(self.picture.key_frame)


def _view(plane: VideoPlane, dtype: str = "u1") -> np.ndarray:
    """[h, w] of numbers of a type, without a copy."""
    rows = np.frombuffer(cast(bytes, plane), dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


@dataclass(frozen=True)
class VideoInfo:
    fps: float
    num_frames: int | None  # as the container says; None when it does not
    width_px: int
    height_px: int
    codec: str
    duration_s: float | None = None  # as the container says; None when it does not


def open_video(path: Path, limits: Limits = LIMITS) -> Container:
    """A video file whose first video stream can be decoded, with all that its header claims within
    the limits.

    Raises VideoError: for what is no plain file, is in no container that is read, or claims more
    than the limits.
    """
    # Links are followed here and not by FFmpeg, so that what was looked at is what is opened
    real = Path(os.path.realpath(path))
    kind = _kind(real, path.name)
    allowed_s = limits.cpu_s(real.stat().st_size)
    if is_left_out(str(real)):
        raise VideoError(
            f"{path.name} takes more than {allowed_s:g} s of CPU to open", "over_limit"
        )
    # A playlist would have FFmpeg open any other file or address: one kind of container and no protocol is allowed.
    # A size is checked by the header, and again by the decoder, which may find another one
    options = {
        "format_whitelist": kind,
        "protocol_whitelist": "file",
        "max_pixels": str(limits.max_pixels),
    }
    try:
        # FFmpeg believes tables that claim billions of frames, and edits that show each again and again
        with memory_wall(OPEN_BYTES), time_wall(str(real)) as cpu_timer, cpu_timer(allowed_s):
            # a title that is not UTF-8 is no reason to refuse the pictures
            container = av.open(
                str(real), metadata_errors="replace", timeout=READ_TIMEOUT_S, options=options
            )
    except MemoryError as e:
        raise VideoError(
            f"{path.name} takes more than {OPEN_BYTES >> 20} MiB to open", "over_limit"
        ) from e
    except (FFmpegError, ValueError) as e:
        containers = "MP4, MOV, Matroska, WebM or AVI"
        raise VideoError(
            f"{path.name} is not a video that FFmpeg can open as {containers} ({_short(e)})"
        ) from e
    # FFmpeg also opens files that hold sound or text alone
    try:
        _check_claims(container, path.name, limits)
    except VideoError:
        container.close()
        raise
    return container


def _kind(path: Path, name: str) -> str:
    """FFmpeg's name of the container that a file may be. Raises VideoError, also for a file that cannot be read."""
    try:
        # A pipe without a writer would be waited for
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise VideoError(f"{name} is no file")
        with open(handle, "rb") as f:
            begin = f.read(len(LFS_MARK))
            if begin == LFS_MARK:
                raise VideoError(f"{name} is a git-LFS pointer, not a video", "lfs_pointer")
            return CONTAINERS.get(begin[:4], MP4)
    except OSError as e:
        raise VideoError(f"cannot read {name}: {e.strerror}") from e


def _check_claims(container: Container, name: str, limits: Limits) -> None:
    """Raises VideoError."""
    if not container.streams.video:
        raise VideoError(f"{name} has no video stream")
    stream = container.streams.video[0]
    if (codec := stream.codec_context) is None:
        raise VideoError(f"{name} is coded in a way that FFmpeg does not know")
    # FFmpeg keeps no size beyond its limit
    if not codec.width or not codec.height:
        _check(
            f"{name}: its pictures have no size, or more than {limits.max_pixels:,} pixels (limits.max_pixels)"
        )
    _check(
        limits.excess(
            "max_pixels",
            codec.width * codec.height,
            f"{name}: pixels ({codec.width}x{codec.height})",
        )
    )
    rate = float(stream.average_rate or 0)
    length_s = (container.duration or 0) / av.time_base
    _check(limits.excess("max_frames", stream.frames or rate * length_s, f"{name}: frames"))


def _check(problem: str) -> None:
    if problem:
        raise VideoError(problem, "over_limit")


def _short(e: Exception) -> str:
    return getattr(e, "strerror", None) or str(e)


def probe(path: Path, limits: Limits = LIMITS) -> VideoInfo:
    """Header of a video file; decodes nothing. Raises VideoError."""
    with open_video(path, limits) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        codec = stream.codec_context
        name = codec.codec.canonical_name  # of the format (av1), not of the decoder (libdav1d)
        length = container.duration and container.duration / av.time_base
        info = VideoInfo(
            float(rate or 0), stream.frames or None, codec.width, codec.height, name, length
        )
    if not info.fps:
        raise VideoError(f"{path.name} does not say its frame rate")
    return info


def frame_times(path: Path, limits: Limits = LIMITS) -> FrameTimes:
    """When the pictures of a file are shown; decodes nothing. Those of the last few files are kept.

    Raises VideoError, also for a frame without a time, and for more frames than the limits allow.
    """
    return _frame_times(path, file_version(path), limits)


@lru_cache(maxsize=16)
def _frame_times(path: Path, version: tuple[int, int], limits: Limits) -> FrameTimes:
    size, _ = version
    max_frames = size // FRAME_BYTES
    ticks = list[int]()
    is_key = list[bool]()
    try:
        with open_video(path, limits) as container:
            stream = container.streams.video[0]
            for packet in filter(is_shown, container.demux(stream)):
                ticks.append(time_of(packet))
                is_key.append(packet.is_keyframe)
                if len(ticks) > max_frames:
                    _check(f"{path.name}: over {max_frames:,} frames in {size:,} bytes")
            _check(limits.excess("max_frames", len(ticks), f"{path.name}: frames"))
            tick_s = float(stream.time_base or 0)
    except (FFmpegError, ValueError, OverflowError, MemoryError) as e:
        reason = "over_limit" if isinstance(e, MemoryError) else "undecodable_video"
        raise VideoError(f"{path.name} cannot be read ({_short(e)})", reason) from e
    if not ticks or not tick_s:
        raise VideoError(f"{path.name} does not say when its frames are shown")
    order = np.argsort(ticks, kind="stable")
    return FrameTimes(np.array(ticks)[order], tick_s, order, np.array(is_key)[order])


def decode(
    path: Path,
    start_frame: int = 0,
    num_frames: int | None = None,
    options: DecodeOptions = DECODE_ALL,
) -> Iterator[Frame | SkippedFrame]:
    """Frames start_frame, start_frame + 1, ... of a file, at most num_frames of them, in one streaming pass.

    Frames are counted in the order of showing. One that cannot be decoded is left out, and none behind the last asked
    for takes its place. A file of many episodes is entered by one seek to the key frame before. Raises VideoError; ends
    early, without error, where the file does.
    """
    # Of several threads it is chance how they conceal damage, and whether they report it: they stop at it instead
    count = 0
    is_short = num_frames is not None and num_frames < LONG
    if options.threads > 1 and not is_short:
        with suppress(VideoError):
            for frame in _decode(path, start_frame, num_frames, options):
                yield frame
                count += 1
            return
    # One thread does the same each time: it goes on behind what several have decoded before the damage
    yield from islice(
        _decode(path, start_frame, num_frames, replace(options, threads=1)), count, None
    )


def _ends(
    path: Path, start_frame: int, num_frames: int | None, limits: Limits
) -> tuple[int | None, int | None, int | None]:
    """The ticks at which the picture before some frames, the first and the last of them are shown; None: there is none
    before, or the file's own ends. Raises VideoError."""
    if start_frame == 0 and num_frames is None:
        return None, None, None
    try:
        ticks = frame_times(path, limits).ticks
    except VideoError:
        # From the file's beginning on no frame has to be found by its time
        if start_frame == 0:
            return None, None, None
        raise
    if start_frame >= len(ticks):
        return None, int(ticks[-1]) + 1, int(ticks[-1])
    end = len(ticks) if num_frames is None else min(len(ticks), start_frame + num_frames)
    last = int(ticks[max(end - 1, start_frame)])
    if start_frame == 0:
        return None, None, last
    return int(ticks[start_frame - 1]), int(ticks[start_frame]), last


def _decode(
    path: Path, start_frame: int, num_frames: int | None, options: DecodeOptions
) -> Iterator[Frame | SkippedFrame]:
    """As `decode`; with several threads, damage raises VideoError."""
    previous_tick, first, last = _ends(path, start_frame, num_frames, options.limits)
    try:
        with _lent(path, options, first) as playing:
            container = playing.container
            # Only callers that name the frames they need get the faster way, which not every file allows
            if options.wanted is not None:
                playing.pictures = None  # it is entered elsewhere
                frames: Iterator[Frame | SkippedFrame] = _wanted_frames(
                    container, first, options.wanted
                )
            elif options.threads > 1 and _has_short_groups(
                path, file_version(path), options.limits
            ):
                frames = _frames_of_blocks(path, playing, first, options)
            else:
                frames = map(Frame, _pictures_from(playing, previous_tick, first))
            max_frames = container.size // FRAME_BYTES
            for count, frame in enumerate(islice(frames, num_frames), 1):
                if count > options.limits.max_frames:
                    _check(
                        options.limits.excess("max_frames", count, f"{path.name}: decoded frames")
                    )
                # These are shown again and again
                if count > max_frames:
                    _check(f"{path.name}: over {max_frames:,} frames in {container.size:,} bytes")
                if isinstance(frame, Frame):
                    playing.tick = frame.picture.pts
                    # Some decoders report damage in no other way
                    if options.threads > 1 and frame.is_damaged:
                        raise VideoError(f"{path.name} has a damaged frame")
                    if (
                        last is not None
                        and frame.picture.pts is not None
                        and frame.picture.pts > last
                    ):
                        return
                yield frame
    except (FFmpegError, ValueError, OverflowError, MemoryError) as e:
        reason = "over_limit" if isinstance(e, MemoryError) else "undecodable_video"
        raise VideoError(f"{path.name} cannot be decoded ({_short(e)})", reason) from e


@contextmanager
def _lent(path: Path, options: DecodeOptions, first: int | None) -> Iterator[_Playing]:
    """A file to decode pictures of, from a tick on; None: from its beginning. The next episode
    inside it is decoded by what has read this one well. Raises as `open_video`."""
    # The frames that are asked for do not change how a file is opened; copies of a process share the place in a file
    key = os.getpid(), path, file_version(path), replace(options, wanted=None)
    playing = None if first is None else _idle.pop(key, None)
    if playing is None:
        container = open_video(path, options.limits)
        playing = _Playing(container)
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = options.threads
        damage = {"err_detect": "explode"} if options.threads > 1 else {}
        stream.codec_context.options = {"max_pixels": str(options.limits.max_pixels)} | damage
    with ExitStack() as closing:
        closing.callback(playing.container.close)
        # Who stops before the end closes it: to go on here would hold what was decoded
        yield playing
        # So would a decoder of several threads; a block's has one
        if first is not None and (options.threads == 1 or playing.codecs):
            closing.pop_all()
            _idle[key] = playing
            for oldest in list(_idle)[:-MOST_IDLE]:
                _idle.pop(oldest, None)


def _pictures_from(playing: _Playing, previous: int | None, first: int | None) -> Iterator[Decoded]:
    """Every picture of the file from that on which is shown at a tick; None: all, whose times may be absent.

    `previous`: the tick of the picture before it. What stands there already goes on: to enter a file at a key frame
    decodes all from there on again.
    """
    container = playing.container
    stream = container.streams.video[0]
    pictures = playing.pictures
    if first is None:
        pictures = playing.pictures = play(container, stream)
    elif pictures is None or previous is None or playing.tick != previous:
        container.seek(first, stream=stream, backward=True)
        pictures = play(container, stream)
        picture = next(pictures, None)
        # Where the index led past the frame, the file is read from its beginning
        if picture is not None and _tick(picture) > first:
            container.seek(stream.start_time or 0, stream=stream, backward=True)
            pictures = play(container, stream)
            picture = next(pictures, None)
        playing.pictures = pictures
        if picture is not None:
            pictures = chain([picture], pictures)
    # The key frame may lie before the episode: what is between them is decoded and dropped
    if first is not None:
        pictures = dropwhile(lambda p: _tick(p) < first, pictures)
    yield from pictures


def _tick(picture: Decoded) -> int:
    """Raises VideoError."""
    if picture.pts is None:
        raise VideoError(
            "a frame has no presentation time, so an episode inside the file cannot be found"
        )
    return picture.pts


def _wanted_frames(
    container: Container, first: int | None, requested_frames: frozenset[int]
) -> Iterator[Frame | SkippedFrame]:
    """The wanted frames (counted from the first) and those that they need; SkippedFrame in place of the others."""
    # Each group's wanted pictures are decoded, and the group is then handed over in the order of showing
    next_frame = 0
    codec = container.streams.video[0].codec_context
    for group, shown_packets in groups_from(container, first):
        # The order of decoding need not be that of showing: pictures are matched by their times
        wanted_times = {
            time_of(p) for k, p in enumerate(shown_packets, next_frame) if k in requested_frames
        }
        pictures = decode_group(codec, group, wanted_times)
        for packet in shown_packets:
            picture = pictures.get(time_of(packet))
            yield SKIPPED if picture is None else Frame(picture)
        next_frame += len(shown_packets)


@lru_cache(maxsize=16)
def _has_short_groups(path: Path, _: tuple[int, int], limits: Limits) -> bool:
    """Are there many frames, and is the first group so short that some such groups may be held?"""
    with open_video(path, limits) as container:
        stream = container.streams.video[0]
        has_many = (stream.frames or LONG) >= LONG
        max_group_frames = int(GROUP_PIXELS / (stream.width * stream.height)) if has_many else 0
        is_short = any(
            p.is_keyframe
            for p in islice(container.demux(stream), 1, max_group_frames + 1)
            if p.size
        )
    return is_short


def _frames_of_blocks(
    path: Path, playing: _Playing, first: int | None, options: DecodeOptions
) -> Iterator[Frame]:
    """Every picture from the first on: blocks of whole groups are decoded side by side, each by one thread.

    The decoder's own threads wait for one another, since each picture of a group needs the one before. Raises
    VideoError where groups cannot be told apart, or do not decode by themselves.
    """
    if not playing.codecs:
        playing.codecs = tuple(_block_codec(path, playing, options) for _ in range(options.threads))
    codecs: SimpleQueue[VideoCodecContext] = SimpleQueue()
    for codec in playing.codecs:
        codecs.put(codec)
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(options.threads) as pool, ExitStack() as ending:
        ending.callback(pool.shutdown, cancel_futures=True)
        for block, num_shown in _blocks(playing.container, first):
            waiting.append(pool.submit(_decode_block, codecs, block, num_shown))
            if len(waiting) > options.threads + 1:
                yield from map(Frame, waiting.popleft().result())
        while waiting:
            yield from map(Frame, waiting.popleft().result())


def _block_codec(path: Path, playing: _Playing, options: DecodeOptions) -> VideoCodecContext:
    # Its decoder alone is kept: a file's tables may take as much as OPEN_BYTES
    with open_video(path, options.limits) as container:
        codec = container.streams.video[0].codec_context
    codec.thread_count = 1
    codec.options = dict(playing.container.streams.video[0].codec_context.options)
    return codec


def _decode_block(
    codecs: SimpleQueue[VideoCodecContext], block: list[Packet], num_shown: int
) -> list[Decoded]:
    """The last so many, in the order of showing. Raises VideoError when it does not decode by itself."""
    codec = codecs.get()
    try:
        pictures = decoded(codec, block, 2 * GROUP_PIXELS)
    finally:
        codecs.put(codec)
    check_complete(pictures, [time_of(p) for p in block])
    return pictures[len(pictures) - num_shown :]


def _blocks(container: Container, first: int | None) -> Iterator[tuple[list[Packet], int]]:
    """Whole groups of BLOCK pictures, or as many as may be held; and how many of each are shown."""
    stream = container.streams.video[0]
    block = list[Packet]()
    num_shown = 0
    enough = min(BLOCK, GROUP_PIXELS / (stream.width * stream.height))
    for group, shown_packets in groups_from(container, first):
        block = [*block, *group]
        num_shown = num_shown + len(shown_packets)
        if len(block) >= enough:
            yield block, num_shown
            block = []
            num_shown = 0
    if block:
        yield block, num_shown
