"""How far the failed runs of a task came, told by where the arm was, what the hand held and the first picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.motion import grip, spot
from annotate.motion.carrying import Swing
from annotate.motion.nearness import Reached, Ways, reached, some, ways

# Of how far a run came that missed its thing: its hand ended beside it, or drew back with nothing in it. For each
# task the failed runs of all others choose 0.4, of 0.3 to 1; from 0.3 to 0.6 the error at the end differs by 0.002.
KEPT = 0.5


@dataclass(frozen=True)
class Run:
    """A run of the task. `begins`: of a successful one, the frame at which it first does something to its thing."""

    success: bool | None
    state: np.ndarray | None  # [n, d]
    gripper: np.ndarray | None  # [n], how far open
    picture: np.ndarray | None  # luma of the first frame, [p]
    swings: Sequence[Swing]
    begins: int | None


def how_far(runs: Sequence[Run], *, one_thing: bool) -> list[Reached | None]:
    """Of each failed run; None of the others, and where nothing tells. `one_thing`: what a hand holds is the thing.

    An arm that was ever far from the ways of successful runs went astray, unless its hand held what theirs did. One
    that never came near the spot which its first picture tells, and one whose hand closed on nothing, missed it. Of a
    run that missed its thing half of how far it came counts.
    """
    successful = [i for i, r in enumerate(runs) if r.success]
    known = ways([runs[i].state for i in successful])
    holds: list[bool | None] = [None] * len(runs)
    if one_thing:
        levels = [grip.hold(r.swings, r.gripper) for r in runs]
        holds = grip.holding(levels, [r.success for r in runs], [r.gripper for r in runs])
    order = {
        i: spot.Run(r.picture, r.state, r.begins)
        for i, r in enumerate(runs)
        if r.begins is not None and r.picture is not None and r.state is not None
    }
    spots = spot.learn([list(order.values())[k] for k in some(len(order))]) if order else None
    found: list[Reached | None] = []
    for r, held in zip(runs, holds, strict=True):
        near = None
        if r.success is False:
            near = _near(r, runs, known, successful, holds=held is True)
            if near and spots and held is not True:
                near = _told(r, near, order.get(near.run), spots)
            if held is False:
                near = _empty_handed(r, near, runs)
        found.append(near and _missed(near, runs[near.run].begins))
    return found


def _near(r: Run, runs: Sequence[Run], known: Ways | None, successful: Sequence[int], *, holds: bool) -> Reached | None:
    """How far its arm shows that it came; one that holds its thing came at least to where it is grasped."""
    near = reached(r.state, known, strays=not holds) if known else None
    if near is None:
        return None
    near = replace(near, run=successful[near.run])
    return replace(near, frame=max(near.frame, runs[near.run].begins or 0)) if holds else near


def _told(r: Run, near: Reached, like: spot.Run | None, known: spot.Spots) -> Reached:
    """The same; one that never came to the spot which its first picture tells is as far as it came to it.

    That is as far as the successful run that it is most like, when that had as much of its way to the spot before it.
    """
    if like is None or r.picture is None or r.state is None:
        return near
    away = spot.distances(r.picture, r.state, known)
    if away.min() <= known.usual:
        return near
    theirs = spot.distances(like.picture, like.state, known)[: like.begins + 1]
    still = theirs / max(theirs[0], 1e-9) <= away[-1] / max(away[0], 1e-9)
    frame = int(np.argmax(still)) if still.any() else like.begins
    frame = min(frame, like.begins - 1, near.frame)
    return Reached(near.run, frame, int(np.argmin(away)) if near.left is None else near.left)


def _empty_handed(r: Run, near: Reached | None, runs: Sequence[Run]) -> Reached | None:
    """The same of one that holds nothing: at most half of the way to its thing. How near it came is not told."""
    like = near.run if near else next((i for i, other in enumerate(runs) if other.begins is not None), None)
    begun = None if like is None else runs[like].begins
    closing = next((s.start for s in reversed(r.swings) if s.kind == "close"), None)
    if like is None or begun is None or closing is None or (near and near.frame < begun // 2):
        return near
    return Reached(like, begun // 2, closing if near is None or near.left is None else near.left)


def _missed(near: Reached, begins: int | None) -> Reached:
    """The same of one that missed its thing; one that went astray after the deed began had met it."""
    if near.left is None or (begins is not None and near.frame >= begins):
        return near
    return replace(near, frame=round(KEPT * near.frame))
