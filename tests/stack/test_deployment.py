"""The deployment of deploy/, each piece as a process here: Postgres, a bucket, code location, webserver and daemon.

Driven as the UI drives it, over the webserver's GraphQL; and Postgres, which holds Dagster's storage and the lake's
catalog, is killed in between.
"""

import json
import os
import re
import shutil
import signal
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
from fsspec.core import url_to_fs
from prometheus_client.parser import text_string_to_metric_families

from core.paths import ROOT
from tests.kits.servers import Postgres, end, free_port, postgres

pytestmark = pytest.mark.stack
BIN = Path(sys.executable).parent
STAGES = ("frames", "demonstrations", "segments", "progress", "samples", "shards")
DATASETS = {"long": 9, "short": 1}  # of samples/, and how many episodes a chunk has: 68 partitions
WAIT_S = 1500.0
WORKERS = 2  # this machine's cores
TOKEN = "of-the-ui-of-this-test"
TOKENS = {"UI": TOKEN, "EXPLORE": "of-the-explorer-of-this-test", "REWARD": "of-the-rewards-of-this-test"}


COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
PORTS = {"code": "4000", "webserver": "3000", "explorer": "7680", "rewards": "8700"}
SERVED = ("code", "webserver", "daemon", "explorer", "rewards", "proxy")
USER = ("anna", "a password of annas")


class Deployment:
    """The services of deploy/compose.yaml, each by its own command, with other ports and folders."""

    def __init__(self, folder: Path, server: Postgres, bucket: dict[str, str]) -> None:
        self.folder, self.server = folder, server
        self.workspace = folder / "workspace"
        self.processes: dict[str, subprocess.Popen] = {}
        # Inside the proxy's network and outside; the image of nginx has the users and the pages of Dagster a file
        self.ports = {name: str(free_port()) for name in PORTS}
        self.outside = {name: str(free_port()) for name in PORTS if name != "code"}
        home = folder / "home"
        home.mkdir()
        settings = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
        settings["concurrency"]["runs"]["max_concurrent_runs"] = WORKERS
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        where = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
        where["load_from"][0]["grpc_server"]["port"] = int(self.ports["code"])
        (home / "workspace.yaml").write_text(yaml.safe_dump(where))
        registry = folder / "registry"
        registry.mkdir()
        for name, size in DATASETS.items():
            source = str(ROOT / "samples" / f"sim_{name}")
            entry = {"name": name, "format": "lerobot", "source": source, "chunk_size": size}
            (registry / f"{name}.yaml").write_text(yaml.safe_dump(entry))
        (folder / "corpus.toml").write_text(f'datasets = {json.dumps(list(DATASETS))}\nregistry = ["{registry}"]\n')
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
            "PROCCORPUS_LOG": COMPOSE["code"]["environment"]["PROCCORPUS_LOG"],
            **{f"PROCCORPUS_{name}_TOKEN": token for name, token in TOKENS.items()},
            "AWS_DEFAULT_REGION": "us-east-1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        subprocess.run(["bash", "deploy/create.sh"], cwd=ROOT, env=self.env, check=True)
        self._write_proxy()
        for name in SERVED:
            self.start(name)
        self.wait("the code location is loaded", lambda: self.ask(LOCATIONS)["repositoriesOrError"]["nodes"])

    def _write_proxy(self) -> None:
        """nginx.conf as its image fills it in, and one user."""
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for name, port in self.outside.items():
            text = text.replace(f"http://{name}:{PORTS[name]}", f"http://127.0.0.1:{self.ports[name]}")
            text = text.replace(f"listen {PORTS[name]};", f"listen 127.0.0.1:{port};")
        for name, token in TOKENS.items():
            text = text.replace(f"${{{name}_TOKEN}}", token)
        text = re.sub(r"(?:/etc/nginx|/tmp|/dev)/", f"{self.folder / 'proxy'}/", text)
        (self.folder / "proxy").mkdir()
        (self.folder / "proxy" / "nginx.conf").write_text(text)
        sealed = subprocess.run(["openssl", "passwd", "-apr1", USER[1]], capture_output=True, text=True, check=True)
        (self.folder / "proxy" / "users").write_text(f"{USER[0]}:{sealed.stdout}")

    def here(self, words: list[str]) -> list[str]:
        """A command or probe of the Compose file, as it is said on this machine."""
        changed = {
            **{
                f"{sign}{port}": f"{sign}{self.ports[name]}" for name, port in PORTS.items() for sign in ("", "--port=")
            },
            **{before: before.replace("0.0.0.0", "127.0.0.1") for before in ("0.0.0.0", "--host=0.0.0.0")},
            "deploy/workspace.yaml": str(self.folder / "home" / "workspace.yaml"),
            "/tmp/nginx.conf": str(self.folder / "proxy" / "nginx.conf"),
            "daemon off;": "daemon off; user root;",
            "--trusted-proxy=172.30.46.0/24": "--trusted-proxy=127.0.0.1",
            "nginx": shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx",
        }
        said = [changed.get(word, word) for word in words]
        for name, port in (self.ports | (self.outside if "curl" in words else {})).items():
            said = [word.replace(f"127.0.0.1:{PORTS[name]}", f"127.0.0.1:{port}") for word in said]
        return [str(BIN / said[0]) if (BIN / said[0]).exists() else said[0], *said[1:]]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.here(COMPOSE[name]["command"]), cwd=ROOT, env=self.env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def is_well(self, name: str) -> bool:
        """What its health check says."""
        kind, *words = COMPOSE[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(self.here(words), cwd=ROOT, env=self.env, capture_output=True).returncode == 0

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            end(process)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        answer = self.post(sent, {"Authorization": f"Bearer {TOKEN}"}).json()
        assert not answer.get("errors"), answer
        return answer["data"]

    def post(self, sent: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        address = f"http://127.0.0.1:{self.ports['webserver']}/graphql"
        return httpx.post(address, json=sent, headers=headers, timeout=30, trust_env=False)

    def wait(self, what: str, done: Callable[[], Any]) -> Any:
        """Until it is so; a server that is away for a moment is asked again."""
        limit = time.monotonic() + WAIT_S
        while time.monotonic() < limit:
            assert all(p.poll() is None for p in self.processes.values()), (
                f"a server has ended while waiting until {what}"
            )
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
KEYS = '{ assetNodeOrError(assetKey: {path: ["frames"]}) { ... on AssetNode { partitionKeys } } }'
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


def test_every_service_answers_its_probe(deployed: Deployment):
    for name in SERVED:
        deployed.wait(f"{name} is well", lambda name=name: deployed.is_well(name))


def test_nobody_comes_in_without_the_token(deployed: Deployment):
    sent = {"query": LOCATIONS}
    assert deployed.post(sent, {}).status_code == 401
    foreign = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://elsewhere.example"}
    assert deployed.post(sent, foreign).status_code == 403


def test_one_proxy_asks_who_it_is(deployed: Deployment):
    """People by a password, whose name the explorer gets; programs by the token of the server that they ask."""
    paths = {"webserver": "/runs", "explorer": "/review", "rewards": "/metrics"}
    tokens = dict(zip(paths, TOKENS.values(), strict=True))
    for name, path in paths.items():
        url = f"http://127.0.0.1:{deployed.outside[name]}{path}"
        deployed.wait(f"{name} is well", lambda name=name: deployed.is_well(name))

        def asked(url: str = url, headers: dict[str, str] | None = None, **how: Any) -> httpx.Response:
            return httpx.get(url, headers=headers, trust_env=False, timeout=60, **how)

        assert asked().status_code == 401
        assert asked(auth=(USER[0], "guessed")).status_code == 401
        assert asked(headers={"Authorization": "Bearer guessed", "X-Remote-User": USER[0]}).status_code == 401
        assert asked(headers={"Authorization": f"Bearer {tokens[name]}"}).status_code == 200
        page = asked(auth=USER, headers={"X-Remote-User": "somebody else"})
        assert page.status_code == 200
        assert (USER[0] in page.text) == (name == "explorer")
        assert "somebody else" not in page.text


def test_a_first_backfill_outlives_kills_of_a_worker_and_of_postgres(deployed: Deployment, tmp_path: Path):
    """Of 60 partitions and more, two at a time; no run fails but the one that was killed."""
    local = ("--workspace", tmp_path / "local", "--config", deployed.folder / "corpus.toml")
    deployed.run("build", *local)
    expected = json.loads(deployed.run("digest", "--workspace", tmp_path / "local", "--format", "json"))

    for name in DATASETS:
        deployed.ask(ADD, name="datasets", key=name)
        launched = deployed.ask(MATERIALIZE, path=["episodes"], key=name)["launchPipelineExecution"]
        run = launched["run"]["runId"]
        state = deployed.wait(f"episodes of {name} are there", lambda run=run: ended(deployed, run))
        assert state == "SUCCESS"
    keys = deployed.ask(KEYS)["assetNodeOrError"]["partitionKeys"]
    assert len(keys) >= 60

    began = time.monotonic()
    assets = [{"path": [s]} for s in STAGES]
    backfill = deployed.ask(BACKFILL, assets=assets, keys=keys)["launchPartitionBackfill"]["backfillId"]
    deployed.wait("runs of the backfill work", lambda: count(deployed, "STARTED") >= 2)
    time.sleep(3)
    os.kill(deployed.wait("a worker works", lambda: workers(deployed))[0], signal.SIGKILL)
    time.sleep(20)
    deployed.server.kill()
    time.sleep(3)
    deployed.server.start()
    deployed.wait(
        "the backfill has ended",
        lambda: deployed.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"] in ENDED_BACKFILL,
    )
    print(f"backfill of {len(keys)} partitions: {time.monotonic() - began:.0f} s")
    runs = deployed.ask(RUNS)["runsOrError"]["results"]
    succeeded = {t["value"] for r in runs if r["status"] == "SUCCESS" for t in r["tags"] if t["key"] == PARTITION}
    assert succeeded == {*DATASETS, *keys}
    print({s: sum(r["status"] == s for r in runs) for s in ENDED})
    assert json.loads(deployed.run("digest", "--format", "json")) == expected


def test_metrics_and_logs_tell_of_it(deployed: Deployment):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    page = httpx.get(f"http://127.0.0.1:{deployed.ports['webserver']}/metrics", headers=headers, timeout=60).text
    said = {
        s.name: s.value
        for f in text_string_to_metric_families(page)
        for s in f.samples
        if s.labels.get("stage") in (None, "shards")
    }
    assert said["proccorpus_stage_partitions"] > 0
    assert said["proccorpus_publishes_total"] > len(STAGES)
    assert said["proccorpus_stale_chunks"] == 0
    lines = [
        json.loads(x)
        for p in deployed.folder.glob("files/**/*.out")
        for x in p.read_text().splitlines()
        if x[:1] == "{"
    ]
    assert lines
    assert all(line.keys() >= {"time", "level", "run", "dataset", "chunk", "stage", "message"} for line in lines)


def test_a_backup_is_restored(deployed: Deployment, tmp_path: Path):
    """By deploy/upkeep.sh and deploy/restore.sh, after the databases, the bucket and the workspace were lost."""
    before = deployed.run("digest", "--format", "json")
    script = {"cwd": ROOT, "env": deployed.env, "check": True, "capture_output": True, "text": True}
    subprocess.run(["bash", "deploy/upkeep.sh", tmp_path / "backup"], **script)
    left = {p.name: p.read_text() for p in (deployed.workspace / "metrics").iterdir()}
    assert left.keys() == {"backup.prom", "clean-up.prom"}
    assert all('_exit_code{task="' in text and "} 0\n" in text for text in left.values())

    deployed.stop()
    for name in ("dagster", "lake"):
        deployed.server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        deployed.server.execute(f"CREATE DATABASE {name}")
    deployed.workspace.rename(tmp_path / "lost")
    store, lost = url_to_fs("s3://corpora/deployed", client_kwargs={"endpoint_url": deployed.env["AWS_ENDPOINT_URL"]})
    store.rm(lost, recursive=True)
    subprocess.run(["bash", "deploy/restore.sh", tmp_path / "backup"], **script)
    assert deployed.run("digest", "--format", "json") == before
    refused = subprocess.run(["bash", "deploy/restore.sh", tmp_path / "backup"], **script | {"check": False})
    assert (refused.returncode, "is not empty" in refused.stderr) == (2, True)


def ended(deployed: Deployment, run: str) -> str | None:
    """How a run ended; None while it goes on."""
    status = deployed.ask(STATUS, id=run)["runOrError"]["status"]
    return status if status in ENDED else None


def workers(deployed: Deployment) -> list[int]:
    """The processes of runs: children of the code location."""
    code = deployed.processes["code"].pid
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(code)], capture_output=True, text=True)
    return [
        int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line or "execute_run" in line
    ]


PARTITION = "dagster/partition"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
ENDED_BACKFILL = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")


def count(deployed: Deployment, status: str) -> int:
    return sum(r["status"] == status for r in deployed.ask(RUNS)["runsOrError"]["results"])
