"""The deployment of deploy/, each piece as a process here, asked by probes and by the proxy.

Over the webserver's GraphQL, as the UI does; a worker and Postgres are killed in between; all is lost, and restored.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
from fsspec.core import url_to_fs
from prometheus_client.parser import text_string_to_metric_families

from core.paths import ROOT
from tests.kits.deployment import (
    DATASETS,
    IS_WHOLE,
    LOCATIONS,
    NGINX,
    SERVED,
    TOKEN,
    TOKENS,
    USER,
    WORKERS,
    Deployment,
)
from tests.kits.patience import PATIENCE_S
from tests.kits.servers import postgres

pytestmark = pytest.mark.stack
STAGES = ("frames", "demonstrations", "segments", "progress", "samples", "shards")
ADD = """mutation($name: String!, $key: String!) { addDynamicPartition(partitionsDefName: $name, partitionKey: $key,
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "proccorpus"}) { __typename } }"""
MATERIALIZE = (Path(__file__).parent / "materialize.graphql").read_text()
KEYS = '{ assetNodeOrError(assetKey: {path: ["frames"]}) { ... on AssetNode { partitionKeys } } }'
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
BACKFILL = """mutation($assets: [AssetKeyInput!]!, $keys: [String!]!) { launchPartitionBackfill(backfillParams: {
  assetSelection: $assets, partitionNames: $keys}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status runs: cancelableRuns { status } } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, bucket: dict[str, str]) -> Iterator[Deployment]:
    with postgres() as server:
        deployment = Deployment(tmp_path_factory.mktemp("deployed"), server, bucket)
        try:
            yield deployment
        finally:
            deployment.stop(wait_s=2)


def test_every_service_answers_its_probe(deployed):
    for name in SERVED:
        deployed.wait(f"{name} is well", lambda name=name: deployed.is_well(name))


def test_nobody_comes_in_without_the_token(deployed):
    sent = {"query": LOCATIONS}
    assert deployed.post(sent, {}).status_code == 401
    foreign = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://elsewhere.example"}
    assert deployed.post(sent, foreign).status_code == 403


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed, and could not be")
def test_one_proxy_asks_who_it_is(deployed):
    """People by a password, whose name the explorer gets; programs by the token of the server that they ask."""
    paths = {"webserver": "/runs", "explorer": "/review", "rewards": "/metrics"}
    tokens = dict(zip(paths, TOKENS.values(), strict=True))
    for name, path in paths.items():
        url = f"http://127.0.0.1:{deployed.outside[name]}{path}"
        deployed.wait(f"{name} is well", lambda name=name: deployed.is_well(name))

        def asked(
            url: str = url, headers: dict[str, str] | None = None, **get_options: Any
        ) -> httpx.Response:
            return httpx.get(
                url, headers=headers, trust_env=False, timeout=PATIENCE_S, **get_options
            )

        assert asked().status_code == 401
        assert asked(auth=(USER[0], "guessed")).status_code == 401
        assert (
            asked(headers={"Authorization": "Bearer guessed", "X-Remote-User": USER[0]}).status_code
            == 401
        )
        assert asked(headers={"Authorization": f"Bearer {tokens[name]}"}).status_code == 200
        page = asked(auth=USER, headers={"X-Remote-User": "somebody else"})
        assert page.status_code == 200
        assert (USER[0] in page.text) == (name == "explorer")
        assert "somebody else" not in page.text


@pytest.mark.long
def test_a_first_backfill_outlives_kills_of_a_worker_and_of_postgres(deployed, tmp_path):
    """Two partitions at a time; rows are those of one process. PROCCORPUS_BACKFILL=whole: of 68 partitions."""
    local = ("--workspace", tmp_path / "local", "--config", deployed.folder / "corpus.toml")
    deployed.run("build", *local)
    expected = json.loads(
        deployed.run("show", "digest", "--workspace", tmp_path / "local", "--format", "json")
    )

    for name in DATASETS:
        deployed.ask(ADD, name="datasets", key=name)
        launched = deployed.ask(MATERIALIZE, path=["episodes"], key=name)["launchPipelineExecution"]
        run = launched["run"]["runId"]
        state = deployed.wait(f"episodes of {name} are there", lambda run=run: ended(deployed, run))
        assert state == "SUCCESS"
    keys = deployed.ask(KEYS)["assetNodeOrError"]["partitionKeys"]
    assert len(keys) == (68 if IS_WHOLE else 5)

    assets = [{"path": [s]} for s in STAGES]

    def launched(keys: list[str]) -> str:
        """The webserver's first request after Postgres was away can fail by a connection of before: asked again."""

        def answer() -> str:
            return deployed.ask(BACKFILL, assets=assets, keys=keys)["launchPartitionBackfill"][
                "backfillId"
            ]

        return deployed.wait("a backfill is launched", answer)

    def succeeded(backfill: str) -> set[str]:
        """All partitions that any run has made, once a backfill is over."""

        def is_over() -> bool:
            status = deployed.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"][
                "status"
            ]
            return status in ENDED_BACKFILL

        deployed.wait("the backfill has ended", is_over)
        runs = deployed.ask(RUNS)["runsOrError"]["results"]
        tags = chain.from_iterable(r["tags"] for r in runs if r["status"] == "SUCCESS")
        return {tag["value"] for tag in tags if tag["key"] == PARTITION}

    backfill = launched(keys)
    deployed.wait("runs of the backfill work", lambda: count(deployed, "STARTED") >= 2)
    time.sleep(3)
    os.kill(deployed.wait("a worker works", lambda: workers(deployed))[0], signal.SIGKILL)
    time.sleep(20)
    deployed.server.kill()
    time.sleep(3)
    deployed.server.start()
    # A step that begins while Dagster's own storage is away fails, and people start its partition again
    if missing := {*DATASETS, *keys} - succeeded(backfill):
        assert len(missing) <= WORKERS
        assert missing <= succeeded(launched(sorted(missing)))
    runs = deployed.ask(RUNS)["runsOrError"]["results"]
    # The one that was killed, and those that Postgres left alone, each of which was started again
    assert 1 <= sum(r["status"] == "FAILURE" for r in runs) <= 1 + WORKERS
    assert json.loads(deployed.run("show", "digest", "--format", "json")) == expected


@pytest.mark.long
def test_metrics_and_logs_tell_of_it(deployed):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    page = httpx.get(
        f"http://127.0.0.1:{deployed.ports['webserver']}/metrics",
        headers=headers,
        timeout=PATIENCE_S,
    ).text
    values_by_metric = {
        s.name: s.value
        for s in chain.from_iterable(
            map(attrgetter("samples"), text_string_to_metric_families(page))
        )
        if s.labels.get("stage") in (None, "shards")
    }
    assert values_by_metric["proccorpus_stage_partitions"] > 0
    assert values_by_metric["proccorpus_publishes_total"] > len(STAGES)
    assert values_by_metric["proccorpus_stale_chunks"] == 0
    written = "".join(path.read_text() for path in deployed.folder.glob("files/**/*.out"))
    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["stage"] for line in lines} >= set(STAGES)
    assert {line["dataset"] for line in lines} == set(DATASETS)
    assert all(
        line["run"] and line.keys() >= {"time", "level", "chunk", "message"} for line in lines
    )


@pytest.mark.long
def test_a_backup_is_restored(deployed, tmp_path):
    """By deploy/upkeep.sh and deploy/restore.sh, after the databases, the bucket and the workspace were lost."""
    digest_before = deployed.run("show", "digest", "--format", "json")
    script = {"cwd": ROOT, "env": deployed.env, "check": True, "capture_output": True, "text": True}
    subprocess.run(["bash", "deploy/upkeep.sh", tmp_path / "backup"], **script)
    metric_files = {p.name: p.read_text() for p in (deployed.workspace / "metrics").iterdir()}
    assert metric_files.keys() == {"backup.prom", "clean-up.prom"}
    assert all('_exit_code{task="' in text and "} 0\n" in text for text in metric_files.values())

    deployed.stop()
    for name in ("dagster", "lake"):
        deployed.server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        deployed.server.execute(f"CREATE DATABASE {name}")
    deployed.workspace.rename(tmp_path / "lost")
    of_store = {
        "key": "dummy",
        "secret": "dummy",
        "client_kwargs": {"endpoint_url": deployed.env["AWS_ENDPOINT_URL"]},
    }
    store, store_path = url_to_fs("s3://corpora/deployed", **of_store)
    store.rm(store_path, recursive=True)
    subprocess.run(["bash", "deploy/restore.sh", tmp_path / "backup"], **script)
    assert deployed.run("show", "digest", "--format", "json") == digest_before
    refused = subprocess.run(
        ["bash", "deploy/restore.sh", tmp_path / "backup"], **script | {"check": False}
    )
    assert (refused.returncode, "is not empty" in refused.stderr) == (2, True)


def ended(deployed: Deployment, run: str) -> str | None:
    """How a run ended; None while it goes on."""
    status = deployed.ask(STATUS, id=run)["runOrError"]["status"]
    if status in ENDED:
        return status
    return None


def workers(deployed: Deployment) -> list[int]:
    """The processes of runs: children of the code location."""
    code = deployed.processes["code"].pid
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(code)], capture_output=True, text=True
    )
    return [
        int(line.split()[0])
        for line in listed.stdout.splitlines()
        if "spawn_main" in line or "execute_run" in line
    ]


PARTITION = "dagster/partition"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
ENDED_BACKFILL = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")


def count(deployed: Deployment, status: str) -> int:
    return sum(r["status"] == status for r in deployed.ask(RUNS)["runsOrError"]["results"])
