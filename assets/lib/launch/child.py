"""The job's side: what a training process tells the Dagster run that started it. Knows only dagster_pipes."""

import os
import time
from collections.abc import Callable

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from pipeline.outcome import StepOutcome, outcome_facts
from training.runs import Point

EVERY_S = 10.0  # between two lines in the run's log


def launched() -> bool:
    """Was this process started by a Dagster run that listens?"""
    return DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ


def report(train: Callable[[Callable[[Point], None]], StepOutcome]) -> StepOutcome:
    """Train, with a line for the first step, the last, and every ten seconds; then the materialisation, with its
    numbers, loss curve and files. An error is told to the run, too.
    """
    with open_dagster_pipes() as pipes:
        reported_s = -EVERY_S

        def on_step(point: Point) -> None:
            nonlocal reported_s
            now_s = time.monotonic()
            if point.done < 1 and now_s - reported_s < EVERY_S:
                return
            reported_s = now_s
            rate = f"{point.samples_per_s:.3g} samples/s"
            pipes.log.info(
                f"step {point.step + 1}, {point.done:.0%}: loss {point.loss:.4g}, {rate}"
            )

        outcome = train(on_step)
        facts = {
            name: {"type": kind, "raw_value": value}
            for name, (kind, value) in outcome_facts(outcome).items()
        }
        pipes.report_asset_materialization(metadata=facts, data_version=outcome.version)
        return outcome
