"""A chunk's rows in memory: they are those of the lake, also after a stage has published; nothing is read twice."""

from typing import Any

import pytest

from core.tables import TABLES
from tests.kits.lake_kit import findings, frames, segments, stage_run
from warehouse.lake import Lake
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.publication import StageRun

RUNS = ("r1", "r2")


def segments_run(ds: str, label_run: str) -> StageRun:
    return stage_run(stage="segments", dataset=ds, label_run=label_run)


def run_rows(label_run: str) -> dict[str, Any]:
    return {"label_runs": TABLES["label_runs"].rows([{"label_run": label_run}])}


@pytest.fixture
def published(lake: Lake, ds: str) -> Lake:
    """Frames of two chunks, and segments of two label runs, which found something of two episodes."""
    for chunk, episodes in ((0, (0, 1)), (1, (10,))):
        run = stage_run(dataset=ds, chunk=chunk)
        lake.publish(run, {"frames": frames(ds, chunk, episodes)})
    for label_run in RUNS:
        new_findings = findings((1, 0, "segments", f"found_by_{label_run}", "warning"), dataset=ds)
        tables = {"segments": segments(ds, label_run=label_run, episodes=(0, 1))}
        lake.publish(
            segments_run(ds, label_run), tables, new_findings, registered=run_rows(label_run)
        )
    return lake


def lake_rows(lake: Lake, name: str, ds: str) -> list[tuple]:
    where = f"WHERE dataset = '{ds}' AND chunk = 0" if "chunk" in TABLES[name].schema.names else ""
    return lake.rows(f"FROM {name} {where} ORDER BY ALL")


@pytest.mark.parametrize("is_read_before", [True, False])
def test_what_a_stage_publishes_takes_the_place_of_its_partition(
    published: Lake, ds: str, is_read_before: bool
) -> None:
    names = ("frames", "segments", "findings", "label_runs", "active_runs")
    rows = ChunkRows(published, ds, 0)
    if is_read_before:
        assert len(rows.rows("FROM frames")) == 8  # of chunk 0 alone
        assert len(rows.rows("FROM segments")) == len(lake_rows(published, "segments", ds))
    for run, tables in (
        (stage_run(dataset=ds), {"frames": frames(ds, episodes=(1,), value=0.7)}),
        (segments_run(ds, "r2"), {"segments": segments(ds, label_run="r2", name="lift")}),
        (segments_run(ds, "r3"), {"segments": segments(ds, label_run="r3", name="push")}),
    ):
        new_findings = findings((0, 0, run.stage, "found_later", "warning"), dataset=ds)
        registered = run_rows(run.label_run) if run.label_run else {}
        published.publish(run, tables, new_findings, registered=registered)
        rows.take(run, tables | {"findings": new_findings}, registered)
        for name in names:
            assert rows.rows(f"FROM {name} ORDER BY ALL") == lake_rows(published, name, ds), name
    names_of_steps = {name for (name,) in rows.rows("SELECT DISTINCT name FROM segments")}
    assert {"reach", "lift", "push"} <= names_of_steps


def test_a_view_follows_its_tables(published: Lake, ds: str) -> None:
    rows = ChunkRows(published, ds, 0)
    assert rows.rows("FROM active_segments") == []
    run = stage_run(stage="progress", dataset=ds, label_run="r1")
    key = {"dataset": ds, "chunk": 0, "episode_index": 0, "label_run": "r1", "why": "it"}
    tables = {"active_runs": TABLES["active_runs"].rows([key])}
    published.publish(run, tables)
    rows.take(run, tables, {})
    sql = f"FROM active_segments WHERE dataset = '{ds}' ORDER BY ALL"
    assert rows.rows(sql) == published.rows(sql) != []


def test_a_table_is_read_once_and_not_where_no_stage_has_rows(
    published: Lake, ds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ChunkRows(published, ds, 0)
    queries = list[str]()

    def arrow(sql: str) -> Any:
        queries.append(sql.split()[1])
        return Lake.arrow(published, sql)

    monkeypatch.setattr(published, "arrow", arrow)
    for _ in range(2):
        assert rows.rows("SELECT count(*) FROM frames JOIN segments USING (episode_index)") != []
        assert rows.rows("FROM samples") == []  # nobody made any
    assert queries == ["frames", "segments"]
    assert rows.input_hashes.keys() == {"frames", "segments"}

    rows.forget(["frames"])
    run = stage_run(dataset=ds)
    published.publish(run, {"frames": frames(ds, episodes=(1,))})
    assert len(rows.rows("FROM frames")) == 4
    assert queries == ["frames", "segments", "frames"]
