"""LeRobot v2.0 and v2.1: one data file and one video per episode, and what datasets in the wild do to that."""

from pathlib import Path

import pytest

from ingest.source import list_episodes
from tests.kits.lerobot_writer import (
    FRONT,
    edit_info,
    edit_parquet,
    said,
    shown,
    source_of,
    v2_data,
    v2_video,
    write_json_lines,
    write_v2,
)

# Where files are


def test_own_template(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    (root / "films").mkdir()
    for e in range(2):
        v2_video(root, FRONT, e).rename(root / f"films/{FRONT}_{e}.mp4")
    edit_info(root, video_path="films/{video_key}_{episode_index}.mp4")
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == []
    assert shown(source, listing.records[1], FRONT) == [(0, 1, k) for k in range(7)]


# Rows


def test_a_table_of_no_rows(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    nothing = dict.fromkeys(("observation.state", "action", "timestamp", "frame_index", "episode_index"))
    edit_parquet(v2_data(root, 0), **nothing, task_index=[])
    listing = list_episodes(source_of(root))
    assert said(listing, severity="unusable") == [("no_data", "unusable", 0, None)]


# Metadata


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"\xff\xfe{", "meta/info.json is not UTF-8"),
        ('{"fps": 10}', "meta/info.json has no features"),
        ('{"features": {}}', "meta/info.json has no fps"),
        ('{"features": {}, "fps": NaN}', "meta/info.json has no fps"),
        ('{"features": {}, "fps": true}', "meta/info.json has no fps"),
    ],
)
def test_info_that_cannot_be_used(tmp_path: Path, content: str | bytes, detail: str) -> None:
    root = write_v2(tmp_path, [6])
    (root / "meta/info.json").write_bytes(content.encode() if isinstance(content, str) else content)
    listing = list_episodes(source_of(root))
    assert (listing.records, listing.cameras, listing.format) == ((), (), "lerobot")
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("no_metadata", "unusable", None)
    assert finding.detail.startswith(detail)


# Tasks


def test_task_table_that_is_odd(tmp_path: Path) -> None:
    """A null text is no task, and a line separator inside a text does not end the line."""
    root = write_v2(tmp_path, [6, 7, 8], tasks=["a", "b", "c"])
    rows = ['{"task_index": 0, "task": null}', '{"task_index": 1.0, "task": "two\u2028lines"}', '{"task": "x"}']
    (root / "meta/tasks.jsonl").write_text("\n".join(rows))
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": e, "tasks": []} for e in range(3)])
    listing = list_episodes(source_of(root))
    assert [r.task for r in listing.records] == [None, "two\u2028lines", None]
    assert said(listing) == [("no_task", "warning", 0, None), ("no_task", "warning", 2, None)]
