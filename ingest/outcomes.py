"""Did a run succeed? Decided by what its source says and shows; where it does neither, nothing is made up.

Of one run counts, first to last: what is stated of it; a flag per frame; the folder it lies in; its reward; how it
ended. Flags, rewards and ends are judged over the whole dataset: what no run of it ever sets says nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# Names that success goes by, tried after the registry's `success_field`
SUCCESS_FIELDS = ("success", "is_success", "episode_success", "is_episode_successful", "next.success")
TRUTHS: dict[str, bool] = dict.fromkeys(("true", "1", "1.0", "yes", "success", "succeeded"), True)
TRUTHS |= dict.fromkeys(("false", "0", "0.0", "no", "failure", "failed", "fail"), False)
SUCCESS_FOLDERS = frozenset({"success", "successes"})
FAILURE_FOLDERS = frozenset({"failure", "failures", "failed", "fail"})
FOLDER_NAME = "folder name"
BY_PERSON = "person: "  # before the file's name: what a person said

# What the rewards of one run show
REACHED, UNSET, UNCLEAR, DENSE = "reached", "unset", "unclear", "dense"


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
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def stated(facts: Mapping[str, Any], fields: Iterable[str], kind: str = "metadata") -> Outcome | None:
    """By the first of some fields that holds a truth."""
    for name in fields:
        success = truth(facts.get(name))
        if success is not None:
            return Outcome(success, f"{kind} {name}")
    return None


def folder_outcome(*paths: str) -> Outcome | None:
    """By the folders of some paths, as DROID's runs lie in .../success/... or .../failure/...; the last part is a file.

    Example: folder_outcome("lab/failure/run_3.h5") == Outcome(False, "folder name").
    """
    folders = {part for path in paths for part in path.lower().split("/")[:-1]}
    says_success, says_failure = not folders.isdisjoint(SUCCESS_FOLDERS), not folders.isdisjoint(FAILURE_FOLDERS)
    return Outcome(says_success, FOLDER_NAME) if says_success != says_failure else None


@dataclass
class RowValues:
    """What counts of a run's values in one column, gathered part by part; NaN is no value."""

    num: int = 0
    num_ones: int = 0
    num_others: int = 0  # neither 0 nor 1
    first_one: int | None = None  # its place among the values
    last: float | None = None

    def add(self, part: np.ndarray) -> None:
        """Add the next values, float [n]."""
        values = part[~np.isnan(part)]
        is_one = values == 1
        if self.first_one is None and is_one.any():
            self.first_one = self.num + int(is_one.argmax())
        if len(values):
            self.last = float(values[-1])
        self.num += len(values)
        self.num_ones += int(is_one.sum())
        self.num_others += int((~is_one & (values != 0)).sum())

    def flag(self, name: str) -> Flag | None:
        """None for a score, which is no flag."""
        if not self.num or self.num_others:
            return None
        return Flag(name, self.last == 1, self.num_ones > 0)

    def reward(self, name: str) -> RewardEvidence | None:
        """Zeros, then ones until the end, is a goal that was reached; other ones are unclear, other values dense."""
        if not self.num:
            return None
        if self.num_others:
            return RewardEvidence(name, DENSE)
        if self.first_one is None:
            return RewardEvidence(name, UNSET)
        stays = self.num_ones == self.num - self.first_one
        return RewardEvidence(name, REACHED if self.first_one > 0 and stays else UNCLEAR)


def row_values(values: Any) -> RowValues:
    """Of values [n] that are all there at once."""
    gathered = RowValues()
    gathered.add(np.asarray(values, np.float64).ravel())
    return gathered


# What they say of a dataset's runs


@dataclass(frozen=True)
class _Meaning:
    """Which flags, rewards and ends of a dataset mean something, by what all its runs show."""

    flags_at_end: frozenset[str]  # set in the last row of some run
    flags_ever: frozenset[str]
    sparse: frozenset[str]  # rewards that some run reaches, and that are nowhere dense
    shows_both_ends: bool
    ends_alone: bool  # both ends, and no reward

    def outcome(self, e: OutcomeEvidence) -> Outcome | None:
        return e.stated or self._by_flags(e.flags) or e.folder or self._by_reward(e) or self._by_ending(e)

    def _by_flags(self, flags: Sequence[Flag]) -> Outcome | None:
        """By the first flag that any run of the dataset sets."""
        for flag in flags:
            if flag.name in self.flags_ever:
                success = flag.at_end if flag.name in self.flags_at_end else flag.ever
                return Outcome(success, f"column {flag.name}")
        return None

    def _by_reward(self, e: OutcomeEvidence) -> Outcome | None:
        if e.reward is None or e.reward.name not in self.sparse:
            return None
        if e.reward.shows == REACHED:
            return Outcome(True, f"final {e.reward.name}")
        was_cut_off = self.shows_both_ends and e.ending is not None and not e.ending.is_terminal
        if e.reward.shows == UNSET and not was_cut_off:
            return Outcome(False, f"final {e.reward.name}")
        return None

    def _by_ending(self, e: OutcomeEvidence) -> Outcome | None:
        if self.ends_alone and e.ending is not None and e.ending.is_terminal:
            return Outcome(True, f"final {e.ending.name}")
        return None


def decide(evidence: Mapping[int, OutcomeEvidence]) -> tuple[dict[int, Outcome | None], tuple[str, ...]]:
    """The outcome of each run of a dataset (None: not known), and names of flags and rewards that were never set.

    - A flag counts as it is in the last row: how the run ended. Where no run ends with it, it marks the moment of
      success, and counts where it is set at all. One that no run sets was never filled in, and says nothing.
    - Nor does a reward that is 0 everywhere.
    - A reward that anywhere is neither 0 nor 1 is dense, and says nothing of success.
    - A run without reward failed, unless it was cut off while others of the dataset end by themselves.
    - An end alone is a success where the dataset has no reward at all and shows both ends.
    """
    everything = evidence.values()
    flags = {flag for e in everything for flag in e.flags}
    rewards = {e.reward for e in everything if e.reward}
    meaning = _meaning(flags, rewards, {e.ending for e in everything if e.ending})
    never_set = {flag.name for flag in flags} - meaning.flags_ever | _unset(rewards)
    return {episode: meaning.outcome(e) for episode, e in evidence.items()}, tuple(sorted(never_set))


def _meaning(flags: Collection[Flag], rewards: Collection[RewardEvidence], endings: Collection[Ending]) -> _Meaning:
    shows_both_ends = len({ending.is_terminal for ending in endings}) == 2
    return _Meaning(
        flags_at_end=frozenset(flag.name for flag in flags if flag.at_end),
        flags_ever=frozenset(flag.name for flag in flags if flag.ever),
        sparse=_names(rewards, REACHED) - _names(rewards, DENSE),
        shows_both_ends=shows_both_ends,
        # A reward that is there, yet is dense or unclear, is of runs that may also end in failure
        ends_alone=shows_both_ends and _names(rewards) == _unset(rewards),
    )


def _unset(rewards: Collection[RewardEvidence]) -> frozenset[str]:
    """Rewards that are 0 everywhere."""
    return _names(rewards, UNSET) - _names(rewards, REACHED, UNCLEAR, DENSE)


def _names(rewards: Collection[RewardEvidence], *shows: str) -> frozenset[str]:
    """Names of all, or of those that show something in some run."""
    return frozenset(reward.name for reward in rewards if not shows or reward.shows in shows)
