"""Videos of exports: copied, cut between key frames, or encoded."""

import json
import os
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from core.paths import Workspace
from ingest.formats.lerobot_episode import refused
from ingest.media.video import decode, frame_times
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits import lerobot_writer
from tests.kits.lerobot_writer import (
    FRONT,
    edit_parquet,
    numbers,
    read_number,
    v3_data,
    v3_meta,
    v3_video,
    write_v3,
    write_video,
)
from tests.kits.tiny_lerobot import make_dataset, write_rows
from warehouse.exports import EXPORT_KINDS, videos
from warehouse.exports.lerobot_plan import LerobotPlan
from warehouse.exports.options import Selection
from warehouse.exports.verify_lerobot import LeRobotComparison, verify
from warehouse.exports.videos import are_even, can_cut, cut, encode
from warehouse.lake import Lake
from warehouse.releases.release import create_release

LEROBOT = EXPORT_KINDS["lerobot"]

FPS = 10
WIDTH = 64
HEIGHT = 48
ANY = Selection(allow=("unknown",))


def frames(n: int, seed: int = 0) -> list[np.ndarray]:
    """A bright square that walks over a textured ground."""
    pictures = []
    for k in range(n):
        picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        picture[:, ::8] += 40
        picture[10 + seed : 26 + seed, k % 48 : k % 48 + 16] = (230, 120, 30)
        pictures.append(picture)
    return pictures


def test_times_that_are_off_are_set_right_without_encoding(tmp_path):
    times_ms = [100 * k + 4 * (k % 3) for k in range(20)]
    encoder_options = {"crf": "18", "preset": "ultrafast", "g": "5", "bf": "0", "sc_threshold": "0"}
    path = write_video(
        tmp_path / "a.mp4", frames(20), fps=1000, times=times_ms, options=encoder_options
    )
    assert not are_even(frame_times(path), [range(20)], FPS)
    cut(path, range(20), tmp_path / "b.mp4", FPS, keep_times=False)
    assert are_even(frame_times(tmp_path / "b.mp4"), [range(20)], FPS)
    both = zip(decode(path), decode(tmp_path / "b.mp4"), strict=True)
    assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in both)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_a_part_is_cut_as_it_is(tmp_path, codec):
    """PyAV finds AV1's decoder under a name that is no encoder's, which a copy does not need."""
    encoder_options = {
        "h264": {"g": "4", "bf": "0", "sc_threshold": "0"},
        "av1": {"g": "4", "preset": "10"},
    }[codec]
    path = write_video(tmp_path / "a.mp4", frames(20), codec, fps=FPS, options=encoder_options)
    part = range(8, 16)
    assert can_cut(frame_times(path), part)
    cut(path, part, tmp_path / "b.mp4", FPS, keep_times=True)
    both = zip(decode(path, 8, 8), decode(tmp_path / "b.mp4"), strict=True)
    assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in both)


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_encoded_pictures_come_back_in_time_and_alike(tmp_path, codec, size):
    source_pictures = [p[: size[0], : size[1]] for p in frames(12)]
    if codec == "av1" and size[0] % 2:
        with pytest.raises(UserError, match="even sizes"):
            encode(iter(source_pictures), tmp_path / "a.mp4", FPS, codec)
        return
    scheduling = os.sched_getscheduler(0)
    for name in ("a.mp4", "b.mp4"):
        encode(iter(source_pictures), tmp_path / name, FPS, codec)
    assert os.sched_getscheduler(0) == scheduling, "what runs beside it is starved"
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert are_even(frame_times(tmp_path / "a.mp4"), [range(12)], FPS)
    decoded = [f.rgb() for f in decode(tmp_path / "a.mp4")]
    assert np.mean(np.abs(np.array(decoded, np.float64) - np.array(source_pictures))) < 5


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory) -> Lake:
    """Two episodes of arrays in robomimic's manner, built."""
    folder = tmp_path_factory.mktemp("hdf5")
    with h5py.File(folder / "demos.hdf5", "w") as file:
        for episode, n in enumerate((20, 26)):
            group = file.create_group(f"data/demo_{episode}")
            group.attrs["num_samples"] = n
            t = np.linspace(0, 1, n)
            group["obs/robot0_eef_pos"] = np.stack([t, np.sin(3 * t), t * 0], axis=1)
            group["obs/robot0_gripper_qpos"] = np.stack([1 - t, t - 1], axis=1)
            group["obs/agentview_image"] = np.stack(frames(n, episode))
            group["actions"] = np.zeros((n, 7))
    space = Workspace(folder / "workspace")
    build = source_build(folder / "demos.hdf5", "arrays", None, None)
    build = build.model_copy(
        update={"dataset": build.dataset.model_copy(update={"fps": float(FPS)})}
    )
    assert not run_build(space, [build], workers=1).failed
    return Lake(space, read_only=True)


def test_arrays_become_videos(hdf5, tmp_path):
    exported = LEROBOT.export(hdf5, ANY, tmp_path / "out")
    assert exported.episodes == 2
    assert any(
        "2 of 2 videos were encoded anew: its pictures are in no video file (2)" in n
        for n in exported.notes
    )
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    (camera,) = [n for n, f in info["features"].items() if f["dtype"] == "video"]
    assert info["features"][camera]["shape"] == [HEIGHT, WIDTH, 3]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    assert np.shape(stats[camera]["mean"]) == (3, 1, 1)
    assert stats["progress"]["max"] == [1.0]
    for file, n in enumerate((20, 26)):
        decoded = [
            f.rgb() for f in decode(tmp_path / f"out/videos/{camera}/chunk-000/file-{file:03d}.mp4")
        ]
        assert len(decoded) == n
        assert np.mean(np.abs(np.array(decoded, np.float64) - np.array(frames(n, file)))) < 5


def test_a_part_of_a_shared_file_whose_rows_leave_out_frames(tmp_path):
    """Each row has the picture that LeRobot shows, whether an episode is cut out or encoded."""
    source = write_v3(tmp_path / "source", [16, 18, 14])
    all_numbers = numbers((16, 18, 14))
    write_video(
        v3_video(source, FRONT, 0),
        all_numbers,
        "av1",
        options={"g": "2", "crf": "12", "preset": "10"},
    )
    frames_left = [k for k in range(18) if not 5 <= k < 9]
    rows = pq.ParquetFile(v3_data(source, 0)).read()
    pq.write_table(rows.take([*range(16), *(16 + k for k in frames_left)]), v3_data(source, 0))
    edit_parquet(v3_meta(source), length=[16, 14, 14])
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [source_build(source, "tiny", None, None)], workers=1).failed
    LEROBOT.export(
        Lake(space, read_only=True),
        ANY.model_copy(update={"episodes": (0, 1), "datasets": ("tiny",)}),
        tmp_path / "out",
    )
    frames_shown = []
    for file in (0, 1):
        video = decode(v3_video(tmp_path / "out", FRONT, file))
        frames_shown.append([read_number(frame.luma()) & 63 for frame in video])
    assert frames_shown == [[*range(16)], frames_left]


@pytest.mark.parametrize("name", ["lerobot", "annotations-json"])  # files; the source's numbers
def test_a_source_that_has_changed_since_is_refused(tmp_path, name):
    source = make_dataset(tmp_path / "source", (12, 14))
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [source_build(source, "tiny", None, None)], workers=1).failed
    create_release(Lake(space), "r1", allow=ANY.allow)
    write_rows(source, 1, 13)
    lake = Lake(space, read_only=True)
    for release, remedy in ((None, "build"), ("r1", "export")):
        selection = ANY.model_copy(update={"release": release})
        out = tmp_path / f"out{release}"
        with pytest.raises(UserError, match=f"1 have changed: {remedy}"):
            EXPORT_KINDS[name].export(lake, selection, out)


@pytest.mark.slow
def test_a_source_that_has_changed_is_no_fault_of_an_export(hdf5, tmp_path):
    """LeRobot reads in a process of its own, from which the error comes as it is."""
    LEROBOT.export(hdf5, ANY, tmp_path / "out")
    path = hdf5.workspace.root.parent / "demos.hdf5"
    kept = path.read_bytes()
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.ones((26, 7))
    try:
        with pytest.raises(UserError, match="arrays episode 1 has changed: build the dataset"):
            verify(hdf5, ANY, tmp_path / "out", LEROBOT.options())
    finally:
        path.write_bytes(kept)


LONG = (1800, 1800)  # rows of episodes of 10 minutes, three a second
Exported = tuple[Lake, Path, Path]


@pytest.fixture(scope="module")
def long_episodes(tmp_path_factory) -> Exported:
    """Two in one file, each beginning at a key frame; exported as by 0.1.0, which took no notice of how LeRobot
    rounds, and as it is."""
    folder = tmp_path_factory.mktemp("long")
    options = {"g": "5", "bf": "0", "sc_threshold": "0", "preset": "ultrafast"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lerobot_writer, "RATE", 3)
        patch.setattr(lerobot_writer, "write_video", partial(write_video, fps=3, options=options))
        write_v3(folder / "source", LONG)
    space = Workspace(folder / "workspace")
    assert not run_build(space, [source_build(folder / "source", "long", None, None)], 1).failed
    lake = Lake(space, read_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "refused", lambda *_: np.zeros(1, bool))
        LEROBOT.export(lake, ANY, folder / "one")
    LEROBOT.export(lake, ANY, folder / "parted")
    return lake, folder / "one", folder / "parted"


def at_risk(out: Path) -> list[tuple[int, int]]:
    """Episode 1, and each row of it that LeRobot refuses in an export."""
    row = pq.read_table(v3_meta(out)).to_pylist()[1]
    start_s = row[f"videos/{FRONT}/from_timestamp"]
    rows_s = np.arange(LONG[1]) / 3
    times = frame_times(v3_video(out, FRONT, row[f"videos/{FRONT}/file_index"]))
    pictures_s = times.seconds[times.nearest(start_s + rows_s)]
    return [(1, k) for k in np.flatnonzero(refused(start_s, rows_s, pictures_s)).tolist()]


def test_a_file_is_parted_where_lerobot_would_refuse_frames(long_episodes):
    exports = long_episodes[1:]
    assert [len(at_risk(out)) for out in exports] == [176, 0]
    methods = [json.loads((out / "manifest.json").read_text())["videos"] for out in exports]
    assert methods == [{"copied": 1}, {"cut": 2}], "nothing is encoded"


@pytest.mark.slow
def test_lerobot_opens_each_frame_at_risk(long_episodes):
    lake, one, parted = long_episodes
    risks = at_risk(one)
    frames = {*range(0, LONG[0], 25), *(frame for _, frame in risks)}
    plan = LerobotPlan("lerobot", lake, ANY, LEROBOT.options())
    *frames_refused, problem = LeRobotComparison(plan, one, lambda e: sorted(frames)).problems()
    said = [text.partition(":")[0] for text in frames_refused]
    assert said == [f"frame {frame} of episode {number}" for number, frame in risks]
    assert problem.startswith(f"LeRobot refuses 176 of 1800 pictures of episode 1 by {FRONT}")
    assert list(LeRobotComparison(plan, parted, lambda e: sorted(frames)).problems()) == []
