"""Which of its own pictures a changed window shows, and what is told of it: the one meaning of each kind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from training.recipe import AS_RECORDED, KINDS, NegativesConfig

SPEEDS = (0.5, 2.0)
WORD = re.compile(r"[^\W_]+")
TRIES = 50  # draws until an instruction is taken for one that no other differs from


def draw_kind(config: NegativesConfig, rng: np.random.Generator) -> str:
    """AS_RECORDED or one of KINDS, by the rates."""
    rates = [getattr(config, kind) for kind in KINDS]
    return str(rng.choice([AS_RECORDED, *KINDS], p=[1 - sum(rates), *rates]))


def draw_speed(rng: np.random.Generator) -> float:
    """How many times as far apart pictures stand: as often slower as faster."""
    return float(np.exp(rng.uniform(*np.log(SPEEDS))))


def shown_of(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers of a window's `count` pictures, oldest first, in the order in which they are shown; as many again.

    rewound: the window's latest pictures forward, then back from the last one by 1 to count - 1 pictures.
    stood_still: the last one alone. Others: all as they are.

    Example: of 4 pictures, rewound shows [1, 2, 3, 2], [2, 3, 2, 1] or [3, 2, 1, 0].
    """
    last = count - 1
    if last < 1:
        return np.arange(count)
    if kind == "rewound":
        num_back = int(rng.integers(1, count))
        return last - np.abs(np.arange(count) - (last - num_back))
    if kind == "stood_still":
        return np.full(count, last)
    return np.arange(count)


def window_places(
    frames: np.ndarray, last_frame: int, step: float, count: int
) -> tuple[np.ndarray, bool]:
    """Which of an episode's pictures, of these frames [k], a window of `count` up to frame
    `last_frame` shows, as annotate.samples.procvqa.window has it, each time's nearest picture, and
    are they all of these very times; `step`: frames between two, fewer where the episode began too
    late for that."""
    step = min(step, last_frame / max(1, count - 1))
    distances = np.abs(frames[None] - (last_frame - step * np.arange(count)[::-1])[:, None])
    return distances.argmin(1), bool(distances.min(1).max() <= 0.5)


def words_of(text: str) -> tuple[str, ...]:
    """Case and punctuation do not count."""
    return tuple(WORD.findall(text.lower()))


def differ(first: str, second: str) -> bool:
    """Are these truly different? Not where one has no word that the other lacks."""
    a = set(words_of(first))
    b = set(words_of(second))
    return bool(a - b) and bool(b - a)


@dataclass(frozen=True)
class Instructions:
    """The instructions of a corpus's runs; empty ones are left out. same_as: of those that people joined, the one that
    stands for the task."""

    of_runs: Sequence[str]
    same_as: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def distinct(self) -> list[str]:
        return sorted({text for text in self.of_runs if words_of(text)})

    def other(self, text: str, rng: np.random.Generator) -> str | None:
        """Each differing instruction as often as any other; None where there is none. Drawn, not listed: a corpus has
        many, and nearly all of them differ."""
        if not words_of(text) or not self.distinct:
            return None
        task = self.same_as.get(text, text)
        for _ in range(TRIES):
            candidate = self.distinct[int(rng.integers(len(self.distinct)))]
            if differ(text, candidate) and self.same_as.get(candidate, candidate) != task:
                return candidate
        return None
