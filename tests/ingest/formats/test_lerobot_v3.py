"""LeRobot v3.0: many episodes in one file, and pointers that are not always right."""

import shutil
from pathlib import Path

from ingest.episode import Listing
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_info,
    edit_parquet,
    episode_rows,
    said,
    shown,
    source_of,
    v3_data,
    v3_meta,
    write_parquet,
    write_v3,
)

LENGTHS = [7, 9, 5, 6, 8, 11]


def frames_of(source: Source, listing: Listing, camera: str) -> list[list[tuple[int, int, int]]]:
    return [shown(source, r, camera) for r in listing.records]


# Video pointers


def test_null_pointers_of_a_whole_camera_are_said_once(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 2, WRIST: 2})
    edit_parquet(v3_meta(root), **{f"videos/{WRIST}/file_index": None})
    listing = list_episodes(source_of(root))
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("bad_video_pointer", "warning", None)
    assert finding.detail == f"2 episodes: no file or start time of {WRIST} in the metadata"


def test_pointers_that_were_never_reset(tmp_path: Path) -> None:
    """Three episodes point at the same beginning of one file: which of them it shows is not known."""
    root = write_v3(tmp_path, [6, 7, 8, 9], cameras={FRONT: 4, WRIST: 1})
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/from_timestamp": [0.0, 0.0, 0.0, 2.1]})
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing, reason="bad_video_pointer") == [("bad_video_pointer", "warning", e, FRONT) for e in range(3)]
    assert [r.cameras for r in listing.records] == [[WRIST], [WRIST], [WRIST], [FRONT, WRIST]]
    assert frames_of(source, listing, WRIST)[1] == [(1, 1, k) for k in range(7)]


def test_frames_claimed_twice(tmp_path: Path) -> None:
    """More rows than there is video before the next episode begins; a third one stands within the first."""
    root = write_v3(tmp_path, [6, 7, 8, 9], cameras={FRONT: 4})
    starts = {f"videos/{FRONT}/from_timestamp": [0.0, 0.5, 3.0, 2.1], f"videos/{FRONT}/to_timestamp": None}
    edit_parquet(v3_meta(root), **starts)
    listing = list_episodes(source_of(root))
    uri = f"videos/{FRONT}/chunk-000/file-000.mp4"
    assert [(f.reason, f.severity, f.episode_index, f.detail) for f in listing.findings] == [
        ("bad_video_pointer", "unusable", 0, f"claims frames of {uri} that episode 1 claims too"),
        ("bad_video_pointer", "unusable", 1, f"claims frames of {uri} that episode 0 claims too"),
    ]  # episode 2 begins where episode 3 ends
    edit_parquet(v3_meta(root), **starts | {f"videos/{FRONT}/from_timestamp": [0.0, 0.6, 2.9, 2.1]})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("bad_video_pointer", "unusable", e, FRONT) for e in (2, 3)]


def test_an_episode_within_another(tmp_path: Path) -> None:
    """Each that overlaps the long one is found, not only its neighbour."""
    root = write_v3(tmp_path, [20, 5, 5, 6], cameras={FRONT: 4})
    starts = {f"videos/{FRONT}/from_timestamp": [0.0, 0.2, 1.0, 2.0], f"videos/{FRONT}/to_timestamp": None}
    edit_parquet(v3_meta(root), **starts)
    assert [f[2] for f in said(list_episodes(source_of(root)))] == [0, 1, 2]


# Where files are


def test_videos_in_the_order_of_v2(tmp_path: Path) -> None:
    """videos/chunk-000/<camera>/file-000.mp4, whether info.json says so or not."""
    root = write_v3(tmp_path, LENGTHS)
    (root / "videos/chunk-000").mkdir()
    shutil.move(root / f"videos/{FRONT}/chunk-000", root / f"videos/chunk-000/{FRONT}")
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == [("path_template", "warning", None, None)]
    assert frames_of(source, listing, FRONT)[4] == [(0, 4, k) for k in range(8)]
    edit_info(root, video_path="videos/chunk-{chunk_index:03d}/{video_key}/file-{file_index:03d}.mp4")
    assert said(list_episodes(source_of(root))) == []


# Rows


def test_rows_that_do_not_say_their_episode(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], per_data_file=1)
    edit_parquet(v3_data(root, 1), episode_index=None)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None), ("no_data", "unusable", 1, None)]
    assert listing.findings[0].detail == "it has no column episode_index of whole numbers"


def test_rows_that_do_not_stand_together(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7, 8], per_data_file=3)
    columns = episode_rows(1, 4, 10, 0)
    write_parquet(v3_data(root, 1), columns)
    listing = list_episodes(source_of(root))
    assert said(listing, severity="unusable") == [("row_order", "unusable", 1, None)]


# Metadata


def test_stray_files_are_left_out(tmp_path: Path) -> None:
    """A second table of episodes beside the real one."""
    root = write_v3(tmp_path, [6, 7])
    write_parquet(root / "meta/episodes/episodes.parquet", {"episode_index": [0, 1, 2, 3], "length": [1, 1, 1, 1]})
    write_parquet(root / "data/chunk-000/notes.parquet", episode_rows(9, 3, 10, 0))
    listing = list_episodes(source_of(root))
    assert said(listing) == [("stray_file", "warning", None, None)]
    assert [r.num_rows for r in listing.records] == [6, 7]


def test_rows_that_a_file_should_hold(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], per_data_file=1)
    (root / "data/chunk-000/file-001.parquet").unlink()
    (lost,) = list_episodes(source_of(root)).findings
    assert (lost.reason, lost.episode_index, lost.file) == ("no_data", 1, "data/chunk-*/file-*.parquet")
    edit_parquet(v3_meta(root), **{"data/chunk_index": [0, 0], "data/file_index": [0, 1]})
    (lost,) = list_episodes(source_of(root)).findings
    assert (lost.detail, lost.file) == (f"no rows; looked for {lost.file}", "data/chunk-000/file-001.parquet")
