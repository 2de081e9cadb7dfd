"""Rewards from a model that another program runs: vLLM or any OpenAI-compatible server, asked in words.

The pictures of a window stand in order of time, each always in the same bytes: a server that knows pictures by their
content (vLLM's encoder cache) encodes each once, however many windows show it. A window begins with its oldest picture,
so prefixes are shared only where a demonstration in words stands before the one picture.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2

from annotate.config import VlmConfig
from eval.benchmarks.question import HeldPicture
from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import StreamPicture
from eval.reward.text import read_words
from eval.reward.window import Window
from eval.runners.api import ApiRunner, Books
from eval.runners.prompt import PictureLimits, Prompt, Runner, Sampling


class RunnerScorer(Scorer):
    """`runner` answers in words; the rest is as of the model that it runs."""

    source = "text"

    def __init__(self, runner: Runner, window: Window | None) -> None:
        super().__init__(window)
        self.runner = runner
        self.settings = {**runner.settings, "window": str(window)}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """Raises VlmError where the server is gone or the budget used up."""
        prompts = [Prompt(str(k), v.asked.text, tuple(map(_file, v.pictures))) for k, v in enumerate(views)]
        replies = {r.key: r for r in self.runner.answer(prompts)}
        found = [(replies[p.key], bool(v.stream.steps)) for p, v in zip(prompts, views, strict=True)]
        return [
            Reward("text", None, failure=r.error or "no answer") if r.text is None else read_words(r.text, has_steps)
            for r, has_steps in found
        ]


def served(config: VlmConfig, responses: Path, window: Window | None) -> RunnerScorer:
    """A server's model, asked for its likeliest words. Raises VlmError, UserError."""
    books = Books(responses, f"reward-{config.model}", "reward")
    return RunnerScorer(ApiRunner(config, Sampling(), PictureLimits(), books), window)


def _file(picture: StreamPicture) -> HeldPicture:
    if picture.seen is None:
        bgr = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR)
        picture.seen = HeldPicture(Path("frame.png"), data=cv2.imencode(".png", bgr)[1].tobytes())
    return picture.seen
