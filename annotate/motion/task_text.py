"""What a task text asks for: which objects are to be carried where, or something else that no gripper shows.

The rules are word lists and patterns for English; no model is asked.
"""

import re
from dataclasses import dataclass

PLACE = (
    "put", "carry", "place", "stack", "move", "transfer", "bring", "insert", "sort", "set", "lay", "drop", "store",
    "load", "return", "deliver", "deposit", "hand over", "hand", "relocate",
)  # fmt: skip
PICK = (
    "pick up",
    "pick",
    "grasp",
    "grab",
    "take",
    "lift",
    "raise",
    "retrieve",
    "fetch",
    "collect",
    "hold",
)
OTHER = (
    "open", "close", "push", "pull", "slide", "press", "turn", "tilt", "pour", "fold", "hang", "wipe", "release",
    "retract", "reach", "rotate", "unfold", "twist", "touch", "shake", "flip", "sweep", "stir", "cut", "scoop",
    "swing", "shut", "lock", "unlock", "screw", "unscrew", "squeeze", "roll", "drag", "switch", "plug", "unplug",
    "tap", "knock", "hit", "scrub", "spread", "shove", "nudge", "poke", "tip", "dump", "wash", "clean", "dry", "mix",
    "chop", "slice", "peel", "zip", "unzip", "hook", "unhook", "erase", "write", "draw", "iron", "unpack", "wrap",
)  # fmt: skip
# Of these the deeds in which a thing may come along as the arm goes back
PULL = (
    "open",
    "pull",
    "slide",
    "retract",
    "scoop",
    "sweep",
    "roll",
    "drag",
    "unplug",
    "hook",
    "unhook",
    "unzip",
    "peel",
)
# A text is split into clauses, a clause into its verb, its objects and where they are or go
_VERBS = "|".join(sorted((*PLACE, *PICK, *OTHER), key=len, reverse=True))
_CLAUSE = re.compile(
    rf"(?:\s*[,;]\s*|\s+)(?:and\s+then|then|and)\s+(?=(?:{_VERBS})\b)|\s*;\s*", re.I
)
_VERB = re.compile(rf"({_VERBS})\s+(.+)", re.I)
_AT = "(?:into|onto|inside|in|on|to|under|over|above|beside|behind|between|next to|near|at|from|off|out of)"
_WHERE = re.compile(rf"\s(?={_AT}\b)")
# Not "to open it"
_GOAL = re.compile(r"\b(?:to|into|onto)\s+(?:the|an?|its|another|one)\b", re.I)
_ORDER = re.compile(
    r",?\s*(?:in (?:this|that|the given) order|one (?:by one|after the other))$", re.I
)
# Of a carried object
_DIRECTION = re.compile(r"\s+(?:back|over|up|down|away|across|along|forward|around)$", re.I)
_ITEMS = re.compile(rf"\s*,(?!\s*{_AT}\b)\s*(?:and\s+)?|\s+and\s+")
_THEIR = re.compile(r"\btheir (\w+)s\b")  # "their bins": each object has its own bin


@dataclass(frozen=True)
class Transfer:
    """One object that is to be grasped, and then to be placed somewhere, or only to be lifted."""

    object_name: str
    destination: str | None = None  # with its preposition: "on the plate"; None: no text says where
    is_lifted: bool = False  # nobody asks for more than that


@dataclass(frozen=True)
class _Clause:
    verb: str
    objects: str  # as the text lists them
    where: str | None
    is_placed: bool  # else the object is only picked up


def transfers(task: str | None) -> tuple[Transfer, ...]:
    """The transfers that a task asks for, in the order of the text; none where it also asks for something else.

    Example: "Pick up the cup and put it on the plate." gives one Transfer("the cup", "on the
    plate").
    """
    clauses = _clauses(task)
    if not clauses or any(clause is None or clause.verb in OTHER for clause in clauses):
        # A clause that asks for something else makes the number of closings unclear: better no plan than a wrong one
        return ()
    task_transfers: list[Transfer] = []
    picked_up: _Clause | None = None  # by the clause before, which did not say where it goes
    for clause in clauses:
        if clause is None or (picked_up is not None and not clause.is_placed):
            return ()
        if not clause.is_placed:
            picked_up = clause
            continue
        names = _ITEMS.split(clause.objects)
        if picked_up is not None:
            # After "pick up the cup", the clause may only carry "it" or "the cup"
            if names not in (["it"], [picked_up.objects]):
                return ()
            names = [picked_up.objects]
            picked_up = None
        # Several destinations, as in "the cup on the plate and the fork in the sink", are not understood
        if not all(names) or clause.where is None or _ITEMS.search(clause.where):
            return ()
        task_transfers += [Transfer(name, _THEIR.sub(r"its \1", clause.where)) for name in names]
    if picked_up is None:
        return tuple(task_transfers)
    is_all = not task_transfers and not _ITEMS.search(picked_up.objects)
    if is_all:
        return (Transfer(picked_up.objects, is_lifted=True),)
    return ()


def asks_for_other_deeds(task: str | None) -> bool:
    """Does a text ask for deeds that are no carrying, and for nothing else: to press, to open, to turn something?"""
    clauses = _clauses(task)
    return bool(clauses) and all(clause is not None and clause.verb in OTHER for clause in clauses)


def leaves_things_behind(task: str | None) -> bool | None:
    """Does nothing come along when the arm goes back from its work? None where the text does not say what is done.

    Example: of pressing a button True, of opening a drawer or fetching a cup False.
    """
    clauses = _clauses(task)
    if not clauses or None in clauses:
        return None
    return all(
        clause is not None and clause.verb in OTHER and clause.verb not in PULL
        for clause in clauses
    )


def task_sentence(task: str | None) -> str:
    """The text with single spaces and without its full stop."""
    return " ".join((task or "").split()).rstrip(".! ")


def _clauses(task: str | None) -> list[_Clause | None]:
    """The clauses of a text; None for one that begins with no verb known here."""
    text = _ORDER.sub("", task_sentence(task))
    if text:
        return [_clause(clause) for clause in _CLAUSE.split(text)]
    return []


def _clause(text: str) -> _Clause | None:
    match = _VERB.fullmatch(text)
    if match is None:
        return None
    objects, *places = _WHERE.split(match[2], maxsplit=1)
    verb = match[1].lower()
    is_placed = verb in PLACE or (verb in PICK and _GOAL.search(match[2]) is not None)
    return _Clause(verb, _DIRECTION.sub("", objects), next(iter(places), None), is_placed)
