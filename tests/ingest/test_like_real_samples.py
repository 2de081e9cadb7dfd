"""Datasets with the quirks of real ones whose bytes may not be committed, all of a set at once: exact counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.source import list_episodes
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_info,
    edit_parquet,
    features,
    said,
    source_of,
    v2_data,
    v2_video,
    v3_meta,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.real_data import kinds, measured, usable


def test_two_arms_that_fold_a_cloth(tmp_path: Path) -> None:
    """v2.1 without statistics of episodes; wall-clock times; a camera that saw nothing once; videos that are gone."""
    root = write_v2(tmp_path, [40, 44, 48, 50], cameras=(FRONT, WRIST), fps=20, codec="mpeg4")
    (root / "meta/episodes_stats.jsonl").unlink()
    (root / "meta/stats.json").write_text("{}")
    channel_first = {"dtype": "video", "shape": [3, 64, 64], "names": ["channel", "height", "width"]}
    edit_info(
        root,
        data_path="data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{chunk_index:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        features=features([], 20) | dict.fromkeys((FRONT, WRIST), channel_first),
    )
    for episode, length in enumerate((40, 44, 48, 50)):
        clock = np.cumsum(np.full(length, 1 / 18.5)) - 1 / 18.5
        edit_parquet(v2_data(root, episode), timestamp=clock.astype(np.float32), task_index=None)
    write_video(v2_video(root, FRONT, 0), [np.zeros((64, 64, 3), np.uint8)] * 40, "mpeg4", 20)
    for camera in (FRONT, WRIST):
        v2_video(root, camera, 2).unlink()
    source = source_of(root)
    listing = list_episodes(source)
    assert (listing.format, listing.cameras, len(listing.records)) == ("lerobot_v2.1", (FRONT, WRIST), 4)
    assert kinds(listing) == {("no_video", "unusable", None): 1}
    assert [r.episode_index for r in usable(listing)] == [0, 1, 3]
    assert {r.task for r in listing.records} == {"pick the cup"}
    result = measured(source, usable(listing))
    assert said(result.findings, episode_index=0) == [
        ("black_video", "warning", 0, FRONT),
        ("frame_rate", "warning", 0, None),
    ]
    assert [f.episode_index for f in result.findings if f.reason == "frame_rate"] == [0, 1, 3]
    content = result.tables["episode_content"].to_pylist()
    assert [c["usable_cameras"] for c in content] == [[WRIST], [FRONT, WRIST], [FRONT, WRIST]]
    assert [c["num_frames"] for c in content] == [40, 44, 50]
    assert [round(c["fps"], 1) for c in content] == [18.5] * 3
    assert max(c["max_drift_s"] for c in content) < 0.021
    assert result.decoded_frames == 2 * (40 + 44 + 50)


def test_rows_whose_videos_were_never_committed(tmp_path: Path) -> None:
    """v3.0 that is whole but for `videos/`: rows and tasks are known, and nothing can be used."""
    root = write_v3(tmp_path, [6, 7, 8], tasks=("Put the grape on the white plate.",))
    for video in root.rglob("*.mp4"):
        video.unlink()
    listing = list_episodes(source_of(root))
    assert (listing.format, listing.cameras) == ("lerobot_v3.0", ())
    assert said(listing) == [("no_video", "unusable", e, None) for e in range(3)]
    assert [r.num_rows for r in listing.records] == [6, 7, 8]
    assert [r.data_uri for r in listing.records] == [f"data/chunk-000/file-00{k}.parquet" for k in (0, 0, 1)]
    assert {r.task for r in listing.records} == {"Put the grape on the white plate."}


def test_videos_without_rows(tmp_path: Path) -> None:
    """v3.0 with a video per episode in the order of v2, no data, and two tables of episodes, one with columns twice."""
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 1, WRIST: 1})
    for data in (root / "data").rglob("*.parquet"):
        data.unlink()
    (root / "videos/chunk-000").mkdir()
    for camera in (FRONT, WRIST):
        (root / f"videos/{camera}/chunk-000").rename(root / f"videos/chunk-000/{camera}")
    edit_info(
        root,
        data_path="data/train/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{chunk_index:03d}/{video_key}/file-{file_index:03d}.mp4",
    )
    twice = pa.Table.from_arrays([pa.array([0, 1]), *[pa.array([6, 7])] * 2], ["episode_index", "length", "length"])
    pq.write_table(twice, root / "meta/episodes/episodes.parquet")
    edit_parquet(v3_meta(root), **{f"videos/{c}/file_index": pa.array([0, 0]) for c in (FRONT, WRIST)})
    listing = list_episodes(source_of(root))
    assert (listing.format, len(listing.records), usable(listing)) == ("lerobot_v3.0", 2, [])
    assert said(listing, severity="unusable") == [("no_data", "unusable", e, None) for e in range(2)]
    assert said(listing, severity="warning") == [("stray_file", "warning", None, None)]
