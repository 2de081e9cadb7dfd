"""From a model's output to the probability that a run has reached its end state, and to a yes or no.

The probability is Platt's: sigmoid(a s + b) of a score s, with a and b of the least cross entropy against labels that
are drawn a little towards the middle, (n+ + 1) / (n+ + 2) and 1 / (n- + 2) (Platt 1999), so that separable scores have
finite ones. The score is the logit of the head's own output, or progress where a model has no such output.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

EPSILON = 1e-6  # a probability's distance from 0 and 1 where its logit is taken
RIDGE = 1e-6  # so that scores that are all equal have an answer
STEPS = 100  # of Newton's method, which takes about ten


@dataclass(frozen=True)
class Success:
    """How a model's score becomes a probability, and from which one on a run counts as done.

    `of`: the head's own probability (its logit is taken), or progress itself. The rest says what it was calibrated on:
    moments at the end state and before it, and what the threshold reaches there.
    """

    of: Literal["done", "progress"]
    slope: float
    shift: float
    threshold: float
    balanced_accuracy: float
    reached: int
    unreached: int
    release: str = ""
    split: str = ""

    def probability(self, raw: float) -> float:
        """Of a head's probability or a progress, 0..1."""
        return float(_sigmoid(self.slope * _score(np.array([raw]), self.of) + self.shift)[0])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self | None:
        return cls(**card["success"]) if card.get("success") else None


def calibrate(
    raw: np.ndarray, reached: np.ndarray, of: Literal["done", "progress"], release: str = "", split: str = ""
) -> Success | None:
    """Calibrated on moments: a model's raw output [n] in 0..1, and whether the end state is reached [n]. None where
    there are only moments of one kind, which tell no threshold.

    The threshold is the one with the best balanced accuracy (mean of the shares of both kinds that are told right),
    half-way between the two probabilities beside it; of several such, the largest: a false success costs more.
    """
    reached = np.asarray(reached, bool)
    if reached.all() or not reached.any():
        return None
    score = _score(np.asarray(raw, np.float64), of)
    slope, shift = platt(score, reached)
    probability = _sigmoid(slope * score + shift)
    threshold, accuracy = best_threshold(probability, reached)
    return Success(of, slope, shift, threshold, accuracy, int(reached.sum()), int((~reached).sum()), release, split)


def platt(score: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the sigmoid, by Newton's method on the convex loss."""
    n, m = int(reached.sum()), int((~reached).sum())
    # Platt's smoothed targets: hard ones would drive the slope without bound where both kinds are cleanly apart.
    target = np.where(reached, (n + 1) / (n + 2), 1 / (m + 2))
    x = np.stack([score, np.ones_like(score)], 1)
    w = np.array([0.0, math.log((n + 1) / (m + 1))])
    loss = _loss(x @ w, target)
    for _ in range(STEPS):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - target)
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + RIDGE * np.eye(2)
        step, share = np.linalg.solve(hessian, gradient), 1.0
        # A full step may overshoot where the sigmoid is flat: it is halved until the loss does not rise.
        while (now := _loss(x @ (w - share * step), target)) > loss and share > 1e-6:
            share /= 2
        w = w - share * step
        if loss - now < 1e-12:
            break
        loss = now
    return float(w[0]), float(w[1])


def best_threshold(probability: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    """Threshold (at or above: done) and its balanced accuracy."""
    known = np.unique(probability)
    candidates = np.concatenate([[known[0]], (known[:-1] + known[1:]) / 2])
    told = probability[None, :] >= candidates[:, None]
    accuracy = (told[:, reached].mean(1) + (~told[:, ~reached]).mean(1)) / 2
    best = int(np.flatnonzero(accuracy >= accuracy.max() - 1e-12)[-1])
    return float(candidates[best]), float(accuracy[best])


def _score(raw: np.ndarray, of: str) -> np.ndarray:
    return raw if of == "progress" else logit(raw)


def logit(probability: Any) -> Any:
    """Of a number or an array; of 0 and 1 that of a probability as near to them as EPSILON."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return np.log(p / (1 - p))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def _loss(x: np.ndarray, target: np.ndarray) -> float:
    return float(np.sum(np.logaddexp(0, x) - target * x))
