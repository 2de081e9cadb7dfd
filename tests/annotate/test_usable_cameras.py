"""Which cameras and episodes the frames stage finds usable, from listing to decoded frames."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from annotate.frames import FramesConfig, FramesResult, frames_stage
from ingest.signals.gripper import GripperSignal
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_parquet,
    number,
    said,
    source_of,
    v2_data,
    v2_video,
    v3_video,
    write_v2,
    write_v3,
    write_video,
)


def measure(
    source: Source, episodes: Sequence[int] | None = None, signals: Sequence[GripperSignal] = ()
) -> FramesResult:
    """The frames stage over what listing leaves, as a build does it."""
    listing = list_episodes(source)
    lost = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    records = [r for r in listing.records if r.episode_index not in lost]
    asked = [r for r in records if episodes is None or r.episode_index in episodes]
    return frames_stage(source, asked, 0, FAST, keep, signals=signals)


FAST = FramesConfig(keyframe_interval_s=100)


def keep(sha256: str, jpeg: bytes) -> None:
    assert (len(sha256), jpeg[:2]) == (64, b"\xff\xd8")


def usable(result: FramesResult) -> dict[int, tuple[int, list[str]]]:
    """Frames and cameras of each usable episode."""
    rows = result.tables["episode_content"].to_pylist()
    return {r["episode_index"]: (r["num_frames"], r["usable_cameras"]) for r in rows}


@pytest.mark.parametrize("frames", [1, 6, 8, 30])
def test_another_number_of_frames_than_rows(tmp_path: Path, frames: int) -> None:
    root = write_v2(tmp_path, [7, 7], cameras=[FRONT, WRIST])
    for episode, camera in ((0, WRIST), (1, FRONT), (1, WRIST)):
        write_video(v2_video(root, camera, episode), [number(0, episode, k) for k in range(frames)])
    result = measure(source_of(root))
    assert usable(result) == {0: (7, [FRONT])}
    assert said(result.findings) == [
        ("frame_count", "warning", 0, WRIST),
        ("frame_count", "unusable", 1, FRONT),
        ("frame_count", "unusable", 1, WRIST),
    ]
    assert {f.detail for f in result.findings} == {f"{frames} frames decoded, the episode has 7 rows"}


def test_a_shared_video_with_fewer_frames_than_its_episodes_claim(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7, 8, 9], cameras={FRONT: 4})
    pictures = [number(0, e, k) for e, n in enumerate((6, 7, 8)) for k in range(n)]
    write_video(v3_video(root, FRONT, 0), pictures[:-2])
    result = measure(source_of(root))
    assert usable(result) == {0: (6, [FRONT]), 1: (7, [FRONT])}
    assert [(f.reason, f.severity, f.episode_index, f.detail) for f in result.findings] == [
        ("frame_count", "unusable", 2, "6 frames decoded, the episode has 8 rows"),
        ("frame_count", "unusable", 3, "0 frames decoded, the episode has 9 rows"),
    ]


def test_rows_that_break_after_listing(tmp_path: Path) -> None:
    """Rows are read again when frames are measured: what is wrong then is a finding, and the others go on."""
    root = write_v2(tmp_path, [6, 6, 6])
    source = source_of(root)
    listing = list_episodes(source)
    edit_parquet(v2_data(root, 0), **{"observation.state": [[1.0], [2.0, 3.0, 4.0]] + [[1.0, 2.0]] * 4})
    shutil.copy(v2_data(write_v2(tmp_path / "b", [5]), 0), v2_data(root, 1))
    result = frames_stage(source, listing.records, 0, FAST, keep)
    assert usable(result) == {2: (6, [FRONT])}
    assert said(result.findings) == [("unreadable_data", "unusable", e, None) for e in range(2)]
    assert result.findings[0].detail == "column observation.state: rows of different length"
