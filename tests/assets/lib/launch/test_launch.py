"""Training jobs of an asset: handed over, followed, ended with the run, and what they say when they fail."""

import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml

from assets.lib.launch import job, run
from assets.lib.launch.job import job_name, torchrun, why
from assets.lib.launch.kubernetes import KubernetesLauncher, Toleration
from assets.lib.launch.ray import RayLauncher
from assets.lib.launch.run import LocalLauncher
from assets.lib.launch.slurm import SlurmLauncher
from core.errors import FailedError
from core.paths import ROOT
from tests.kits.kubernetes_standin import Cluster, serve_cluster
from tests.kits.launch_kit import alive, failure, interpreter, interrupt_when_up, job_of, materialize

VERSION = "1.34"  # of Kubernetes' schemas


@pytest.fixture
def python(tmp_path: Path) -> str:
    return interpreter(tmp_path)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's programs on PATH; the folder of their state."""
    programs, state = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    state.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel", "srun", "scontrol"):
        (programs / name).symlink_to(ROOT / "tests" / "kits" / "slurm_standin.sh")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STANDIN", str(state))
    return state


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serve_cluster(tmp_path) as found:
        yield found


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that the job `again` was begun."""
    monkeypatch.setenv("ATTEMPTS", str(tmp_path / "attempts"))
    return tmp_path / "attempts"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "POLL_S", 0.05)


def slurm_launcher(python: str, folder: Path, **more: Any) -> SlurmLauncher:
    return SlurmLauncher(python=python, gpus_per_node=0, **more)


def kubernetes_launcher(python: str, folder: Path, **more: Any) -> KubernetesLauncher:
    return KubernetesLauncher(python=python, image="corpus:1", claim="work", gpus_per_node=0, **more)


LAUNCHERS = [slurm_launcher, kubernetes_launcher]


@pytest.mark.parametrize("make", LAUNCHERS)
def test_what_a_job_reports_is_the_materialisation(
    make: Callable, python: str, slurm: Path, cluster: Cluster, tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(make(python, tmp_path), tmp_path, "well", instance)
        assert result.success
        told = [r.message for r in instance.all_logs(result.run_id)]
    (made,) = result.asset_materializations_for_node("model")
    assert made.metadata["final_loss"].value == 0.5
    assert (made.tags or {})["dagster/data_version"] == "v1"
    kind = make(python, tmp_path).kind
    assert made.metadata["job"].value == {"slurm": "slurm 1", "kubernetes": "kubernetes default/train-well"}[kind]
    assert "starting well on" in str(made.metadata["last_lines"].value)
    assert "step 1 of 2: loss 0.7" in told
    states = {"slurm": "pending (Priority)", "kubernetes": "0 of 1 pods running; ImagePullBackOff"}
    assert states[kind] in told


@pytest.mark.parametrize("make", LAUNCHERS)
def test_a_failed_job_tells_its_error_and_last_lines(
    make: Callable, python: str, slurm: Path, cluster: Cluster, tmp_path: Path
) -> None:
    described, lines = failure(materialize(make(python, tmp_path), tmp_path, "fails"))
    assert described.endswith(": the loss is nan at step 1: lower lr in the recipe")
    assert "failed" in described
    assert lines.splitlines()[-2:] == ["error: the loss is nan at step 1: lower lr in the recipe", "```"]


def test_a_job_that_reports_nothing_is_a_failure(python: str, slurm: Path, tmp_path: Path) -> None:
    described, _ = failure(materialize(slurm_launcher(python, tmp_path), tmp_path, "silent"))
    assert described.startswith("the slurm job train-silent ended well, but reported no model")


@pytest.mark.parametrize("kind", ["local", "slurm", "kubernetes"])
def test_cancelling_the_run_ends_the_job(
    kind: str, python: str, slurm: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "local":
        monkeypatch.setattr(run, "torchrun", lambda executable, arguments, processes: [python, *arguments])
        launcher = LocalLauncher()
    else:
        launcher = {"slurm": slurm_launcher, "kubernetes": kubernetes_launcher}[kind](python, tmp_path)
    log = tmp_path / "train-hangs.log" if kind == "kubernetes" else job_of(tmp_path, "hangs").log
    pids: list[int] = []
    thread = interrupt_when_up(log, pids)
    result = materialize(launcher, tmp_path, "hangs")
    (event,) = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert error
    assert error.cls_name == "DagsterExecutionInterruptedError"
    thread.join()
    assert len(pids) == 2
    limit = time.monotonic() + 30
    while alive(pids) and time.monotonic() < limit:
        time.sleep(0.02)
    assert alive(pids) == []
    if kind == "slurm":
        assert (slurm / "1.cancelled").exists()
    if kind == "kubernetes":
        assert cluster.deleted == ["train-hangs"]


# Slurm


def test_the_sbatch_script_of_several_machines(tmp_path: Path) -> None:
    launcher = SlurmLauncher(
        nodes=2,
        gpus_per_node=8,
        time_limit="1-00:00:00",
        partition="gpu",
        directives=["--constraint=h100"],
        setup=["module load cuda"],
        python="/opt/py",
    )
    script = launcher.script(job_of(tmp_path, "well"), {"B": "it's", "A": "1"})
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert directives == [
        "--job-name=train-well",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--cpus-per-task=96",
        "--mem-per-gpu=200G",
        "--time=1-00:00:00",
        "--partition=gpu",
        f"--chdir={tmp_path}/jobs/it's 1",
        f"--output={tmp_path}/jobs/it's 1/log.txt",
        "--open-mode=append",
        "--signal=B:USR1@120",
        "--requeue",
        "--constraint=h100",
    ]
    rest = [line for line in lines[1:] if not line.startswith("#SBATCH")]
    assert rest[:4] == [
        "export A=1",
        f"export B={shlex.quote(chr(105) + 't' + chr(39) + 's')}",
        "module load cuda",
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    ]
    # srun does not take over the cores of the job by itself
    assert (
        "srun --kill-on-bad-exit=1 --cpus-per-task=96 /opt/py -m torch.distributed.run --nproc-per-node 8 --nnodes 2 "
        '--rdzv-backend c10d --rdzv-endpoint "$head:29400" --rdzv-id "$SLURM_JOB_ID" --rdzv-conf join_timeout=1800 '
        "-m proccorpus train --recipe well &"
    ) in rest


def test_a_slurm_job_that_is_never_begun_again(tmp_path: Path) -> None:
    script = SlurmLauncher(restarts=0, gpus_per_node=0).script(job_of(tmp_path, "well"), {})
    assert "--no-requeue" in script
    assert "USR1" not in script
    assert "#SBATCH --mem=200G" in script
    assert "\nexec srun --kill-on-bad-exit=1 --cpus-per-task=12 " in script


@pytest.mark.parametrize(("restarts", "times"), [(10, 2), (1, 2), (0, 1)])
def test_a_slurm_job_goes_on_after_its_time_limit(
    restarts: int, times: int, python: str, slurm: Path, attempts: Path, tmp_path: Path
) -> None:
    """The stand-in gives the signal as soon as the first attempt has reported, and begins the job again."""
    launcher = slurm_launcher(python, tmp_path, restarts=restarts)
    (slurm / "limited").touch()
    result = materialize(launcher, tmp_path, "again")
    assert len(attempts.read_text().splitlines()) == times
    assert result.success == (times == 2)
    if result.success:
        (made,) = result.asset_materializations_for_node("model")
        assert made.metadata["final_loss"].value == 0.5
        assert "is begun again and goes on" in str(made.metadata["last_lines"].value)


def test_slurm_that_is_not_there_or_does_not_take_it(slurm: Path, python: str, tmp_path: Path) -> None:
    (slurm / "down").touch()
    described, _ = failure(materialize(slurm_launcher(python, tmp_path), tmp_path, "well"))
    assert described == "sbatch: sbatch: error: Batch job submission failed: Unable to contact slurm controller"


def test_slurm_that_is_not_installed(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    described, _ = failure(materialize(slurm_launcher(python, tmp_path), tmp_path, "well"))
    assert described.startswith("sbatch is not on PATH")


@pytest.mark.parametrize("field", ["partition", "time_limit"])
def test_a_directive_brings_no_line_of_its_own(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SlurmLauncher.model_validate({field: "gpu\nrm -rf /"})


def test_more_directives_bring_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="line break"):
        SlurmLauncher(directives=["--x\nrm -rf /"]).script(job_of(tmp_path, "well"), {})


# Kubernetes


@pytest.mark.parametrize("nodes", [1, 2])
def test_manifests_are_valid(nodes: int, tmp_path: Path) -> None:
    launcher = KubernetesLauncher(
        image="corpus:1", claim="work", nodes=nodes, gpus_per_node=8, node_selector={"gpu": "h100"}, service_account="t"
    )
    made, service = launcher.manifests(job_of(tmp_path, "well"), {"A": "1"})
    for manifest in filter(None, (made, service)):
        # through YAML and back: what is sent is plain data
        kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(manifest)), VERSION, strict=True)
    assert (service is None) == (nodes == 1)
    spec = made["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (nodes, nodes, 3 * nodes)
    assert container["resources"]["limits"] == {"memory": "1600Gi", "nvidia.com/gpu": "8"}
    assert container["resources"]["requests"]["cpu"] == "96"
    assert pod["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Gi"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "hostNetwork" not in pod
    assert container["volumeMounts"][0] == {"name": "workspace", "mountPath": str(tmp_path)}
    assert container["env"] == [{"name": "A", "value": "1"}]
    command = " ".join(container["command"])
    if service:
        assert "--rdzv-endpoint train-well-0.train-well:29400 --rdzv-id train-well" in command
        assert (pod["subdomain"], service["spec"]["clusterIP"]) == ("train-well", "None")
    else:
        assert "--standalone" in command


def test_a_pod_with_rdma_on_the_machines_network(tmp_path: Path) -> None:
    launcher = KubernetesLauncher(
        image="corpus:1",
        claim="work",
        nodes=2,
        gpus_per_node=8,
        resources={"rdma/hca_shared_devices_a": "1"},
        host_network=True,
        tolerations=[Toleration(key="reserved", value="training")],
        labels={"kueue.x-k8s.io/queue-name": "gpu"},
        annotations={"k8s.v1.cni.cncf.io/networks": "ib0"},
        restarts=0,
    )
    made, service = launcher.manifests(job_of(tmp_path, "well"), {})
    for manifest in (made, service):
        kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(manifest)), VERSION, strict=True)
    template = made["spec"]["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    for share in ("requests", "limits"):
        assert container["resources"][share]["rdma/hca_shared_devices_a"] == "1"
    assert container["securityContext"]["capabilities"] == {"add": ["IPC_LOCK"]}
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert pod["tolerations"] == [{"key": "reserved", "operator": "Equal", "value": "training"}]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert template["metadata"]["annotations"] == {"k8s.v1.cni.cncf.io/networks": "ib0"}
    assert made["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize(("restarts", "times"), [(3, 2), (0, 1)])
def test_a_job_of_a_cluster_goes_on_after_a_failure(
    restarts: int, times: int, python: str, cluster: Cluster, attempts: Path, tmp_path: Path
) -> None:
    result = materialize(kubernetes_launcher(python, tmp_path, restarts=restarts), tmp_path, "again")
    assert len(attempts.read_text().splitlines()) == times
    assert result.success == (times == 2)
    if result.success:
        (made,) = result.asset_materializations_for_node("model")
        assert "done" in str(made.metadata["last_lines"].value)


def test_two_machines_get_a_service_that_goes_with_the_job(python: str, cluster: Cluster, tmp_path: Path) -> None:
    assert materialize(kubernetes_launcher(python, tmp_path, nodes=2), tmp_path, "well").success
    (service,) = cluster.services
    assert service["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "train-well", "uid": "1234"}
    ]


@pytest.mark.parametrize(("kind", "deleted"), [("Job", []), ("Service", ["train-hangs"])])
def test_a_cluster_that_forbids_it(kind: str, deleted: list[str], python: str, cluster: Cluster, tmp_path: Path):
    cluster.refuses = (kind,)
    described, _ = failure(materialize(kubernetes_launcher(python, tmp_path, nodes=2), tmp_path, "hangs"))
    assert described.startswith(f"the cluster did not take the {'job' if kind == 'Job' else 'service of'} ")
    assert "Forbidden" in described
    assert cluster.deleted == deleted


def test_an_api_that_is_away_for_a_moment(python: str, cluster: Cluster, tmp_path: Path) -> None:
    cluster.fails_at = (2, 3)
    assert materialize(kubernetes_launcher(python, tmp_path), tmp_path, "well").success


def test_no_cluster_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    described, _ = failure(materialize(kubernetes_launcher("python", tmp_path), tmp_path, "well"))
    assert described.startswith("no Kubernetes cluster is configured")


# Ray; a real head is asked by `make stack-test`


def test_what_ray_starts_on_several_machines(tmp_path: Path) -> None:
    launcher = RayLauncher(nodes=2, gpus_per_node=8, python="/opt/py")
    assert launcher.command(job_of(tmp_path, "well"), "n-1") == [
        *("/opt/py", "-m", "assets.lib.launch.ray_nodes", "--python", "/opt/py", "--nodes", "2", "--gpus", "8"),
        *("--cpus", "96", "--job", "n-1", "--", "train", "--recipe", "well"),
    ]


def test_a_ray_cluster_that_is_not_there(tmp_path: Path) -> None:
    described, _ = failure(materialize(RayLauncher(address="http://127.0.0.1:9"), tmp_path, "well"))
    assert described.startswith("no Ray cluster answers at http://127.0.0.1:9")


# What they share


def test_the_command_of_one_machine() -> None:
    assert torchrun("py", ["train"], 4) == [
        *("py", "-m", "torch.distributed.run", "--nproc-per-node", "4", "--standalone", "-m", "proccorpus", "train")
    ]


def test_names_are_those_of_kubernetes() -> None:
    assert job_name("train", "ProgressLM_sft.lora", "x" * 60) == "train-progresslm-sft-lora-" + "x" * 26
    assert job_name("a", "_") == "a"


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        ("x\nerror: no such thing\nTraceback", "no such thing"),
        ("x\nTraceback", "Traceback"),
        ("", "it has written nothing"),
    ],
)
def test_why_a_job_failed(tail: str, told: str) -> None:
    assert why(tail) == told
