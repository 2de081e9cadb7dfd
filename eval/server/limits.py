"""Limits of the reward server, its refusals, and pictures as they come over the network, within these limits: what they
are is read from their first bytes, never from their name."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from core.wall import TOO_MUCH, Pool, Walled


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the server: sizes, counts and times beyond which a request is refused."""

    max_body_bytes: int = 64 * 2**20  # of one request
    max_pixels: int = 4096 * 2160  # of one picture or frame
    max_pixels_waiting: int = 256 * 2**20  # of all pictures that are decoded and not yet scored
    max_frames: int = 1000  # pictures of one request; the multipart parser takes no more parts
    max_video_frames: int = 100_000
    max_video_s: float = 4 * 3600.0
    max_sessions: int = 256
    # Of the pictures that all sessions keep, and of what the model made of them
    max_kept_bytes: int = 8 * 2**30
    session_idle_s: float = 600.0
    max_waiting: int = 1024  # moments that wait to be scored or are scored now
    max_batch: int = 32  # moments scored at once
    collect_s: float = 0.005  # that a batch waits for others to join it


# Whose clients read errors in the shape of OpenAI's API
CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
OPENAI_PATHS = (CHAT_PATH, MODELS_PATH)


class Refused(HTTPException):
    """An answer of 4xx or 503: `code` for programs, the reason for people. `param`: the field at fault, where the shape
    of the answer has one."""

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        retry_after_s: int | None = None,
        param: str | None = None,
    ) -> None:
        headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        super().__init__(status, reason, headers)
        self.code = code
        self.param = param

    def answer(self, path: str) -> JSONResponse:
        """In the shape that clients of this path read."""
        error: dict[str, Any] = {"error": self.code, "reason": self.detail}
        if any(f"{path}/".startswith(f"{p}/") for p in OPENAI_PATHS):
            kinds = {
                401: "authentication_error",
                404: "not_found_error",
                503: "overloaded_error",
                500: "server_error",
            }
            error = {
                "error": {
                    "message": self.detail,
                    "type": kinds.get(self.status_code, "invalid_request_error"),
                    "param": self.param,
                    "code": self.code,
                }
            }
        return JSONResponse(error, self.status_code, self.headers)


def first_problem(errors: Sequence[Any], skipped: int = 0) -> tuple[str, str]:
    """The field of the first of pydantic's errors, without its first `skipped` parts, and a message
    with it."""
    first = errors[0]
    field = ".".join(map(str, first["loc"][skipped:]))
    return field, f"{field}: {first['msg']}".removeprefix(": ")


FORMATS = ("JPEG", "PNG", "WEBP")
# 8 bits a channel, or fewer
MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
)
MEMORY_BYTES, WALL_S = 1 << 29, 20.0  # that decoding a picture may take
CPU_S, CPU_S_PER_MPX = 0.5, 0.1  # several times what the dearest honest pictures take
DECODERS = Pool(partial(Walled, MEMORY_BYTES, __name__))
# MP4 and MOV (after the size of their first box), Matroska and WebM, AVI: what cannot name other files or addresses
CONTAINERS = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "))


def size_of(data: bytes, max_pixels: int, name: str) -> int:
    """Pixels of a JPEG, PNG or WebP by its header; no pixel is decoded. Raises Refused (413, 415, 400) naming it."""
    with _opened_picture(data, max_pixels, name) as picture:
        check_pixels(*picture.size, max_pixels, name)
        if picture.mode not in MODES:
            raise Refused(
                415, "picture_format", f"{name} has more than 8 bits a channel ({picture.mode})"
            )
        return picture.width * picture.height


def decode_picture(data: bytes, max_pixels: int, name: str) -> np.ndarray:
    """JPEG, PNG or WebP to uint8 RGB [h, w, 3], behind a wall. Raises Refused (413, 415, 400) naming the picture."""
    cpu_s = CPU_S + CPU_S_PER_MPX * size_of(data, max_pixels, name) / 1e6
    try:
        with DECODERS.one() as decoder:
            return decoder(_decoded, data, max_pixels, name, wall_s=WALL_S, cpu_s=cpu_s)
    except TOO_MUCH as e:
        raise Refused(
            413, "picture_too_costly", f"{name} takes more CPU or memory to decode than it may"
        ) from e


def _decoded(data: bytes, max_pixels: int, name: str) -> np.ndarray:
    with _opened_picture(data, max_pixels, name) as picture:
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


@contextmanager
def _opened_picture(data: bytes, max_pixels: int, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            yield picture
    except UnidentifiedImageError:
        raise Refused(415, "picture_format", f"{name} is not a JPEG, PNG or WebP picture") from None
    except Image.DecompressionBombError:
        raise Refused(
            413, "picture_too_large", f"{name} has more than {max_pixels} pixels"
        ) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as e:  # what PIL's decoders raise on damaged files
        raise Refused(
            400, "picture_damaged", f"{name} cannot be decoded ({' '.join(str(e).split())[:100]})"
        ) from e


def check_pixels(width: int, height: int, max_pixels: int, name: str) -> None:
    if width * height > max_pixels:
        raise Refused(
            413, "picture_too_large", f"{name} is {width}x{height}: more than {max_pixels} pixels"
        )


def check_container(head: bytes) -> None:
    """Refuses a file that is not one of CONTAINERS: FFmpeg's playlists would open other files and
    addresses."""
    if not any(head[offset : offset + len(mark)] == mark for offset, mark in CONTAINERS):
        raise Refused(415, "video_format", "the video is not an MP4, MOV, MKV, WebM or AVI file")
