"""The plan that a task text gives: which objects are to be carried where, or which one action is to be done.

The rules are word lists and patterns for English; no model is asked. A text that asks for several actions (open, push,
turn ...) gives no plan: the steps are then found in what the arm does alone.
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
# A task is split into clauses, a clause into its verb, its objects and where they go
_VERBS = "|".join(sorted((*CARRY, *PICK, *OTHER), key=len, reverse=True))
_CLAUSE = re.compile(rf"(?:\s*[,;]\s*|\s+)(?:and\s+then|then|and)\s+(?=(?:{_VERBS})\b)|\s*;\s*", re.I)
_VERB = re.compile(rf"({_VERBS})\s+(.+)", re.I)
_AT = "(?:into|onto|inside|in|on|to|under|over|above|beside|behind|between|next to|near|at|from|off|out of)"
_WHERE = re.compile(rf"\s(?={_AT}\b)")
_GOAL = re.compile(r"\b(?:to|into|onto)\s+(?:the|an?|its|another|one)\b", re.I)  # and not "to open it"
_ORDER = re.compile(r",?\s*(?:in (?:this|that|the given) order|one (?:by one|after the other))$", re.I)
_DIRECTION = re.compile(r"\s+(?:back|over|up|down|away|across|along|forward|around)$", re.I)  # of a carried object
_ITEMS = re.compile(rf"\s*,(?!\s*{_AT}\b)\s*(?:and\s+)?|\s+and\s+")
_THEIR = re.compile(r"\btheir (\w+)s\b")  # "their bins": each object has its own bin


@dataclass(frozen=True)
class Transfer:
    """One object that is to be grasped and placed somewhere."""

    object_name: str
    destination: str  # with its preposition: "on the plate"

    def steps(self, *, with_reach: bool) -> list[str]:
        """Names of its steps in time: grasp and place; `with_reach`, the reach before them too."""
        reach = [f"Reach for {self.object_name}"] if with_reach else []
        return [*reach, f"Grasp {self.object_name}", f"Place {self.object_name} {self.destination}"]


@dataclass(frozen=True)
class TaskPlan:
    """What a text asks for: transfers, or one other action, or neither; never both."""

    transfers: tuple[Transfer, ...]
    action: str | None

    @property
    def has_one_object(self) -> bool:
        return self.action is not None or len(self.transfers) == 1


@dataclass(frozen=True)
class _Clause:
    objects: str  # as the text lists them
    destination: str | None
    carries: bool  # else it only picks something up


def plan_of(task: str | None) -> TaskPlan:
    return TaskPlan(transfers(task), single_action(task))


def transfers(task: str | None) -> tuple[Transfer, ...]:
    """The transfers that a task asks for, in the order of the text; none where it also asks for something else.

    Example: "Pick up the cup and put it on the plate." gives one Transfer("the cup", "on the plate").
    """
    text = _ORDER.sub("", _sentence(task))
    found: list[Transfer] = []
    picked_up: str | None = None  # by the clause before, which did not say where it goes
    for clause in map(_parse, _CLAUSE.split(text)):
        # A clause that asks for something else makes the number of closings unclear: better no plan than a wrong one
        if clause is None:
            return ()
        if not clause.carries:
            # The next clause has to say where this one object goes
            if picked_up is not None or _ITEMS.search(clause.objects):
                return ()
            picked_up = clause.objects
            continue

        # Several destinations, as in "the cup on the plate and the fork in the sink", are not understood
        names = _object_names(clause, picked_up)
        picked_up = None
        if not names or clause.destination is None or _ITEMS.search(clause.destination):
            return ()
        destination = _THEIR.sub(r"its \1", clause.destination)
        found += [Transfer(name, destination) for name in names]
    return () if picked_up is not None else tuple(found)


def _parse(text: str) -> _Clause | None:
    """None for a clause that has no verb known here, or one of another action."""
    match = _VERB.fullmatch(text)
    if match is None or match[1].lower() in OTHER:
        return None
    objects, *destination = _WHERE.split(match[2], maxsplit=1)
    return _Clause(_DIRECTION.sub("", objects), destination[0] if destination else None, _carries(match))


def _object_names(clause: _Clause, picked_up: str | None) -> list[str]:
    """The objects that a clause carries; none where it is not understood.

    After "pick up the cup", the clause may only carry "it" or "the cup".
    """
    names = _ITEMS.split(clause.objects)
    if picked_up is not None:
        return [picked_up] if names in (["it"], [picked_up]) else []
    return names if all(names) else []


def single_action(task: str | None) -> str | None:
    """The text, without a full stop, of a task that asks for one action on one object, other than carrying it.

    Example: "Open the green drawer." gives "Open the green drawer"; "Open the drawer and the door." gives None.
    """
    text = _sentence(task)
    match = _VERB.fullmatch(text)
    if match is None or _carries(match) or len(_CLAUSE.split(text)) > 1:
        return None
    objects = _WHERE.split(match[2], maxsplit=1)[0]
    return None if _ITEMS.search(objects) else text


def _sentence(task: str | None) -> str:
    """The text with single spaces and without its full stop."""
    return " ".join((task or "").split()).rstrip(".! ")


def _carries(clause: re.Match[str]) -> bool:
    """Does the clause ask for an object to be carried somewhere: "put it there", or "take it to there"?"""
    verb = clause[1].lower()
    return verb in CARRY or (verb in PICK and _GOAL.search(clause[2]) is not None)
