"""What a longer catalog costs a plan, a publish and merging small files: with the files of 6, 60 and 600 M frames.

    python -m benchmarks.lake_growth [--times 4 40 400] [--folder /tmp/lake-growth]

A corpus of 20 datasets of one chunk each is made in SQL (benchmarks/synthetic.py): some 300 files. Then DuckLake's
catalog is made to list them so many times, the copies as files of other datasets: a corpus of 6 M frames has 1,279
files. The copies are not there: whatever reads a row of another dataset fails. CPU seconds of this process, medians.
`benchmarks.size` measures the rest, with every row in its place.
"""

import argparse
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pyarrow as pa

from benchmarks import synthetic
from core.paths import Workspace
from core.tables import TABLES
from pipeline.plan import CURRENT, plan
from pipeline.stages import stage_specs
from warehouse.lake import Lake, StageRun, digest, table_hash
from warehouse.lake.gc import merge, small_files

ASKED = "corpus_00"
CHUNK = 1000  # that no dataset has
TURNS = 5
SMALL_FILES = 8  # label runs of one chunk, each in a file of its own
SCALE = 0.025  # one chunk of each dataset


def cpu_s(run: Callable[[], object]) -> float:
    """The median of some turns."""
    took = []
    for _ in range(TURNS):
        started = time.process_time()
        run()
        took.append(time.process_time() - started)
    return statistics.median(took)


def list_again(catalog: Path, times: int) -> int:
    """Let a catalog list the files of all partitions so many times, as those of other datasets; returns all files."""
    with closing(sqlite3.connect(catalog)) as con:
        step = con.execute("SELECT max(data_file_id) + 1 FROM ducklake_data_file").fetchone()[0]
        con.execute("CREATE TEMP TABLE copies AS WITH RECURSIVE c(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM c "
                    f"WHERE k < {times}) SELECT k FROM c WHERE k < {times}")  # fmt: skip
        con.execute("CREATE TEMP TABLE partitioned AS SELECT data_file_id FROM ducklake_data_file "
                    "WHERE partition_id IS NOT NULL")  # fmt: skip
        for table in ("ducklake_data_file", "ducklake_file_column_stats", "ducklake_file_partition_value"):
            names = [row[1] for row in con.execute(f"PRAGMA table_info({table})")]
            values = {"data_file_id": f"data_file_id + {step} * k"}
            for name in {"path", "min_value", "max_value", "partition_value"}.intersection(names):
                values[name] = f"replace({name}, 'corpus_', 'other' || k || '_')"
            con.execute(f"CREATE TEMP TABLE as_it_is AS SELECT * FROM {table} "
                        "WHERE data_file_id IN (SELECT data_file_id FROM partitioned)")  # fmt: skip
            taken = ", ".join(values.get(name, f'"{name}"') for name in names)
            con.execute(f"INSERT INTO {table} SELECT {taken} FROM as_it_is, copies")
            con.execute("DROP TABLE as_it_is")
        next_file = con.execute("SELECT max(data_file_id) + 1 FROM ducklake_data_file").fetchone()
        newest = "(SELECT max(snapshot_id) FROM ducklake_snapshot)"
        con.execute(f"UPDATE ducklake_snapshot SET next_file_id = ? WHERE snapshot_id = {newest}", next_file)
        con.commit()
        return con.execute("SELECT count(*) FROM ducklake_data_file").fetchone()[0]


def segments_of(rows: pa.Table, label_run: str) -> pa.Table:
    """The rows as those of another label run, of the chunk that no dataset has."""
    changed = {"label_run": pa.array([label_run] * len(rows)), "chunk": pa.array([CHUNK] * len(rows), pa.int32())}
    for name, values in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows


def measured(space: Workspace) -> dict[str, float]:
    """CPU seconds of each thing."""
    lake = Lake(space)
    build = next(b for b in synthetic.builds() if b.name == ASKED)
    specs, fingerprints = {ASKED: stage_specs(build)}, {ASKED: synthetic.FINGERPRINT}
    if {step.status for step in plan(lake, specs, fingerprints)} != {CURRENT}:
        sys.exit("the corpus is not as the plan wants it")
    found = {"plan of one dataset, nothing to do": cpu_s(lambda: plan(lake, specs, fingerprints))}

    of_chunk = "SELECT * FROM segments WHERE dataset = ? AND chunk = ?"
    rows = lake.arrow(f"{of_chunk} AND label_run = ?", [ASKED, 0, synthetic.RUN])
    label_runs = (f"run{k}" for k in range(SMALL_FILES))

    def publish(label_run: str) -> None:
        run = StageRun("segments", ASKED, CHUNK, label_run, "", "", rows.num_rows, "", 0.0)
        lake.publish(run, {"segments": segments_of(rows, label_run)})

    publish(next(label_runs))
    found["publish rows again"] = cpu_s(lambda: publish("run0"))
    for label_run in label_runs:
        publish(label_run)
    new = count()

    def publish_new() -> None:
        run = StageRun("segments", f"new{next(new)}", CHUNK, "run0", "", "", rows.num_rows, "", 0.0)
        table = segments_of(rows, "run0")
        names = pa.array([run.dataset] * len(rows))
        lake.publish(run, {"segments": table.set_column(table.schema.get_field_index("dataset"), "dataset", names)})

    found["publish rows that are new"] = cpu_s(publish_new)
    before = table_hash(TABLES["segments"], lake.arrow(of_chunk, [ASKED, CHUNK]))
    started = time.process_time()
    files, _ = merge(lake)
    found[f"merge {SMALL_FILES} small files"] = time.process_time() - started
    if files < SMALL_FILES or small_files(lake):
        sys.exit(f"{files} files were merged, {small_files(lake)} are left")
    if table_hash(TABLES["segments"], lake.arrow(of_chunk, [ASKED, CHUNK])) != before:
        sys.exit("merging has changed rows")
    lake.con.close()
    return found


def grown(folder: Path, times: list[int]) -> dict[int, dict[str, float]]:
    """By number of listed files what each thing costs; makes the corpus in a folder."""
    made = Workspace(folder / "made")
    synthetic.make(made, SCALE)
    lake = Lake(made)
    digest(lake)  # all of it can be read
    lake.con.close()
    found = {}
    for k in times:
        space = Workspace(folder / f"times{k}")
        shutil.copytree(made.root, space.root)
        files = list_again(space.catalog, k)
        found[files] = measured(space)
        shutil.rmtree(space.root)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--times", type=int, nargs="+", default=[4, 40, 400], help="how many times the files are listed"
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp/lake-growth"), help="made, and deleted at the end")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    try:
        found = grown(given.folder, given.times)
    finally:
        shutil.rmtree(given.folder)
    first, *_ = found.values()
    print(
        f"| CPU s (times the first) | {' | '.join(f'{files:,} files' for files in found)} |\n|---|{'---|' * len(found)}"
    )
    for line, least in first.items():
        cells = (f"{of[line]:.3f} ({of[line] / least:.1f})" for of in found.values())
        print(f"| {line} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
