"""Which dimensions of a state or an action are grippers or hands: by their names, and what these say of them; else
by their values, which go from one end of their range to the other. A gripper is nearly always its
arm's last dimension.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np

from core.values import grouped

type Kind = Literal["gripper", "hand"]
type Column = Literal["state", "action"]
type Polarity = Literal["high_is_open", "high_is_closed", "unknown"]

COLUMNS: tuple[Column, ...] = ("state", "action")

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
GRIPPERS = {
    "gripper",
    "grippers",
    "grip",
    "jaw",
    "jaws",
    "claw",
    "effector",
    "robotiq",
    "knuckle",
    "grasp",
    "finger",
}
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
TWO_ARMS_FROM = 12  # dimensions beside fingers: fewer are of one arm

# Words that say which end is which
SAY_OPEN = {"opening", "openness", "open", "width", "aperture"}
SAY_CLOSED = {"closed", "closedness", "closing", "close", "grasp"}
MIN_HAND_JOINTS = 3  # of one arm: fewer joints of a hand are a gripper's

END_SHARE = 0.12  # of the range: so near to an end is at it
MIN_AT_ENDS = 0.4  # share of frames at either end
MIN_AT_ONE_END = 0.3  # share of frames at the end where it is more
MIN_STILL = 0.6  # share of frames at which it does not move
STILL_CHANGE, STILL_S = 0.02, 0.2  # of the range, within so many seconds
TOGETHER_S = 0.5  # values that move within the same time move together
LONGEST_SWITCH_S = 0.6  # median time from end to end
MIN_RUNS_THAT_SWITCH = 0.3  # share of episodes
# Share of frames at the ends by which any dimension is a gripper, wherever it stands
TWO_LEVELS = 0.9
# Arms in vectors of a width, one behind the other
ARMS_BY_WIDTH = {12: 2, 14: 2, 16: 2, 21: 3, 24: 3}

# Of the run's range: a signal below is at its low end, one above at its high end
LOW_END = 0.3
HIGH_END = 0.7
MIN_RUN_RANGE = 0.25  # of the dataset's range: a run that uses less of it does not change its end
MIN_STAY_S = 0.4  # a signal that comes back sooner has only twitched


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

    Example: named_grippers(["x", "left_gripper", "right_gripper"]) gives dimension 1 of "left" and
    2 of "right".
    """
    return list(_named_grippers(tuple(names)))


@lru_cache(maxsize=1024)  # asked of the same names for every episode
def _named_grippers(names: tuple[str, ...]) -> tuple[NamedGripper, ...]:
    kinds: list[Kind | None] = [_kind(words(name)) for name in names]
    arms = _arms_of(names, kinds)
    dimensions_of = grouped(((arms[d], kind), d) for d, kind in enumerate(kinds) if kind)

    # A hand of one or two joints works as a gripper does
    grippers: dict[str, NamedGripper] = {}
    for (arm, kind), dimensions in sorted(dimensions_of.items(), key=lambda item: item[0][1]):
        if arm in grippers:
            continue
        if kind == "hand" and len(dimensions) >= MIN_HAND_JOINTS:
            actual: Kind = "hand"
        else:
            actual = "gripper"
        grippers[arm] = NamedGripper(arm, actual, tuple(dimensions))
    return tuple(sorted(grippers.values(), key=lambda gripper: gripper.dimensions))


def _arms_of(names: Sequence[str], kinds: Sequence[Kind | None]) -> list[str]:
    """The arm of each dimension.

    Where nothing but fingers has a side, these are the two fingers of the only gripper:
    left_finger, right_finger.
    """
    arms = [arm_of(name) for name in names]
    with_side = [dimension for dimension, arm in enumerate(arms) if arm]
    are_fingers = all(
        kinds[d] == "gripper" and not FINGERS_OF_GRIPPER.isdisjoint(words(names[d]))
        for d in with_side
    )
    # A Robotiq gripper alone may have eight joints
    num_joints = sum(kind != "gripper" for kind in kinds)
    if are_fingers and num_joints < TWO_ARMS_FROM:
        return [""] * len(names)
    return arms


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
    if of_hand:
        return "hand"
    return None


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
    parts = list(chain.from_iterable(map(words, names)))
    says_closed = sorted(SAY_CLOSED.intersection(parts))
    says_open = sorted(SAY_OPEN.intersection(parts))
    if says_closed and not says_open:
        return "high_is_closed", says_closed[0]
    if says_open and not says_closed:
        return "high_is_open", says_open[0]
    return None


def names_by_parts(parts: Mapping[str, Mapping[str, Any]], width: int) -> list[str]:
    """A name for each of `width` dimensions by the slices of GR00T's modality.json; "" outside all slices.

    Example: names_by_parts({"left_hand": {"start": 1, "end": 3}}, 3) == ["", "left_hand.0", "left_hand.1"].
    """
    names = [""] * width
    for part, limits in parts.items():
        start = limits.get("start")
        end = limits.get("end")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= width:
            continue
        names[start:end] = [f"{part}.{k}" for k in range(end - start)]
    return names


# When a signal goes from one end of its range to the other. An arm's joints move all the time and over all of their
# range. A gripper stays at one end of its range, then goes to the other in less than a second


@dataclass(frozen=True)
class Range:
    """The ends of a dimension over a dataset, without the rarest values."""

    low: float
    high: float

    @property
    def span(self) -> float:
        return self.high - self.low

    def relative(self, values: np.ndarray) -> np.ndarray:
        return (values - self.low) / (self.span or 1.0)


def range_of(values: np.ndarray) -> Range:
    """Of values [n] of all episodes: half a per cent at either end does not count, such as single glitches."""
    low, high = np.percentile(values, [0.5, 99.5], method="nearest")
    return Range(float(low), float(high))


def switching_dimensions(
    runs: Sequence[np.ndarray], rates: Sequence[float], names: Sequence[str]
) -> dict[str, int]:
    """The dimension that is the gripper, by arm, among the rows of some episodes, each [n, d];
    `rates` in fps.

    Of several candidates of an arm the one that is most at its ends counts.
    """
    width = min(run.shape[1] for run in runs)
    arms = _arms(names, width)
    last_of_arm = {arms[d]: d for d in range(width)}

    best: dict[str, tuple[float, int]] = {}
    for dimension in range(width):
        at_ends = _share_at_ends([run[:, dimension] for run in runs], rates)
        stands_last = last_of_arm[arms[dimension]] == dimension
        if at_ends >= (MIN_AT_ENDS if stands_last else TWO_LEVELS):
            arm = arms[dimension]
            best[arm] = max(best.get(arm, (0.0, 0)), (at_ends, dimension))
    return {arm: dimension for arm, (_, dimension) in best.items()}


def _arms(names: Sequence[str], width: int) -> list[str]:
    """The arm of each dimension, by its name, else by the usual order of two arms; "" for the only one."""
    named_arms = [arm_of(name) for name in names[:width]]
    if any(named_arms):
        return [*named_arms, *[""] * (width - len(named_arms))]
    num_arms = ARMS_BY_WIDTH.get(width, 1)
    return list(chain.from_iterable([arm] * (width // num_arms) for arm in arm_names(num_arms)))


def arm_names(num_arms: int) -> list[str]:
    """Of arms that nothing names: "" for the only one, left and right, or arm1 and so on."""
    if num_arms == 2:
        return ["left", "right"]
    return [f"arm{k + 1}" for k in range(num_arms)] if num_arms > 1 else [""]


def _share_at_ends(runs: Sequence[np.ndarray], rates: Sequence[float]) -> float:
    """Share of frames at either end of the range for a dimension that switches; 0 for another one."""
    ends = range_of(np.concatenate(runs))
    if ends.span <= 0:
        return 0.0
    relative = [ends.relative(run) for run in runs]

    # An arm's joint moves where a gripper stays
    pooled = np.concatenate(relative)
    at_low = (pooled < END_SHARE).mean()
    at_high = (pooled > 1 - END_SHARE).mean()
    still = np.mean([_share_still(run, fps) for run, fps in zip(relative, rates, strict=True)])
    rests = (
        at_low + at_high >= MIN_AT_ENDS
        and max(at_low, at_high) >= MIN_AT_ONE_END
        and still >= MIN_STILL
    )
    if rests and _switches(relative, rates):
        return float(at_low + at_high)
    return 0.0


def _switches(relative: Sequence[np.ndarray], rates: Sequence[float]) -> bool:
    """Does it go from end to end, quickly, in a fair share of the episodes?"""
    durations_s = []
    for run, fps in zip(relative, rates, strict=True):
        durations_s.append([(s.end - s.start) / fps for s in transitions(run, fps)])
    if np.mean([bool(of_run) for of_run in durations_s]) < MIN_RUNS_THAT_SWITCH:
        return False
    return bool(np.median(np.concatenate(durations_s)) <= LONGEST_SWITCH_S)


def moves_of(values: np.ndarray, fps: float) -> np.ndarray:
    """How far each dimension of rows [n, d] goes within TOGETHER_S, [m, d]."""
    window = min(max(1, round(TOGETHER_S * fps)), len(values))
    return np.abs(values[window:] - values[:-window])


def _share_still(run: np.ndarray, fps: float) -> float:
    window = max(1, round(STILL_S * fps))
    if len(run) <= window:
        return 1.0
    return float((np.abs(run[window:] - run[:-window]) < STILL_CHANGE).mean())


# From one end to the other


@dataclass(frozen=True)
class Transition:
    """From the last frame at one end to the first at the other."""

    start: int
    end: int
    rises: bool


def transitions(relative: np.ndarray, fps: float) -> list[Transition]:
    """Where a signal [n], 0..1 of its range over the dataset, changes its end, in time; without twitches.

    A person opens a gripper now more, now less: the ends are those of the run, where it uses enough
    of the range.

    Example: at 10 fps, five frames at 0, one at 0.5 and five at 1 give one transition from frame 4
    to frame 6.
    """
    low = float(relative.min())
    high = float(relative.max())
    if high - low < MIN_RUN_RANGE:
        return []
    # The end that each frame is at: 0 or 1, -1 between them
    of_run = (relative - low) / (high - low)
    end_of = np.select([of_run < LOW_END, of_run > HIGH_END], [0, 1], -1)
    at_end = np.flatnonzero(end_of >= 0)
    crossings = [
        Transition(int(at_end[k]), int(at_end[k + 1]), rises=bool(end_of[at_end[k + 1]] == 1))
        for k in np.flatnonzero(np.diff(end_of[at_end]))
    ]
    # Two transitions there and back, soon after one another, are none
    steady = list[Transition]()
    shortest = max(1, round(MIN_STAY_S * fps))
    for crossing in crossings:
        if steady and crossing.start - steady[-1].end < shortest:
            steady.pop()
        else:
            steady.append(crossing)
    return steady
