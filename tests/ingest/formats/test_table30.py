"""RoboChallenge Table30: four robots with fields of their own, and what can be wrong with their files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.formats import table30
from ingest.reasons import DataError
from ingest.registry import Cameras, Gripper
from ingest.source import format_of, list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import LFS_POINTER, said, shown, source_of, write_json_lines
from tests.kits.signal_kit import only_signal, places_of
from tests.kits.table30_writer import CAMERAS, START_S, frame, write_episode, write_task

K = np.arange(6)[:, None]


def joints(count: int, arm: int = 0) -> np.ndarray:
    return K + np.arange(count) / 10 + 100 * arm


def states(root: Path, name: str = "states", episode: int = 0, task: str = "task") -> Path:
    return root / f"{task}/data/episode_{episode:06d}/states/{name}.jsonl"


def one(root: Path, robot: str = "arx5", **fields: Any) -> Source:
    write_task(root, "task", robot, {0: 6})
    return source_of(root, **fields)


def test_tasks_of_several_robots(tmp_path: Path) -> None:
    write_task(tmp_path, "sort_books", "ur5", {0: 6, 1: 7}, "sort the books")
    write_task(tmp_path, "arrange_flowers", "arx5", {10: 8})
    (tmp_path / "README.md").write_text("")
    source = source_of(tmp_path, format="table30")
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.robot, listing.numbered) == ("table30", 30.0, "arx5_1, ur5_1", False)
    assert said(listing) == []
    assert [(r.episode_index, r.source_id, r.num_rows, r.tasks, r.group) for r in listing.records] == [
        (0, "arrange_flowers/episode_000010", 8, ("do it",), "arrange_flowers/episode_000010"),
        (1, "sort_books/episode_000000", 6, ("sort the books",), "sort_books/episode_000000"),
        (2, "sort_books/episode_000001", 7, ("sort the books",), "sort_books/episode_000001"),
    ]
    assert listing.records[0].cameras == ["global_realsense_rgb", "right_realsense_rgb", "arm_realsense_rgb"]
    assert listing.records[1].cameras == ["global_realsense_rgb", "handeye_realsense_rgb"]
    assert shown(source, listing.records[0], "right_realsense_rgb") == [(2, 10, k) for k in range(8)]
    assert shown(source, listing.records[2], "handeye_realsense_rgb") == [(1, 1, k) for k in range(7)]


@pytest.mark.parametrize(
    ("robot", "count", "gripper", "first"),
    [
        ("arx5", 6, K[:, 0] / 100, "global_realsense_rgb"),
        ("ur5", 6, 255 - 5 * K[:, 0], "global_realsense_rgb"),  # published as 255 for closed
        ("franka", 7, K[:, 0] / 100, "main_realsense_rgb"),  # not its two buttons
    ],
)
def test_one_arm(tmp_path: Path, robot: str, count: int, gripper: np.ndarray, first: str) -> None:
    source = one(tmp_path, robot)
    (record,) = list_episodes(source).records
    assert record.cameras[0] == first
    assert sorted(record.cameras) == sorted(CAMERAS[robot])
    episode = read_episode(source, record)
    np.testing.assert_allclose(episode.state, np.column_stack([joints(count), gripper]))  # pyright: ignore
    width = only_signal(source)
    assert (width.dimensions, width.names, width.polarity) == ((count,), ("gripper_opening",), "high_is_open")
    np.testing.assert_allclose(episode.timestamps_s, K[:, 0] / 30, atol=1e-3)  # pyright: ignore
    assert [t for _, t, _ in episode.frames(first)] == [k / 30 for k in range(6)]


def test_two_arms(tmp_path: Path) -> None:
    """The joints that the arms had, not those of the arms that lead them; each has its gripper."""
    source = one(tmp_path, "aloha")
    (record,) = list_episodes(source).records
    assert record.cameras == ["cam_high_rgb", "cam_wrist_left_rgb", "cam_wrist_right_rgb"]
    assert record.data_uri == "task/data/episode_000000/states/left_states.jsonl"
    episode = read_episode(source, record)
    # by the order of the benchmark's own interface: 6 joints and a gripper, twice
    both = np.hstack([joints(6), K / 100, joints(6, 1), K / 100 + 1])
    np.testing.assert_allclose(episode.state, both)  # pyright: ignore
    assert places_of(source) == [("left gripper", "state", (6,)), ("right gripper", "state", (13,))]
    right = source_of(tmp_path, gripper=Gripper(arm="right", column="state", dimension=13))
    assert places_of(right) == [("right gripper", "state", (13,))]


def test_second_edition(tmp_path: Path) -> None:
    """Table30 v2 has other camera names, a width for every gripper, and times in seconds."""
    one(tmp_path, "ur5")
    videos = tmp_path / "task/data/episode_000000/videos"
    (videos / "global_realsense_rgb.mp4").rename(videos / "cam_global_rgb.mp4")
    (videos / "handeye_realsense_rgb.mp4").rename(videos / "cam_arm_rgb.mp4")
    rows = [frame("ur5", k) for k in range(6)]
    write_json_lines(
        states(tmp_path),
        [
            {k: v for k, v in r.items() if k != "gripper"} | {"gripper_width": 0.085, "timestamp": START_S + n / 30}
            for n, r in enumerate(rows)
        ],
    )
    source = source_of(tmp_path)
    (record,) = list_episodes(source).records
    assert record.cameras == ["cam_global_rgb", "cam_arm_rgb"]
    episode = read_episode(source, record)
    np.testing.assert_allclose(episode.state[:, 6], [0.085] * 6)  # pyright: ignore
    assert episode.state_names[6] == "gripper_opening"
    np.testing.assert_allclose(episode.timestamps_s, K[:, 0] / 30, atol=1e-6)  # pyright: ignore


def test_registry(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {})
    write_episode(tmp_path / "task", "arx5", 0, 6, {"ok": False, "day": 3})
    cameras = Cameras(exo=("right_realsense_rgb",), wrist=("arm_realsense_rgb",))
    source = source_of(tmp_path, cameras=cameras, fps=15, success_field="ok", group_field="day", robot="mine")
    listing = list_episodes(source)
    assert (listing.fps, listing.robot) == (15.0, "mine")
    assert listing.cameras == ("right_realsense_rgb", "arm_realsense_rgb", "global_realsense_rgb")
    assert [(r.fps, r.success, r.group) for r in listing.records] == [(15.0, False, "3")]


def test_a_root_that_is_one_task(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {0: 6})
    source = source_of(tmp_path / "task", format="table30")
    listing = list_episodes(source)
    assert [(r.source_id, r.task, r.num_rows) for r in listing.records] == [("episode_000000", "do it", 6)]
    assert said(listing) == []
    assert places_of(source) == [("gripper", "state", (6,))]


# Metadata


def test_instructions(tmp_path: Path) -> None:
    """Both files may have one: all are kept, the first of task_info.json counts."""
    write_task(tmp_path, "task", "arx5", {0: 6}, "one way")
    (tmp_path / "task/task_desc.json").write_text(json.dumps({"prompt": " another way "}))
    write_task(tmp_path, "unsaid", "arx5", {0: 6}, None)
    listing = list_episodes(source_of(tmp_path))
    assert [(r.task, r.tasks) for r in listing.records] == [("one way", ("one way", "another way")), (None, ())]
    assert said(listing) == [("no_task", "warning", 1, None)]


@pytest.mark.parametrize("text", ["{", "[]", "7", LFS_POINTER, '{"task_desc": [], "video_info": 3, "robot_id": 4}'])
def test_a_task_without_metadata(tmp_path: Path, text: str) -> None:
    write_task(tmp_path, "task", "arx5", {0: 6})
    (tmp_path / "task/meta/task_info.json").write_text(text)
    (tmp_path / "task/task_desc.json").unlink()
    source = source_of(tmp_path)
    listing = list_episodes(source)
    unread = {"{": ["unreadable_data"], LFS_POINTER: ["lfs_pointer"]}.get(text, [])
    assert [f.reason for f in listing.findings] == [*unread, "no_task"]
    assert {f.severity for f in listing.findings} == {"warning"}
    assert (listing.fps, listing.robot, listing.records[0].num_rows) == (30.0, None, 6)
    assert read_episode(source, listing.records[0]).state is not None


def test_no_task_info(tmp_path: Path) -> None:
    source = one(tmp_path)
    (tmp_path / "task/meta/task_info.json").unlink()
    assert [(f.reason, f.severity, f.file) for f in list_episodes(source).findings] == [
        ("no_metadata", "warning", "task/meta/task_info.json")
    ]
    assert list_episodes(source).records[0].task == "do it"  # task_desc.json has it too


@pytest.mark.parametrize(("fps", "expected"), [(15, 15.0), (29.97, 29.97), (0, 30.0), ("30", 30.0), (None, 30.0)])
def test_frame_rate(tmp_path: Path, fps: Any, expected: float) -> None:
    source = one(tmp_path)
    (tmp_path / "task/meta/task_info.json").write_text(json.dumps({"video_info": {"fps": fps}}))
    assert list_episodes(source).records[0].fps == expected


@pytest.mark.parametrize(
    ("meta", "findings"),
    [
        ({"frames": 6}, []),
        ({}, []),
        ({"frames": 5}, ["length_differs"]),
        ({"frames": "5"}, []),
        ({"frames": 1 << 90}, []),
        ([], []),
        ("{", ["unreadable_data"]),
    ],
)
def test_episode_metadata(tmp_path: Path, meta: Any, findings: list[str]) -> None:
    source = one(tmp_path)
    text = meta if isinstance(meta, str) else json.dumps(meta)
    (tmp_path / "task/data/episode_000000/meta/episode_meta.json").write_text(text)
    listing = list_episodes(source)
    assert said(listing) == [(reason, "warning", 0, None) for reason in findings]
    assert listing.records[0].num_rows == 6


def test_an_episode_whose_name_is_no_number(tmp_path: Path) -> None:
    """As in RoboChallenge's own example, whose videos were taken for plain ones."""
    write_task(tmp_path, "task", "arx5", {0: 6})
    (tmp_path / "task/data/episode_000000").rename(tmp_path / "task/data/episode_FFFFFF")
    source = source_of(tmp_path)
    assert format_of(source).name == "table30"
    assert [(r.source_id, r.num_rows) for r in list_episodes(source).records] == [("task/episode_FFFFFF", 6)]


def test_cameras_that_are_missing(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {0: 6, 1: 6, 2: 6})
    (tmp_path / "task/data/episode_000001/videos/arm_realsense_rgb.mp4").unlink()
    shutil.rmtree(tmp_path / "task/data/episode_000002/videos")
    listing = list_episodes(source_of(tmp_path))
    assert said(listing) == [
        ("missing_camera", "warning", 1, "arm_realsense_rgb"),
        ("no_video", "unusable", 2, None),
    ]
    folder = "task/data/episode_000002/videos"
    file = listing.findings[-1].file or ""
    assert file in listing.findings[-1].detail
    assert file.startswith(folder)


def test_no_episodes(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {})
    source = source_of(tmp_path, format="table30")
    listing = list_episodes(source)
    assert (listing.records, said(listing)) == ((), [("no_episodes", "unusable", None, None)])


# Rows


@pytest.mark.parametrize("gone", ["left_states", "right_states"])
def test_one_of_two_arms(tmp_path: Path, gone: str) -> None:
    source = one(tmp_path, "aloha")
    states(tmp_path, gone).unlink()
    listing = list_episodes(source)
    assert said(listing) == [("no_data", "unusable", 0, None)]
    with pytest.raises(DataError) as error:
        read_episode(source, listing.records[0])
    assert error.value.reason == "no_data"


def test_arms_of_different_length(tmp_path: Path) -> None:
    source = one(tmp_path, "aloha")
    write_json_lines(states(tmp_path, "right_states"), [frame("aloha", k) for k in range(5)])
    with pytest.raises(DataError, match="different lengths"):
        read_episode(source, list_episodes(source).records[0])


def test_times_that_are_absent(tmp_path: Path) -> None:
    source = one(tmp_path)
    rows = [frame("arx5", k) for k in range(6)]
    write_json_lines(states(tmp_path), [{k: v for k, v in r.items() if k != "timestamp"} for r in rows])
    assert read_episode(source, list_episodes(source).records[0]).timestamps_s is None


FIRST = json.dumps(frame("arx5", 0))


@pytest.mark.parametrize(
    ("text", "reason", "why"),
    [
        ("", "no_data", "has no line"),
        ("\n \n", "no_data", "has no line"),
        (LFS_POINTER, "lfs_pointer", "pointer"),
        ("[1]\n", "unreadable_data", "line 1: "),
        ("{}\n", "unreadable_data", "neither joints nor a gripper"),
        (f"{FIRST}\n{FIRST[:50]}", "unreadable_data", "line 2"),
        (f"{FIRST}\n" + "[" * 100_000, "unreadable_data", "line 2"),
        (f"{FIRST}\n" + "x" * ((1 << 20) + 1), "unreadable_data", "line 2: Invalid value"),
        (f"{FIRST}\n{{}}\n", "unreadable_data", "joint_positions is not a number or a list of them in every line"),
        (
            f"{FIRST}\n" + FIRST.replace("[0.0, 0.1,", "["),
            "unreadable_data",
            "rows of different length",
        ),
        (FIRST.replace("[0.0, 0.1,", '["0", 0.1,'), "unreadable_data", "line 1: .*joint_positions.* to string"),
        (FIRST.replace("[0.0, 0.1,", "[true, 0.1,"), "unreadable_data", "line 1: .*joint_positions.* to boolean"),
        ("\x80\n", "unreadable_data", "line 1"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, text: str, reason: str, why: str) -> None:
    """The episode beside it is read."""
    write_task(tmp_path, "task", "arx5", {0: 6, 1: 6})
    states(tmp_path).write_bytes(text.encode("latin-1"))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    with pytest.raises(DataError, match=why) as error:
        read_episode(source, listing.records[0])
    assert error.value.reason == reason
    assert {f.episode_index for f in listing.findings} <= {0}
    assert read_episode(source, listing.records[1]).state is not None


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_file_bytes": 100}, r"limit of 400 \(4 x limits\.max_file_bytes"),
        ({"max_rows": 5}, r"lines: 6, over the limit of 5 \(limits\.max_rows"),
        ({"max_values": 35}, r"joint_positions: values: 36, over the limit of 35 \(limits\.max_values"),
    ],
)
def test_limits_of_the_registry_entry(tmp_path: Path, limits: dict[str, int], told: str) -> None:
    """A frame of a few bytes can be there hundreds of millions of times."""
    (record,) = list_episodes(one(tmp_path)).records
    with pytest.raises(DataError, match=told) as error:
        read_episode(source_of(tmp_path, limits=limits), record)
    assert error.value.reason == "over_limit"


def test_episodes_without_rows_are_found_in_listing(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {0: 6, 1: 6, 2: 6})
    states(tmp_path, episode=0).unlink()
    states(tmp_path, episode=1).write_text("")
    states(tmp_path, episode=2).write_text(LFS_POINTER)
    assert said(list_episodes(source_of(tmp_path))) == [
        ("no_data", "unusable", 0, None),
        ("no_data", "unusable", 1, None),
        ("length_differs", "warning", 1, None),
        ("lfs_pointer", "unusable", 2, None),
    ]


def test_not_table30(tmp_path: Path) -> None:
    for name in ("data/chunk-000/episode_000000.parquet", "data/episode_000000/states.jsonl", "task_info.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert not table30.recognises(source_of(tmp_path))
