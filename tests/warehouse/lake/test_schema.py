"""What the schema says of itself, the limits of a query, and the ways in from notebooks and from DuckDB."""

import shutil
from pathlib import Path

import duckdb
import pytest

import warehouse
from core.errors import SqlError, UserError
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, opened, stage_run
from warehouse.lake.connection import extension_path
from warehouse.lake.schema import columns, unit
from warehouse.lake.sql import attach_lines, open_for_users


@pytest.fixture(scope="module")
def lake_with_frames(tmp_path_factory, empty_corpus: Path) -> Workspace:
    """A corpus with five frames of the dataset `a`; not for changing."""
    workspace = Workspace(
        shutil.copytree(empty_corpus, tmp_path_factory.mktemp("schema") / "corpus")
    )
    with opened(workspace) as lake:
        lake.publish(stage_run(), {"frames": frames(n=5)})
    return workspace


def test_units_and_types():
    docs_by_column = {
        d.column: d for d in columns(["frames", "keyframes", "vlm_calls", "coverage"])
    }
    assert (docs_by_column["timestamp_s"].unit, docs_by_column["width_px"].unit, docs_by_column["cost_usd"].unit) == (
        "seconds", "pixels", "US dollars",
    )  # fmt: skip
    assert (docs_by_column["hours"].unit, docs_by_column["hours"].type) == ("hours", "DOUBLE")
    assert unit("task") == ""
    with pytest.raises(
        UserError, match="no table or view 'frame'; there are: acceptances, active_outcomes, "
    ):
        columns(["frame"])


def test_no_sum_is_stored_as_a_hugeint(lake_with_frames):
    """sum() of whole numbers gives it; DuckLake 1.5.5 keeps it exactly until it is flushed to Parquet as a double."""
    with opened(lake_with_frames) as lake:
        types = lake.rows("SELECT table_name, column_name, data_type FROM duckdb_columns()")
    stored = [row for row in types if row[0] in TABLES]
    assert len({table for table, _, _ in stored}) == len(TABLES)
    assert [row for row in stored if "HUGEINT" in row[2]] == []


def test_examples_are_values_of_the_corpus(lake_with_frames):
    con = open_for_users(lake_with_frames)
    examples = {
        (d.relation, d.column): d.example for d in columns(["frames", "active_progress"], con)
    }
    assert examples["frames", "dataset"] == "a"
    assert examples["active_progress", "progress"] == "", "there is no progress yet"


def test_a_notebook_connects_for_reading(lake_with_frames, monkeypatch):
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(lake_with_frames.root))
    with warehouse.connect() as con:
        assert con.execute("SELECT count(*) FROM frames").fetchall() == [(5,)]
        for refused in (
            "DELETE FROM frames",
            "SELECT * FROM '/etc/passwd'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                con.execute(refused)
    with pytest.raises(SqlError, match="there is no release 'v9'"):
        warehouse.connect(lake_with_frames.root, release="v9")
    with warehouse.connect(str(lake_with_frames.root), snapshot=1) as con:
        assert con.execute("SELECT count(*) FROM frames").fetchall() == [(0,)]


def test_duckdbs_own_users_can_attach(lake_with_frames):
    lines = attach_lines(lake_with_frames)
    # Without a network
    for name, package in (("ducklake", "ducklake"), ("sqlite", "sqlite_scanner")):
        lines = lines.replace(f"INSTALL {name};", f"LOAD '{extension_path(package)}';")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as con:
        con.execute(lines)
        assert con.execute("SELECT count(*) FROM frames").fetchall() == [(5,)]
        with pytest.raises(duckdb.Error, match="read-only"):
            con.execute("DELETE FROM frames")
    assert "SNAPSHOT_VERSION 3" in attach_lines(lake_with_frames, 3)
