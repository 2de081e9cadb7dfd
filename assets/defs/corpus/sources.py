"""The source of each dataset that a configuration names, or that the workspace holds: an asset that Dagster observes.

Fresh is a source whose dataset a build brought up to date lately, in whole; a build that failed, such as a night's, is
a failed check of it. The assets of the corpus have no time by which they are late: a dataset that did not change is not
made again.
"""

import os
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import sqlalchemy.exc

from assets.defs.resources import CorpusResource
from assets.lib.events import UP_TO_DATE, datasets, source_key
from core.errors import UserError
from pipeline.plan import CURRENT, plan
from pipeline.sources import OUT_OF_REACH, look_at
from pipeline.stages import stage_specs

# The schedule `nightly` builds each night: a warning after one that was missed, and a failure after three
NIGHTLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=3), warn_window=timedelta(hours=36)
)


def register(names: list[str]) -> None:
    """Make partitions of datasets, so that they can be materialised before any job ran; without an instance nothing."""
    if not names or "DAGSTER_HOME" not in os.environ:
        return
    try:
        with dg.DagsterInstance.get() as instance:
            instance.add_dynamic_partitions(datasets.name or "", names)
    except sqlalchemy.exc.SQLAlchemyError as e:  # the storage of a deployment may start later
        dg.get_dagster_logger().warning(f"datasets are no partitions until the next reload: {e}")


def source_assets(names: list[str]) -> dg.AssetsDefinition:
    """The sources of some datasets, which are looked at one by one or together."""
    specs = [
        dg.AssetSpec(
            source_key(name),
            description=f"Files or repository that dataset {name} is read from.",
            group_name="sources",
            kinds={"source"},
            owners=["team:corpus"],
            freshness_policy=NIGHTLY,
        )
        for name in names
    ]
    about = "All that a build makes of the source is made, as it is now; otherwise what is not, and why."
    checks = [
        dg.AssetCheckSpec(UP_TO_DATE, asset=source_key(name), description=about) for name in names
    ]

    @dg.multi_observable_source_asset(
        name="sources", specs=specs, check_specs=checks, can_subset=True
    )
    def sources(
        context: dg.AssetExecutionContext, corpus: CorpusResource
    ) -> Iterator[dg.ObserveResult]:
        for name in names:
            if source_key(name) in context.selected_asset_keys:
                yield observed(corpus, name)

    return sources


def observed(corpus: CorpusResource, name: str) -> dg.ObserveResult:
    """The state of a dataset's source, and whether the corpus has it; of one that is out of reach why it is."""
    lake = corpus.lake()
    key = source_key(name)
    try:
        build = corpus.build(name)
        fingerprint = look_at(build.source(lake.workspace.sources).fingerprint)()
    except (*OUT_OF_REACH, UserError, dg.Failure) as e:
        failed = dg.AssetCheckResult(
            passed=False, check_name=UP_TO_DATE, asset_key=key, description=str(e)
        )
        return dg.ObserveResult(key, metadata={"not_looked_at": str(e)}, check_results=[failed])
    steps = plan(lake, {name: stage_specs(build)}, {name: fingerprint})
    late = [step for step in steps if step.status != CURRENT]
    if late:
        text = f"{len(late)} of {len(steps)} steps are to be made: build {name}"
    else:
        text = "all is as its source is"
    check = dg.AssetCheckResult(
        passed=not late, check_name=UP_TO_DATE, asset_key=key, description=text
    )
    version = dg.DataVersion(fingerprint)
    return dg.ObserveResult(
        key, {"revision": fingerprint}, check_results=[check], data_version=version
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """Of the datasets that are known when the code location is loaded: reload it where there are others."""
    names = CorpusResource().names()
    register(names)
    return dg.Definitions(assets=[source_assets(names)] if names else [])
