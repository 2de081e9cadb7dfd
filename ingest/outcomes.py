"""Did a run succeed? Decided by what its source says and shows; where it does neither, nothing is made up.

Of one run counts, first to last: what is stated of it; a flag per frame; the folder it lies in; its
reward; how it ended. Flags, rewards and ends are judged over the whole dataset: what no run of it
ever sets says nothing.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

# Names that success goes by, tried after the registry's `success_field`
SUCCESS_FIELDS = (
    "success",
    "is_success",
    "episode_success",
    "is_episode_successful",
    "next.success",
)
TRUTHS: dict[str, bool] = dict.fromkeys(("true", "1", "1.0", "yes", "success", "succeeded"), True)
TRUTHS |= dict.fromkeys(("false", "0", "0.0", "no", "failure", "failed", "fail"), False)
# Folders of runs that ended one way: success, success_episodes, failed-demos
RUNS = r"([_-](episodes?|demos?|runs?|rollouts?|trials?|trajectories|trajs?|data|cases?))?"
SUCCESS_FOLDER = re.compile(rf"(success|successes){RUNS}")
FAILURE_FOLDER = re.compile(rf"(failure|failures|failed|fail){RUNS}")
BY_PERSON = "person: "  # before the file's name: what a person said

# What the rewards of one run show
REACHED = "reached"
UNSET = "unset"
UNCLEAR = "unclear"
DENSE = "dense"


@dataclass(frozen=True)
class Outcome:
    """Did a run succeed, and what says so: `column next.success`, `final next.reward`, `folder name` ..."""

    success: bool
    source: str


class Flag(NamedTuple):
    """A truth that each row of a run states: is it set in the last row, and was it set in any?"""

    name: str
    at_end: bool
    ever: bool


class RewardEvidence(NamedTuple):
    name: str
    shows: str  # REACHED, UNSET, UNCLEAR or DENSE


class Ending(NamedTuple):
    """How a run stopped: by itself, or cut off (truncated)."""

    name: str
    is_terminal: bool


@dataclass(frozen=True)
class OutcomeEvidence:
    """All that a source says of the outcome of one run; `flags` in order of precedence."""

    stated: Outcome | None = None
    flags: tuple[Flag, ...] = ()
    folder: Outcome | None = None
    reward: RewardEvidence | None = None
    ending: Ending | None = None


NO_EVIDENCE = OutcomeEvidence()


def fields_of(success_field: str) -> tuple[str, ...]:
    """Names to look for success under, the registry's first."""
    return tuple(dict.fromkeys((success_field, *SUCCESS_FIELDS)))


# What values say


def truth(value: Any) -> bool | None:
    """True or false as sources write it: booleans, 0 and 1, a list of one of them, words; None for anything else."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return TRUTHS.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    return None


def stated(
    facts: Mapping[str, Any], fields: Iterable[str], kind: str = "metadata"
) -> Outcome | None:
    """By the first of some fields that holds a truth."""
    for name in fields:
        success = truth(facts[name]) if name in facts else None
        if success is not None:
            return Outcome(success, f"{kind} {name}")
    return None


def folder_outcome(*paths: str) -> Outcome | None:
    """By the folders of some paths, as DROID's runs lie in .../success/... or .../failure/...; the last part is a file.

    Example: folder_outcome("lab/failure/run_3.h5") == Outcome(False, "folder name").
    """
    folders = set(chain.from_iterable(path.lower().split("/")[:-1] for path in paths))
    says_success = any(map(SUCCESS_FOLDER.fullmatch, folders))
    says_failure = any(map(FAILURE_FOLDER.fullmatch, folders))
    if says_success != says_failure:
        return Outcome(says_success, "folder name")
    return None


def known(values: Any) -> np.ndarray:
    """Of a run's values in one column those that are no NaN, float64 [n]."""
    numbers = np.asarray(values, np.float64).ravel()
    return numbers[~np.isnan(numbers)]


def flag_of(name: str, values: np.ndarray) -> Flag | None:
    """By known values [n]; None for a score, which is no flag."""
    if not len(values) or not ((values == 0) | (values == 1)).all():
        return None
    return Flag(name, bool(values[-1] == 1), bool(values.any()))


def ends_early(marks: np.ndarray) -> bool:
    """Of marks [n] of a run's last row: are there rows without one behind a row that has it?"""
    return bool((np.diff(marks.astype(np.float64)) < 0).any())


def reward_of(name: str, values: np.ndarray) -> RewardEvidence | None:
    """Zeros, then ones until the end, is a goal that was reached; other ones are unclear, other values dense."""
    if not len(values):
        return None
    if not ((values == 0) | (values == 1)).all():
        return RewardEvidence(name, DENSE)
    if not values.any():
        return RewardEvidence(name, UNSET)
    first_one = int(values.argmax())
    return RewardEvidence(name, REACHED if first_one > 0 and values[first_one:].all() else UNCLEAR)


def deep_fields(paths: Iterable[str]) -> list[str]:
    """Paths that end in a usual name of success, and lie deeper than one expects it."""
    return [path for path in paths if "/" in path and path.rpartition("/")[2] in SUCCESS_FIELDS]


def evidence_of(
    fact: Callable[[str], tuple[Any, np.ndarray]],
    fields: Iterable[str],
    registered: Collection[str],
    rewards: Iterable[str],
) -> tuple[OutcomeEvidence, list[str]]:
    """What a run shows of its outcome, and which of some `fields` tell it: flags of rows, what is stated of it once,
    and the first of the `rewards` that is there. `registered` fields are taken at their word.

    `fact`: by name what is stated once, and the known values [n] of the rows.
    """
    outcomes: list[Outcome] = []
    flags: list[Flag] = []
    telling: list[str] = []
    for name in dict.fromkeys(fields):
        value, column = fact(name)
        flag = flag_of(name, column)
        success = truth(value)
        by_folder = folder_outcome(value) if isinstance(value, str) else None
        if flag and name in registered:
            outcomes.append(Outcome(flag.at_end, f"column {name}"))
        elif flag:
            flags.append(flag)
        elif success is not None:
            outcomes.append(Outcome(success, f"metadata {name}"))
        elif by_folder:
            outcomes.append(by_folder)
        else:
            continue
        telling.append(name)
    reward = next(filter(None, (reward_of(name, fact(name)[1]) for name in rewards)), None)
    return OutcomeEvidence(next(iter(outcomes), None), tuple(flags), reward=reward), telling


# What they say of a dataset's runs


def decide(
    evidence: Mapping[int, OutcomeEvidence],
) -> tuple[dict[int, Outcome | None], tuple[str, ...]]:
    """The outcome of each run of a dataset (None: not known), and names of flags and rewards that were never set.

    - A flag counts as it is in the last row: how the run ended. Where no run ends with it, it marks the moment of
      success, and counts where it is set at all. One that no run sets was never filled in, and says nothing.
    - Nor does a reward that is 0 everywhere.
    - A reward that anywhere is neither 0 nor 1 is dense, and says nothing of success.
    - A run without reward failed, unless it was cut off while others of the dataset end by themselves.
    - An end alone is a success where the dataset has no reward at all and shows both ends.
    """
    everything = evidence.values()
    flags = set(chain.from_iterable(e.flags for e in everything))
    rewards = {e.reward for e in everything if e.reward}

    def names(*shows: str) -> set[str]:
        """Rewards that show this in some run."""
        return {reward.name for reward in rewards if reward.shows in shows}

    set_at_end = {f.name for f in flags if f.at_end}
    set_ever = {f.name for f in flags if f.ever}
    sparse = names(REACHED) - names(DENSE)
    unset = names(UNSET) - names(REACHED, UNCLEAR, DENSE)
    shows_both_ends = len({e.ending.is_terminal for e in everything if e.ending}) == 2
    # A reward that is there, yet is dense or unclear, is of runs that may also end in failure
    ends_alone = shows_both_ends and unset == {reward.name for reward in rewards}
    outcomes = {
        episode: _outcome(e, set_ever, set_at_end, sparse, shows_both_ends, ends_alone)
        for episode, e in evidence.items()
    }
    return outcomes, tuple(sorted({f.name for f in flags} - set_ever | unset))


def _outcome(
    e: OutcomeEvidence,
    set_ever: set[str],
    set_at_end: set[str],
    sparse: set[str],
    both_ends: bool,
    ends_alone: bool,
) -> Outcome | None:
    """Of one run, by what all runs of its dataset show."""
    if e.stated:
        return e.stated
    # The first flag that any run of the dataset sets
    if flag := next((flag for flag in e.flags if flag.name in set_ever), None):
        return Outcome(flag.at_end if flag.name in set_at_end else flag.ever, f"column {flag.name}")
    return e.folder or _by_reward(e, sparse, both_ends) or _by_ending(e, ends_alone)


def _by_reward(e: OutcomeEvidence, sparse: set[str], both_ends: bool) -> Outcome | None:
    if e.reward is None or e.reward.name not in sparse:
        return None
    was_cut_off = both_ends and e.ending is not None and not e.ending.is_terminal
    if e.reward.shows == REACHED or (e.reward.shows == UNSET and not was_cut_off):
        return Outcome(e.reward.shows == REACHED, f"final {e.reward.name}")
    return None


def _by_ending(e: OutcomeEvidence, ends_alone: bool) -> Outcome | None:
    if ends_alone and e.ending and e.ending.is_terminal:
        return Outcome(True, f"final {e.ending.name}")
    return None
