"""Limits of the reward server, and its refusals."""

from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


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
    max_kept_bytes: int = 8 * 2**30  # of the pictures that all sessions keep, and of what the model made of them
    session_idle_s: float = 600.0
    max_waiting: int = 1024  # moments that wait to be scored or are scored now
    max_batch: int = 32  # moments scored at once
    collect_s: float = 0.005  # that a batch waits for others to join it


# Whose clients read errors in the shape of OpenAI's API
CHAT_PATH, MODELS_PATH = "/v1/chat/completions", "/v1/models"
OPENAI_PATHS = (CHAT_PATH, MODELS_PATH)


class Refused(HTTPException):
    """An answer of 4xx or 503: `code` for programs, the reason for people. `param`: the field at fault, where the shape
    of the answer has one."""

    def __init__(
        self, status: int, code: str, reason: str, retry_after_s: int | None = None, param: str | None = None
    ) -> None:
        headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        super().__init__(status, reason, headers)
        self.code, self.param = code, param

    def answer(self, path: str) -> JSONResponse:
        """In the shape that clients of this path read."""
        error: dict[str, Any] = {"error": self.code, "reason": self.detail}
        if any(f"{path}/".startswith(f"{p}/") for p in OPENAI_PATHS):
            kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error", 500: "server_error"}
            kind = kinds.get(self.status_code, "invalid_request_error")
            error = {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}
        return JSONResponse(error, self.status_code, self.headers)
