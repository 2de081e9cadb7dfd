"""The check of signs: a joint whose state moves against its action, in one run or in all."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.summary import RunSummary
from core.values import grouped

MIN_FOLLOWS = 0.6  # correlation at the median: the action moves the joint
MAX_AGAINST = -0.55  # correlation in one run that is told
MAX_AGAINST_OF_ALL = -0.6  # correlation at the median of all runs
MIN_SPREAD = 0.3  # of the median of all runs: a joint that hardly moves says nothing of its sign
MIN_RUNS = 4
MIN_RUNS_OF_ALL = 2
# Share of the other joints that have to follow where one runs against in all runs
MOST_JOINTS = 0.5


def opposite_signs(runs: Sequence[RunSummary]) -> Iterator[Finding]:
    """Joints whose state moves against the action, and with it in the other runs or at most other joints.

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
            yield from _faults_of_single_runs(members, follows, usual_follows)
        if len(members) >= MIN_RUNS_OF_ALL:
            yield from _faults_of_all_runs(members, usual_follows)


def _faults_of_single_runs(
    runs: Sequence[RunSummary], follows: np.ndarray, usual_follows: np.ndarray
) -> Iterator[Finding]:
    """`follows`: [runs, 2, d], `usual_follows`: their medians [2, d]."""
    num_joints = follows.shape[2]
    spreads = np.stack([run.columns["state"].spread[:num_joints] for run in runs])
    moves = spreads >= MIN_SPREAD * np.median(spreads, axis=0)
    # By either way of following, the one by which it goes more surely against
    is_against = (usual_follows >= MIN_FOLLOWS) & (follows <= MAX_AGAINST) & moves[:, None]
    for number, joint in np.argwhere(is_against.any(axis=1)).tolist():
        correlations = np.where(is_against[number, :, joint], follows[number, :, joint], np.inf)
        way = int(np.argmin(correlations))
        usual_follow = float(usual_follows[way, joint])
        measured = float(correlations[way])
        yield _sign_fault(runs[number], joint, measured, usual_follow, "in the other runs")


def _faults_of_all_runs(runs: Sequence[RunSummary], usual_follows: np.ndarray) -> Iterator[Finding]:
    for usual_joints in usual_follows:
        for joint in np.flatnonzero(usual_joints <= MAX_AGAINST_OF_ALL).tolist():
            other_joints = np.delete(usual_joints, joint)
            other_joints = other_joints[np.isfinite(other_joints)]
            if not len(other_joints) or (other_joints >= MIN_FOLLOWS).mean() < MOST_JOINTS:
                continue
            usual_follow = float(np.median(other_joints))
            measured = float(usual_joints[joint])
            for run in runs:
                yield _sign_fault(run, joint, measured, usual_follow, "at other joints")


def _sign_fault(
    run: RunSummary, joint: int, measured: float, usual_follow: float, words: str
) -> Finding:
    title = run.columns["state"].titles[joint]
    detail = (
        f"{title} moves against its action (correlation {measured:.2f}), {words} with it "
        f"({usual_follow:.2f}): another sign?"
    )
    return run_fault(
        "other_scale", *run.whole, detail, measured, usual_follow, "correlation", signal=title
    )
