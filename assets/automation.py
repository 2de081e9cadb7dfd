"""Jobs and schedules, on one page.

`corpus` is the whole graph in one run: the build loop over all datasets, then release, model, evaluation, leaderboard.
(An asset job cannot hold assets of two partition sets, so it is a job of two ops that report what they made.)
`close` is the second half alone, with the check that guards it.
"""

import os
from pathlib import Path

import dagster as dg

from assets.build import run_build, stored_build
from assets.closing import DEMO_RECIPE, DEMO_RELEASE, closing_steps
from assets.config import DatasetBuild, load_config
from assets.events import materialization, report_stages
from assets.resources import DEFAULT_CONFIG, Corpus


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


close_job = dg.define_asset_job(
    "close",
    selection=dg.AssetSelection.groups("models")
    | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("shards"), "no_split_leak")),
    description="Release, train, evaluate and rank the corpus as it is, if no test data leaks into training.",
)

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=corpus_job,
    cron_schedule="0 2 * * *",
    description="Every night at two: whatever changed in the sources is rebuilt, released, trained and scored.",
)
