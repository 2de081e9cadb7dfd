"""Every performance figure beside its goal: `python -m benchmarks [--frames 6M|60M]`; 60M takes 15 minutes more.

Exits 1 where a figure misses its goal by more than 15 %, after all were measured.
"""

import subprocess
import sys

from benchmarks.harness import options, own_code_first

SCRIPTS = (
    "small_builds",
    "decoding",
    "bags",
    "shards",
    "pipeline --workers 2",
    "size --frames {frames}",
    "memory --episodes 30",
    "busy --short 1000",
)


def main() -> int:
    frames = options(__doc__, frames="6M").frames
    missed = []
    for script in SCRIPTS:
        name, *words = script.format(frames=frames).split()
        command = [sys.executable, "-m", f"benchmarks.{name}", *words, "--check"]
        if subprocess.run(command, env=own_code_first()).returncode:
            missed.append(name)
    if missed:
        print(f"Goals missed by more than 15 %: {', '.join(missed)}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
