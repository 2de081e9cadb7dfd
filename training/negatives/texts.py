"""Instructions that do not fit what is shown: another task's, another run's, or the run's own with another object.

All words come from the corpus's own instructions. A wrong object stands where another instruction has it: "put the cup
on the shelf" gives "put the bowl on the shelf" where the corpus has that. Else the first thing that the instruction
names ("the red cup": what follows an article, up to a preposition) becomes one that another instruction names first;
that needs English.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WORD = re.compile(r"[^\W_]+")
LONGEST_OBJECT = 4  # words
TRIES = 50  # draws until an instruction is taken for one that no other differs from
ARTICLES = frozenset(re.findall(r"\w+", "a an the this that these those each both another"))
# What ends the name of a thing: words of English that are no names
ENDS = ARTICLES | frozenset(
    re.findall(
        r"\w+",
        "about above across after against along and around at away back before behind below beside between by down for "
        "from in inside into its it near next of off on onto or out outside over so them then through to toward "
        "towards under until up upon using via while with without",
    )
)

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    """Case and punctuation do not count."""
    return tuple(WORD.findall(text.lower()))


def differ(one: str, other: str) -> bool:
    """Are these truly different? Not where one has no word that the other lacks."""
    a, b = set(words_of(one)), set(words_of(other))
    return bool(a - b) and bool(b - a)


@dataclass(frozen=True)
class Swap:
    """One thing's name for another's, as it is written in the corpus."""

    old: str
    new: str

    def within(self, text: str) -> str:
        """The text with the other name wherever it names the thing, in whatever case."""
        words = r"[\W_]+".join(map(re.escape, words_of(self.old)))
        return re.sub(rf"(?<![^\W_]){words}(?![^\W_])", lambda _: self.new, text, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Instructions:
    """The instructions of a corpus's runs: one for each run, so that common ones come often. Empty ones are left out.

    What is drawn for an instruction is None where the corpus has nothing that differs from it.
    """

    of_runs: Sequence[str]

    @cached_property
    def distinct(self) -> list[str]:
        return sorted({text for text in self.of_runs if words_of(text)})

    @cached_property
    def _told(self) -> list[str]:
        return [text for text in self.of_runs if words_of(text)]

    def wrong(self, kind: str, text: str, rng: np.random.Generator) -> str | None:
        """What is told instead in a sample of this kind, one of OF_TEXT."""
        if kind == "wrong_object":
            swap = self.wrong_object(text, rng)
            return swap and swap.within(text)
        return self.other(kind, text, rng)

    def other(self, kind: str, text: str, rng: np.random.Generator) -> str | None:
        """other_task, contrast: each differing instruction as often as any other. shuffled: that of a run, so common
        ones come often."""
        return _differing(self._told if kind == "shuffled" else self.distinct, text, rng)

    def wrong_object(self, text: str, rng: np.random.Generator) -> Swap | None:
        """Another thing for one that the instruction names."""
        found = self._of_its_place(text) or self._of_its_kind(text)
        return found[int(rng.integers(len(found)))] if found else None

    def _of_its_place(self, text: str) -> list[Swap]:
        """What other instructions have where this one has something else, in the same words around it."""
        here = set(words_of(text))
        swaps = set()
        for place, old in _places(text):
            for new in self._by_place.get(place, ()):
                a, b = words_of(old), words_of(new)
                # Where they begin or end alike, that much belongs to the words around them
                if a[0] != b[0] and a[-1] != b[-1] and differ(old, new) and not here.issuperset(b):
                    swaps.add((old, new))
        return [Swap(*swap) for swap in sorted(swaps)]

    def _of_its_kind(self, text: str) -> list[Swap]:
        """What others name first, for what this one names first."""
        here, old = set(words_of(text)), first_thing(text)
        if old is None:
            return []
        return [Swap(old, new) for new in self._things if differ(old, new) and not here.issuperset(words_of(new))]

    @cached_property
    def _by_place(self) -> dict[tuple[Words, Words], list[str]]:
        found: dict[tuple[Words, Words], set[str]] = defaultdict(set)
        for text in self.distinct:
            for place, thing in _places(text):
                found[place].add(thing)
        return {place: sorted(things) for place, things in found.items() if len(things) > 1}

    @cached_property
    def _things(self) -> list[str]:
        return sorted({thing for text in self.distinct if (thing := first_thing(text))})


def first_thing(text: str) -> str | None:
    """What an English instruction names first, without its article; None where it has no article.

    Example: "Pick up the red cylinder and move it to the blue marker." names "red cylinder".
    """
    found = list(WORD.finditer(text))
    for k, article in enumerate(found):
        if article.group().lower() not in ARTICLES:
            continue
        end = k
        # Punctuation ends a name as well
        while end + 1 < len(found) and found[end + 1].group().lower() not in ENDS and _is_near(text, found, end):
            end += 1
        if 0 < end - k <= LONGEST_OBJECT:
            return text[found[k + 1].start() : found[end].end()]
    return None


def _is_near(text: str, found: Sequence[re.Match[str]], k: int) -> bool:
    """Does nothing but a blank or a hyphen stand between this word and the next?"""
    return text[found[k].end() : found[k + 1].start()] in (" ", "-")


def _places(text: str) -> Iterable[tuple[tuple[Words, Words], str]]:
    """Each stretch of a few words, after the first word, with the words before and after it."""
    found = list(WORD.finditer(text))
    words = words_of(text)
    for start in range(1, len(found)):
        for end in range(start + 1, min(len(found), start + LONGEST_OBJECT) + 1):
            yield (words[:start], words[end:]), text[found[start].start() : found[end - 1].end()]


def _differing(texts: Sequence[str], text: str, rng: np.random.Generator) -> str | None:
    """Drawn, not listed: a corpus has many instructions, and nearly all of them differ."""
    if not words_of(text) or not texts:
        return None
    for _ in range(TRIES):
        other = texts[int(rng.integers(len(texts)))]
        if differ(text, other):
            return other
    return None
