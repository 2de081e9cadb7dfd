"""LeRobot datasets that claim too much, reach too far or hold what no table can keep."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import RowsError
from ingest.formats.lerobot_meta import MAX_META_ROWS
from ingest.formats.lerobot_rows import MAX_ROWS, vector
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import (
    FRONT,
    edit_info,
    edit_parquet,
    episode_rows,
    said,
    shown,
    source_of,
    v2_data,
    v3_data,
    write_json_lines,
    write_parquet,
    write_v2,
    write_v3,
)

DEEP = "[" * 100_000


def grow(path: Path) -> None:
    os.truncate(path, 1 << 36)  # sparse: it takes no room


@pytest.mark.parametrize("file", ["info.json", "tasks.jsonl", "episodes.jsonl"])
@pytest.mark.parametrize("content", [DEEP, '{"fps": 9, "features": {"\\ud800": {"dtype": "video"}}}', None])
def test_metadata_that_no_parser_survives(tmp_path: Path, file: str, content: str | None) -> None:
    """Nested without end, half a character, or larger than memory: one finding, and what else there is counts."""
    root = write_v2(tmp_path, [6])
    grow(root / f"meta/{file}") if content is None else (root / f"meta/{file}").write_text(content)
    listing = list_episodes(source_of(root))
    if file == "info.json":
        assert said(listing) == [("no_metadata", "unusable", None, None)]
        return
    assert said(listing)[0] == ("unreadable_data", "warning", None, None)
    assert said(listing, severity="unusable") == []
    assert [r.num_rows for r in listing.records] == [6]


@pytest.mark.parametrize("fps", [1e308, 1e-320, 2**70, 10**400, -5, 1001])
def test_rates_that_cannot_be_right(tmp_path: Path, fps: float) -> None:
    root = write_v2(tmp_path, [6])
    edit_info(root, fps=fps)
    assert said(list_episodes(source_of(root))) == [("no_metadata", "unusable", None, None)]


def test_values_of_the_wrong_type(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    edit_info(root, robot_type={"a": [1]})
    write_json_lines(root / "meta/tasks.jsonl", [])
    write_json_lines(
        root / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": 7}, {"episode_index": 1, "tasks": {}}]
    )
    listing = list_episodes(source_of(root))
    assert listing.robot is None
    assert said(listing) == [("no_task", "warning", 0, None), ("no_task", "warning", 1, None)]


@pytest.mark.parametrize(
    "template",
    [
        "{video_key}/{episode_index:99999999d}.mp4",
        "{video_key:>99999999}.mp4",
        "{video_key!r:99999999}",
        "{video_key.__class__.__mro__}",
        "{0}{1}",
        "{",
    ],
)
def test_path_templates_are_not_trusted(tmp_path: Path, template: str) -> None:
    """Nothing is looked into, and no name is filled up to any length."""
    root = write_v2(tmp_path, [6])
    edit_info(root, video_path=template)
    tracemalloc.start()
    listing = list_episodes(source_of(root))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said(listing) == [("path_template", "warning", None, None)]
    assert shown(source_of(root), listing.records[0], FRONT) == [(0, 0, k) for k in range(6)]
    assert peak < 50_000_000


def test_tables_of_metadata_that_claim_too_much(tmp_path: Path) -> None:
    """So many equal rows that the file is small."""
    root = write_v3(tmp_path, [6, 7])
    many = MAX_META_ROWS + 1
    write_parquet(root / "meta/tasks.parquet", {"task_index": np.zeros(many, np.int64), "task": pa.repeat("x", many)})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None)]
    assert [r.task for r in listing.records] == ["pick the cup"] * 2  # as the episodes' metadata has it


def test_tables_of_metadata_with_long_texts(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7])
    text = pa.repeat("x" * 100_000, 2000)
    write_parquet(root / "meta/tasks.parquet", {"task_index": np.arange(2000), "task": text})
    assert said(list_episodes(source_of(root))) == [("unreadable_data", "warning", None, None)]


def test_texts_that_are_no_text(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7])
    wrong = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xe1"))
    write_parquet(root / "meta/tasks.parquet", {"task_index": [0], "task": wrong})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None)]
    assert listing.findings[0].file == "meta/tasks.parquet"


@pytest.mark.parametrize("index", [-1, 2**31, 2**62])
def test_episodes_with_numbers_that_are_none(tmp_path: Path, index: int) -> None:
    """Rows and metadata of such an episode are left out; the others count."""
    root = write_v3(tmp_path, [6, 7])
    edit_parquet(v3_data(root, 0), episode_index=[0] * 6 + [index] * 7)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None), ("no_data", "unusable", 1, None)]
    assert [r.episode_index for r in listing.records] == [0, 1]


@pytest.mark.parametrize("index", [-1, 2**31, 2**52])
def test_listed_episodes_with_numbers_that_are_none(tmp_path: Path, index: int) -> None:
    root = write_v2(tmp_path, [6])
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": i, "tasks": ["x"]} for i in (0, index)])
    v2_data(root, 0).with_name("episode_99999999999999999999.parquet").write_bytes(b"")
    listing = list_episodes(source_of(root))
    assert (said(listing), [r.episode_index for r in listing.records]) == ([], [0])


def test_episodes_that_claim_too_much(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    rows = pa.table(episode_rows(1, 7, 10, 0)).take(pa.repeat(0, MAX_ROWS + 1))
    write_parquet(v2_data(root, 1), dict(zip(rows.schema.names, rows.columns, strict=True)))
    listing = list_episodes(source_of(root))
    assert said(listing, severity="unusable") == [("unreadable_data", "unusable", 1, None)]


def test_columns_that_are_there_twice(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    table = pa.table(episode_rows(0, 6, 10, 0))
    pa.parquet.write_table(table.append_column("action", table["action"]), v2_data(root, 0))
    source = source_of(root)
    (record,) = list_episodes(source).records
    with pytest.raises(RowsError, match="column action is there 2 times"):
        read_episode(source, record)


@pytest.mark.parametrize("type_", [pa.list_(pa.float64()), pa.list_(pa.float64(), 0)])
def test_vectors_of_no_dimension(type_: Any) -> None:
    assert vector(pa.table({"timestamp": pa.array([[], []], type_)}), ("timestamp",)) is None
