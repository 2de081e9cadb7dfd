"""The doctor: what it looks at by default and in full, and what it tells."""

import json
from pathlib import Path

import numpy as np
import pytest

from ingest.reasons import REASONS
from ingest.sources.types import SourceError
from pipeline.inspection import DECODED, grouped, in_short, inspect_source
from tests.kits.lerobot_writer import (
    FRONT,
    LFS_POINTER,
    WRIST,
    edit_info,
    edit_parquet,
    number,
    picture,
    v2_data,
    v2_video,
    write_v2,
    write_video,
)


def reasons(found: dict) -> list[tuple]:
    return [(f["reason"], f["severity"], f["episode_index"]) for f in found["findings"]]


# The gripper of write_v2 is open in every second frame
TREMBLES = ("gripper_unused", "warning", None)


def black(path: Path, frames: int) -> None:
    write_video(path, [np.zeros((64, 64, 3), np.uint8)] * frames)


def test_a_sample_is_decoded_by_default_and_all_in_full(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 9)
    black(v2_video(root, FRONT, 1), 6)
    found = inspect_source(root)
    assert (reasons(found), found["decoded_frames"], found["usable_so_far"]) == (
        [TREMBLES],
        DECODED * 6,
        9,
    )
    assert found["looked_at"] == "metadata; 9 video headers; 3 episodes decoded; everything: --full"
    whole = inspect_source(root, full=True)
    assert (reasons(whole), whole["decoded_frames"], whole["usable_so_far"]) == (
        [("black_video", "unusable", 1), TREMBLES],
        9 * 6,
        8,
    )
    assert whole["looked_at"] == "metadata; 9 video headers; 9 episodes decoded (all)"


@pytest.mark.parametrize(("most", "decoded"), [(11, 6), (14, 14), (21, 14), (22, 22)])
def test_of_long_episodes_fewer_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, decoded: int
) -> None:
    """The first one in any case, and the others while all have no more frames together."""
    monkeypatch.setattr("pipeline.inspection.DECODED_FRAMES", most)
    assert inspect_source(write_v2(tmp_path / "data", [6, 8, 8]))["decoded_frames"] == decoded


def test_headers_of_videos_that_are_not_decoded_are_read(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 9, cameras=[FRONT, WRIST])
    v2_video(root, FRONT, 2).write_text("no video")
    v2_video(root, WRIST, 3).write_text(LFS_POINTER)
    found = inspect_source(root)
    assert reasons(found) == [TREMBLES, ("undecodable_video", "warning", 2), ("lfs_pointer", "warning", 3)]
    assert [f["camera"] for f in found["findings"]] == [None, FRONT, WRIST]


def test_cameras(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 2, cameras=[FRONT, WRIST], codec="mpeg4")
    write_video(v2_video(root, WRIST, 1), [picture(number(1, 1, k), 128) for k in range(6)], codec="h264")
    assert inspect_source(root)["camera_details"] == [
        {"camera": FRONT, "episodes": 2, "codec": "mpeg4", "size_px": "64x64", "fps": "10.0"},
        {"camera": WRIST, "episodes": 2, "codec": "h264, mpeg4", "size_px": "128x128, 64x64", "fps": "10.0"},
    ]


def test_the_worst_comes_first_and_like_findings_are_one_line(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 6, tasks=("",))
    for episode in (1, 4):
        v2_video(root, FRONT, episode).unlink()
    found = inspect_source(root)
    assert [s for _, s, _ in reasons(found)] == ["unusable"] * 2 + ["warning"] * 7
    assert all(f["remedy"] == REASONS[f["reason"]].remedy for f in found["findings"])
    lines = grouped(found["findings"])
    assert [(x["severity"], x["check"], x["count"], x["first"]) for x in lines] == [
        ("unusable", "no_video", 2, "episode 1"),
        ("warning", "no_task", 6, "episode 0"),
        ("warning", "gripper_unused", 1, ""),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_the_sample_has_the_first_and_the_last(tmp_path: Path, count: int) -> None:
    root = write_v2(tmp_path / "data", [6] * count)
    for episode in {0, count - 1}:
        black(v2_video(root, FRONT, episode), 6)
    found = inspect_source(root)
    assert {e for _, _, e in reasons(found)} == {0, count - 1, None}
    assert found["decoded_frames"] == 6 * min(count, DECODED)


def test_a_folder_of_datasets_is_a_line_on_each(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "held" / "cups", [6, 7], cameras=[FRONT, WRIST])
    v2_video(root, FRONT, 1).unlink()
    v2_video(root, WRIST, 1).unlink()
    write_v2(tmp_path / "held" / "deep" / "Plates", [6])
    for name in ("clips/a.mp4", "teaser.mp4"):
        (tmp_path / "held" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "held" / name).write_bytes(v2_video(root, FRONT, 0).read_bytes())
    found = inspect_source(tmp_path / "held")
    assert [(r["folder"], r["name"], r["format"], r["episodes"], r["usable_so_far"]) for r in found["datasets"]] == [
        ("clips", "clips", "video", 1, 1),
        ("cups", "cups", "lerobot_v2.1", 2, 1),
        ("deep/Plates", "plates", "lerobot_v2.1", 1, 1),
    ]
    assert [in_short(r) for r in found["datasets"]] == [
        "1 no_task, nothing describes its videos: a build of all leaves it out",
        "1 no_video",
        "",
    ]
    assert found["beside"] == ["teaser.mp4"]
    assert [(f["folder"], f["reason"]) for f in found["findings"]] == [("clips", "no_task"), ("cups", "no_video")]
    everything = inspect_source(tmp_path / "held", full=True)
    assert [r["usable_so_far"] for r in everything["datasets"]] == [1, 1, 1]


def test_one_dataset_in_a_folder_is_inspected_itself(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "download" / "cups", [6])
    found = inspect_source(tmp_path / "download")
    assert (found["path"], found["decoded_frames"]) == (str(root), 6)


def test_the_format_that_a_person_says(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "cups", [6])
    with pytest.raises(SourceError, match="its files look like lerobot"):
        inspect_source(root, format="rlds")
    with pytest.raises(SourceError, match="is a part of the dataset"):
        inspect_source(root / "videos")
    assert inspect_source(root / "videos", format="video")["format"] == "video"


def test_grippers_of_both_arms_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    """The left one is used, and nothing shows which end is open; the right one stays."""
    root = write_v2(tmp_path / "two", [40] * 4)
    names = ["left_j0", "left_gripper", "right_j0", "right_gripper"]
    info = json.loads((root / "meta/info.json").read_text())
    of_vector = {"dtype": "float32", "shape": [4], "names": names}
    edit_info(root, features=info["features"] | {"observation.state": of_vector, "action": of_vector})
    for episode in range(4):
        k = np.arange(40)
        grips = (k // (10 + episode) % 2) * 3.0 - 1.0
        rows = np.stack([k / 40, grips, np.sin(k / 9 + episode), np.full(40, 0.5)], axis=1).astype(np.float32)
        edit_parquet(v2_data(root, episode), **{"observation.state": rows.tolist(), "action": None})

    found = inspect_source(root)
    left, right = found["signals"]
    assert (left["arm"], left["dimensions"], left["is_used"], left["polarity"]) == ("left", [1], True, "unknown")
    assert (left["closed"], left["open"], left["unit"]) == (-1.0, 2.0, "rad")
    assert (right["arm"], right["is_used"], right["closings_per_episode"]) == ("right", False, None)
    remedies = {f["reason"]: f["remedy"] for f in found["findings"]}
    assert remedies == {r: REASONS[r].remedy for r in ("polarity_unknown", "gripper_unused")}
    # What was measured of lags is by the signals of the survey, and only of those that are used
    assert {row["signal"].partition(":")[0] for row in found["signal_lags"]} <= {"state", "left gripper"}
    assert {"signal", "lag_s", "likeness", "num_observed", "is_corrected"} == set(found["signal_lags"][0])


def test_a_robot_without_a_gripper(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "bare", [12] * 2)
    info = json.loads((root / "meta/info.json").read_text())
    edit_info(root, features=info["features"] | {"observation.state": {"shape": [3], "names": ["a", "b", "c"]}})
    for episode in range(2):
        rows = np.stack([np.sin(np.arange(12) / (2 + j) + episode) for j in range(3)], axis=1).astype(np.float32)
        edit_parquet(v2_data(root, episode), **{"observation.state": rows.tolist(), "action": None})
    found = inspect_source(root)
    assert (found["signals"], reasons(found)) == ([], [("no_gripper", "warning", None)])
    assert found["findings"][0]["detail"] == "looked at state of 3 dimensions (a, b, c) of 2 episodes"
