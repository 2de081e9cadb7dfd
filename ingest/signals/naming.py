"""Which dimensions of a state or an action are grippers or hands, by their names, and what the names say of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ingest.signals.gripper import Kind, Polarity

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
GRIPPERS = {"gripper", "grippers", "grip", "jaw", "jaws", "claw", "effector", "robotiq", "knuckle", "grasp", "finger"}
FINGERS = {"thumb", "index", "middle", "ring", "pinky", "pinkie", "little", "finger", "fingers"}
HANDS = {"hand", "inspire", "dex", "allegro", "shadowhand", "brainco"}
# Other things than how far a gripper or a hand is closed: where it is, how fast, how strong
NOT_OPENING = {
    "x", "y", "z", "w", "qx", "qy", "qz", "qw", "rx", "ry", "rz", "roll", "pitch", "yaw", "quat", "quaternion", "pose",
    "rot", "rotation", "orientation", "rpy", "xyz", "euler", "vel", "velocity", "speed", "acc", "effort", "force",
    "torque", "current", "load", "temperature", "tactile", "touch", "wrist", "camera", "image",
}  # fmt: skip
SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
LIMBS = {"arm", "robot", "follower", "leader", "hand", "gripper"}

FINGERS_OF_GRIPPER = {"finger", "fingers", "jaw", "jaws", "knuckle"}
TWO_ARMS_FROM = 12  # dimensions: fewer are of one arm

# Words that say which end is which
SAY_OPEN = {"opening", "openness", "open", "width", "aperture"}
SAY_CLOSED = {"closed", "closedness", "closing", "close", "grasp"}
MIN_HAND_JOINTS = 3  # of one arm: fewer joints of a hand are a gripper's


@dataclass(frozen=True)
class NamedGripper:
    """Dimensions of one arm whose names say that they are its gripper or hand."""

    arm: str
    kind: Kind
    dimensions: tuple[int, ...]


def words(name: str) -> list[str]:
    """Example: words("kLeftHandThumb0") == ["k", "left", "hand", "thumb", "0"]."""
    return [word.lower() for word in WORD.findall(name)]


def named_grippers(names: Sequence[str]) -> list[NamedGripper]:
    """The grippers and hands among dimensions with these names, an arm's gripper before its hand.

    Example: named_grippers(["x", "left_gripper", "right_gripper"]) gives dimension 1 of "left" and 2 of "right".
    """
    return list(_named_grippers(tuple(names)))


@lru_cache(maxsize=1024)  # asked of the same names for every episode
def _named_grippers(names: tuple[str, ...]) -> tuple[NamedGripper, ...]:
    kinds: list[Kind | None] = [_kind(words(name)) for name in names]
    arms = _arms_of(names, kinds)
    dimensions_of: dict[tuple[str, Kind], list[int]] = {}
    for dimension, kind in enumerate(kinds):
        if kind:
            dimensions_of.setdefault((arms[dimension], kind), []).append(dimension)

    # A hand of one or two joints works as a gripper does
    grippers: dict[str, NamedGripper] = {}
    for (arm, kind), dimensions in sorted(dimensions_of.items(), key=lambda item: item[0][1]):
        if arm in grippers:
            continue
        actual: Kind = "hand" if kind == "hand" and len(dimensions) >= MIN_HAND_JOINTS else "gripper"
        grippers[arm] = NamedGripper(arm, actual, tuple(dimensions))
    return tuple(sorted(grippers.values(), key=lambda gripper: gripper.dimensions))


def _arms_of(names: Sequence[str], kinds: Sequence[Kind | None]) -> list[str]:
    """The arm of each dimension.

    Where nothing but fingers has a side, these are the two fingers of the only gripper: left_finger, right_finger.
    """
    arms = [arm_of(name) for name in names]
    with_side = [dimension for dimension, arm in enumerate(arms) if arm]
    are_fingers = all(kinds[d] == "gripper" and not FINGERS_OF_GRIPPER.isdisjoint(words(names[d])) for d in with_side)
    return [""] * len(names) if are_fingers and len(names) < TWO_ARMS_FROM else arms


def _kind(parts: Sequence[str]) -> Kind | None:
    """What a dimension whose name consists of these words is of; None for another thing."""
    if not NOT_OPENING.isdisjoint(parts):
        return None
    of_hand = not HANDS.isdisjoint(parts)
    of_finger = not FINGERS.isdisjoint(parts)
    of_gripper = not GRIPPERS.isdisjoint(parts)
    # "index" and "middle" alone may be of anything; a "finger joint" alone is a gripper's
    if of_finger and (of_hand or not {"thumb", "pinky", "pinkie", "little"}.isdisjoint(parts)):
        return "hand"
    if {"index", "middle", "ring"} & set(parts) and "finger" in parts:
        return "hand"
    if of_gripper:
        return "gripper"
    return "hand" if of_hand else None


def arm_of(name: str) -> str:
    """The arm that a dimension's name tells: "left", "right", or a numbered limb such as "arm1"; else "".

    Example: arm_of("arm2_j6") == "arm2" and arm_of("gripper.pos") == "".
    """
    parts = words(name)
    for part in parts:
        if part in SIDES:
            return SIDES[part]
    # A number that comes last counts a limb's joints
    for limb, number in pairwise(parts[:-1]):
        if limb in LIMBS and number.isdigit():
            return f"{limb}{number}"
    return ""


def polarity_by_name(names: Sequence[str]) -> tuple[Polarity, str] | None:
    """Which end is open, where the names of a gripper's dimensions say so, and the word that does."""
    parts = [word for name in names for word in words(name)]
    says_closed = sorted(SAY_CLOSED.intersection(parts))
    says_open = sorted(SAY_OPEN.intersection(parts))
    if says_closed and not says_open:
        return "high_is_closed", says_closed[0]
    if says_open and not says_closed:
        return "high_is_open", says_open[0]
    return None


def names_by_parts(parts: Mapping[str, Any], width: int) -> list[str]:
    """A name for each of `width` dimensions by the slices of GR00T's modality.json; "" outside all slices.

    Example: names_by_parts({"left_hand": {"start": 1, "end": 3}}, 3) == ["", "left_hand.0", "left_hand.1"].
    """
    names = [""] * width
    for part, limits in parts.items():
        start, end = (limits.get("start"), limits.get("end")) if isinstance(limits, dict) else (None, None)
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= width:
            continue
        for dimension in range(start, end):
            names[dimension] = f"{part}.{dimension - start}"
    return names
