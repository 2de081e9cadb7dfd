"""What people say under kills and beside others: nothing lost that was answered, nothing twice, seen within a second.

    python -m benchmarks.statements WORKSPACE [--kills 200] [--rounds 20]

WORKSPACE: one with the dataset sim_short, built; it is changed. A process says by the explorer's view of the corpus
what a person would, and is killed at a random moment; what it had answered is looked for afterwards. Then two such
processes, one that imports and a build say things and look for what the others said.
"""

import os
import random
import signal
import statistics
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, command, machine
from core.paths import Workspace
from explorer.access import CorpusView
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.statements import mark

DATASET = "sim_short"
MOST_S = 0.4  # of a life, after its first answer
SAID_SQL = "SELECT subject FROM statements WHERE kind = 'tag'"


def judge(root: Path, prefix: str, answers: Connection) -> None:
    """Say tags one after another, and tell each one that was answered."""
    view = CorpusView(Workspace(root))
    for number in range(10_000):
        tag = f"{prefix}-{number}"
        view.say(lambda _, lake, tag=tag: mark(lake, [(DATASET, 0)], "tag", tag, author="ada"))
        answers.send(tag)


def killed(root: Path, kills: int, chance: random.Random) -> dict[str, int]:
    """How many tags were answered, and of these lost; how many were stored, and more than once."""
    answered: list[str] = []
    forks = get_context("fork")
    for number in range(kills):
        ours, theirs = forks.Pipe(duplex=False)
        process = forks.Process(target=judge, args=(root, f"kill {number}", theirs))
        process.start()
        theirs.close()
        answered.append(ours.recv())
        time.sleep(chance.uniform(0, MOST_S))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        try:
            while True:
                answered.append(ours.recv())
        except EOFError:
            ours.close()
    lake = Lake(Workspace(root), read_only=True)
    stored = Counter(tag for tag in lake.column(SAID_SQL) if tag.startswith("kill "))
    missing = set(answered) - stored.keys()
    twice = sum(count - 1 for count in stored.values())
    return {"answered": len(answered), "stored": len(stored), "lost": len(missing), "twice": twice}


def look(root: Path, sight_times: Any, end: Any) -> None:
    """Note when an explorer sees each tag."""
    view = CorpusView(Workspace(root))
    while not end.is_set():
        with view.reading() as reader:
            for tag in reader.column(SAID_SQL):
                sight_times.setdefault(tag, time.time())
        time.sleep(0.02)


def beside(root: Path, rounds: int) -> list[float]:
    """Seconds until an explorer sees what another one, or an import, said, while a build goes on."""
    forks = get_context("spawn")
    manager = forks.Manager()
    sight_times, end = manager.dict(), manager.Event()
    watcher = forks.Process(target=look, args=(root, sight_times, end))
    builder = forks.Process(
        target=command, args=(Workspace(root), "build", "--dataset", DATASET, "--workers", "1")
    )
    watcher.start()
    time.sleep(3)
    builder.start()
    view = CorpusView(Workspace(root))
    lake = Lake(Workspace(root))
    spoken = {}
    for number in range(rounds):
        tag = f"beside {number}"
        if number % 2:
            mark(lake, [(DATASET, 1)], "tag", tag, author="bob")
            outcome = StatedOutcome(1, number % 4 == 1, tag, "bob")
            add_outcomes(lake, DATASET, f"{number}.csv", [outcome])
        else:
            view.say(lambda _, con, tag=tag: mark(con, [(DATASET, 0)], "tag", tag, author="ada"))
        spoken[tag] = time.time()
        time.sleep(0.3)
    builder.join()
    time.sleep(2)
    end.set()
    watcher.join()
    return [sight_times.get(tag, float("inf")) - moment for tag, moment in spoken.items()]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    counts = killed(options.workspace, options.kills, random.Random(7))
    print(f"{options.kills} kills: {counts}")
    delays = beside(options.workspace, options.rounds)
    print(f"seen after {statistics.median(delays):.3f} s (median), {max(delays):.3f} s (most)")
    print(machine())


if __name__ == "__main__":
    main()
