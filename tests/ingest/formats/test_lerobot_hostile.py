"""LeRobot datasets that claim too much, reach too far or hold what no table can keep."""

import os
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.formats.numbers import vectors
from ingest.limits import LIMITS
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import (
    edit_info,
    edit_parquet,
    episode_rows,
    said,
    source_of,
    v2_data,
    v3_data,
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
    reason = "over_limit" if content is None else "unreadable_data"
    assert said(listing)[0] == (reason, "warning", None, None)
    assert said(listing, severity="unusable") == []
    assert [r.num_rows for r in listing.records] == [6]


@pytest.mark.parametrize("fps", [1e308, 1e-320, 2**70, 10**400, -5, 1001])
def test_rates_that_cannot_be_right(tmp_path: Path, fps: float) -> None:
    root = write_v2(tmp_path, [6])
    edit_info(root, fps=fps)
    assert said(list_episodes(source_of(root))) == [("no_metadata", "unusable", None, None)]


def test_tables_of_metadata_that_claim_too_much(tmp_path: Path) -> None:
    """So many equal rows that the file is small."""
    root = write_v3(tmp_path, [6, 7])
    many = LIMITS.max_rows + 1
    write_parquet(root / "meta/tasks.parquet", {"task_index": np.zeros(many, np.int64), "task": pa.repeat("x", many)})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("over_limit", "warning", None, None)]
    assert [r.task for r in listing.records] == ["pick the cup"] * 2  # as the episodes' metadata has it


@pytest.mark.parametrize("index", [-1, 2**31, 2**62])
def test_episodes_with_numbers_that_are_none(tmp_path: Path, index: int) -> None:
    """Rows and metadata of such an episode are left out; the others count."""
    root = write_v3(tmp_path, [6, 7])
    edit_parquet(v3_data(root, 0), episode_index=[0] * 6 + [index] * 7)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None), ("no_data", "unusable", 1, None)]
    assert [r.episode_index for r in listing.records] == [0, 1]


def test_columns_that_are_there_twice(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    table = pa.table(episode_rows(0, 6, 10, 0))
    pq.write_table(table.append_column("action", table["action"]), v2_data(root, 0))
    source = source_of(root)
    (record,) = list_episodes(source).records
    with pytest.raises(DataError, match="column action is there 2 times"):
        read_episode(source, record)


@pytest.mark.parametrize("type_", [pa.list_(pa.float64()), pa.list_(pa.float64(), 0)])
def test_vectors_of_no_dimension(type_: Any) -> None:
    assert vectors(pa.chunked_array([pa.array([[], []], type_)]), "timestamp") is None


# Small files that take all memory or time


def test_more_rows_than_bytes(tmp_path: Path) -> None:
    """Equal rows take no room: a file could have them read for hours."""
    root = write_v3(tmp_path, [6, 7])
    many = 400_000
    write_parquet(v3_data(root, 1), {name: np.zeros(many, np.int64) for name in ("episode_index", "task_index")})
    listing = list_episodes(source_of(root))
    [finding] = [f for f in listing.findings if f.reason == "over_limit"]
    assert "400,000 rows in" in finding.detail


@pytest.mark.parametrize(
    "template", ["data/" + "{chunk_index}{file_index}" * 4 + "x.parquet", "data/{file_index}1.parquet"]
)
def test_path_templates_are_not_tried_for_ever(tmp_path: Path, template: str) -> None:
    """A name of 220 digits could be parted into eight numbers in ten thousand million ways."""
    root = write_v3(tmp_path, [6, 7])
    edit_info(root, data_path=template)
    (root / "data" / ("1" * 220 + ".txt")).write_text("")
    began = monotonic()
    listing = list_episodes(source_of(root))
    assert monotonic() - began < 5
    assert [r.num_rows for r in listing.records] == [6, 7]
    assert ("path_template", "warning", None, None) in said(listing)
