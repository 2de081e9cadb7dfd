"""LeRobot v3.0: many episodes in one file, and pointers that are not always right."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import Listing
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import (
    CODECS,
    FRONT,
    LFS_POINTER,
    WRIST,
    edit_info,
    edit_parquet,
    episode_rows,
    number,
    said,
    shown,
    source_of,
    v3_data,
    v3_meta,
    v3_video,
    write_info,
    write_parquet,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.signal_kit import places_of

LENGTHS = [7, 9, 5, 6, 8, 11]


def frames_of(source: Source, listing: Listing, camera: str) -> list[list[tuple[int, int, int]]]:
    return [shown(source, r, camera) for r in listing.records]


@pytest.mark.parametrize("codec", CODECS)
def test_every_episode_yields_its_own_frames(tmp_path: Path, codec: str) -> None:
    """Two cameras whose files are cut elsewhere than each other's and than those of the rows."""
    source = source_of(write_v3(tmp_path, LENGTHS, cameras={FRONT: 6, WRIST: 4}, per_data_file=2, codec=codec))
    listing = list_episodes(source)
    assert (listing.format, listing.cameras, said(listing)) == ("lerobot_v3.0", (FRONT, WRIST), [])
    assert [r.num_rows for r in listing.records] == LENGTHS
    assert [r.data_uri for r in listing.records][4:] == ["data/chunk-000/file-002.parquet"] * 2
    assert [r.row_start for r in listing.records] == [0, 7, 0, 5, 0, 8]
    assert [v.start_frame for v in listing.records[5].videos] == [35, 8]
    assert listing.records[5].videos[1].uri == f"videos/{WRIST}/chunk-000/file-001.mp4"
    for c, camera in enumerate((FRONT, WRIST)):
        assert frames_of(source, listing, camera) == [[(c, e, k) for k in range(n)] for e, n in enumerate(LENGTHS)]
    for r in listing.records:
        episode = read_episode(source, r)
        assert episode.state is not None
        assert episode.state[:, 0].tolist() == [r.episode_index] * (r.num_rows or 0)
        assert episode.state[:, 1].tolist() == list(range(r.num_rows or 0))


def test_version_is_what_is_on_disk(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 6])
    edit_info(root, codebase_version="v2.1")
    assert list_episodes(source_of(root)).format == "lerobot_v3.0"


def test_files_of_v2_left_beside(tmp_path: Path) -> None:
    root, old = write_v3(tmp_path / "a", [6, 7]), write_v2(tmp_path / "b", [9, 9, 9])
    shutil.copytree(old, root, dirs_exist_ok=True, ignore=lambda folder, names: {"info.json"} & set(names))
    edit_info(root, data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet")
    source = source_of(root)
    listing = list_episodes(source)
    assert [r.num_rows for r in listing.records] == [6, 7]
    assert said(listing, severity="unusable") == []
    assert frames_of(source, listing, FRONT) == [[(0, e, k) for k in range(n)] for e, n in enumerate([6, 7])]


@pytest.mark.parametrize("drift_s", [-0.004, 0.004])
def test_drift_of_start_times(tmp_path: Path, drift_s: float) -> None:
    """Durations summed as floats; a start is the nearest frame."""
    root = write_v3(tmp_path, LENGTHS, cameras={FRONT: 6})
    starts = np.r_[0, np.cumsum(LENGTHS)[:-1]] / 10 + drift_s * np.arange(6)
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/from_timestamp": starts, f"videos/{FRONT}/to_timestamp": None})
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == []
    assert frames_of(source, listing, FRONT) == [[(0, e, k) for k in range(n)] for e, n in enumerate(LENGTHS)]


def test_gaps_between_joined_recordings(tmp_path: Path) -> None:
    """Container durations one frame too long: times in the metadata and in the file agree, counts of frames do not."""
    root = write_v3(tmp_path, [6, 7, 8], cameras={FRONT: 3})
    starts = [0, 7, 15]
    times = [s + k for s, n in zip(starts, (6, 7, 8), strict=True) for k in range(n)]
    pictures = [number(0, e, k) for e, n in enumerate((6, 7, 8)) for k in range(n)]
    write_video(v3_video(root, FRONT, 0), pictures, times=times)
    columns = {"from_timestamp": [s / 10 for s in starts], "to_timestamp": None}
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/{n}": c for n, c in columns.items()})
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == []
    assert frames_of(source, listing, FRONT) == [[(0, e, k) for k in range(n)] for e, n in enumerate([6, 7, 8])]


@pytest.mark.parametrize("details", [{"video.fps": 10.0}, {"video.fps": None}, {"video.fps": 0}, None])
def test_registry_rate_does_not_move_the_frames(tmp_path: Path, details: dict | None) -> None:
    root = write_v3(tmp_path, LENGTHS)
    edit_info(root, features={FRONT: {"dtype": "video", "video_info": details}})
    source = source_of(root, fps=5)
    listing = list_episodes(source)
    assert (listing.fps, said(listing)) == (5.0, [])
    assert frames_of(source, listing, FRONT)[4] == [(0, 4, k) for k in range(8)]
    assert [t for _, t, _ in read_episode(source, listing.records[4]).frames(FRONT)][:3] == [0.0, 0.2, 0.4]


@pytest.mark.parametrize("rate", [8, 12])
def test_videos_that_play_at_another_rate_than_the_rows(tmp_path: Path, rate: int) -> None:
    root = write_v3(tmp_path, LENGTHS, fps=rate)
    edit_info(root, fps=10)
    source = source_of(root)
    listing = list_episodes(source)
    assert (listing.fps, said(listing)) == (10.0, [])
    assert frames_of(source, listing, FRONT) == [[(0, e, k) for k in range(n)] for e, n in enumerate(LENGTHS)]


# Video pointers


@pytest.mark.parametrize("null", [None, float("nan")])
@pytest.mark.parametrize("column", ["chunk_index", "file_index", "from_timestamp"])
def test_null_video_pointers(tmp_path: Path, null: float | None, column: str) -> None:
    """pandas writes a null among integers as NaN."""
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 2, WRIST: 2})
    name = f"videos/{WRIST}/{column}"
    edit_parquet(v3_meta(root), **{name: pa.array([0.0, null], pa.float64())})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("bad_video_pointer", "warning", 1, WRIST)]
    assert [r.cameras for r in listing.records] == [[FRONT, WRIST], [FRONT]]


@pytest.mark.parametrize("start_s", [-0.1, float("inf"), 1e300, 1e12])
def test_impossible_start_times(tmp_path: Path, start_s: float) -> None:
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 2, WRIST: 2})
    edit_parquet(v3_meta(root), **{f"videos/{WRIST}/from_timestamp": [0.0, start_s]})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("bad_video_pointer", "warning", 1, WRIST)]


def test_null_pointers_of_a_whole_camera_are_said_once(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 2, WRIST: 2})
    edit_parquet(v3_meta(root), **{f"videos/{WRIST}/file_index": None})
    listing = list_episodes(source_of(root))
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("bad_video_pointer", "warning", None)
    assert finding.detail == f"2 episodes: no file or start time of {WRIST} in the metadata"


def test_null_pointers_of_the_only_camera(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7])
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/file_index": pa.array([0, None])})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("bad_video_pointer", "unusable", 1, FRONT)]


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


def test_part_of_the_video_of_another_length_than_the_rows(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7, 8], cameras={FRONT: 3})
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/to_timestamp": [0.6, 1.3, 2.3]})
    listing = list_episodes(source_of(root))
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("length_differs", "warning", 2)
    assert (finding.camera, finding.detail) == (FRONT, "metadata gives it 10 frames of video, its rows are 8")


def test_missing_video_files(tmp_path: Path) -> None:
    root = write_v3(tmp_path, LENGTHS, cameras={FRONT: 3, WRIST: 2})
    v3_video(root, FRONT, 1).unlink()  # episodes 3, 4, 5
    v3_video(root, WRIST, 2).unlink()  # episodes 4, 5
    listing = list_episodes(source_of(root))
    assert said(listing) == [
        ("missing_camera", "warning", 3, FRONT),
        ("no_video", "unusable", 4, None),
        ("no_video", "unusable", 5, None),
    ]
    shutil.rmtree(root / "videos")
    listing = list_episodes(source_of(root))
    assert said(listing) == [("no_video", "unusable", e, None) for e in range(6)]
    files = [f"videos/{FRONT}/chunk-000/file-001.mp4", f"videos/{WRIST}/chunk-000/file-002.mp4"]
    assert {f.detail for f in listing.findings[4:]} == {f"no video file; looked for {', '.join(files)}"}
    assert listing.cameras == ()


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


def test_file_names_in_two_chunks_are_not_mixed_up(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], cameras={FRONT: 1})
    (root / "films").mkdir()
    for chunk, episode in enumerate((0, 1)):
        (root / f"films/{chunk}/{FRONT}").mkdir(parents=True)
        v3_video(root, FRONT, episode).rename(root / f"films/{chunk}/{FRONT}/file-000.mp4")
    edit_parquet(v3_meta(root), **{f"videos/{FRONT}/chunk_index": [0, 1], f"videos/{FRONT}/file_index": [0, 0]})
    listing = list_episodes(source_of(root))
    assert said(listing) == [("no_video", "unusable", e, None) for e in range(2)]


@pytest.mark.parametrize(
    ("template", "name", "warned"),
    [
        ("data/train/part-{file_index:02d}.parquet", "data/train/part-{:02d}.parquet", False),
        ("data/{nothing}.parquet", "data/some/where-{}.parquet", True),
        ("data/{", "data/some/where-{}.parquet", True),
        (None, "data/some/where-{}.parquet", True),
        ("data/train/episode_{episode_index:06d}.parquet", "data/chunk-000/file-{:03d}.parquet", True),
    ],
)
def test_rows_elsewhere(tmp_path: Path, template: Any, name: str, warned: bool) -> None:
    root = write_v3(tmp_path, LENGTHS)
    edit_info(root, data_path=template)
    for file in range(3):
        path = root / name.format(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        v3_data(root, file).rename(path)
    listing = list_episodes(source_of(root))
    assert [r.num_rows for r in listing.records] == LENGTHS
    assert said(listing) == ([("path_template", "warning", None, None)] if warned else [])


# Rows


@pytest.mark.parametrize(
    ("content", "reason", "of_episodes"),
    [(LFS_POINTER, "lfs_pointer", "lfs_pointer"), (None, "unreadable_data", "no_data")],
)
def test_a_data_file_that_cannot_be_read(tmp_path: Path, content: str | None, reason: str, of_episodes: str) -> None:
    """The file is named, its episodes have no rows, and the others are kept."""
    root = write_v3(tmp_path, LENGTHS)
    path = v3_data(root, 1)
    path.write_bytes(path.read_bytes()[:-300] if content is None else content.encode())
    listing = list_episodes(source_of(root))
    assert said(listing) == [
        (reason, "warning", None, None),
        (of_episodes, "unusable", 2, None),
        (of_episodes, "unusable", 3, None),
    ]
    assert listing.findings[0].file == "data/chunk-000/file-001.parquet"
    assert [r.num_rows for r in listing.records] == [7, 9, None, None, 8, 11]


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


def test_row_ranges_come_from_the_rows(tmp_path: Path) -> None:
    """Scrambled pointers into the data are not even looked at."""
    root = write_v3(tmp_path, LENGTHS)
    scrambled = {"dataset_from_index": [9] * 6, "dataset_to_index": [3] * 6, "data/file_index": [7] * 6}
    edit_parquet(v3_meta(root), **scrambled)
    listing = list_episodes(source_of(root))
    assert (said(listing), [r.num_rows for r in listing.records]) == ([], LENGTHS)


def test_batches_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read a batch at a time; where batches end makes no difference."""
    monkeypatch.setattr("ingest.formats.tables.BATCH", 4)
    source = source_of(write_v3(tmp_path, LENGTHS, per_data_file=4, tasks=["a", "b"]))
    listing = list_episodes(source)
    assert (said(listing), [r.num_rows for r in listing.records]) == ([], LENGTHS)
    assert [r.tasks for r in listing.records] == [("a",), ("b",)] * 3
    for r in listing.records:
        state = read_episode(source, r).state
        assert state is not None
        assert state.tolist() == [[r.episode_index, k, k % 2] for k in range(r.num_rows or 0)]


# Metadata


@pytest.mark.parametrize("column", ["task", "__index_level_0__"])
def test_task_texts_as_pandas_index(tmp_path: Path, column: str) -> None:
    root = write_v3(tmp_path, LENGTHS, tasks=["pick", "place"], task_column=column)
    edit_parquet(v3_meta(root), tasks=[["wrong"]] * 6)
    listing = list_episodes(source_of(root))
    assert (said(listing), [r.task for r in listing.records]) == ([], ["pick", "place"] * 3)


def test_task_changes_within_an_episode(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], tasks=["a", "b", "c"])
    edit_parquet(v3_data(root, 0), task_index=pa.array([2, 2, 0, 0, 2, 2, 1, 1, None, 7, 1, 1, 1]))
    assert [r.tasks for r in list_episodes(source_of(root)).records] == [("c", "a"), ("b",)]


def test_unreadable_task_table(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7])
    (root / "meta/tasks.parquet").write_text(LFS_POINTER)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("lfs_pointer", "warning", None, None)]
    assert [r.task for r in listing.records] == ["pick the cup"] * 2  # as the episodes' metadata has it


def test_features_without_prefix(tmp_path: Path) -> None:
    root = write_v3(tmp_path, LENGTHS, cameras={"image": 6, "wrist_image": 2})
    for file in range(3):
        columns = dict.fromkeys(("observation.state", "action"))
        rows = [episode_rows(e, LENGTHS[e], 10, 0) for e in (2 * file, 2 * file + 1)]
        state = pa.concat_arrays([r["observation.state"] for r in rows])
        edit_parquet(v3_data(root, file), **columns, state=state, actions=state)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features = {n.replace("observation.", ""): f for n, f in features.items()}
    edit_info(root, features=features)
    source = source_of(root)
    listing = list_episodes(source)
    assert (listing.cameras, said(listing)) == (("image", "wrist_image"), [])
    assert frames_of(source, listing, "wrist_image")[5] == [(1, 5, k) for k in range(11)]
    episode = read_episode(source, listing.records[5])
    assert episode.state is not None
    assert episode.state.tolist() == [[5, k, k % 2] for k in range(11)]
    assert (episode.state_names, places_of(source)) == (("x", "y", "gripper.pos"), [("gripper", "state", (2,))])


def test_gaps_in_the_episodes(tmp_path: Path) -> None:
    source = source_of(write_v3(tmp_path, {2: 6, 5: 7, 40: 8}))
    listing = list_episodes(source)
    assert ([r.episode_index for r in listing.records], said(listing)) == ([2, 5, 40], [])
    assert frames_of(source, listing, FRONT)[2] == [(0, 40, k) for k in range(8)]


def test_rows_that_the_metadata_does_not_list(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7, 8], per_data_file=3)
    table: dict[str, list[Any]] = {"episode_index": [0, 1], "length": [6, 7]}
    for n in ("chunk_index", "file_index", "from_timestamp"):
        table[f"videos/{FRONT}/{n}"] = [0.0, 0.6] if n == "from_timestamp" else [0, 0]
    write_parquet(v3_meta(root), table)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("no_video", "unusable", 2, None), ("not_in_metadata", "warning", 2, None)]


def test_stray_files_are_left_out(tmp_path: Path) -> None:
    """A second table of episodes beside the real one."""
    root = write_v3(tmp_path, [6, 7])
    write_parquet(root / "meta/episodes/episodes.parquet", {"episode_index": [0, 1, 2, 3], "length": [1, 1, 1, 1]})
    write_parquet(root / "data/chunk-000/notes.parquet", episode_rows(9, 3, 10, 0))
    listing = list_episodes(source_of(root))
    assert said(listing) == [("stray_file", "warning", None, None)]
    assert [r.num_rows for r in listing.records] == [6, 7]


def test_unreadable_table_of_episodes(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7])
    v3_meta(root).write_bytes(b"PAR1 and then nothing")
    listing = list_episodes(source_of(root))
    assert said(listing, episode_index=None) == [("unreadable_data", "warning", None, None)]
    assert said(listing, severity="unusable") == [("no_video", "unusable", e, None) for e in range(2)]


def test_a_clone_without_lfs(tmp_path: Path) -> None:
    """All of it is pointers, or the rows alone: the reason is theirs, and not that there is no episode, or no row."""
    root = write_v3(tmp_path, [6, 7], per_data_file=1)
    for path in root.glob("data/**/*.parquet"):
        path.write_text(LFS_POINTER)
    listing = list_episodes(source_of(root))
    assert said(listing, severity="unusable") == [("lfs_pointer", "unusable", e, None) for e in range(2)]
    assert listing.findings[-1].file == "data/chunk-000/file-000.parquet"
    v3_meta(root).write_text(LFS_POINTER)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("lfs_pointer", "unusable", None, None)] * 3
    assert listing.findings[0].file == v3_meta(root).relative_to(root).as_posix()


def test_rows_that_a_file_should_hold(tmp_path: Path) -> None:
    root = write_v3(tmp_path, [6, 7], per_data_file=1)
    (root / "data/chunk-000/file-001.parquet").unlink()
    (lost,) = list_episodes(source_of(root)).findings
    assert (lost.reason, lost.episode_index, lost.file) == ("no_data", 1, "data/chunk-*/file-*.parquet")
    edit_parquet(v3_meta(root), **{"data/chunk_index": [0, 0], "data/file_index": [0, 1]})
    (lost,) = list_episodes(source_of(root)).findings
    assert (lost.detail, lost.file) == (f"no rows; looked for {lost.file}", "data/chunk-000/file-001.parquet")


def test_nothing_but_metadata(tmp_path: Path) -> None:
    write_info(tmp_path, codebase_version="v3.0", fps=10, features={})
    listing = list_episodes(source_of(tmp_path))
    assert said(listing) == [("no_episodes", "unusable", None, None)]
    write_parquet(tmp_path / "meta/tasks.parquet", {"task": ["a"], "task_index": [0]})
    assert list_episodes(source_of(tmp_path)).format == "lerobot_v3.0"


def test_success_and_paraphrases_in_columns_that_the_registry_names(tmp_path: Path) -> None:
    """As DROID has them: constant over an episode, or true from some row on."""
    root = write_v3(tmp_path, [6, 7, 8], tasks=("pick the cup",), per_data_file=2)
    columns = {
        0: ([False] * 6 + [True] * 7, ["lift it"] * 6 + [""] * 7),
        1: ([False] * 7 + [True], ["raise the cup"] * 8),
    }
    for file, (good, text) in columns.items():
        edit_parquet(v3_data(root, file), good=good, second=text)
    named = source_of(root, success_field="good", keys={"language": ["second", "third"]})
    records = list_episodes(named).records
    assert [r.success for r in records] == [False, True, True]
    assert [r.tasks for r in records] == [
        ("pick the cup", "lift it"),
        ("pick the cup",),
        ("pick the cup", "raise the cup"),
    ]
    assert [(r.success, r.tasks) for r in list_episodes(source_of(root)).records] == [(None, ("pick the cup",))] * 3
