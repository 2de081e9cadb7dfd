"""What is compared, on what, how often: fixed before any label was looked at. docs/policy.md says how it was found."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CODE_VERSION = "policy-3"  # 3: AWR with segments and outcomes, as `export weights` has it
FPS = 10  # frames a second of the demonstrations, and decisions a second of a policy
PICTURE_PX = 128
REWARD_EVERY = 3  # frames between two live rewards
QUALITIES = ("expert", "noisy", "stalled", "retried", "failed")
ARMS = {
    "experts": "only the expert's runs (for comparison)",
    "nothing": "all frames alike",
    "successes": "all frames of runs that succeeded",
    "clock": "RA-BC on time gone by",
    "published": "RA-BC on ProcVLM's formula, on our segments",
    "labels": "RA-BC on our labels, as exported",
    "labels_success": "the same, on runs that succeeded",
    "labels_unfailed": "the same, segments that fail left out",
    "labels_far": "RA-BC on our labels over two seconds, not one",
    "segments": "all frames alike, segments that fail or stand still left out",
    "top": "the half of the frames that gains most by our labels",
    "awr": "AWR: exponential in the gain by our labels",
    "awr_segments": "AWR, such segments left out",
    "awr_outcomes": "AWR, failed runs left out",
    "weights": "AWR, both left out: `export weights`, as LeRobot reads it",
    "laptop": "RA-BC on rewards of a `laptop` trained on our labels of these runs",
    "laptop_unseen": "RA-BC on rewards of a `laptop` trained on other runs",
    "shown": "RA-BC on live rewards by three shown runs",
    "truth": "RA-BC on the simulator's progress",
}
BASELINE = "nothing"
# Arms are trained side by side in groups: those that know how runs ended or what the simulator knows, while labels are
# made, those that need labels, and those that need the rewards of a model
GROUPS = {
    "known": ("experts", "nothing", "successes", "clock", "truth"),
    "labelled": (
        *(
            "published",
            "labels",
            "labels_success",
            "labels_unfailed",
            "labels_far",
            "segments",
            "top",
            "awr",
        ),
        *("awr_segments", "awr_outcomes", "weights"),
    ),
    "rewarded": ("laptop", "laptop_unseen", "shown"),
}
TOP = 0.5  # of the frames: by what gains most
AWR_MOST = (
    20.0  # times the weight of a mean gain; the temperature is the standard deviation of gains
)
FAR = 2  # times the chunk
SHOWN = 3  # runs of a task: the first that succeeded


@dataclass(frozen=True)
class Cloning:
    """Behaviour cloning: a perceptron that says the next action; losses are weighted means over a batch."""

    hidden: int = 128
    steps: int = 1500
    batch: int = 256
    lr: float = 1e-3


@dataclass(frozen=True)
class BestOf:
    """Choosing among several runs of one policy from one start state, by what is said of each while it goes on."""

    tasks: tuple[str, ...] = ("drawer-open", "plate-slide")
    starts: int = 20
    runs: int = 5
    noise: float = 0.15  # standard deviation added to x, y and z of actions, so that runs differ


@dataclass(frozen=True)
class Learning:
    """Reinforcement learning by the cross-entropy method. `spread`, `least_spread`: standard deviations (m) of what is
    added to where the object is seen, at first and at least; `best`: how many candidates the next are drawn by."""

    tasks: tuple[str, ...] = ("drawer-open", "plate-slide")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    iterations: int = 5
    candidates: int = 10
    best: int = 3
    spread: tuple[float, float, float] = (0.08, 0.04, 0.02)
    least_spread: float = 0.01
    starts: int = 20  # held-out, to test on


@dataclass(frozen=True)
class Protocol:
    """`demonstrations`: how many runs of each quality a task has; `horizon`: frames that a policy has."""

    tasks: tuple[str, ...] = ("drawer-open", "window-open", "plate-slide", "door-close")
    demonstrations: Mapping[str, int] = field(
        default_factory=lambda: {
            "expert": 6,
            "noisy": 6,
            "stalled": 16,
            "retried": 16,
            "failed": 16,
        }
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    starts: int = 50
    horizon: int = 45
    chunk: int = 10  # frames over which RA-BC takes the gain: a second
    cloning: Cloning = Cloning()
    best_of: BestOf = BestOf()
    learning: Learning = Learning()


SHORT = Protocol(
    tasks=("drawer-open",),
    demonstrations=dict.fromkeys(QUALITIES, 4),
    seeds=(0,),
    starts=3,
    cloning=Cloning(steps=200),
    best_of=BestOf(tasks=("drawer-open",), starts=2, runs=2),
    learning=Learning(
        tasks=("drawer-open",), seeds=(0,), iterations=2, candidates=4, best=2, starts=2
    ),
)
