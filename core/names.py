"""Names: of who runs this, those that people type, with which known one was meant, of steps, and former ones."""

import getpass
import re
from collections.abc import Collection
from difflib import get_close_matches

DEMO_RELEASE, DEMO_RECIPE = "demo", "laptop"  # of the demo, and where nobody names another
LATEST = "latest"  # in the place of a release's or a model's name: the newest
# What motion and a person's editor put where nobody has given a name; earlier versions numbered parts of a movement
PLACEHOLDER = r"New step|(?:Unnamed step|Move, part) \d+(?:, part \d+)*"

# Codes of reasons of earlier versions, whose rows and words lakes still have, and the code that says it now
FORMER_REASONS = {
    "hand_without_polarity": "polarity_unknown",
    "marked_invalid": "known_bad",
    "clock_gap": "unsorted_stamps",
    "damaged_frames": "undecodable_video",
    "black_video": "camera_black",
    "frozen_video": "camera_frozen",
    "pictures_lost": "undecodable_video",
    "uninformative_task": "no_task",
    "too_costly": "over_limit",
    "split_recording": "cut_off",
    "other_sign": "other_scale",
    "signal_lag": "rows_late",
    "video_times": "timestamp_drift",
    "frame_count": "length_differs",
    "bad_name": "path_escape",
    "index_gap": "no_data",
    "no_steps": "bad_steps",
}


def near_names(name: str, names: Collection[str]) -> list[str]:
    """What may have been meant: names that hold it, the shortest first, else names spelt alike; three at most.

    Example: near_names("droid_10", ["droid_100", "bridge"]) == ["droid_100"].
    """
    lowered = name.lower()
    holding = sorted(
        (k for k in names if lowered and lowered in k.lower()), key=lambda k: (len(k), k)
    )
    return holding[:3] or get_close_matches(lowered, names, n=3, cutoff=0.6)


def did_you_mean(name: str, names: Collection[str]) -> str:
    """`; did you mean A, B or C?` to stand behind an error, or nothing where no name is like it."""
    near = near_names(name, names)
    if not near:
        return ""
    *first_names, last = near
    return (
        f"; did you mean {' or '.join([', '.join(first_names), last] if first_names else [last])}?"
    )


def whoami() -> str:
    """The name of who runs this; `somebody` where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def unnamed_step(step: int) -> str:
    """What stands for the name of planned step `step`, from 0.

    Example: unnamed_step(1) is "Unnamed step 2".
    """
    return f"Unnamed step {step + 1}"


def is_name(name: str) -> bool:
    """Does it say what the step is, or does it only stand where a name would?"""
    return re.fullmatch(PLACEHOLDER, name) is None
