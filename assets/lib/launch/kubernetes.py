"""Training as a Kubernetes Job: one pod per machine, an index each, meeting at the pod of index 0."""

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import RENDEZVOUS_PORT, Job, LaunchError, State, torchrun
from core.logs import SEARCHED_LINES

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
SILENCE_S = 600.0  # so long the API may be away
ANSWER_S = 30
KEPT_S = 86400  # so long an ended job stays for people to look at
ENDS = {"Succeeded": 0, "Failed": 1}  # whose log tells most


class KubernetesJob:
    def __init__(self, api: "ApiClient", namespace: str, name: str) -> None:
        from kubernetes import client

        self._batch = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self._namespace = namespace
        self._name = name
        self._heard = time.monotonic()

    @property
    def id(self) -> str:
        return f"{self._namespace}/{self._name}"

    def state(self) -> State:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            job: Any = self._batch.read_namespaced_job(self._name, self._namespace, _request_timeout=ANSWER_S)
            pods = self._pods()
        except (ApiException, HTTPError) as e:
            # A cluster may be silent for a while; a job that it does not know is gone
            gone = isinstance(e, ApiException) and e.status == 404
            if gone or time.monotonic() - self._heard > SILENCE_S:
                raise LaunchError(f"the job {self.id} cannot be asked about: {_told(e)}") from e
            return State(f"not known just now ({_told(e)})")
        # Silence counts from the last answer, so that short ones may come often
        self._heard = time.monotonic()
        ended = _ended(job)
        return _running(pods) if ended is None else ended

    def _pods(self) -> list[Any]:
        label = f"batch.kubernetes.io/job-name={self._name}"
        listed: Any = self._core.list_namespaced_pod(self._namespace, label_selector=label, _request_timeout=ANSWER_S)
        return sorted(listed.items, key=lambda p: p.metadata.name)

    def written(self) -> str:
        """Of a pod that came to its end well, else of the newest that failed, else of the first that has a log."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            # The sort is stable: of pods that ended alike, the newest comes first
            newest = sorted(self._pods(), key=_age)
            for pod in sorted(newest, key=lambda p: ENDS.get(p.status.phase, len(ENDS))):
                read: Any = self._core.read_namespaced_pod_log(
                    pod.metadata.name,
                    self._namespace,
                    tail_lines=SEARCHED_LINES,
                    _request_timeout=ANSWER_S,
                    _preload_content=False,  # as text the client gives the bytes' Python form
                )
                if read.data:
                    return read.data.decode(errors="replace").rstrip()
        except (ApiException, HTTPError) as e:
            return f"(no log: {_told(e)})"
        return ""

    def cancel(self) -> None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            self._batch.delete_namespaced_job(
                self._name, self._namespace, propagation_policy="Background", _request_timeout=ANSWER_S
            )
        except (ApiException, HTTPError) as e:
            if not (isinstance(e, ApiException) and e.status == 404):
                raise LaunchError(f"the job {self.id} could not be deleted: {_told(e)}") from e


def _ended(job: Any) -> State | None:
    """How a job ended; None: it has not."""
    for condition in job.status.conditions or []:
        if condition.status == "True" and condition.type in ("Complete", "Failed"):
            reason = f" ({condition.reason}: {condition.message})" if condition.reason else ""
            return State(condition.type.lower() + reason, failed=condition.type == "Failed")
    return None


def _running(pods: list[Any]) -> State:
    """How many pods of a job run, and what holds up the others."""
    # A pod that failed is there beside the one that took its place
    failed = sum(pod.status.phase == "Failed" for pod in pods)
    running = sum(pod.status.phase == "Running" for pod in pods)
    state = f"{running} of {len(pods) - failed} pods running"
    state += f"; {failed} failed before" if failed else ""
    reasons = {_held_up(pod) for pod in pods}
    held_up = sorted(reason for reason in reasons if reason)
    if held_up:
        state += f"; {', '.join(held_up)}"
    return State(state)


def _age(pod: Any) -> float:
    """Seconds since a pod was begun; 0 where the cluster does not say when."""
    begun = pod.metadata.creation_timestamp
    return (datetime.now(UTC) - begun).total_seconds() if begun else 0.0


def _told(e: Exception) -> str:
    reason = getattr(e, "reason", None)
    return " ".join(str(reason or e).split())[:200]


def _held_up(pod: Any) -> str | None:
    """Why a pod does not run yet, such as ImagePullBackOff or Unschedulable."""
    for container in pod.status.container_statuses or []:
        if container.state.waiting and container.state.waiting.reason not in (None, "ContainerCreating"):
            return container.state.waiting.reason
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason
    return None


class Toleration(dg.Config):
    """A taint of machines that a job may run on all the same, in Kubernetes' words."""

    key: str = Field(min_length=1, description="The taint's key, such as nvidia.com/gpu.")
    value: str = Field(default="", description="Its value; empty: whatever it is.")
    effect: str = Field(default="", description="NoSchedule, PreferNoSchedule or NoExecute; empty: all.")

    def manifest(self) -> dict[str, str]:
        what = {"operator": "Equal", "value": self.value} if self.value else {"operator": "Exists"}
        return {"key": self.key} | what | ({"effect": self.effect} if self.effect else {})


class KubernetesLauncher(dg.Config):
    """As a Job of a cluster that mounts the workspace."""

    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(min_length=1, description="Image with proccorpus and its training extras.")
    claim: str = Field(pattern=NAME, description="PersistentVolumeClaim of the volume that holds the workspace.")
    mount: str = Field(
        default="", description="Where that volume is mounted, here and there; empty: the workspace itself."
    )
    namespace: str = Field(default="default", pattern=NAME, description="Where the Job is made.")
    nodes: int = Field(default=1, ge=1, description="Pods, one per machine.")
    gpus_per_node: int = Field(default=1, ge=0, description="GPUs of each pod, a process each; 0: one on CPU.")
    cpus_per_gpu: int = Field(
        default=12, ge=1, description="Cores for each GPU: its process and those that decode for it."
    )
    memory_per_gpu: int = Field(default=200, ge=1, description="Memory for each GPU, or of a pod without, in Gi.")
    shared_memory_per_gpu: int = Field(
        default=32, ge=1, description="Of that, /dev/shm: prepared batches and NCCL are there; in Gi."
    )
    restarts: int = Field(
        default=3,
        ge=0,
        description="How often a job whose pods failed is begun again; it goes on from its newest checkpoint. Pods "
        "that the cluster itself takes away do not count. 0: the first failure ends it.",
    )
    resources: dict[str, str] = Field(
        default_factory=dict, description="More that each pod asks for, such as rdma/hca_shared_devices_a: 1."
    )
    host_network: bool = Field(
        default=False, description="The machine's own network, for RDMA without a device plugin."
    )
    tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration(key="nvidia.com/gpu", effect="NoSchedule")],
        description="Taints of machines that are no hindrance.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="More labels, such as kueue.x-k8s.io/queue-name to start all pods or none."
    )
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Of each pod, such as k8s.v1.cni.cncf.io/networks."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the machines to be used.")
    service_account: str = Field(default="", description="Empty: the namespace's own.")
    python: str = Field(default="python", description="Interpreter in the image.")
    context: str = Field(default="", description="Context of your kubeconfig; empty: the current one, or this pod's.")

    def manifests(self, job: Job, environment: Mapping[str, str]) -> tuple[dict, dict | None]:
        """(Job, Service): the Service gives the pods of several machines names to meet by; None for one machine."""
        own = {"app.kubernetes.io/name": "proccorpus", "app.kubernetes.io/instance": job.name}
        labels = self.labels | own
        several, share = self.nodes > 1, max(1, self.gpus_per_node)
        first = f"{job.name}-0.{job.name}:{RENDEZVOUS_PORT}"
        # Devices are limits as well as requests, as Kubernetes asks of them; CPUs have no limit
        memory = {"memory": f"{self.memory_per_gpu * share}Gi"}
        cores = {"cpu": str(self.cpus_per_gpu * share)}
        devices = ({"nvidia.com/gpu": str(self.gpus_per_node)} if self.gpus_per_node else {}) | self.resources
        # RDMA pins the memory that it reads and writes
        pins = {"capabilities": {"add": ["IPC_LOCK"]}} if self.resources or self.host_network else {}
        container = {
            "name": "train",
            "image": self.image,
            "command": torchrun(self.python, job.arguments, share, self.nodes, first if several else "", job.name),
            "workingDir": str(job.folder),
            "env": [{"name": k, "value": v} for k, v in sorted(environment.items())],
            "resources": {"requests": cores | memory | devices, "limits": memory | devices},
            "securityContext": {"allowPrivilegeEscalation": False} | pins,
            "volumeMounts": [
                {"name": "workspace", "mountPath": self.mount or str(job.workspace)},
                # PyTorch's loaders share batches in /dev/shm, of which a container has 64 MB by default
                {"name": "shm", "mountPath": "/dev/shm"},
            ],
        }
        if several:
            container["ports"] = [{"name": "rendezvous", "containerPort": RENDEZVOUS_PORT}]
        pod = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [
                {"name": "workspace", "persistentVolumeClaim": {"claimName": self.claim}},
                {
                    "name": "shm",
                    "emptyDir": {"medium": "Memory", "sizeLimit": f"{self.shared_memory_per_gpu * share}Gi"},
                },
            ],
            "tolerations": [t.manifest() for t in self.tolerations],
        }
        # On the machine's own network a pod would else ask the machine's name server, which knows no pods
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if self.host_network else {}
        pod |= {"subdomain": job.name} if several else {}
        pod |= {"nodeSelector": self.node_selector} if self.node_selector else {}
        pod |= {"serviceAccountName": self.service_account} if self.service_account else {}
        made = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job.name, "namespace": self.namespace, "labels": labels},
            "spec": {
                "completionMode": "Indexed",
                "completions": self.nodes,
                # All pods at once: training waits until every machine has come
                "parallelism": self.nodes,
                # A rank that died ends them all, so each restart takes a pod of every machine
                "backoffLimit": self.restarts * self.nodes,
                # A pod that was evicted for another's sake, or whose machine went away, is no failure of the job
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
                },
                "ttlSecondsAfterFinished": KEPT_S,
                "template": {"metadata": {"labels": labels, "annotations": self.annotations}, "spec": pod},
            },
        }
        if not several:
            return made, None
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": job.name, "namespace": self.namespace, "labels": own},
            "spec": {
                # Headless: names lead to the pods themselves, without a balancer in between
                "clusterIP": "None",
                "selector": {"app.kubernetes.io/instance": job.name},
                "publishNotReadyAddresses": True,  # they have to meet before any of them is ready
                "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
            },
        }
        return made, service

    def start(self, job: Job, environment: Mapping[str, str]) -> KubernetesJob:
        from kubernetes import client
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        api = self._client()
        made, service = self.manifests(job, environment)
        running = KubernetesJob(api, self.namespace, job.name)
        try:
            there: Any = client.BatchV1Api(api).create_namespaced_job(self.namespace, made, _request_timeout=ANSWER_S)
        except (ApiException, HTTPError) as e:
            raise LaunchError(f"the cluster did not take the job {running.id}: {_told(e)}") from e
        if service:
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": there.metadata.uid}
            service["metadata"]["ownerReferences"] = [owner]  # goes when the Job goes
            try:
                client.CoreV1Api(api).create_namespaced_service(self.namespace, service, _request_timeout=ANSWER_S)
            except (ApiException, HTTPError) as e:
                running.cancel()
                raise LaunchError(f"the cluster did not take the service of {running.id}: {_told(e)}") from e
        return running

    def _client(self) -> "ApiClient":
        from kubernetes import config

        try:
            # Dagster may run inside the cluster, where a service account takes the place of a kubeconfig
            if not self.context and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config()
                from kubernetes import client

                return client.ApiClient()
            return config.new_client_from_config(os.environ.get("KUBECONFIG"), self.context or None)
        except config.ConfigException as e:
            raise LaunchError(f"no Kubernetes cluster is configured: {' '.join(str(e).split())}") from e
