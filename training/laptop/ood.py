"""Out-of-distribution pictures: detect them, and guess progress there from how much of the picture has changed.

A picture is out of distribution (OOD) by how far its embedding lies from the nearest of training, beside what pictures
of a held-out run usually have. There, neither robot nor task are known. What is left is how much of the picture differs
from the episode's first one: cell by cell, sorted, so that it does not count where. How much that is worth is learnt
from the training set.

A scene that one episode was shown of after training (adaptation) counts half as OOD: what the model learnt of it and
how much has changed both count.
"""

import torch
from torch import nn
from torch.nn import functional

from annotate.embeddings.projection import CELL, WHOLE

# Most OOD score of a picture within a scene that one episode was shown of after training
ADAPTED = 0.4
USUAL = 0.98  # share of the pictures of held-out runs that are in distribution
CERTAIN = 1.06  # times as far as that: from there on the score is 1
KEPT = 1024  # pictures of training that others are compared with
SMALLEST = 0.05  # change, in deviations: what is less is as good as none
LEAST = 1e-3  # of the distance: runs that are all alike have none
STEPS = 100
# Of the squared weights, in the loss: sizes of neighbouring cells say nearly the same
SHRINK = 1e-3


class OodDetector(nn.Module):
    """Works on embeddings [..., width] that are normalised: mean 0 and deviation 1 over training."""

    shown: torch.Tensor
    learnt: torch.Tensor
    usual: torch.Tensor
    middle: torch.Tensor
    spread: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = 1 + max(0, width - WHOLE) // CELL
        # Pictures of training, and of scenes that were learnt later [k, width], of length 1
        self.register_buffer("shown", torch.zeros(0, width))
        self.register_buffer("learnt", torch.zeros(0, width))
        # Until it is fitted, nothing is OOD
        self.register_buffer("usual", torch.tensor(float("inf")))
        self.register_buffer("middle", torch.zeros(sizes))
        self.register_buffer("spread", torch.ones(sizes))
        self.guess = nn.Linear(sizes, 1).requires_grad_(False)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """[...]: 0 for what lies as near training's pictures as usual, 1 for what is unlike all of them; at most
        ADAPTED for what lies as near a scene that was learnt later."""
        directions = _direction(features)
        score, later = (
            self._beyond(directions, directions_known)
            for directions_known in (self.shown, self.learnt)
        )
        return torch.minimum(score, later.clamp_min(ADAPTED) if len(self.learnt) else score)

    def _beyond(self, directions: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """0 up to the usual distance to the nearest, 1 from CERTAIN times that on."""
        if not len(references):
            return torch.zeros(directions.shape[:-1], device=directions.device)
        nearest = 1 - (directions @ references.T).amax(-1)
        return ((nearest / self.usual - 1) / (CERTAIN - 1)).clamp(0, 1)

    def by_change(self, features: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Progress 0..1 [...] of a picture by how much of it differs from its episode's first one."""
        return torch.sigmoid(self._logit(_sizes(features, first)))

    def _logit(self, sizes: torch.Tensor) -> torch.Tensor:
        return self.guess((sizes - self.middle) / self.spread)[..., 0]

    def fit(
        self, features: torch.Tensor, first: torch.Tensor, label: torch.Tensor, run: torch.Tensor
    ) -> None:
        """From pictures of training [n, width], each with its episode's first one; label: [n], NaN
        where none is; run: [n], which episode each is of. Of a single one nothing shows what is
        usual, and nothing will be OOD.

        The guess is a logistic regression: convex, so where it begins does not matter.
        """
        kept_places = slice(None, None, -(-len(features) // KEPT))
        self.shown = _direction(features[kept_places])
        distances = 1 - self.shown @ self.shown.T
        distances[run[kept_places, None] == run[kept_places]] = float("inf")
        self.usual.copy_(distances.amin(-1).quantile(USUAL, interpolation="lower").clamp_min(LEAST))
        is_labelled = ~torch.isnan(label)
        sizes = _sizes(features[is_labelled], first[is_labelled])
        target = label[is_labelled]
        self.middle.copy_(sizes.mean(0))
        self.spread.copy_(sizes.std(0, correction=0).clamp_min(1e-3))
        guess = self.guess.requires_grad_(True)
        nn.init.zeros_(guess.weight)
        nn.init.zeros_(guess.bias)
        optimizer = torch.optim.LBFGS(
            guess.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = functional.binary_cross_entropy_with_logits(self._logit(sizes), target)
            value = value + SHRINK * guess.weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        guess.requires_grad_(False)

    def widen(self, features: torch.Tensor) -> None:
        """Take in pictures [n, width] of a scene that was learnt after training."""
        self.learnt = torch.cat([self.learnt, _direction(features[:: -(-len(features) // KEPT)])])


def _direction(features: torch.Tensor) -> torch.Tensor:
    """Pictures' embeddings with each number at most 5 deviations, of length 1."""
    return functional.normalize(features.clamp(-5, 5), dim=-1)


def _sizes(features: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """[..., 1 + cells], logs: how far the picture is from the first one, and each cell, the least changed first"""
    change = features - first
    whole = change[..., :WHOLE].square().mean(-1, keepdim=True).sqrt()
    count = max(0, change.shape[-1] - WHOLE) // CELL
    fine = change[..., WHOLE : WHOLE + count * CELL].unflatten(-1, (count, CELL))
    cells = fine.square().mean(-1).sqrt().sort(-1).values
    return torch.log(torch.cat([whole, cells], -1) + SMALLEST)
