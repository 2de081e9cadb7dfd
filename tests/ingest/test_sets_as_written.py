"""Sets as recorders and tools write them: what is read, and what is said of it."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from ingest.signals.missing import known_episode
from ingest.source import list_episodes, read_episode
from pipeline.inspection import inspect_source
from tests.kits import hdf5_writer as hdf5
from tests.kits import lerobot_writer as le
from tests.kits.lerobot_writer import FRONT, RATE, WRIST, film_of, number, read_number, source_of

LENGTHS = (6, 7, 8, 6, 5)


def write_rows(path: Path, num_rows: int, times_s: np.ndarray | None = None, **parts: Any) -> None:
    """Rows of joints that count, without pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["observations/qpos"] = np.arange(num_rows)[:, None] + np.zeros((1, 7))
        for name, values in parts.items():
            file[name] = values
        if times_s is not None:
            file["timestamps"] = times_s


def pictures(length: int, episode: int = 0) -> list[int]:
    return film_of(0, episode, length)


def numbers_of(root: Path, episode: int = 0) -> dict[str, list[int]]:
    source = source_of(root)
    record = list_episodes(source).records[episode]
    frames = read_episode(source, record).frames
    return {c: [read_number(f.luma()) & 63 for _, _, f in frames(c)] for c in record.cameras}


@pytest.mark.parametrize(
    ("rows", "video", "camera"),
    [
        ("0.hdf5", "0.mp4", "video"),
        ("task/episode_0.hdf5", "task/episode_0_cam_high.mp4", "cam_high"),
        ("data/ep_0.h5", "videos/front/ep_0.mp4", "front"),
        ("ep_0.h5", "ep_0/front.mp4", "front"),
        ("run_0/rows.h5", "run_0/recordings/MP4/123.mp4", "123"),
    ],
)
def test_a_video_beside_rows_is_their_camera(tmp_path, rows, video, camera):
    for episode in range(2):
        write_rows(tmp_path / rows.replace("0", str(episode)), 6 + episode)
        path = tmp_path / video.replace("0", str(episode))
        le.write_video(path, pictures(6 + episode, episode))
    assert numbers_of(tmp_path, 1) == {camera: list(range(7))}
    [record, _] = list_episodes(source_of(tmp_path)).records
    assert (record.fps, record.num_rows) == (10.0, 6)


def test_rows_that_come_faster_than_the_pictures_beside_them(tmp_path):
    write_rows(tmp_path / "0.h5", 30, np.arange(30) / (3 * RATE) + 1e9)
    le.write_video(tmp_path / "0.mp4", pictures(10))
    assert numbers_of(tmp_path) == {"video": [min(round(k / 3), 9) for k in range(30)]}
    source = source_of(tmp_path)
    doubt = read_episode(source, list_episodes(source).records[0]).match("video").doubt
    assert doubt.startswith("30 rows and 10 pictures take the same time")


def test_a_folder_of_pictures_beside_rows(tmp_path):
    write_rows(tmp_path / "ep_0.h5", 11)
    (tmp_path / "images/ep_0/top").mkdir(parents=True)
    for k in range(11):
        data = hdf5.jpeg(le.picture(number(0, 0, k)))
        (tmp_path / f"images/ep_0/top/frame_{k}.jpg").write_bytes(data)
    assert numbers_of(tmp_path) == {"top": list(range(11))}


def test_pictures_as_base64_text(tmp_path):
    le.write_v2(tmp_path / "lerobot", [6])
    texts = [b64encode(hdf5.jpeg(le.picture(k))).decode() for k in pictures(6)]
    le.edit_parquet(le.v2_data(tmp_path / "lerobot", 0), **{FRONT: texts})
    write_rows(tmp_path / "hdf5/0.h5", 6, images=[f"data:image/jpeg;base64,{t}" for t in texts])
    assert numbers_of(tmp_path / "lerobot") == {FRONT: list(range(6))}
    assert numbers_of(tmp_path / "hdf5") == {"images": list(range(6))}


def write_xr(root: Path, episode: int) -> None:
    """A recording of xr_teleoperate, whose second row has no left hand."""
    folder = root / f"episode_{episode:04d}"
    (folder / "colors").mkdir(parents=True)
    rows = []
    for k in range(6):
        name = f"colors/{k:06d}_color_0.jpg"
        (folder / name).write_bytes(hdf5.jpeg(le.picture(number(0, episode, k))))
        hand = {"qpos": [] if k == 1 else [0.1 * k] * 3}
        parts = {"right_arm": {"qpos": [k, 1.0]}, "left_ee": hand, "right_ee": {"qpos": [k]}}
        rows.append({"colors": {"color_0": name}, "states": parts, "actions": parts})
    info = {"image": {"fps": 30}}
    content = {"info": info, "text": {"goal": "pick the cup"}, "data": rows}
    (folder / "data.json").write_text(json.dumps(content))


def test_xr_teleoperate(tmp_path):
    for episode in range(2):
        write_xr(tmp_path, episode)
    source = source_of(tmp_path)
    listing = list_episodes(source)
    record = listing.records[1]
    assert (listing.format, record.fps, record.task) == ("xr_teleoperate", 30.0, "pick the cup")
    assert [f for f in listing.findings if f.severity == "unusable"] == []
    episode = read_episode(source, record)
    hand = tuple(f"left_hand.{k}" for k in range(3))
    assert episode.state_names == ("right_arm.0", "right_arm.1", *hand, "right_gripper")
    assert np.isnan(episode.state[1, 2:5]).all()
    assert numbers_of(tmp_path, 1) == {"color_0": list(range(6))}


def with_states(cells: Callable[[np.ndarray], Any], **feature: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        le.write_v2(root, [6])
        states = np.arange(18, dtype=float).reshape(6, 3)
        column = pa.array(cells(states), pa.list_(pa.float64()))
        le.edit_parquet(le.v2_data(root, 0), **{"observation.state": column})
        info = json.loads((root / "meta/info.json").read_text())
        info["features"]["observation.state"] |= feature
        le.edit_info(root, features=info["features"])

    return write


def replaced(value: Any, row: slice, column: slice) -> Callable[[np.ndarray], Any]:
    def cells(states: np.ndarray) -> list[list[Any]]:
        rows = states.tolist()
        for values in rows[row]:
            values[column] = [value] * len(values[column])
        return rows

    return cells


@pytest.mark.parametrize(
    ("write", "missing"),
    [
        (with_states(lambda s: [None, *s[1:].tolist()]), "lacks values in 1 of 6 rows"),
        (with_states(lambda s: [*s[:-1].tolist(), []]), "first in row 5"),
        (with_states(replaced(None, slice(2, 4), slice(3))), "first in row 2"),
        (with_states(replaced(np.nan, slice(6), slice(1, 2))), "y of the state has no value"),
        (
            with_states(replaced(-999, slice(6), slice(1)), info={"missing_value": -999}),
            "x of the state has no value",
        ),
    ],
)
def test_missing_values(tmp_path, write, missing):
    write(tmp_path)
    source = source_of(tmp_path)
    known, lacks = known_episode(read_episode(source, list_episodes(source).records[0]))
    assert len(lacks) == 1
    assert missing in lacks[0]
    present = ~np.isnan(known.state).all(axis=0)
    assert np.isfinite(known.state[:, present]).all()
    # In the middle of a run values lie on the line between those beside them
    expected = np.arange(18).reshape(6, 3)[1:-1, present]
    assert np.array_equal(known.state[1:-1, present], expected)


def with_orphan(root: Path) -> None:
    le.v3_data(root, 7).write_bytes(le.v3_data(root, 0).read_bytes())
    places = {"data/chunk_index": [0] * 5, "data/file_index": [0, 0, 1, 1, 2]}
    le.edit_parquet(le.v3_meta(root), **places)


def with_totals(root: Path) -> None:
    le.edit_info(root, total_episodes=25, total_frames=32)
    (root / "meta/stats.json").write_text(json.dumps({"index": {"count": [6000]}}))


def with_short_video(root: Path) -> None:
    episodes = [number(0, e, k) for e in range(2) for k in range(LENGTHS[e])]
    le.write_video(le.v3_video(root, FRONT, 0), episodes[:-2])


def with_later_camera(root: Path) -> None:
    columns = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    table = le.pq.ParquetFile(le.v3_meta(root)).read()
    names = [f"videos/{WRIST}/{column}" for column in columns]
    lacking = {name: [np.nan, None, *table[name].to_pylist()[2:]] for name in names}
    le.edit_parquet(le.v3_meta(root), **lacking)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (with_orphan, {("stray_file", None, "13 rows of it are of episodes that meta/episodes")}),
        (
            with_totals,
            {
                ("length_differs", None, "meta/info.json says 25 episodes, there are 5; "),
                ("length_differs", None, "meta/stats.json is of 6000 rows, there are 32"),
            },
        ),
        (with_short_video, {("length_differs", 1, "11 frames; the 7 rows end at frame 13")}),
        (with_later_camera, set()),
    ],
)
def test_counts_and_pointers(tmp_path, change, expected):
    le.write_v3(tmp_path, LENGTHS, {FRONT: 2, WRIST: 5})
    le.edit_info(tmp_path, total_episodes=5, total_frames=32)
    change(tmp_path)
    reasons = ("stray_file", "length_differs", "bad_video_pointer", "row_order", "missing_camera")
    inspected = inspect_source(tmp_path)
    findings = [f for f in inspected["findings"] if f["reason"] in reasons]
    assert {(f["reason"], f["episode_index"]) for f in findings} == {part[:2] for part in expected}
    details = " ".join(f["detail"] for f in findings)
    assert all(words in details for _, _, words in expected)
    assert inspected["usable_so_far"] == 5
