"""When two task texts ask for different things: another object or another goal, not the same in other words."""

import re
from difflib import SequenceMatcher
from functools import cache

# What makes no other task: how something is said, and verbs of a change that can be seen backwards in pictures (a
# drawer that is half open may be on its way to either end)
_SAID_ALONG = """
a an the this that these those its it their his her your my some any all each one both other another
and or then while so with by of for from to into onto in on at up down out off over under back away
please you should must order will now next first finally carefully gently slowly quickly robot arm hand gripper human
is are be task episode demonstration try
left right top bottom front middle center centre side near far inside outside beside between behind
pick put place grasp grab take lift raise carry move transfer bring set lay drop store load return deliver deposit
relocate retrieve fetch collect hold get give hand insert remove stack unstack sort release reach pull push slide
open close shut lock unlock plug unplug screw unscrew fold unfold attach detach switch turn do make let leave
"""
_SAME_THING = (
    ("cup", "mug"),
    ("bin", "basket", "box", "container", "crate"),
    ("table", "counter", "countertop", "desk", "tabletop"),
    ("cloth", "towel", "rag", "napkin"),
    ("pan", "pot", "skillet"),
    ("bottle", "flask"),
    ("plate", "dish", "saucer"),
    ("object", "item", "thing", "toy"),
    ("cube", "block", "brick"),
    ("clean", "wipe", "tidy", "clear"),
    ("press", "hit", "tap", "touch"),
)
_WORD = re.compile(r"[^\W\d_]+|\d+")
_LIKE, _LIKE_WITHOUT_SPACES = 0.8, 0.4  # likeness of two words from which on they count as one misspelt or inflected


def are_other_tasks(one: str | None, other: str | None) -> bool:
    """Do the texts ask for different things: does each name something that the other does not?

    A text that only says more than the other may be the same task, and so may one that says it in other words. Where
    nobody knows, tasks count as the same.

    Example: "Put the cup on the plate" and "Place the pear on the plate" are; "Grab the cup, set it on the plate" and
    "Put the blue mug on the plate" are not.
    """
    words, others = _things(one or ""), _things(other or "")
    return _has_own(words, others) and _has_own(others, words)


def _has_own(words: frozenset[str], others: frozenset[str]) -> bool:
    """Is there a word that none of the others means as well?"""
    return any(not any(_mean_the_same(word, other) for other in others) for word in words)


@cache
def _things(text: str) -> frozenset[str]:
    """What a text names, as stems: objects, places, colours, numbers, and actions of their own kind."""
    stems = {_stem(word) for word in _WORD.findall(text.lower())}
    return frozenset(_MEANING.get(stem, stem) for stem in stems - _NOTHING)


def _stem(word: str) -> str:
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


@cache
def _mean_the_same(one: str, other: str) -> bool:
    """Are two stems one word, perhaps misspelt? Of scripts without spaces a "word" is a clause."""
    if one == other:
        return True
    if min(len(one), len(other)) < 4:
        return False
    likeness = SequenceMatcher(None, one, other).ratio()
    return likeness >= (_LIKE if one.isascii() and other.isascii() else _LIKE_WITHOUT_SPACES)


_NOTHING = frozenset(map(_stem, _SAID_ALONG.split()))
_MEANING = {_stem(word): _stem(group[0]) for group in _SAME_THING for word in group}
