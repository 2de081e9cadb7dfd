"""What starts a job when a release was made. It is off until somebody turns it on in the UI."""

import dagster as dg

from assets.defs.models import jobs
from assets.defs.resources import CorpusResource
from eval.scored import eval_run_id
from training.runs import newest_model


@dg.sensor(
    job=jobs.score_job,
    minimum_interval_seconds=60,
    description="A release was made: score the newest model on it, unless that was done.",
)
def new_release(corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
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
