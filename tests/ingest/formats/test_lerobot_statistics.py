"""Stored statistics of LeRobot datasets that are unreadable or odd are told, and cost no
episode."""

from pathlib import Path

import pytest

from annotate.config import FramesConfig
from annotate.frames import frames_stage
from ingest.source import list_episodes
from tests.kits import lerobot_writer as le
from tests.kits.lerobot_writer import source_of


def stale(root: Path) -> list[str]:
    source = source_of(root)
    records = list_episodes(source).records
    measured = frames_stage(
        source, records, 0, FramesConfig(keyframe_interval_s=1e9), lambda sha256, jpeg: None
    )
    assert measured.tables["episode_content"].num_rows == len(records)
    return [finding.detail for finding in measured.findings if finding.reason == "stale_statistics"]


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    le.write_v2(tmp_path, (6, 7, 8))
    (tmp_path / "meta/stats.json").write_text('{"observation.state": {"min": [')
    details = stale(tmp_path)
    assert len(details) == 3
    assert all("cannot be told: meta/stats.json" in detail for detail in details)


@pytest.mark.parametrize(
    "line",
    [
        '{"episode_index": [0], "stats": {}}',
        '{"episode_index": 0, "stats": [1]}',
        '{"episode_index": 0, "stats": {"observation.state": {"min": "low", "max": [1], "mean": [1], "std": [1]}}}',
        '{"episode_index": 0, "stats": {"observation.state": {"min": [0], "max": [[1]], "mean": [1], "std": [1]}}}',
    ],
)
def test_odd_lines_say_nothing_and_cost_nothing(line, tmp_path):
    le.write_v2(tmp_path, (6, 7, 8))
    (tmp_path / "meta/episodes_stats.jsonl").write_text(line + "\n")
    assert stale(tmp_path) == []
