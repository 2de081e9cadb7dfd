"""All jobs, and what starts them: schedules, and sensors of what happens outside.

`corpus` is the build loop over all datasets, then release, model, evaluation and leaderboard, in one run. (An asset job
cannot hold assets of two partition sets, so it is a job of ops; the sensor `lake_contents` sees what they made.)
`build` is its first half, `close` the second. `export` is one export, a step per chunk where its format allows it; run
again, it goes on.

Where a cluster runs the steps (`assets.defs.resources`), chunks are spread over steps of their own, several in each.

Each other sensor is off until somebody turns it on in the UI. What is stale is decided by the plan alone, as for the
command line; a state that was asked for once is not asked for again, so a build that fails is left to a person or to
`nightly`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from assets.defs.resources import CorpusResource, is_one_process
from assets.lib.events import (
    RELEASABLE,
    UP_TO_DATE,
    chunk_key,
    datasets,
    observe,
    partition_of,
    register_partitions,
    source_key,
)
from assets.lib.model_configs import for_dagster
from core.errors import UserError
from core.names import DEMO_RECIPE, DEMO_RELEASE
from eval.scored import eval_run_id
from pipeline.build import BuildListener, BuildReport, Chunks, run_build
from pipeline.config import resolve
from pipeline.plan import CURRENT, plan
from pipeline.sources import OUT_OF_REACH, look_at
from pipeline.stage import StageReport, failure_text, reasons
from pipeline.stages import stage_specs
from training.recipe import load_recipe
from training.runs import newest_model
from warehouse.exports import export_kind
from warehouse.exports.export import Export
from warehouse.exports.options import SAMPLES, ExportSettings, Selection
from warehouse.lake import content_key, references

LOOK_S = 30
EVERY_S = 300
QUIET_S = 300  # how long ago the last correction has to be: a person's sitting is taken in at once


class BuildConfig(dg.Config):
    """What is brought up to date."""

    config: str = Field(
        default="", description="A build's TOML file, as PROCCORPUS_CONFIG; empty: what is there."
    )
    workers: int = Field(default=0, description="Processes that build; 0: one per core.")
    update: bool = Field(
        default=False,
        description="Read hub datasets at their newest commit, not at that of the last build.",
    )
    chunks_per_step: int = Field(
        default=16,
        ge=1,
        description="On a cluster: chunks that one step builds; each step takes a while to start.",
    )


class CorpusConfig(BuildConfig):
    """What is brought up to date, released and scored."""

    release: str = Field(
        default=DEMO_RELEASE,
        description="A release of that name is replaced when the corpus changed.",
    )
    train: bool = Field(
        default=True,
        description="Train the recipe on it; else the newest model there is is scored.",
    )
    recipe: str = Field(
        default=DEMO_RECIPE, description="A built-in recipe's name, or a YAML file."
    )


Failed = list[dict[str, str]]  # what was not built, and why


class ToDagster(BuildListener):
    """Logs stages as they end: the run shows how far it is. What they made `lake_contents` sees."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self.context = context

    def stage_done(self, report: StageReport) -> None:
        self.note(f"{report.run.stage} of {partition_of(report.run)}: {report.run.rows} rows")

    def note(self, text: str) -> None:
        self.context.log.info(text)


def _build(
    context: dg.OpExecutionContext,
    corpus: CorpusResource,
    config: BuildConfig,
    chunks: Chunks | None = None,
) -> BuildReport:
    """Bring all datasets up to date, or some chunks: those of a listing that was made just now."""
    update = config.update and not chunks
    builds = corpus.all_builds(config.config, update=update)
    names = {dataset for dataset, _ in chunks or ()}

    report = run_build(
        corpus.workspace(),
        [build for build in builds if not names or build.name in names],
        config.workers or None,
        ToDagster(context),
        update=update,
        chunks=chunks,
    )
    register_partitions(context.instance, corpus.lake())
    context.log.info(f"{len(report.done)} stages run, {report.up_to_date} were up to date")
    for failure in _failed(report):
        context.log.error(failure_text(failure))
    return report


def _failed(report: BuildReport) -> Failed:
    return [failure.facts for failure in report.failed]


@dg.op(out={"failed": dg.Out(Failed), "chunks": dg.DynamicOut(list)})
def build_corpus(
    context: dg.OpExecutionContext, corpus: CorpusResource, config: BuildConfig
) -> Iterator[Any]:
    """Bring every dataset up to date. On a cluster: list their episodes, and leave the chunks to other steps."""
    report = _build(context, corpus, config, None if is_one_process() else ())
    yield dg.Output(_failed(report), "failed")
    for k, part in enumerate(batched(report.left, config.chunks_per_step)):
        yield dg.DynamicOutput(list(part), str(k), "chunks")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
def build_chunks(
    context: dg.OpExecutionContext, corpus: CorpusResource, config: BuildConfig, chunks: list
) -> Failed:
    """Bring some chunks up to date. One whose machine went away is tried again: what was built is not built twice."""
    return _failed(_build(context, corpus, config, [(dataset, chunk) for dataset, chunk in chunks]))


@dg.op
def all_failed(context: dg.OpExecutionContext, failed: Failed, of_chunks: list[list]) -> Failed:
    """Of all steps together. Each dataset's source gets a failed check, or a time from which on it counts as late."""
    failures = [*failed, *(failure for part in of_chunks for failure in part)]
    failed_reasons = reasons(failures)
    dataset_names = context.instance.get_dynamic_partitions(datasets.name or "")
    for name in sorted({*dataset_names, *failed_reasons}):
        dataset_reasons = failed_reasons.get(name, ())
        _add_check(context, source_key(name), UP_TO_DATE, dataset_reasons)
        if not dataset_reasons:
            context.instance.report_runless_asset_event(dg.AssetMaterialization(source_key(name)))
    return failures


def _add_check(
    context: dg.OpExecutionContext, asset: dg.AssetKey, check: str, reasons: Sequence[str]
) -> None:
    """A check that did not pass for some reasons, or passed: there are none."""
    text = "; ".join(reasons) or "a job has done it"
    event = dg.AssetCheckEvaluation(
        asset, check, passed=not reasons, description=text, metadata={"reasons": [*reasons]}
    )
    # A run keeps one evaluation of each check: without a run all are kept
    context.instance.report_runless_asset_event(event)


def build_all() -> Any:
    """Of a job: what was not built of the whole corpus."""
    failed, chunks = build_corpus()
    return all_failed(failed, chunks.map(build_chunks).collect())


@dg.op
def close_corpus(
    context: dg.OpExecutionContext, corpus: CorpusResource, config: CorpusConfig, failed: Failed
) -> Failed:
    """Release, train, evaluate, rank; a leak between splits, or rows against the schema, stop it before the release.

    What stops it comes to what was not built, so that the run's one error has the reasons of both halves.
    """
    from pipeline.reward_model import closing_steps, scoring_steps  # imports torch

    try:
        licences = corpus.licences(config.config)
        if config.train:
            closing_steps(
                corpus.lake(), config.release, load_recipe(config.recipe), licences=licences
            )
        else:
            scoring_steps(corpus.lake(), config.release, licences)
        _add_check(context, dg.AssetKey("release"), RELEASABLE, [])
    except UserError as e:
        context.log.error(str(e))
        _add_check(context, dg.AssetKey("release"), RELEASABLE, [str(e)])
        return [
            *failed,
            {"dataset": "the corpus", "chunk": "all", "stage": config.release, "why": str(e)},
        ]
    return failed


@dg.op
def say_failed(failed: Failed) -> None:
    """Fails where something was not built: who is told of runs that fail hears of it, and all else is done."""
    if failed:
        lines = "; ".join(map(failure_text, failed))
        raise dg.Failure(
            f"partial: {len(failed)} failed; the rest was done. The next run tries again. {lines}",
            metadata={"failed": dg.MetadataValue.table([dg.TableRecord({**f}) for f in failed])},
            allow_retries=False,
        )


def _of_builds(config: dict[str, Any]) -> dict[str, Any]:
    return {op.name: {"config": config} for op in (build_corpus, build_chunks)}


@dg.job(
    name="corpus",
    config=dg.ConfigMapping(
        config_fn=lambda config: {
            "ops": {
                **_of_builds({k: v for k, v in config.items() if k in BuildConfig.model_fields}),
                "close_corpus": {"config": dict(config)},
            }
        },
        config_schema=CorpusConfig.to_fields_dict(),
    ),
    description="The whole graph: bring all datasets up to date, release, train, evaluate, rank.",
)
def corpus_job() -> None:
    say_failed(close_corpus(build_all()))


@dg.job(
    name="build",
    config=dg.ConfigMapping(
        config_fn=lambda config: {"ops": _of_builds(dict(config))},
        config_schema=BuildConfig.to_fields_dict(),
    ),
    description="Bring all datasets up to date: whatever is missing or stale, and nothing else.",
)
def build_job() -> None:
    say_failed(build_all())


nightly = dg.ScheduleDefinition(
    name="nightly",
    job=corpus_job,
    # deploy/ says `on`; who turns it off in the UI has the last word
    default_status=dg.DefaultScheduleStatus(
        "RUNNING" if os.environ.get("PROCCORPUS_NIGHTLY") == "on" else "STOPPED"
    ),
    cron_schedule="0 2 * * *",
    run_config={"release": "nightly", "train": False},
    description="Every night at two: what changed is rebuilt and released as `nightly`, and the newest model scored.",
)


@dg.sensor(
    minimum_interval_seconds=LOOK_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Shows what was built, released, trained and scored, by whatever program.",
)
def lake_contents(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SkipReason:
    if not corpus.workspace().exists():
        return dg.SkipReason("nothing was built yet")
    lake = corpus.lake()
    snapshot = lake.snapshot()
    former_snapshot = int(context.cursor or -1)
    if snapshot == former_snapshot:
        return dg.SkipReason("the lake is as it was")
    # A lake that was made anew counts its snapshots anew
    start = former_snapshot if former_snapshot < snapshot else -1
    num_runs = observe(context.instance, lake, start)
    context.update_cursor(str(snapshot))
    return dg.SkipReason(f"{num_runs} stage runs are new here")


@dg.sensor(
    job=build_job,
    minimum_interval_seconds=EVERY_S,
    description="A source has other files, or another revision, than were listed, or people took episodes down or gave "
    "outcomes: build what follows from it.",
)
def source_revisions(
    context: dg.SensorEvaluationContext, corpus: CorpusResource
) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    specs = {}
    fingerprints = {}
    unreachable = []
    # A source that cannot be reached now is looked at the next time; it holds up no other
    for stored in corpus.all_builds():
        # What a build would read that takes the newest commit, which the run that is asked for does
        build = resolve(lake, stored, update=True)
        try:
            fingerprints[build.name] = look_at(build.source(lake.workspace.sources).fingerprint)()
        except OUT_OF_REACH as e:
            unreachable.append(f"not looked at: {build.name}: {e}")
            context.log.warning(unreachable[-1])
            continue
        specs[build.name] = stage_specs(build)

    # The input hash of each listing that is not current: its source, or what people said of it, changed
    steps = plan(lake, specs, fingerprints)
    changed = {
        step.dataset: step.input_hash
        for step in steps
        if step.chunk is None and step.status != CURRENT
    }
    if not changed:
        return dg.SkipReason("; ".join(["every source is as it was listed", *unreachable]))
    # One run per state of the sources and of what people said: Dagster does not start a second run of the same key
    key = content_key(*(f"{name} {version}" for name, version in sorted(changed.items())))
    tags = {"changed": ", ".join(sorted(changed))[:200]}
    return dg.SensorResult(
        [dg.RunRequest(run_key=f"source-{key}", run_config={"update": True}, tags=tags)]
    )


@dg.sensor(
    job=build_job,
    minimum_interval_seconds=60,
    description=f"People corrected labels, or named references, the last time {QUIET_S // 60} minutes ago: "
    "build the chunks concerned, those included whose runs are labelled like these.",
)
def new_corrections(corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    waiting = lake.rows("SELECT count(*) FROM pending_corrections")[0][0]
    reference_chunks = sum(len(chunks) for chunks in references.pending(lake).values())
    word = references.newest_word(lake)
    # Without a word of people it is the source that changed, which is another sensor's
    if word is None or not (waiting or reference_chunks):
        return dg.SkipReason("every correction is in the labels, and what references show")
    newest, corrected_at = word
    if (datetime.now(UTC) - corrected_at).total_seconds() < QUIET_S:
        return dg.SkipReason(
            f"{waiting} corrected episodes wait, and {reference_chunks} chunks to be labelled like references; "
            "somebody said something just now"
        )
    tags = {"corrected": str(waiting), "chunks_shown": str(reference_chunks)}
    return dg.SensorResult([dg.RunRequest(run_key=f"correction-{newest}", tags=tags)])


close_job = dg.define_asset_job(
    "close",
    selection=dg.AssetSelection.groups("models"),
    description="Release, train, evaluate and rank the corpus as it is, if no test data leaks and all is sound.",
)

freeze_job = dg.define_asset_job(
    "freeze",
    selection=dg.AssetSelection.assets("release"),
    description="Freeze the corpus as it is under a name, if nothing leaks into training and all is sound.",
)

score_job = dg.define_asset_job(
    "score",
    selection=dg.AssetSelection.assets("evaluation", "leaderboard"),
    description="Score a model, beside the baselines, on the held-out episodes of a release.",
)


@dg.schedule(
    job=freeze_job,
    cron_schedule="0 6 * * 1",
    description="Mondays at six: a release that stays, named after the day.",
)
def weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    day = (context.scheduled_execution_time or datetime.now(UTC)).strftime("%Y-%m-%d")
    name = f"weekly-{day}"
    return dg.RunRequest(run_key=name, run_config={"ops": {"release": {"config": {"name": name}}}})


@dg.sensor(
    job=score_job,
    minimum_interval_seconds=60,
    description="A release was made: score the newest model on it, unless that was done.",
)
def new_release(corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    releases = lake.rows(
        "SELECT name, config_hash FROM releases ORDER BY created_at DESC, name LIMIT 1"
    )
    if not releases:
        return dg.SkipReason("there is no release yet")
    model = newest_model(lake)
    if model is None:
        return dg.SkipReason("there is no model yet: materialise reward_model")
    name, content = releases[0]
    if lake.rows(
        "SELECT 1 FROM eval_runs WHERE eval_run = ?", [eval_run_id(model, "held-out", content)]
    ):
        return dg.SkipReason(f"{model} was scored on {name}")
    config = {"ops": {"evaluation": {"config": {"name": name, "model": model}}}}
    return dg.SensorResult([dg.RunRequest(run_key=f"{name}-{content}-{model}", run_config=config)])


CHOOSING = Selection.model_fields | {name: ExportSettings.model_fields[name] for name in SAMPLES}
FIELDS: dict[str, Any] = {name: for_dagster(field) for name, field in CHOOSING.items()}
FIELDS["allow_licences"] = FIELDS.pop("allow")


class ExportConfig(create_model("SelectionFields", __base__=dg.Config, **FIELDS)):
    """What `proccorpus export KIND` takes: `episodes` goes with one dataset, `options` are the
    kind's own."""

    kind: str
    out: str
    overwrite: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    def opened(self, corpus: CorpusResource) -> Export:
        settings = {name: value for name, value in self if value not in (None, "", [])}
        settings["allow"] = settings.pop("allow_licences", ())
        kind = export_kind(self.kind)
        chosen = {name: settings[name] for name in Selection.model_fields if name in settings}
        options = {name: settings[name] for name in kind.options.model_fields if name in settings}
        return kind.open(
            corpus.lake(),
            Selection.model_validate(chosen),
            kind.read_options(options | self.options),
        )


@dg.op(out=dg.DynamicOut(dict))
def begin_export(corpus: CorpusResource, config: ExportConfig) -> Iterator[dg.DynamicOutput[dict]]:
    """Prepare the folder, and tell the chunks that have something in it."""
    chunks = config.opened(corpus).begin(Path(config.out), config.overwrite)
    for number, (dataset, chunk) in enumerate(chunks):
        # Unique, and readable
        key = f"{number}_" + re.sub(r"[^A-Za-z0-9_]", "_", chunk_key(dataset, chunk))
        yield dg.DynamicOutput(
            {"config": config.model_dump(), "dataset": dataset, "chunk": chunk}, mapping_key=key
        )


@dg.op
def export_chunk(context: dg.OpExecutionContext, corpus: CorpusResource, part: dict) -> int:
    """Write the files of one chunk."""
    config = ExportConfig(**part["config"])
    chunk = (part["dataset"], part["chunk"])
    count = config.opened(corpus).export_chunk(Path(config.out), chunk)
    context.log.info(f"{part['dataset']} chunk {part['chunk']}: {count} parts written")
    return count


@dg.op(ins={"written": dg.In(list[int])})
def finish_export(
    context: dg.OpExecutionContext, corpus: CorpusResource, config: ExportConfig, written: list[int]
) -> None:
    """Write what is once, and the manifest."""
    exported = config.opened(corpus).finish(Path(config.out), config.overwrite)
    for message in (*exported.left_out, *exported.notes):
        context.log.warning(message)
    facts = {
        k: v
        for k, v in vars(exported).items()
        if isinstance(v, (str, int)) and not isinstance(v, bool)
    }
    context.log_event(dg.AssetMaterialization(asset_key=["exports", exported.kind], metadata=facts))


@dg.job(
    name="export",
    config=dg.ConfigMapping(
        config_fn=lambda config: {
            "ops": {
                "begin_export": {"config": dict(config)},
                "finish_export": {"config": dict(config)},
            }
        },
        config_schema=ExportConfig.to_fields_dict(),
    ),
    description="One export, chunk by chunk; run again, it goes on.",
)
def export_job() -> None:
    finish_export(begin_export().map(export_chunk).collect())
