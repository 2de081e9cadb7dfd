"""Training as a Kubernetes Job: one pod per machine, an index each, meeting at the pod of index 0."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import RENDEZVOUS_PORT, Job, Machines, follow, torchrun

NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# A pod that is told to end: torchrun gives a training 30 s for a last checkpoint
ENDS_WITHIN_S = 120
KEPT_S = 86400  # so long an ended job stays for people to look at


class Toleration(dg.Config):
    """A taint of machines that a job may run on all the same, in Kubernetes' words."""

    key: str = Field(min_length=1, description="The taint's key, such as nvidia.com/gpu.")
    value: str = Field(default="", description="Its value; empty: whatever it is.")
    effect: str = Field(
        default="", description="NoSchedule, PreferNoSchedule or NoExecute; empty: all."
    )

    def manifest(self) -> dict[str, str]:
        if self.value:
            match = {"operator": "Equal", "value": self.value}
        else:
            match = {"operator": "Exists"}
        return {"key": self.key} | match | ({"effect": self.effect} if self.effect else {})


class KubernetesLauncher(Machines):
    """As a Job of a cluster that mounts the workspace."""

    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(min_length=1, description="Image with proccorpus and its training extras.")
    claim: str = Field(
        pattern=NAME, description="PersistentVolumeClaim of the volume that holds the workspace."
    )
    mount: str = Field(
        default="",
        description="Where that volume is mounted, here and there; empty: the workspace itself.",
    )
    namespace: str = Field(default="default", pattern=NAME, description="Where the Job is made.")
    memory_per_gpu: int = Field(
        default=200, ge=1, description="Memory for each GPU, or of a pod without, in Gi."
    )
    shared_memory_per_gpu: int = Field(
        default=32,
        ge=1,
        description="Of that, /dev/shm: prepared batches and NCCL are there; in Gi.",
    )
    restarts: int = Field(
        default=3,
        ge=0,
        description="How often a job whose pods failed is begun again; it goes on from its newest checkpoint. Pods "
        "that the cluster itself takes away do not count. 0: the first failure ends it.",
    )
    resources: dict[str, str] = Field(
        default_factory=dict,
        description="More that each pod asks for, such as rdma/hca_shared_devices_a: 1.",
    )
    host_network: bool = Field(
        default=False, description="The machine's own network, for RDMA without a device plugin."
    )
    tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration(key="nvidia.com/gpu", effect="NoSchedule")],
        description="Taints of machines that are no hindrance.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="More labels, such as kueue.x-k8s.io/queue-name to start all pods or none.",
    )
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Of each pod, such as k8s.v1.cni.cncf.io/networks."
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the machines to be used."
    )
    service_account: str = Field(default="", description="Empty: the namespace's own.")
    python: str = Field(default="python", description="Interpreter in the image.")
    context: str = Field(
        default="", description="Context of your kubeconfig; empty: the current one, or this pod's."
    )

    def manifests(self, job: Job, environment: Mapping[str, str]) -> tuple[dict, dict | None]:
        """(Job, Service): the Service gives the pods of several machines names to meet by; None for one machine."""
        selector = {"app.kubernetes.io/name": "proccorpus", "app.kubernetes.io/instance": job.name}
        labels = self.labels | selector
        has_many_nodes = self.nodes > 1
        share = max(1, self.gpus_per_node)
        first = f"{job.name}-0.{job.name}:{RENDEZVOUS_PORT}"
        # Devices are limits as well as requests, as Kubernetes asks of them; CPUs have no limit
        memory = {"memory": f"{self.memory_per_gpu * share}Gi"}
        cores = {"cpu": str(self.cpus_per_gpu * share)}
        devices = (
            {"nvidia.com/gpu": str(self.gpus_per_node)} if self.gpus_per_node else {}
        ) | self.resources
        security: dict[str, Any] = {"allowPrivilegeEscalation": False}
        # RDMA pins the memory that it reads and writes
        if self.resources or self.host_network:
            security["capabilities"] = {"add": ["IPC_LOCK"]}
        container = {
            "name": "train",
            "image": self.image,
            "command": torchrun(
                self.python,
                job.arguments,
                share,
                self.nodes,
                first if has_many_nodes else "",
                job.name,
            ),
            "workingDir": str(job.folder),
            "env": [{"name": k, "value": v} for k, v in sorted(environment.items())],
            "resources": {"requests": cores | memory | devices, "limits": memory | devices},
            "securityContext": security,
            "volumeMounts": [
                {"name": "workspace", "mountPath": self.mount or str(job.workspace)},
                # PyTorch's loaders share batches in /dev/shm, of which a container has 64 MB by default
                {"name": "shm", "mountPath": "/dev/shm"},
            ],
        }
        if has_many_nodes:
            container["ports"] = [{"name": "rendezvous", "containerPort": RENDEZVOUS_PORT}]
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": ENDS_WITHIN_S,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [
                {"name": "workspace", "persistentVolumeClaim": {"claimName": self.claim}},
                {
                    "name": "shm",
                    "emptyDir": {
                        "medium": "Memory",
                        "sizeLimit": f"{self.shared_memory_per_gpu * share}Gi",
                    },
                },
            ],
            "tolerations": [t.manifest() for t in self.tolerations],
        }
        # A setting that is not given is left to the cluster's defaults. On the machine's own network a pod would else
        # ask the machine's name server, which knows no pods
        settings = {
            "hostNetwork": self.host_network,
            "dnsPolicy": "ClusterFirstWithHostNet" if self.host_network else None,
            "subdomain": job.name if has_many_nodes else None,
            "nodeSelector": self.node_selector,
            "serviceAccountName": self.service_account,
        }
        pod |= {name: value for name, value in settings.items() if value}
        manifest = {
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
                    "rules": [
                        {
                            "action": "Ignore",
                            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                        }
                    ]
                },
                "ttlSecondsAfterFinished": KEPT_S,
                "template": {
                    "metadata": {"labels": labels, "annotations": self.annotations},
                    "spec": pod,
                },
            },
        }
        if not has_many_nodes:
            return manifest, None
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": job.name, "namespace": self.namespace, "labels": selector},
            "spec": {
                # Headless: names lead to the pods themselves, without a balancer in between
                "clusterIP": "None",
                "selector": {"app.kubernetes.io/instance": job.name},
                "publishNotReadyAddresses": True,  # they have to meet before any of them is ready
                "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
            },
        }
        return manifest, service

    def run(self, context: dg.AssetExecutionContext, job: Job) -> dg.PipesClientCompletedInvocation:
        # Imports the client of Kubernetes' API
        from assets.lib.launch.kubernetes_job import KubernetesJob, connected

        def start(environment: Mapping[str, str]) -> KubernetesJob:
            return KubernetesJob(connected(self.context), *self.manifests(job, environment))

        return follow(context, self.kind, job, start)
