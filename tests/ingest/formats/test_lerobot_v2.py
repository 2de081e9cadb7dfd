"""LeRobot v2.0 and v2.1: one data file and one video per episode, and what datasets in the wild do to that."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest.source import list_episodes
from tests.kits.lerobot_writer import (
    FRONT,
    LFS_POINTER,
    WRIST,
    edit_info,
    edit_parquet,
    said,
    shown,
    source_of,
    v2_data,
    v2_video,
    write_json_lines,
    write_v2,
    write_v3,
)


def test_a_whole_dataset(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7, 8], cameras=[WRIST, FRONT], tasks=["pick", "place"])
    source = source_of(root)
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.robot, listing.findings) == ("lerobot_v2.1", 10.0, "toy", ())
    assert listing.cameras == (FRONT, WRIST)  # what sees the scene comes first
    assert [(r.episode_index, r.num_rows, r.task, r.tasks, r.group) for r in listing.records] == [
        (0, 6, "pick", ("pick",), "episode 0"),
        (1, 7, "place", ("place",), "episode 1"),
        (2, 8, "pick", ("pick",), "episode 2"),
    ]
    assert listing.records[1].data_uri == "data/chunk-000/episode_000001.parquet"
    assert listing.records[1].row_start == 0
    for r in listing.records:
        assert shown(source, r, WRIST) == [(0, r.episode_index, k) for k in range(r.num_rows or 0)]
        assert shown(source, r, FRONT) == [(1, r.episode_index, k) for k in range(r.num_rows or 0)]


@pytest.mark.parametrize(
    ("stats", "declared", "version"),
    [
        (True, "v2.0", "v2.1"),
        (True, "v3.0", "v2.1"),
        (False, "v2.0", "v2.0"),
        (False, "v2.1", "v2.1"),
        (False, "v3.0", "v2.0"),
        (False, None, "v2.0"),
    ],
)
def test_version_is_what_is_on_disk(tmp_path: Path, stats: bool, declared: str | None, version: str) -> None:
    root = write_v2(tmp_path, [6], version="v2.1" if stats else "v2.0")
    edit_info(root, codebase_version=declared)
    listing = list_episodes(source_of(root))
    assert (listing.format, said(listing), len(listing.records)) == (f"lerobot_{version}", [], 1)


def test_files_of_v3_beside_those_of_v2(tmp_path: Path) -> None:
    """A converter that died left tasks and a data file, but no list of episodes."""
    root, other = write_v2(tmp_path / "a", [6, 7]), write_v3(tmp_path / "b", [9, 9])
    shutil.copy(other / "meta/tasks.parquet", root / "meta")
    shutil.copy(other / "data/chunk-000/file-000.parquet", root / "data/chunk-000")
    listing = list_episodes(source_of(root))
    assert (listing.format, [r.num_rows for r in listing.records], said(listing)) == ("lerobot_v2.1", [6, 7], [])


def test_chunks(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 6, 6, 6, 6], chunks_size=2)
    listing = list_episodes(source_of(root))
    assert [r.data_uri for r in listing.records][3:] == [
        "data/chunk-001/episode_000003.parquet",
        "data/chunk-002/episode_000004.parquet",
    ]
    assert said(listing) == []


# Where files are


def test_standard_place_when_the_template_leads_nowhere(tmp_path: Path) -> None:
    """GR00T's demo data count chunks by the episode."""
    root = write_v2(tmp_path, [6, 7])
    bad = "data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet"
    edit_info(root, data_path=bad)
    listing = list_episodes(source_of(root))
    assert [r.num_rows for r in listing.records] == [6, 7]
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("path_template", "warning", None)
    assert finding.detail == f"{bad} of info.json leads nowhere for 1 files; found them otherwise"  # 0 is where it says


@pytest.mark.parametrize("template", ["videos/{nothing}.mp4", "videos/{0}", "{episode_index.real.x}", "{", 7, None])
def test_templates_that_are_none(tmp_path: Path, template: Any) -> None:
    root = write_v2(tmp_path, [6])
    edit_info(root, video_path=template)
    listing = list_episodes(source_of(root))
    assert [v.uri for v in listing.records[0].videos] == [f"videos/chunk-000/{FRONT}/episode_000000.mp4"]


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


def test_search_by_name(tmp_path: Path) -> None:
    """Videos and rows that were moved are found when one file alone has the name, anywhere below the root."""
    root = write_v2(tmp_path, [6, 7], cameras=[FRONT, WRIST])
    shutil.move(root / "videos/chunk-000", root / "films")
    shutil.move(root / "data/chunk-000", root / "rows")
    source = source_of(root)
    listing = list_episodes(source)
    assert listing.records[1].data_uri == "rows/episode_000001.parquet"
    assert [v.uri for v in listing.records[1].videos] == [
        f"films/{FRONT}/episode_000001.mp4",
        f"films/{WRIST}/episode_000001.mp4",
    ]
    assert shown(source, listing.records[1], WRIST) == [(1, 1, k) for k in range(7)]
    assert said(listing) == [("path_template", "warning", None, None)] * 2
    assert [f.detail.split(" ", 1)[1] for f in listing.findings] == [
        "of info.json leads nowhere for 2 files; found them otherwise",
        "of info.json leads nowhere for 4 files; found them otherwise",
    ]


def test_two_hits_are_not_used(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6], cameras=[FRONT, WRIST])
    for folder in ("a", "b"):
        (root / folder / WRIST).mkdir(parents=True)
        shutil.copy(v2_video(root, WRIST, 0), root / folder / WRIST)
    v2_video(root, WRIST, 0).unlink()
    listing = list_episodes(source_of(root))
    assert said(listing) == [("camera_without_files", "warning", None, WRIST)]
    assert listing.records[0].cameras == [FRONT]


def test_templates_out_of_the_root(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "root", [6])
    shutil.move(v2_video(root, FRONT, 0), tmp_path / "secret.mp4")
    edit_info(root, video_path="../secret.mp4")
    listing = list_episodes(source_of(root))
    assert said(listing) == [("no_video", "unusable", 0, None)]
    assert listing.records[0].videos == ()


# Cameras


def test_missing_camera_beside_a_usable_one(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7, 8], cameras=[FRONT, WRIST])
    v2_video(root, WRIST, 1).unlink()
    listing = list_episodes(source_of(root))
    assert said(listing) == [("missing_camera", "warning", 1, WRIST)]
    assert [r.cameras for r in listing.records] == [[FRONT, WRIST], [FRONT], [FRONT, WRIST]]


def test_no_camera_left(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7], cameras=[FRONT, WRIST])
    v2_video(root, FRONT, 1).unlink()
    v2_video(root, WRIST, 1).unlink()
    listing = list_episodes(source_of(root))
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("no_video", "unusable", 1)
    files = [f"videos/chunk-000/{camera}/episode_000001.mp4" for camera in (FRONT, WRIST)]
    assert (finding.detail, finding.file) == (f"no video file; looked for {', '.join(files)}", files[0])


def test_camera_declared_without_files(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7], cameras=[FRONT, WRIST])
    shutil.rmtree(root / "videos/chunk-000" / WRIST)
    listing = list_episodes(source_of(root))
    assert said(listing) == [("camera_without_files", "warning", None, WRIST)]
    assert listing.cameras == (FRONT,)


def test_depth_cameras_and_pictures_in_rows(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6], cameras=[FRONT, "depth_a", "depth_b"])
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["depth_a"] = {"dtype": "video", "info": {"is_depth_map": True}}
    features["depth_b"] = {"dtype": "video", "video_info": {"video.is_depth_map": True}}
    features["depth_c"] = {"dtype": "image", "info": {"is_depth_map": True}}
    features["photo"] = {"dtype": "image", "info": None}
    features["odd"] = None
    edit_info(root, features=features)
    listing = list_episodes(source_of(root))
    assert (listing.cameras, listing.records[0].cameras) == ((FRONT,), [FRONT])
    assert said(listing) == [("camera_without_files", "warning", None, "photo")]


def test_order_of_cameras_by_the_registry(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6], cameras=["a", "b", "left_hand", "z"])
    assert list_episodes(source_of(root)).cameras == ("a", "b", "z", "left_hand")
    named = source_of(root, cameras={"exo": ["z"], "wrist": ["left_hand"]})
    assert list_episodes(named).records[0].cameras == ["z", "left_hand", "a", "b"]


# Rows


@pytest.mark.parametrize(
    ("content", "reason"), [(LFS_POINTER, "lfs_pointer"), ("", "unreadable_data"), (None, "unreadable_data")]
)
def test_rows_that_cannot_be_read(tmp_path: Path, content: str | None, reason: str) -> None:
    """A pointer, an empty file, and one that lacks its end because the recorder died: the rest is kept."""
    root = write_v2(tmp_path, [6, 7, 8])
    path = v2_data(root, 1)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content.encode())
    listing = list_episodes(source_of(root))
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == (reason, "unusable", 1)
    assert finding.file == "data/chunk-000/episode_000001.parquet"
    assert "\n" not in finding.detail
    assert [r.num_rows for r in listing.records] == [6, None, 8]


def test_no_rows(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    v2_data(root, 1).unlink()
    listing = list_episodes(source_of(root))
    assert said(listing) == [("no_data", "unusable", 1, None)]
    assert (listing.records[1].num_rows, listing.records[1].cameras) == (None, [FRONT])


def test_a_table_of_no_rows(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    nothing = dict.fromkeys(("observation.state", "action", "timestamp", "frame_index", "episode_index"))
    edit_parquet(v2_data(root, 0), **nothing, task_index=[])
    listing = list_episodes(source_of(root))
    assert said(listing, severity="unusable") == [("no_data", "unusable", 0, None)]


def test_length_differs(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": 0, "length": 5}, {"episode_index": 1}])
    listing = list_episodes(source_of(root))
    assert said(listing) == [("length_differs", "warning", 0, None)]
    assert [r.num_rows for r in listing.records] == [6, 7]


# Metadata


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "there is no meta/info.json"),
        ("", "meta/info.json has 0 bytes"),
        ("{", "meta/info.json is not JSON"),
        (b"\xff\xfe{", "meta/info.json is not UTF-8"),
        ("[]", "meta/info.json has no features"),
        ('{"fps": 10}', "meta/info.json has no features"),
        ('{"features": {}}', "meta/info.json has no fps"),
        ('{"features": {}, "fps": 0}', "meta/info.json has no fps"),
        ('{"features": {}, "fps": NaN}', "meta/info.json has no fps"),
        ('{"features": {}, "fps": true}', "meta/info.json has no fps"),
    ],
)
def test_info_that_cannot_be_used(tmp_path: Path, content: str | bytes | None, detail: str) -> None:
    root = write_v2(tmp_path, [6])
    if content is None:
        (root / "meta/info.json").unlink()
    else:
        (root / "meta/info.json").write_bytes(content.encode() if isinstance(content, str) else content)
    listing = list_episodes(source_of(root))
    assert (listing.records, listing.cameras, listing.format) == ((), (), "lerobot")
    (finding,) = listing.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("no_metadata", "unusable", None)
    assert finding.detail.startswith(detail)


def test_fps_of_the_registry(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    edit_info(root, fps=None)
    listing = list_episodes(source_of(root, fps=12.5))
    assert (listing.fps, listing.records[0].fps, said(listing)) == (12.5, 12.5, [])


def test_gaps_in_the_episodes(tmp_path: Path) -> None:
    source = source_of(write_v2(tmp_path, {3: 6, 7: 8, 1200: 7}))
    listing = list_episodes(source)
    assert said(listing) == []
    assert [(r.episode_index, r.num_rows) for r in listing.records] == [(3, 6), (7, 8), (1200, 7)]
    assert listing.records[2].data_uri == "data/chunk-001/episode_001200.parquet"


def test_rows_that_the_metadata_does_not_list(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": 0, "length": 6, "tasks": ["x"]}])
    listing = list_episodes(source_of(root))
    assert said(listing) == [("not_in_metadata", "warning", 1, None)]
    assert [(r.num_rows, r.task) for r in listing.records] == [(6, "pick the cup"), (7, "pick the cup")]


def test_metadata_lines_that_are_broken(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    first, last = '{"episode_index": 0, "length": 6}', '{"episode_index": 1, "length": 7}'
    odd = ["{broken", "7", '{"episode_index": null}', '{"episode_index": "x"}', "", '{"episode_index": 1e300}']
    odd.append(f'{{"episode_index": 1{"0" * 400}}}')
    (root / "meta/episodes.jsonl").write_text("\n".join([first, *odd, last]))
    listing = list_episodes(source_of(root))
    assert said(listing) == [("unreadable_data", "warning", None, None)]
    assert listing.findings[0].detail.startswith("line 2 is not JSON")
    assert len(listing.records) == 2


def test_metadata_that_is_a_pointer(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    (root / "meta/info.json").write_text(LFS_POINTER)
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == [("lfs_pointer", "unusable", None, None)]
    assert listing.findings[0].file == "meta/info.json"


def test_nothing_in_it(tmp_path: Path) -> None:
    listing = list_episodes(source_of(write_v2(tmp_path, [])))
    assert said(listing) == [("no_episodes", "unusable", None, None)]
    assert listing.records == ()


# Tasks


def test_the_rows_say_the_task(tmp_path: Path) -> None:
    """GR1 lists the quality label "valid" as a task of each episode, in metadata only."""
    root = write_v2(tmp_path, [6, 7], tasks=["valid", "pick the pear", "pick the salt"])
    write_json_lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": e, "tasks": ["valid", "pick the pear"], "length": 6 + e} for e in range(2)],
    )
    edit_parquet(v2_data(root, 0), task_index=[1] * 6)
    edit_parquet(v2_data(root, 1), task_index=[2] * 4 + [1] * 3)
    listing = list_episodes(source_of(root))
    assert [r.tasks for r in listing.records] == [("pick the pear",), ("pick the salt", "pick the pear")]
    assert [r.task for r in listing.records] == ["pick the pear", "pick the salt"]


@pytest.mark.parametrize(
    ("listed", "tasks"),
    [(["pick it", " "], ("pick it",)), ("pick it", ("pick it",)), ([None, 3, " a "], ("a",)), (None, ()), ([], ())],
)
def test_tasks_when_the_rows_name_none(tmp_path: Path, listed: Any, tasks: tuple[str, ...]) -> None:
    root = write_v2(tmp_path, [6])
    edit_parquet(v2_data(root, 0), task_index=None)
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": listed}])
    listing = list_episodes(source_of(root))
    assert listing.records[0].tasks == tasks
    assert said(listing) == ([] if tasks else [("no_task", "warning", 0, None)])


def test_task_table_that_is_odd(tmp_path: Path) -> None:
    """A null text is no task, and a line separator inside a text does not end the line."""
    root = write_v2(tmp_path, [6, 7, 8], tasks=["a", "b", "c"])
    rows = ['{"task_index": 0, "task": null}', '{"task_index": 1.0, "task": "two\u2028lines"}', '{"task": "x"}']
    (root / "meta/tasks.jsonl").write_text("\n".join(rows))
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": e, "tasks": []} for e in range(3)])
    listing = list_episodes(source_of(root))
    assert [r.task for r in listing.records] == [None, "two\u2028lines", None]
    assert said(listing) == [("no_task", "warning", 0, None), ("no_task", "warning", 2, None)]


# Groups and outcomes


def test_group_and_success(tmp_path: Path) -> None:
    """A session of number 0 is a session."""
    root = write_v2(tmp_path, [6] * 5)
    sessions, outcomes = [0, 0, "", None, "b"], [True, False, None, "partly", 1]
    write_json_lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": e, "session": sessions[e], "won": outcomes[e]} for e in range(5)],
    )
    listing = list_episodes(source_of(root, group_field="session", success_field="won"))
    assert [r.group for r in listing.records] == ["0", "0", "episode 2", "episode 3", "b"]
    assert [r.success for r in listing.records] == [True, False, None, None, True]
    assert [r.success_source for r in listing.records] == ["metadata won"] * 2 + [None] * 2 + ["metadata won"]


def test_stamp_changes_with_the_episodes_own_files(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 7])
    before = [r.source_stamp for r in list_episodes(source_of(root)).records]
    v2_video(root, FRONT, 1).write_bytes(b"shorter")
    after = [r.source_stamp for r in list_episodes(source_of(root)).records]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)
