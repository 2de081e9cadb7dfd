"""Prompts and replies of a model, and the position of pictures in the text for each family of models."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import batched, groupby
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2

from annotate.samples.wording import task_text
from core.errors import FailedError, UserError
from core.values import IMAGE_MARK
from eval.benchmarks.question import BenchmarkError, HeldPicture, PictureFile, Question
from eval.reward.scorer import Source
from eval.reward.stream import StreamPicture, picture_cache
from training.pictures import chat

LIKELIEST = 20  # first tokens that are asked for where words are weighed: the most that OpenAI and vLLM give
PromptFormat = Literal["interleaved", "images_first"]
AnswerName = Literal["auto", "head", "text"]
READERS = 8  # threads that read pictures beside the model


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
        return cls(
            question.key,
            question.text,
            question.pictures,
            seed=question.inference,
            task=task_text(question.goal or None),
            first=question.first,
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """A prompt with its pictures as a model is shown them; `first`: the run's first one, for laptop models."""

    prompt: Prompt
    pictures: tuple[StreamPicture, ...]
    first: StreamPicture | None = None

    def sent(self) -> Prompt:
        """The prompt for a server. A picture is always the same bytes: a server that knows pictures by their content
        (vLLM's encoder cache) encodes each once, however many prompts show it."""
        for picture in self.pictures:
            if picture.seen is None:
                bgr = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR)
                picture.seen = HeldPicture(
                    Path("frame.png"), data=cv2.imencode(".png", bgr)[1].tobytes()
                )
        return replace(self.prompt, pictures=tuple(picture.seen for picture in self.pictures))


@dataclass(frozen=True)
class ModelReply:
    """`text` of a generation, `progress` (0..1) of a head, `words` of probabilities; or why there is none of these.

    `done`: of heads that have such an output, how probable it is that the end state is reached, uncalibrated. `source`:
    where `progress` is from.
    """

    key: str
    text: str | None = None
    progress: float | None = None
    done: float | None = None
    words: Mapping[str, float] | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    source: Source = "head"


class Runner(Protocol):
    """`settings`: all that replies depend on, for eval_runs. `has_head`: progress without words, from one prefill."""

    settings: Mapping[str, Any]
    has_head: bool

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        """A reply to each prompt, as they come, in any order; one that fails is a reply with an error.

        Raises UserError or VlmError where there is no going on.
        """
        ...

    def ask(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        """The same of prompts whose pictures are in memory, as soon as all are answered."""
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
    """`longest_px` bounds a picture's longer side before the model's processor; the others are the
    processor's own."""

    longest_px: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    @property
    def processor_size(self) -> dict[str, int]:
        """What overrides `size` of the Qwen families' image processors; empty where nothing is asked for."""
        edges = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        return {k: v for k, v in edges.items() if v is not None}


# Prompt formats

# Families whose training put all pictures first, numbered; the others take them where the text has them
IMAGES_FIRST = frozenset({"internvl", "internvl_chat"})


def model_type(folder: Path) -> str:
    """What config.json says a checkpoint is. Raises UserError."""
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{folder} is no checkpoint: its config.json does not tell a model_type ({e!r})"
        ) from e


def prompt_format_of(kind: str) -> PromptFormat:
    if kind in IMAGES_FIRST:
        return "images_first"
    return "interleaved"


def images_first(text: str) -> str:
    """InternVL's layout: each picture on a line of its own with its number, then the text, which
    names the numbers."""
    parts = text.split(IMAGE_MARK)
    numbered = "".join(f"Image-{k}: {IMAGE_MARK}\n" for k in range(1, len(parts)))
    return numbered + parts[0] + "".join(f"Image-{k}{part}" for k, part in enumerate(parts[1:], 1))


def chat_messages(prompt: Prompt, form: PromptFormat) -> list[dict[str, Any]]:
    """The chat messages of a prompt, the user's last, by the training room's builder."""
    is_moved = form == "images_first" and not prompt.as_written
    return chat(images_first(prompt.text) if is_moved else prompt.text, prompt.system)


# In this process


class LocalRunner(ABC):
    """A model in this process. `longest_px` bounds the pictures of files; `make_ready`: what is to be done with a
    picture beforehand, in any thread, if there is such work; `ask` does what is not done. It may raise ValueError."""

    settings: Mapping[str, Any]
    has_head = False
    make_ready: Callable[[StreamPicture], None] | None = None

    def __init__(self, batch_size: int, longest_px: int | None) -> None:
        self.batch_size = batch_size
        self.longest_px = longest_px
        self._kept = picture_cache()

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        """In batches of like length, those in which words are weighed last; a prompt whose pictures cannot be read
        fails before its batch is run. While a batch is run, threads `load` the next."""
        with ThreadPoolExecutor(READERS, "pictures") as readers:
            next_batch: list[tuple[Prompt, Future[Asked]]] = []
            for batch in (*self._batches(prompts), ()):
                reading = next_batch
                next_batch = [(prompt, readers.submit(self.load, prompt)) for prompt in batch]
                loaded: list[Asked] = []
                for prompt, pictures in reading:
                    try:
                        loaded.append(pictures.result())
                    except BenchmarkError as e:
                        yield ModelReply(prompt.key, error=str(e))
                yield from self.ask(loaded)

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, ...]]:
        # By pictures, then by characters; the longest first: memory fails early
        by_length = sorted(
            prompts, key=lambda p: (not p.words, len(p.pictures), len(p.text), p.key), reverse=True
        )
        for _, kind in groupby(by_length, key=lambda p: bool(p.words)):
            yield from batched(kind, self.batch_size)

    def load(self, prompt: Prompt) -> Asked:
        """A prompt with its pictures read; a head sees equal ones once. Raises BenchmarkError."""
        make_picture = self._kept if self.has_head else StreamPicture
        return Asked(
            prompt, tuple(make_picture(picture.rgb(self.longest_px)) for picture in prompt.pictures)
        )

    def ask(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        """A reply to each, in order; what fails is a reply with an error."""
        replies: list[ModelReply] = []
        for part in batched(prompts, self.batch_size):
            replies += answers_by_halves(
                part, self.run, lambda a, why: ModelReply(a.prompt.key, error=why)
            )
        return replies

    @abstractmethod
    def run(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        """Replies to one batch, in order; it fails as a whole."""


def answers_by_halves[T, R](
    items: Sequence[T], run: Callable[[Sequence[T]], list[R]], failed: Callable[[T, str], R]
) -> list[R]:
    """The answers to a batch; a batch that fails is halved until what fails stands alone, with its reason."""
    try:
        return run(items)
    except Exception as e:
        if len(items) == 1:
            return [failed(items[0], f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")]
    middle = len(items) // 2
    return [
        *answers_by_halves(items[:middle], run, failed),
        *answers_by_halves(items[middle:], run, failed),
    ]
