"""Jobs and schedules, on one page.

`corpus` is the whole graph in one run: the build loop over all datasets, then release, model, evaluation, leaderboard.
(An asset job cannot hold assets of two partition sets, so it is a job of two ops that report what they made.)
`close` is the second half alone, with the check that guards it. `export` writes one export, a step per chunk.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets import exports
from assets.build import run_build, stored_build
from assets.closing import DEMO_RECIPE, DEMO_RELEASE, closing_steps
from assets.config import DatasetBuild, load_config
from assets.events import materialization, report_stages
from assets.exports import ExportRequest
from assets.partitions import chunk_key
from assets.resources import DEFAULT_CONFIG, Corpus
from warehouse.exports.common import Selection
from warehouse.exports.samples import SampleOptions


class CorpusConfig(dg.Config):
    """`config` is a build's TOML file; left empty, PROCCORPUS_CONFIG or the demo, and what the workspace holds."""

    config: str = ""
    release: str = DEMO_RELEASE
    recipe: str = DEMO_RECIPE
    workers: int = 0


def all_builds(corpus: Corpus, config: str) -> list[DatasetBuild]:
    """The datasets of a configuration, and those that the workspace holds besides."""
    path = Path(config or os.environ.get("PROCCORPUS_CONFIG") or DEFAULT_CONFIG)
    builds = {b.name: b for b in load_config(path)}
    lake = corpus.lake()
    for (name,) in lake.rows("SELECT dataset FROM build_configs ORDER BY 1"):
        known = stored_build(lake, name)
        if known:
            builds.setdefault(name, known)
    return list(builds.values())


@dg.op
def build_corpus(context: dg.OpExecutionContext, corpus: Corpus, config: CorpusConfig) -> str:
    """Bring every dataset up to date; fails when a chunk failed, after the others were built."""
    report = run_build(corpus.workspace(), all_builds(corpus, config.config), config.workers or None)
    report_stages(context.instance, corpus.workspace(), report.done)
    context.log.info(f"{len(report.done)} stages run, {report.up_to_date} were up to date")
    if report.failed:
        lines = [f"{f.stage} of {f.dataset} chunk {f.chunk}: {f.message}" for f in report.failed]
        raise dg.Failure("some chunks failed; the rest was built, run again to retry. " + "; ".join(lines))
    return f"{len(report.done)} stages"


@dg.op
def close_corpus(context: dg.OpExecutionContext, corpus: Corpus, config: CorpusConfig, built: str) -> None:
    """Release, train, evaluate, rank; a leak between splits stops it before the release."""
    from training.recipe import load_recipe

    context.log.info(f"after {built}")
    for outcome in closing_steps(corpus.lake(), config.release, load_recipe(config.recipe)):
        context.log_event(materialization(outcome))


@dg.job(name="corpus", description="The whole graph: bring all datasets up to date, release, train, evaluate, rank.")
def corpus_job() -> None:
    close_corpus(build_corpus())


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
        return ExportRequest(self.kind, Path(self.out), selection, samples, self.overwrite)


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


WHOLE_CHECKS = ("no_split_leak", "corpus_is_sound")  # of the corpus, on shards
close_job = dg.define_asset_job(
    "close",
    selection=dg.AssetSelection.groups("models")
    | dg.AssetSelection.checks(*(dg.AssetCheckKey(dg.AssetKey("shards"), c) for c in WHOLE_CHECKS)),
    description="Release, train, evaluate and rank the corpus as it is, if no test data leaks into training.",
)

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=corpus_job,
    cron_schedule="0 2 * * *",
    description="Every night at two: whatever changed in the sources is rebuilt, released, trained and scored.",
)
