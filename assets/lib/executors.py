"""What runs the steps of Dagster's runs: this process, a Ray cluster, or Kubernetes. PROCCORPUS_EXECUTOR chooses.

Several runs at once are the usual parallelism (steps on a cluster cost seconds each): choose a cluster where a step
works for minutes. A step is one stage of one partition, whoever runs it: rows and shards are the same to the byte.
"""

import os

import dagster as dg

CHOICE = "PROCCORPUS_EXECUTOR"
EXECUTORS = ("in_process", "ray", "kubernetes")
# What a step on another machine needs to be told. No secrets: Ray shows a job's variables to whoever sees its dashboard
PASSED_ON = (CHOICE, "PROCCORPUS_WORKSPACE", "PROCCORPUS_CONFIG", "DAGSTER_HOME", "DAGSTER_FILES", "PROCCORPUS_NOTES")


def is_one_process() -> bool:
    """Are the steps of a run run by one process, one after the other?"""
    return (os.environ.get(CHOICE) or EXECUTORS[0]) == EXECUTORS[0]


def executor() -> dg.ExecutorDefinition:
    """As the environment says. Raises ValueError for a name that is none of EXECUTORS."""
    name = os.environ.get(CHOICE) or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ValueError(f"{CHOICE} is {name!r}: it may be {', '.join(EXECUTORS)}")
    return {"in_process": lambda: dg.in_process_executor, "ray": _ray, "kubernetes": _kubernetes}[name]()


def _ray() -> dg.ExecutorDefinition:
    """Steps as jobs of the cluster whose dashboard is at RAY_ADDRESS; each reserves a core."""
    from dagster_ray import ray_executor

    address = os.environ.get("RAY_ADDRESS", "http://127.0.0.1:8265")
    passed = [name for name in PASSED_ON if name in os.environ]
    return ray_executor.configured({"ray": {"address": address, "num_cpus": 1.0, "env_vars": passed}}, name="ray")


def _kubernetes() -> dg.ExecutorDefinition:
    """Steps as Jobs; image, volumes, secrets and resources are those of the run launcher (deploy/kubernetes)."""
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor.configured({"max_concurrent": 4, "retries": {"enabled": {}}}, name="kubernetes")
