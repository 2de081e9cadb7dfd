"""Videos that name other files, or claim more than they hold."""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from tests.kits.lerobot_writer import write_video


def playlists(other: str) -> dict[str, str]:
    """Texts that FFmpeg may open as a video made of another file, by kind."""
    return {
        "ffconcat": f"ffconcat version 1.0\nfile {other}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{other}\n#EXT-X-ENDLIST\n",
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1" bandwidth="1"><BaseURL>{other}</BaseURL></Representation></AdaptationSet></Period>'
            "</MPD>"
        ),
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }


def shown_often(path: Path, frames: int, times: int) -> Path:
    """An MP4 whose edit list shows all of its frames so many times."""
    data = write_video(path, range(frames), "mpeg4").read_bytes()
    (moov, moov_end), (trak, trak_end) = _box(data, b"moov"), _box(data, b"moov", b"trak")
    head_end = _box(data, b"moov", b"trak", b"tkhd")[1]
    timescale = struct.unpack_from(">I", data, _box(data, b"moov", b"mvhd")[0] + 20)[0]
    edit = struct.pack(">IiI", frames * timescale // 10, 0, 0x10000)
    edits = _boxed(b"edts", _boxed(b"elst", struct.pack(">II", 0, times) + edit * times))
    rest = data[head_end:trak_end]
    # The encoder's own edit list would count, too
    if b"edts" in rest:
        own, own_end = _box(data, b"moov", b"trak", b"edts")
        rest = data[head_end:own] + data[own_end:trak_end]
    track = _boxed(b"trak", data[trak + 8 : head_end] + edits + rest)
    movie = _boxed(b"moov", data[moov + 8 : trak] + track + data[trak_end:moov_end])
    path.write_bytes(data[:moov] + movie + data[moov_end:])
    return path


def claiming_samples(path: Path, count: int) -> Path:
    """An MP4 whose table of sizes says one size, for so many samples."""
    data = bytearray(write_video(path, range(4), "mpeg4").read_bytes())
    at = data.index(b"stsz")
    struct.pack_into(">II", data, at + 8, 1, count)
    path.write_bytes(data)
    return path


def jpeg_of_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG, side x side, whose last scan stands there so many times."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), "gray").save(out, "JPEG", progressive=True)
    begin, _, last = out.getvalue().rpartition(b"\xff\xda")
    scan = b"\xff\xda" + last.removesuffix(b"\xff\xd9")
    return begin + count * scan + b"\xff\xd9"


def video_of_scans(path: Path, count: int, side: int = 64) -> Path:
    """An AVI of such pictures."""
    return _of_pictures(path, "mjpeg", "yuvj420p", jpeg_of_scans(count, side), side)


def large_pictures(path: Path, side: int) -> Path:
    """A MOV of black PNG pictures, side x side."""
    found, png = cv2.imencode(".png", np.zeros((side, side, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert found
    return _of_pictures(path, "png", "rgb24", png.tobytes(), side)


def _of_pictures(path: Path, codec: str, pixels: str, data: bytes, side: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = side, side, pixels
        for k in range(2):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 10)
            container.mux(packet)
    return path


def _boxed(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at < end:
        size, name = struct.unpack_from(">I4s", data, at)
        yield name, at, at + size
        at += size


def _box(data: bytes, *names: bytes) -> tuple[int, int]:
    """Where a box begins and ends, by the names of those around it and its own."""
    begin, end = -8, len(data)
    for name in names:
        begin, end = next((at, to) for found, at, to in _boxes(data, begin + 8, end) if found == name)
    return begin, end
