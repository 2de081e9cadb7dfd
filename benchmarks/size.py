"""What a lake of 400,000 episodes and 60 M frame rows costs: queries, publishes, plans, releases, clearing up.

    python -m benchmarks.size [--frames 6M|60M] [--folder /tmp/size-bench] [--keep] [--check]
    python -m benchmarks.size --workspace DIR [DIR ...] [--check]

The corpus is benchmarks/synthetic.py's. 60M measures one of 6 M frames first, and prints both beside each other: what
should be flat, and what may grow with the rows. With `--workspace` those that were kept are measured again, in the
order given, and stay. Each measure runs in a process of its own, whose largest resident memory is read at its end.
Seconds are medians; beside them the process's own CPU seconds, which say more than the clock where others share the
machine. What is printed at the end is in docs/performance.md. `--check` exits 1 when a target is missed
by more than 15 %.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.synthetic import FINGERPRINT, builds, make
from benchmarks.tables import is_missed
from core.paths import ROOT, Workspace
from ingest.sources.files import Source
from pipeline.plan import CURRENT, WAITING, plan
from pipeline.stage import StageContext, run_stage
from pipeline.stages import stage_specs
from warehouse.lake import Lake, StageRun
from warehouse.lake.gc import collect, sweep
from warehouse.lake.sql import answer, open_for_users
from warehouse.releases import create_release
from warehouse.releases import release as releasing

SCALES = {"6M": 0.1, "60M": 1.0}
ALLOW = ("unknown",)  # some of the datasets state no licence
TURNS, SLOW_S = 5, 10.0  # what takes long is not asked again
PUBLISHES = 60
ASKED, CHUNK_ASKED = "corpus_03", 2
# Seconds on two cores, by the name of a line; and of all lines, megabytes
ALL_QUESTIONS = "median of the questions"
TARGETS_S = {ALL_QUESTIONS: 1.0, "publish": 0.3, "plan, nothing to do": 10.0}
TARGET_MB = 2000

Line = tuple[str, float, float]  # name, seconds, CPU seconds


@contextmanager
def timed(lines: list[Line], name: str) -> Iterator[None]:
    clock, cpu = time.perf_counter(), time.process_time()
    yield
    lines.append((name, time.perf_counter() - clock, time.process_time() - cpu))


def median(lines: list[Line], name: str) -> Line:
    return name, statistics.median(s for _, s, _ in lines), statistics.median(c for _, _, c in lines)


def questions() -> list[tuple[str, str]]:
    """Title and SQL of those that docs/sql.md answers."""
    text = (ROOT / "docs" / "sql.md").read_text()
    return re.findall(r"^### (.+?)\n.*?^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def ask(space: Workspace) -> list[Line]:
    """As `proccorpus sql` asks: on a locked connection with all cores."""
    con, lines = open_for_users(space), []
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
    again: list[Line] = []
    for _ in range(PUBLISHES):
        with timed(again, "publish"):
            lake.publish(run, {"frames": rows})
    new: list[Line] = []
    for k in range(TURNS):
        changed = {"dataset": "new", "chunk": k}
        con = lake.con
        con.register("given", rows)
        made = con.execute(f"SELECT * REPLACE ('new' AS dataset, {k}::INTEGER AS chunk) FROM given").to_arrow_table()
        con.unregister("given")
        with timed(new, "publish"):
            lake.publish(StageRun(**run.__dict__ | changed), {"frames": made})
    lake.remove("delete what was published anew", "dataset = 'new'", [], "frames", "stage_runs")
    return [
        median(again[:10], "publish a chunk again, the first 10"),
        median(again[-10:], f"publish a chunk again, the last 10 of {PUBLISHES}"),
        median(new, "publish a new chunk"),
    ]


def plans(space: Workspace) -> list[Line]:
    lake, specs = Lake(space), {b.name: stage_specs(b) for b in builds()}
    turns: list[Line] = []
    for _ in range(TURNS):
        with timed(turns, "plan"):
            steps = plan(lake, specs, dict.fromkeys(specs, FINGERPRINT))
    # what was measured before has left the shards of one chunk stale
    stale = [s for s in steps if s.status != CURRENT and (s.dataset, s.chunk) != (ASKED, CHUNK_ASKED)]
    if stale or not steps:
        sys.exit(f"of {len(steps)} steps {len(stale)} are not current, such as {stale[:1]}")
    lines = [median(turns, "plan, nothing to do")]
    with timed(lines, "sweep before a build"):
        sweep(lake)
    return lines


def rebuild(space: Workspace) -> list[Line]:
    """Progress and samples of one chunk where both are stale: as a build's worker does it."""
    lake, build = Lake(space), next(b for b in builds() if b.name == ASKED)
    lake.con.execute(
        "UPDATE stage_runs SET input_hash = 'stale' WHERE stage IN ('progress', 'samples') AND dataset = ? "
        "AND chunk = ?",
        [ASKED, CHUNK_ASKED],
    )
    source, lines, done = Source(build.dataset, None, space.sources, FINGERPRINT), [], []
    with timed(lines, "rebuild progress and samples of one chunk"):
        for _ in range(2):
            steps = plan(lake, {ASKED: stage_specs(build)}, {ASKED: FINGERPRINT}, only_chunk=CHUNK_ASKED)
            step = next(s for s in steps if s.chunk is not None and s.status not in (CURRENT, WAITING))
            done.append(run_stage(StageContext(lake, build, step, source)).run.stage)
    if done != ["progress", "samples"]:
        sys.exit(f"built {done}")
    return lines


def release(space: Workspace) -> list[Line]:
    """The whole of it, and what it checks."""
    lake, lines = Lake(space), []
    for name, title in (("split_leaks", "leaks between splits"), ("corpus_soundness", "rows as the schema says")):
        setattr(releasing, name, _timed(lines, f"of it: {title}", getattr(releasing, name)))
    with timed(lines, "release create"):
        create_release(lake, "size", allow=ALLOW, replace=True)
    return lines[::-1]


def _timed(lines: list[Line], name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any) -> Any:
        with timed(lines, name):
            return run(*args)

    return wrapped


def clear_up(space: Workspace) -> list[Line]:
    lake, lines = Lake(space), []
    with timed(lines, "gc: expire all snapshots but releases', delete what they listed"):
        collect(lake, keep_days=0)
    with timed(lines, "DuckLake's merging of small files, all tables"):
        lake.con.execute("CALL ducklake_merge_adjacent_files('lake')")
    return lines


MEASURES: dict[str, Callable[[Workspace], list[Line]]] = {
    "questions": ask,
    "plans": plans,
    "publish": publish,
    "rebuild": rebuild,
    "release": release,
    "clear up": clear_up,
}


def measured(space: Workspace) -> dict[str, tuple[float, float, float]]:
    """Seconds, CPU seconds and most megabytes of each line."""
    found = {}
    for name in MEASURES:
        command = [sys.executable, "-m", "benchmarks.size", "--folder", str(space.root), "--measure", name]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if said.returncode:
            sys.exit(f"{name} failed")
        told = json.loads(said.stdout)
        found |= {line: (s, c, told["mb"]) for line, s, c in told["lines"]}
        load = os.getloadavg()[0]
        print(f"{space.root.name}, load {load:.1f}: {said.stdout.strip()}", file=sys.stderr, flush=True)
    return found


def sizes(space: Workspace) -> str:
    lake = Lake(space, read_only=True)
    episodes, frames = lake.rows("SELECT (SELECT count(*) FROM episode_facts), (SELECT count(*) FROM frames)")[0]
    partitions = lake.rows("SELECT count(DISTINCT (dataset, chunk)) FROM episode_facts")[0][0]
    if frames != lake.rows("SELECT sum(num_rows) FROM episode_facts")[0][0] or not episodes:
        sys.exit(f"{frames} frames are not those of {episodes} episodes")
    files, size = lake.rows("SELECT sum(file_count), sum(file_size_bytes) FROM ducklake_table_info('lake')")[0]
    catalog = space.catalog.stat().st_size / 1e6
    return (
        f"{episodes:,} episodes, {frames:,} frame rows, {partitions} chunks, {files:,} Parquet files of "
        f"{size / 1e9:.2f} GB, catalog {catalog:.1f} MB, "
        f"{lake.rows('SELECT count(*) FROM ducklake_snapshots(?)', ['lake'])[0][0]} snapshots"
    )


def wanted_s(line: str) -> float | None:
    return next((t for start, t in TARGETS_S.items() if line.startswith(start)), None)


def missed(found: dict[str, tuple[float, float, float]]) -> list[str]:
    lines = [f"{name}: {mb:.0f} MB" for name, (_, _, mb) in found.items() if mb > TARGET_MB]
    for name, (seconds, _, _) in found.items():
        target = wanted_s(name)
        if target is not None and is_missed(seconds, target, smaller_is_better=True):
            lines.append(f"{name}: {seconds:.2f} s, wanted {target:g}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", choices=SCALES, default="6M")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/size-bench"), help="made, and deleted at the end")
    parser.add_argument(
        "--keep", action="store_true", help="leave the corpora for another run, which takes them as they are"
    )
    parser.add_argument("--workspace", type=Path, nargs="+", help="corpora made by an earlier run, the largest last")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        lines = MEASURES[given.measure](Workspace(given.folder))
        print(json.dumps({"lines": lines, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    found = {}
    made = {n: given.folder / n for n in SCALES if SCALES[n] <= SCALES[given.frames]}
    try:
        for name, folder in made.items() if given.workspace is None else ((w.name, w) for w in given.workspace):
            space = Workspace(folder)
            if not space.exists():
                if given.workspace:
                    sys.exit(f"no workspace at {folder}")
                make(space, SCALES[name])
            print(f"{name}: {sizes(space)}", flush=True)
            found[name] = measured(space)
            print(f"{name}, afterwards: {sizes(space)}", flush=True)
    finally:
        if not given.keep and given.workspace is None:
            shutil.rmtree(given.folder, ignore_errors=True)
    print(
        f"\n| | {' | '.join(f'{n}: s | CPU s | most MB' for n in found)} | wanted |\n|---|{'---|' * 3 * len(found)}---|"
    )
    *_, last = found.values()
    for line in last:
        cells = [f[line] if line in f else (float("nan"),) * 3 for f in found.values()]
        target = wanted_s(line)
        wanted = "" if target is None else f"{target:g} s"
        print(f"| {line} | {' | '.join(f'{s:.2f} | {c:.2f} | {mb:.0f}' for s, c, mb in cells)} | {wanted} |")
    for line in missed(last):
        print(f"\nMissed: {line}")
    if given.check and missed(last):
        sys.exit(1)


if __name__ == "__main__":
    main()
