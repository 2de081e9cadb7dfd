"""What of a doctor's findings can be mended without a person: never by deleting what is listed and whole.

Damaged files and orphans go, lost files of rows are taken out of the catalog (older snapshots keep saying that they are
lost), and the partitions concerned are marked as to be built again. Building them is the build's.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing

from core.paths import Workspace
from core.tables import STAGE_TABLES, TABLES
from core.views import VIEWS
from warehouse.lake.doctor import Part, Trouble
from warehouse.lake.gc import GRACE_S, sweep
from warehouse.lake.lake import Lake
from warehouse.lake.place import place
from warehouse.lake.publishing import WHOLE_DATASET

DAMAGED = "damaged"  # as input_hash: no plan ever wants it, so the stage is stale


def repair(workspace: Workspace, found: Sequence[Trouble]) -> list[str]:
    """Mend; returns what was done, a line each. Not while a build runs."""
    done = []
    if lost := sorted({i for t in found for i in t.data_files if i >= 0}):
        _forget(workspace, lost)
        done.append(f"{len(lost)} lost files of rows taken out of the catalog")
    lake = Lake(workspace)
    try:
        before = time.time() - GRACE_S
        with lake.lock():
            young = deleted = 0
            for trouble in found:
                for path in trouble.paths if not trouble.data_files else ():
                    if not trouble.parts and path.exists() and path.stat().st_mtime >= before:
                        young += 1
                        continue
                    path.unlink(missing_ok=True)
                    deleted += 1
        parts = [*(p for t in found for p in t.parts), *_unpublished(lake)]
        marked = _mark(lake, parts)
        swept = sweep(lake)
    finally:
        lake.con.close()
    if marked:
        done.append(f"{marked} stages of partitions marked as to be built again: run the build")
    if deleted + swept:
        done.append(f"{deleted + swept} damaged, half-written or unlisted files deleted")
    if young:
        done.append(f"{young} half-written files stay: a build may be writing them")
    return done


def _forget(workspace: Workspace, ids: list[int]) -> None:
    """From a snapshot of its own on, the catalog lists these files no more: nothing can be deleted from lost files.

    DuckLake has no call for it.
    """
    lake = Lake(workspace)
    try:
        with lake.lock():
            view = VIEWS[0]
            with lake.transaction("doctor: lost files are listed no more"):  # for a new snapshot
                lake.con.execute(f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}")
            snapshot = lake.snapshot()
            lake.con.close()
            marks = ", ".join(map(str, ids))
            sql = f"SET end_snapshot = {snapshot} WHERE data_file_id IN ({marks}) AND end_snapshot IS NULL"
            at = place(workspace)
            if at.is_postgres:
                import psycopg2

                with closing(psycopg2.connect(at.catalog)) as session, session, session.cursor() as cursor:
                    for table in ("ducklake_data_file", "ducklake_delete_file"):
                        cursor.execute(f"UPDATE {table} {sql}")
            else:
                with closing(sqlite3.connect(at.catalog, timeout=60)) as catalog, catalog:
                    for table in ("ducklake_data_file", "ducklake_delete_file"):
                        catalog.execute(f"UPDATE {table} {sql}")
    finally:
        lake.con.close()


def _unpublished(lake: Lake) -> list[Part]:
    """Partitions of rows whose stage_runs line was lost: without one a build would add the same rows again."""
    known = {tuple(r) for r in lake.rows("SELECT stage, dataset, chunk, label_run FROM stage_runs")}
    labels = {(s, d, c) for s, d, c, _ in known}
    found = set()
    for stage, tables in STAGE_TABLES.items():
        for name in tables:
            run = "label_run" if stage in ("segments", "reasoning") and "label_run" in TABLES[name].key else "''"
            for dataset, chunk, label_run in lake.rows(f"SELECT DISTINCT dataset, chunk, {run} FROM {name}"):
                at = WHOLE_DATASET if stage == "episodes" else chunk
                label_run = label_run or ""
                if label_run.startswith("human/") or stage in ("corrections", "progress"):
                    continue
                if name == "keyframes" and (stage == "segments") != bool(label_run):
                    continue
                if (stage, dataset, at, label_run) not in known and (stage, dataset, at) not in labels:
                    found.add(Part(stage, dataset, at, label_run))
    return sorted(found, key=repr)


def _mark(lake: Lake, parts: Sequence[Part]) -> int:
    """Make the stages of some partitions stale, those of chunks that a stage registers included; how many lines."""
    lines = {}
    for p in parts:
        where, values = "stage = ? AND dataset = ? AND chunk = ?", [p.stage, p.dataset, p.chunk]
        if p.label_run is not None:
            where, values = f"{where} AND label_run = ?", [*values, p.label_run]
        have = lake.dicts(f"SELECT * FROM stage_runs WHERE {where}", values)
        if not have and p.label_run is not None:
            have = [_line(p, lake.snapshot())]
        for line in have:
            key = (line["stage"], line["dataset"], line["chunk"], line["label_run"])
            lines[key] = line | {"input_hash": DAMAGED}
    if lines:
        lake.upsert("doctor: to be built again", stage_runs=TABLES["stage_runs"].rows(list(lines.values())))
    return len(lines)


def _line(p: Part, snapshot: int) -> dict:
    """A stage_runs line in place of a lost one."""
    made = {"stage": p.stage, "dataset": p.dataset, "chunk": p.chunk, "label_run": p.label_run or ""}
    return made | {"code_version": "", "rows": 0, "output_hash": "", "snapshot": snapshot, "cache_hits": 0}
