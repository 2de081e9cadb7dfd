"""The gripper or hand of one arm: where its values are in the rows, what they mean, and which end is open."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from ingest.episode import EpisodeData, Finding
from ingest.reasons import DataError
from ingest.signals.naming import (
    HIGH_END,
    LOW_END,
    Column,
    Kind,
    Polarity,
    Range,
    Transition,
    named_grippers,
    polarity_by_name,
    transitions,
    words,
)

SURE = 0.8  # a polarity that is less sure than this counts as unknown
# Log-odds of each kind of evidence: 3 is 95 %, 2 is 88 %, 1.5 is 82 %
BY_NAME = 3.0
BY_METRES = 3.0
BY_LEROBOT = 2.0
BY_COMMAND = 2.0
BY_ONE_EXCURSION = 2.5
BY_OBJECT = 2.0
BY_LAST_LEVEL = 1.5

WIDEST_M = 0.2  # a gripper's opening in metres is no larger
UNNAMED = re.compile(r"\[[0-9]+\]$")  # a number that stands for a name
LEROBOT_NAME = re.compile(r"gripper\.pos$")  # LeRobot's motors count 0 (closed) to 100 (open)
INSPIRE = "inspire"  # hands whose angles count from 0 (closed) to 1000 or 1 (open), by their maker's manual
# Whose raw counts grow as the gripper opens, too
LEROBOT_SERVOS = ("so100", "so101", "so-100", "so-101")
MIN_SHARE = 0.6  # of the episodes that have to agree
# Evidence of so many episodes counts in full, that of a single one for about this share
MANY_RUNS = 5
FEW_RUNS = 0.7
MIN_PUSH = 0.04  # of the range, by which a command lies beyond what the gripper reaches
MIN_OBJECT = 0.05  # of the range, by which an object keeps a gripper open
# A command of pulses: its unit, the share of frames at which it rests in the middle, and how long pulses are on average
PULSES = "pulses"
MIN_AT_REST = 0.6
LONGEST_PULSE_S = 1.5
MIN_CARRIED = 0.1  # of the arm's way: an excursion without it carries nothing
# Of the arm's way, and a time: before that a gripper only takes its first pose
STARTED = 0.03
STARTED_S = 0.5


@dataclass(frozen=True)
class SignalValues:
    """Where the values of a gripper or a hand are: the sum of `weights` times those of `dimensions`."""

    arm: str  # "left", "right", ...; empty for the only one
    kind: Kind
    column: Column
    dimensions: tuple[int, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class GripperSignal(SignalValues):
    """One row of the table `signals`: a gripper, or a hand whose joints are joined to one closing signal.

    The value is in the source's unit. `closed` and `open` are its values at the ends of its range
    over the dataset. Where the polarity is unknown, `closed` is the low end: an opening then says
    when the gripper moves, not which way.
    """

    unit: str  # "m", "rad", "0..1", ...; a guess by names and sizes
    closed: float
    open: float
    polarity: Polarity
    polarity_by: str  # what the polarity rests on, for people
    confidence: float  # of the polarity, 0..1
    located_by: str  # "registry", "name", "modality.json" or "values"
    is_used: bool  # does it move at all
    closings_per_episode: float | None
    num_surveyed: int  # episodes looked at
    survey_version: str  # changes when a new survey may come to another result
    # Changes with the robot, and with names and widths of state and action
    layout: str | None = None

    @property
    def has_polarity(self) -> bool:
        return self.polarity != "unknown"

    @property
    def title(self) -> str:
        """Such as "left hand", or "gripper" for the only one."""
        return f"{self.arm} {self.kind}".strip()


def main_signal(signals: Sequence[GripperSignal]) -> int | None:
    """Of several arms the one whose gripper closes most often; None where none is used."""
    used = [k for k, signal in enumerate(signals) if signal.is_used]
    return max(used, key=lambda k: (signals[k].closings_per_episode or 0.0, -k), default=None)


def values_of(episode: EpisodeData, column: Column) -> np.ndarray | None:
    """The rows of state or action, float64 [n, d]; None where the source has none."""
    if column == "state":
        return episode.state
    return episode.action


def combined(signal: SignalValues, values: np.ndarray) -> np.ndarray:
    """The signal in the source's unit, float64 [n], of rows [n, d] that have all its dimensions."""
    return values[:, list(signal.dimensions)] @ np.asarray(signal.weights, np.float64)


def opening(signal: GripperSignal, episode: EpisodeData) -> np.ndarray | None:
    """0 (closed) to 1 (open), float64 [n]; None where the episode has not the dimensions.

    None, too, where one of them has no value. Raises DataError for values that are not finite.
    """
    values = values_of(episode, signal.column)
    signal = replace(signal, dimensions=_dimensions_in(signal, episode))
    if values is None or not len(values) or max(signal.dimensions) >= values.shape[1]:
        return None
    if np.isnan(values[:, list(signal.dimensions)]).all(axis=0).any():
        return None
    source_value = combined(signal, values)
    check_finite("gripper", source_value)
    if signal.unit == PULSES:
        ends = Range(*sorted((signal.closed, signal.open)))
        source_value = held(source_value, ends, episode.record.fps)
    span = signal.open - signal.closed
    if span == 0:
        return np.zeros(len(source_value))
    return np.clip((source_value - signal.closed) / span, 0.0, 1.0)


def _dimensions_in(signal: GripperSignal, episode: EpisodeData) -> tuple[int, ...]:
    """Where an episode has the dimensions: by their names, which others may have moved; beyond all for one without."""
    names = episode.state_names if signal.column == "state" else episode.action_names
    if {*signal.names} <= {*names}:
        return tuple(map(names.index, signal.names))
    if not names and not any(UNNAMED.search(name) for name in signal.names):
        return (sys.maxsize,)
    return signal.dimensions


def arm_state(episode: EpisodeData, signals: Sequence[GripperSignal]) -> np.ndarray | None:
    """The state without grippers and hands, float64 [n, d]; None where nothing is left. Raises DataError."""
    if episode.state is None:
        return None
    width = episode.state.shape[1]
    in_state = (s for s in signals if s.column == "state")
    of_grippers = chain.from_iterable(_dimensions_in(signal, episode) for signal in in_state)
    arm_values = np.delete(episode.state, sorted({d for d in of_grippers if d < width}), axis=1)
    # What no row has does not move
    arm_values[:, np.isnan(arm_values).all(axis=0)] = 0.0
    check_finite("state", arm_values)
    if arm_values.shape[1]:
        return arm_values
    return None


def moving_dimensions(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions of state [n, d] move, bool [d], and the standard deviation of each, float64 [d].

    One that hardly moves beside the others does not count, or its noise would count as motion.
    """
    spread = np.nan_to_num(np.asarray(state, np.float64).std(axis=0))
    return spread > max(1e-9, 0.02 * float(spread.max(initial=0.0))), spread


def way_steps(values: np.ndarray) -> np.ndarray | None:
    """How far rows [n, d] go from each to the next, in standard deviations [n - 1]; None where nothing moves."""
    is_moving, spread = moving_dimensions(values)
    if not is_moving.any():
        return None
    return np.linalg.norm(np.diff(values[:, is_moving] / spread[is_moving], axis=0), axis=1)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises DataError, which names the first row with a value that is not finite."""
    if not np.isfinite(values).all():
        is_finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        raise DataError(
            f"{name} is not a finite number in row {int(np.argmin(is_finite))}", "nan_state"
        )


def signal_row(signal: GripperSignal) -> dict[str, Any]:
    """The signal as columns of the table `signals` (without dataset)."""
    return asdict(signal)


def signal_from_row(row: Mapping[str, Any]) -> GripperSignal:
    """Inverse of signal_row."""
    # A lake of an earlier version knows no layout
    fields: dict[str, Any] = {name: row.get(name) for name in GripperSignal.__dataclass_fields__}
    listed: dict[str, Any] = {
        name: tuple(fields[name]) for name in ("dimensions", "names", "weights")
    }
    return GripperSignal(**fields | listed)


# Which end of a gripper's range is open: evidence for one end or the other, summed as log-odds. No evidence is sure by
# itself but the registry's word. What speaks for "high is open" counts above zero, what speaks for "high is closed"
# below. A gripper whose sum stays small has no known polarity, and nobody guesses one


@dataclass(frozen=True)
class GripperRun:
    """A gripper in one episode: arrays [n]."""

    relative: np.ndarray  # 0..1 of the range over the dataset
    way: np.ndarray | None  # how far the arm has moved by each frame, 0..1; None without a state
    # Command minus what was reached, as a share of the range; None without a command
    push: np.ndarray | None
    fps: float


@dataclass(frozen=True)
class PolarityEvidence:
    """What speaks for one end: log-odds above 0 where the high end is open; and why, for people.

    `is_prior`: it is a name or a convention, which says what was meant rather than what the runs do.
    """

    log_odds: float
    why: str
    is_prior: bool = False


@dataclass(frozen=True)
class Verdict:
    polarity: Polarity
    confidence: float
    why: str


def polarity_of(evidence: Sequence[PolarityEvidence]) -> Verdict:
    """The polarity that all evidence together shows; unknown below SURE.

    So it is where the runs would be sure by themselves of the other end than a name says: one of
    both is wrong.

    Example: evidence of +3.0 and of -2.5 sums up to 0.5, which is 62 %: unknown.
    """
    total = sum(e.log_odds for e in evidence)
    observed_log_odds = sum(e.log_odds for e in evidence if not e.is_prior)
    confidence = 1 / (1 + math.exp(-abs(total)))
    reason = "; ".join(e.why for e in evidence)
    is_denied = observed_log_odds * total < 0 and abs(observed_log_odds) >= math.log(
        SURE / (1 - SURE)
    )
    if is_denied:
        return Verdict("unknown", confidence, f"the runs show another end than the name: {reason}")
    if not evidence or confidence < SURE:
        return Verdict("unknown", confidence, reason or "nothing shows it")
    return Verdict("high_is_open" if total > 0 else "high_is_closed", confidence, reason)


def named_evidence(
    names: Sequence[str], robot: str | None, ends: Range, writer: str = ""
) -> list[PolarityEvidence]:
    """What names, the robot and the sizes of the values say of a gripper with these ends. `writer`: whose convention
    the names are, where they are not the source's own.
    """
    evidence = []
    if stated_polarity := polarity_by_name(names):
        log_odds = BY_NAME if stated_polarity[0] == "high_is_open" else -BY_NAME
        source_words = f"{writer}'s convention says" if writer else "its name says"
        evidence.append(
            PolarityEvidence(log_odds, f"{source_words} {stated_polarity[1]!r}", is_prior=True)
        )
    if is_in_metres(names, ends):
        # A finger that moves the other way than its axis goes from 0 down
        opens_upward = abs(ends.high) >= abs(ends.low)
        log_odds = BY_METRES if opens_upward else -BY_METRES
        evidence.append(
            PolarityEvidence(log_odds, f"{ends.low:.3g} to {ends.high:.3g} is a width in metres")
        )
    is_servo = any(servo in (robot or "").lower() for servo in LEROBOT_SERVOS)
    if is_servo or any(LEROBOT_NAME.search(name) for name in names):
        evidence.append(PolarityEvidence(BY_LEROBOT, "LeRobot's grippers grow as they open"))
    if INSPIRE in (robot or "").lower() or any(INSPIRE in name.lower() for name in names):
        evidence.append(PolarityEvidence(BY_LEROBOT, "Inspire's hands count up as they open"))
    return evidence


def is_in_metres(names: Sequence[str], ends: Range) -> bool:
    """Does a gripper measure its width or a finger's way in metres? By its size, which no other unit has."""
    of_one_value = set(chain.from_iterable(map(words, names)))
    is_small = max(abs(ends.low), abs(ends.high)) <= WIDEST_M and 0 < ends.span <= WIDEST_M / 2
    return is_small and "command" not in of_one_value


def gripper_runs(
    signal: SignalValues,
    episodes: Sequence[EpisodeData],
    runs: Sequence[np.ndarray],
    ends: Range,
    beside: Sequence[int] = (),
) -> list[GripperRun]:
    """What the episodes show of the gripper, the arm and the command. `beside`: dimensions of the other arms' grippers
    in the same column.
    """
    own_and_others = [*signal.dimensions, *beside] if signal.column == "state" else []
    return [
        GripperRun(
            ends.relative(run),
            _way(own_and_others, episode),
            _push(signal, episode, run, ends),
            episode.record.fps,
        )
        for episode, run in zip(episodes, runs, strict=True)
    ]


def _way(gripper_dimensions: Sequence[int], episode: EpisodeData) -> np.ndarray | None:
    """How far the arm has moved by each frame, as a share of its whole way [n]; None where it does not move.

    `gripper_dimensions`: those of the state that are no arm's.
    """
    if episode.state is None:
        return None
    steps = way_steps(np.delete(episode.state, list(gripper_dimensions), axis=1))
    way = np.r_[0.0, np.zeros(0) if steps is None else np.cumsum(steps)]
    if way[-1] > 0:
        return way / way[-1]
    return None


def _push(
    signal: SignalValues, episode: EpisodeData, run: np.ndarray, ends: Range
) -> np.ndarray | None:
    """The command minus what the gripper reached, as a share of its range [n]; None without a comparable command."""
    command = _command(signal, episode)
    if command is None or len(command) != len(run):
        return None
    # Commands in another unit say nothing about how far the gripper came
    low, high = np.percentile(command, [1, 99])
    is_comparable = (
        low > ends.low - ends.span and high < ends.high + ends.span and high - low > 0.3 * ends.span
    )
    if is_comparable:
        return (command - run) / ends.span
    return None


def _command(signal: SignalValues, episode: EpisodeData) -> np.ndarray | None:
    """The command of a gripper in the state, float64 [n]; None where its arm's is not the only one named."""
    if signal.column != "state" or signal.kind == "hand" or episode.action is None:
        return None
    own_arm = [
        g
        for g in named_grippers(episode.action_names)
        if (g.arm, g.kind) == (signal.arm, "gripper")
    ]
    if len(own_arm) != 1 or len(own_arm[0].dimensions) != len(signal.dimensions):
        return None
    return episode.action[:, list(own_arm[0].dimensions)] @ np.asarray(signal.weights)


def observed_evidence(runs: Sequence[GripperRun]) -> list[PolarityEvidence]:
    """What the episodes show of a gripper that is used."""
    moves = [counted(run) for run in runs]
    active = [(run, of_run) for run, of_run in zip(runs, moves, strict=True) if of_run]
    if not active:
        return []
    kinds = (
        (
            _by_excursion,
            BY_ONE_EXCURSION,
            "it goes there once, the arm moves, and it comes back: that end holds",
        ),
        (_by_object, BY_OBJECT, "at its second closing something keeps it from closing fully"),
        (_by_last_level, BY_LAST_LEVEL, "it moves once, and the arm goes on: that end holds"),
    )
    evidence: list[PolarityEvidence | None] = []
    for vote, log_odds, reason in kinds:
        votes = [
            holds_high
            for run, crossings in active
            if (holds_high := vote(run, crossings)) is not None
        ]
        # One that holds at the high end is closed there
        evidence.append(_majority(votes, len(active), -log_odds, reason))
    return list(filter(None, (*evidence, _by_command(runs))))


def are_pulses(runs: Sequence[np.ndarray], rates: Sequence[float], ends: Range) -> bool:
    """Do commands [n] rest between their ends, and leave for either end for a moment only, and come back?"""
    sides = [_sides(run, ends) for run in runs]
    pooled = np.concatenate(sides)
    num_pulses = sum(int(((np.diff(side, prepend=0) != 0) & (side != 0)).sum()) for side in sides)
    longest = LONGEST_PULSE_S * float(np.median(rates)) * num_pulses
    is_both = -1 in pooled and 1 in pooled
    return is_both and (pooled == 0).mean() >= MIN_AT_REST and np.count_nonzero(pooled) <= longest


def held(pulses: np.ndarray, ends: Range, fps: float) -> np.ndarray:
    """The end that a gripper is at [n] after pulses [n] to either end, each of which holds until the next.

    Before the first it is at the other end, unless that comes as the run begins.
    """
    sides = _sides(pulses, ends)
    at_pulse = np.flatnonzero(sides)
    if not len(at_pulse):
        return np.full(len(pulses), (ends.low + ends.high) / 2)
    first = sides[at_pulse[0]]
    start = first if at_pulse[0] < STARTED_S * fps else -first
    last = np.maximum.accumulate(np.where(sides, np.arange(len(sides)), -1))
    side = np.where(last < 0, start, sides[last])
    return np.where(side > 0, ends.high, ends.low)


def _sides(values: np.ndarray, ends: Range) -> np.ndarray:
    """At which end values [n] are: -1 low, 1 high, 0 neither."""
    relative = ends.relative(values)
    return np.select([relative < LOW_END, relative > HIGH_END], [-1, 1], 0)


def counted(run: GripperRun) -> list[Transition]:
    """The transitions after the arm has set out: before, a gripper only takes its first pose."""
    crossings = [c for c in transitions(run.relative, run.fps) if c.start >= STARTED_S * run.fps]
    if run.way is None:
        return crossings
    return [crossing for crossing in crossings if run.way[crossing.start] >= STARTED]


def _by_excursion(run: GripperRun, crossings: Sequence[Transition]) -> bool | None:
    """A gripper that goes to the other end, carries there once, and comes back has held something there.

    Excursions on which the arm hardly moves are failed attempts: they do not count.
    """
    if len(crossings) % 2:
        return None
    carried = [
        1.0 if run.way is None else run.way[second_crossing.start] - run.way[first_crossing.end]
        for first_crossing, second_crossing in zip(crossings[::2], crossings[1::2], strict=True)
    ]
    if sum(way >= MIN_CARRIED for way in carried) == 1:
        return crossings[0].rises
    return None


def _by_object(run: GripperRun, crossings: Sequence[Transition]) -> bool | None:
    """A gripper that begins closed, opens, closes, opens and closes again stays wider at its middle closing.

    The middle level lies off the first one, toward the other end: an object keeps it there.
    """
    if len(crossings) < 3:
        return None
    first, second, third = crossings[:3]
    begins = float(np.median(run.relative[: first.start + 1]))
    middle = float(np.median(run.relative[second.end : third.start + 1]))
    off = middle - begins if first.rises else begins - middle
    if off >= MIN_OBJECT:
        return not first.rises
    return None


def _by_last_level(run: GripperRun, crossings: Sequence[Transition]) -> bool | None:
    """A run that moves its gripper once, and then the arm, ends with a thing in it."""
    carries = run.way is not None and 1 - run.way[crossings[-1].end] >= MIN_CARRIED
    if len(crossings) == 1 and carries:
        return crossings[0].rises
    return None


def _by_command(runs: Sequence[GripperRun]) -> PolarityEvidence | None:
    """An object stops a gripper short of what it is commanded: it is closed where the command lies beyond it."""
    low_push = []
    high_push = []
    for run in runs:
        if run.push is None:
            continue
        still = np.abs(np.gradient(run.relative)) < 0.01
        low_push += list(-run.push[still & (run.relative < 0.6)])
        high_push += list(run.push[still & (run.relative > 0.4)])
    if not low_push or not high_push:
        return None
    # The strongest tenth: an object is held in a part of the run
    low, high = (float(np.percentile(push, 90)) for push in (low_push, high_push))
    if max(low, high) < MIN_PUSH or abs(low - high) < MIN_PUSH:
        return None
    return PolarityEvidence(
        BY_COMMAND if low > high else -BY_COMMAND,
        "commands go beyond what it reaches at its closed end",
    )


def _majority(
    rises: Sequence[bool], num_active: int, log_odds: float, reason: str
) -> PolarityEvidence | None:
    """Evidence where most of the episodes that move the gripper agree; `log_odds` is for many votes of True."""
    agree = max(rises.count(True), rises.count(False))
    if not rises or agree < MIN_SHARE * num_active:
        return None
    strength = log_odds * min(1.0, FEW_RUNS + (1 - FEW_RUNS) * agree / MANY_RUNS)
    sign = 1.0 if rises.count(True) > rises.count(False) else -1.0
    return PolarityEvidence(sign * strength, f"{reason} ({agree} of {num_active} episodes)")


def closings_per_episode(polarity: Polarity, observed: Sequence[GripperRun]) -> float:
    """Closings, or where the polarity is unknown half of all transitions."""
    counts = []
    for run in observed:
        crossings = counted(run)
        closings = sum(crossing.rises == (polarity == "high_is_closed") for crossing in crossings)
        counts.append(len(crossings) / 2 if polarity == "unknown" else closings)
    return float(np.mean(counts))


def findings_of(signals: Sequence[GripperSignal]) -> list[Finding]:
    """What a user should know of a dataset's grippers before its labels are trusted."""
    findings = []
    for signal in signals:
        description = f"{signal.title} ({signal.column}: {', '.join(signal.names)})"
        if not signal.is_used:
            detail = f"{description} does not go from end to end in {signal.num_surveyed} episodes"
            findings.append(Finding("gripper_unused", detail, "warning"))
        elif not signal.has_polarity:
            detail = (
                f"{description}, {signal.closed:.4g} to {signal.open:.4g}: {signal.polarity_by}"
            )
            findings.append(Finding("polarity_unknown", detail, "warning"))
    return findings


def unit_of(names: Sequence[str], ends: Range) -> str:
    """A guess, for people: by names and by the size of the values."""
    largest = max(abs(ends.low), abs(ends.high))
    if is_in_metres(names, ends):
        return "m"
    if largest <= 1.05:
        if ends.low >= -0.05:
            return "0..1"
        return "-1..1"
    if largest <= np.pi + 0.05:
        return "rad"
    if largest <= 110:
        return "0..100"
    return "counts"
