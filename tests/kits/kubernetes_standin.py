"""A stand-in for a cluster's API on loopback: Jobs are really run, here, by their pods' command."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.kits.http_server import Answering, serving


@dataclass
class Cluster:
    folder: Path
    jobs: dict[str, dict] = field(default_factory=dict)
    services: list[dict] = field(default_factory=list)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(
        default_factory=dict
    )  # pods of each job that others took the place of
    deleted: list[str] = field(default_factory=list)
    questions: int = 0
    refuses: tuple[str, ...] = ()  # kinds that it does not take
    fails_at: tuple[int, ...] = ()  # the so manieth questions that it answers with 500

    def run(self, job: dict) -> None:
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        env = os.environ | {e["name"]: e["value"] for e in container["env"]}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                container["command"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=container["workingDir"],
                start_new_session=True,
            )

    def job(self, name: str) -> dict:
        code = (
            self.processes[name].poll() if self.questions else None
        )  # until then its pod pulls the image
        failed_pods = self.failed.setdefault(name, [])
        if code and len(failed_pods) < self.jobs[name]["spec"]["backoffLimit"]:
            failed_pods.append(f"{name}.{len(failed_pods)}")
            (self.folder / f"{name}.log").rename(self.folder / f"{failed_pods[-1]}.log")
            self.run(self.jobs[name])
            code = None
        if code is None:
            kind = None
        elif code:
            kind = "Failed"
        else:
            kind = "Complete"
        if code:
            reason = {"reason": "BackoffLimitExceeded", "message": "a pod has failed"}
        else:
            reason = {}
        conditions = [{"type": kind, "status": "True", **reason}] if kind else []
        return self.jobs[name] | {"status": {"conditions": conditions}}

    def pod(self, name: str) -> dict:
        code = self.processes[name].poll()
        self.questions += 1
        if self.questions == 1:
            waiting = {"waiting": {"reason": "ImagePullBackOff"}}
        else:
            waiting = {"running": {}}
        status = {
            "name": "train",
            "state": waiting,
            "image": "",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        if code is None:
            phase = "Running"
        elif code:
            phase = "Failed"
        else:
            phase = "Succeeded"
        phase = "Pending" if self.questions == 1 else phase
        return {
            "metadata": {"name": f"{name}-0-x"},
            "status": {"phase": phase, "containerStatuses": [status]},
        }

    def pods(self, name: str) -> list[dict]:
        failed_pods = [
            {"metadata": {"name": f"{n}-0-x"}, "status": {"phase": "Failed"}}
            for n in self.failed.get(name, [])
        ]
        return [*failed_pods, self.pod(name)]

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        if self.processes[name].poll() is None:
            os.killpg(self.processes[name].pid, 15)


class Handler(Answering):
    cluster: Cluster

    def do_POST(self) -> None:
        body = json.loads(self.body())
        cluster = self.cluster
        if body["kind"] in cluster.refuses:
            return self.answer({"kind": "Status", "reason": "Forbidden"}, 403)
        body["metadata"]["uid"] = "1234"
        if body["kind"] == "Job":
            cluster.jobs[body["metadata"]["name"]] = body
            cluster.run(body)
        else:
            cluster.services.append(body)
        return self.answer(body, 201)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if parts[-1] == "log":
            return self.answer(
                (self.cluster.folder / f"{parts[-2].removesuffix('-0-x')}.log").read_text()
            )
        if parts[-1] == "pods":
            name = parse_qs(url.query)["labelSelector"][0].rpartition("=")[2]
            if self.cluster.questions + 1 in self.cluster.fails_at:
                self.cluster.questions += 1
                return self.answer({"kind": "Status"}, 500)
            return self.answer({"kind": "PodList", "items": self.cluster.pods(name)})
        if parts[-1] in self.cluster.jobs:
            return self.answer(self.cluster.job(parts[-1]))
        return self.answer({"kind": "Status", "reason": "NotFound"}, 404)

    def do_DELETE(self) -> None:
        self.body()
        self.cluster.delete(self.path.partition("?")[0].rpartition("/")[2])
        self.answer({"kind": "Status", "status": "Success"})


@contextmanager
def serve_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster, and a kubeconfig for it as <folder>/kubeconfig."""

    cluster = Cluster(folder)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "here",
    }
    try:
        with serving(Handler, cluster=cluster) as address:
            config["clusters"] = [{"name": "c", "cluster": {"server": address}}]
            (folder / "kubeconfig").write_text(json.dumps(config))
            yield cluster
    finally:
        for process in cluster.processes.values():
            process.kill()
            process.wait()
