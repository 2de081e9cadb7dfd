"""The grippers and hands of a dataset, from the rows of some of its episodes.

1. Where they are: as the registry says; else by the names of dimensions; else by values that switch between two levels.
   A gripper in the state counts before one in the action.
2. The joints of a hand, or several fingers, become one signal: each with the sign with which it goes along.
3. The range over all surveyed episodes; a signal that does not leave its noise is not used.
4. The polarity (`ingest.signals.gripper.polarity_of`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from operator import attrgetter, itemgetter

import numpy as np

from core.values import grouped, short_hash
from ingest.episode import EpisodeData, EpisodeRecord, Finding
from ingest.reasons import DataError
from ingest.registry import DatasetConfig, Gripper
from ingest.signals.gripper import (
    PULSES,
    GripperRun,
    GripperSignal,
    PolarityEvidence,
    SignalValues,
    Verdict,
    are_pulses,
    closings_per_episode,
    combined,
    counted,
    findings_of,
    gripper_runs,
    held,
    named_evidence,
    observed_evidence,
    polarity_of,
    unit_of,
    values_of,
)
from ingest.signals.missing import known_episode
from ingest.signals.naming import (
    COLUMNS,
    MIN_HAND_JOINTS,
    Column,
    Kind,
    Range,
    arm_names,
    moves_of,
    named_grippers,
    range_of,
    switching_dimensions,
)
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import DownloadError

VERSION = "signals-4"
# Surveyed at most: of the dataset, and of one task before others had their turn
MAX_EPISODES = 64
PER_TASK = 8
MIN_SURVEYED = 20  # a survey of so many episodes stays when the dataset grows
# Of the largest range among the joints of a hand: one that moves less does not count
MIN_JOINT_RANGE = 0.1
MAX_NAMED = 12  # dimensions in a message
MAX_LAYOUT = 200  # characters of the dimensions of an episode, in a message
JOINTS_OF_ARM = 6  # at least
PULSED = "it is commanded by pulses, each of which holds until the next; "
GOES_ALONG = 0.5  # correlation with the whole hand below which a joint is left out

# An unused gripper: its range is no more than its noise, or than a hundredth of its value
MAX_NOISE = 0.08  # of the range: three quarters of all steps between frames are smaller
MIN_RELATIVE_RANGE = 0.01


@dataclass(frozen=True)
class Survey:
    signals: tuple[GripperSignal, ...]
    findings: tuple[Finding, ...]


def survey(
    source: Source,
    records: Sequence[EpisodeRecord],
    robot: str | None,
    former_signals: Sequence[GripperSignal] = (),
) -> Survey:
    """The signals of a dataset, and what is wrong with them. Reads the rows of up to MAX_EPISODES episodes.

    `former_signals`: the signals of an earlier survey. They stay while they rest on enough episodes, and while
    robot, names and
    widths are as they were, so that a few more episodes do not change what the others' labels rest on.
    """
    records = chosen(source, records)
    version = survey_version(source.config)
    # Made in the same way, of enough episodes or of half of those that there are now
    enough = min(MIN_SURVEYED, (len(records) + 1) // 2)
    if (
        former_signals
        and former_signals[0].survey_version == version
        and former_signals[0].num_surveyed >= enough
    ):
        first = _readable(source, records[:1])
        if not first or former_signals[0].layout == _layout(first[0], robot):
            return Survey(tuple(former_signals), tuple(findings_of(former_signals)))
    episodes = list(_readable(source, records))
    if not episodes:
        return Survey((), ())
    layout_findings = chain.from_iterable(_layout_findings(episodes, column) for column in COLUMNS)
    places = _located(episodes, source.config)
    layout = _layout(episodes[0], robot)
    signals = [
        replace(_measured(place, having, robot, version), layout=layout)
        for place, having in map(_with_values, places, repeat(episodes))
        if having
    ]
    return Survey(
        tuple(signals),
        (*layout_findings, *findings_of(signals), *_lacking(episodes, source.config, signals)),
    )


def _layout(episode: EpisodeData, robot: str | None) -> str:
    """A hash over what the places of grippers rest on: the robot, and the names and widths of state and action."""
    widths = [
        None if values is None else values.shape[1] for values in (episode.state, episode.action)
    ]
    text = repr((robot, widths, episode.state_names, episode.action_names))
    return short_hash(text)


def _layout_findings(episodes: Sequence[EpisodeData], column: Column) -> Iterator[Finding]:
    """Rows of state or action that hold several steps each, and episodes with other dimensions than the first."""
    with_rows = [(e, rows) for e in episodes if (rows := values_of(e, column)) is not None]
    if num_steps := min((steps_in_rows(rows) for _, rows in with_rows), default=0):
        width = with_rows[0][1].shape[1]
        detail = (
            f"each row of the {column} repeats values of the rows beside it: {num_steps} steps of "
            f"{width // num_steps} values, read as {width} dimensions"
        )
        yield Finding("other_layout", detail, "warning")
    layouts = {
        e.record.episode_index: f"{rows.shape[1]} ({', '.join(_names([e], column))})"
        for e, rows in with_rows
    }
    different = [*dict.fromkeys(layouts.values())]
    if len(different) > 1:
        episode = next(index for index, layout in layouts.items() if layout == different[1])
        detail = (
            f"the dimensions of the {column} are not the same in all episodes: "
            f"{different[0][:MAX_LAYOUT]}; of episode {episode}: {different[1][:MAX_LAYOUT]}"
        )
        yield Finding("other_layout", detail, "warning")


def steps_in_rows(rows: np.ndarray) -> int:
    """How many steps each row [d] of an episode holds, where it is a window of the steps before or after it: all but
    one of them are in the next row, too. 0 for rows of one step.
    """
    width = rows.shape[1]
    sizes = [size for size in range(1, width // 2 + 1) if width % size == 0]
    for size in sizes:
        # Each row's values without its first step, or without its last, stand in the row after or before it
        windows = ((rows[:-1, size:], rows[1:, :-size]), (rows[1:, size:], rows[:-1, :-size]))
        if any(len(a) and np.ptp(a, axis=0).any() and np.array_equal(a, b) for a, b in windows):
            return width // size
    return 0


def survey_version(config: DatasetConfig) -> str:
    """Changes with this code, and with what the registry says of the grippers."""
    registered = " ".join(entry.model_dump_json() for entry in config.grippers)
    return short_hash(f"{VERSION} {registered}")


def chosen(source: Source, records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The episodes that are looked at: the first of each task, in order, then others; all of a
    small dataset.

    Of a remote source only those that were asked for: the rows of others are not here.
    """
    is_all_here = source.selected is None or not source.config.is_remote
    rank: Counter[str] = Counter()
    order = []
    for record in records:
        if record.data_uri is not None and (
            is_all_here or record.number_in_source in (source.selected or ())
        ):
            rank[record.task or ""] += 1
            order.append((rank[record.task or ""] > PER_TASK, record.episode_index, record))
    picked = [record for _, _, record in sorted(order, key=itemgetter(0, 1))[:MAX_EPISODES]]
    return sorted(picked, key=attrgetter("episode_index"))


def _readable(source: Source, records: Sequence[EpisodeRecord]) -> list[EpisodeData]:
    """Episodes with rows of finite numbers that can be had; what is wrong with others the stage
    `frames` finds."""
    episodes = []
    for record in records:
        try:
            episodes.append(known_episode(read_episode(source, record))[0])
        except (DataError, DownloadError):
            continue
    return _with_finite_rows(episodes)


def _with_finite_rows(episodes: Sequence[EpisodeData]) -> list[EpisodeData]:
    """Those with state, else those with either, else those with state alone, whose action is left out."""
    finite = [episode for episode in episodes if _is_finite(episode.state, episode.action)]
    with_state = [episode for episode in finite if episode.state is not None]
    return (
        with_state
        or finite
        or [replace(episode, actions=None) for episode in episodes if _is_finite(episode.state)]
    )


def _is_finite(*columns: np.ndarray | None) -> bool:
    """Is there a column, and has each one rows of finite numbers?"""
    rows = [values for values in columns if values is not None]
    return bool(rows) and all(len(values) and not np.isinf(values).any() for values in rows)


@dataclass(frozen=True)
class _Place:
    """Where a gripper is, before its values are looked at."""

    arm: str
    kind: Kind
    column: Column
    dimensions: tuple[int, ...]
    located_by: str
    entry: Gripper | None = None
    layout: tuple[str, ...] = ()  # names of all dimensions, where it was found
    beside: tuple[
        int, ...
    ] = ()  # dimensions of it and of other arms' grippers that it was named together with


def _located(episodes: Sequence[EpisodeData], config: DatasetConfig) -> list[_Place]:
    """Where the grippers are: in the state, else in the action; by the registry, by names, or by values."""
    if config.grippers:
        return [place for entry in config.grippers if (place := _registered(entry, episodes))]
    runs_by_column: dict[Column, list[EpisodeData]] = {
        c: _of_one_layout(episodes, c) for c in COLUMNS
    }
    # Values are compared by place, so within one layout: that of all runs, or of most
    uniform = [column for column in COLUMNS if len(runs_by_column[column]) == len(episodes)]
    ways = [
        *((_by_name, column, episodes) for column in COLUMNS),
        *((_by_values, column, episodes) for column in uniform),
        *((_by_name, column, runs_by_column[column]) for column in COLUMNS),
        *((_by_values, column, runs_by_column[column]) for column in COLUMNS),
    ]
    for locate, column, runs in ways:
        if places := locate(runs, column):
            return [replace(place, layout=_names(runs, column)) for place in places]
    return []


def _of_one_layout(episodes: Sequence[EpisodeData], column: Column) -> list[EpisodeData]:
    """The episodes whose rows have the commonest names and width; of equally common ones those with names."""
    layouts = grouped(((_names([e], column), _width([e], column)), e) for e in episodes)
    return max(layouts.items(), key=lambda item: (len(item[1]), bool(item[0][0])))[1]


def _names(episodes: Sequence[EpisodeData], column: Column) -> tuple[str, ...]:
    if column == "state":
        return episodes[0].state_names
    return episodes[0].action_names


def _width(episodes: Sequence[EpisodeData], column: Column) -> int:
    """Dimensions that all episodes have; 0 where one has no such rows."""
    values = [values_of(episode, column) for episode in episodes]
    return min(0 if rows is None else rows.shape[1] for rows in values)


def _stated_dimensions(entry: Gripper, names: Sequence[str], width: int) -> list[int]:
    """By name or number, from the end where that is negative."""
    dimensions = []
    for stated_dimension in entry.dimensions():
        if isinstance(stated_dimension, str):
            dimensions += [d for d, name in enumerate(names[:width]) if name == stated_dimension]
        elif -width <= stated_dimension < width:
            dimensions.append(stated_dimension % width)
    return dimensions


def _registered(entry: Gripper, episodes: Sequence[EpisodeData]) -> _Place | None:
    if entry.column == "none":
        return None
    dimensions = _stated_dimensions(
        entry, _names(episodes, entry.column), _width(episodes, entry.column)
    )
    if not dimensions:
        return None
    kind: Kind = "hand" if len(dimensions) >= MIN_HAND_JOINTS else "gripper"
    return _Place(entry.arm, kind, entry.column, tuple(dimensions), "registry", entry)


def _is_apart(place: _Place, episode: EpisodeData) -> bool:
    """Has an episode the named dimensions elsewhere, or no names at all?"""
    own_names = [place.layout[d] for d in place.dimensions if d < len(place.layout)]
    names = _names([episode], place.column)
    is_moved = {*own_names} <= {*names} and [*map(names.index, own_names)] != [*place.dimensions]
    return any(own_names) and names != place.layout and (is_moved or not names)


def _with_values(
    place: _Place, episodes: Sequence[EpisodeData]
) -> tuple[_Place, list[EpisodeData]]:
    """A place without dimensions that no episode has values of, and the episodes that have those of the others."""
    episodes = [episode for episode in episodes if not _is_apart(place, episode)]
    missing = [
        (episode, np.asarray(np.isnan(values[:, list(place.dimensions)]).all(axis=0)))
        for episode in episodes
        if (values := values_of(episode, place.column)) is not None
        and values.shape[1] > max(place.dimensions)
    ]
    is_there = ~np.all([lacks for _, lacks in missing], axis=0)
    dimensions = tuple(np.array(place.dimensions)[is_there].tolist())
    having = [episode for episode, lacks in missing if not lacks[is_there].any()]
    return replace(place, dimensions=dimensions), having if dimensions else []


def _by_name(episodes: Sequence[EpisodeData], column: Column) -> list[_Place]:
    names = _names(episodes, column)[: _width(episodes, column)]
    located_by = "modality.json" if episodes[0].names_by == "modality.json" else "name"
    places = [
        _Place(g.arm, g.kind, column, g.dimensions, located_by) for g in named_grippers(names)
    ]
    return list(chain.from_iterable(_by_arm(place, episodes, len(names)) for place in places))


def _by_arm(place: _Place, episodes: Sequence[EpisodeData], width: int) -> list[_Place]:
    """A gripper of an arm without name; or one for each arm, where its values do not move together, as fingers do.

    A value that never moves is of an arm of its own where there are joints for one.
    """
    if place.arm or place.kind != "gripper" or len(place.dimensions) < 2:
        return [place]
    rows = [(values_of(episode, place.column), episode.record.fps) for episode in episodes]
    runs = [(values[:, list(place.dimensions)], fps) for values, fps in rows if values is not None]
    pooled = np.concatenate([values for values, _ in runs])
    spans = np.array([range_of(column).span for column in pooled.T])
    moves = np.concatenate([moves_of(values, fps) for values, fps in runs])
    moves[:, spans <= MIN_JOINT_RANGE * spans.max()] = 0.0
    groups = list[list[int]]()
    # Runs too short to move show nothing: their values are fingers of one gripper
    for k, movement in enumerate(moves.T if len(moves) else ()):
        along = [g for g in groups if _correlation(moves[:, g[0]], movement) >= GOES_ALONG]
        if along:
            along[0].append(k)
        else:
            groups.append([k])
    has_joints = width - len(place.dimensions) >= JOINTS_OF_ARM * len(groups)
    if len(groups) < 2 or not has_joints:
        return [place]
    arms = []
    for arm, group in zip(arm_names(len(groups)), groups, strict=True):
        dimensions = tuple(place.dimensions[k] for k in group)
        arms.append(replace(place, arm=arm, dimensions=dimensions, beside=place.dimensions))
    return arms


def _by_values(episodes: Sequence[EpisodeData], column: Column) -> list[_Place]:
    rows = [values for episode in episodes if (values := values_of(episode, column)) is not None]
    if not rows or not _width(episodes, column):
        return []
    rates = [episode.record.fps for episode in episodes]
    dimensions = switching_dimensions(rows, rates, _names(episodes, column))
    return [_Place(arm, "gripper", column, (d,), "values") for arm, d in sorted(dimensions.items())]


def _measured(
    place: _Place, episodes: Sequence[EpisodeData], robot: str | None, version: str
) -> GripperSignal:
    """The signal of a place: its weights, range, use and polarity."""
    rows = [
        values for episode in episodes if (values := values_of(episode, place.column)) is not None
    ]
    names = _names(episodes, place.column)
    values = SignalValues(
        arm=place.arm,
        kind=place.kind,
        column=place.column,
        dimensions=place.dimensions,
        names=tuple(_name(names, place.column, d) for d in place.dimensions),
        weights=_weights(
            np.concatenate([of_episode[:, list(place.dimensions)] for of_episode in rows])
        ),
    )
    runs = [combined(values, of_episode) for of_episode in rows]
    pooled = np.concatenate(runs)
    ends = range_of(pooled)
    rates = [episode.record.fps for episode in episodes]
    extremes = Range(float(pooled.min()), float(pooled.max()))
    is_pulsed = place.column == "action" and are_pulses(runs, rates, extremes)
    if is_pulsed:
        ends = extremes
        runs = [held(run, ends, fps) for run, fps in zip(runs, rates, strict=True)]
    observed = gripper_runs(values, episodes, runs, ends, place.beside)
    is_used = _is_used(runs, ends, observed)
    entry = place.entry
    if entry is not None and entry.closed is not None and entry.open is not None:
        closed = entry.closed
        opened = entry.open
        verdict = Verdict(
            "high_is_open" if opened > closed else "high_is_closed", 1.0, "the registry says so"
        )
    else:
        verdict = _polarity(values, episodes, observed if is_used else [], ends, robot)
        if verdict.polarity == "high_is_closed":
            closed, opened = (ends.high, ends.low)
        else:
            closed, opened = (ends.low, ends.high)
    return GripperSignal(
        **vars(values),
        unit=PULSES if is_pulsed else unit_of(values.names, ends),
        closed=closed,
        open=opened,
        polarity=verdict.polarity,
        polarity_by=f"{PULSED}{verdict.why}" if is_pulsed else verdict.why,
        confidence=verdict.confidence,
        located_by=place.located_by,
        is_used=is_used,
        closings_per_episode=closings_per_episode(verdict.polarity, observed) if is_used else None,
        num_surveyed=len(episodes),
        survey_version=version,
    )


def _name(names: Sequence[str], column: Column, dimension: int) -> str:
    """Of a dimension; its number stands in for a name, or tells it from others of that name."""
    name = names[dimension] if dimension < len(names) else ""
    if name and names.count(name) == 1:
        return name
    return f"{name or column}[{dimension}]"


def _weights(values: np.ndarray) -> tuple[float, ...]:
    """The weight of each finger or joint [n, k] in the sum that shows how far all are closed.

    They keep their unit: of m that go together each weighs 1 / m, with a sign. One that hardly
    moves, or moves by itself, weighs nothing.
    """
    width = values.shape[1]
    spans = [range_of(values[:, k]).span for k in range(width)]
    moving_joints = [k for k, span in enumerate(spans) if span > MIN_JOINT_RANGE * max(spans)]
    signs = _signs(values[:, moving_joints]) if moving_joints else np.zeros(0)
    # Numbers so large that their squares are none go along with nothing
    if not signs.any():
        return (1 / width,) * width
    weights = np.zeros(width)
    weights[moving_joints] = signs / np.count_nonzero(signs)
    return tuple(weights.tolist())


def _signs(joints: np.ndarray) -> np.ndarray:
    """Which way each joint [n, k] goes along with the others: 1, -1 against most of them, 0 by itself."""
    # The first principal component is the closing of the whole hand
    with np.errstate(over="ignore", invalid="ignore"):
        centred = joints - joints.mean(axis=0)
        covariance = centred.T @ centred
    if not np.isfinite(covariance).all():
        return np.zeros(joints.shape[1])
    _, axes = np.linalg.eigh(covariance)
    along = np.array([_correlation(joint, centred @ axes[:, -1]) for joint in centred.T])
    signs = np.where(np.abs(along) >= GOES_ALONG, np.sign(along), 0.0)
    # Most joints count as they are; of as many on either side those with the first one
    majority = signs.sum() or next(iter(signs[signs != 0]), 0.0)
    if majority < 0:
        return -signs
    return signs


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two series [n]; 0 where one of them never changes."""
    spread = float(a.std() * b.std())
    if spread > 0:
        return float(((a - a.mean()) * (b - b.mean())).mean()) / spread
    return 0.0


def _is_used(runs: Sequence[np.ndarray], ends: Range, observed: Sequence[GripperRun]) -> bool:
    """Does a gripper go from one end to the other in any episode, or does it only tremble?"""
    if ends.span <= MIN_RELATIVE_RANGE * max(abs(ends.low), abs(ends.high)):
        return False
    steps = np.concatenate([np.abs(np.diff(run)) for run in runs])
    trembles = not len(steps) or float(np.percentile(steps, 75)) > MAX_NOISE * ends.span
    return not trembles and any(counted(run) for run in observed)


def _polarity(
    values: SignalValues,
    episodes: Sequence[EpisodeData],
    observed: Sequence[GripperRun],
    ends: Range,
    robot: str | None,
) -> Verdict:
    """Which end is open, as names show and what was observed, else as the commands show."""
    evidence = named_evidence(values.names, robot, ends, episodes[0].writer)
    if observed:
        evidence += observed_evidence(observed)
    verdict = polarity_of(evidence)
    if verdict.polarity == "unknown" and values.column == "state":
        return polarity_of([*evidence, *_by_its_command(values, episodes)])
    return verdict


def _by_its_command(
    values: SignalValues, episodes: Sequence[EpisodeData]
) -> list[PolarityEvidence]:
    """What the commands of a gripper show, where it follows them."""
    places = [
        p
        for p in (*_by_name(episodes, "action"), *_by_values(episodes, "action"))
        if p.arm == values.arm
    ]
    rows = [(e.action, e.state) for e in episodes if e.action is not None and e.state is not None]
    if not places or len(rows) < len(episodes):
        return []
    command_values = replace(
        values, column="action", dimensions=places[0].dimensions[:1], weights=(1.0,)
    )
    commands = [combined(command_values, action) for action, _ in rows]
    reached = [combined(values, state) for _, state in rows]
    follows = _correlation(np.concatenate(commands), np.concatenate(reached))
    if abs(follows) < GOES_ALONG:
        return []
    command_evidence = observed_evidence(
        gripper_runs(command_values, episodes, commands, range_of(np.concatenate(commands)))
    )
    return [
        PolarityEvidence(float(np.sign(follows)) * e.log_odds, f"its command: {e.why}")
        for e in command_evidence
    ]


def _lacking(
    episodes: Sequence[EpisodeData], config: DatasetConfig, signals: Sequence[GripperSignal]
) -> list[Finding]:
    """That no gripper was seen, or that one of the registry is not there."""
    absent = [e for e in config.grippers if e.column != "none" and _registered(e, episodes) is None]
    if absent:
        names: list[str] = []
        for entry in absent:
            names += [f"{entry.column}[{d}]" for d in entry.dimensions()]
        absent_names = ", ".join(names) or "gripper"
        return [_no_gripper(episodes, f"the registry's {absent_names} is not there; ")]
    if signals or config.grippers:
        return []
    return [_no_gripper(episodes)]


def _no_gripper(episodes: Sequence[EpisodeData], reason: str = "") -> Finding:
    looked_at = []
    for column in COLUMNS:
        names = _names(episodes, column)
        width = _width(episodes, column)
        if width:
            listed = ", ".join(names[:MAX_NAMED]) + (" ..." if len(names) > MAX_NAMED else "")
            looked_at.append(f"{column} of {width} dimensions" + (f" ({listed})" if listed else ""))
    places = " and ".join(looked_at) or "no rows of numbers"
    return Finding(
        "no_gripper", f"{reason}looked at {places} of {len(episodes)} episodes", "warning"
    )
