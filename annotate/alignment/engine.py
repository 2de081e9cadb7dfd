"""Soft alignment: how likely each moment of an episode is each moment of a reference.

An episode goes through its reference from the beginning on. From one moment to the next it stays where it is, or goes
on and passes over any number of moments; both cost a little, and so does each moment that is unlike. The least cost of
all ways through a pair of moments, from the beginning (forward) and to the end (backward), becomes a probability: the
softmax over the reference's moments (the max-product form of the forward-backward algorithm of hidden Markov models,
Rabiner 1989).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# In units of what it costs to pass over a moment: to stay at one, and a usual distance
STAY, DISTANCE = 1 / 3, 5 / 3
FLATNESS = 0.3  # of usual distances: a reference that is so much farther weighs 1/e as much
BLOCK = 2**22  # cells of the distances that are worked on side by side


@dataclass(frozen=True)
class Beside:
    """An episode beside one reference.

    likely: float64 [k, m], rows sum to 1: how likely each moment of the episode is each of the reference's.
    apart: float64 [k]: how unlike both are at each moment of the episode; 1 is usual.
    """

    likely: np.ndarray
    apart: np.ndarray

    @property
    def doubt(self) -> float:
        return float(self.apart.mean())


def lay_beside(distances: Sequence[np.ndarray]) -> list[Beside]:
    """Each pair of an episode and a reference by its distances [k, m]; pairs do not depend on one another."""
    order = sorted(range(len(distances)), key=lambda i: distances[i].shape)
    found: dict[int, Beside] = {}
    block: list[int] = []
    for place, i in enumerate(order):
        block.append(i)
        following = distances[order[place + 1]].shape if place + 1 < len(order) else None
        longest = max(distances[j].shape[0] for j in block), max(distances[j].shape[1] for j in block)
        if (
            following is None
            or (len(block) + 1) * max(longest[0], following[0]) * max(longest[1], following[1]) > BLOCK
        ):
            for j, beside in zip(block, _block([distances[j] for j in block]), strict=True):
                found[j] = beside
            block = []
    return [found[i] for i in range(len(distances))]


def _block(distances: Sequence[np.ndarray]) -> list[Beside]:
    weighted = [d * DISTANCE for d in distances]
    forward = forward_costs(weighted)
    backward = forward_costs([d[::-1, ::-1] for d in weighted])
    besides = []
    for d, own, to, after in zip(distances, weighted, forward, backward, strict=True):
        likely = softmax(to + after[::-1, ::-1] - own)
        besides.append(Beside(likely, (likely * d).sum(axis=1)))
    return besides


def forward_costs(weighted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The least cost [k, m] of being at each moment of the reference by what was seen so far, of several pairs.

    weighted: distances [k, m], in the unit of the moves.
    """
    longest, most = (max(d.shape[axis] for d in weighted) for axis in (0, 1))
    # Pairs lie side by side; what a shorter one lacks is never come to
    costs = np.full((longest, len(weighted), most), np.inf)
    for p, d in enumerate(weighted):
        costs[: d.shape[0], p, : d.shape[1]] = d
    out = np.empty_like(costs)
    best = out[0] = np.arange(most, dtype=np.float64) + costs[0]
    for i in range(1, longest):
        best = out[i] = onward(best) + costs[i]
    return [out[: d.shape[0], p, : d.shape[1]] for p, d in enumerate(weighted)]


def onward(best: np.ndarray, passing: float = 1.0, back: float = np.inf) -> np.ndarray:
    """The least cost of coming to each moment of a reference, [..., m], from the costs of having been at each before:
    by staying, by going on and passing over any number of moments, or by going back as far as need be."""
    passed = np.arange(best.shape[-1], dtype=np.float64) * passing
    ahead = np.minimum.accumulate(best - passed, axis=-1)[..., :-1] + passed[:-1]
    moved = best + STAY
    np.minimum(moved[..., 1:], ahead, out=moved[..., 1:])
    if back < np.inf:
        behind = np.minimum.accumulate(best[..., ::-1], axis=-1)[..., ::-1][..., 1:] + back
        np.minimum(moved[..., :-1], behind, out=moved[..., :-1])
    return moved


def softmax(costs: np.ndarray) -> np.ndarray:
    """Probabilities of each row, by costs [..., m]."""
    likely = np.exp(costs.min(axis=-1, keepdims=True) - costs)
    return likely / likely.sum(axis=-1, keepdims=True)


def reference_weights(besides: Sequence[Beside]) -> np.ndarray:
    """How much each reference of one episode counts, float64 [references], the nearest 1."""
    doubts = np.array([beside.doubt for beside in besides])
    return np.exp((doubts.min() - doubts) / FLATNESS)


def spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted standard deviation [k] of what several references say, [references, k]."""
    mean = np.average(values, axis=0, weights=weights)
    return np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
