"""What a task text says is to be carried where, or to be done with one thing: a plan. Plain words, English, no model.

A text that asks for several things of other kinds (open, push, turn ...) gives no plan: what the arm does must tell.
"""

import re
from dataclasses import dataclass

CARRY = (
    "put",
    "carry",
    "place",
    "stack",
    "move",
    "transfer",
    "bring",
    "insert",
    "sort",
    "set",
    "lay",
    "drop",
    "store",
    "load",
    "return",
    "deliver",
    "deposit",
    "hand over",
    "hand",
    "relocate",
)
PICK = ("pick up", "pick", "grasp", "grab", "take", "lift", "raise", "retrieve", "fetch", "collect", "hold")
OTHER = (
    "open", "close", "push", "pull", "slide", "press", "turn", "tilt", "pour", "fold", "hang", "wipe", "release",
    "retract", "reach", "rotate", "unfold", "twist", "touch", "shake", "flip", "sweep", "stir", "cut", "scoop",
    "swing", "shut", "lock", "unlock", "screw", "unscrew", "squeeze", "roll", "drag", "switch", "plug", "unplug",
    "tap", "knock", "hit", "scrub", "spread",
)  # fmt: skip
_VERBS = "|".join(sorted((*CARRY, *PICK, *OTHER), key=len, reverse=True))
_CLAUSE = re.compile(rf"(?:\s*[,;]\s*|\s+)(?:and\s+then|then|and)\s+(?=(?:{_VERBS})\b)|\s*;\s*", re.I)
_VERB = re.compile(rf"({_VERBS})\s+(.+)", re.I)
_AT = "(?:into|onto|inside|in|on|to|under|over|above|beside|behind|between|next to|near|at|from|off|out of)"
_WHERE = re.compile(rf"\s(?={_AT}\b)")
_GOAL = re.compile(r"\b(?:to|into|onto)\s+(?:the|an?|its|another|one)\b", re.I)  # and not "to open it"
_ORDER = re.compile(r",?\s*(?:in (?:this|that|the given) order|one (?:by one|after the other))$", re.I)
_DIRECTION = re.compile(r"\s+(?:back|over|up|down|away|across|along|forward|around)$", re.I)  # of a carried thing
_ITEMS = re.compile(rf"\s*,(?!\s*{_AT}\b)\s*(?:and\s+)?|\s+and\s+")
_OWN = re.compile(r"\btheir (\w+)s\b")


@dataclass(frozen=True)
class Move:
    """One thing to be grasped, and where it goes."""

    thing: str
    where: str

    def steps(self) -> tuple[str, str]:
        return f"Grasp {self.thing}", f"Place {self.thing} {self.where}"


def moves(task: str | None) -> tuple[Move, ...]:
    """The moves that a task asks for, in the order of the text; none where it asks for something else, too."""
    text = _ORDER.sub("", " ".join((task or "").split()).rstrip(".! "))
    found: list[Move] = []
    picked: str | None = None  # by the clause before, which did not say where to
    for clause in _CLAUSE.split(text):
        match = _VERB.fullmatch(clause)
        if match is None or match[1].lower() in OTHER:
            return ()
        things, *rest = _WHERE.split(match[2], maxsplit=1)
        things = _DIRECTION.sub("", things)
        if not _carries(match):
            if picked is not None or _ITEMS.search(things):
                return ()
            picked = things
            continue
        named = _ITEMS.split(things)
        if picked is not None:
            if named not in (["it"], [picked]):
                return ()
            named, picked = [picked], None
        if (
            not rest or not all(named) or _ITEMS.search(rest[0])
        ):  # as in "the cup on the plate and the fork in the sink"
            return ()
        where = _OWN.sub(r"its \1", rest[0]) if "their " in rest[0] else rest[0]
        found += [Move(thing, where) for thing in named]
    return () if picked is not None else tuple(found)


def deed(task: str | None) -> str | None:
    """The text of a task that asks for one thing to be done to one thing, other than carrying it; no full stop."""
    text = " ".join((task or "").split()).rstrip(".! ")
    match = _VERB.fullmatch(text)
    if match is None or _carries(match) or len(_CLAUSE.split(text)) > 1:
        return None
    return None if _ITEMS.search(_WHERE.split(match[2], maxsplit=1)[0]) else text


def _carries(clause: re.Match[str]) -> bool:
    """Does it ask for a thing to be carried somewhere: put it there, or take it to there?"""
    verb = clause[1].lower()
    return verb in CARRY or (verb in PICK and _GOAL.search(clause[2]) is not None)
