"""What takes too much is a finding, and the next one goes on."""

import resource
from pathlib import Path
from typing import Any

import pytest

from annotate.frames import FramesConfig, frames_stage
from core.wall import memory_wall
from ingest.limits import Limits
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.hostile_video import large_pictures
from tests.kits.lerobot_writer import write_video


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_memory_bytes": 1 << 26}, "memory"),
        ({"max_cpu_s": 0.05, "max_cpu_s_per_mb": 0}, "a.mov: its pictures take more than 0 s of CPU"),
    ],
)
def test_the_next_episode_goes_on(tmp_path: Path, limits: dict[str, Any], words: str) -> None:
    large_pictures(tmp_path / "a.mov", 5000)
    write_video(tmp_path / "b.mp4", range(6))
    source = Source(DatasetConfig(name="d", source=str(tmp_path), fps=10, limits=Limits(**limits)))
    records = list_episodes(source).records
    measured = frames_stage(source, records, 0, FramesConfig(), lambda sha256, jpeg: None)
    [finding] = measured.findings
    assert (finding.reason, finding.episode_index) == ("too_costly", 0)
    assert words in finding.detail
    assert measured.tables["episode_content"]["episode_index"].to_pylist() == [1]


def test_walls_stand_as_long_as_their_work() -> None:
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_wall(1 << 30):
        with pytest.raises(MemoryError), memory_wall(1 << 26):
            bytearray(1 << 28)
        bytearray(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual
