"""What a lake of 400,000 episodes and 60 M frame rows costs: queries, publishes, plans, releases.

    python -m benchmarks.size [--frames 6M|60M] [--folder /tmp/size-bench] [--keep]

The corpus is benchmarks/synthetic.py's. 60M measures one of 6 M frames first, and prints both beside each other: what
should be flat, and what may grow with the rows. Those that were kept are measured again. Each measure runs in a
process of its own, whose largest resident memory is read at its end. Seconds are medians; beside them CPU seconds,
which say more where others share the machine. docs/performance.md has the results.
"""

import os
import re
import shutil
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, apart, measure, memory_mb
from benchmarks.synthetic import FINGERPRINT, builds, make
from core.paths import ROOT, Workspace
from pipeline.plan import CURRENT, plan
from pipeline.stages import stage_specs
from warehouse.lake import Lake, StageRun
from warehouse.lake.gc import sweep
from warehouse.lake.sql import answer, open_for_users
from warehouse.releases.release import create_release

SCALES = {"6M": 0.1, "60M": 1.0}
ALLOW = ("unknown",)  # some of the datasets state no licence
TURNS, SLOW_S = 5, 10.0  # what takes long is not asked again
PUBLISHES = 60
ASKED = "corpus_03"
CHUNK_ASKED = 2
# Seconds on two cores, by the name of a line; and of all lines, megabytes
ALL_QUESTIONS = "median of the questions"
TARGETS_S = {ALL_QUESTIONS: 1.0, "publish": 0.3, "plan, nothing to do": 10.0}
TARGET_MB = 2000

Line = tuple[str, float, float]  # name, seconds, CPU seconds


@contextmanager
def timed(lines: list[Line], name: str) -> Iterator[None]:
    clock = time.perf_counter()
    cpu = time.process_time()
    yield
    lines.append((name, time.perf_counter() - clock, time.process_time() - cpu))


def median(lines: list[Line], name: str) -> Line:
    return (
        name,
        statistics.median(s for _, s, _ in lines),
        statistics.median(c for _, _, c in lines),
    )


def questions() -> list[tuple[str, str]]:
    """Title and SQL of those that docs/sql.md answers."""
    text = (ROOT / "docs" / "sql.md").read_text()
    return re.findall(r"^### (.+?)\n.*?^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def ask(space: Workspace) -> list[Line]:
    """As `proccorpus sql` asks: on a locked connection with all cores."""
    con = open_for_users(space)
    lines = []
    for title, sql in questions():
        turns: list[Line] = []
        while len(turns) < TURNS and sum(t for _, t, _ in turns) < SLOW_S:
            with timed(turns, title):
                answer(con, sql).read_all()
        lines.append(median(turns, title))
    seconds, cpu = (statistics.median(values) for values in list(zip(*lines, strict=True))[1:])
    return [*lines, (ALL_QUESTIONS, seconds, cpu)]


def publish(space: Workspace) -> list[Line]:
    """The frames of one chunk (75,000 rows): of a chunk that is there, then of ones that are new."""
    lake = Lake(space)
    rows = lake.arrow("SELECT * FROM frames WHERE dataset = ? AND chunk = ?", [ASKED, CHUNK_ASKED])
    hashes = lake.rows(
        "SELECT input_hash, output_hash FROM stage_runs WHERE stage = 'frames' AND dataset = ? AND chunk = ?",
        [ASKED, CHUNK_ASKED],
    )[0]
    run = StageRun("frames", ASKED, CHUNK_ASKED, "", hashes[0], "1", rows.num_rows, hashes[1], 1.0)
    second_times: list[Line] = []
    for _ in range(PUBLISHES):
        with timed(second_times, "publish"):
            lake.publish(run, {"frames": rows})
    new: list[Line] = []
    for k in range(TURNS):
        changed = {"dataset": "new", "chunk": k}
        con = lake.con
        con.register("given", rows)
        chunk_table = con.execute(
            f"SELECT * REPLACE ('new' AS dataset, {k}::INTEGER AS chunk) FROM given"
        ).to_arrow_table()
        con.unregister("given")
        with timed(new, "publish"):
            lake.publish(StageRun(**run.__dict__ | changed), {"frames": chunk_table})
    lake.remove("delete what was published anew", "dataset = 'new'", [], "frames", "stage_runs")
    return [
        median(second_times[:10], "publish a chunk again, the first 10"),
        median(second_times[-10:], f"publish a chunk again, the last 10 of {PUBLISHES}"),
        median(new, "publish a new chunk"),
    ]


def plans(space: Workspace) -> list[Line]:
    lake = Lake(space)
    specs = {b.name: stage_specs(b) for b in builds()}
    turns: list[Line] = []
    for _ in range(TURNS):
        with timed(turns, "plan"):
            steps = plan(lake, specs, dict.fromkeys(specs, FINGERPRINT))
    # what was measured before has left the shards of one chunk stale
    stale = [
        s for s in steps if s.status != CURRENT and (s.dataset, s.chunk) != (ASKED, CHUNK_ASKED)
    ]
    if stale or not steps:
        sys.exit(f"of {len(steps)} steps {len(stale)} are not current, such as {stale[:1]}")
    lines = [median(turns, "plan, nothing to do")]
    with timed(lines, "sweep before a build"):
        sweep(lake)
    return lines


def release(space: Workspace) -> list[Line]:
    lake = Lake(space)
    lines = []
    with timed(lines, "release create"):
        create_release(lake, "size", allow=ALLOW, replace=True)
    return lines


MEASURES = {f.__name__: f for f in (ask, plans, publish, release)}


def lines_of(name: str, folder: str) -> dict[str, Any]:
    """In a process of its own: its lines, and the most megabytes that it took."""
    return {"lines": MEASURES[name](Workspace(Path(folder))), "mb": memory_mb(os.getpid())[1]}


def measured(space: Workspace) -> dict[str, tuple[float, float, float]]:
    """Seconds, CPU seconds and most megabytes of each line."""
    measurements = {}
    for name in MEASURES:
        report = apart(lines_of, name, str(space.root))
        measurements |= {line: (s, c, report["mb"]) for line, s, c in report["lines"]}
    return measurements


def sizes(space: Workspace) -> str:
    lake = Lake(space, read_only=True)
    episodes, frames = lake.rows(
        "SELECT (SELECT count(*) FROM episode_facts), (SELECT count(*) FROM frames)"
    )[0]
    partitions = lake.rows("SELECT count(DISTINCT (dataset, chunk)) FROM episode_facts")[0][0]
    if frames != lake.rows("SELECT sum(num_rows) FROM episode_facts")[0][0] or not episodes:
        sys.exit(f"{frames} frames are not those of {episodes} episodes")
    files, size = lake.rows(
        "SELECT sum(file_count), sum(file_size_bytes) FROM ducklake_table_info('lake')"
    )[0]
    catalog = space.catalog.stat().st_size / 1e6
    return (
        f"{episodes:,} episodes, {frames:,} frame rows, {partitions} chunks, {files:,} Parquet files of "
        f"{size / 1e9:.2f} GB, catalog {catalog:.1f} MB, "
        f"{lake.rows('SELECT count(*) FROM ducklake_snapshots(?)', ['lake'])[0][0]} snapshots"
    )


def wanted_s(line: str) -> float | None:
    return next((t for start, t in TARGETS_S.items() if line.startswith(start)), None)


def figures(args: Namespace) -> Iterator[Figure]:
    try:
        for scale in [n for n in SCALES if SCALES[n] <= SCALES[args.frames]]:
            space = Workspace(args.folder / scale)
            if not space.exists():
                make(space, SCALES[scale])
            print(f"{scale}: {sizes(space)}", flush=True)
            for line, (seconds, cpu_s, mb) in measured(space).items():
                title = f"{scale}: {line}"
                cpu = f"{cpu_s:.2f} s of CPU"
                yield Figure(title, seconds, wanted_s(line), "s", smaller=True, note=cpu)
                yield Figure(title, mb, TARGET_MB, "MB", smaller=True)
            print(f"{scale}, afterwards: {sizes(space)}", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    measure(__doc__, figures, frames="6M", folder=Path("/tmp/size-bench"), keep=False)
