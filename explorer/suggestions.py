"""Which run of a task to label next: asked of a function of the command line, which takes seconds on large tasks."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.errors import UserError
from explorer.access import PageError

# Suggestions of a dataset, one of each task: task, episode_index, why, and what labels are expected to be off by
Suggest = Callable[[str], list[dict[str, Any]]]


@dataclass
class Suggestions:
    """The newest of each dataset, kept until the lake changes. For use by several threads."""

    suggest: Suggest
    _kept: dict[str, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict, repr=False)
    _asking: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, dataset: str, snapshot: int) -> list[dict[str, Any]]:
        """Those of a dataset as of a snapshot, asked one at a time. Raises PageError."""
        with self._asking:
            kept = self._kept.get(dataset)
            if kept is None or kept[0] != snapshot:
                try:
                    kept = snapshot, self.suggest(dataset)
                except UserError as e:
                    raise PageError(f"no run can be suggested: {e}", 503) from e
                self._kept[dataset] = kept
            return kept[1]
