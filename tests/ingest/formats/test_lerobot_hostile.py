"""LeRobot datasets that claim too much, reach too far or hold what no table can keep."""

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.reasons import DataError
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
    v3_meta,
    write_v2,
    write_v3,
)


@pytest.mark.parametrize("fps", [1e308, 1e-320, 2**70, 10**400, -5, 1001])
def test_rates_that_cannot_be_right(tmp_path: Path, fps: float) -> None:
    root = write_v2(tmp_path, [6])
    edit_info(root, fps=fps)
    assert said(list_episodes(source_of(root))) == [("no_metadata", "unusable", None, None)]


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


def test_more_episodes_than_the_limit(tmp_path: Path) -> None:
    """A million that are nowhere took a minute to list. Those of the metadata count, and those that have rows."""
    root = write_v3(tmp_path, [6, 7])
    listing = list_episodes(source_of(root, limits={"max_episodes": 1}))
    assert (said(listing), listing.records) == ([("over_limit", "unusable", None, None)], ())
    assert "episodes that the metadata lists: 2, over the limit of 1 (limits.max_ep" in listing.findings[0].detail
    v3_meta(root).unlink()
    listing = list_episodes(source_of(root, limits={"max_episodes": 1}))
    assert [f.detail for f in listing.findings if f.reason == "over_limit"] == [
        "episodes that have rows: 2, over the limit of 1 (limits.max_episodes of the registry entry)"
    ]
    assert len(list_episodes(source_of(root, limits={"max_episodes": 2})).records) == 2


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


# Small files that take all memory or time
