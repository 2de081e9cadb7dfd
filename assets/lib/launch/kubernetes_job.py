"""A training Job in a Kubernetes cluster: made, asked about, deleted. Imports the client of its API."""

import os
import time
from collections.abc import Callable
from typing import Any

from kubernetes import client, config
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from assets.lib.launch.job import JobError
from core.errors import FailedError
from core.logs import SEARCHED_LINES

ANSWER_S = 30
ENDED = ("Complete", "Failed")  # conditions of a job
ENDS = {"Succeeded": 0, "Failed": 1}  # pods whose log tells most


def connected(context: str) -> client.ApiClient:
    """Raises FailedError. `context`: of the kubeconfig; empty: the current one, or that of this pod."""
    try:
        # Dagster may run inside the cluster, where a service account takes the place of a kubeconfig
        if not context and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()
            return client.ApiClient()
        return config.new_client_from_config(os.environ.get("KUBECONFIG"), context or None)
    except config.ConfigException as e:
        raise FailedError(f"no Kubernetes cluster is configured: {' '.join(str(e).split())}") from e


class KubernetesJob:
    def __init__(self, api: client.ApiClient, made: dict, service: dict | None) -> None:
        """Hand the Job over, then its Service, which goes when the Job goes. Raises FailedError."""
        self._batch = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self._name = made["metadata"]["name"]
        self._namespace = made["metadata"]["namespace"]
        self.id = f"{self._namespace}/{self._name}"
        refused = f"the cluster did not take the job {self.id}"
        created = self._ask(refused, self._batch.create_namespaced_job, self._namespace, made)
        if service:
            owner = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": self._name,
                "uid": created.metadata.uid,
            }
            service["metadata"]["ownerReferences"] = [owner]
            refused = f"the cluster did not take the service of {self.id}"
            try:
                self._ask(refused, self._core.create_namespaced_service, self._namespace, service)
            except FailedError:
                self.cancel()
                raise

    def _ask(self, refused: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, _request_timeout=ANSWER_S, **options)
        except (ApiException, HTTPError) as e:
            reason = " ".join(str(getattr(e, "reason", None) or e).split())[:200]
            if isinstance(e, ApiException) and e.status == 404:
                raise JobError(refused, reason) from e
            raise FailedError(f"{refused}: {reason}") from e

    def state(self) -> tuple[str, bool | None]:
        """How it ended; else how many of its pods run, and what holds up the others."""
        unknown = f"the job {self.id} cannot be asked about"
        job = self._ask(unknown, self._batch.read_namespaced_job, self._name, self._namespace)
        if ended := next(
            (c for c in job.status.conditions or [] if c.status == "True" and c.type in ENDED), None
        ):
            reason = f" ({ended.reason}: {ended.message})" if ended.reason else ""
            return ended.type.lower() + reason, ended.type == "Failed"
        # A pod that failed is there beside the one that took its place
        pods = self._pods(unknown)
        phases = [pod.status.phase for pod in pods]
        failed = phases.count("Failed")
        running = f"{phases.count('Running')} of {len(pods) - failed} pods running"
        state = running + f"; {failed} failed before" * bool(failed)
        return "; ".join(
            filter(None, (state, ", ".join(sorted(set(map(_held_up, pods)) - {""}))))
        ), None

    def _pods(self, unknown: str) -> list[Any]:
        label = f"batch.kubernetes.io/job-name={self._name}"
        listed = self._ask(
            unknown, self._core.list_namespaced_pod, self._namespace, label_selector=label
        )
        return sorted(listed.items, key=lambda pod: pod.metadata.name)

    def written(self) -> str:
        """Of a pod that came to its end well, else of the newest that failed, else of the first that has a log."""
        try:
            # Of pods that ended alike, the newest comes first
            for pod in sorted(
                self._pods("no log"),
                key=lambda pod: (ENDS.get(pod.status.phase, len(ENDS)), _age(pod)),
            ):
                # As text the client gives the bytes' Python form
                options = {"tail_lines": SEARCHED_LINES, "_preload_content": False}
                log = self._core.read_namespaced_pod_log
                if data := self._ask(
                    "no log", log, pod.metadata.name, self._namespace, **options
                ).data:
                    return data.decode(errors="replace").rstrip()
        except FailedError as e:
            return f"({e})"
        return ""

    def cancel(self) -> None:
        refused = f"the job {self.id} could not be deleted"
        options = {"propagation_policy": "Background"}
        try:
            self._ask(
                refused, self._batch.delete_namespaced_job, self._name, self._namespace, **options
            )
        except JobError:  # it is gone
            return


def _age(pod: Any) -> float:
    """Seconds since a pod was begun; 0 where the cluster does not say when."""
    created_at = pod.metadata.creation_timestamp
    if created_at:
        return time.time() - created_at.timestamp()
    return 0.0


def _held_up(pod: Any) -> str:
    """Why a pod does not run yet, such as ImagePullBackOff or Unschedulable; empty: it runs."""
    for container in pod.status.container_statuses or []:
        if container.state.waiting and container.state.waiting.reason not in (
            None,
            "ContainerCreating",
        ):
            return container.state.waiting.reason
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or ""
    return ""
