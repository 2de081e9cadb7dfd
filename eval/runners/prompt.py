"""Prompts and replies of a model, and the position of pictures in the text for each family of models."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from core.errors import FailedError, UserError
from core.values import IMAGE_MARK
from eval.benchmarks.question import PictureFile, Question
from training.transform import chat

LIKELIEST = 20  # first tokens that are asked for where words are weighed: the most that OpenAI and vLLM give
PromptFormat = Literal["interleaved", "images_first"]
AnswerName = Literal["auto", "head", "text"]


class UnansweredError(FailedError):
    """A model that answered nothing, and the first reason."""


@dataclass(frozen=True)
class Prompt:
    """One thing to ask: `text` has an IMAGE_MARK for each of `pictures`, in order.

    With `words` nothing is generated: the reply says how probable each is as the answer's first word. `as_written`:
    pictures stay where the text has them, whatever the model's family.
    `task` and `first` (the run's first picture) are for laptop models, which are told these in place of a text.
    """

    key: str
    text: str
    pictures: tuple[PictureFile, ...]
    words: tuple[str, ...] = ()
    seed: int = 0
    system: str = ""  # a system message; empty: none
    as_written: bool = False
    task: str | None = None
    first: PictureFile | None = None

    @classmethod
    def of(cls, question: Question) -> "Prompt":
        """The benchmark's own question; repeated inferences differ by their seed."""
        task, first = question.goal or None, question.first
        return cls(question.key, question.text, question.pictures, seed=question.inference, task=task, first=first)


@dataclass(frozen=True)
class ModelReply:
    """`text` of a generation, `progress` (0..1) of a head, `words` of probabilities; or why there is none of these.

    `done`: of heads that have such an output, how probable it is that the end state is reached, uncalibrated.
    """

    key: str
    text: str | None = None
    progress: float | None = None
    done: float | None = None
    words: Mapping[str, float] | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Runner(Protocol):
    """`settings`: all that replies depend on, for eval_runs. `has_head`: progress without words, from one prefill."""

    settings: Mapping[str, Any]
    has_head: bool

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        """A reply to each prompt, as they come, in any order; one that fails is a reply with an error.

        Raises UserError or VlmError where there is no going on.
        """
        ...


@dataclass(frozen=True)
class Sampling:
    """How words are drawn: the same for every runner, whatever a checkpoint's generation_config.json says.

    At temperature 0 the likeliest; above, by each prompt's own seed, among the `top_k` likeliest (0: all) and the
    likeliest that together have the probability `top_p`.
    """

    temperature: float = 0.0
    max_tokens: int = 512
    think: bool | None = None  # for chat templates that have a switch; None: left alone
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0  # 1: none; above, what was said or asked is less likely
    seed: int = 0  # other draws of the same questions

    def draw_seed(self, prompt: "Prompt") -> int:
        """The seed of one prompt's draws, 31 bits: another for each inference of a question."""
        text = f"{prompt.key} {prompt.seed} {self.seed}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


@dataclass(frozen=True)
class PictureLimits:
    """`longest_px` bounds a picture's longer side before the model's processor; the others are the processor's own."""

    longest_px: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    @property
    def processor_size(self) -> dict[str, int]:
        """What overrides `size` of the Qwen families' image processors; empty where nothing is asked for."""
        given = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        return {k: v for k, v in given.items() if v is not None}


# Prompt formats

# Families whose training put all pictures first, numbered; the others take them where the text has them
IMAGES_FIRST = frozenset({"internvl", "internvl_chat"})


def model_type(folder: Path) -> str:
    """What config.json says a checkpoint is. Raises UserError."""
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{folder} is no checkpoint: its config.json does not tell a model_type ({e!r})") from e


def format_of(kind: str) -> PromptFormat:
    return "images_first" if kind in IMAGES_FIRST else "interleaved"


def images_first(text: str) -> str:
    """InternVL's layout: each picture on a line of its own with its number, then the text, which names the numbers."""
    parts = text.split(IMAGE_MARK)
    numbered = "".join(f"Image-{k}: {IMAGE_MARK}\n" for k in range(1, len(parts)))
    return numbered + parts[0] + "".join(f"Image-{k}{part}" for k, part in enumerate(parts[1:], 1))


def turn(prompt: Prompt, form: PromptFormat) -> list[dict[str, Any]]:
    """The chat messages of a prompt, the user's last, by the training room's builder."""
    is_moved = form == "images_first" and not prompt.as_written
    return chat(images_first(prompt.text) if is_moved else prompt.text, prompt.system)


# Batches


def apart[T, R](items: Sequence[T], run: Callable[[Sequence[T]], list[R]], failed: Callable[[T, str], R]) -> list[R]:
    """The answers to a batch; a batch that fails is halved until what fails stands alone, with its reason."""
    try:
        return run(items)
    except Exception as e:
        if len(items) == 1:
            return [failed(items[0], f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")]
    middle = len(items) // 2
    return [*apart(items[:middle], run, failed), *apart(items[middle:], run, failed)]
