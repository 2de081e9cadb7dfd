"""Instructions that do not fit what is shown: another task's, out of the corpus's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WORD = re.compile(r"[^\W_]+")
TRIES = 50  # draws until an instruction is taken for one that no other differs from


def words_of(text: str) -> tuple[str, ...]:
    """Case and punctuation do not count."""
    return tuple(WORD.findall(text.lower()))


def differ(one: str, other: str) -> bool:
    """Are these truly different? Not where one has no word that the other lacks."""
    a, b = set(words_of(one)), set(words_of(other))
    return bool(a - b) and bool(b - a)


@dataclass(frozen=True)
class Instructions:
    """The instructions of a corpus's runs; empty ones are left out."""

    of_runs: Sequence[str]

    @cached_property
    def distinct(self) -> list[str]:
        return sorted({text for text in self.of_runs if words_of(text)})

    def other(self, text: str, rng: np.random.Generator) -> str | None:
        """Each differing instruction as often as any other; None where there is none. Drawn, not listed: a corpus has
        many, and nearly all of them differ."""
        if not words_of(text) or not self.distinct:
            return None
        for _ in range(TRIES):
            other = self.distinct[int(rng.integers(len(self.distinct)))]
            if differ(text, other):
                return other
        return None
