"""A reward server on a free port of this machine, and a scorer whose numbers can be told from the
pictures."""

import io
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
import httpx
import numpy as np
from PIL import Image

from core.web import Access
from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import Window
from eval.server.app import make_app
from eval.server.limits import ServerLimits
from tests.kits.http_server import listening
from tests.kits.patience import PATIENCE_S

TASK = "Open the green drawer."
FPS = 4.0
POISON = 255  # a picture of this grey makes its batch fail
# Requests that no client of ours would send
get = partial(httpx.get, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)


def openai_client(address: str, token: str = "none") -> Any:
    """A client of the `openai` package for a reward server, to be closed; imported here, since that
    takes a second."""
    from openai import OpenAI

    return OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0)


class Pixels(Scorer):
    """Mean brightness of the window's pictures."""

    source = "head"

    def __init__(self) -> None:
        super().__init__(Window(3, 0.5))
        self.settings = {}
        self.gate = threading.Event()
        self.batches = list[int]()
        self.gate.set()

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        assert self.gate.wait(PATIENCE_S)
        if any(v.pictures[-1].rgb.min() == POISON for v in views):
            raise RuntimeError("the model broke")
        self.batches.append(len(views))
        rewards = []
        for view in views:
            brightness = np.mean([picture.rgb.mean() for picture in view.pictures])
            rewards.append(Reward("head", float(brightness / 255)))
        return rewards


class Playing(gym.Env):
    """An environment of given observations; its own reward is 1, and it ends with them, or is cut
    off there.

    What it renders is the picture `pixels/top` of an observation.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"
    observation_space = gym.spaces.Dict()
    action_space = gym.spaces.Discrete(2)

    def __init__(self, observations: Sequence[Any], ends: bool = True) -> None:
        self.observations = observations
        self.ends = ends
        self.at = 0

    def reset(self, **_: Any) -> tuple[Any, dict]:
        self.at = 0
        return self.observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.at += 1
        over = self.at == len(self.observations) - 1
        return (
            self.observations[self.at],
            1.0,
            over and self.ends,
            over and not self.ends,
            {"own": True},
        )

    def render(self) -> Any:
        return self.observations[self.at]["pixels"]["top"]


def pictures(count: int, seed: int = 0, size: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 200, (size, size, 3), dtype=np.uint8) for _ in range(count)]


def png(rgb: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, kind)
    return data.getvalue()


def offline(
    scorer: Scorer, frames: Sequence[Any], fps: float = FPS, **stream_options: Any
) -> list[Reward]:
    """What the core says of a run, all at once."""
    stream = scorer.stream(TASK, fps, **stream_options)
    frame_pictures = [f if isinstance(f, dict) else {"camera": f} for f in frames]
    return scorer.score([m for f in frame_pictures if (m := stream.append(f)) is not None])


def running(
    scorer: Scorer,
    limits: ServerLimits | None = None,
    access: Access | None = None,
    names: tuple[str, ...] = ("test",),
) -> AbstractContextManager[Any]:
    """The application of a scorer, listening."""
    return listening(make_app(scorer, list(names), access, limits or ServerLimits()))


@contextmanager
def talking(url: str) -> Iterator[socket.socket]:
    """A bare connection, for what no client would say."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as s:
        yield s


def heard(s: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    try:
        while chunk := s.recv(65536):
            data += chunk
    except ConnectionResetError:
        return data
    return data
