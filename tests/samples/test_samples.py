"""The shipped demo datasets: whole, true to the recordings, and loadable by lerobot 0.6.1."""

import gc
import json
import logging
import warnings
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import ROOT

SAMPLES = ROOT / "samples"
TRUTH = SAMPLES / "truth"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
DATA_COLUMNS = [
    "observation.state",
    "action",
    "next.done",
    "next.success",
    "timestamp",
    "frame_index",
    "episode_index",
    "index",
    "task_index",
]


@dataclass(frozen=True)
class Expected:
    episodes: int
    frames: int
    fps: int
    tasks: int
    successes: int
    robot: str
    state: int
    action: int
    data_files: int
    video_files: dict[str, int]


EXPECTED = {
    "sim_short": Expected(66, 4216, 20, 6, 48, "sawyer", 4, 4, 2, {FRONT: 3}),
    "sim_long": Expected(18, 4549, 10, 14, 15, "panda", 8, 7, 2, {FRONT: 3, WRIST: 4}),
}

both = pytest.mark.parametrize("name", EXPECTED)


def info_of(name: str) -> dict[str, Any]:
    return json.loads((SAMPLES / name / "meta/info.json").read_text())


def episodes_of(name: str) -> list[dict[str, Any]]:
    return pq.read_table(SAMPLES / name / "meta/episodes").to_pylist()


def data_of(name: str) -> pa.Table:
    files = sorted((SAMPLES / name / "data").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def truth_of(name: str, table: str) -> pa.Table:
    return pq.read_table(TRUTH / name / f"{table}.parquet")


def video_of(name: str, camera: str, episode: dict[str, Any]) -> Path:
    where = {k: episode[f"videos/{camera}/{k}"] for k in ("chunk_index", "file_index")}
    return SAMPLES / name / info_of(name)["video_path"].format(video_key=camera, **where)


def vectors(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), np.float64).reshape(table.num_rows, -1)


def test_the_whole_folder_is_small() -> None:
    files = [f for f in SAMPLES.rglob("*") if f.is_file() and f.suffix != ".pyc"]
    assert sum(f.stat().st_size for f in files) < 20_000_000
    assert len(list(SAMPLES.rglob("*.mp4"))) == 10


@both
def test_counts(name: str) -> None:
    expected, info, data, episodes = EXPECTED[name], info_of(name), data_of(name), episodes_of(name)
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v3.0", expected.robot, expected.fps)
    assert (info["total_episodes"], info["total_frames"]) == (expected.episodes, expected.frames)
    assert info["splits"] == {"train": f"0:{expected.episodes}"}
    assert (data.num_rows, len(episodes)) == (expected.frames, expected.episodes)
    assert [e["episode_index"] for e in episodes] == list(range(expected.episodes))
    assert sum(e["length"] for e in episodes) == expected.frames
    assert sum(e["success"] for e in episodes) == expected.successes
    tasks = pq.read_table(SAMPLES / name / "meta/tasks.parquet").to_pydict()
    assert info["total_tasks"] == len(set(tasks["task"])) == expected.tasks
    assert tasks["task_index"] == list(range(expected.tasks))
    assert len(list((SAMPLES / name / "data").rglob("*.parquet"))) == expected.data_files
    videos = {c: len(list((SAMPLES / name / "videos" / c).rglob("*.mp4"))) for c in expected.video_files}
    assert videos == expected.video_files


@both
def test_rows_lie_where_the_episodes_say(name: str) -> None:
    expected, data = EXPECTED[name], data_of(name)
    tasks = pq.read_table(SAMPLES / name / "meta/tasks.parquet")["task"].to_pylist()
    assert data["index"].to_pylist() == list(range(expected.frames))
    assert data.schema.field("observation.state").type == pa.list_(pa.float32(), expected.state)
    assert data.schema.field("action").type == pa.list_(pa.float32(), expected.action)
    first = 0
    for e in episodes_of(name):
        assert (e["dataset_from_index"], e["dataset_to_index"]) == (first, first + e["length"])
        rows = data.slice(first, e["length"])
        assert set(rows["episode_index"].to_pylist()) == {e["episode_index"]}
        assert rows["frame_index"].to_pylist() == list(range(e["length"]))
        assert np.array_equal(rows["timestamp"], (np.arange(e["length"]) / expected.fps).astype(np.float32))
        assert [tasks[i] for i in set(rows["task_index"].to_pylist())] == e["tasks"]
        assert rows["next.done"].to_pylist() == [False] * (e["length"] - 1) + [True]
        assert rows["next.success"].to_pylist() == [False] * (e["length"] - 1) + [e["success"]]
        first += e["length"]


@both
def test_each_episode_is_one_row_group(name: str) -> None:
    lengths: dict[int, list[int]] = {}
    for e in episodes_of(name):
        lengths.setdefault(e["data/file_index"], []).append(e["length"])
    for file_index, expected in lengths.items():
        groups = pq.read_metadata(SAMPLES / name / f"data/chunk-000/file-{file_index:03d}.parquet")
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == expected


@both
def test_the_dataset_holds_nothing_that_only_the_simulator_knows(name: str) -> None:
    features = info_of(name)["features"]
    assert data_of(name).column_names == DATA_COLUMNS
    assert list(features) == DATA_COLUMNS + list(EXPECTED[name].video_files)
    own = [c for c in episodes_of(name)[0] if not c.startswith(("stats/", "videos/", "data/", "meta/", "dataset_"))]
    assert own == ["episode_index", "tasks", "length", "success", "start_state"]
    stated = {c.split("/")[1] for c in episodes_of(name)[0] if c.startswith("stats/")}
    assert stated == set(features) == set(json.loads((SAMPLES / name / "meta/stats.json").read_text()))
    files = sorted(f.relative_to(SAMPLES / name).parts[0] for f in (SAMPLES / name).rglob("*") if f.is_file())
    assert set(files) == {"data", "meta", "videos"}


@both
def test_frames_are_shown_at_their_times(name: str) -> None:
    fps = EXPECTED[name].fps
    for camera in EXPECTED[name].video_files:
        by_file: dict[Path, list[dict[str, Any]]] = {}
        for e in episodes_of(name):
            by_file.setdefault(video_of(name, camera, e), []).append(e)
        assert set(by_file) == set((SAMPLES / name / "videos" / camera).rglob("*.mp4"))
        for path, episodes in by_file.items():
            with av.open(str(path)) as container:
                video = container.streams.video[0]
                packets = [p for p in container.demux(video) if p.pts is not None and p.dts is not None]
                base = video.time_base or Fraction(0)
            assert all(a.dts < b.dts for a, b in pairwise(packets) if a.dts is not None and b.dts is not None)
            times = sorted(p.pts * base for p in packets if p.pts is not None)
            assert times == [Fraction(k, fps) for k in range(sum(e["length"] for e in episodes))]
            key_frames = {p.pts * base for p in packets if p.pts is not None and p.is_keyframe}
            before = 0
            for e in episodes:
                start, end = (e[f"videos/{camera}/{k}_timestamp"] for k in ("from", "to"))
                assert abs(start - before / fps) < 1e-9
                assert Fraction(before, fps) in key_frames
                before += e["length"]
                assert abs(end - before / fps) < 1e-9


@both
def test_info_describes_the_videos(name: str) -> None:
    features, fps = info_of(name)["features"], EXPECTED[name].fps
    for camera in EXPECTED[name].video_files:
        assert features[camera]["shape"] == [256, 256, 3]
        assert features[camera]["names"] == ["height", "width", "channels"]
        wanted = {"codec": "h264", "pix_fmt": "yuv420p", "fps": fps, "height": 256, "width": 256, "channels": 3}
        assert features[camera]["info"] == {f"video.{k}": v for k, v in wanted.items()} | {
            "has_audio": False,
            "is_depth_map": False,
        }
    for feature in ("observation.state", "action"):
        assert [len(features[feature]["names"])] == features[feature]["shape"]


@both
def test_statistics_are_those_of_the_data(name: str) -> None:
    stats = json.loads((SAMPLES / name / "meta/stats.json").read_text())
    data, episodes = data_of(name), episodes_of(name)
    for feature in DATA_COLUMNS:
        values = vectors(data, feature)
        for key, value in {"min": values.min(0), "max": values.max(0), "mean": values.mean(0)}.items():
            assert np.allclose(stats[feature][key], value), (feature, key)
        assert np.allclose(stats[feature]["std"], values.std(0))
        assert np.allclose(stats[feature]["q50"], np.median(values, axis=0))
        assert stats[feature]["count"] == [EXPECTED[name].frames]
        last = episodes[-1]
        of_last = values[last["dataset_from_index"] : last["dataset_to_index"]]
        assert np.allclose(last[f"stats/{feature}/mean"], of_last.mean(0))
    for camera in EXPECTED[name].video_files:
        image = {k: np.array(v) for k, v in stats[camera].items()}
        assert all(v.shape == (3, 1, 1) for k, v in image.items() if k != "count")
        assert (image["min"] <= image["q10"]).all()
        assert (image["q10"] <= image["q90"]).all()
        assert (image["q90"] <= image["max"]).all()
        assert ((image["mean"] > 0.1) & (image["mean"] < 0.9)).all()
        assert (image["max"] <= 1).all()
        assert image["count"] == sum(-(-e["length"] // 5) for e in episodes)


def test_image_statistics_agree_with_decoded_pixels() -> None:
    e = episodes_of("sim_long")[0]
    with av.open(str(video_of("sim_long", WRIST, e))) as container:
        frames = [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), e["length"])]
    pixels = np.stack(frames[::5]).reshape(-1, 3) / 255
    for key, value in {
        "mean": pixels.mean(0),
        "std": pixels.std(0),
        "min": pixels.min(0),
        "max": pixels.max(0),
    }.items():
        assert np.allclose(np.ravel(e[f"stats/{WRIST}/{key}"]), value, atol=2 / 255), key


@both
def test_truth_is_aligned_with_the_data(name: str) -> None:
    data, frames = data_of(name), truth_of(name, "frames")
    for column in ("episode_index", "frame_index"):
        assert frames[column].to_pylist() == data[column].to_pylist()
    progress, success = np.array(frames["true_progress"]), np.array(frames["success"])
    assert progress.dtype == np.float32
    assert ((progress >= 0) & (progress <= 1)).all()
    assert (progress[success] == 1).all()
    assert not (np.array(frames["idle"]) & success).any()
    truth = truth_of(name, "episodes").to_pylist()
    assert [t["episode_index"] for t in truth] == list(range(EXPECTED[name].episodes))
    for e, t in zip(episodes_of(name), truth, strict=True):
        assert ([t["task"]], t["success"], t["start_state"]) == (e["tasks"], e["success"], e["start_state"])
        assert success[e["dataset_to_index"] - 1] == e["success"]
        assert t["start_state"].startswith(t["env"] + "/")


@both
def test_segments_tile_each_episode(name: str) -> None:
    segments: dict[int, list[dict[str, Any]]] = {}
    for s in truth_of(name, "segments").to_pylist():
        segments.setdefault(s["episode_index"], []).append(s)
    truth = truth_of(name, "episodes").to_pylist()
    assert sorted(segments) == list(range(EXPECTED[name].episodes))
    for e, t in zip(episodes_of(name), truth, strict=True):
        own = segments[e["episode_index"]]
        assert [s["segment_index"] for s in own] == list(range(len(own)))
        assert (own[0]["start_frame"], own[-1]["end_frame"]) == (0, e["length"])
        assert all(a["end_frame"] == b["start_frame"] for a, b in pairwise(own))
        assert all(s["start_frame"] < s["end_frame"] for s in own)
        assert (own[-1]["kind"] == "done") == e["success"]
        done = {s["text"] for s in own if s["kind"] == "step" and s["completed"]}
        missing = [step for step in t["planned_steps"] if step not in done]
        assert done <= set(t["planned_steps"])
        if e["success"] and name == "sim_short":  # a contact of less than two frames has no segment
            assert missing in ([], [t["planned_steps"][1]])
        else:
            assert (missing == []) == e["success"]


def test_segments_say_how_they_ended() -> None:
    def endings(name: str) -> Counter[tuple[str, str, bool]]:
        rows = truth_of(name, "segments").to_pylist()
        return Counter((s["kind"], s["outcome"], s["completed"]) for s in rows)

    assert endings("sim_short") == {
        ("step", "completed", True): 160,
        ("step", "missed", False): 6,
        ("step", "unfinished", False): 18,
        ("idle", "idle", False): 12,
        ("done", "done", True): 48,
    }
    assert endings("sim_long") == {
        ("step", "completed", True): 78,
        ("step", "missed", False): 3,
        ("step", "slipped", False): 1,
        ("step", "dropped", False): 4,
        ("step", "interrupted", False): 1,
        ("idle", "idle", False): 5,
        ("done", "done", True): 15,
    }


def test_idle_frames_are_the_stalls_and_the_given_up_ends() -> None:
    truth = truth_of("sim_short", "episodes").to_pylist()
    frames = truth_of("sim_short", "frames")
    idle = Counter(frames.filter(frames["idle"])["episode_index"].to_pylist())
    by_policy: dict[str, set[int]] = {}
    for t in truth:
        by_policy.setdefault(t["policy"], set()).add(idle[t["episode_index"]])
    # one stalled window coasts open 31 frames into its 40 frames of stillness
    assert by_policy == {"expert": {0}, "stopped": {9}, "missed": {9}, "stalled": {31, 40}}


def decoded(path: Path, wanted: set[int]) -> dict[int, np.ndarray]:
    """The frames with these numbers, decoded from the start of the file, as RGB."""
    with av.open(str(path)) as container:
        frames = {k: f.to_ndarray(format="rgb24") for k, f in enumerate(container.decode(video=0)) if k in wanted}
    return frames


@both
def test_lerobot_opens_and_decodes(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    expected, before = EXPECTED[name], sorted(SAMPLES.rglob("*"))
    gc.collect()  # what other tests left gives its warnings now
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        dataset = module.LeRobotDataset(f"proccorpus/{name}", root=SAMPLES / name, video_backend="pyav")
        assert (len(dataset), dataset.num_episodes, dataset.fps) == (expected.frames, expected.episodes, expected.fps)
        assert set(dataset.meta.video_keys) == set(expected.video_files)
        looks: dict[Path, dict[int, np.ndarray]] = {}
        for e in episodes_of(name):
            for k in (0, e["length"] - 1):  # the joints
                item = dataset[e["dataset_from_index"] + k]
                assert (int(item["episode_index"]), int(item["frame_index"])) == (e["episode_index"], k)
                assert item["task"] == e["tasks"][0]
                assert tuple(item["observation.state"].shape) == (expected.state,)
                assert tuple(item["action"].shape) == (expected.action,)
                for camera in expected.video_files:
                    at = round(e[f"videos/{camera}/from_timestamp"] * expected.fps) + k
                    image = (item[camera].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
                    looks.setdefault(video_of(name, camera, e), {})[at] = image
    assert [str(w.message) for w in warned] == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    for path, seen in looks.items():
        own = decoded(path, set(seen))
        assert sorted(own) == sorted(seen)
        assert all(np.array_equal(own[k], seen[k]) for k in seen), path
    assert sorted(SAMPLES.rglob("*")) == before  # nothing was written beside the data
