"""Rewards from a server (`proccorpus serve`), for programs that are to import no model: numpy, Pillow and httpx.

token = Path("workspace/.token-serve").read_text()  # or PROCCORPUS_REWARD_TOKEN
with RewardClient("http://127.0.0.1:8700", token) as client, client.session("Open the drawer.", fps=4) as session:
    row = session.append(rgb)  # uint8 [h, w, 3]
    row.progress, row.delta, row.done
"""

import base64
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import httpx
import numpy as np
from PIL import Image
from pydantic import ValidationError

from eval.reward.stream import Robot
from eval.server.protocol import Error, ModelInfo, NewSession, RewardRow, Scored, SessionInfo

Encoding = Literal["png", "jpeg"]
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_ATTEMPTS = 8


class RewardServerError(Exception):
    """A server that refused, or could not be reached: `status` is None in that case, `code` the server's own word."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RewardClient:
    """One server. Threads may share it, sessions not.

    What is safe to send twice is sent again when the connection breaks or the server is busy (503), up to `patience_s`
    seconds: all but the making of a session, which is repeated only where it cannot have begun. `encoding`: png loses
    nothing; jpeg is a tenth of the bytes, and rewards differ a little.
    """

    def __init__(
        self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 30.0,
        encoding: Encoding = "png", transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        token = token or os.environ.get("PROCCORPUS_REWARD_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_s, transport=transport, trust_env=False
        )
        self._patience_s = patience_s
        self.encoding = encoding

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def model(self) -> ModelInfo:
        """What scores. Raises RewardServerError, as all of these do."""
        return ModelInfo.model_validate_json(self._ask("GET", "/v1/model").content)

    def session(
        self, task: str, cameras: Sequence[str] = ("camera",), fps: float = 4.0, steps: Sequence[str] = (),
        duration_s: float | None = None, goal: Mapping[str, np.ndarray] | None = None,
    ) -> "RewardSession":  # fmt: skip
        """A run to be scored frame by frame. `steps`: the task's, in order, for models that compare with a
        demonstration; `duration_s` and `goal` are for the baselines clock and visual."""
        pictures = {c: base64.b64encode(self._encoded(rgb)) for c, rgb in (goal or {}).items()}
        request = NewSession(
            task=task,
            cameras=list(cameras),
            fps=fps,
            steps=tuple(steps),
            duration_s=duration_s,
            goal=pictures,
        )
        answer = self._ask(
            "POST",
            "/v1/sessions",
            safe=False,
            content=request.model_dump_json(),
            headers={"Content-Type": "application/json"},
        )
        return RewardSession(self, SessionInfo.model_validate_json(answer.content))

    def reward_video(
        self,
        videos: Path | Mapping[str, Path],
        task: str,
        fps: float | None = None,
        steps: Sequence[str] = (),
    ) -> tuple[RewardRow, ...]:
        """Rewards of a video file, or of one per camera: those that `proccorpus reward` gives at `--fps`."""
        videos_by_camera = {"camera": videos} if isinstance(videos, Path) else videos
        parts = [
            ("videos", (path.name, path.read_bytes(), "video/mp4"))
            for path in videos_by_camera.values()
        ]
        return self._scored(
            "/v1/videos",
            {"task": task, "fps": fps, "cameras": list(videos_by_camera), "steps": list(steps)},
            parts,
        )

    def reward_frames(
        self, frames: Iterable[np.ndarray | Mapping[str, np.ndarray]], task: str, fps: float, steps: Sequence[str] = (),
        robots: Sequence[Robot] = (),
    ) -> tuple[RewardRow, ...]:  # fmt: skip
        """Rewards of all frames of a run, given at `fps`: each uint8 [h, w, 3], or one of these per camera; `robots`:
        as for RewardSession.append."""
        moments = [f if isinstance(f, Mapping) else {"camera": f} for f in frames]
        cameras = list(moments[0]) if moments else ["camera"]
        fields = {
            "task": task,
            "fps": fps,
            "cameras": cameras,
            "steps": list(steps),
            "robots": _json(robots),
        }
        return self._scored("/v1/frames", fields, self._parts(moments, cameras))

    def _scored(
        self, path: str, fields: Mapping[str, Any], parts: Sequence[Any]
    ) -> tuple[RewardRow, ...]:
        form = {k: v for k, v in fields.items() if v is not None}
        return tuple(
            Scored.model_validate_json(self._ask("POST", path, data=form, files=parts).content).rows
        )

    def _parts(
        self, moments: Sequence[Mapping[str, np.ndarray]], cameras: Sequence[str]
    ) -> list[Any]:
        media_type = f"image/{self.encoding}"
        return [
            ("frames", (f"{i}.{camera}", self._encoded(moment[camera]), media_type))
            for (i, moment), camera in product(enumerate(moments), cameras)
        ]

    def _encoded(self, rgb: np.ndarray) -> bytes:
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(
                f"a picture is uint8 [height, width, 3] RGB, not {rgb.dtype} {list(rgb.shape)}"
            )
        data = io.BytesIO()
        if self.encoding == "png":
            options: dict[str, Any] = {"compress_level": 1}
        else:
            options = {"quality": 95}
        Image.fromarray(rgb).save(data, self.encoding.upper(), **options)
        return data.getvalue()

    def _ask(self, method: str, path: str, safe: bool = True, **options: Any) -> httpx.Response:
        """The answer to a request, repeated as the class says."""
        start_s = time.monotonic()
        pause = FIRST_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, **options)
                if answer.is_success:
                    return answer
                error = _refusal(answer)
                may_retry = answer.status_code == 503
                # A busy server may say for how long; else pauses double.
                if may_retry:
                    pause = max(pause, float(answer.headers.get("Retry-After", 0)))
            except httpx.TransportError as e:
                error = RewardServerError(
                    f"no answer from the reward server at {self._http.base_url}: {e or type(e).__name__}"
                )
                # What never reached the server may be sent again, even a request that makes a session.
                may_retry = safe or isinstance(e, httpx.ConnectError | httpx.ConnectTimeout)
            if (
                not may_retry
                or attempt == MAX_ATTEMPTS
                or time.monotonic() + pause - start_s > self._patience_s
            ):
                raise error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")


class RewardSession:
    """A run on the server. Use it in one thread; closed, it frees its place there."""

    def __init__(self, client: RewardClient, info: SessionInfo) -> None:
        self._client = client
        self.info = info
        self.frames = info.frames  # moments that the server has taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self, frame: np.ndarray | Mapping[str, np.ndarray], timestamp_s: float | None = None,
        robot: Robot = MappingProxyType({}),
    ) -> RewardRow:  # fmt: skip
        """The reward of the next moment: uint8 [h, w, 3], or one per camera of the session. `robot`: its "state", and
        its last "action", as the dataset of shown runs has them."""
        times = None if timestamp_s is None else [timestamp_s]
        if isinstance(frame, Mapping) or len(self.info.cameras) > 1 or robot:
            return self.append_all([frame], times, [robot])[0]
        # One picture is the body itself, which costs both sides less than a form
        fields = {"first_frame": self.frames, "timestamp_s": timestamp_s}
        query = {k: v for k, v in fields.items() if v is not None}
        path = f"/v1/sessions/{self.info.session}/picture"
        head = {"Content-Type": f"image/{self._client.encoding}"}
        answer = self._client._ask(
            "POST", path, params=query, content=self._client._encoded(frame), headers=head
        )
        self.frames += 1
        return Scored.model_validate_json(answer.content).rows[0]

    def append_all(
        self, frames: Sequence[np.ndarray | Mapping[str, np.ndarray]], timestamps_s: Sequence[float] | None = None,
        robots: Sequence[Robot] = (),
    ) -> tuple[RewardRow, ...]:  # fmt: skip
        """The same of several moments in one request. The request names the first one's number, so that a repeated one
        is known as such by the server, and no frame is taken twice."""
        cameras = self.info.cameras
        # A picture without a name is that of the first camera: the check below refuses it where there are several.
        moments = [f if isinstance(f, Mapping) else dict.fromkeys(cameras[:1], f) for f in frames]
        if any(set(m) != set(cameras) for m in moments):
            raise ValueError(f"each moment needs pictures of {', '.join(cameras)}")
        fields: dict[str, Any] = {
            "first_frame": self.frames,
            "timestamps_s": None if timestamps_s is None else list(timestamps_s),
            "robots": _json(robots),
        }
        path = f"/v1/sessions/{self.info.session}/frames"
        rows = self._client._scored(path, fields, self._client._parts(moments, cameras))
        # Counted after the answer: a request that fails is repeated under the same number.
        self.frames += len(moments)
        return rows

    def close(self) -> None:
        """Twice is once; a session that has expired is closed already."""
        try:
            self._client._ask("DELETE", f"/v1/sessions/{self.info.session}")
        except RewardServerError as e:
            if e.status != 404:
                raise


def _json(robots: Sequence[Robot]) -> list[str] | None:
    if any(robots):
        return [json.dumps({c: np.asarray(v).tolist() for c, v in r.items()}) for r in robots]
    return None


def _refusal(answer: httpx.Response) -> RewardServerError:
    try:
        refusal = Error.model_validate_json(answer.content)
    except ValidationError:
        return RewardServerError(
            f"the reward server answered {answer.status_code}", answer.status_code
        )
    return RewardServerError(
        f"the reward server refused: {refusal.reason}", answer.status_code, refusal.error
    )
