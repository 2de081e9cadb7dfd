"""The deployment of deploy/, each piece as a process here: Postgres, a bucket, code location, webserver and daemon.

Driven as the UI drives it, over the webserver's GraphQL; and Postgres, which holds Dagster's storage and the lake's
catalog, is killed in between.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from core.paths import ROOT
from tests.kits.servers import Postgres, end, free_port, postgres

pytestmark = pytest.mark.stack
BIN = Path(sys.executable).parent
STAGES = ("frames", "demonstrations", "segments", "progress", "samples", "shards")
CHUNKS = [f"long:{k:05d}" for k in range(2)]
WAIT_S = 900.0
TOKEN = "of-the-ui-of-this-test"


class Deployment:
    def __init__(self, folder: Path, server: Postgres, bucket: dict[str, str]) -> None:
        self.folder, self.server = folder, server
        self.workspace = folder / "workspace"
        self.processes: list[subprocess.Popen] = []
        self.port, code = free_port(), free_port()
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text())
        where = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
        where["load_from"][0]["grpc_server"]["port"] = code
        (home / "workspace.yaml").write_text(yaml.safe_dump(where))
        registry = folder / "registry"
        registry.mkdir()
        entry = {"name": "long", "format": "lerobot", "source": str(ROOT / "samples" / "sim_long"), "chunk_size": 9}
        (registry / "long.yaml").write_text(yaml.safe_dump(entry))
        (folder / "corpus.toml").write_text(f'datasets = ["long"]\nregistry = ["{registry}"]\n')
        server.execute("CREATE DATABASE dagster")
        server.execute("CREATE DATABASE lake")
        self.env = os.environ | bucket | {
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": server.url("dagster"),
            "DAGSTER_FILES": str(folder / "files"),
            "PROCCORPUS_CODE_HOST": "127.0.0.1",
            "PROCCORPUS_WORKSPACE": str(self.workspace),
            "PROCCORPUS_CONFIG": str(folder / "corpus.toml"),
            "PROCCORPUS_CATALOG": server.url("lake"),
            "PROCCORPUS_DATA": "s3://corpora/deployed",
            "PROCCORPUS_UI_TOKEN": TOKEN,
            "AWS_DEFAULT_REGION": "us-east-1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        subprocess.run(["bash", "deploy/create.sh"], cwd=ROOT, env=self.env, check=True)
        self.start("code", "dagster", "api", "grpc", "-m", "assets.definitions", "-h", "127.0.0.1", "-p", code)
        served = ("-w", home / "workspace.yaml", "-h", "127.0.0.1", "-p", self.port)
        self.start("webserver", "python", "-m", "assets.webserver", *served)
        self.start("daemon", "dagster-daemon", "run", "-w", home / "workspace.yaml")
        self.wait("the code location is loaded", lambda: self.ask(LOCATIONS)["repositoriesOrError"]["nodes"])

    def start(self, name: str, *command: object) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            words = [str(c) for c in command]
            words[0] = str(BIN / words[0])
            started = subprocess.Popen(
                words, cwd=ROOT, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.processes.append(started)

    def stop(self) -> None:
        for process in reversed(self.processes):
            end(process)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        answer = self.post(sent, {"Authorization": f"Bearer {TOKEN}"}).json()
        assert not answer.get("errors"), answer
        return answer["data"]

    def post(self, sent: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        address = f"http://127.0.0.1:{self.port}/graphql"
        return httpx.post(address, json=sent, headers=headers, timeout=30, trust_env=False)

    def wait(self, what: str, done: Callable[[], Any]) -> Any:
        """Until it is so; a server that is away for a moment is asked again."""
        limit = time.monotonic() + WAIT_S
        while time.monotonic() < limit:
            assert all(p.poll() is None for p in self.processes), f"a server has ended while waiting until {what}"
            with suppress(httpx.HTTPError, AssertionError, KeyError, json.JSONDecodeError):
                found = done()
                if found:
                    return found
            time.sleep(1)
        raise TimeoutError(f"not within {WAIT_S:.0f} s: {what}")

    def run(self, *words: object) -> str:
        command = [str(w) for w in (BIN / "proccorpus", *words)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


LOCATIONS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
ADD = """mutation($name: String!, $key: String!) { addDynamicPartition(partitionsDefName: $name, partitionKey: $key,
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "proccorpus"}) { __typename } }"""
MATERIALIZE = """mutation($path: [String!]!, $key: String!) { launchPipelineExecution(executionParams: {
  selector: {repositoryName: "__repository__", repositoryLocationName: "proccorpus", pipelineName: "__ASSET_JOB",
             assetSelection: [{path: $path}]}, runConfigData: {},
  executionMetadata: {tags: [{key: "dagster/partition", value: $key}]}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
BACKFILL = """mutation($assets: [AssetKeyInput!]!, $keys: [String!]!) { launchPartitionBackfill(backfillParams: {
  assetSelection: $assets, partitionNames: $keys}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status runs: cancelableRuns { status } } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, bucket: dict[str, str]) -> Iterator[Deployment]:
    with postgres() as server:
        made = Deployment(tmp_path_factory.mktemp("deployed"), server, bucket)
        try:
            yield made
        finally:
            made.stop()


def test_nobody_comes_in_without_the_token(deployed: Deployment):
    sent = {"query": LOCATIONS}
    assert deployed.post(sent, {}).status_code == 401
    foreign = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://elsewhere.example"}
    assert deployed.post(sent, foreign).status_code == 403


def test_a_backfill_outlives_a_kill_of_postgres(deployed: Deployment, tmp_path: Path):
    local = ("--workspace", tmp_path / "local", "--config", deployed.folder / "corpus.toml")
    deployed.run("build", *local)
    expected = json.loads(deployed.run("digest", "--workspace", tmp_path / "local", "--format", "json"))

    deployed.ask(ADD, name="datasets", key="long")
    launched = deployed.ask(MATERIALIZE, path=["episodes"], key="long")["launchPipelineExecution"]
    state = deployed.wait(
        "episodes are there",
        lambda: (s := deployed.ask(STATUS, id=launched["run"]["runId"])["runOrError"]["status"]) in ENDED and s,
    )
    assert state == "SUCCESS"

    for key in CHUNKS:
        deployed.ask(ADD, name="chunks", key=key)
    assets = [{"path": [s]} for s in STAGES]
    backfill = deployed.ask(BACKFILL, assets=assets, keys=CHUNKS)["launchPartitionBackfill"]["backfillId"]
    deployed.wait("a run of the backfill works", lambda: count(deployed, "STARTED"))
    time.sleep(3)
    deployed.server.kill()
    time.sleep(3)
    deployed.server.start()
    deployed.wait(
        "the backfill has ended",
        lambda: deployed.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"] in ENDED_BACKFILL,
    )
    runs = deployed.ask(RUNS)["runsOrError"]["results"]
    succeeded = {t["value"] for r in runs if r["status"] == "SUCCESS" for t in r["tags"] if t["key"] == PARTITION}
    assert succeeded == {"long", *CHUNKS}
    assert json.loads(deployed.run("digest", "--format", "json")) == expected


PARTITION = "dagster/partition"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
ENDED_BACKFILL = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")


def count(deployed: Deployment, status: str) -> int:
    return sum(r["status"] == status for r in deployed.ask(RUNS)["runsOrError"]["results"])
