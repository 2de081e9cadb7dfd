"""Evaluation within a training run, and the best model of the run.

Each `train.evaluate_every` steps the model is written as a checkpoint, and that is asked about held-out episodes as
`proccorpus eval` would ask it: what is scored is what is kept. All processes load it and take a part of the episodes.
Training goes on as if nothing had been: its model, its data and all chance are as they were.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object

from core.errors import FailedError, UserError
from core.files import take_place
from training.checkpoint import chance_state, set_chance
from training.folder import CARD, read_card, write_card

FACTS = "held_out"  # what the card of a best model says of its evaluation
PREFIX = "held_out_"  # of the scores in a point of the curve
BY = "mae"  # the best has least of it: answers that cannot be read count as wrong as can be


class CheckpointScorer(Protocol):
    """Held-out episodes, and how a checkpoint's answers about them are scored (eval.held_out.within)."""

    def predict(self, folder: Path, part: int, parts: int) -> Any:
        """The answers of the checkpoint in `folder` for one of `parts` parts of the episodes, as JSON."""
        ...

    def scores(self, predicted: Sequence[Any]) -> dict[str, float]:
        """Of the answers about all parts in order: `mae`, less is better, and others by name."""
        ...


class HeldOutCheck:
    """Scores the model between two steps. All processes have one, and call it at the same steps.

    `write` puts the model that is learning into a folder as a checkpoint; all processes call it, the main one writes.
    `candidate`: the folder where it lies while it is scored; `best`: where the best stays.
    """

    def __init__(
        self, accelerator: Any, scorer: CheckpointScorer, write: Callable[[Path], None], candidate: Path, best: Path
    ) -> None:
        self._accelerator, self._scorer, self._write = accelerator, scorer, write
        self._candidate, self._folder = candidate, best
        self.best: dict[str, float] | None = None

    def begin(self, best: dict[str, float] | None, resumed: bool) -> None:
        """Where the run stands: `best` of the state that it goes on from.

        A best model that a killed run wrote after that state was is still the best one; without its folder there is
        none.
        """
        if resumed and (self._folder / CARD).exists():
            self.best = read_card(self._folder).get(FACTS) or best
        self._accelerator.wait_for_everyone()
        if not resumed and self._accelerator.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, step: int) -> dict[str, float]:
        """Scores by name, for the curve's point `step`. Raises FailedError."""
        chance = chance_state()
        self._write(self._candidate)
        self._accelerator.wait_for_everyone()
        found = self._scores(step)
        if self.best is None or found[BY] < self.best[BY]:
            self.best = {"step": step, **found}
            if self._accelerator.is_main_process:
                write_card(self._candidate, read_card(self._candidate) | {FACTS: self.best})
                take_place(self._candidate, self._folder)
        elif self._accelerator.is_main_process:
            shutil.rmtree(self._candidate)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the second model took
        set_chance(chance)
        return {PREFIX + name: value for name, value in found.items()}

    def _scores(self, step: int) -> dict[str, float]:
        """Of all processes' answers: the same in each."""
        part, parts = self._accelerator.process_index, self._accelerator.num_processes
        answers, failure = None, None
        # The others wait for this process, so they have to be told.
        try:
            answers = self._scorer.predict(self._candidate, part, parts)
        except (FailedError, UserError, RuntimeError, OSError, ValueError) as e:
            failure = e
        told = gather_object([(answers, failure and f"{type(failure).__name__}: {' '.join(str(failure).split())}")])
        for _, why in told:
            if why:
                raise FailedError(f"the model of step {step} could not be evaluated: {why[:300]}") from failure
        return self._scorer.scores([said for said, _ in told])
