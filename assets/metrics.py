"""What Prometheus reads at /metrics of Dagster's webserver: asked of the lake and of Dagster when it comes."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import dagster as dg
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from core.paths import Workspace
from pipeline.config import built, resolve, stored_builds
from pipeline.plan import stale_chunks
from pipeline.stages import stage_specs
from warehouse.lake.lake import lake_to_read

METRICS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
QUERIES = {name: metric["sql"] for name, metric in METRICS.items() if "sql" in metric}
LABELS = {name: metric.get("labels", []) for name, metric in METRICS.items()}  # but of queries
AGAIN = {"dagster/retry_number": [str(n) for n in range(1, 10)]}  # tags of runs that are another try
disable_created_metrics()


def page(space: Workspace, instance: dg.DagsterInstance) -> bytes:
    """All metrics, and those that scheduled jobs left in <workspace>/metrics/*.prom. Raises LakeError."""
    lake = lake_to_read(space)
    registry, disk = CollectorRegistry(), shutil.disk_usage(space.root)
    rows: dict[str, Iterable[Sequence]] = {"proccorpus_disk_bytes": [["free", disk.free], ["total", disk.total]]}
    labels = dict(LABELS)
    with closing(lake.con), lake.reading():
        specs = {name: stage_specs(resolve(lake, built(lake, name))) for name in stored_builds(lake)}
        rows["proccorpus_stale_chunks"] = list((dict.fromkeys(specs, 0) | stale_chunks(lake, specs)).items())
        for name, sql in QUERIES.items():
            asked = lake.con.execute(sql)
            labels[name], rows[name] = [column[0] for column in asked.description[:-1]], asked.fetchall()
    for name, told in (rows | _of_runs(instance)).items():
        kind = Counter if name.endswith("_total") else Gauge
        metric = kind(name, METRICS[name]["help"], labels[name], registry=registry)
        for *said, value in told:
            (metric.labels(*said) if said else metric).inc(float(value))
    left = [path.read_bytes() for path in sorted((space.root / "metrics").glob("*.prom"))]
    return generate_latest(registry) + b"".join(left)


def _of_runs(instance: dg.DagsterInstance) -> dict[str, Iterable[Sequence]]:
    ended, both = dict[str, float](), [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
    nights = dg.RunsFilter(tags={"dagster/schedule_name": "nightly"}, statuses=both)
    for record in instance.get_run_records(nights, limit=30):
        ended.setdefault(record.dagster_run.status.value, record.end_time or 0)
    return {
        "proccorpus_runs": [
            [status.value, instance.get_runs_count(dg.RunsFilter(statuses=[status]))] for status in dg.DagsterRunStatus
        ],
        "proccorpus_retried_runs": [[instance.get_runs_count(dg.RunsFilter(tags=AGAIN))]],
        "proccorpus_night_ended_timestamp_seconds": list(ended.items()),
    }
