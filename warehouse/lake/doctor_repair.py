"""Mend those of the doctor's findings that need no person, and make a catalog again where it was lost.

Nothing is deleted: damaged files and orphans are moved to .removed/, lost files of rows are taken out of the catalog
(older snapshots keep saying that they are lost), what people said comes back out of their lines, and the partitions
concerned are marked as to be built again. Building them is the build's.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from core.files import write_from
from core.paths import Workspace
from core.tables import STAGE_TABLES, TABLES
from core.views import VIEWS
from warehouse.lake import people
from warehouse.lake.catalog import backups, is_sound, note_committed, remains
from warehouse.lake.connection import LakeConnection, connect
from warehouse.lake.doctor import EVERYTHING, Partition, Trouble
from warehouse.lake.gc import GRACE_S, set_aside, sweep
from warehouse.lake.lake import Lake
from warehouse.lake.migrations import has_tables, migrate, schema_version, upgraded
from warehouse.lake.place import LakeError, locked, place, postgres_session
from warehouse.lake.publication import WHOLE_DATASET

DAMAGED = "damaged"  # as input_hash: no plan ever wants it, so the stage is stale


def recover(workspace: Workspace) -> list[str]:
    """Give a workspace a catalog again, with all that people said; returns what was done, a line each.

    One that is damaged or missing becomes the newest backup that is whole, else a new one without a row. One that is
    there, an older copy for one, counts from now on. What a build makes again is the doctor's to say.
    Raises LakeError: no workspace; a server that is away.
    """
    if not (workspace.exists() or remains(workspace)):
        raise LakeError(workspace.absence)
    done = [] if is_sound(workspace) else [_replace_catalog(workspace)]
    with locked(workspace):
        # By its address a catalog is not looked at before, and made where there is none
        con = connect(workspace, read_only=False, catalog=place(workspace).attached)
        with closing(con):
            if not schema_version(con) and not has_tables(con):
                migrate(LakeConnection(workspace, con))
    upgraded(workspace, dry=False)
    lake = Lake(workspace)
    with closing(lake.con), lake.lock():
        note_committed(workspace, lake.snapshot(), anew=True)
    return done


def _replace_catalog(workspace: Workspace) -> str:
    """Put the newest whole backup where the catalog was, or nothing."""
    damaged = list(filter(Path.is_file, workspace.root.glob(f"{workspace.catalog.name}*")))
    set_aside(workspace, damaged)
    aside = f"; the damaged one is in {workspace.removed}" if damaged else ""
    for backup in backups(workspace):
        with backup.open("rb") as copied:
            write_from(workspace.catalog, copied)
        if is_sound(workspace):
            return f"{backup} is the catalog now{aside}"
        workspace.catalog.unlink()
    return f"no backup is whole: a new catalog without rows was made{aside}"


def repair(workspace: Workspace, troubles: Sequence[Trouble]) -> list[str]:
    """Mend; returns what was done, a line each. Not while a build runs."""
    lost = set(chain.from_iterable(trouble.data_files for trouble in troubles)) - {-1}
    damaged = chain.from_iterable(trouble.parts for trouble in troubles)
    # The catalog first: while it lists lost files, no query of their tables works
    if lost:
        _forget(workspace, sorted(lost))
    # Opened anew, so that it reads the catalog as it is after the lost files were taken out
    lake = Lake(workspace)
    try:
        # While rows are lost for good, what people said cannot be compared with its lines
        said = 0 if any(-1 in trouble.data_files for trouble in troubles) else _take_in(lake)
        with lake.lock():
            moved, young = _move_damaged(workspace, troubles)
        # Rows may have outlived their stage_runs line, which stood in a lost file: they are made again, too
        marked = _mark(lake, [*damaged, *_unpublished(lake)])
        moved += sweep(lake)
    finally:
        lake.con.close()

    lines = {
        f"{len(lost)} lost files of rows taken out of the catalog": lost,
        f"{said} rows of what people said taken in from {workspace.people.name}": said,
        f"{marked} stages of partitions marked as to be built again: run the build": marked,
        f"{moved} damaged, half-written or unlisted files moved to {workspace.removed}; gc deletes them": moved,
        f"{young} half-written files stay: a build may be writing them": young,
    }
    return [line for line, was_done in lines.items() if was_done]


def _take_in(lake: Lake) -> int:
    """Add what the lines of people say and the lake lacks, and take away what they say is gone; returns how many rows.

    Lines that the lake has and they lack are written.
    """
    rows, gone, bad = people.missing(lake.workspace, lake.arrow)
    if any(map(len, rows.values())):
        lake.upsert("what people said, from its lines", **rows)
    for name, keys in gone.items():
        where = " AND ".join(f'"{column}" IS NOT DISTINCT FROM ?' for column in TABLES[name].key)
        for key in keys:
            lake.remove("what people took back, from its lines", where, list(key), name)
    with lake.lock():
        if bad:
            set_aside(lake.workspace, [lake.workspace.people])
        people.rewrite(lake.workspace, lake.arrow)
    return sum(map(len, rows.values())) + sum(map(len, gone.values()))


def _move_damaged(workspace: Workspace, troubles: Sequence[Trouble]) -> tuple[int, int]:
    """Move damaged and half-written files aside; how many were moved, and how many are too young for it."""
    before = time.time() - GRACE_S
    # What is not built again is a half-written file, and somebody may be writing it
    is_built = {path: bool(t.parts or t.data_files) for t in troubles for path in filter(Path.exists, t.paths)}
    young = {path for path, built in is_built.items() if not built and path.stat().st_mtime >= before}
    set_aside(workspace, is_built.keys() - young)
    return len(is_built) - len(young), len(young)


def _forget(workspace: Workspace, ids: list[int]) -> None:
    """From a snapshot of its own on, the catalog lists these files no more: nothing can be deleted from lost files.

    DuckLake has no call for it: it is said in the catalog itself.
    """
    lake = Lake(workspace)
    try:
        with lake.lock():
            # A commit that changes nothing, for a new snapshot
            view = VIEWS[0]
            with lake.transaction("doctor: lost files are listed no more"):
                lake.con.execute(f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}")
            snapshot = lake.snapshot()
            lake.con.close()
            at, marks = place(workspace), ", ".join(map(str, ids))
            open_catalog = postgres_session if at.is_postgres else partial(sqlite3.connect, timeout=60)
            with closing(open_catalog(at.catalog)) as catalog, catalog:
                for table in ("ducklake_data_file", "ducklake_delete_file"):
                    where = f"data_file_id IN ({marks}) AND end_snapshot IS NULL"
                    catalog.cursor().execute(f"UPDATE {table} SET end_snapshot = {snapshot} WHERE {where}")
    finally:
        lake.con.close()


def _unpublished(lake: Lake) -> list[Partition]:
    """Partitions of rows whose stage_runs line was lost: without one a build would add the same rows again."""
    published = set(lake.rows("SELECT DISTINCT stage, dataset, chunk FROM stage_runs"))
    unpublished = set()
    for stage, tables in STAGE_TABLES.items():
        if stage in ("transfer", "corrections", "progress"):  # they write into tables of other stages
            continue
        for name in tables:
            has_runs = stage in ("segments", "reasoning") and "label_run" in TABLES[name].key
            chunk, run = WHOLE_DATASET if stage == "episodes" else "chunk", "label_run" if has_runs else "''"
            stored = lake.rows(f"SELECT DISTINCT dataset, {chunk}, coalesce({run}, '') FROM {name}")
            unpublished.update(
                Partition(stage, *part)
                for part in stored
                if _is_written_by(stage, name, part[2]) and (stage, *part[:2]) not in published
            )
    return sorted(unpublished, key=repr)


def _is_written_by(stage: str, table: str, label_run: str) -> bool:
    """Are rows of this label run in one of a stage's tables the stage's own, and not the corrections stage's? Keyframes
    of a label run are those that its annotator asked for, the others are of the frames stage."""
    is_own = table != "keyframes" or (stage == "segments") == bool(label_run)
    return is_own and not label_run.startswith("human/")


def _mark(lake: Lake, parts: Sequence[Partition]) -> int:
    """Make the stages of some partitions stale, those of chunks that a stage registers included; how many lines."""
    lines = {}
    if EVERYTHING in parts:
        parts = [Partition(*row) for row in lake.rows("SELECT stage, dataset, chunk, label_run FROM stage_runs")]
    nothing = {"code_version": "", "rows": 0, "output_hash": "", "snapshot": lake.snapshot(), "cache_hits": 0}
    for part in parts:
        where, values = "stage = ? AND dataset = ? AND chunk = ?", [part.stage, part.dataset, part.chunk]
        if part.label_run is not None:
            where, values = f"{where} AND label_run = ?", [*values, part.label_run]
        stored = lake.dicts(f"FROM stage_runs WHERE {where}", values)
        # Where its line was lost, one in its place
        for line in stored or ([] if part.label_run is None else [asdict(part) | nothing]):
            key = (line["stage"], line["dataset"], line["chunk"], line["label_run"])
            lines[key] = line | {"input_hash": DAMAGED}
    if lines:
        lake.upsert("doctor: to be built again", stage_runs=TABLES["stage_runs"].rows(list(lines.values())))
    return len(lines)
