"""The services of deploy/ as processes, with two workers, Postgres and moto's S3 server.

`make cluster` starts them, and leaves them until Ctrl-C.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from core.paths import ROOT
from tests.kits.patience import PATIENCE_S
from tests.kits.servers import Postgres, end, free_port, postgres, s3

BIN = Path(sys.executable).parent
# Of samples/, and how many episodes a chunk has: 5 partitions, or the 68 of a first backfill
IS_WHOLE = os.environ.get("PROCCORPUS_BACKFILL") == "whole"
DATASETS = {"long": 9, "short": 1 if IS_WHOLE else 22}
WAIT_S = 3600.0 if IS_WHOLE else 900.0
WORKERS = 2  # this machine's cores
TOKEN = "of-the-ui-of-this-test"
TOKENS = {
    "UI": TOKEN,
    "EXPLORE": "of-the-explorer-of-this-test",
    "REWARD": "of-the-rewards-of-this-test",
}
LOCATIONS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
PORTS = {"code": "4000", "webserver": "3000", "explorer": "7680", "rewards": "8700"}
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
SERVED = ("code", "webserver", "daemon", "explorer", "rewards", *(["proxy"] if NGINX else []))
USER = ("anna", "a password of annas")


class Deployment:
    """The services of deploy/compose.yaml, each by its own command, with other ports and
    folders."""

    def __init__(self, folder: Path, server: Postgres, bucket: dict[str, str]) -> None:
        self.folder = folder
        self.server = server
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
        workspace_file = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
        workspace_file["load_from"][0]["grpc_server"]["port"] = int(self.ports["code"])
        (home / "workspace.yaml").write_text(yaml.safe_dump(workspace_file))
        registry = folder / "registry"
        registry.mkdir()
        for name, size in DATASETS.items():
            source = str(ROOT / "samples" / f"sim_{name}")
            entry = {"name": name, "format": "lerobot", "source": source, "chunk_size": size}
            (registry / f"{name}.yaml").write_text(yaml.safe_dump(entry))
        (folder / "corpus.toml").write_text(
            f'datasets = {json.dumps(list(DATASETS))}\nregistry = ["{registry}"]\n'
        )
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
        self.wait(
            "the code location is loaded",
            lambda: self.ask(LOCATIONS)["repositoriesOrError"]["nodes"],
        )

    def _write_proxy(self) -> None:
        """nginx.conf as its image fills it in, and one user."""
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for name, port in self.outside.items():
            text = text.replace(
                f"http://{name}:{PORTS[name]}", f"http://127.0.0.1:{self.ports[name]}"
            )
            text = text.replace(f"listen {PORTS[name]};", f"listen 127.0.0.1:{port};")
        for name, token in TOKENS.items():
            text = text.replace(f"${{{name}_TOKEN}}", token)
        text = re.sub(r"(?:/etc/nginx|/tmp|/dev)/", f"{self.folder / 'proxy'}/", text)
        (self.folder / "proxy").mkdir()
        (self.folder / "proxy" / "nginx.conf").write_text(text)
        sealed = subprocess.run(
            ["openssl", "passwd", "-apr1", USER[1]], capture_output=True, text=True, check=True
        )
        (self.folder / "proxy" / "users").write_text(f"{USER[0]}:{sealed.stdout}")

    def here(self, words: list[str]) -> list[str]:
        """A command or probe of the Compose file, as it is said on this machine."""
        changed = {
            **{
                f"{sign}{port}": f"{sign}{self.ports[name]}"
                for (name, port), sign in product(PORTS.items(), ("", "--port="))
            },
            **{
                address: address.replace("0.0.0.0", "127.0.0.1")
                for address in ("0.0.0.0", "--host=0.0.0.0")
            },
            "deploy/workspace.yaml": str(self.folder / "home" / "workspace.yaml"),
            "/tmp/nginx.conf": str(self.folder / "proxy" / "nginx.conf"),
            "daemon off;": "daemon off; user root;",
            "--trusted-proxy=172.30.46.0/24": "--trusted-proxy=127.0.0.1",
            "nginx": NGINX or "nginx",
        }
        local_words = [changed.get(word, word) for word in words]
        for name, port in (self.ports | (self.outside if "curl" in words else {})).items():
            local_words = [
                word.replace(f"127.0.0.1:{PORTS[name]}", f"127.0.0.1:{port}")
                for word in local_words
            ]
        return [
            str(BIN / local_words[0]) if (BIN / local_words[0]).exists() else local_words[0],
            *local_words[1:],
        ]

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
        return (
            subprocess.run(self.here(words), cwd=ROOT, env=self.env, capture_output=True).returncode
            == 0
        )

    def stop(self, wait_s: float = 20) -> None:
        end(*reversed(self.processes.values()), wait_s=wait_s)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        answer = self.post(sent, {"Authorization": f"Bearer {TOKEN}"}).json()
        assert not answer.get("errors"), answer
        return answer["data"]

    def post(self, sent: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        address = f"http://127.0.0.1:{self.ports['webserver']}/graphql"
        return httpx.post(address, json=sent, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def wait(self, condition: str, is_done: Callable[[], Any]) -> Any:
        """Until it is so; a server that is away for a moment is asked again."""
        limit = time.monotonic() + WAIT_S
        while time.monotonic() < limit:
            assert all(p.poll() is None for p in self.processes.values()), (
                f"a server has ended while waiting until {condition}"
            )
            with suppress(httpx.HTTPError, AssertionError, KeyError, json.JSONDecodeError):
                result = is_done()
                if result:
                    return result
            time.sleep(1)
        raise TimeoutError(f"not within {WAIT_S:.0f} s: {condition}")

    def run(self, *words: object) -> str:
        command = [str(w) for w in (BIN / "proccorpus", *words)]
        process = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return process.stdout


def main() -> None:
    with (
        TemporaryDirectory(prefix="proccorpus-cluster-") as folder,
        postgres() as server,
        s3() as bucket,
    ):
        deployment = Deployment(Path(folder), server, bucket)
        try:
            print(
                "\n".join(
                    f"{name}: http://127.0.0.1:{port}" for name, port in deployment.outside.items()
                )
            )
            print(
                f"user {USER[0]}, password {USER[1]!r}; workspace {deployment.workspace}. Ctrl-C ends it"
            )
            deployment.processes["daemon"].wait()
        except KeyboardInterrupt:
            pass
        finally:
            deployment.stop()


if __name__ == "__main__":
    main()
