"""The lake: what it creates, what a publish replaces, refuses and survives."""

from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import findings, frames, segments, stage_run
from warehouse.lake import Lake, LakeError
from warehouse.lake.connection import extension_path
from warehouse.lake.statements import say


def state(lake: Lake) -> tuple:
    """Everything that a refused publish must leave as it was."""
    return (
        lake.snapshot(),
        lake.rows("FROM stage_runs ORDER BY ALL"),
        lake.rows("FROM frames ORDER BY ALL"),
    )


def test_a_lake_for_reading(workspace, tmp_path):
    with pytest.raises(LakeError, match=r"no workspace at .* build one first"):
        Lake(Workspace(tmp_path / "none"), read_only=True)
    assert not (tmp_path / "none").exists()
    Lake(workspace).publish(stage_run(), {"frames": frames()})
    reader = Lake(workspace, read_only=True)
    assert reader.rows("SELECT count(*) FROM frames") == [(4,)]
    with pytest.raises(duckdb.Error, match="read-only"):
        reader.publish(stage_run(), {"frames": frames(value=0.5)})
    assert reader.rows("SELECT DISTINCT visual_change FROM frames") == [(pytest.approx(0.1),)]


def test_an_unsigned_extension_is_refused(lake, tmp_path):
    """The lake's own two are loaded without a look at their signatures, and nothing else is."""
    other_file = tmp_path / "other.duckdb_extension"
    data = bytearray(Path(extension_path("sqlite_scanner")).read_bytes())
    data[1000] ^= 1
    other_file.write_bytes(data)
    for allow in ("SET allow_unsigned_extensions = true", "RESET allow_unsigned_extensions"):
        with suppress(duckdb.Error):
            lake.con.execute(allow)
        with pytest.raises(duckdb.IOException, match="signature is either missing or invalid"):
            lake.con.execute(f"LOAD '{other_file}'")


def test_a_missing_extension_is_named():
    with pytest.raises(
        LakeError, match="duckdb-extension-no-such is not installed: run make setup"
    ):
        extension_path("no_such")


def test_a_duckdb_without_its_extension_is_a_sentence(workspace, monkeypatch):
    monkeypatch.setattr(duckdb, "__version__", "2.0.1")
    words = r"^DuckDB 2\.0\.1 is installed, and its extension ducklake for DuckDB 1\.[\d.]+: install the versions of "
    with pytest.raises(LakeError, match=words):
        Lake(workspace)


def test_a_slow_query_draws_no_bar(lake):
    """Where the tests run on several processes, DuckDB takes each for an interactive one."""
    for con in (lake.con, lake.con.cursor()):
        bar = con.execute("SELECT current_setting('enable_progress_bar')")
        assert bar.fetchall() == [(False,)]


def test_upserts_replace_rows_of_the_same_key(lake, ds):
    def config(dataset: str, text: str) -> pa.Table:
        return TABLES["build_configs"].rows([{"dataset": dataset, "config": text}])

    lake.upsert("one", build_configs=config(ds, "1"))
    lake.upsert("two", build_configs=config(f"{ds}b", "2"))
    lake.publish(
        stage_run(dataset=ds), {"frames": frames(ds)}, upserts={"build_configs": config(ds, "3")}
    )
    config_rows = lake.rows(
        "SELECT dataset, config FROM build_configs WHERE starts_with(dataset, ?) ORDER BY ALL", [ds]
    )
    assert config_rows == [(ds, "3"), (f"{ds}b", "2")]


def test_duplicate_keys_are_refused_and_nothing_is_changed(lake, ds):
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds)})
    state_before = state(lake)
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
    assert state(lake) == state_before


def test_rows_of_another_partition_are_refused(lake, ds):
    state_before = state(lake)
    for rows in (
        frames("b"),
        frames(ds, 1),
        pa.concat_tables([frames(ds, 0), frames(ds, 1, (1,))]),
    ):
        with pytest.raises(LakeError, match="frames: rows of another partition"):
            lake.publish(stage_run(dataset=ds), {"frames": rows})
    with pytest.raises(LakeError, match="segments: rows of another partition"):
        lake.publish(
            stage_run(dataset=ds, label_run="r1"), {"segments": segments(ds, label_run="r2")}
        )
    with pytest.raises(LakeError, match="datasets has no chunks"):
        lake.publish(
            stage_run(dataset=ds), {"datasets": TABLES["datasets"].rows([{"dataset": ds}])}
        )
    assert state(lake) == state_before


def test_a_chunk_that_the_source_has_lost_meanwhile_is_refused(lake, ds):
    listing = stage_run(stage="episodes", dataset=ds, chunk=None)
    lake.publish(listing, {}, parts=[stage_run(stage="episodes", dataset=ds, chunk=0)])
    lake.publish(stage_run(dataset=ds), {"frames": frames(ds)})
    state_before = state(lake)
    with pytest.raises(LakeError, match=f"the source of {ds} has lost chunk 1 meanwhile"):
        lake.publish(stage_run(dataset=ds, chunk=1), {"frames": frames(ds, 1, (10,))})
    assert state(lake) == state_before


def test_what_is_asked_once_is_asked_again_after_a_commit(lake, ds):
    def count() -> int:
        tables = "outcomes SELECT dataset UNION ALL FROM findings SELECT dataset"
        return lake.rows(f"SELECT count(*) FROM (FROM {tables}) WHERE dataset = ?", [ds])[0][0]

    outcome_rows = [{"dataset": ds, "episode_index": 0, "success": True}]
    assert [lake.once(ds, count), lake.once(ds, lambda: -1)] == [0, 0]
    other_lake = Lake(lake.workspace)
    say(other_lake, "outcome", lambda: outcome_rows)
    other_lake.con.close()
    assert [lake.once(ds, count), lake.once(ds, lambda: -1)] == [1, 1]
    assert ds in lake.datasets_in("outcome")
    # What a transaction has written and takes back was never so
    counts = []

    def take_back() -> None:
        with lake.transaction("taken back"):
            lake.con.execute("INSERT INTO findings (dataset) VALUES (?)", [ds])
            counts.append(lake.once(ds, count))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_back()
    assert [*counts, lake.once(ds, count)] == [2, 1]


def test_a_commit_that_fails_says_why(lake, ds, monkeypatch):
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
