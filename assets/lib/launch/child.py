"""The job's side: what a training process tells the Dagster run that started it. Knows only dagster_pipes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.outcome import Outcome, outcome_facts

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

    from training.loop import Point

EVERY_S = 10.0  # between two lines in the run's log
CONTEXT = "DAGSTER_PIPES_CONTEXT"


def launched() -> bool:
    """Was this process started by a Dagster run that listens?"""
    return CONTEXT in os.environ


class Reporter:
    """Lines of progress while a model is trained, and what came of it in the end."""

    def __init__(self, pipes: "PipesContext") -> None:
        self._pipes = pipes
        self._told = -EVERY_S

    def step(self, point: "Point") -> None:
        """A line for the first step, the last, and every ten seconds."""
        now = time.monotonic()
        if point.done < 1 and now - self._told < EVERY_S:
            return
        self._told = now
        rate = f"{point.samples_per_s:.3g} samples/s"
        self._pipes.log.info(f"step {point.step + 1}, {point.done:.0%}: loss {point.loss:.4g}, {rate}")

    def outcome(self, outcome: Outcome) -> None:
        """The materialisation, with its numbers, loss curve and files."""
        facts = {name: {"type": kind, "raw_value": value} for name, (kind, value) in outcome_facts(outcome).items()}
        self._pipes.report_asset_materialization(metadata=facts, data_version=outcome.version)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A connection to the Dagster run, for as long as the model is trained; an error is told there, too."""
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield Reporter(pipes)
