"""Which check is made of which stage's chunk. Blocking ones stop what is downstream, the release included.

What they look at is in warehouse/lake/checks.py. Dagster's assets run them; what the command line
built is checked when it is reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.config import STAGES, DatasetBuild
from warehouse.lake import Lake
from warehouse.lake.checks import (
    CheckOutcome,
    corpus_soundness,
    cost_within_budget,
    decodable_coverage,
    follows_schema,
    label_agreement,
    label_coverage,
    label_drift,
    progress_sanity,
    split_leaks,
)


@dataclass(frozen=True)
class StageCheck:
    """`run` takes the chunk that was built; None for a stage that works on the dataset as a whole."""

    name: str
    description: str
    is_blocking: bool
    run: Callable[[Lake, DatasetBuild, int | None], CheckOutcome]


def _of_chunk(check: Callable[[Lake, str, int], CheckOutcome], *, is_blocking: bool) -> StageCheck:
    def run(lake: Lake, build: DatasetBuild, chunk: int | None) -> CheckOutcome:
        return check(lake, build.name, chunk or 0)

    return StageCheck(check.__name__, first_words(check), is_blocking, run)


def first_words(check: Callable) -> str:
    """The first sentence or two of what a check says of itself."""
    return " ".join((check.__doc__ or "").split("\n\n")[0].split())


def _schema(stage: str, lake: Lake, build: DatasetBuild, chunk: int | None) -> CheckOutcome:
    return follows_schema(lake, stage, build.name, chunk)


def _cost(lake: Lake, build: DatasetBuild, chunk: int | None) -> CheckOutcome:
    return cost_within_budget(lake, build.name, chunk or 0, build.stages.vlm.max_cost_usd)


SCHEMA_CHECKS = {
    stage: StageCheck("follows_schema", first_words(follows_schema), True, partial(_schema, stage)) for stage in STAGES
}
COST_CHECK = StageCheck(cost_within_budget.__name__, first_words(cost_within_budget), False, _cost)
MORE_CHECKS = {
    "frames": (_of_chunk(decodable_coverage, is_blocking=True),),
    "segments": (COST_CHECK,),
    "progress": (
        _of_chunk(progress_sanity, is_blocking=True),
        _of_chunk(label_coverage, is_blocking=False),
        _of_chunk(label_agreement, is_blocking=False),
        _of_chunk(label_drift, is_blocking=False),
    ),
    "reasoning": (COST_CHECK,),
}
# Of the corpus as a whole, before a release
GUARDS = {"no_split_leak": split_leaks, "corpus_is_sound": corpus_soundness}
CHECKS = {stage: (SCHEMA_CHECKS[stage], *MORE_CHECKS.get(stage, ())) for stage in STAGES}
