"""Dagster's webserver behind our guard: `python -m assets.webserver`, with the options of `dagster-webserver`.

Dagster's own server answers any page of any site, and runs what a mutation in an address (GET) asks for: an <img> on a
web page could start a job. The guard refuses pages of other sites, and nothing but a POST or a WebSocket reaches
GraphQL. The token is read from the environment, where no list of processes shows it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import dagster as dg
import dagster_webserver.app
import dagster_webserver.cli
import yaml
from dagster_webserver.webserver import DagsterWebserver
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from annotate.model_client.server import GUARD
from assets.defs.resources import CorpusResource
from core.errors import UserError
from core.paths import ROOT, Workspace
from core.wall import NOTES
from core.web import SAFE_METHODS, TOKENS, Access, Guard, access_for
from pipeline.config import present_builds
from pipeline.plan import stale_chunks
from pipeline.stages import stage_specs
from warehouse.lake.lake import lake_to_read
from warehouse.lake.place import LakeError

METRICS = yaml.safe_load(Path(__file__).with_name("metrics.yaml").read_text())
QUERIES = {name: metric["sql"] for name, metric in METRICS.items() if "sql" in metric}
LABELS = {name: metric.get("labels", []) for name, metric in METRICS.items()}  # but of queries
# Tags of runs that are another try
AGAIN = {"dagster/retry_number": [str(n) for n in range(1, 10)]}
disable_created_metrics()
TOKEN = TOKENS["ui"]
HOSTS = "PROCCORPUS_UI_HOSTS"
SETTINGS = "DAGSTER_WEBSERVER"  # prefix of variables with its options
LIVENESS = "/server_info"  # versions alone, for the probe of a cluster
# The graph of all assets, with what the groups hold; Dagster's own first page, a timeline of runs, says nothing of them
FIRST_PAGE = "/asset-groups/?expanded=global%40global%3Acorpus%2Cglobal%40global%3Amodels%2Cglobal%40global%3Arewards"
MAX_BODY_BYTES = 64 << 20
ENDS_WITHIN_S = 4.0  # from SIGTERM to SIGKILL
CONNECTS_WITHIN_S = 1.0
LOCATION = "proccorpus"  # code_location_name of [tool.dg.project], and what deploy/ calls it


def page(space: Workspace, instance: dg.DagsterInstance) -> bytes:
    """All metrics, and those that scheduled jobs left in <workspace>/metrics/*.prom. Raises LakeError."""
    lake = lake_to_read(space)
    registry = CollectorRegistry()
    disk = shutil.disk_usage(space.root)
    rows: dict[str, Iterable[Sequence]] = {
        "proccorpus_disk_bytes": [["free", disk.free], ["total", disk.total]]
    }
    labels = dict(LABELS)
    with closing(lake.con), lake.reading():
        specs = {name: stage_specs(build) for name, build in present_builds(lake).items()}
        rows["proccorpus_stale_chunks"] = list(
            (dict.fromkeys(specs, 0) | stale_chunks(lake, specs)).items()
        )
        for name, sql in QUERIES.items():
            result = lake.con.execute(sql)
            labels[name], rows[name] = (
                [column[0] for column in result.description[:-1]],
                result.fetchall(),
            )
    for name, metric_rows in (rows | _of_runs(instance)).items():
        kind = Counter if name.endswith("_total") else Gauge
        metric = kind(name, METRICS[name]["help"], labels[name], registry=registry)
        for *label_values, value in metric_rows:
            (metric.labels(*label_values) if label_values else metric).inc(float(value))
    metric_files = [path.read_bytes() for path in sorted((space.root / "metrics").glob("*.prom"))]
    return generate_latest(registry) + b"".join(metric_files)


def _of_runs(instance: dg.DagsterInstance) -> dict[str, Iterable[Sequence]]:
    ended = dict[str, float]()
    both = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
    nights = dg.RunsFilter(tags={"dagster/schedule_name": "nightly"}, statuses=both)
    for record in instance.get_run_records(nights, limit=30):
        ended.setdefault(record.dagster_run.status.value, record.end_time or 0)
    return {
        "proccorpus_runs": [
            [status.value, instance.get_runs_count(dg.RunsFilter(statuses=[status]))]
            for status in dg.DagsterRunStatus
        ],
        "proccorpus_retried_runs": [[instance.get_runs_count(dg.RunsFilter(tags=AGAIN))]],
        "proccorpus_night_ended_timestamp_seconds": list(ended.items()),
    }


def ui_access(host: str, environment: Mapping[str, str]) -> Access:
    """Who may use the UI at an address. Raises UserError: no token, or an empty one where others can reach it."""
    if TOKEN not in environment:
        raise UserError(
            f"{TOKEN} is not set: give it a token, which the UI asks for; empty, every user may come in"
        )
    hosts = tuple(name.strip() for name in environment.get(HOSTS, "").split(",") if name.strip())
    try:
        return access_for(host, token=environment.get(TOKEN) or None, hosts=hosts)
    except UserError as e:
        raise type(e)(f"{TOKEN}: {e}") from e


def metrics() -> PlainTextResponse:
    """What Prometheus reads; 503 with the reason where the lake cannot be read."""
    try:
        with dg.DagsterInstance.get() as instance:
            return PlainTextResponse(
                page(CorpusResource().workspace(), instance), media_type=CONTENT_TYPE_LATEST
            )
    except LakeError as e:
        return PlainTextResponse(f"{e}\n", 503)


class DagsterRules:
    """ASGI middleware: GraphQL by POST or WebSocket alone, since any link can ask an address; a better first page;
    metrics.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app
        if scope["type"] == "http":
            if scope["path"].rstrip("/").endswith("/graphql") and scope["method"] != "POST":
                answer = PlainTextResponse("GraphQL is asked by POST\n", 405)
            elif scope["path"] == "/" and scope["method"] in SAFE_METHODS:
                answer = RedirectResponse(FIRST_PAGE, 302)
            elif scope["path"] == "/metrics":
                answer = await run_in_threadpool(metrics)
        await answer(scope, receive, send)


def guarded(access: Access) -> type[DagsterWebserver]:
    """Dagster's webserver, whose every request passes the guard first."""
    guard = Middleware(Guard, access=access, max_body_bytes=MAX_BODY_BYTES, open_paths=(LIVENESS,))

    class Guarded(DagsterWebserver):
        def build_middleware(self) -> list[Middleware]:
            return [guard, Middleware(DagsterRules), *super().build_middleware()]

    return Guarded


def serve(arguments: list[str]) -> None:
    """Dagster's webserver with its own options. Raises UserError for an address that a token must guard."""
    command = dagster_webserver.cli.cli
    with command.make_context("webserver", [*arguments], auto_envvar_prefix=SETTINGS) as context:
        access = ui_access(context.params["host"], os.environ)
    # Where Dagster puts its server together; it has no setting for layers of one's own
    dagster_webserver.app.DagsterWebserver = guarded(access)  # pyright: ignore[reportPrivateImportUsage]
    command(arguments, prog_name="webserver", auto_envvar_prefix=SETTINGS)


def run_ui(host: str, port: int, home: Path, token: str, on_ready: Callable[[], None]) -> int:
    """Code location, daemon and webserver as children, until one of them ends or Ctrl-C; the exit status.

    Each behind a guard, which ends all that it started, also where this process is killed.

    `home`: Dagster's folder, in which the workspace file is written. `token`: of the webserver; "": none. `on_ready` is
    called once the webserver answers.
    """
    folder = Path(tempfile.mkdtemp(prefix="proccorpus-"))  # a socket's path has at most 107 bytes
    code = folder / "code.sock"
    listed = home / "workspace.yaml"
    server = {"socket": str(code), "location_name": LOCATION}
    listed.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))  # JSON is YAML, too
    python = Path(sys.executable)
    # Without the name Dagster warns of it each time that it loads the assets
    location = [
        "code-server",
        "start",
        "--location-name",
        LOCATION,
        "--use-python-environment-entry-point",
    ]
    programs = [
        [python.with_name("dagster"), *location, "-m", "assets.definitions", "--socket", code],
        [python.with_name("dagster-daemon"), "run", "-w", listed],
        [python, "-m", "assets.webserver", "-w", listed, "-h", host, "-p", str(port)],
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    children: list[subprocess.Popen[bytes]] = []
    try:
        for program in programs:
            guard = [python, GUARD, str(os.getpid()), str(ENDS_WITHIN_S)]
            # What runs jobs does not need the token
            environment = os.environ | {
                TOKEN: token * (program is programs[-1]),
                NOTES: str(home / "notes"),
            }
            children.append(subprocess.Popen([*guard, *program], cwd=ROOT, env=environment))
            while len(children) == 1 and not code.exists() and children[0].poll() is None:
                time.sleep(0.1)
        _wait(children, host, port, on_ready)
    except KeyboardInterrupt:
        return 0
    finally:
        for child in reversed(children):
            child.terminate()
        for child in reversed(children):
            child.wait()
        shutil.rmtree(folder)
    return 1


def _wait(
    children: Sequence[subprocess.Popen[bytes]], host: str, port: int, on_ready: Callable[[], None]
) -> None:
    """Until one of the children ends; `on_ready` is called once something answers at the address."""
    is_ready = False
    while all(child.poll() is None for child in children):
        if not is_ready and _answers(host, port):
            is_ready = True
            on_ready()
        time.sleep(0.2)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECTS_WITHIN_S).close()
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> None:
    try:
        serve(arguments)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
