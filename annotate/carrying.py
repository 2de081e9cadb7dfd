"""Labels of references carried over to an episode that is laid beside them."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched

import numpy as np

from annotate.alignment.engine import Beside, lay_beside, reference_weights, spread
from annotate.alignment.moments import Moments, distances

FOLLOWS = 2  # references: an episode does what the task asks for where it is like so many of them
USUAL_SHARE = 0.99  # of the moments of episodes of a task: one that is farther from the others than these is strange
AT_ONCE = 16  # episodes: what they are likely like takes memory


@dataclass(frozen=True)
class LabelReading:
    """What a label says of its episode: progress [n], and the frame at which each planned step was completed."""

    curve: np.ndarray
    ends: Mapping[int, int]


@dataclass(frozen=True)
class Carried:
    """What references say of an episode, before anybody doubts it; arrays [k], at its moments.

    ends: the frame at which each planned step was completed; a step that is missing was not. spread: how far the
    references are apart, the mean over the episode. doubt: how far the nearest one is. strangeness: how far each moment
    is from the nearest few; 1 is usual. usual: what hardly any moment of the task's other episodes exceeds.
    """

    own: Moments
    curve: np.ndarray
    ends: dict[int, int]
    spread: float
    doubt: float
    strangeness: np.ndarray
    usual: float = float("inf")

    @property
    def is_strange(self) -> np.ndarray:
        """At which moments it does something else than the references, bool [k]."""
        return self.strangeness > self.usual

    def earned(self) -> np.ndarray:
        """Progress [n]: nothing is earned at a strange moment."""
        gains = np.diff(self.curve, prepend=0.0)
        return self.own.at_all_frames(np.cumsum(np.where(self.is_strange & (gains > 0), 0.0, gains)))

    def completed(self) -> dict[int, int]:
        """The ends of steps after which not all is strange."""
        return {s: end for s, end in self.ends.items() if not self.is_strange[self.own.frames >= end].all()}


def with_usual[T](carried: Mapping[T, Carried], shows_usual: Container[T]) -> dict[T, Carried]:
    """The same, each with what is usual for the others; an episode that succeeded is never strange.

    shows_usual: the episodes that others are measured by.
    """
    found = {}
    for key, own in carried.items():
        others = [one.strangeness for other, one in carried.items() if other != key and other in shows_usual]
        if others and own.own.episode.signals.success is not True:
            # Few others do not show all that is usual
            usual = float(np.quantile(np.concatenate(others), USUAL_SHARE)) * (1 + 1 / len(others))
            own = replace(own, usual=usual)
        found[key] = own
    return found


def laid(
    episodes: Mapping[int, Moments],
    references: Mapping[int, Sequence[int]],
    shown: Sequence[Moments],
    usual: tuple[float, float],
) -> Iterator[tuple[int, dict[int, Beside]]]:
    """Each episode, by its place, beside some of the references, by theirs; a few episodes at a time."""
    for places in batched(episodes, AT_ONCE):
        pairs = [(i, r) for i in places for r in references[i]]
        laid = lay_beside([distances(episodes[i], shown[r], usual) for i, r in pairs])
        besides: dict[int, dict[int, Beside]] = {i: {} for i in places}
        for (i, r), beside in zip(pairs, laid, strict=True):
            besides[i][r] = beside
        yield from besides.items()


def carry_over(
    own: Moments, references: Sequence[tuple[Moments, LabelReading, Beside]], own_said: LabelReading | None = None
) -> Carried:
    """The mean of what references say of each moment, the nearer ones counting more.

    own_said: what the episode says of itself; it counts as much as the nearest reference.
    """
    besides = [beside for _, _, beside in references]
    weights = reference_weights(besides)
    says = np.stack([beside.likely @ said.curve[m.frames] for m, said, beside in references])

    # A step is over where most of what is said lies behind its end
    ends = {}
    for step in sorted({step for _, said, _ in references for step in said.ends}):
        behind = np.zeros(len(own))
        for weight, (m, said, beside) in zip(weights, references, strict=True):
            if step in said.ends:
                behind += weight * beside.likely[:, m.frames >= min(said.ends[step] - 1, m.frames[-1])].sum(axis=1)
        over = np.flatnonzero(behind >= weights.sum() / 2)
        if over.size:
            ends[step] = int(own.frames[over[0]])

    if own_said is not None:
        says, weights = np.vstack([says, own_said.curve[own.frames]]), np.r_[weights, 1.0]
    apart = np.sort([beside.apart for beside in besides], axis=0)[:FOLLOWS].mean(axis=0)
    doubt = min(beside.doubt for beside in besides)
    curve = np.average(says, axis=0, weights=weights)
    return Carried(own, curve, ends, float(spread(says, weights).mean()), doubt, apart)
