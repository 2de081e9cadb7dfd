"""Checks of a run against the others: those of its task where there are enough, else all of the chunk."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.summary import ColumnSummary, RunSummary
from core.values import grouped

MIN_OTHERS_OF_TASK = 4
MIN_OTHERS = 8
MOST_OTHERS = 0.8  # share of the other runs of a task that have to have what this one lacks; of any task MOST_OF_ALL
MOST_OF_ALL = 0.9

MIN_AT_LIMIT = 0.04  # share of frames
MIN_VISITS = 3  # stretches
BEYOND = 1.2  # how far the others go beyond
MIN_DURATION_S = 3.0  # of a run whose gripper stays
MIN_DURATION = 0.5  # its share of the others' duration
MIN_LEVELS = 10  # values that a dimension takes: one with fewer steps from value to value
MIN_FREE = 3  # other runs that are not clipped at the same limit
MIN_RATIO = 6.0  # of spreads: less is another way of doing it
MIN_LIKE_DIMENSIONS = 0.6  # share of the moving dimensions that have to differ by the same factor
SAME_FACTOR = 0.35  # of its logarithm, between dimensions
MIN_FOLLOWS = 0.9  # correlation
MIN_OFFSETS = 8.0  # median deviations
MIN_OFFSET_SHARE = 0.08  # of the range
MIN_IDLE_S = 3.0
MIN_IDLE_MORE_S = 2.0
MIN_IDLE_TIMES = 2.0


class Group(NamedTuple):
    """The other runs that a run is compared with, and what they are in words; `share` of them is enough."""

    others: Sequence[RunSummary]
    words: str
    share: float


def compared_runs(runs: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, Group]]:
    """Each run that has enough others to be compared with, and these."""
    runs_by_task = grouped((run.task, run) for run in runs)
    for run in runs:
        siblings = runs_by_task[run.task] if run.task else []
        if len(siblings) > MIN_OTHERS_OF_TASK:
            other_runs = [sibling for sibling in siblings if sibling is not run]
            yield run, Group(other_runs, "the other runs of its task", MOST_OTHERS)
        elif len(runs) > MIN_OTHERS:
            other_runs = [sibling for sibling in runs if sibling is not run]
            yield run, Group(other_runs, "the other runs", MOST_OF_ALL)


def still_gripper(run: RunSummary, group: Group) -> Iterator[Finding]:
    """A gripper that does not move in a run that is not known to have failed, and does in most others."""
    if run.success is False or _is_short(run, group):
        return
    for number, (title, closings) in enumerate(zip(run.gripper_titles, run.closings, strict=True)):
        other_closings = [
            other_run.closings[number]
            for other_run in group.others
            if number < len(other_run.closings)
        ]
        counts = [count for count in other_closings if count is not None]
        needed = group.share * max(1, len(counts))
        if closings != 0 or np.count_nonzero(counts) < needed:
            continue
        usual_closings = float(np.median(counts))
        detail = f"the {title} does not close; in {group.words} it closes {usual_closings:g} times"
        yield run_fault(
            "gripper_stays", *run.whole, detail, 0, usual_closings, "closings", signal=title
        )


def _is_short(run: RunSummary, group: Group) -> bool:
    """Is a run so short that it may end before what the others do in it?"""
    usual_duration_s = float(np.median([other_run.duration_s for other_run in group.others]))
    return run.duration_s < max(MIN_DURATION_S, MIN_DURATION * usual_duration_s)


def clipped_action(run: RunSummary, group: Group) -> Iterator[Finding]:
    """An action that stays at one largest value in several stretches, which most other runs go beyond."""
    action = run.columns.get("action")
    if action is None:
        return
    other_columns = _same_columns(group, "action", action)
    clipped = [
        d
        for d in np.flatnonzero(action.arm)
        if _is_clipped(action, other_columns, int(d), group.share)
    ]
    if not clipped:
        return
    worst = clipped[int(np.argmax(action.at_largest[clipped]))]
    name = action.titles[worst]
    largest = float(action.largest[worst])
    usual_largest = float(np.median([column.largest[worst] for column in other_columns]))
    extra = f" and {len(clipped) - 1} more dimensions" if len(clipped) > 1 else ""
    detail = (
        f"{name}{extra} stays at {largest:.3g} in {100 * action.at_largest[worst]:.0f} % of the frames; {group.words} "
        f"go up to {usual_largest:.3g}"
    )
    yield run_fault(
        "action_clipped", *run.whole, detail, largest, usual_largest, "of the source", signal=name
    )


def _is_clipped(
    action: ColumnSummary, other_columns: Sequence[ColumnSummary], dimension: int, share: float
) -> bool:
    largest = action.largest[dimension]
    visits = action.visits[dimension]
    is_often = action.at_largest[dimension] >= MIN_AT_LIMIT and visits >= MIN_VISITS
    if not other_columns or not is_often or action.levels[dimension] < MIN_LEVELS:
        return False
    limits = np.array([column.largest[dimension] for column in other_columns])
    # A limit that several runs have is theirs, too: the others that are not clipped there have to go beyond it
    free = limits[np.abs(limits - largest) > 1e-6 * largest]
    return len(free) >= MIN_FREE and bool((free >= BEYOND * largest).mean() >= share - 0.1)


def dead_dimensions(run: RunSummary, group: Group) -> Iterator[Finding]:
    """A dimension that keeps exactly one value, while others of its column move, and that moves in the other runs."""
    for name, column in run.columns.items():
        other_columns = _same_columns(group, name, column)
        ranges = column.high - column.low
        if not other_columns or not (ranges > 0).any():
            continue
        usual_ranges = np.array(
            [other_column.high - other_column.low for other_column in other_columns]
        )
        median = np.median(usual_ranges, axis=0)
        moves = (usual_ranges > 0.1 * median).mean(axis=0) >= MOST_OF_ALL
        for d in np.flatnonzero((ranges == 0) & moves & (median > 0) & column.arm):
            usual_range = float(median[d])
            title = column.titles[d]
            detail = f"{title} is {column.low[d]:.4g} in all frames; {group.words} move it by {usual_range:.3g}"
            yield run_fault(
                "dead_dimension",
                *run.whole,
                detail,
                0,
                usual_range,
                "of the source",
                signal=title,
            )


def other_scales(run: RunSummary, group: Group) -> Iterator[Finding]:
    """Columns of another unit than in the other runs; and joints whose action and state are apart otherwise."""
    for name, column in run.columns.items():
        factor = _scale_factor(column, _same_columns(group, name, column))
        if factor is not None:
            detail = f"{name} moves {factor:.3g} times as far as in {group.words}: another unit?"
            yield run_fault("other_scale", *run.whole, detail, factor, 1.0, "times", signal=name)
    yield from _offset_faults(run, group)


def _scale_factor(column: ColumnSummary, other_columns: Sequence[ColumnSummary]) -> float | None:
    """By how much all dimensions of the arm move farther than usual, where it is one factor for most of them."""
    if not other_columns:
        return None
    usual_spread = np.median([other_column.spread for other_column in other_columns], axis=0)
    is_moving = column.arm & (usual_spread > 0) & (column.spread > 0)
    if is_moving.sum() < 2:
        return None
    logarithms = np.log(column.spread[is_moving] / usual_spread[is_moving])
    middle = float(np.median(logarithms))
    is_alike = np.abs(logarithms - middle) <= SAME_FACTOR * abs(middle)
    is_other = abs(middle) >= np.log(MIN_RATIO) and is_alike.mean() >= MIN_LIKE_DIMENSIONS
    if is_other:
        return float(np.exp(middle))
    return None


def _offset_faults(run: RunSummary, group: Group) -> Iterator[Finding]:
    """Dimensions of which the action is above or below the state by another amount than in the other runs."""
    if run.leads is None or run.follows is None:
        return
    other_leads = [
        other_run.leads
        for other_run in group.others
        if other_run.leads is not None and len(other_run.leads) == len(run.leads)
    ]
    if len(other_leads) < MIN_OTHERS_OF_TASK:
        return
    middle = np.median(other_leads, axis=0)
    deviation = np.median(np.abs(other_leads - middle), axis=0)
    state = run.columns["state"]
    extent = state.high - state.low
    offsets = np.abs(run.leads - middle)
    is_odd = (offsets >= MIN_OFFSETS * deviation) & (offsets >= MIN_OFFSET_SHARE * extent)
    for d in np.flatnonzero(is_odd & (run.follows >= MIN_FOLLOWS) & (extent > 0) & state.arm):
        measured = float(run.leads[d])
        usual_lead = float(middle[d])
        title = state.titles[d]
        detail = (
            f"the action is {measured:.3g} above {title} at the median, in {group.words} {usual_lead:.3g}: "
            "a calibration?"
        )
        yield run_fault(
            "other_scale", *run.whole, detail, measured, usual_lead, "of the source", signal=title
        )


def idle_ends(run: RunSummary, group: Group) -> Iterator[Finding]:
    """Nothing moves at a run's start or end for much longer than in the other runs."""
    starts = [other_run.idle_start_s for other_run in group.others]
    ends = [other_run.idle_end_s for other_run in group.others]
    for end, seconds, usual_seconds in (
        ("start", run.idle_start_s, starts),
        ("end", run.idle_end_s, ends),
    ):
        usual_idle_s = float(np.percentile(usual_seconds, 90))
        if seconds < max(MIN_IDLE_S, usual_idle_s + MIN_IDLE_MORE_S, MIN_IDLE_TIMES * usual_idle_s):
            continue
        frames = round(seconds * run.fps)
        start_frame = 0 if end == "start" else run.num_frames - frames
        side = "first" if end == "start" else "last"
        detail = (
            f"nothing moves in the {side} {seconds:.1f} s; in {group.words} {usual_idle_s:.1f} s"
        )
        yield run_fault(
            "idle_end",
            run.episode_index,
            start_frame,
            start_frame + frames,
            detail,
            seconds,
            usual_idle_s,
            "s",
            signal=end,
        )


def _same_columns(group: Group, name: str, column: ColumnSummary) -> list[ColumnSummary]:
    """The same column of the other runs, where it has the same dimensions."""
    columns = [other_run.columns[name] for other_run in group.others if name in other_run.columns]
    return [other_run for other_run in columns if len(other_run.largest) == len(column.largest)]
