"""The entry point of a Ray job on several machines: one torchrun on each, which find one another at the first.

A placement group reserves all machines before any begins. What they print is printed here, since a Ray job's own output
is what its Dagster run reads. Ends with the code of the first torchrun that failed, and then ends the others.

    python -m assets.lib.launch.ray_nodes --python PY --nodes 2 --gpus 8 --cpus 96 --job NAME -- train --recipe ...
"""

import argparse
import io
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from annotate.model_client.server import start_guarded
from assets.lib.launch.job import torchrun

RESERVED_S = 1800.0  # so long all machines may take to become free


def run_node(command: Sequence[str]) -> Iterator[str | int]:
    """Run torchrun on this machine: the lines that it prints, then its code. It ends when this worker ends."""
    with start_guarded(command, subprocess.PIPE) as guard:
        assert guard.stdout is not None
        try:
            # No `yield from`: Ray sends into the generator, which a file does not take
            for line in io.TextIOWrapper(guard.stdout, errors="replace"):  # noqa: UP028
                yield line
        except BaseException:
            guard.terminate()
            raise
    yield guard.returncode


def run_nodes(
    python: str, arguments: Sequence[str], nodes: int, gpus: int, cpus: int, job: str
) -> int:
    """Run a job on `nodes` machines of the cluster that this process belongs to; the first failure's code, or 0."""

    def meeting_point() -> str:
        """A machine as others reach it, with a port that is free: HOST:PORT."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def on(index: int, work: Any, **resources: Any) -> Any:
        """A task that has a whole share of the group."""
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "scheduling_strategy": place,
            "max_retries": 0,
        }
        return ray.remote(work).options(**options, **resources)

    ray.init(log_to_driver=False)
    share = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
    group = placement_group([share] * nodes, strategy="STRICT_SPREAD")
    if not group.wait(RESERVED_S):
        print(
            f"error: the cluster has had no {nodes} machines with {share} free for {RESERVED_S / 60:.0f} minutes"
        )
        return 1
    endpoint: Any = ray.get(on(0, meeting_point).remote())
    print(f"{nodes} machines meet at {endpoint}", flush=True)
    waiting: list[Any] = []
    for index in range(nodes):
        command = torchrun(python, arguments, max(1, gpus), nodes, endpoint, job, first=index == 0)
        waiting.append(on(index, run_node, num_returns="streaming").remote(command))
    # What the machines print, until all have ended well or one has not
    while waiting:
        ready: Any = ray.wait(waiting)[0]
        for output in ready:
            line: Any = ray.get(next(output))
            if isinstance(line, str):
                print(line, end="", flush=True)
            elif line:
                return line
            else:
                waiting.remove(output)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="the interpreter of each machine")
    for name, what in {
        "nodes": "machines",
        "gpus": "of each machine, a process each",
        "cpus": "of each",
    }.items():
        parser.add_argument(f"--{name}", type=int, required=True, help=what)
    parser.add_argument("--job", required=True, help="a name that no other job has")
    parser.add_argument("arguments", nargs="+", help="those of proccorpus")
    sys.exit(run_nodes(**vars(parser.parse_args())))
