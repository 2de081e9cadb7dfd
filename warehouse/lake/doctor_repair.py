"""Mend those of the doctor's findings that need no person, and make a catalog again where it was lost.

Nothing is deleted: damaged files and orphans are moved to .removed/, lost files of rows are taken out of the catalog
(older snapshots keep saying that they are lost), and the partitions
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

import pyarrow as pa

from core.files import queries_of, write_from
from core.paths import Workspace
from core.tables import STAGE_TABLES, TABLES
from ingest.episode import Finding
from warehouse.lake import words
from warehouse.lake.catalog import backups, is_sound, note_committed, remains
from warehouse.lake.connection import LakeConnection, connect, temp_table
from warehouse.lake.doctor import Partition
from warehouse.lake.gc import GRACE_S, set_aside, sweep
from warehouse.lake.lake import Lake
from warehouse.lake.outdated import count_outdated, delete_outdated_sql
from warehouse.lake.place import LakeError, locked, place, postgres_session
from warehouse.lake.publication import WHOLE_DATASET
from warehouse.lake.schema import has_tables, migrate, schema_version, upgraded
from warehouse.lake.views import VIEWS

DAMAGED = "damaged"  # as input_hash: no plan ever wants it, so the stage is stale
# Lines of stage_runs whose partitions are in the table `damaged`, as stale; where a line was lost, one in its place
STALE = f"""
SELECT s.* REPLACE ('{DAMAGED}' AS input_hash) FROM stage_runs s SEMI JOIN damaged d
ON d.stage = '' OR ((s.stage, s.dataset, s.chunk, s.label_run) =
                    (d.stage, d.dataset, d.chunk, coalesce(d.label_run, s.label_run)))
UNION ALL BY NAME
SELECT DISTINCT d.*, '{DAMAGED}' AS input_hash, '' AS code_version, 0 AS "rows", '' AS output_hash, 0 AS cache_hits,
  (SELECT id FROM ducklake_current_snapshot('lake')) AS snapshot
FROM damaged d ANTI JOIN stage_runs USING (stage, dataset, chunk, label_run) WHERE d.label_run IS NOT NULL"""


def recover(workspace: Workspace) -> list[str]:
    """Give a workspace a catalog again, with all that people said; returns what was done, a line
    each.

    One that is damaged or missing becomes the newest backup that is whole, else a new one without a
    row. One that is there, an older copy for one, counts from now on. What a build makes again is
    the doctor's to say. Raises LakeError: no workspace; a server that is away.
    """
    if not (workspace.exists() or remains(workspace)):
        raise LakeError(workspace.absence)
    actions = [] if is_sound(workspace) else [_replace_catalog(workspace)]
    if not words.is_sound(workspace):
        actions.append(_replace_statements(workspace))
    is_empty = not workspace.statements.exists()
    words.StatementStore(workspace).make()
    with locked(workspace):
        # By its address a catalog is not looked at before, and made where there is none
        con = connect(workspace, read_only=False, catalog=place(workspace).attached)
        with closing(con):
            if not schema_version(con) and not has_tables(con):
                migrate(LakeConnection(workspace, con))
    upgraded(workspace, dry=False)
    lake = Lake(workspace)
    with closing(lake.con), lake.lock():
        with lake.transaction("recordings that people spoke of"):
            for sql in queries_of(__file__):
                lake.con.execute(sql)
        # Numbers that commits note are not given again, where the newest statements are lost
        [noted] = lake.column(words.NOTED_SQL)
        actions += ["what people said is lost: there is no backup"] * bool(noted and is_empty)
        lake.words.store.skip_to(noted or 0)
        note_committed(workspace, lake.snapshot(), is_reset=True)
    return actions


def _replace_statements(workspace: Workspace) -> str:
    """Put the newest backup of the statements where they were, or nothing."""
    damaged = list(filter(Path.is_file, [workspace.statements]))
    set_aside(workspace, place(workspace), damaged)
    for backup in words.backups_of_statements(workspace):
        with backup.open("rb") as copied:
            write_from(workspace.statements, copied)
        return f"{backup} has what people said now; the damaged file is in {workspace.removed}"
    return f"the damaged file is in {workspace.removed}"


def _replace_catalog(workspace: Workspace) -> str:
    """Put the newest whole backup where the catalog was, or nothing."""
    damaged = list(filter(Path.is_file, workspace.root.glob(f"{workspace.catalog.name}*")))
    set_aside(workspace, place(workspace), damaged)
    aside = f"; the damaged one is in {workspace.removed}" if damaged else ""
    for backup in backups(workspace):
        with backup.open("rb") as copied:
            write_from(workspace.catalog, copied)
        if is_sound(workspace):
            return f"{backup} is the catalog now{aside}"
        workspace.catalog.unlink()
    return f"no backup is whole: a new catalog without rows was made{aside}"


def repair(workspace: Workspace, troubles: Sequence[Finding]) -> list[str]:
    """Mend; returns what was done, a line each. Not while a build runs."""
    lost_file_ids = set(chain.from_iterable(trouble.mend.data_files for trouble in troubles)) - {-1}
    damaged = chain.from_iterable(trouble.mend.parts for trouble in troubles)
    # The catalog first: while it lists lost files, no query of their tables works
    if lost_file_ids:
        _forget(workspace, sorted(lost_file_ids))
    # Opened anew, so that it reads the catalog as it is after the lost files were taken out
    lake = Lake(workspace)
    try:
        with lake.lock():
            num_moved, young = _move_damaged(workspace, troubles)
        outdated = 0 if lost_file_ids else _delete_outdated(lake)
        # Rows may have outlived their stage_runs line, which stood in a lost file: they are made again, too
        marked = _mark(lake, [*damaged, *_unpublished(lake)])
        num_moved += sweep(lake)
    finally:
        lake.con.close()

    lines = {
        f"{len(lost_file_ids)} lost files of rows taken out of the catalog": lost_file_ids,
        f"{outdated} labels taken out of contents that their episodes do not have any more": outdated,
        f"{marked} stages of partitions marked as to be built again: run the build": marked,
        f"{num_moved} damaged, half-written or unlisted files moved to {workspace.removed}; gc deletes them": num_moved,
        f"{young} half-written files stay: a build may be writing them": young,
    }
    return [line for line, was_done in lines.items() if was_done]


def _delete_outdated(lake: Lake) -> int:
    """Delete labels of contents that are gone; returns how many there were."""
    count = count_outdated(lake)
    if count:
        with lake.lock(), lake.transaction("doctor: labels of contents that are gone"):
            for sql in delete_outdated_sql():
                lake.con.execute(sql)
    return count


def _move_damaged(workspace: Workspace, troubles: Sequence[Finding]) -> tuple[int, int]:
    """Move damaged and half-written files aside; how many were moved, and how many are too young for it."""
    latest_time = time.time() - GRACE_S
    # What is not built again is a half-written file, and somebody may be writing it
    is_built: dict[Path, bool] = {}
    for trouble in troubles:
        present = filter(Path.exists, trouble.mend.paths)
        is_built |= dict.fromkeys(present, bool(trouble.mend.parts or trouble.mend.data_files))
    young = {
        path
        for path, built in is_built.items()
        if not built and path.stat().st_mtime >= latest_time
    }
    set_aside(workspace, place(workspace), is_built.keys() - young)
    return len(is_built) - len(young), len(young)


def _forget(workspace: Workspace, ids: list[int]) -> None:
    """From a snapshot of its own on, the catalog lists these files no more: nothing can be deleted
    from lost files.

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
            lake_place = place(workspace)
            marks = ", ".join(map(str, ids))
            if lake_place.is_postgres:
                open_catalog = postgres_session
            else:
                open_catalog = partial(sqlite3.connect, timeout=60)
            with closing(open_catalog(lake_place.catalog)) as catalog, catalog:
                for table in ("ducklake_data_file", "ducklake_delete_file"):
                    condition = f"data_file_id IN ({marks}) AND end_snapshot IS NULL"
                    catalog.cursor().execute(
                        f"UPDATE {table} SET end_snapshot = {snapshot} WHERE {condition}"
                    )
    finally:
        lake.con.close()


def _unpublished(lake: Lake) -> list[Partition]:
    """Partitions of rows whose stage_runs line was lost: without one a build would add the same rows again."""
    unpublished = set()
    for stage, tables in STAGE_TABLES.items():
        # These write into tables of other stages
        if stage in ("transfer", "corrections", "progress"):
            continue
        for name in tables:
            has_runs = stage in ("segments", "reasoning") and "label_run" in TABLES[name].key
            chunk = WHOLE_DATASET if stage == "episodes" else "chunk"
            run = "label_run" if has_runs else "''"
            # Labels of people are the corrections stage's; keyframes without a label run are the frames stage's
            theirs = "run = ''" if (stage, name) == ("segments", "keyframes") else "false"
            stored = (
                f"SELECT DISTINCT dataset, {chunk} AS chunk, coalesce({run}, '') AS run FROM {name} "
                f"WHERE NOT starts_with(run, 'human/') AND NOT {theirs}"
            )
            published = "SELECT dataset, chunk FROM stage_runs WHERE stage = ?"
            lacking = lake.rows(
                f"FROM ({stored}) ANTI JOIN ({published}) USING (dataset, chunk)", [stage]
            )
            unpublished.update(
                Partition(stage, dataset, chunk, run) for dataset, chunk, run in lacking
            )
    return sorted(unpublished, key=repr)


def _mark(lake: Lake, parts: Sequence[Partition]) -> int:
    """Make the stages of some partitions stale, those of chunks that a stage registers included; how many lines."""
    table = TABLES["stage_runs"]
    columns = [name for name in table.schema.names if name in Partition.__dataclass_fields__]
    schema = pa.schema([table.schema.field(name) for name in columns])
    temp_table(lake.con, "damaged", pa.Table.from_pylist([*map(asdict, parts)], schema=schema))
    if lines := lake.dicts(STALE):
        lake.upsert("doctor: to be built again", stage_runs=table.rows(lines))
    return len(lines)
