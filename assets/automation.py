"""Jobs and schedules, on one page; what starts them when something happens is in assets/sensors.py.

`corpus` is the whole graph in one run: the build loop over all datasets, then release, model, evaluation, leaderboard.
(An asset job cannot hold assets of two partition sets, so it is a job of two ops that report what they made.)
`build` is its first half; `close` the second, with the checks that guard it; `freeze` a release alone; `score` a model
on a release. `export` writes one export, a step per chunk.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.lib.events import materialization, report_stages
from assets.partitions import chunk_key
from assets.resources import DEFAULT_CONFIG, Corpus
from pipeline import exports
from pipeline.build import run_build, stored_build
from pipeline.config import DatasetBuild, load_config
from pipeline.exports import ExportRequest, plain_request
from pipeline.release_cycle import DEMO_RECIPE, DEMO_RELEASE, closing_steps, scoring_steps
from warehouse.exports.common import Selection
from warehouse.exports.samples import SampleOptions


class BuildConfig(dg.Config):
    """What is brought up to date."""

    config: str = Field(default="", description="A build's TOML file, as PROCCORPUS_CONFIG; empty: what is there.")
    workers: int = Field(default=0, description="Processes that build; 0: one per core.")


class CorpusConfig(BuildConfig):
    """What is brought up to date, released and scored."""

    release: str = Field(
        default=DEMO_RELEASE, description="A release of that name is replaced when the corpus changed."
    )
    train: bool = Field(default=True, description="Train the recipe on it; else the newest model there is is scored.")
    recipe: str = Field(default=DEMO_RECIPE, description="A built-in recipe's name, or a YAML file.")


def all_builds(corpus: Corpus, config: str) -> list[DatasetBuild]:
    """The datasets of a configuration, and those that the workspace holds besides; the demo's where it holds none."""
    lake = corpus.lake()
    held = lake.rows("SELECT dataset FROM build_configs ORDER BY 1")
    path = config or os.environ.get("PROCCORPUS_CONFIG") or (None if held else DEFAULT_CONFIG)
    builds = {b.name: b for b in (load_config(Path(path)) if path else ())}
    for (name,) in held:
        known = stored_build(lake, name)
        if known:
            builds.setdefault(name, known)
    return list(builds.values())


@dg.op
def build_corpus(context: dg.OpExecutionContext, corpus: Corpus, config: BuildConfig) -> str:
    """Bring every dataset up to date; fails when a chunk failed, after the others were built."""
    report = run_build(corpus.workspace(), all_builds(corpus, config.config), config.workers or None)
    report_stages(context.instance, corpus.workspace(), report.done)
    context.log.info(f"{len(report.done)} stages run, {report.up_to_date} were up to date")
    if report.failed:
        lines = [f"{f.stage} of {f.dataset} chunk {f.chunk}: {f.message}" for f in report.failed]
        why = (
            f"{len(lines)} chunks failed; the rest was built. Mend what is named, then run the job again: it goes on. "
        )
        records = [
            dg.TableRecord({"dataset": f.dataset, "chunk": str(f.chunk), "stage": f.stage, "why": f.message})
            for f in report.failed
        ]
        raise dg.Failure(why + "; ".join(lines), metadata={"failed": dg.MetadataValue.table(records)})
    return f"{len(report.done)} stages"


@dg.op
def close_corpus(context: dg.OpExecutionContext, corpus: Corpus, config: CorpusConfig, built: str) -> None:
    """Release, train, evaluate, rank; a leak between splits, or rows against the schema, stop it before the release."""
    from training.recipe import load_recipe

    context.log.info(f"after {built}")
    if config.train:
        outcomes = closing_steps(corpus.lake(), config.release, load_recipe(config.recipe))
    else:
        outcomes = scoring_steps(corpus.lake(), config.release)
    for outcome in outcomes:
        context.log_event(materialization(outcome))


@dg.job(
    name="corpus",
    config=dg.ConfigMapping(
        config_fn=lambda config: {
            "ops": {
                "build_corpus": {"config": {k: v for k, v in config.items() if k in BuildConfig.model_fields}},
                "close_corpus": {"config": dict(config)},
            }
        },
        config_schema=CorpusConfig.to_fields_dict(),
    ),
    description="The whole graph: bring all datasets up to date, release, train, evaluate, rank.",
)
def corpus_job() -> None:
    close_corpus(build_corpus())


@dg.job(
    name="build",
    config=dg.ConfigMapping(
        config_fn=lambda config: {"ops": {"build_corpus": {"config": dict(config)}}},
        config_schema=BuildConfig.to_fields_dict(),
    ),
    description="Bring all datasets up to date: whatever is missing or stale, and nothing else.",
)
def build_job() -> None:
    build_corpus()


class ExportConfig(dg.Config):
    """What `proccorpus export KIND` takes; `out` is a folder, `episodes` goes with one dataset."""

    kind: str
    out: str
    release: str = ""
    datasets: list[str] = Field(default_factory=list)
    episodes: list[int] = Field(default_factory=list)
    splits: list[str] = Field(default_factory=list)
    where: str = ""
    allow_licences: list[str] = Field(default_factory=list)
    families: list[str] = Field(default_factory=list)
    forms: list[str] = Field(default_factory=list)
    profile: str = ""
    seed: int = 0
    overwrite: bool = False

    def request(self) -> ExportRequest:
        episodes, where = tuple(self.episodes) or None, self.where or None
        datasets, splits, allow = tuple(self.datasets), tuple(self.splits), tuple(self.allow_licences)
        samples = SampleOptions(tuple(self.families), tuple(self.forms), self.profile or None, self.seed)
        selection = Selection(self.release or None, datasets, episodes, splits, where, allow)
        return plain_request(self.kind, Path(self.out), selection, samples, self.overwrite)


@dg.op(out=dg.DynamicOut(dict))
def begin_export(corpus: Corpus, config: ExportConfig) -> Iterator[dg.DynamicOutput[dict]]:
    """Prepare the folder, and tell the chunks that have something in it."""
    request = config.request()
    for number, (dataset, chunk) in enumerate(exports.begin(corpus.lake(), request)):
        key = f"{number}_" + re.sub(r"[^A-Za-z0-9_]", "_", chunk_key(dataset, chunk))  # unique, and readable
        yield dg.DynamicOutput({"config": config.model_dump(), "dataset": dataset, "chunk": chunk}, mapping_key=key)


@dg.op
def export_chunk(context: dg.OpExecutionContext, corpus: Corpus, part: dict) -> int:
    """Write the files of one chunk."""
    request = ExportConfig(**part["config"]).request()
    count = exports.write_chunk(corpus.lake(), request, part["dataset"], part["chunk"])
    context.log.info(f"{part['dataset']} chunk {part['chunk']}: {count} parts written")
    return count


@dg.op(ins={"written": dg.In(list[int])})
def finish_export(context: dg.OpExecutionContext, corpus: Corpus, config: ExportConfig, written: list[int]) -> None:
    """Write what is once, and the manifest."""
    done = exports.finish(corpus.lake(), config.request())
    for left in (*done.left_out, *done.notes):
        context.log.warning(left)
    facts = {k: v for k, v in vars(done).items() if isinstance(v, (str, int)) and not isinstance(v, bool)}
    context.log_event(dg.AssetMaterialization(asset_key=["exports", done.kind], metadata=facts))


@dg.job(
    name="export",
    config=dg.ConfigMapping(
        config_fn=lambda config: {
            "ops": {"begin_export": {"config": dict(config)}, "finish_export": {"config": dict(config)}}
        },
        config_schema=ExportConfig.to_fields_dict(),
    ),
    description="One export, chunk by chunk; run again, it goes on.",
)
def export_job() -> None:
    finish_export(begin_export().map(export_chunk).collect())


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

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=corpus_job,
    cron_schedule="0 2 * * *",
    run_config={"release": "nightly", "train": False},
    description="Every night at two: what changed is rebuilt and released as `nightly`, and the newest model scored.",
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
