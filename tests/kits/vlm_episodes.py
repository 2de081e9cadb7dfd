"""Episodes and models for the tests of the VLM annotator: pictures say which frame they show."""

import asyncio
import hashlib
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from annotate.model_client.calls import Image, Reply, Request
from annotate.vlm.pictures import EpisodeView
from tests.kits.vlm_replies import fill

PLAN = {
    "scene": "An arm and a cup",
    "steps": [
        {"verb": "Grasp", "object": "the red cup"},
        {"verb": "Move", "object": "the red cup over the plate"},
        {"verb": "Place", "object": "the red cup on the plate"},
    ],
}


def picture(frame: int) -> Image:
    return Image.of(b"frame %d" % frame)


class Loader:
    """Loads pictures, and remembers the calls; two at once are an error."""

    def __init__(self, make: Callable[[int], Image] = picture):
        self.make = make
        self.calls: list[list[int]] = []
        self.busy = threading.Lock()

    def __call__(self, frames: Sequence[int]) -> Mapping[int, Image]:
        assert self.busy.acquire(blocking=False), "loaded twice at once"
        try:
            self.calls.append(list(frames))
            return {f: self.make(f) for f in frames}
        finally:
            self.busy.release()


def view_of(num_frames: int = 300, **changes: Any) -> EpisodeView:
    fields: dict[str, Any] = {
        "dataset": "toy",
        "episode_index": 7,
        "task": "Put the red cup on the plate",
        "fps": 30.0,
        "num_frames": num_frames,
        "success": None,
        "frames": tuple(range(0, num_frames, 30)),
        "load": Loader(),
        # far apart, so that no two frames look alike
        "phash": np.random.default_rng(0).integers(0, 2**63, num_frames, dtype=np.uint64),
    }
    return EpisodeView(**(fields | changes))


class Model:
    """Answers by stage from `replies`: a value, or a function of the request."""

    def __init__(self, **replies: Any):
        self.replies = {"plan": PLAN} | replies
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        await asyncio.sleep(0)
        answer = self.replies[request.stage]
        value = answer(request) if callable(answer) else answer
        return Reply(request.key("toy", None), value, 0, 0, 0.0, False)

    def of(self, stage: str) -> list[Request]:
        return [r for r in self.requests if r.stage == stage]


def question(request: Request) -> str:
    text = request.content[-1]
    assert isinstance(text, str)
    return text


def frames_shown(request: Request) -> list[int]:
    return [int(image.jpeg.split()[1]) for image in request.images]


def knowing(truth: Sequence[tuple[int, str, bool]], **replies: Any) -> Model:
    """A model that knows the truth: (first frame, label, completed) of each activity."""
    starts = [t[0] for t in truth]

    def index(frame: int) -> int:
        return max(k for k, start in enumerate(starts) if start <= frame)

    def told(k: int) -> dict[str, str]:
        return {"label": truth[k][1], "outcome": "achieved" if truth[k][2] else "not_achieved"}

    def segment(request: Request) -> dict[str, Any]:
        frames = frames_shown(request)
        indices = [index(f) for f in frames]
        told_at = zip(frames[1:], pairwise(indices), strict=True)
        changes = [{"picture": frame, **told(k)} for frame, (former, k) in told_at if k != former]
        return {"seen": "All", "first": told(indices[0]), "changes": changes}

    def refine(request: Request) -> dict[str, Any]:
        frames = frames_shown(request)
        return {
            "seen": "It",
            "picture": next((f for f in frames if index(f) != index(frames[0])), frames[-1]),
        }

    def verify(request: Request) -> dict[str, Any]:
        verdicts = {}
        for key, step, start in re.findall(
            r"^(attempt_\d+): step (\d+), .*, from ([\d.]+) s", question(request), re.M
        ):
            k = min(
                (k for k, (_, label, _) in enumerate(truth) if label == step),
                key=lambda k: abs(truth[k][0] - float(start) * 30),
            )
            verdicts[key] = {"criterion": "It", "evidence": "It", "completed": truth[k][2]}
        return verdicts

    return Model(**({"segment": segment, "refine": refine, "verify": verify} | replies))


def ignorant(seed: int) -> Model:
    """A model whose replies follow the schema and mean nothing."""

    def answer(request: Request) -> dict[str, Any]:
        digest = hashlib.sha256(f"{seed} {request.key('toy', None)}".encode()).digest()
        return fill(request.schema, random.Random(digest))

    return Model(**dict.fromkeys(("plan", "segment", "refine", "verify", "reason"), answer))
