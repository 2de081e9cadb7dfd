"""The lake: what it creates, what a publish replaces, refuses and survives."""

import multiprocessing
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from core.files import sha256_file, write_file
from core.paths import Workspace
from core.tables import TABLES, Column, Table
from core.views import VIEWS
from tests.kits.lake_kit import facts, findings, frames, segments, stage_run, write_partition
from warehouse.lake import Lake, LakeError, connect, digest, extension_path, migrations, sql_type, was_interrupted
from warehouse.lake.migrations import SCHEMA_VERSION
from warehouse.lake.said import said_of


def state(lake: Lake) -> tuple:
    """Everything that a refused publish must leave as it was."""
    return lake.snapshot(), lake.rows("FROM stage_runs ORDER BY ALL"), lake.rows("FROM frames ORDER BY ALL")


# Tables and views


def test_every_table_and_view_is_made_with_its_comments(tmp_path: Path):
    lake = Lake(Workspace(tmp_path / "new"))
    tables = dict(lake.rows("SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'lake'"))
    assert set(tables) == set(TABLES)
    for table in TABLES.values():
        assert tables[table.name] == f"{table.comment}. Key: {', '.join(table.key)}"
        columns = lake.rows(
            "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? "
            "AND database_name = 'lake' ORDER BY column_index",
            [table.name],
        )
        types = [t.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ").replace("FLOAT", "REAL") for _, t, _ in columns]
        assert [c[0] for c in columns] == table.schema.names
        assert types == [sql_type(c.type).replace('"', "") for c in table.columns] or table.name == "episode_facts"
        assert [c[2] or "" for c in columns] == [c.comment for c in table.columns]
    views = dict(lake.rows("SELECT view_name, comment FROM duckdb_views() WHERE database_name = 'lake'"))
    assert {v.name: v.comment for v in VIEWS}.items() <= views.items()
    for name in (*TABLES, *views):
        assert lake.rows(f"SELECT count(*) FROM {name}") == [(SCHEMA_VERSION if name == "schema_versions" else 0,)]


def test_what_is_written_comes_back_with_its_types(lake: Lake, ds: str):
    rows = {"frames": frames(ds, n=3), "episode_facts": facts(ds, episodes=(0, 1))}
    lake.publish(stage_run(dataset=ds), rows)
    for name, table in rows.items():
        back = lake.arrow(f"FROM {name} WHERE dataset = ? ORDER BY ALL", [ds])
        assert back.cast(TABLES[name].schema).equals(table)


def test_opening_again_changes_nothing(lake: Lake):
    before = lake.snapshot()
    assert Lake(lake.workspace).snapshot() == before


def test_a_table_that_a_newer_version_adds_is_made_in_an_old_lake(workspace: Workspace, monkeypatch):
    Lake(workspace).con.close()
    new = Table("novelties", "New", ("dataset",), (Column("dataset", pa.string(), ""),))
    monkeypatch.setitem(TABLES, "novelties", new)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", migrations.SCHEMA_VERSION + 1)
    migrations.upgraded(workspace, dry=False)
    assert Lake(workspace).rows("FROM novelties") == []


def test_a_lake_for_reading(workspace: Workspace, tmp_path: Path):
    with pytest.raises(LakeError, match=r"no workspace at .* build one first"):
        Lake(Workspace(tmp_path / "none"), read_only=True)
    assert not (tmp_path / "none").exists()
    Lake(workspace).publish(stage_run(), {"frames": frames()})
    reader = Lake(workspace, read_only=True)
    assert reader.rows("SELECT count(*) FROM frames") == [(4,)]
    with pytest.raises(duckdb.Error, match="read-only"):
        reader.publish(stage_run(), {"frames": frames(value=0.5)})
    assert reader.rows("SELECT DISTINCT visual_change FROM frames") == [(pytest.approx(0.1),)]


def test_an_older_snapshot_can_be_read(lake: Lake, ds: str):
    first = lake.publish(stage_run(dataset=ds), {"frames": frames(ds, value=0.25)})
    second = lake.publish(stage_run(dataset=ds), {"frames": frames(ds, value=0.5)})
    for snapshot, value in ((first, 0.25), (second, 0.5)):
        old = Lake(lake.workspace, read_only=True, snapshot=snapshot)
        assert old.rows("SELECT DISTINCT visual_change FROM frames WHERE dataset = ?", [ds]) == [(value,)]
        assert old.rows("SELECT snapshot FROM stage_runs WHERE dataset = ?", [ds]) == [(snapshot,)]


def test_an_unsigned_extension_is_refused(lake: Lake, tmp_path: Path):
    """The lake's own two are loaded without a look at their signatures, and nothing else is."""
    other = tmp_path / "other.duckdb_extension"
    data = bytearray(Path(extension_path("sqlite_scanner")).read_bytes())
    data[1000] ^= 1
    other.write_bytes(data)
    for allow in ("SET allow_unsigned_extensions = true", "RESET allow_unsigned_extensions"):
        with suppress(duckdb.Error):
            lake.con.execute(allow)
        with pytest.raises(duckdb.IOException, match="signature is either missing or invalid"):
            lake.con.execute(f"LOAD '{other}'")


def test_a_missing_extension_is_named():
    with pytest.raises(LakeError, match="duckdb-extension-no-such is not installed: run make setup"):
        extension_path("no_such")


# Publishing


def test_a_publish_replaces_its_own_partition_only(lake: Lake, ds: str):
    for dataset, chunk in ((ds, 0), (ds, 1), (f"{ds}b", 0)):
        run = stage_run(dataset=dataset, chunk=chunk)
        lake.publish(run, {"frames": frames(dataset, chunk, (chunk * 10, chunk * 10 + 1))})
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds, 0, (0,), n=2, value=0.5)})
    found = lake.rows(
        "SELECT dataset, chunk, episode_index, count(*), max(visual_change)::DECIMAL(3, 1)::DOUBLE FROM frames "
        "WHERE starts_with(dataset, ?) GROUP BY ALL ORDER BY ALL",
        [ds],
    )
    assert found == [
        (ds, 0, 0, 2, 0.5),  # and episode 1 is gone
        (ds, 1, 10, 4, 0.1),
        (ds, 1, 11, 4, 0.1),
        (f"{ds}b", 0, 0, 4, 0.1),
        (f"{ds}b", 0, 1, 4, 0.1),
    ]


def test_a_publish_replaces_its_own_label_run_only(lake: Lake, ds: str):
    for label_run, chunk in (("r1", 0), ("r2", 0), ("r1", 1)):
        run = stage_run(stage="segments", dataset=ds, label_run=label_run, chunk=chunk)
        lake.publish(run, {"segments": segments(ds, chunk, label_run)})
    run = stage_run(stage="segments", dataset=ds, label_run="r1")
    lake.publish(run, {"segments": segments(ds, episodes=())})
    found = lake.rows(
        "SELECT label_run, chunk, count(*) FROM segments WHERE dataset = ? GROUP BY ALL ORDER BY ALL", [ds]
    )
    assert found == [("r1", 1, 2), ("r2", 0, 2)]
    runs = lake.rows("SELECT label_run, chunk FROM stage_runs WHERE dataset = ? ORDER BY ALL", [ds])
    assert runs == [("r1", 0), ("r1", 1), ("r2", 0)]


def test_a_publish_replaces_the_findings_of_its_own_stage_and_chunk_only(lake: Lake, ds: str):
    def publish(stage: str, chunk: int | None, *rows: tuple[int | None, int | None, str, str]) -> None:
        run = stage_run(stage=stage, dataset=ds, chunk=chunk)
        parts = [stage_run(stage=stage, dataset=ds)] if chunk is None else None
        lake.publish(run, {}, findings(*((*row, "warning") for row in rows), dataset=ds), parts=parts)

    publish("episodes", None, (None, None, "episodes", "stray_file"), (3, 0, "episodes", "no_task"))
    publish("frames", 0, (3, 0, "frames", "black_video"))
    publish("frames", 1, (13, 1, "frames", "black_video"))
    publish("frames", 0, (4, 0, "frames", "too_short"))
    found = lake.rows("SELECT episode_index, stage, reason FROM findings WHERE dataset = ? ORDER BY 2, 3, 1", [ds])
    assert found == [
        (3, "episodes", "no_task"),
        (None, "episodes", "stray_file"),
        (13, "frames", "black_video"),
        (4, "frames", "too_short"),
    ]


def test_rows_and_their_line_in_stage_runs_are_one_snapshot(lake: Lake, ds: str):
    before = lake.snapshot()
    run = stage_run(dataset=ds, rows=4, input_hash="i1", output_hash="o1", duration_s=1.5)
    found = findings((0, 0, "frames", "too_short", "unusable"), dataset=ds)
    snapshot = lake.publish(run, {"frames": frames(ds)}, found)
    assert lake.snapshot() == snapshot == before + 1
    (line,) = lake.dicts("FROM stage_runs WHERE dataset = ?", [ds])
    assert line.pop("finished_at") is not None
    assert line == run.__dict__ | {"snapshot": snapshot}


def test_a_dataset_wide_publish_drops_the_chunks_that_are_gone(lake: Lake, ds: str):
    def episodes(dataset: str, *chunks: int) -> None:
        parts = [stage_run(stage="episodes", dataset=dataset, chunk=c) for c in chunks]
        table = pa.concat_tables([facts(dataset, c, (c * 10,)) for c in chunks])
        lake.publish(stage_run(stage="episodes", dataset=dataset, chunk=None), {"episode_facts": table}, parts=parts)

    for dataset, chunk in ((ds, 0), (ds, 1), (f"{ds}b", 0)):
        episodes(dataset, *range(chunk + 1))
        lake.publish(stage_run(dataset=dataset, chunk=chunk), {"frames": frames(dataset, chunk)})
    episodes(ds, 1)
    here = "WHERE starts_with(dataset, ?) ORDER BY ALL"
    assert lake.rows(f"SELECT DISTINCT dataset, chunk FROM frames {here}", [ds]) == [(ds, 1), (f"{ds}b", 0)]
    assert lake.rows(f"SELECT dataset, chunk FROM episode_facts {here}", [ds]) == [(ds, 1), (f"{ds}b", 0)]
    lines = lake.rows("SELECT stage, chunk FROM stage_runs WHERE dataset = ? ORDER BY ALL", [ds])
    assert lines == [("episodes", -1), ("episodes", 1), ("frames", 1)]


def test_upserts_replace_rows_of_the_same_key(lake: Lake, ds: str):
    def config(dataset: str, text: str) -> pa.Table:
        return TABLES["build_configs"].rows([{"dataset": dataset, "config": text}])

    lake.upsert("one", build_configs=config(ds, "1"))
    lake.upsert("two", build_configs=config(f"{ds}b", "2"))
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds)}, upserts={"build_configs": config(ds, "3")})
    found = lake.rows("SELECT dataset, config FROM build_configs WHERE starts_with(dataset, ?) ORDER BY ALL", [ds])
    assert found == [(ds, "3"), (f"{ds}b", "2")]


def test_what_is_registered_stays_as_it_was_first(lake: Lake, ds: str):
    def config(dataset: str, text: str) -> pa.Table:
        return TABLES["build_configs"].rows([{"dataset": dataset, "config": text}])

    for text in ("1", "2"):
        both = pa.concat_tables([config(ds, text), config(f"{ds}{text}", text)])
        lake.publish(stage_run(dataset=ds), {}, registered={"build_configs": both})
    found = lake.rows("SELECT dataset, config FROM build_configs WHERE starts_with(dataset, ?) ORDER BY ALL", [ds])
    assert found == [(ds, "1"), (f"{ds}1", "1"), (f"{ds}2", "2")]


def test_rows_are_replaced_that_somebody_published_since_the_lake_had_none(lake: Lake, ds: str):
    then = lake.snapshot()
    for value in (0.25, 0.5):
        lake.publish(stage_run(dataset=ds), {"frames": frames(ds, value=value)}, absent_at=then)
    assert lake.rows("SELECT visual_change, count(*) FROM frames WHERE dataset = ? GROUP BY 1", [ds]) == [(0.5, 4)]
    assert lake.rows("SELECT count(*) FROM stage_runs WHERE dataset = ?", [ds]) == [(1,)]


# What is refused, and what a crash leaves


def test_duplicate_keys_are_refused_and_nothing_is_changed(lake: Lake, ds: str):
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds)})
    before = state(lake)
    twice = pa.concat_tables([frames(ds, value=0.5), frames(ds, value=0.75).slice(2, 1)])
    with pytest.raises(LakeError, match=r"frames: two rows with .*'frame_index': 2"):
        lake.publish(stage_run(dataset=ds, output_hash="new"), {"frames": twice})
    line = TABLES["build_configs"].rows([{"dataset": "a", "config": "1"}])
    two_lines = {"build_configs": pa.concat_tables([line, line])}
    with pytest.raises(LakeError, match=r"build_configs: two rows with \{'dataset': 'a'\}"):
        lake.publish(stage_run(dataset=ds), {"frames": frames(ds, value=0.5)}, upserts=two_lines)
    two = findings(*[(None, None, "frames", "no_data", "unusable")] * 2, dataset=ds)
    with pytest.raises(LakeError, match="findings: two rows with"):  # null keys are equal keys
        lake.publish(stage_run(dataset=ds, chunk=None), {}, two)
    assert state(lake) == before


def test_rows_of_another_partition_are_refused(lake: Lake, ds: str):
    before = state(lake)
    for rows in (frames("b"), frames(ds, 1), pa.concat_tables([frames(ds, 0), frames(ds, 1, (1,))])):
        with pytest.raises(LakeError, match="frames: rows of another partition"):
            lake.publish(stage_run(dataset=ds), {"frames": rows})
    with pytest.raises(LakeError, match="segments: rows of another partition"):
        lake.publish(stage_run(dataset=ds, label_run="r1"), {"segments": segments(ds, label_run="r2")})
    with pytest.raises(LakeError, match="datasets has no chunks"):
        lake.publish(stage_run(dataset=ds), {"datasets": TABLES["datasets"].rows([{"dataset": ds}])})
    assert state(lake) == before


def test_what_is_asked_once_is_asked_again_after_a_commit(lake: Lake, ds: str):
    def count() -> int:
        return lake.rows("SELECT count(*) FROM outcomes WHERE dataset = ?", [ds])[0][0]

    said = TABLES["outcomes"].rows([{"dataset": ds, "episode_index": 0, "import_id": "a"}])
    assert [lake.once(ds, count), lake.once(ds, lambda: -1)] == [0, 0]
    other = Lake(lake.workspace)
    other.append("said by another process", "outcomes", lambda: said)
    other.con.close()
    assert [lake.once(ds, count), lake.once(ds, lambda: -1)] == [1, 1]
    assert ds in said_of(lake)["outcomes"]
    # What a transaction has written and takes back was never so
    asked = []

    def take_back() -> None:
        with lake.transaction("taken back"):
            lake.con.execute("DELETE FROM outcomes WHERE dataset = ?", [ds])
            asked.append(lake.once(ds, count))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_back()
    assert [*asked, lake.once(ds, count)] == [0, 1]


@pytest.mark.parametrize("last_word", [RuntimeError("Query interrupted"), KeyboardInterrupt()])
def test_a_crash_in_the_middle_leaves_nothing(
    lake: Lake, ds: str, monkeypatch: pytest.MonkeyPatch, last_word: BaseException
):
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds)})
    before = state(lake)
    insert, count = Lake._insert, 0

    def crash(self: Lake, table: Table, data: pa.Table, partition: tuple | None = None) -> None:
        nonlocal count
        count += 1
        insert(self, table, data, partition)
        if count == 3:  # frames and findings are in, the line in stage_runs too
            raise last_word

    monkeypatch.setattr(Lake, "_insert", crash)
    found = findings((0, 0, "frames", "x", "warning"), dataset=ds)
    with pytest.raises(type(last_word)):
        lake.publish(stage_run(dataset=ds, output_hash="new"), {"frames": frames(ds, value=0.5)}, found)
    assert count == 3
    monkeypatch.undo()
    assert state(lake) == before
    assert state(Lake(lake.workspace, read_only=True)) == before
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds, value=0.5)})  # and the connection still works
    assert lake.snapshot() == before[0] + 1


def test_a_commit_that_fails_says_why(lake: Lake, ds: str, monkeypatch: pytest.MonkeyPatch):
    """DuckDB ends the transaction of a COMMIT that fails, so there is nothing left to roll back."""
    real = lake.con

    class Failing:
        def execute(self, sql: str, values: list | None = None) -> duckdb.DuckDBPyConnection:
            if sql == "COMMIT":
                real.execute("ROLLBACK")
                raise duckdb.TransactionException("Failed to commit: database is locked")
            return real.execute(sql, values)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(lake, "con", Failing())
    with pytest.raises(LakeError, match="another program has kept the catalog locked"):
        lake.publish(stage_run(dataset=ds), {"frames": frames(ds)})
    monkeypatch.undo()
    assert lake.rows("FROM frames WHERE dataset = ?", [ds]) == []


def test_writers_and_a_reader_at_once_lose_nothing(workspace: Workspace):
    times, datasets = 4, ("a", "b", "c")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_partition, args=(str(workspace.root), d, times)) for d in datasets]
    for w in writers:
        w.start()
    reader, reads, seen = Lake(workspace, read_only=True), 0, {d: [] for d in datasets}
    deadline = time.monotonic() + 60
    while any(w.is_alive() for w in writers) and time.monotonic() < deadline:
        found = reader.rows(
            "SELECT f.dataset, count(*), min(visual_change), max(visual_change), any_value(s.rows), "
            "(SELECT count(*) FROM findings x WHERE x.dataset = f.dataset) FROM frames f LEFT JOIN stage_runs s "
            "ON s.dataset = f.dataset AND s.chunk = f.chunk GROUP BY f.dataset"
        )
        reads += 1
        time.sleep(0.1)
        for dataset, count, low, high, version, warnings in found:
            assert (count, low, high, warnings) == (12, version, version, 1)  # one version, whole
            seen[dataset].append(version)
    for w in writers:
        w.join(timeout=60)
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert reads >= 2
    assert all(versions == sorted(versions) for versions in seen.values())
    lake = Lake(workspace)
    assert sorted(lake.rows("SELECT dataset, rows, output_hash FROM stage_runs")) == [
        (d, times, str(times)) for d in datasets
    ]
    commits = lake.rows("SELECT count(*) FROM ducklake_snapshots('lake') WHERE commit_message LIKE 'frames %'")
    assert commits == [(times * len(datasets),)]


# Places


def test_a_moved_workspace_reads_its_own_files(workspace: Workspace, tmp_path: Path):
    rows = frames(n=5000)  # more than the catalog itself would hold
    lake = Lake(workspace)
    lake.publish(stage_run(), {"frames": rows})
    before = digest(lake)
    lake.con.close()
    shutil.copytree(workspace.root, tmp_path / "new")
    for parquet in workspace.root.rglob("*.parquet"):
        parquet.unlink()  # reading from the old place would fail
    workspace.root.rename(tmp_path / "renamed")
    moved = Lake(Workspace(tmp_path / "new"))
    assert digest(moved) == before
    moved.publish(stage_run(chunk=1), {"frames": frames("a", 1, n=5000)})
    assert len(list((tmp_path / "new").rglob("*.parquet"))) == 2
    assert not workspace.root.exists()
    assert not list((tmp_path / "renamed").rglob("*.parquet"))


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "deep" / "file"
    write_file(path, b"one")
    assert sha256_file(path) == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"

    def fail(source: str, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_catalog_is_waited_for_longer_than_sqlite_waits(workspace: Workspace):
    lake = Lake(workspace)
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('shut', flush=True); time.sleep(6)"
    )
    command = [sys.executable, "-c", code, str(workspace.catalog)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other, ThreadPoolExecutor() as pool:
        assert other.stdout is not None
        assert other.stdout.readline() == "shut\n"
        # For queries of as many threads as there are cores
        opening = pool.submit(connect, workspace, read_only=True)
        lake.publish(stage_run(), {"frames": frames()})
        assert other.poll() is not None or other.wait(5) == 0
        opening.result().execute("SELECT count(*) FROM frames").fetchall()
    assert lake.rows("SELECT count(*) FROM frames") == [(4,)]


def test_ctrl_c_in_python_that_a_query_calls_is_known_as_such():
    def stop(x: int) -> int:
        raise KeyboardInterrupt

    def broken(x: int) -> int:
        raise ValueError("no KeyboardInterrupt this time")

    con = duckdb.connect()
    for function, is_it in ((stop, True), (broken, False)):
        con.create_function(function.__name__, function, ["BIGINT"], "BIGINT")  # type: ignore[list-item]
        with pytest.raises(duckdb.Error) as raised:
            con.execute(f"SELECT {function.__name__}(1)").fetchall()
        assert was_interrupted(raised.value) == is_it
    assert was_interrupted(RuntimeError("KeyboardInterrupt: <EMPTY MESSAGE>\n\nAt:\n  build.py(3): run\n"))
    assert not was_interrupted(RuntimeError("Query interrupted by another"))
