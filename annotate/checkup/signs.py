"""The check of signs: a joint whose state moves against its action, in one run or in all."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import RunFault
from annotate.checkup.summary import RunSummary

MIN_FOLLOWS = 0.6  # correlation at the median: the action moves the joint
MAX_AGAINST = -0.55  # correlation in one run that is told
MAX_AGAINST_OF_ALL = -0.6  # correlation at the median of all runs
MIN_SPREAD = 0.3  # of the median of all runs: a joint that hardly moves says nothing of its sign
MIN_RUNS = 4
MIN_RUNS_OF_ALL = 2
MOST_JOINTS = (
    0.5  # share of the other joints that have to follow where one runs against in all runs
)


def opposite_signs(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """Joints whose state moves against the action, and with it in the other runs or at most other joints.

    All runs of the same dimensions are compared, whatever their task: a sign is the robot's.
    """
    groups: dict[tuple, list[RunSummary]] = {}
    for run in runs:
        if run.follow is not None:
            groups.setdefault((run.columns["state"].titles, run.follow.shape), []).append(run)
    for members in groups.values():
        follows = np.stack([run.follow for run in members if run.follow is not None])
        usual_follows = np.median(follows, axis=0)
        if len(members) >= MIN_RUNS:
            yield from _of_single_runs(members, follows, usual_follows)
        if len(members) >= MIN_RUNS_OF_ALL:
            yield from _of_all(members, usual_follows)


def _of_single_runs(
    runs: Sequence[RunSummary], follows: np.ndarray, usual_follows: np.ndarray
) -> Iterator[RunFault]:
    """`follows`: [runs, 2, d], `usual_follows`: their medians [2, d]."""
    num_joints = follows.shape[2]
    spreads = np.stack([run.columns["state"].spread[:num_joints] for run in runs])
    moves = spreads >= MIN_SPREAD * np.median(spreads, axis=0)
    # By either way of following, the one by which it goes more surely against
    is_against = (usual_follows >= MIN_FOLLOWS) & (follows <= MAX_AGAINST) & moves[:, None]
    for number, joint in np.argwhere(is_against.any(axis=1)).tolist():
        against = np.where(is_against[number, :, joint], follows[number, :, joint], np.inf)
        way = int(np.argmin(against))
        usual = float(usual_follows[way, joint])
        yield _fault(runs[number], joint, float(against[way]), usual, "in the other runs")


def _of_all(runs: Sequence[RunSummary], usual_follows: np.ndarray) -> Iterator[RunFault]:
    for usual_joints in usual_follows:
        for joint in np.flatnonzero(usual_joints <= MAX_AGAINST_OF_ALL).tolist():
            others = np.delete(usual_joints, joint)
            others = others[np.isfinite(others)]
            if not len(others) or (others >= MIN_FOLLOWS).mean() < MOST_JOINTS:
                continue
            usual = float(np.median(others))
            for run in runs:
                yield _fault(run, joint, float(usual_joints[joint]), usual, "at other joints")


def _fault(run: RunSummary, joint: int, measured: float, usual: float, words: str) -> RunFault:
    title = run.columns["state"].titles[joint]
    detail = (
        f"{title} moves against its action (correlation {measured:.2f}), {words} with it "
        f"({usual:.2f}): another sign?"
    )
    place = run.episode_index, 0, run.num_frames
    return RunFault("other_sign", *place, detail, measured, usual, "correlation", signal=title)
