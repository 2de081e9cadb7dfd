"""Answers drawn alike by one process and by several: chance hangs on an answer's place in the batch of all."""

from typing import Any

import pytest
import torch


def sample_by_place(monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> None:
    """Let each token of an answer be drawn by a number of its own, by the answer's place and the token's."""
    from training.grpo import GrpoTrainer

    generate = GrpoTrainer._by_transformers
    position = {"token": 0, "round": 0}

    def from_the_first_token_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        position.update(token=0, round=self.step)
        return generate(self, *args, **kwargs)

    def multinomial(probabilities: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        rows = len(probabilities)
        drawn = torch.Generator().manual_seed(1000 * position["round"] + position["token"])
        numbers = torch.rand(64, generator=drawn)[rank * rows : (rank + 1) * rows]
        position["token"] += 1
        return (
            (probabilities.cumsum(-1) < numbers[:, None])
            .sum(-1, keepdim=True)
            .clamp(max=probabilities.shape[1] - 1)
        )

    monkeypatch.setattr(GrpoTrainer, "_by_transformers", from_the_first_token_on)
    monkeypatch.setattr(torch, "multinomial", multinomial)
