"""Pairs of samples of one batch, one of which is further: what a Qwen model's preference head learns from.

They cost nothing beside the batch: whichever of its samples show one task, and are told its instruction, are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from annotate.preferences import FURTHER_BY
from training.labels import Labels
from training.negatives.config import AS_RECORDED, OF_TEXT


@dataclass(frozen=True)
class BatchPairs:
    """`rate`: at most so many pairs are drawn for each sample of a batch. `labels` say which task a run is of."""

    rate: float
    labels: Labels

    def __call__(self, rows: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> np.ndarray:
        """int64 [k, 2], numbers of samples: of each pair the one that is further, and the other. Their labels are
        FURTHER_BY apart, of one dataset and task; samples under a wrong instruction are in none."""
        tasks = [self._task(row) for row in rows]
        found = []
        for one, other in combinations(range(len(rows)), 2):
            if tasks[one] is None or tasks[one] != tasks[other]:
                continue
            margin = rows[one]["progress"] - rows[other]["progress"]
            if abs(margin) >= FURTHER_BY:
                found.append((one, other) if margin > 0 else (other, one))
        wanted = round(self.rate * len(rows))
        if len(found) > wanted:
            found = [found[k] for k in sorted(rng.choice(len(found), wanted, replace=False))]
        return np.array(found, np.int64).reshape(-1, 2)

    def _task(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        """None of a sample that is compared with none."""
        e = self.labels.get((row.get("dataset", ""), row.get("episode_index", -1)))
        is_told = row.get("negative", AS_RECORDED) not in OF_TEXT
        if e is None or not e.task or row.get("progress") is None or not is_told:
            return None
        return e.dataset, e.task
