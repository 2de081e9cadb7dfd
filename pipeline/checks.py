"""The checks of what a stage wrote. Blocking ones stop what is downstream, the release included.

What a check looks at is in warehouse/lake/checks.py; which stage has which checks stands with the stage. Dagster's
assets run them. A partition that the command line built is checked when it is reported to Dagster.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import DatasetBuild
from warehouse.lake import Lake
from warehouse.lake.checks import CheckOutcome, corpus_soundness, cost_within_budget, follows_schema, split_leaks


@dataclass(frozen=True)
class StageCheck:
    """`run` takes the chunk that was built; None for a stage that works on the dataset as a whole."""

    name: str
    description: str
    is_blocking: bool
    run: Callable[[Lake, DatasetBuild, int | None], CheckOutcome]


def first_words(check: Callable) -> str:
    """The first sentence or two of a check's docstring."""
    return " ".join((check.__doc__ or "").split("\n\n")[0].split())


def schema_check(stage: str) -> StageCheck:
    """The check that every stage has: its rows are as core/tables says."""
    return _check(follows_schema, lambda lake, build, chunk: follows_schema(lake, stage, build.name, chunk), True)


def chunk_check(check: Callable[[Lake, str, int], CheckOutcome], *, is_blocking: bool) -> StageCheck:
    """A check of one chunk that needs no configuration."""
    return _check(check, lambda lake, build, chunk: check(lake, build.name, chunk or 0), is_blocking)


def cost_check() -> StageCheck:
    """A warning where a model's answers cost more than the build allows."""
    of = cost_within_budget
    return _check(of, lambda lake, build, chunk: of(lake, build.name, chunk or 0, build.stages.vlm.max_cost_usd))


def _check(check: Callable, run: Callable[..., CheckOutcome], is_blocking: bool = False) -> StageCheck:
    return StageCheck(check.__name__, first_words(check), is_blocking, run)


# Checks of the corpus as a whole, before a release
GUARDS = {"no_split_leak": split_leaks, "corpus_is_sound": corpus_soundness}
