"""What starts a job when something happens outside: a source changed, people corrected labels or gave outcomes.

Each is off until somebody turns it on in the UI. What is stale is decided by the plan alone, as for the command line;
a state that was asked for once is not asked for again, so a build that fails is left to a person or to `nightly`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from assets.defs.corpus import jobs
from assets.defs.resources import CorpusResource
from pipeline.config import resolve
from pipeline.plan import CURRENT, Specs, plan
from pipeline.sources import OUT_OF_REACH, look_at
from pipeline.stages import stage_specs
from warehouse.lake import Lake, content_key, references

EVERY_S = 300
QUIET_S = 300  # how long ago the last correction has to be: a person's sitting is taken in at once


@dg.sensor(
    job=jobs.build_job,
    minimum_interval_seconds=EVERY_S,
    description="A source has other files, or another revision, than were listed, or people took episodes down or gave "
    "outcomes: build what follows from it.",
)
def source_revisions(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    specs, fingerprints, unreachable = {}, {}, []
    # A source that cannot be reached now is looked at the next time; it holds up no other
    for stored in corpus.all_builds():
        # What a build would read that takes the newest commit, which the run that is asked for does
        build = resolve(lake, stored, update=True)
        try:
            fingerprints[build.name] = look_at(build.source(lake.workspace.sources).fingerprint)()
        except OUT_OF_REACH as e:
            unreachable.append(f"not looked at: {build.name}: {e}")
            continue
        specs[build.name] = stage_specs(build)
    for line in unreachable:
        context.log.warning(line)

    changed = _changed(lake, specs, fingerprints)
    if not changed:
        return dg.SkipReason("; ".join(["every source is as it was listed", *unreachable]))
    # One run per state of the sources and of what people said: Dagster does not start a second run of the same key
    key = content_key(*(f"{name} {version}" for name, version in sorted(changed.items())))
    tags = {"changed": ", ".join(sorted(changed))[:200]}
    return dg.SensorResult([dg.RunRequest(run_key=f"source-{key}", run_config={"update": True}, tags=tags)])


def _changed(lake: Lake, specs: Mapping[str, Specs], fingerprints: Mapping[str, str]) -> dict[str, str]:
    """The input hash by dataset of each listing that is not current: its source, or what people said of it, changed."""
    listings = [step for step in plan(lake, specs, fingerprints) if step.chunk is None]
    return {step.dataset: step.input_hash for step in listings if step.status != CURRENT}


@dg.sensor(
    job=jobs.build_job,
    minimum_interval_seconds=60,
    description=f"People corrected labels, or named references, the last time {QUIET_S // 60} minutes ago: "
    "build the chunks concerned, those included whose runs are labelled like these.",
)
def new_corrections(corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    waiting = lake.rows("SELECT count(*) FROM pending_corrections")[0][0]
    shown = sum(len(chunks) for chunks in references.pending(lake).values())
    word = references.newest_word(lake)
    # Without a word of people it is the source that changed, which is another sensor's
    if word is None or not (waiting or shown):
        return dg.SkipReason("every correction is in the labels, and what references show")
    newest, at = word
    if (datetime.now(UTC) - at).total_seconds() < QUIET_S:
        return dg.SkipReason(
            f"{waiting} corrected episodes wait, and {shown} chunks to be labelled like references; "
            "somebody said something just now"
        )
    tags = {"corrected": str(waiting), "chunks_shown": str(shown)}
    return dg.SensorResult([dg.RunRequest(run_key=f"correction-{newest}", tags=tags)])
