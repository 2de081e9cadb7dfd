"""Measures of a run beside the others: those of its task where there are enough, else all of the chunk.

Last, rows behind or ahead of the pictures: of all runs, or of single ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from annotate.checkup.comparer import Measurement
from annotate.checkup.summary import ColumnSummary, RunSummary
from core.values import grouped

MIN_OTHERS_OF_TASK = 4
MIN_OTHERS = 8
MORE_OF_ALL = 7 / 8  # what a share of runs of any task counts beside one of the task's own

MIN_DURATION_S = 3.0  # of a run whose gripper stays
MIN_DURATION = 0.5  # its share of the others' duration
MIN_AT_LIMIT = 0.04  # share of frames at the largest action, and stretches
MIN_VISITS = 3
BEYOND = 1.2  # how far the others go beyond
MIN_LEVELS = 10  # values that a dimension takes: one with fewer steps from value to value
MIN_FREE = 3  # other runs that are not clipped at the same limit
MOVES = 0.1  # of the usual range: a dimension that moves
MIN_LIKE_DIMENSIONS = 0.6  # share of the moving dimensions that have to differ by the same factor
SAME_FACTOR = 0.35  # of its logarithm, between dimensions
TRACKS = 0.9  # correlation of a joint with its action: the state goes where the action says
MIN_OFFSETS = 8.0  # median deviations
USUAL_IDLE = 90  # percentile of the others

FOLLOWS = 0.6  # correlation at the median: the action moves the joint
MIN_SPREAD = 0.3  # of the median of all runs: a joint that hardly moves says nothing of its sign
MIN_RUNS = 4  # to tell a sign of one run, or of all
MIN_RUNS_OF_ALL = 2
MOST_JOINTS = 0.5  # share of the others that have to follow where one runs against in all runs

# Rows behind or ahead of the pictures
# When a lag of all runs is believed: in how many runs, how alike the curves are there (correlation), how much more than
# without a lag, and the share of runs whose own lag is near it. Chosen on the clean and spoilt runs of docs/checkup.md
MIN_SURENESS = (2, 0.35, 0.04, 0.6)
# Of one run, against the lag of all: how alike its rows and pictures are, and all others', how much it gains, and how
# many runs there are
MIN_LIKENESS = 0.2
MIN_LIKENESS_OF_ALL = 0.3
MIN_GAIN = 0.06
MIN_RUNS_OF_LAG = 4
MAX_LAG_SHARE = 0.2  # of a run's frames: of a larger lag too little is compared


class Group(NamedTuple):
    """The other runs that a run is compared with, what they are in words, and how much a share of them counts."""

    others: Sequence[RunSummary]
    words: str
    weight: float

    def columns(self, name: str, column: ColumnSummary) -> list[ColumnSummary]:
        """The same column of the other runs, where it has the same dimensions."""
        columns = [run.columns[name] for run in self.others if name in run.columns]
        return [c for c in columns if len(c.largest) == len(column.largest)]


def compared_runs(runs: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, Group]]:
    """Each run that has enough others to be compared with, and these."""
    runs_by_task = grouped((run.task, run) for run in runs)
    for run in runs:
        siblings = runs_by_task[run.task] if run.task else []
        if len(siblings) > MIN_OTHERS_OF_TASK:
            other_runs = [sibling for sibling in siblings if sibling is not run]
            yield run, Group(other_runs, "the other runs of its task", 1.0)
        elif len(runs) > MIN_OTHERS:
            other_runs = [sibling for sibling in runs if sibling is not run]
            yield run, Group(other_runs, "the other runs", MORE_OF_ALL)


def still_gripper(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """A gripper that does not move in a run that is not known to have failed: in how many of the others it does."""
    if run.success is False or _is_short(run, group):
        return
    for number, (title, closings) in enumerate(zip(run.gripper_titles, run.closings, strict=True)):
        closings_of_all = [sibling.closings[number : number + 1] for sibling in group.others]
        counts = [count for count in chain.from_iterable(closings_of_all) if count is not None]
        if closings == 0 and counts:
            yield Measurement(
                "gripper_stays",
                run,
                0,
                float(np.median(counts)),
                signal=title,
                size=group.weight * np.count_nonzero(counts) / len(counts),
                words={"others": group.words},
            )


def _is_short(run: RunSummary, group: Group) -> bool:
    """Is a run so short that it may end before what the others do in it?"""
    usual_duration_s = float(np.median([sibling.duration_s for sibling in group.others]))
    return run.duration_s < max(MIN_DURATION_S, MIN_DURATION * usual_duration_s)


def clipped_action(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """An action that stays at one largest value in several stretches: how many of the other runs go beyond."""
    action = run.columns.get("action")
    if action is None:
        return
    other_columns = group.columns("action", action)
    is_often = (action.at_largest >= MIN_AT_LIMIT) & (action.visits >= MIN_VISITS)
    for d in np.flatnonzero(action.arm & is_often & (action.levels >= MIN_LEVELS)).tolist():
        largest = float(action.largest[d])
        limits = np.array([column.largest[d] for column in other_columns])
        # A limit that several runs have is theirs, too: the others that are not clipped there have to go beyond it
        free = limits[np.abs(limits - largest) > 1e-6 * largest]
        if len(free) >= MIN_FREE:
            yield Measurement(
                "action_clipped",
                run,
                largest,
                float(np.median(limits)),
                signal=action.titles[d],
                size=group.weight * float((free >= BEYOND * largest).mean()),
                words={"share": 100 * action.at_largest[d], "others": group.words},
            )


def dead_dimensions(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """A dimension that keeps exactly one value, while others of its column move: how many of the other runs move it."""
    for name, column in run.columns.items():
        other_columns = group.columns(name, column)
        ranges = column.high - column.low
        if not other_columns or not (ranges > 0).any():
            continue
        other_ranges = np.array([c.high - c.low for c in other_columns])
        usual_ranges = np.median(other_ranges, axis=0)
        shares = (other_ranges > MOVES * usual_ranges).mean(axis=0)
        for d in np.flatnonzero((ranges == 0) & (usual_ranges > 0) & column.arm).tolist():
            yield Measurement(
                "dead_dimension",
                run,
                0,
                float(usual_ranges[d]),
                signal=column.titles[d],
                size=shares[d],
                words={"value": column.low[d], "others": group.words},
            )


def other_units(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """By how much all dimensions of the arm move farther than usual, where it is one factor for most of them."""
    for name, column in run.columns.items():
        spreads = [c.spread for c in group.columns(name, column)]
        usual_spread = np.median(spreads, axis=0) if spreads else np.zeros_like(column.spread)
        is_moving = column.arm & (usual_spread > 0) & (column.spread > 0)
        if is_moving.sum() < 2:
            continue
        logarithms = np.log(column.spread[is_moving] / usual_spread[is_moving])
        middle = float(np.median(logarithms))
        is_alike = np.abs(logarithms - middle) <= SAME_FACTOR * abs(middle)
        if is_alike.mean() >= MIN_LIKE_DIMENSIONS:
            yield Measurement(
                "other_scale",
                run,
                float(np.exp(middle)),
                1.0,
                signal=name,
                size=abs(middle),
                words={"others": group.words},
            )


def offsets(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """Dimensions of which the action is above or below the state by another amount than in the other runs."""
    if run.leads is None or run.follows is None:
        return
    leads = [other_run.leads for other_run in group.others if other_run.leads is not None]
    other_leads = [lead for lead in leads if len(lead) == len(run.leads)]
    if len(other_leads) < MIN_OTHERS_OF_TASK:
        return
    middle = np.median(other_leads, axis=0)
    deviation = np.median(np.abs(other_leads - middle), axis=0)
    state = run.columns["state"]
    extent = state.high - state.low
    is_odd = np.abs(run.leads - middle) >= MIN_OFFSETS * deviation
    for d in np.flatnonzero(is_odd & (run.follows >= TRACKS) & (extent > 0) & state.arm).tolist():
        measured = float(run.leads[d])
        usual_lead = float(middle[d])
        yield Measurement(
            "other_scale offset",
            run,
            measured,
            usual_lead,
            signal=state.titles[d],
            size=float(abs(measured - usual_lead) / extent[d]),
            words={"others": group.words},
        )


def idle_ends(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """How long nothing moves at a run's start and at its end."""
    for end, side in (("start", "first"), ("end", "last")):
        seconds = run.idle_s[end]
        usual_s = float(
            np.percentile([sibling.idle_s[end] for sibling in group.others], USUAL_IDLE)
        )
        frames = round(seconds * run.fps)
        stretch = (0, frames) if end == "start" else (len(run) - frames, len(run))
        yield Measurement(
            "idle_end",
            run,
            seconds,
            usual_s,
            stretch,
            signal=end,
            words={"side": side, "others": group.words},
        )


def opposite_signs(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """How joints' states move with their action, where they do in the other runs or at most other joints.

    All runs of the same dimensions are compared, whatever their task: a sign is the robot's.
    """
    groups = grouped(
        ((run.columns["state"].titles, run.follow.shape), run)
        for run in runs
        if run.follow is not None
    )
    for members in groups.values():
        follows = np.stack([run.follow for run in members if run.follow is not None])
        usual_follows = np.median(follows, axis=0)
        if len(members) >= MIN_RUNS:
            yield from _signs_of_single_runs(members, follows, usual_follows)
        if len(members) >= MIN_RUNS_OF_ALL:
            yield from _signs_of_all_runs(members, usual_follows)


def _signs_of_single_runs(
    runs: Sequence[RunSummary], follows: np.ndarray, usual_follows: np.ndarray
) -> Iterator[Measurement]:
    """`follows`: [runs, 2, d], `usual_follows`: their medians [2, d]."""
    spreads = np.stack([run.columns["state"].spread[: follows.shape[2]] for run in runs])
    moves = spreads >= MIN_SPREAD * np.median(spreads, axis=0)
    # By either way of following, the one by which it goes more surely against
    correlations = np.where((usual_follows >= FOLLOWS) & moves[:, None], follows, np.inf)
    ways = correlations.argmin(axis=1)
    for number, joint in np.argwhere(correlations.min(axis=1) < 0).tolist():
        way = ways[number, joint]
        yield _sign(
            "other_scale sign",
            runs[number],
            joint,
            float(correlations[number, way, joint]),
            float(usual_follows[way, joint]),
        )


def _signs_of_all_runs(
    runs: Sequence[RunSummary], usual_follows: np.ndarray
) -> Iterator[Measurement]:
    for usual_joints in usual_follows:
        for joint in np.flatnonzero(usual_joints < 0).tolist():
            other_joints = np.delete(usual_joints, joint)
            other_joints = other_joints[np.isfinite(other_joints)]
            if len(other_joints) and (other_joints >= FOLLOWS).mean() >= MOST_JOINTS:
                usual_follow = float(np.median(other_joints))
                measured = float(usual_joints[joint])
                for run in runs:
                    yield _sign("other_scale sign in all", run, joint, measured, usual_follow)


def _sign(
    limit: str, run: RunSummary, joint: int, measured: float, usual_follow: float
) -> Measurement:
    title = run.columns["state"].titles[joint]
    return Measurement(limit, run, measured, usual_follow, signal=title, size=-measured)


def late_rows(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """Rows that are behind or ahead of the pictures: in all runs, or in single ones otherwise than in the others."""
    curves = _row_curves(runs)
    lag, is_sure = _common_lag(curves)
    counts = {"num_runs": len(curves), "num_all": len(runs)}
    middle = len(next(iter(curves.values()), ())) // 2
    likeness = [float(curve[lag + middle]) for curve in curves.values()]
    are_comparable = len(curves) >= MIN_RUNS_OF_LAG and np.mean(likeness) >= MIN_LIKENESS_OF_ALL
    for run in runs:
        curve = curves.get(run.episode_index)
        if curve is None:
            continue
        run_lag = _deviating_lag(run, curve, lag) if are_comparable else None
        words = {"usual_lag": _lag_words(lag, run.fps)}
        if run_lag is not None:
            yield Measurement(
                "rows_late",
                run,
                run_lag,
                lag,
                signal="state",
                size=abs(run_lag - lag),
                words=words | {"lag": _lag_words(run_lag, run.fps)},
            )
        if is_sure:
            yield Measurement(
                "rows_late in all",
                run,
                lag,
                0,
                signal="state",
                size=abs(lag),
                words=words | counts,
            )


def _deviating_lag(run: RunSummary, curve: np.ndarray, lag: int) -> int | None:
    """The lag of a run, in frames, where it surely has another one than all runs together; else None."""
    run_lag = peak_lag(curve)
    middle = len(curve) // 2
    likeness = float(curve[run_lag + middle])
    gain = likeness - float(curve[lag + middle])
    is_compared = abs(run_lag) <= MAX_LAG_SHARE * len(run)
    if is_compared and likeness >= MIN_LIKENESS and gain >= MIN_GAIN:
        return run_lag
    return None


def peak_lag(curve: np.ndarray) -> int:
    """The lag, in frames, at which a curve [2 * most + 1] is highest."""
    return int(np.argmax(curve)) - len(curve) // 2


def common_lag(runs: Sequence[RunSummary]) -> int:
    """The lag of all runs together, in frames, however sure it is; 0 where no run tells any."""
    return _common_lag(_row_curves(runs))[0]


def _row_curves(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """Those over as many lags as most have, or the most of those: runs of another rate are not compared."""
    curves = {run.episode_index: run.row_curve for run in runs if run.row_curve is not None}
    lengths = Counter(map(len, curves.values()))
    usual_length = max(lengths, key=lambda length: (lengths[length], length), default=0)
    return {episode: curve for episode, curve in curves.items() if len(curve) == usual_length}


def _common_lag(curves: Mapping[int, np.ndarray]) -> tuple[int, bool]:
    """The lag of all runs together, and whether it is sure; 0 without any curve."""
    if not curves:
        return 0, False
    mean = np.mean(list(curves.values()), axis=0)
    max_lag = len(mean) // 2
    lag = peak_lag(mean)
    near = [abs(peak_lag(curve) - lag) <= 1 for curve in curves.values()]
    gain = float(mean[lag + max_lag] - mean[max_lag])
    reached = len(curves), float(mean[lag + max_lag]), gain, float(np.mean(near))
    is_sure = all(value >= limit for value, limit in zip(reached, MIN_SURENESS, strict=True))
    return lag, is_sure and abs(lag) < max_lag


def _lag_words(lag: int, fps: float) -> str:
    side = "behind" if lag > 0 else "ahead of"
    if lag:
        return f"{abs(lag)} frames ({abs(lag) / fps:.2f} s) {side}"
    return "at one time with"
