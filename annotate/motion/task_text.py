"""The plan that a task text gives: which objects are to be carried where, or which one action is to be done.

The rules are word lists and patterns for English; no model is asked. A text that asks for several actions (open, push,
turn ...) gives no plan: the steps are then found in what the arm does alone.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

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
MOVE = ("carry", "move", "transfer", "bring", "hand", "relocate")  # of these: it may stay in the gripper
PICK = ("pick up", "pick", "grasp", "grab", "take", "lift", "raise", "retrieve", "fetch", "collect", "hold")
OTHER = (
    "open", "close", "push", "pull", "slide", "press", "turn", "tilt", "pour", "fold", "hang", "wipe", "release",
    "retract", "reach", "rotate", "unfold", "twist", "touch", "shake", "flip", "sweep", "stir", "cut", "scoop",
    "swing", "shut", "lock", "unlock", "screw", "unscrew", "squeeze", "roll", "drag", "switch", "plug", "unplug",
    "tap", "knock", "hit", "scrub", "spread", "shove", "nudge", "poke", "tip", "dump", "wash", "clean", "dry", "mix",
    "chop", "slice", "peel", "zip", "unzip", "hook", "unhook", "erase", "write", "draw", "iron", "unpack", "wrap",
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


type StepPart = Literal["reach", "grasp", "carry", "place", "release"]
type StepParts = tuple[StepPart, ...]
COARSE: Final[StepParts] = ("grasp", "place")  # the reach belongs to the grasp; carry and release to the placing
WITH_REACH: Final[StepParts] = ("reach", "grasp", "place")
FINE: Final[StepParts] = ("reach", "grasp", "carry", "place", "release")


@dataclass(frozen=True)
class Transfer:
    """One object that is to be grasped, and then to be placed somewhere, or to be held up at the end."""

    object_name: str
    destination: str | None = None  # with its preposition: "on the plate"; None: no text says where
    held_by: str | None = None  # it stays in the gripper; what is done with it: "Lift"
    let_go: bool = True  # its verb asks for that: what is put somewhere is let go, what is moved there need not be

    def steps(self, parts: StepParts) -> dict[StepPart, str]:
        """The names of its steps in time, by what is done in each: grasp, place, and those of `parts` beside them."""
        name = self.object_name
        if self.held_by:
            place = f"{self.held_by} {name}"
        elif self.destination:
            place = f"Place {name} {self.destination}"
        else:
            place = f"Lower {name}" if "carry" in parts else f"Carry and release {name}"
        names: dict[StepPart, str] = {
            "reach": f"Reach for {name}",
            "grasp": f"Grasp {name}",
            "carry": f"Carry {name}",
            "place": place,
            "release": f"Release {name}",
        }
        left_out = ("carry", "release") if self.held_by else ()
        return {part: names[part] for part in parts if part not in left_out}


def unnamed_transfers(count: int, *, last_stays_held: bool) -> tuple[Transfer, ...]:
    """Transfers of objects that no text names."""
    names = ["the object"] if count == 1 else [f"object {k + 1}" for k in range(count)]
    return tuple(Transfer(n, held_by="Carry" if last_stays_held and n is names[-1] else None) for n in names)


@dataclass(frozen=True)
class TaskPlan:
    """The goals in a task text: transfers, or one action, or neither; both if one object must be picked up."""

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
    lets_go: bool  # what it carries


def plan_of(task: str | None) -> TaskPlan:
    lifted = lifted_object(task)
    return TaskPlan((lifted,) if lifted else transfers(task), single_action(task))


def lifted_object(task: str | None) -> Transfer | None:
    """The one object of a task that asks for no more than to pick it up: "Pick up the pen."."""
    clause = _parse(_sentence(task))
    if clause is None or clause.carries or clause.destination or _ITEMS.search(clause.objects):
        return None
    return Transfer(clause.objects, held_by="Lift")


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
        found += [Transfer(name, destination, let_go=clause.lets_go) for name in names]
    return () if picked_up is not None else tuple(found)


def _parse(text: str) -> _Clause | None:
    """None for a clause that has no verb known here, or one of another action."""
    match = _VERB.fullmatch(text)
    if match is None or match[1].lower() in OTHER:
        return None
    objects, *destination = _WHERE.split(match[2], maxsplit=1)
    return _Clause(
        objects=_DIRECTION.sub("", objects),
        destination=destination[0] if destination else None,
        carries=_carries(match),
        lets_go=match[1].lower() not in (*MOVE, *PICK),
    )


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
