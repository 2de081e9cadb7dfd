"""Progress heads: from the hidden states of a sample to progress in 0..1, and what each is trained with.

`ProgressHead` pools vision and question tokens only. A causal model's states there cannot see the answer, so a reward
is one prefill with no decoding and cannot copy the answer's number. Beside progress it says how probably the run has
reached its end state. `PublishedHead` is ProcVLM's, kept to compare with: it pools the answer, too.
"""

from typing import Any

import torch
from torch import nn

from training.recipe import HeadConfig

TAIL, TAIL_DROPOUT = 14, 0.5  # published: half of the features of the last 14 tokens are dropped in training
SLOPE, SHIFT = 1.2, 0.1  # published: progress = sigmoid(1.2 z - 0.1), there in training only; ours serve it, too


class Head(nn.Module):
    """What the two heads share: `outputs` numbers a sample, read as progress, and their loss.

    The first is z, and progress is sigmoid(z). A head with `has_done` has one output more: the logit of having reached
    the end state, which a sample has where its progress is 1.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size = config, hidden_size

    def progress(self, raw: torch.Tensor) -> torch.Tensor:
        """Progress [n] in 0..1 of outputs [n, k]."""
        return torch.sigmoid(raw[:, 0])

    def done(self, raw: torch.Tensor) -> torch.Tensor | None:
        """Probability [n] of having reached the end state; None of a head that does not say."""
        return torch.sigmoid(raw[:, 1]) if self.config.has_done else None

    def loss(self, raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum of losses over the samples that have a label; target [n], NaN where there is none."""
        known = ~torch.isnan(target)
        raw, target = raw[known], target[known]
        loss = nn.functional.l1_loss(self.progress(raw), target, reduction="sum")
        if self.config.has_done:
            reached = (target >= 1).float()
            done = nn.functional.binary_cross_entropy_with_logits(raw[:, 1], reached, reduction="sum")
            loss = loss + self.config.done_weight * done
        return loss

    def _noisy(self, pooled: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.config.noise):
            return pooled
        return pooled + self.config.noise * torch.randn_like(pooled)


class ProgressHead(Head):
    """Attention pooling over the prompt and a small network."""

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        self.score = nn.Sequential(nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1))
        self.value = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden_size, 1),
        )
        self.finished = nn.Linear(hidden_size, 1) if config.has_done else None

    def forward(self, states: torch.Tensor, item: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Outputs [n, k], float32, with `has_done` one more, of the tokens of n samples one after the other:
        states [m, h], item [m] the number of the sample of each, prompt [m] true where a sample is asked."""
        states, item = states[prompt], item[prompt]
        pooled = self._noisy(pool(states, self.score(states), item))
        value = self.value(pooled)
        return (value if self.finished is None else torch.cat([value, self.finished(pooled)], -1)).float()


class PublishedHead(Head):
    """ProcVLM's: attention pooling over all tokens, the answer's too, and four times as wide a network."""

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        wide = 4 * hidden_size
        self.pooler = nn.Sequential(nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1))
        self.value_head = nn.Sequential(
            nn.Linear(hidden_size, wide),
            nn.GELU(),
            nn.LayerNorm(wide),
            nn.Dropout(config.dropout),
            nn.Linear(wide, hidden_size),
            nn.GELU(),
            nn.LayerNorm(hidden_size),
            nn.Dropout(config.dropout),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, states: torch.Tensor, item: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """As ProgressHead's, over all tokens."""
        if self.training:
            ends = item.bincount().cumsum(0)
            tail = (ends[item] - torch.arange(len(item), device=item.device) <= TAIL).unsqueeze(-1)
            states = torch.where(tail, nn.functional.dropout(states, TAIL_DROPOUT), states)
        pooled = pool(states, self.pooler(states), item)
        return self.value_head(self._noisy(pooled)).float()

    def progress(self, raw: torch.Tensor) -> torch.Tensor:
        return super().progress(SLOPE * raw - SHIFT)


def pool(states: torch.Tensor, scores: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """The mean [n, h] of each sample's states [m, h], weighted by the softmax of its scores [m, 1]; item [m] says whose
    each is, and each of the n samples has some."""
    scores, n = scores.squeeze(-1).float(), int(item[-1]) + 1
    largest = torch.zeros_like(scores[:n]).scatter_reduce(0, item, scores.detach(), "amax", include_self=False)
    weights = (scores - largest[item]).exp()
    weights = weights / weights.new_zeros(n).index_add(0, item, weights)[item]
    return states.new_zeros(n, states.shape[-1]).index_add(0, item, weights.to(states.dtype).unsqueeze(-1) * states)


def make_head(config: HeadConfig, hidden_size: int) -> Head:
    return (PublishedHead if config.pooling == "published" else ProgressHead)(config, hidden_size)


def head_json(head: Head) -> dict[str, Any]:
    """What `head_of` needs to make it again."""
    return {"hidden_size": head.hidden_size, **head.config.model_dump(mode="json")}


def head_of(facts: dict[str, Any]) -> Head:
    """Raises KeyError, TypeError or ValueError where `facts` are not head_json's."""
    facts = {"done_weight": 0.0} | facts  # what was written before there was such an output
    # Outputs that heads had once, and no recipe set, are no fields any more
    known = {name: value for name, value in facts.items() if name in HeadConfig.model_fields}
    return make_head(HeadConfig(**known), int(facts["hidden_size"]))
