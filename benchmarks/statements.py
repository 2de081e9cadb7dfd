"""What people say under kills and beside others: nothing lost that was answered, nothing twice, seen within a second.

    python -m benchmarks.statements [--workspace workspace] [--kills 200] [--rounds 20]

The workspace has the dataset sim_short, built; it is changed. Two explorers, an import and a build say things at once:
when does another one see them? Then an explorer saves one tag after another over HTTP until it is killed at a random
moment: is all there that it answered?
"""

import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import Any

import httpx

from benchmarks.harness import command, machine, options
from core.paths import Workspace
from core.web import listen, serve
from explorer.access import CorpusView
from explorer.app import create_app
from tests.kits.visitor import csrf
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.statements import mark

DATASET = "sim_short"
MOST_S = 0.4  # of a life, after its first answer
SAID_SQL = "SELECT subject FROM statements WHERE kind = 'tag'"


def serve_one(root: Path, listener: Any) -> None:
    """An explorer as the command starts one, until it is killed."""
    serve(create_app(Workspace(root)), listener, lambda _: None)


def answered_tags(url: str, prefix: str, first: Event) -> list[str]:
    """Tags that an explorer said to have saved until it was killed; `first`: one of them was."""
    tags = []
    with (
        httpx.Client(base_url=url, timeout=120, trust_env=False) as client,
        suppress(httpx.HTTPError),
    ):
        headers = {"origin": url, "x-csrf-token": csrf(client)}
        for number in count():
            tag = f"{prefix}-{number}"
            marking = {
                "kind": "tag",
                "value": tag,
                "author": "ada",
                "episodes": [[DATASET, 0, None]],
            }
            client.post("/api/marks", json=marking, headers=headers).raise_for_status()
            tags.append(tag)
            first.set()
    return tags


def killed(root: Path, kills: int, chance: random.Random) -> dict[str, int]:
    """How many tags were answered, and of these lost; how many were stored, and more than once."""
    answered: list[str] = []
    prefix = f"kill {time.time():.0f}"
    forks = get_context("fork")
    for number in range(kills):
        listener = listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = forks.Process(target=serve_one, args=(root, listener))
        process.start()
        listener.close()
        first = Event()
        with ThreadPoolExecutor(1) as asking:
            tags = asking.submit(answered_tags, url, f"{prefix} {number}", first)
            first.wait(120)
            time.sleep(chance.uniform(0, MOST_S))
            process.kill()
            process.join()
            answered += tags.result()
    lake = Lake(Workspace(root), read_only=True)
    stored = Counter(tag for tag in lake.column(SAID_SQL) if tag.startswith(prefix))
    missing = set(answered) - stored.keys()
    twice = sum(number - 1 for number in stored.values())
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
    view = CorpusView(Workspace(root))
    lake = Lake(Workspace(root))
    time.sleep(3)
    builder.start()
    spoken = {}
    prefix = f"beside {time.time():.0f}"
    for number in range(rounds):
        tag = f"{prefix} {number}"
        if number % 2:
            outcome = StatedOutcome(1, number % 4 == 1, tag, "bob")
            add_outcomes(lake, DATASET, f"{number}.csv", [outcome])
            mark(lake, [(DATASET, 1)], "tag", tag, author="bob")
        else:
            view.say(lambda reader, tag=tag: mark(reader, [(DATASET, 0)], "tag", tag, author="ada"))
        spoken[tag] = time.time()
        time.sleep(0.3)
    builder.join()
    time.sleep(2)
    end.set()
    watcher.join()
    return [sight_times.get(tag, float("inf")) - moment for tag, moment in spoken.items()]


def main() -> None:
    args = options(__doc__, workspace=Path("workspace"), kills=200, rounds=20)
    delays = beside(args.workspace, args.rounds)
    print(f"seen after {statistics.median(delays):.3f} s (median), {max(delays):.3f} s (most)")
    counts = killed(args.workspace, args.kills, random.Random(7))
    print(f"{args.kills} kills: {counts}")
    print(machine())


if __name__ == "__main__":
    main()
