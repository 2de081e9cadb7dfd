"""The grippers and hands of a dataset, from the rows of some of its episodes.

1. Where they are: as the registry says; else by the names of dimensions; else by values that switch between two levels.
   A gripper in the state counts before one in the action.
2. The joints of a hand, or several fingers, become one signal: each with the sign with which it goes along.
3. The range over all surveyed episodes; a signal that does not leave its noise is not used.
4. The polarity (`polarity`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingest.episode import Episode, EpisodeRecord, Finding, RowsError
from ingest.registry import DatasetConfig, Gripper
from ingest.signals import polarity as pol
from ingest.signals.gripper import Column, GripperSignal, Kind, combined, values_of
from ingest.signals.naming import MIN_HAND_JOINTS, named_grippers
from ingest.signals.switching import Range, range_of, switching_dimensions
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import DownloadError

VERSION = "signals-1"
MAX_EPISODES, PER_TASK = 64, 8  # surveyed at most: of the dataset, and of one task before others had their turn
MIN_SURVEYED = 20  # a survey of so many episodes stays when the dataset grows
MIN_JOINT_RANGE = 0.1  # of the largest range among the joints of a hand: one that moves less does not count
MAX_NAMED = 12  # dimensions in a message
GOES_ALONG = 0.5  # correlation with the whole hand below which a joint is left out

# An unused gripper: its range is no more than its noise, or than a hundredth of its value
MAX_NOISE = 0.08  # of the range: three quarters of all steps between frames are smaller
MIN_RELATIVE_RANGE = 0.01


@dataclass(frozen=True)
class Survey:
    signals: tuple[GripperSignal, ...]
    findings: tuple[Finding, ...]


def survey(
    source: Source, records: Sequence[EpisodeRecord], robot: str | None, before: Sequence[GripperSignal] = ()
) -> Survey:
    """The signals of a dataset, and what is wrong with them. Reads the rows of up to MAX_EPISODES episodes.

    `before`: the signals of an earlier survey. They stay while they rest on enough episodes, so that a few more do not
    change what the others' labels rest on.
    """
    records = chosen(source, records)
    version = survey_version(source.config)
    if before and _holds(before, version, len(records)):
        return Survey(tuple(before), tuple(findings_of(before)))
    episodes = list(_readable(source, records))
    if not episodes:
        return Survey((), ())
    places = _located(episodes, source.config)
    signals = [replace(_measured(place, episodes, robot), survey_version=version) for place in places]
    return Survey(tuple(signals), (*findings_of(signals), *_lacking(episodes, source.config, signals)))


def survey_version(config: DatasetConfig) -> str:
    """Changes with this code, and with what the registry says of the grippers."""
    registered = " ".join(entry.model_dump_json() for entry in config.grippers)
    return hashlib.sha256(f"{VERSION} {registered}".encode()).hexdigest()[:16]


def _holds(before: Sequence[GripperSignal], version: str, num_chosen: int) -> bool:
    """Was an earlier survey made in the same way, of enough episodes or of half of those that there are now?"""
    num_before = before[0].num_surveyed
    return before[0].survey_version == version and num_before >= min(MIN_SURVEYED, (num_chosen + 1) // 2)


def chosen(source: Source, records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The episodes that are looked at: the first of each task, in order, then others; all of a small dataset.

    Of a remote source only those that were asked for: the rows of others are not here.
    """
    is_all_here = source.selected is None or not source.config.is_remote
    with_rows = [
        record
        for record in records
        if record.data_uri is not None and (is_all_here or record.episode_index in (source.selected or ()))
    ]
    rank: dict[str, int] = {}
    order = []
    for record in with_rows:
        task = record.task or ""
        rank[task] = rank.get(task, 0) + 1
        order.append((rank[task] > PER_TASK, record.episode_index, record))
    picked = [record for _, _, record in sorted(order, key=lambda item: item[:2])[:MAX_EPISODES]]
    return sorted(picked, key=lambda record: record.episode_index)


def _readable(source: Source, records: Sequence[EpisodeRecord]) -> list[Episode]:
    """Episodes with rows of finite numbers that can be had; what is wrong with others the stage `frames` finds.

    Where no episode has all of its rows so, the action is left out.
    """
    episodes = []
    for record in records:
        try:
            episodes.append(read_episode(source, record))
        except (RowsError, DownloadError):
            continue
    finite = [episode for episode in episodes if _is_finite(episode.state, episode.action)]
    return finite or [replace(episode, action=None) for episode in episodes if _is_finite(episode.state)]


def _is_finite(*columns: np.ndarray | None) -> bool:
    """Is there a column, and has each one rows of finite numbers?"""
    rows = [values for values in columns if values is not None]
    return bool(rows) and all(len(values) and np.isfinite(values).all() for values in rows)


@dataclass(frozen=True)
class _Place:
    """Where a gripper is, before its values are looked at."""

    arm: str
    kind: Kind
    column: Column
    dimensions: tuple[int, ...]
    located_by: str
    entry: Gripper | None = None


def _located(episodes: Sequence[Episode], config: DatasetConfig) -> list[_Place]:
    """Where the grippers are: in the state, else in the action; by the registry, by names, or by values."""
    if config.grippers:
        return [place for entry in config.grippers if (place := _registered(entry, episodes))]
    columns: tuple[Column, ...] = ("state", "action")
    for locate in (_by_name, _by_values):
        for column in columns:
            if places := locate(episodes, column):
                return places
    return []


def _names(episodes: Sequence[Episode], column: Column) -> tuple[str, ...]:
    return episodes[0].state_names if column == "state" else episodes[0].action_names


def _width(episodes: Sequence[Episode], column: Column) -> int:
    """Dimensions that all episodes have; 0 where one has no such rows."""
    values = [values_of(episode, column) for episode in episodes]
    return min(0 if rows is None else rows.shape[1] for rows in values)


def _registered(entry: Gripper, episodes: Sequence[Episode]) -> _Place | None:
    if entry.column == "none":
        return None
    names, width = _names(episodes, entry.column), _width(episodes, entry.column)
    dimensions = []
    for stated in entry.dimensions():
        if isinstance(stated, str):
            dimensions += [d for d, name in enumerate(names[:width]) if name == stated]
        elif -width <= stated < width:
            dimensions.append(stated % width)
    if not dimensions:
        return None
    kind: Kind = "hand" if len(dimensions) >= MIN_HAND_JOINTS else "gripper"
    return _Place(entry.arm, kind, entry.column, tuple(dimensions), "registry", entry)


def _by_name(episodes: Sequence[Episode], column: Column) -> list[_Place]:
    names = _names(episodes, column)[: _width(episodes, column)]
    located_by = "modality.json" if episodes[0].names_by == "modality.json" else "name"
    return [_Place(g.arm, g.kind, column, g.dimensions, located_by) for g in named_grippers(names)]


def _by_values(episodes: Sequence[Episode], column: Column) -> list[_Place]:
    rows = [values for episode in episodes if (values := values_of(episode, column)) is not None]
    if not rows or not _width(episodes, column):
        return []
    rates = [episode.record.fps for episode in episodes]
    dimensions = switching_dimensions(rows, rates, _names(episodes, column))
    return [_Place(arm, "gripper", column, (d,), "values") for arm, d in sorted(dimensions.items())]


def _measured(place: _Place, episodes: Sequence[Episode], robot: str | None) -> GripperSignal:
    """The signal of a place: its weights, range, use and polarity."""
    rows = [values for episode in episodes if (values := values_of(episode, place.column)) is not None]
    names = _names(episodes, place.column)
    weights = _weights(np.concatenate([values[:, list(place.dimensions)] for values in rows]))
    signal = GripperSignal(
        arm=place.arm,
        kind=place.kind,
        column=place.column,
        dimensions=place.dimensions,
        names=tuple(_name(names, place.column, d) for d in place.dimensions),
        weights=weights,
        unit="",
        closed=0.0,
        open=0.0,
        polarity="unknown",
        polarity_by="",
        confidence=0.0,
        located_by=place.located_by,
        is_used=False,
        closings_per_episode=None,
        num_surveyed=len(episodes),
        survey_version="",
    )
    runs = [combined(signal, values) for values in rows]
    ends = range_of(np.concatenate(runs))
    observed = gripper_runs(signal, episodes, runs, ends)
    signal = replace(signal, unit=_unit(signal, ends), is_used=_is_used(runs, ends, observed))
    return _with_polarity(signal, place.entry, episodes, observed, ends, robot)


def _name(names: Sequence[str], column: Column, dimension: int) -> str:
    """Of a dimension; its number stands in for a name, or tells it from others of that name."""
    name = names[dimension] if dimension < len(names) else ""
    return name if name and names.count(name) == 1 else f"{name or column}[{dimension}]"


def _weights(values: np.ndarray) -> tuple[float, ...]:
    """The weight of each finger or joint [n, k] in the sum that shows how far all are closed.

    They keep their unit: of m that go together each weighs 1 / m, with a sign. One that hardly moves, or moves by
    itself, weighs nothing.
    """
    width = values.shape[1]
    spans = [range_of(values[:, k]).span for k in range(width)]
    moving = [k for k, span in enumerate(spans) if span > MIN_JOINT_RANGE * max(spans)]
    if not moving:
        return (1 / width,) * width

    # The first principal component is the closing of the whole hand
    centred = values[:, moving] - values[:, moving].mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    along = [_correlation(joint, centred @ axes[:, -1]) for joint in centred.T]
    together = [j for j, r in enumerate(along) if abs(r) >= GOES_ALONG]

    # Most joints count as they are, the others against them
    signs = np.sign([along[j] for j in together])
    if signs.sum() < 0 or (signs.sum() == 0 and signs[0] < 0):
        signs = -signs
    weights = [0.0] * width
    for j, sign in zip(together, signs, strict=True):
        weights[moving[j]] = float(sign) / len(together)
    return tuple(weights)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two series [n]; 0 where one of them never changes."""
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 0 else 0.0


def _unit(signal: GripperSignal, ends: Range) -> str:
    """A guess, for people: by names and by the size of the values."""
    largest = max(abs(ends.low), abs(ends.high))
    if pol.is_in_metres(signal.names, ends):
        return "m"
    if largest <= 1.05:
        return "0..1" if ends.low >= -0.05 else "-1..1"
    if largest <= np.pi + 0.05:
        return "rad"
    return "0..100" if largest <= 110 else "counts"


def _is_used(runs: Sequence[np.ndarray], ends: Range, observed: Sequence[pol.GripperRun]) -> bool:
    """Does a gripper go from one end to the other in any episode, or does it only tremble?"""
    if ends.span <= MIN_RELATIVE_RANGE * max(abs(ends.low), abs(ends.high)):
        return False
    steps = np.concatenate([np.abs(np.diff(run)) for run in runs])
    trembles = not len(steps) or float(np.percentile(steps, 75)) > MAX_NOISE * ends.span
    return not trembles and any(pol.counted(run) for run in observed)


def _with_polarity(
    signal: GripperSignal,
    entry: Gripper | None,
    episodes: Sequence[Episode],
    observed: Sequence[pol.GripperRun],
    ends: Range,
    robot: str | None,
) -> GripperSignal:
    """With its ends, and how often it closes."""
    if entry is not None and entry.closed is not None and entry.open is not None:
        polarity = "high_is_open" if entry.open > entry.closed else "high_is_closed"
        signal = replace(
            signal,
            closed=entry.closed,
            open=entry.open,
            polarity=polarity,
            polarity_by="the registry says so",
            confidence=1.0,
        )
    else:
        evidence = pol.named_evidence(signal.names, robot, ends)
        if signal.is_used:
            evidence += pol.observed_evidence(observed)
        verdict = pol.polarity_of(evidence)
        if verdict.polarity == "unknown" and signal.column == "state":
            verdict = pol.polarity_of([*evidence, *_by_its_command(signal, episodes)])
        closed, opened = (ends.high, ends.low) if verdict.polarity == "high_is_closed" else (ends.low, ends.high)
        signal = replace(
            signal,
            closed=closed,
            open=opened,
            polarity=verdict.polarity,
            polarity_by=verdict.why,
            confidence=verdict.confidence,
        )
    return replace(signal, closings_per_episode=_closings_per_episode(signal, observed))


def _by_its_command(signal: GripperSignal, episodes: Sequence[Episode]) -> list[pol.Evidence]:
    """What the commands of a gripper show, where it follows them."""
    places = [p for p in (*_by_name(episodes, "action"), *_by_values(episodes, "action")) if p.arm == signal.arm]
    if not places or any(episode.action is None or episode.state is None for episode in episodes):
        return []
    own = replace(signal, column="action", dimensions=places[0].dimensions[:1], weights=(1.0,))
    commands = [combined(own, episode.action) for episode in episodes if episode.action is not None]
    reached = [combined(signal, episode.state) for episode in episodes if episode.state is not None]
    follows = _correlation(np.concatenate(commands), np.concatenate(reached))
    if abs(follows) < GOES_ALONG:
        return []
    observed = gripper_runs(own, episodes, commands, range_of(np.concatenate(commands)))
    shown = pol.observed_evidence(observed)
    return [pol.Evidence(float(np.sign(follows)) * e.log_odds, f"its command: {e.why}") for e in shown]


def gripper_runs(
    signal: GripperSignal, episodes: Sequence[Episode], runs: Sequence[np.ndarray], ends: Range
) -> list[pol.GripperRun]:
    """What the episodes show of the gripper, the arm and the command."""
    return [
        pol.GripperRun(ends.relative(run), _way(signal, episode), _push(signal, episode, run, ends), episode.record.fps)
        for episode, run in zip(episodes, runs, strict=True)
    ]


def _way(signal: GripperSignal, episode: Episode) -> np.ndarray | None:
    """How far the arm has moved by each frame, as a share of its whole way [n]; None where it does not move."""
    if episode.state is None:
        return None
    own = list(signal.dimensions) if signal.column == "state" else []
    joints = np.delete(episode.state, own, axis=1)
    spread = joints.std(axis=0)
    moving = spread > max(1e-9, 0.02 * float(spread.max(initial=0.0)))
    if not moving.any():
        return None
    steps = np.linalg.norm(np.diff(joints[:, moving] / spread[moving], axis=0), axis=1)
    way = np.r_[0.0, np.cumsum(steps)]
    return way / way[-1] if way[-1] > 0 else None


def _push(signal: GripperSignal, episode: Episode, run: np.ndarray, ends: Range) -> np.ndarray | None:
    """The command minus what the gripper reached, as a share of its range [n]; None without a comparable command."""
    if signal.column != "state" or signal.kind == "hand" or episode.action is None:
        return None
    own_arm = [g for g in named_grippers(episode.action_names) if g.arm == signal.arm and g.kind == "gripper"]
    if len(own_arm) != 1 or len(own_arm[0].dimensions) != len(signal.dimensions):
        return None
    command = episode.action[:, list(own_arm[0].dimensions)] @ np.asarray(signal.weights)
    # Commands in another unit say nothing about how far the gripper came
    low, high = np.percentile(command, [1, 99])
    is_comparable = low > ends.low - ends.span and high < ends.high + ends.span and high - low > 0.3 * ends.span
    return (command - run) / ends.span if is_comparable and len(command) == len(run) else None


def _closings_per_episode(signal: GripperSignal, observed: Sequence[pol.GripperRun]) -> float | None:
    """Closings, or where the polarity is unknown half of all transitions; None for a gripper that is not used."""
    if not signal.is_used:
        return None
    closes_upward = signal.polarity == "high_is_closed"
    counts = []
    for run in observed:
        crossings = pol.counted(run)
        closings = sum(crossing.rises == closes_upward for crossing in crossings)
        counts.append(closings if signal.has_polarity else len(crossings) / 2)
    return float(np.mean(counts))


def findings_of(signals: Sequence[GripperSignal]) -> list[Finding]:
    """What a user should know of a dataset's grippers before its labels are trusted."""
    findings = []
    for signal in signals:
        where = f"{signal.title} ({signal.column}: {', '.join(signal.names)})"
        if not signal.is_used:
            detail = f"{where} does not go from end to end in {signal.num_surveyed} episodes"
            findings.append(Finding("gripper_unused", detail, "warning"))
        elif not signal.has_polarity:
            reason = "hand_without_polarity" if signal.kind == "hand" else "polarity_unknown"
            detail = f"{where}, {signal.closed:.4g} to {signal.open:.4g}: {signal.polarity_by}"
            findings.append(Finding(reason, detail, "warning"))
    return findings


def _lacking(episodes: Sequence[Episode], config: DatasetConfig, signals: Sequence[GripperSignal]) -> list[Finding]:
    """That no gripper was seen, or that one of the registry is not there."""
    stated = [entry for entry in config.grippers if entry.column != "none"]
    absent = [entry for entry in stated if _registered(entry, episodes) is None]
    if absent:
        named = ", ".join(f"{entry.column}[{d}]" for entry in absent for d in entry.dimensions())
        return [_no_gripper(episodes, f"the registry's {named or 'gripper'} is not there; ")]
    return [] if signals or config.grippers else [_no_gripper(episodes)]


def _no_gripper(episodes: Sequence[Episode], why: str = "") -> Finding:
    looked_at = []
    columns: tuple[Column, ...] = ("state", "action")
    for column in columns:
        names, width = _names(episodes, column), _width(episodes, column)
        if width:
            listed = ", ".join(names[:MAX_NAMED]) + (" ..." if len(names) > MAX_NAMED else "")
            looked_at.append(f"{column} of {width} dimensions" + (f" ({listed})" if listed else ""))
    places = " and ".join(looked_at) or "no rows of numbers"
    return Finding("no_gripper", f"{why}looked at {places} of {len(episodes)} episodes", "warning")
