"""What a failed blocking check stops: stages that read what it looked at, and releases of the dataset.

Stages and releases ask for themselves, so it does not matter who starts them: a command, Dagster, a job, the night.
"""

from core.domain.label_run import MIN_LABELLED
from core.values import grouped
from warehouse.lake.checks import (
    CHECKS,
    MAKE_ANEW,
    MOST_BROKEN,
    CheckScope,
    follows_schema,
    schema_faults,
)
from warehouse.lake.connection import LakeConnection
from warehouse.lake.lake import Lake
from warehouse.lake.publication import WHOLE_DATASET

# By dataset the least share of labelled episodes, as it was last built
LIMITS = """
SELECT dataset, coalesce((config ->> '$.stages.checks.min_labelled')::DOUBLE, ?) FROM build_configs"""
RUNS = "SELECT DISTINCT stage, dataset, chunk FROM stage_runs WHERE chunk <> ? ORDER BY ALL"


def failed_check(lake: LakeConnection, scope: CheckScope) -> tuple[str, str] | None:
    """The first blocking check of what a stage wrote that fails, in words, and the remedy; None: none."""
    for check in (check for check in CHECKS if check.is_blocking and scope.stage in check.stages):
        # Rows were held against their tables before the stage published them
        if scope.is_checked and check.run is follows_schema:
            continue
        outcome = check.run(lake, scope)
        if not outcome.passed:
            failed = f"the check {check.name} of {scope.stage} failed"
            if scope.chunk is not None:
                failed += f" in chunk {scope.chunk}"
            return f"{failed}: {outcome.detail}", check.remedy
    return None


def blocked_datasets(lake: Lake) -> dict[str, tuple[str, str]]:
    """Datasets of which a blocking check fails: the first that does, in words, and the remedy."""
    datasets, _, faults = schema_faults(lake)
    texts_by_dataset = grouped((dataset, text) for (dataset, _), text in faults.items())
    blocked = {
        dataset: (f"the corpus is broken: {'; '.join(texts[:MOST_BROKEN])}", MAKE_ANEW)
        for dataset, texts in texts_by_dataset.items()
        if dataset in datasets
    }
    limits = dict(lake.rows(LIMITS, [MIN_LABELLED]))
    # The other checks of each chunk, where the stage has run
    for stage, dataset, chunk in lake.rows(RUNS, [WHOLE_DATASET]):
        limit = limits.get(dataset, MIN_LABELLED)
        scope = CheckScope(stage, dataset, chunk, is_checked=True, min_labelled=limit)
        if failed := failed_check(lake, scope):
            blocked.setdefault(dataset, failed)
    return blocked
