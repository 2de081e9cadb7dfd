"""Server time of every page of the explorer, and memory, on a corpus of 400,000 episodes and 60 M frames.

    python -m benchmarks.explorer [--scale 1.0] [--folder /tmp/explorer-bench] [--requests 20] [--keep] [--store]

--store writes the times to docs/data/explorer.json, from where `python docs/make_stated.py` takes them into pages.

The corpus is made in SQL with the lake's own tables and partitions: no pictures, made-up labels; tags, assignments and
training runs are added, and embeddings of some episodes. Pages are asked for over HTTP from a server of its own,
whose memory is read from /proc. Each request is of another episode, filter or page, so nothing is answered from what
was counted before unless the page does so for its users, too.
"""

import math
import random
import shutil
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from benchmarks.harness import (
    Figure,
    cpu_s,
    expect,
    machine,
    measure,
    memory_mb,
    serving,
    write_json,
)
from benchmarks.synthetic import DATASETS, episodes_of_each, make
from core.paths import ROOT, Workspace
from warehouse.lake import Lake

FIGURES = ROOT / "docs" / "data" / "explorer.json"
WANTED_MS = 300
WANTED_MB = 1000
LOOKED_AT = (
    200  # episodes that an encoder looked at: a search reads every picture's numbers (docs/sql.md)
)
# Tags and assignments of people
MARKS = """
    SELECT sha256('mark' || k) AS statement_id, format('corpus_{:02d}', hash(k) % 20) AS dataset,
           (hash(k, 1) % $episodes)::BIGINT AS episode_index, 'tag' AS kind, 'tag ' || k % 20 AS subject,
           to_json({value: 'tag ' || k % 20, is_on: true})::VARCHAR AS value, 'person ' || k % 5 AS author
    FROM range(4000) r(k)
    UNION ALL
    SELECT sha256('assigned' || k), format('corpus_{:02d}', k % 20), (k * 7) % $episodes, 'assigned', NULL,
           to_json({value: 'person ' || k % 5, is_on: true})::VARCHAR, 'person 0' FROM range(2000) r(k)"""
# What training adds to the corpus
FURNISHING = {
    "training_runs": """
        SELECT 'trained' || k AS training_run, 'laptop' AS recipe, 'bench' AS release, k::VARCHAR AS config_hash,
               format('{{"optim": {{"lr": 0.{}, "steps": 20000}}, "data": {{"seed": {}}}}}', k, k) AS config,
               'train-1' AS code_version, 20000 AS steps, 0.1 AS final_loss, now() AS created_at FROM range(6) r(k)""",
    "training_points": """
        SELECT 'trained' || k AS training_run, i * 10 AS step, exp(-i / 500) + 0.1 AS loss, 0.2 AS text,
               exp(-i / 300) AS progress, 1e-4 AS learning_rate, 1.0 AS gradient_norm, i / 2000 AS done,
               i * 80 AS samples, i * 8000 AS tokens, 50.0 AS samples_per_s FROM range(6) r(k), range(2000) p(i)""",
    "embeddings": f"""
        SELECT 'corpus_00' AS dataset, e AS episode_index, 'front' AS camera, 5 * f AS frame_index, 0 AS chunk,
               'made-up' AS encoder, 'cpu' AS device,
               list_transform(range(256), x -> (hash(e, f, x) % 200 / 100 - 1)::FLOAT) AS embedding,
               []::FLOAT[] AS cells FROM range({LOOKED_AT}) r(e), range(10) p(f)""",
}


def urls(episodes: int, seed: int = 0) -> dict[str, Callable[[], str]]:
    """A maker of addresses for each page, by name; each call another one."""
    chance = random.Random(seed)
    words = ["cup", "drawer", "red block", "lid", "towel", "plate", "bottle", "door"]
    words += ["pick", "push open", "wipe", "number 7"]
    sorts = ["episode", "longest", "shortest", "steps", "confidence", "jump", "end"]
    kinds = ["all", "disagreement", "unsure", "jumps", "quarantined"]

    def where() -> str:
        return f"corpus_{chance.randrange(DATASETS):02d}/{chance.randrange(episodes)}"

    def filtered() -> dict:
        chosen = {
            "split": chance.choice(["train", "val", "test_id"]),
            "robot": chance.choice(["panda", "sawyer", "ur5"]),
            "success": chance.choice(["yes", "no"]),
            "quality": chance.choice(["no sign", "unsure", "progress jumps"]),
            "dataset": f"corpus_{chance.randrange(DATASETS):02d}",
        }
        return dict(chance.sample(sorted(chosen.items()), chance.randint(1, 3)))

    return {
        "corpus": lambda: "/",
        "episodes": lambda: "/episodes",
        "episodes, narrowed": lambda: (
            "/episodes?" + urlencode(filtered() | {"sort": chance.choice(sorts)})
        ),
        "episodes, words": lambda: (
            "/episodes?" + urlencode({"q": chance.choice(words), **filtered()})
        ),
        "episodes, far page": lambda: (
            f"/episodes?sort={chance.choice(sorts)}&page={chance.randrange(1, 8000)}"
        ),
        "episodes, sliders": lambda: (
            f"/episodes?seconds_from={chance.randrange(5, 15)}&confidence_to={chance.randrange(20, 90) / 100}"
        ),
        "episode": lambda: f"/episode/{where()}",
        "episode of a queue": lambda: (
            f"/episode/{where()}?queue={chance.choice(['all', 'unsure', 'jumps'])}"
        ),
        "episode, as data": lambda: f"/api/episode/{where()}",
        "compare": lambda: f"/compare/{where()}",
        "compare, a dataset": lambda: f"/compare/corpus_{chance.randrange(DATASETS):02d}",
        "tagged": lambda: f"/episodes?tag=tag+{chance.randrange(20)}&sort={chance.choice(sorts)}",
        "assigned": lambda: (
            f"/episodes?assigned=person+{chance.randrange(5)}&sort={chance.choice(sorts)}"
        ),
        "frames like one": lambda: (
            f"/like/corpus_00/{chance.randrange(LOOKED_AT)}?frame={chance.randrange(40)}"
        ),
        "runs like one": lambda: f"/like/corpus_00/{chance.randrange(LOOKED_AT)}",
        "why": lambda: f"/why/{where()}",
        "review": lambda: f"/review?kind={chance.choice(kinds)}&page={chance.randrange(1, 60)}",
        "sql": lambda: (
            "/sql?" + urlencode({"q": f"FROM episode_facts LIMIT {chance.randrange(1, 400)}"})
        ),
        "releases": lambda: "/releases",
        "release": lambda: "/releases/bench",
        "review, a person": lambda: f"/review?person=person+{chance.randrange(5)}",
        "training": lambda: "/training",
        "training, compared": lambda: (
            "/training?"
            + urlencode({"run": [f"trained{k}" for k in chance.sample(range(6), 4)]}, doseq=True)
        ),
        "leaderboard": lambda: "/leaderboard?metric=" + chance.choice(["mae", "voc", "tau_b"]),
        "models by slices": lambda: (
            "/leaderboard?by=slices&metric=" + chance.choice(["mae", "voc", "tau_b"])
        ),
        "episodes of a score": lambda: (
            f"/leaderboard/run{chance.randrange(10)}?page={chance.randrange(1, 20)}"
        ),
    }


def furnish(space: Workspace, episodes: int) -> None:
    """Tags, assignments, training runs and embeddings, once."""
    lake = Lake(space)
    if not lake.rows("SELECT count(*) FROM training_runs")[0][0]:
        lake.con.execute("BEGIN")
        for table, sql in FURNISHING.items():
            lake.con.execute(f"INSERT INTO {table} BY NAME {sql}")
        lake.con.execute("COMMIT")
        marks = lake.con.execute(MARKS, {"episodes": episodes}).to_arrow_table().to_pylist()
        stated = {"created_at": datetime.now(UTC).isoformat()}
        with lake.words.store.exclusive() as add:
            add([mark | stated | {"batch": mark["statement_id"]} for mark in marks])
    lake.con.close()


@contextmanager
def exploring(workspace: Path, checkout: Path = ROOT) -> Iterator[tuple[str, int, float]]:
    """Address and process of a checkout's explorer, and the seconds until its first page."""
    started = time.monotonic()
    words = (str(checkout / "proccorpus.py"), "explore", "--no-open", "--no-token", "--port", "0")
    with serving(*words, "--workspace", str(workspace), folder=checkout) as (line, pid):
        url = line.split(" is at ")[1].split()[0]
        httpx.get(f"{url}/", timeout=600).raise_for_status()
        yield url, pid, time.monotonic() - started


def measured(url: str, process: int, episodes: int, requests: int) -> Iterator[Figure]:
    """The 95th percentile of each page's milliseconds. Raises HTTPStatusError."""
    with httpx.Client(base_url=url, timeout=120, follow_redirects=True) as client:
        for name, make_url in urls(episodes).items():
            client.get(make_url()).raise_for_status()
            took = []
            start_cpu_s = cpu_s(process)
            for _ in range(requests):
                path = make_url()
                start_s = time.perf_counter()
                client.get(path).raise_for_status()
                took.append(1000 * (time.perf_counter() - start_s))
            p95 = sorted(took)[math.ceil(0.95 * len(took)) - 1]
            computed = 1000 * (cpu_s(process) - start_cpu_s) / requests
            note = f"median {statistics.median(took):.0f}, most {max(took):.0f}, CPU {computed:.0f}"
            yield Figure(name, p95, WANTED_MS, "ms", smaller=True, note=note)


def stated(pages: Sequence[Figure]) -> dict[str, Any]:
    """What pages state: how many pages answer 95 % of their requests within the goal, and the slowest of these."""
    quick = [page.value for page in pages if page.value <= WANTED_MS]
    rows = [{"page": page.name, "p95_ms": page.value} for page in pages]
    within_ms = round(max(quick, default=0))
    return {"pages": len(pages), "quick": len(quick), "within_ms": within_ms, "rows": rows}


def figures(args: Namespace) -> Iterator[Figure]:
    space = Workspace(args.folder)
    episodes = episodes_of_each(args.scale)
    if not space.exists():
        make(space, args.scale)
    furnish(space, episodes)
    try:
        sql = """SELECT (SELECT count(*) FROM episode_facts), (SELECT count(*) FROM frames),
                 (SELECT sum(num_rows) FROM episode_facts)"""
        [counts] = Lake(space, read_only=True).rows(sql)
        expect(
            counts,
            (DATASETS * episodes, counts[2], counts[2]),
            "episodes, rows of frames twice",
        )
        shutil.rmtree(space.root / "explorer", ignore_errors=True)
        with exploring(space.root) as (url, process, first_s):
            pages = list(measured(url, process, episodes, args.requests))
            now_mb, peak_mb = memory_mb(process)
        with exploring(space.root) as (_, _, again_s):
            pass
        yield from pages
        yield Figure("first page", first_s, unit="s", note=f"of the next start {again_s:.1f} s")
        note = f"{now_mb:.0f} MB afterwards; {counts[0]:,} episodes, {counts[1]:,} frame rows"
        yield Figure("most memory", peak_mb, WANTED_MB, "MB", smaller=True, note=note)
        if args.store:
            about = {"episodes": counts[0], "machine": machine()}
            write_json(FIGURES, stated(pages) | about)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)


if __name__ == "__main__":
    corpus = {"folder": Path("/tmp/explorer-bench"), "keep": False, "store": False}
    measure(__doc__, figures, scale=1.0, requests=20, **corpus)
