"""Out-of-distribution pictures: detect them, and guess progress there from how much of the picture has changed.

A picture is out of distribution (OOD) by how far its embedding lies from those of training. There, neither robot nor
task are known. What is left is how much of the picture differs from the episode's first one: cell by cell, sorted, so
that it does not count where. How much that is worth is learnt from the training set.

A scene that one episode was shown of after training (adaptation) counts half as OOD: what the model learnt of it and
how much has changed both count.
"""

import torch
from torch import nn
from torch.nn import functional

from annotate.embeddings.projection import CELL, WHOLE

ADAPTED = 0.4  # most OOD score of a picture within a scene that one episode was shown of after training
CERTAIN = 1.2  # times as far as the farthest of training: from there on the score is 1
SMALLEST = 0.05  # change, in deviations: what is less is as good as none
LEAST = 1e-6  # of the distance: pictures that are all alike have none
STEPS = 100
SHRINK = 1e-3  # of the squared weights, in the loss: sizes of neighbouring cells say nearly the same


class OodDetector(nn.Module):
    """Works on embeddings [..., width] that are normalised: mean 0 and deviation 1 over training."""

    farthest: torch.Tensor
    widened: torch.Tensor | None
    middle: torch.Tensor
    spread: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = 1 + max(0, width - WHOLE) // CELL
        self.register_buffer("farthest", torch.tensor(float("inf")))  # until it is fitted, nothing is OOD
        self.register_buffer("widened", None)  # the same of scenes that were learnt later
        self.register_buffer("middle", torch.zeros(sizes))
        self.register_buffer("spread", torch.ones(sizes))
        self.guess = nn.Linear(sizes, 1).requires_grad_(False)

    def score(self, seen: torch.Tensor) -> torch.Tensor:
        """[...]: 0 for what lies as near as training's pictures, 1 for what is unlike all of them; at most ADAPTED for
        what lies as near as a scene that was learnt later."""
        distance = _distance(seen)
        score = _beyond(distance, self.farthest)
        if self.widened is None:
            return score
        return torch.maximum(score * ADAPTED, _beyond(distance, self.widened))

    def by_change(self, seen: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Progress 0..1 [...] of a picture by how much of it differs from its episode's first one."""
        return torch.sigmoid(self._logit(_sizes(seen, first)))

    def _logit(self, sizes: torch.Tensor) -> torch.Tensor:
        return self.guess((sizes - self.middle) / self.spread)[..., 0]

    def fit(self, seen: torch.Tensor, first: torch.Tensor, label: torch.Tensor) -> None:
        """From pictures of training [n, width], each with its episode's first one; label: [n], NaN where none is.

        The guess is a logistic regression: convex, so where it begins does not matter.
        """
        self.farthest.copy_(_distance(seen).max().clamp_min(LEAST))
        known = ~torch.isnan(label)
        sizes, wanted = _sizes(seen[known], first[known]), label[known]
        self.middle.copy_(sizes.mean(0))
        self.spread.copy_(sizes.std(0, correction=0).clamp_min(1e-3))
        guess = self.guess.requires_grad_(True)
        nn.init.zeros_(guess.weight)
        nn.init.zeros_(guess.bias)
        optimizer = torch.optim.LBFGS(guess.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = functional.binary_cross_entropy_with_logits(self._logit(sizes), wanted)
            value = value + SHRINK * guess.weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        guess.requires_grad_(False)

    def widen(self, seen: torch.Tensor) -> None:
        """Take in pictures [n, width] of a scene that was learnt after training, and what lies as near."""
        reached = self.farthest if self.widened is None else self.widened
        self.widened = torch.maximum(reached, _distance(seen).max())


def _beyond(distance: torch.Tensor, farthest: torch.Tensor) -> torch.Tensor:
    """0 up to `farthest`, 1 from CERTAIN times that on."""
    return ((distance / farthest - 1) / (CERTAIN - 1)).clamp(0, 1)


def _distance(seen: torch.Tensor) -> torch.Tensor:
    """Root mean square of a picture's embedding, each number at most 5 deviations."""
    return seen.clamp(-5, 5).square().mean(-1).sqrt()


def _sizes(seen: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """[..., 1 + cells], logs: how far the picture is from the first one, and each cell, the least changed first"""
    change = seen - first
    whole = change[..., :WHOLE].square().mean(-1, keepdim=True).sqrt()
    count = max(0, change.shape[-1] - WHOLE) // CELL
    fine = change[..., WHOLE : WHOLE + count * CELL].unflatten(-1, (count, CELL))
    cells = fine.square().mean(-1).sqrt().sort(-1).values
    return torch.log(torch.cat([whole, cells], -1) + SMALLEST)
