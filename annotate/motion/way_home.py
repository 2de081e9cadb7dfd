"""Where the work of an episode is over by its arm's way: from there the arm goes back toward where it set out.

Only runs that are labelled as one step need it: grippers show where steps end, an arm that presses
or pushes does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from annotate.motion.observe import Observed
from annotate.motion.structure import AGREES
from annotate.motion.task_text import leaves_things_behind
from ingest.signals.gripper import moving_dimensions

TURN = 0.1  # of the longest distance to where it ends: an arm that goes away from there by less is on its last way
HOME = 2 / 3  # of how far it was from its start: an arm that ends so near to it has gone home


@dataclass(frozen=True)
class WayHome:
    """The last way of an episode's arm.

    start: its first frame. remoteness: how far from its first pose the arm ends, as a share of how
    far it was when this way began; 0: it ends where the episode began.
    """

    start: int
    remoteness: float


def ends_of_work(task: Sequence[Observed]) -> list[int]:
    """For each episode of a task the frame from which on no work is done: its arm rests, or goes home.

    The way home counts where it is a habit: more than half of the episodes turn at about the same
    share of their time. An episode whose own way differs is then over at the usual share.
    """
    ways = [_empty_handed_way(episode) for episode in task]
    usual_share = _usual_turning_share(ways, task)
    if usual_share is None:
        return [episode.final_rest for episode in task]
    ends = []
    for way, episode in zip(ways, task, strict=True):
        is_usual = way is not None and abs(way.start / len(episode) - usual_share) <= AGREES
        end = way.start if way is not None and is_usual else round(usual_share * len(episode))
        ends.append(min(max(end, 1), episode.final_rest))
    return ends


def _usual_turning_share(ways: Sequence[WayHome | None], task: Sequence[Observed]) -> float | None:
    """The share of their time at which the episodes of a task turn home; None where they have no such habit."""
    turning = [
        (way.start / len(episode), way) for way, episode in zip(ways, task, strict=True) if way
    ]
    if not turning:
        return None
    usual_share = median(share for share, _ in turning)
    num_agreeing = sum(abs(share - usual_share) <= AGREES for share, _ in turning)
    leads_home = median(way.remoteness for _, way in turning) <= HOME
    if leads_home and 2 * num_agreeing > len(task):
        return usual_share
    return None


def _empty_handed_way(episode: Observed) -> WayHome | None:
    """The way home of an episode, from where its gripper lets go; None where the arm may bring a thing along."""
    if episode.signals.state is None or not _shows_what_is_held(episode):
        return None
    way = way_home(episode.signals.state)
    if way is None:
        return None
    open_attempts = [
        a
        for a in episode.attempts
        if a.closed < way.start and (a.opens is None or a.opens > way.start)
    ]
    lets_go = [a.opens for a in open_attempts if a.opens is not None]
    if len(lets_go) < len(open_attempts):
        return None
    if lets_go:
        return replace(way, start=max(lets_go))
    return way


def _shows_what_is_held(episode: Observed) -> bool:
    """Is it known whether a thing comes along: by grippers whose open end is known, or by the text?"""
    leaves_things = leaves_things_behind(episode.signals.task)
    if leaves_things:
        return True
    grippers = episode.signals.grippers
    shows_hands = bool(grippers) and all(gripper.has_polarity for gripper in grippers)
    # Of a text that asks for carrying or pulling, a gripper that never closes has not seen all
    return shows_hands and (leaves_things is None or bool(episode.attempts))


def way_home(state: np.ndarray) -> WayHome | None:
    """The last way of an arm to where it ends; `state` [n, d] is its pose. None where it does not move.

    Example: an arm at 0, 1, 2, 3, 3, 2, 1, 0 goes home from frame 4 on, and ends where it began:
    remoteness 0.
    """
    is_moving, spread = moving_dimensions(state)
    if not is_moving.any():
        return None
    pose = state[:, is_moving] / spread[is_moving]
    to_end = np.linalg.norm(pose - pose[-1], axis=1)
    # Where the arm later is farther from its end than now, it still has other things to do
    farthest_later = np.maximum.accumulate(to_end[::-1])[::-1]
    goes_away = np.flatnonzero(farthest_later - to_end > TURN * to_end.max())
    first = int(goes_away[-1]) + 1 if goes_away.size else 0
    # It waits where it is farthest, until it has gone a part of what counts as going away
    is_far = to_end[first:] >= (1 - TURN / 2) * to_end[first:].max()
    start = first + int(np.flatnonzero(is_far)[-1])
    from_first_pose = np.linalg.norm(pose - pose[0], axis=1)
    return WayHome(start, float(from_first_pose[-1] / max(from_first_pose[start], 1e-9)))
