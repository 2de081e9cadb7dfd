"""Chunks committed a second by several writers: each by itself, as until November 2026, and those who wait together.

    python -m benchmarks.commits [--seconds 20]

Four writers on a catalog in SQLite, then eight on one in Postgres with the rows behind moto's S3 server, both started
here. They publish what each stage made of a real chunk (five episodes of a shipped dataset), under names of their own,
as fast as they can: nothing is decoded. Halfway one of them is killed, and another one goes on in its place. CPU is the
writers' alone. Exits 1 where a stage is lost that a writer saw published, or is there in parts.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa

from benchmarks.harness import arguments, machine, table
from core.paths import ROOT, Workspace
from core.tables import STAGE_TABLES, TABLES
from pipeline.build import run_build
from pipeline.sources import builds_of_source
from tests.kits.servers import postgres, s3
from warehouse.lake import Lake, StageRun
from warehouse.lake.place import create, locked

SOURCE = ROOT / "samples" / "sim_short"
EPISODES = tuple(range(5))
WAYS = ("each by itself", "who waits together")
STANDS_IN = 100_000  # first chunk of the writer that goes on for the killed one
Made = list[tuple[StageRun, dict[str, pa.Table]]]


def real_chunk(space: Workspace) -> Made:
    """What each stage published of a chunk, in order."""
    run_build(
        space, builds_of_source(space, None, str(SOURCE), name="made", episodes=EPISODES)[0], 1
    )
    lake = Lake(space)
    columns = ", ".join(StageRun.__dataclass_fields__)
    stage_tables = []
    query = f"SELECT {columns} FROM stage_runs WHERE chunk = 0 AND stage <> 'episodes' ORDER BY snapshot"
    for run in (StageRun(**row) for row in lake.dicts(query)):
        # Of keyframes, which two stages store, those of its own
        conditions = {name: f" WHERE coalesce(label_run, '') = '{run.label_run}'" * ("label_run" in TABLES[name].key)
               for name in STAGE_TABLES[run.stage]}  # fmt: skip
        stage_tables.append(
            (
                run,
                {
                    name: lake.arrow(f"FROM {name}{condition}")
                    for name, condition in conditions.items()
                },
            )
        )
    return stage_tables


def named(rows: pa.Table, dataset: str, chunk: int) -> pa.Table:
    for name, value in ("dataset", pa.scalar(dataset)), ("chunk", pa.scalar(chunk, pa.int32())):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.repeat(value, len(rows)))
    return rows


def write(
    space: Workspace,
    way: str,
    stage_tables: Made,
    dataset: str,
    first: int,
    seconds: float,
    ready: Barrier,
) -> None:
    """One writer: publishes chunk after chunk, and notes each stage that is committed, its wait and the CPU so far."""
    if way == WAYS[0]:
        vars(sys.modules[Lake.__module__]).update(
            turn=lambda space, one: locked(space), waiting=lambda *_: {}
        )
    lake = Lake(space)
    ready.wait()
    start_s = time.monotonic()
    used = time.process_time()
    with (space.root / "noted").open("a", buffering=1) as notes:
        for chunk in count(first):
            for run, tables in stage_tables:
                of_chunk = {name: named(rows, dataset, chunk) for name, rows in tables.items()}
                request_s = time.monotonic()
                lake.publish(replace(run, dataset=dataset, chunk=chunk, duration_s=0.0), of_chunk)
                if (end_s := time.monotonic()) > start_s + seconds:
                    return
                notes.write(
                    f"{run.stage} {dataset} {chunk} {first} {end_s - request_s} {time.process_time() - used}\n"
                )


def trial(
    space: Workspace, way: str, stage_tables: Made, writers: int, seconds: float
) -> tuple[float, float, float]:
    """Chunks a second, CPU seconds a chunk, the longest wait for a publish; exits where something was lost."""
    Lake(space).con.close()
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(writers + 1)
    halfway = context.Barrier(2)
    # The last one waits in its place until one of the others is killed
    writer_arguments = [
        *((f"writer{k}", 0, seconds, ready) for k in range(writers)),
        ("writer0", STANDS_IN, seconds / 2, halfway),
    ]
    processes = [
        context.Process(target=write, args=(space, way, stage_tables, *writer_values))
        for writer_values in writer_arguments
    ]
    for process in processes:
        process.start()
    ready.wait()
    time.sleep(seconds / 2)
    processes[0].kill()
    halfway.wait()
    for process in processes:
        process.join()
    if [process.exitcode for process in processes] != [-signal.SIGKILL, *[0] * writers]:
        sys.exit("a writer has failed")
    noted = [line.split() for line in (space.root / "noted").read_text().splitlines()]
    check(Lake(space, read_only=True), stage_tables, {" ".join(stage) for *stage, _, _, _ in noted})
    chunks = len(noted) / len(stage_tables)
    waits = [float(wait) for *_, wait, _ in noted]
    used = {
        (dataset, first): float(cpu) for _, dataset, _, first, _, cpu in noted
    }  # the last of each writer
    return chunks / seconds, sum(used.values()) / chunks, max(waits)


def check(lake: Lake, stage_tables: Made, noted: set[str]) -> None:
    lines = set(lake.column("SELECT stage || ' ' || dataset || ' ' || chunk FROM stage_runs"))
    if lost_lines := noted - lines:
        sys.exit(f"lost: {sorted(lost_lines)}")
    for run, tables in stage_tables:
        run_lines = [line for line in lines if line.startswith(run.stage)]
        for name, rows in tables.items():
            sql = f"SELECT '{run.stage} ' || dataset || ' ' || chunk, count(*) FROM {name} GROUP BY ALL"
            stored_counts = dict(lake.rows(sql))
            if rows and set(map(stored_counts.get, run_lines)) - {len(rows)}:
                sys.exit(f"{name} of {run.stage}: there in parts")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    result_rows = []
    with tempfile.TemporaryDirectory() as name, postgres() as server, s3() as bucket:
        os.environ.update(bucket | {"AWS_DEFAULT_REGION": "us-east-1"})
        stage_tables = real_chunk(Workspace(Path(name) / "made"))
        for k, (title, writers) in enumerate((("SQLite", 4), ("Postgres and S3", 8))):
            for way in WAYS:
                space = Workspace(Path(name) / f"{k}{way}")
                if k:
                    database = way.replace(" ", "_")
                    server.execute(f"CREATE DATABASE {database}")
                    create(space, server.url(database), f"s3://corpora/{database}")
                rate, cpu, wait = trial(space, way, stage_tables, writers, seconds)
                result_rows.append(
                    (title, str(writers), way, f"{rate:.2f}", f"{cpu:.2f}", f"{wait:.1f}")
                )
                print(machine(), result_rows[-1], file=sys.stderr, flush=True)
    table(
        ("catalog", "writers", "commits", "chunks/s", "CPU s a chunk", "longest wait, s"),
        result_rows,
    )


if __name__ == "__main__":
    main()
