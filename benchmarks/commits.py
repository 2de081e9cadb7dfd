"""Chunks committed a second: several writers, each stage by itself as until November 2026, beside a chunk at once.

    python -m benchmarks.commits [--seconds 20] [--writers 4] [--postgres]

Writers publish the rows of one real chunk (five episodes of a shipped dataset), under names of their own, as fast as
they can: nothing is decoded. Halfway one of them is killed, and another one goes on in its place. Afterwards every
chunk that a writer saw committed has to be there, each with all its rows. `--postgres`: the catalog in a Postgres and
the rows behind moto's S3 server, both started here.
"""

import argparse
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa

from benchmarks.tables import table
from core.paths import ROOT, Workspace
from core.tables import STAGE_TABLES, TABLES
from pipeline.build import run_build
from pipeline.sources import builds_of_source
from tests.kits.servers import postgres, s3
from warehouse.lake import Lake, StageRun
from warehouse.lake.place import create

SOURCE, EPISODES = ROOT / "samples" / "sim_short", tuple(range(5))
WAYS = ("each stage by itself", "a chunk at once")
STANDS_IN = 100_000  # first chunk of the writer that goes on for the killed one
Chunk = list[tuple[StageRun, dict[str, pa.Table]]]


def real_chunk(folder: Path) -> Chunk:
    """What each stage published of a chunk, in order."""
    space = Workspace(folder)
    run_build(space, builds_of_source(space, None, str(SOURCE), name="made", episodes=EPISODES).builds, 1)
    lake, found = Lake(space), []
    columns = ", ".join(StageRun.__dataclass_fields__)
    for row in lake.dicts(
        f"SELECT {columns} FROM stage_runs WHERE chunk = 0 AND stage <> 'episodes' ORDER BY snapshot"
    ):
        rows = {}
        for name in STAGE_TABLES[row["stage"]]:
            of_run = " AND coalesce(label_run, '') = ?" if "label_run" in TABLES[name].key else ""
            rows[name] = lake.arrow(f"FROM {name} WHERE chunk = 0{of_run}", [row["label_run"]] if of_run else [])
        found.append((StageRun(**row), rows))
    lake.con.close()
    return found


def named(rows: pa.Table, dataset: str, chunk: int) -> pa.Table:
    for name, value in ("dataset", pa.array([dataset] * len(rows))), ("chunk", pa.array([chunk] * len(rows), "int32")):
        rows = rows.set_column(rows.schema.get_field_index(name), name, value)
    return rows


def write(root: Path, way: str, writer: int, first: int, seconds: float, ready: Barrier) -> None:
    """One writer: commits chunk after chunk, and notes each that is committed."""
    made: Chunk = pickle.loads((root / "chunk").read_bytes())
    lake, dataset = Lake(Workspace(root)), f"writer{writer}"
    ready.wait()
    until = time.monotonic() + seconds
    with (root / "noted").open("a", buffering=1) as notes:
        for chunk in count(first):
            with nullcontext() if way == WAYS[0] else lake.together(dataset, chunk):
                for run, tables in made:
                    of_chunk = {name: named(rows, dataset, chunk) for name, rows in tables.items()}
                    lake.publish(replace(run, dataset=dataset, chunk=chunk, duration_s=0.0), of_chunk)
            if time.monotonic() > until:
                return
            notes.write(f"{dataset} {chunk}\n")


def trial(space: Workspace, way: str, made: Chunk, writers: int, seconds: float) -> float:
    """Chunks a second; exits where a chunk was lost, or is there in parts."""
    Lake(space).con.close()
    (space.root / "chunk").write_bytes(pickle.dumps(made))
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(writers + 1)
    # The last one waits in its place until one of the others is killed
    firsts = [*((k, 0, seconds) for k in range(writers)), (0, STANDS_IN, seconds / 2)]
    halfway = context.Barrier(2)
    processes = [
        context.Process(target=write, args=(space.root, way, *of, halfway if of[1] else ready)) for of in firsts
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
    noted = set((space.root / "noted").read_text().splitlines())
    lake = Lake(space, read_only=True)
    for name in sorted({name for _, tables in made for name in tables}):
        rows = sum(tables[name].num_rows for _, tables in made if name in tables)
        there = dict(lake.rows(f"SELECT dataset || ' ' || chunk, count(*) FROM {name} GROUP BY ALL")) if rows else {}
        parts = [chunk for chunk, number in there.items() if number != rows and (chunk in noted or way != WAYS[0])]
        if parts or (rows and noted - set(there)):
            sys.exit(f"{name}: in parts {parts}, lost {sorted(noted - set(there))}")
    lake.con.close()
    return len(noted) / seconds


@contextmanager
def places(folder: Path, *, is_postgres: bool) -> Iterator[Iterator[Workspace]]:
    """Workspaces without a lake, one after the other."""
    with ExitStack() as stack:
        if is_postgres:
            server, settings = stack.enter_context(postgres()), stack.enter_context(s3())
            os.environ.update(settings | {"AWS_DEFAULT_REGION": "us-east-1"})

        def made() -> Iterator[Workspace]:
            for k in count():
                space = Workspace(folder / f"lake{k}")
                if is_postgres:
                    server.execute(f"CREATE DATABASE lake{k}")
                    create(space, server.url(f"lake{k}"), f"s3://corpora/lake{k}")
                yield space

        yield made()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, places(Path(folder), is_postgres=given.postgres) as spaces:
        made = real_chunk(Path(folder) / "made")
        found = {way: trial(next(spaces), way, made, given.writers, given.seconds) for way in WAYS}
    table(("way", "chunks/s"), [(way, f"{rate:.2f}") for way, rate in found.items()])


if __name__ == "__main__":
    main()
