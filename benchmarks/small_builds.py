"""What commands cost where there is little to do: CPU seconds (user and system) of whole processes, beside their goals.

    python -m benchmarks.small_builds [--runs 3] [--source DIR]

`build` of five shipped episodes (282 frames) by one worker, the same again with nothing to do, and looks at what was
built. Medians; of the first build also the seconds by the clock. `--source`: of the first five episodes of another
dataset.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from benchmarks.harness import Figure, measure, own_cpu_s
from core.paths import ROOT

SOURCE = str(ROOT / "samples/sim_short")
BUILD = ("build", "--source", SOURCE, "--episodes", "0-4", "--workers", "1")
CLOCK = "build, by the clock"
CLOCK_GOAL = 6.0
# In this order, in one workspace
COMMANDS = {
    "--help": (("--help",), 0.5),
    "build": (BUILD, 4.0),
    "build again": (BUILD, 0.6),
    "status": (("status",), 0.45),
    "sql": (("sql", "SELECT count(*) FROM frames"), 0.45),
    "inspect": (("inspect", SOURCE), 0.45),
}
WITHOUT_WORKSPACE = ("--help", "inspect")


def command_cpu_s(arguments: tuple[str, ...]) -> float:
    """What the command line takes, with all processes that it starts."""
    start_s = own_cpu_s()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "proccorpus", *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=env | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {process.stderr}")
    return own_cpu_s() - start_s


def one_run(workspace: Path, source: str) -> dict[str, float]:
    seconds_by_command = {}
    for name, (words, _) in COMMANDS.items():
        own_words = tuple(source if word == SOURCE else word for word in words)
        more_words = ("--workspace", str(workspace)) * (name not in WITHOUT_WORKSPACE)
        start_s = time.monotonic()
        seconds_by_command[name] = command_cpu_s((*own_words, *more_words))
        if name == "build":
            seconds_by_command[CLOCK] = time.monotonic() - start_s
    shutil.rmtree(workspace)
    return seconds_by_command


def figures(args: Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            one_run(Path(folder) / f"{k}", str(args.source.resolve())) for k in range(args.runs)
        ]
    goals = {name: goal for name, (_, goal) in COMMANDS.items()} | {CLOCK: CLOCK_GOAL}
    for name, goal in goals.items():
        yield Figure(name, statistics.median(map(itemgetter(name), runs)), goal, "s", smaller=True)


if __name__ == "__main__":
    measure(__doc__, figures, runs=3, source=Path(SOURCE))
