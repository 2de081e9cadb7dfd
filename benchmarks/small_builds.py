"""What commands cost where there is little to do: CPU seconds (user and system) of whole processes, beside their goals.

    python -m benchmarks.small_builds [--runs 3] [--source DIR] [--check]

`build` of five shipped episodes (282 frames) by one worker, the same again with nothing to do, and looks at what was
built. Medians; of the first build also the seconds by the clock. `--source`: of the first five episodes of another
dataset. `--check` exits 1 when a goal is missed by more than 15 %.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path

from benchmarks.harness import Figure, arguments, exit_code, table
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


def cpu_s(arguments: tuple[str, ...]) -> float:
    """What the command line takes, with all processes that it starts."""
    start_usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "proccorpus", *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=env | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {process.stderr}")
    end_usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end_usage.ru_utime + end_usage.ru_stime - start_usage.ru_utime - start_usage.ru_stime


def one_run(workspace: Path, source: str) -> dict[str, float]:
    seconds_by_command = {}
    for name, (words, _) in COMMANDS.items():
        own_words = tuple(source if word == SOURCE else word for word in words)
        more_words = ("--workspace", str(workspace)) * (name not in WITHOUT_WORKSPACE)
        start_s = time.monotonic()
        seconds_by_command[name] = cpu_s((*own_words, *more_words))
        if name == "build":
            seconds_by_command[CLOCK] = time.monotonic() - start_s
    shutil.rmtree(workspace)
    return seconds_by_command


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--source", type=Path, default=Path(SOURCE), help="another dataset")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            one_run(Path(folder) / f"{k}", str(args.source.resolve())) for k in range(args.runs)
        ]
    goals = {name: goal for name, (_, goal) in COMMANDS.items()} | {CLOCK: CLOCK_GOAL}
    median_seconds = {name: statistics.median(map(itemgetter(name), runs)) for name in goals}
    print("# Small builds, CPU seconds\n")
    table(
        ("command", "s", "wanted"),
        [(name, f"{median_seconds[name]:.2f}", f"{goal}") for name, goal in goals.items()],
    )
    figures = (
        Figure(name, median_seconds[name], goal, "s", smaller=True) for name, goal in goals.items()
    )
    return exit_code(figures, args.check)


if __name__ == "__main__":
    sys.exit(main())
