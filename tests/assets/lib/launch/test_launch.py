"""Training jobs of an asset: handed over, followed, ended with the run, and what they say when they fail."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from assets.lib.launch import job, run
from assets.lib.launch.job import Machines, job_name, torchrun, why
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.launch.ray_nodes import run_node
from assets.lib.launch.run import LocalLauncher, RayLauncher, SlurmLauncher
from core.errors import FailedError
from core.paths import ROOT
from tests.kits.http_server import Answering, serving
from tests.kits.launch_kit import (
    assert_ends_with_its_run,
    assert_well,
    failure,
    interpreter,
    job_of,
    materialize,
)

# A stand-in for a cluster's API on loopback: Jobs are really run, here, by their pods' command


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


@pytest.fixture
def python(tmp_path) -> str:
    return interpreter(tmp_path)


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Slurm's programs on PATH; the folder of their state."""
    programs = tmp_path / "bin"
    state = tmp_path / "slurm"
    programs.mkdir()
    state.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel", "srun", "scontrol"):
        (programs / name).symlink_to(ROOT / "tests" / "kits" / "slurm_standin.sh")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STANDIN", str(state))
    return state


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serve_cluster(tmp_path) as served_cluster:
        yield served_cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(job, "POLL_S", 0.05)


def slurm_launcher(python: str, folder: Path, **options: Any) -> SlurmLauncher:
    return SlurmLauncher(python=python, gpus_per_node=0, **options)


def kubernetes_launcher(python: str, folder: Path, **options: Any) -> KubernetesLauncher:
    return KubernetesLauncher(
        python=python, image="corpus:1", claim="work", gpus_per_node=0, **options
    )


LAUNCHERS = [slurm_launcher, kubernetes_launcher]


@pytest.mark.parametrize("make", LAUNCHERS)
def test_what_a_job_reports_is_the_materialisation(make, python, slurm, cluster, tmp_path):
    materialization, messages = assert_well(make(python, tmp_path), tmp_path)
    kind = make(python, tmp_path).kind
    assert (
        materialization.metadata["job"].value
        == {"slurm": "slurm 1", "kubernetes": "kubernetes default/train-well"}[kind]
    )
    assert "starting well on" in str(materialization.metadata["last_lines"].value)
    states = {"slurm": "pending (Priority)", "kubernetes": "0 of 1 pods running; ImagePullBackOff"}
    assert states[kind] in messages


def test_a_job_that_reports_nothing_is_a_failure(python, slurm, tmp_path):
    described, _ = failure(materialize(slurm_launcher(python, tmp_path), tmp_path, "silent"))
    assert described.startswith("the slurm job train-silent ended well, but reported no model")


@pytest.mark.parametrize("kind", ["local", "slurm", "kubernetes"])
def test_cancelling_the_run_ends_the_job(kind, python, slurm, cluster, tmp_path, monkeypatch):
    if kind == "local":
        monkeypatch.setattr(
            run, "torchrun", lambda executable, arguments, processes: [python, *arguments]
        )
        launcher = LocalLauncher()
    else:
        launcher = {"slurm": slurm_launcher, "kubernetes": kubernetes_launcher}[kind](
            python, tmp_path
        )
    if kind == "kubernetes":
        log = tmp_path / "train-hangs.log"
    else:
        log = job_of(tmp_path, "hangs").log
    assert_ends_with_its_run(launcher, tmp_path, log)
    if kind == "slurm":
        assert (slurm / "1.cancelled").exists()
    if kind == "kubernetes":
        assert cluster.deleted == ["train-hangs"]


def test_a_job_has_a_name_a_command_and_a_reason():
    assert job_name("Train", "sim/short.v2", "__") == "train-sim-short-v2"
    assert job_name("x" * 51, "y") == "x" * 51
    assert len(job_name("x" * 60)) == 52
    start = ["python", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    assert torchrun("python", ["train"], 2) == [*start, "--standalone", "-m", "proccorpus", "train"]
    meeting = [
        "--nnodes",
        "3",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "a:1",
        "--rdzv-id",
        "j",
    ]
    many_nodes = torchrun("python", ["train"], 2, 3, "a:1", "j", first=False)
    assert many_nodes[:-5] == [*start, *meeting]
    assert many_nodes[-5:] == [
        "--rdzv-conf",
        "join_timeout=1800,is_host=False",
        "-m",
        "proccorpus",
        "train",
    ]
    assert [why(text) for text in ("a\nerror: b\nc", "a\nb", "")] == [
        "b",
        "b",
        "it has written nothing",
    ]
    assert (Machines().nodes, Machines().gpus_per_node) == (1, 1)
    with pytest.raises(ValidationError):
        Machines(nodes=0)


def test_a_machine_gives_its_lines_and_its_code():
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    assert list(run_node([sys.executable, "-uc", script])) == ["one\n", "two\n", 3]


@pytest.mark.parametrize(
    ("make", "restarts", "said"),
    [
        (slurm_launcher, 1, "is begun again and goes on"),
        (slurm_launcher, 0, None),
        (kubernetes_launcher, 3, "done"),
        (kubernetes_launcher, 0, None),
    ],
)
def test_a_job_goes_on_after_its_time_limit_or_a_failure(
    make, restarts, said, python, slurm, cluster, tmp_path,
    monkeypatch
):  # fmt: skip
    """Slurm's stand-in gives the signal as soon as the first attempt has reported, and begins the job again."""
    (slurm / "limited").touch()
    attempts = tmp_path / "attempts"  # with a line for each time that the job was begun
    monkeypatch.setenv("ATTEMPTS", str(attempts))
    result = materialize(make(python, tmp_path, restarts=restarts), tmp_path, "again")
    assert result.success == (said is not None)
    assert len(attempts.read_text().splitlines()) == (2 if said else 1)
    if said:
        (materialization,) = result.asset_materializations_for_node("model")
        assert materialization.metadata["final_loss"].value == 0.5
        assert said in str(materialization.metadata["last_lines"].value)


def test_more_directives_bring_one_line_each(tmp_path):
    with pytest.raises(FailedError, match="line break"):
        SlurmLauncher(directives=["--x\nrm -rf /"]).script(job_of(tmp_path, "well"), {})


def test_two_machines_get_a_service_that_goes_with_the_job(python, cluster, tmp_path):
    assert materialize(kubernetes_launcher(python, tmp_path, nodes=2), tmp_path, "well").success
    (service,) = cluster.services
    assert service["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "train-well", "uid": "1234"}
    ]


@pytest.mark.parametrize(("kind", "deleted"), [("Job", []), ("Service", ["train-hangs"])])
def test_a_cluster_that_forbids_it(kind, deleted, python, cluster, tmp_path):
    cluster.refuses = (kind,)
    described, _ = failure(
        materialize(kubernetes_launcher(python, tmp_path, nodes=2), tmp_path, "hangs")
    )
    assert described.startswith(
        f"the cluster did not take the {'job' if kind == 'Job' else 'service of'} "
    )
    assert "Forbidden" in described
    assert cluster.deleted == deleted


def test_an_api_that_is_away_for_a_moment(python, cluster, tmp_path):
    cluster.fails_at = (2, 3)
    assert materialize(kubernetes_launcher(python, tmp_path), tmp_path, "well").success


def test_what_ray_starts_on_several_machines(tmp_path):
    launcher = RayLauncher(nodes=2, gpus_per_node=8, python="/opt/py")
    assert launcher.command(job_of(tmp_path, "well"), "n-1") == [
        *(
            "/opt/py",
            "-m",
            "assets.lib.launch.ray_nodes",
            "--python",
            "/opt/py",
            "--nodes",
            "2",
            "--gpus",
            "8",
        ),
        *("--cpus", "96", "--job", "n-1", "--", "train", "--recipe", "well"),
    ]


class GuardedDashboard(Answering):
    """Ray's dashboard on a cluster with a token, for whoever sends none."""

    def do_GET(self) -> None:
        self.answer(b"Unauthorized: Missing authentication token", 401)


def test_a_ray_cluster_that_wants_a_token_is_a_remedy(tmp_path):
    with serving(GuardedDashboard) as url:
        described, _ = failure(materialize(RayLauncher(address=url), tmp_path, "well"))
    assert described == (
        f"the Ray cluster at {url} takes no job without its token: set RAY_AUTH_MODE=token where Dagster's runs "
        "start, and have the token there in ~/.ray/auth_token or RAY_AUTH_TOKEN"
    )
