"""A model's threshold of success, from the validation episodes of a release."""

from collections.abc import Sequence

import numpy as np

from eval.held_out.episodes import HeldOut
from eval.reward.model import ModelScorer
from eval.reward.success import Success, calibrate

SPLIT = "val"
MOST = 2048  # moments that are asked about, spread over the episodes


def calibrated(scorer: ModelScorer, max_px: int, episodes: Sequence[HeldOut], release: str) -> Success | None:
    """None where the episodes have no moment at the end state, or no other. By the head's own output where it has one;
    of other heads, and of answers in words, by progress. Answers that cannot be read are left out."""
    raw: list[float] = []
    reached: list[bool] = []
    by_done = scorer.model.head is not None and scorer.model.head.config.has_done
    every = max(1, -(-sum(len(e.samples) for e in episodes) // MOST))
    for episode in episodes:
        items, labels = episode.items(max_px)[::every], episode.label[::every]
        for reward, label in zip(scorer.ask(items), labels, strict=True):
            value = reward.done if by_done else reward.progress
            if value is not None:
                raw.append(value)
                reached.append(bool(label >= 1))
    if not raw:
        return None
    return calibrate(np.array(raw), np.array(reached), "done" if by_done else "progress", release, SPLIT)
