"""What starts a job when something happens outside: a source changed, people corrected, a release was made.

Each is off until somebody turns it on in the UI. What is stale is decided by the plan alone, as for the command line;
a state that was asked for once is not asked for again, so a build that fails is left to a person or to `nightly`.
"""

from datetime import UTC, datetime

import dagster as dg

from assets.automation import all_builds, build_job, score_job
from assets.resources import Corpus
from ingest.sources.types import SourceError
from pipeline.build import resolve
from pipeline.plan import CURRENT, plan
from pipeline.release_cycle import newest_model
from warehouse.lake import content_key

EVERY_S = 300
QUIET_S = 300  # how long ago the last correction has to be: a person's sitting is taken in at once


@dg.sensor(
    job=build_job,
    minimum_interval_seconds=EVERY_S,
    description="A source has other files, or another revision, than were listed: build what follows from it.",
)
def source_revisions(context: dg.SensorEvaluationContext, corpus: Corpus) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    specs, found, unreachable = {}, {}, []
    for build in (resolve(lake, b) for b in all_builds(corpus, "")):
        try:
            found[build.name] = build.source(lake.workspace.sources).fingerprint()
        except (SourceError, OSError) as e:
            unreachable.append(f"{build.name}: {e}")
            continue
        specs[build.name] = build.specs()
    steps = plan(lake, specs, found)
    changed = {s.dataset: found[s.dataset] for s in steps if s.chunk is None and s.status != CURRENT}
    for line in unreachable:
        context.log.warning(f"not looked at: {line}")
    if not changed:
        return dg.SkipReason(
            "; ".join(["every source is as it was listed", *(f"not looked at: {u}" for u in unreachable)])
        )
    key = content_key(*(f"{name} {version}" for name, version in sorted(changed.items())))
    return dg.SensorResult([dg.RunRequest(run_key=f"source-{key}", tags={"changed": ", ".join(sorted(changed))[:200]})])


@dg.sensor(
    job=build_job,
    minimum_interval_seconds=60,
    description=f"People corrected labels, the last one {QUIET_S // 60} minutes ago: build the chunks concerned.",
)
def new_corrections(corpus: Corpus) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    waiting = lake.rows("SELECT count(*) FROM pending_corrections")[0][0]
    if not waiting:
        return dg.SkipReason("every correction is in the labels")
    newest, at = lake.rows("SELECT correction_id, created_at FROM corrections ORDER BY created_at DESC, 1 LIMIT 1")[0]
    if (datetime.now(UTC) - at).total_seconds() < QUIET_S:
        return dg.SkipReason(f"{waiting} episodes wait; somebody corrected one just now")
    return dg.SensorResult([dg.RunRequest(run_key=f"correction-{newest}", tags={"corrected": str(waiting)})])


@dg.sensor(
    job=score_job,
    minimum_interval_seconds=60,
    description="A release was made: score the newest model on it, unless that was done.",
)
def new_release(corpus: Corpus) -> dg.SensorResult | dg.SkipReason:
    from eval.held_out.evaluate import eval_run_id

    lake = corpus.lake()
    found = lake.rows("SELECT name, config_hash FROM releases ORDER BY created_at DESC, name LIMIT 1")
    if not found:
        return dg.SkipReason("there is no release yet")
    model = newest_model(lake)
    if model is None:
        return dg.SkipReason("there is no model yet: materialise reward_model")
    name, content = found[0]
    if lake.rows("SELECT 1 FROM eval_runs WHERE eval_run = ?", [eval_run_id(model, "held-out", content)]):
        return dg.SkipReason(f"{model} was scored on {name}")
    config = {"ops": {"evaluation": {"config": {"name": name, "model": model}}}}
    return dg.SensorResult([dg.RunRequest(run_key=f"{name}-{content}-{model}", run_config=config)])
