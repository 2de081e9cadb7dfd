"""Behaviour cloning with a weight for each frame: all arms and seeds of a task, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.policy.protocol import Cloning

TINY = 1e-6


@dataclass(frozen=True)
class Policy:
    """A perceptron: what is seen, normalised, through layers of (weight [in, out], bias [out]), to an action [4]."""

    mean: np.ndarray
    spread: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    scale: np.ndarray  # of actions

    def action(self, observation: np.ndarray) -> np.ndarray:
        """float32 [4], -1 to 1, of what is seen, float32 [d]."""
        x = (observation - self.mean) / self.spread
        for k, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if k + 1 < len(self.layers):
                x = np.maximum(x, 0)
        return np.clip(x * self.scale, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Policies:
    """Of several arms and seeds: tensors [arms, seeds, in, out] and [arms, seeds, out] of each layer; final losses."""

    mean: np.ndarray
    spread: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    losses: np.ndarray  # [arms, seeds], of the last hundredth of the steps

    def one(self, arm: int, seed: int) -> Policy:
        layers = tuple((weight[arm, seed], bias[arm, seed]) for weight, bias in self.layers)
        return Policy(self.mean, self.spread, layers, self.scale)

    def save(self, path: Path) -> None:
        flat: dict[str, np.ndarray] = {}
        for k, (weight, bias) in enumerate(self.layers):
            flat |= {f"w{k}": weight, f"b{k}": bias}
        facts = {
            "mean": self.mean,
            "spread": self.spread,
            "scale": self.scale,
            "losses": self.losses,
        }
        np.savez(path, allow_pickle=False, **flat, **facts)

    @classmethod
    def load(cls, path: Path) -> "Policies":
        with np.load(path, allow_pickle=False) as file:
            count = sum(name.startswith("w") for name in file.files)
            layers = tuple((file[f"w{k}"], file[f"b{k}"]) for k in range(count))
            return cls(file["mean"], file["spread"], file["scale"], layers, file["losses"])


def clone(
    observations: np.ndarray,
    actions: np.ndarray,
    weights: np.ndarray,
    seeds: Sequence[int],
    cloning: Cloning,
) -> Policies:
    """Train a policy for each row of `weights` [arms, n] and each seed, on `observations` [n, d] and `actions` [n, 4].

    Policies of one seed begin alike and see the same batches, whatever their arm: only the weights differ. A batch's
    loss is the mean over its frames by their weights. Raises ValueError where an arm leaves nothing to learn from.
    """
    if not (weights.sum(1) > 0).all() or (weights < 0).any() or not np.isfinite(weights).all():
        raise ValueError("each arm needs weights of 0 and more, and some above 0")
    arms = len(weights)
    d = observations.shape[1]
    mean = observations.mean(0)
    spread = observations.std(0) + 1e-3
    scale = np.sqrt((actions**2).mean(0)) + 1e-3
    inputs = torch.from_numpy(((observations - mean) / spread).astype(np.float32))
    target_actions = torch.from_numpy((actions / scale).astype(np.float32))
    worth = torch.from_numpy(weights.astype(np.float32))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sizes = [d, cloning.hidden, cloning.hidden, actions.shape[1]]
    parameters = []
    for fan_in, fan_out in pairwise(sizes):
        first = torch.stack(
            [torch.randn(fan_in, fan_out, generator=g) * (2 / fan_in) ** 0.5 for g in generators]
        )
        parameters.append(first.repeat(arms, 1, 1).requires_grad_())  # [arms * seeds, in, out]
        parameters.append(torch.zeros(arms * len(seeds), 1, fan_out, requires_grad=True))
    optimiser = torch.optim.Adam(parameters, lr=cloning.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cloning.steps)
    weight_averages = []
    for step in range(cloning.steps):
        drawn = torch.stack(
            [torch.randint(len(inputs), (cloning.batch,), generator=g) for g in generators]
        )
        x, y = (values[drawn].repeat(arms, 1, 1) for values in (inputs, target_actions))
        w = worth[:, drawn].flatten(0, 1)
        for k in range(0, len(parameters), 2):
            x = torch.baddbmm(parameters[k + 1], x, parameters[k])
            if k + 2 < len(parameters):
                x = torch.relu(x)
        loss = ((x - y).square().mean(-1) * w).sum(1) / (w.sum(1) + TINY)
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
        if step >= cloning.steps - max(1, cloning.steps // 100):
            weight_averages.append(loss.detach().numpy().copy())
    shape = (arms, len(seeds))
    trained = [p.detach().numpy() for p in parameters]
    layers = tuple(
        (trained[k].reshape(*shape, *trained[k].shape[1:]), trained[k + 1].reshape(*shape, -1))
        for k in range(0, len(trained), 2)
    )
    mean, spread, scale = (v.astype(np.float32) for v in (mean, spread, scale))
    return Policies(mean, spread, scale, layers, np.mean(weight_averages, 0).reshape(shape))
