"""What was done outside Dagster, told to it: as runs, with the times at which it was done, who is upstream first.

The truth is in the lake (`stage_runs`); the event log is a copy of it that may be made anew at any time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from assets.defs.corpus.jobs import build_job, corpus_job
from assets.lib.events import LEFT_OUT, materialization
from assets.lib.tell import (
    CHUNK_KEYS,
    Tell,
    data_version,
    event_ids,
    left_out,
    newest_event,
    partition_of,
    store,
    tell_into,
    tell_stages,
)
from core.paths import ROOT, Workspace
from pipeline.held import held_outcomes
from pipeline.outcome import Outcome
from pipeline.stage import StageReport
from pipeline.stages import LISTING, STAGES
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, open_lake

MAX_DETAILED = 120  # stage runs told with pictures, tables and checks, some 0.2 s each; the older ones with numbers
PAUSE = timedelta(minutes=2)  # between stage runs of one build at most: after it another build began
TOLD = {"told_by": "command line"}  # tags of runs that Dagster did not start
# Assets that nothing makes unless somebody asks: how to ask, and what they are made of
ON_REQUEST = {
    "annotator_comparison": (
        "nobody compared the annotators: proccorpus eval annotators, or Materialize",
        "progress",
    ),
    "rewards": ("no model was asked about the chunk: Materialize asks the newest", "reward_model", "frames"),
}

STEP_EVENTS = (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS)
CODE = "proccorpus"  # the name of our code location, wherever it is served


# Runs


@contextmanager
def told_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, step: str, began: datetime, ended: datetime
) -> Iterator[Tell]:
    """A run of a job whose one step went on outside Dagster, and succeeded; yields what adds its events."""
    run = instance.create_run_for_job(job, tags=TOLD, remote_job_origin=_origin(job.name))

    def note(at: datetime, kind: dg.DagsterEventType, message: str, data: object = None) -> None:
        store(instance, run.run_id, job.name, at, kind, message, data, step if kind in STEP_EVENTS else None)

    note(began, dg.DagsterEventType.RUN_START, "Done by the command line, and told to Dagster afterwards.")
    note(began, dg.DagsterEventType.STEP_START, f"{step} began.")
    yield tell_into(instance, run.run_id, job.name, step)
    took = StepSuccessData((ended - began).total_seconds() * 1000)
    note(ended, dg.DagsterEventType.STEP_SUCCESS, "All of it is in the lake.", took)
    note(ended, dg.DagsterEventType.RUN_SUCCESS, "Done.")


def _origin(job: str) -> RemoteJobOrigin:
    """Where Dagster finds a job of ours, by which its pages file the run under it."""
    target = LoadableTargetOrigin(module_name="assets.definitions", working_directory=str(ROOT))
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, CODE)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)


# The corpus


def report_stages(instance: dg.DagsterInstance, workspace: Workspace, done: Sequence[StageReport]) -> None:
    """What builds outside Dagster did: a run per build, in which each stage run is a materialisation."""
    if not done:
        return
    lake = open_lake(workspace)
    ended = _ends(lake, done)
    detailed = {partition_and_stage(r.run) for r in sorted(done, key=lambda r: ended[_key(r.run)])[-MAX_DETAILED:]}
    for build in _builds(done, ended):
        began = min(ended[_key(r.run)] - timedelta(seconds=r.run.duration_s) for r in build)
        with told_run(instance, build_job, "build_corpus", began, max(ended[_key(r.run)] for r in build)) as tell:
            tell_stages(instance, lake, build, tell, lambda run: ended[_key(run)], detailed)


def partition_and_stage(run: StageRun) -> tuple[str, str]:
    return run.stage, partition_of(run)


def _key(run: StageRun) -> tuple[str, str, int, str]:
    return run.stage, run.dataset, WHOLE_DATASET if run.chunk is None else run.chunk, run.label_run


def _ends(lake: Lake, done: Sequence[StageReport]) -> dict[tuple[str, str, int, str], datetime]:
    """When each stage run ended; now where another one took its place since."""
    rows = lake.rows("SELECT stage, dataset, chunk, label_run, finished_at FROM stage_runs")
    ends = {(stage, dataset, chunk, label_run): at for stage, dataset, chunk, label_run, at in rows}
    now = datetime.now(UTC)
    return {_key(r.run): ends.get(_key(r.run), now) for r in done}


def _builds(
    done: Sequence[StageReport], ended: Mapping[tuple[str, str, int, str], datetime]
) -> list[list[StageReport]]:
    """Stage runs by the build that they were a part of: one after which nothing went on for a while was its last."""
    builds: list[list[StageReport]] = []
    last = datetime.min.replace(tzinfo=UTC)
    for report in sorted(done, key=lambda r: ended[_key(r.run)]):
        end = ended[_key(report.run)]
        if end - timedelta(seconds=report.run.duration_s) > last + PAUSE:
            builds.append([])
        builds[-1].append(report)
        last = end
    return builds


def reconcile(instance: dg.DagsterInstance, workspace: Workspace, names: Sequence[str]) -> int:
    """Report stage runs that the event log does not know, with what they counted; returns how many."""
    lake = open_lake(workspace)
    reported = _reported_versions(instance, names)
    missing = [
        StageReport(run, snapshot, json.loads(run.numbers or "{}"))
        for run, snapshot in stage_runs(lake, names)
        if reported.get((run.stage, partition_of(run))) != run.output_hash
    ]
    report_stages(instance, workspace, missing)
    return len(missing)


def _reported_versions(instance: dg.DagsterInstance, names: Sequence[str]) -> dict[tuple[str, str], str]:
    """The data version of the newest event, by stage and partition of some datasets."""
    reported: dict[tuple[str, str], str] = {}
    for stage in STAGES:
        for partition in instance.get_materialized_partitions(dg.AssetKey(stage.name)):
            if partition.rpartition(":")[0] in names or partition in names:
                reported[stage.name, partition] = data_version(instance, stage.name, partition) or ""
    return reported


def stage_runs(lake: Lake, names: Sequence[str]) -> list[tuple[StageRun, int]]:
    """The newest run of each stage on each partition of some datasets (over all label runs), with its snapshot."""
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs "
        "QUALIFY row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1"
    )
    runs = []
    for row in rows:
        snapshot, chunk = row.pop("snapshot"), row["chunk"]
        if row["stage"] == LISTING.name and chunk != WHOLE_DATASET:
            continue  # the chunks that listing registered: one materialisation per dataset
        row["chunk"] = None if chunk == WHOLE_DATASET else chunk
        if row["dataset"] in names:
            runs.append((StageRun(**row), snapshot))
    return runs


# What is made of the corpus


def report_outcomes(instance: dg.DagsterInstance, outcomes: Sequence[Outcome]) -> None:
    """What the second half made now, and what Dagster does not know yet: a run of the job `corpus`, whose end it is."""
    # What is made of something new is told, too, also where it came out as before: else it would look stale
    new = [outcome.asset for outcome in outcomes if data_version(instance, outcome.asset) != outcome.version]
    if not new:
        return
    first = [outcome.asset for outcome in outcomes].index(new[0])
    now = datetime.now(UTC)
    with told_run(instance, corpus_job, "close_corpus", now, now) as tell:
        for outcome in outcomes[first:]:
            tell(materialization(outcome), now)


def report_held(instance: dg.DagsterInstance, lake: Lake) -> None:
    """What the lake holds of the second half and Dagster does not know; and why there is nothing of what is missing."""
    new = []
    for held in held_outcomes(lake):
        known = newest_event(instance, held.asset)
        if known is None or (known[0] != held.version and known[1] < held.made_at.timestamp()):
            outcome = held.outcome()
            new += [(outcome, held.made_at)] if outcome else []
    if new:
        with told_run(instance, corpus_job, "close_corpus", min(at for _, at in new), max(at for _, at in new)) as tell:
            for outcome, at in new:
                tell(materialization(outcome), at)
    report_unasked(instance)


def report_unasked(instance: dg.DagsterInstance) -> None:
    """Of assets that are made on request alone: who has not asked is told how to, once what they need is there.

    Said again after what is upstream was made anew, or Dagster would call it stale.
    """
    for asset, (why, *upstream) in ON_REQUEST.items():
        needed = [event_ids(instance, name) for name in upstream]
        told = event_ids(instance, asset)
        for partition in [None] if asset == "annotator_comparison" else instance.get_dynamic_partitions(CHUNK_KEYS):
            newest = [_newest_id(ids, partition) for ids in needed]
            if not all(newest) or max(newest) < _newest_id(told, partition):
                continue
            if data_version(instance, asset, partition) in (None, LEFT_OUT.value):
                instance.report_runless_asset_event(left_out(asset, why, partition))


def _newest_id(ids: Mapping[str | None, int], partition: str | None) -> int:
    """The newest event of a partition, or of an asset without any; of all, where no partition is asked for."""
    if partition is None:
        return max(ids.values(), default=0)
    return ids.get(partition) or ids.get(None, 0)
