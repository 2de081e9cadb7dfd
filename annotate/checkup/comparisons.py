"""Checks of a run against the others: those of its task where there are enough, else all of the chunk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from annotate.checkup.faults import RunFault
from annotate.checkup.summary import ColumnSummary, RunSummary

MIN_OTHERS_OF_TASK, MIN_OTHERS = 4, 8
MOST_OTHERS = 0.8  # share of the other runs of a task that have to have what this one lacks; of any task MOST_OF_ALL
MOST_OF_ALL = 0.9

MIN_AT_LIMIT, MIN_VISITS, BEYOND = 0.04, 3, 1.2  # share of frames, stretches, and how far the others go beyond
MIN_DURATION_S, MIN_DURATION = 3.0, 0.5  # of a run whose gripper stays, and its share of the others' duration
MIN_LEVELS = 10  # values that a dimension takes: one with fewer steps from value to value
MIN_RATIO = 6.0  # of spreads: less is another way of doing it
MIN_LIKE_DIMENSIONS = 0.6  # share of the moving dimensions that have to differ by the same factor
SAME_FACTOR = 0.35  # of its logarithm, between dimensions
MIN_FOLLOWS, MIN_OFFSETS, MIN_OFFSET_SHARE = 0.9, 8.0, 0.08  # correlation; median deviations; share of the range
MIN_IDLE_S, MIN_IDLE_MORE_S, MIN_IDLE_TIMES = 3.0, 2.0, 2.0


class Group(NamedTuple):
    """The other runs that a run is compared with, and what they are in words; `share` of them is enough."""

    others: Sequence[RunSummary]
    words: str
    share: float


def groups(runs: Sequence[RunSummary]) -> Mapping[int, Group]:
    """By episode the runs that it is compared with, where there are enough."""
    of_task: dict[str | None, list[RunSummary]] = {}
    for run in runs:
        of_task.setdefault(run.task, []).append(run)
    compared = {}
    for run in runs:
        siblings = of_task[run.task] if run.task else []
        if len(siblings) > MIN_OTHERS_OF_TASK:
            others = [other for other in siblings if other is not run]
            compared[run.episode_index] = Group(others, "the other runs of its task", MOST_OTHERS)
        elif len(runs) > MIN_OTHERS:
            others = [other for other in runs if other is not run]
            compared[run.episode_index] = Group(others, "the other runs", MOST_OF_ALL)
    return compared


def still_grippers(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """A gripper that does not move in a run that is not known to have failed, and does in most others."""
    compared = groups(runs)
    for run in runs:
        group = compared.get(run.episode_index)
        if group is None or run.success is False or _is_short(run, group):
            continue
        for number, (title, closings) in enumerate(zip(run.gripper_titles, run.closings, strict=True)):
            theirs = [other.closings[number] for other in group.others if number < len(other.closings)]
            counts = [count for count in theirs if count is not None]
            if closings != 0 or not counts or np.mean(np.array(counts) > 0) < group.share:
                continue
            usual = float(np.median(counts))
            detail = f"the {title} does not close; in {group.words} it closes {usual:g} times"
            yield RunFault("gripper_stays", *_whole(run), detail, 0, usual, "closings", signal=title)


def _is_short(run: RunSummary, group: Group) -> bool:
    """Is a run so short that it may end before what the others do in it?"""
    usual = float(np.median([other.duration_s for other in group.others]))
    return run.duration_s < max(MIN_DURATION_S, MIN_DURATION * usual)


def clipped_actions(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """An action that stays at one largest value in several stretches, which most other runs go beyond."""
    compared = groups(runs)
    for run in runs:
        own, group = run.columns.get("action"), compared.get(run.episode_index)
        if own is None or group is None:
            continue
        theirs = _alike(group, "action", own)
        clipped = [d for d in np.flatnonzero(own.arm) if _is_clipped(own, theirs, int(d), group.share)]
        if not clipped:
            continue
        shares = own.at_largest
        worst = max(clipped, key=lambda d: shares[d])
        usual = float(np.median([column.largest[worst] for column in theirs]))
        more = f" and {len(clipped) - 1} more dimensions" if len(clipped) > 1 else ""
        detail = (
            f"{own.titles[worst]}{more} stays at {own.largest[worst]:.3g} in {100 * own.at_largest[worst]:.0f} % of "
            f"the frames; {group.words} go up to {usual:.3g}"
        )
        largest = float(own.largest[worst])
        yield RunFault(
            "action_clipped", *_whole(run), detail, largest, usual, "of the source", signal=own.titles[worst]
        )


def _is_clipped(own: ColumnSummary, theirs: Sequence[ColumnSummary], d: int, share: float) -> bool:
    if own.at_largest[d] < MIN_AT_LIMIT or own.visits[d] < MIN_VISITS or own.levels[d] < MIN_LEVELS or not theirs:
        return False
    beyond = np.array([column.largest[d] >= BEYOND * own.largest[d] for column in theirs])
    # A limit that several runs have is theirs, too: the others that are not clipped there have to go beyond it
    at_same = np.array([abs(column.largest[d] - own.largest[d]) <= 1e-6 * own.largest[d] for column in theirs])
    return bool(beyond[~at_same].mean() >= share - 0.1) if (~at_same).sum() >= 3 else False


def dead_dimensions(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """A dimension that keeps exactly one value, while others of its column move, and that moves in the other runs."""
    compared = groups(runs)
    for run in runs:
        group = compared.get(run.episode_index)
        if group is None:
            continue
        for name, own in run.columns.items():
            theirs = _alike(group, name, own)
            ranges = own.high - own.low
            if not theirs or not (ranges > 0).any():
                continue
            usual = np.array([column.high - column.low for column in theirs])
            median = np.median(usual, axis=0)
            moves = (usual > 0.1 * median).mean(axis=0) >= MOST_OF_ALL
            for d in np.flatnonzero((ranges == 0) & moves & (median > 0) & own.arm):
                detail = f"{own.titles[d]} is {own.low[d]:.4g} in all frames; {group.words} move it by {median[d]:.3g}"
                place = _whole(run)
                yield RunFault(
                    "dead_dimension", *place, detail, 0, float(median[d]), "of the source", signal=own.titles[d]
                )


def other_scales(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """Columns of another unit than in the other runs; and joints whose action and state are apart otherwise."""
    compared = groups(runs)
    for run in runs:
        group = compared.get(run.episode_index)
        if group is None:
            continue
        for name, own in run.columns.items():
            factor = _factor(own, _alike(group, name, own))
            if factor is not None:
                detail = f"{name} moves {factor:.3g} times as far as in {group.words}: another unit?"
                yield RunFault("other_scale", *_whole(run), detail, factor, 1.0, "times", signal=name)
        yield from _offsets(run, group)


def _factor(own: ColumnSummary, theirs: Sequence[ColumnSummary]) -> float | None:
    """By how much all dimensions of the arm move farther than usual, where it is one factor for most of them."""
    if not theirs:
        return None
    usual = np.median([column.spread for column in theirs], axis=0)
    moving = own.arm & (usual > 0) & (own.spread > 0)
    if moving.sum() < 2:
        return None
    logarithms = np.log(own.spread[moving] / usual[moving])
    middle = float(np.median(logarithms))
    is_alike = np.abs(logarithms - middle) <= SAME_FACTOR * abs(middle)
    is_other = abs(middle) >= np.log(MIN_RATIO) and is_alike.mean() >= MIN_LIKE_DIMENSIONS
    return float(np.exp(middle)) if is_other else None


def _offsets(run: RunSummary, group: Group) -> Iterator[RunFault]:
    """Dimensions of which the action is above or below the state by another amount than in the other runs."""
    if run.leads is None or run.follows is None:
        return
    theirs = [other for other in group.others if other.leads is not None and len(other.leads) == len(run.leads)]
    if len(theirs) < MIN_OTHERS_OF_TASK:
        return
    leads = np.array([other.leads for other in theirs])
    middle = np.median(leads, axis=0)
    deviation = np.median(np.abs(leads - middle), axis=0)
    state = run.columns["state"]
    extent = state.high - state.low
    apart = np.abs(run.leads - middle)
    is_odd = (apart >= MIN_OFFSETS * deviation) & (apart >= MIN_OFFSET_SHARE * extent) & (run.follows >= MIN_FOLLOWS)
    for d in np.flatnonzero(is_odd & (extent > 0) & state.arm):
        detail = (
            f"the action is {run.leads[d]:.3g} above {state.titles[d]} at the median, in {group.words} "
            f"{middle[d]:.3g}: a calibration?"
        )
        measured, usual = float(run.leads[d]), float(middle[d])
        yield RunFault("other_scale", *_whole(run), detail, measured, usual, "of the source", signal=state.titles[d])


def idle_ends(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """Nothing moves at a run's start or end for much longer than in the other runs."""
    compared = groups(runs)
    for run in runs:
        group = compared.get(run.episode_index)
        if group is None:
            continue
        ends = (("start", run.idle_start_s, "idle_start_s"), ("end", run.idle_end_s, "idle_end_s"))
        for end, seconds, field in ends:
            usual = float(np.percentile([getattr(other, field) for other in group.others], 90))
            if seconds < max(MIN_IDLE_S, usual + MIN_IDLE_MORE_S, MIN_IDLE_TIMES * usual):
                continue
            frames = round(seconds * run.fps)
            start = 0 if end == "start" else run.num_frames - frames
            side = "first" if end == "start" else "last"
            detail = f"nothing moves in the {side} {seconds:.1f} s; in {group.words} {usual:.1f} s"
            place = run.episode_index, start, start + frames
            yield RunFault("idle_end", *place, detail, seconds, usual, "s", signal=end)


def _alike(group: Group, name: str, own: ColumnSummary) -> list[ColumnSummary]:
    """The same column of the other runs, where it has the same dimensions."""
    columns = [other.columns[name] for other in group.others if name in other.columns]
    return [column for column in columns if len(column.largest) == len(own.largest)]


def _whole(run: RunSummary) -> tuple[int, int, int]:
    return run.episode_index, 0, run.num_frames
