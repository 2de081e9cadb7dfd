"""The frames stage on tiny real videos: what it measures, keeps, refuses, and how often it decodes."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ingest.formats.lerobot
from annotate.frames import FramesConfig, FramesResult, frames_stage, speed, timing
from annotate.stored_pictures import encode_jpeg
from annotate.visual_change import published_phash
from core.paths import ROOT
from core.tables import TABLES
from ingest.media.video import Frame, Picture, decode
from ingest.registry import DatasetConfig
from ingest.signals.gripper import GripperSignal
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.signal_kit import signal_at

SIZE = 64
FPS = 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def moving(n: int) -> list[np.ndarray]:
    """A bright square that walks over noise; RGB."""
    ground = np.random.default_rng(0).integers(40, 90, (SIZE, SIZE, 1), np.uint8).repeat(3, axis=2)
    pictures = []
    for k in range(n):
        picture = ground.copy()
        picture[20:36, 2 * k % 48 : 2 * k % 48 + 16] = (230, 40, 40)
        pictures.append(picture)
    return pictures


def black(n: int) -> list[np.ndarray]:
    return [np.zeros((SIZE, SIZE, 3), np.uint8)] * n


def frozen(n: int) -> list[np.ndarray]:
    return moving(1) * n


def write_video(path: Path, pictures: list[np.ndarray], codec: str = "libx264", **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # x264's macroblock trees depend on what happened to lie in fresh memory: with them equal pictures may differ
    options = options or {"crf": "10", "g": "4", "mbtree": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # SVT-AV1 makes its caller a real-time thread


@dataclass
class Dataset:
    """A LeRobot v2.1 folder of a few episodes, each with its rows and videos."""

    root: Path
    cameras: tuple[str, ...] = (FRONT,)
    tasks: list[str] = field(default_factory=list)

    def add(self, rows: int, videos: dict[str, list[np.ndarray]], task: str = "push", **columns: np.ndarray) -> None:
        index = len(self.tasks)
        self.tasks.append(task)
        state = np.stack([np.linspace(0, 1, rows), np.zeros(rows), np.linspace(0.2, 0.8, rows)], axis=1)
        table = {
            "observation.state": list(columns.pop("state", state).astype(np.float32)),
            "timestamp": columns.pop("timestamp", np.arange(rows) / FPS).astype(np.float32),
            "episode_index": np.full(rows, index),
            "task_index": np.full(rows, index),
        }
        path = self.root / "data" / "chunk-000" / f"episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path)
        for camera, pictures in videos.items():
            write_video(self.video(index, camera), pictures)

    def video(self, index: int, camera: str = FRONT) -> Path:
        return self.root / "videos" / "chunk-000" / camera / f"episode_{index:06d}.mp4"

    def source(self) -> Source:
        names = ["x", "y", "gripper"]
        features = {"observation.state": {"dtype": "float32", "shape": [3], "names": names}}
        features |= {c: {"dtype": "video", "shape": [SIZE, SIZE, 3]} for c in self.cameras}
        info = {"codebase_version": "v2.1", "fps": FPS, "chunks_size": 1000, "features": features}
        meta = self.root / "meta"
        meta.mkdir(exist_ok=True)
        (meta / "info.json").write_text(json.dumps(info))
        lines = [json.dumps({"task_index": i, "task": t}) for i, t in enumerate(self.tasks)]
        (meta / "tasks.jsonl").write_text("\n".join(lines))
        lines = [json.dumps({"episode_index": i, "tasks": [t]}) for i, t in enumerate(self.tasks)]
        (meta / "episodes.jsonl").write_text("\n".join(lines))
        (meta / "episodes_stats.jsonl").write_text("")
        return Source(DatasetConfig(name="tiny", source=str(self.root)))


@dataclass
class Store:
    """Keyframes by hash, and how often each was handed over."""

    files: dict[str, bytes] = field(default_factory=dict)
    calls: Counter = field(default_factory=Counter)

    def __call__(self, sha256: str, data: bytes) -> None:
        self.files[sha256] = data
        self.calls[sha256] += 1


def measure(
    dataset: Dataset, store: Callable[[str, bytes], None] = Store(), threads: int = 1, **config: object
) -> tuple[FramesResult, Source]:
    source = replace(dataset.source(), decoding_threads=threads)
    records = list_episodes(source).records
    return frames_stage(source, records, 7, FramesConfig(**config), store), source


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "tiny")


@pytest.fixture
def two_cameras(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "tiny", (FRONT, WRIST))


# Measurements


def test_every_frame_is_measured(dataset: Dataset):
    dataset.add(12, {FRONT: moving(12)})
    source = dataset.source()
    signals = [signal_at(2, closed=0.1, open=0.9)]
    result = frames_stage(source, list_episodes(source).records, 7, FramesConfig(), Store(), signals=signals)
    assert result.findings == []
    for name, table in result.tables.items():
        assert table.schema == TABLES[name].schema
    frames = result.tables["frames"].to_pydict()
    assert frames["frame_index"] == list(range(12))
    assert set(frames["dataset"]) == {"tiny"}
    assert set(frames["chunk"]) == {7}
    assert set(frames["camera"]) == {FRONT}
    np.testing.assert_allclose(frames["timestamp_s"], np.arange(12) / FPS)
    change = np.array(frames["visual_change"])
    assert change[0] == 0
    # the square moves 2 of 64 px: two columns of 16 px change by about 30 of 255
    assert (change[1:] > 0.0005).all()
    assert (change[1:] < 0.01).all()
    assert not any(frames["is_black"])
    assert 0.2 < np.mean(frames["luma_mean"]) < 0.4
    np.testing.assert_allclose(frames["gripper"], np.linspace(0.125, 0.875, 12), atol=1e-6)
    assert frames["grippers"] == [[opening] for opening in frames["gripper"]]
    assert result.tables["states"]["state"].to_pylist()[11] == [1, 0]  # without the gripper
    speeds = np.array(frames["speed"])
    assert speeds[0] == 0
    # one dimension moves evenly from 0 to 1: 1/11 a frame over its standard deviation
    np.testing.assert_allclose(speeds[1:], FPS / 11 / np.linspace(0, 1, 12).std(), rtol=1e-4)
    (content,) = result.tables["episode_content"].to_pylist()
    assert (content["num_frames"], content["usable_cameras"]) == (12, [FRONT])


def test_the_published_hash_on_request(dataset: Dataset):
    pytest.importorskip("imagehash")
    dataset.add(6, {FRONT: moving(6)})
    result, _ = measure(dataset, published_phash=True)
    expected = [published_phash(f) for f in decode(dataset.video(0))]
    assert result.tables["frames"]["phash"].to_pylist() == expected


def test_the_content_hash_covers_pictures_rows_and_task(tmp_path: Path):
    def content(name: str, pictures: list[np.ndarray], state: np.ndarray, task: str, **config: object) -> str:
        dataset = Dataset(tmp_path / name)
        dataset.add(8, {FRONT: pictures}, task, state=state)
        result, _ = measure(dataset, **config)
        return result.tables["episode_content"]["content_hash"][0].as_py()

    state = np.random.default_rng(0).random((8, 3))
    other = state.copy()
    other[5, 2] += 0.01  # the gripper
    first = content("a", moving(8), state, "push")
    assert content("b", moving(8), state, "push") == first
    assert content("c", moving(8), state, "push", keyframe_interval_s=0.2) == first
    changed = {
        content("d", moving(9)[1:], state, "push"),
        content("e", moving(8), other, "push"),
        content("f", moving(8), state, "pull"),
    }
    assert len(changed | {first}) == 4


# Keyframes


def test_keyframes_are_stored_under_their_hash(dataset: Dataset):
    dataset.add(25, {FRONT: moving(25)})
    store = Store()
    result, _ = measure(dataset, store, keyframe_max_px=32)
    keyframes = result.tables["keyframes"].to_pylist()
    assert [k["frame_index"] for k in keyframes] == [0, 10, 20]
    assert {k["purpose"] for k in keyframes} == {"coarse"}
    assert {k["sha256"] for k in keyframes} == set(store.files)
    assert set(store.calls.values()) == {1}
    originals = moving(25)
    for k in keyframes:
        data = store.files[k["sha256"]]
        assert hashlib.sha256(data).hexdigest() == k["sha256"]
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert picture.shape == (k["height_px"], k["width_px"], 3) == (32, 32, 3)
        small = cv2.resize(originals[k["frame_index"]], (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(picture.astype(int) - small).mean() < 8  # red and blue not swapped
    assert store.files == (again := Store(), measure(dataset, again, keyframe_max_px=32))[0].files


def test_a_picture_is_made_smaller_with_its_shape_kept():
    data, width, height = encode_jpeg(np.zeros((90, 300, 3), np.uint8), 100)
    assert (width, height) == (100, 30)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (30, 100, 3)
    assert encode_jpeg(np.zeros((90, 300, 3), np.uint8), 400)[1:] == (300, 90)


# Pictures for a later stage


@dataclass
class Recorder:
    """A keeper that remembers."""

    nth: int = 1
    all_cameras: bool = False
    kept: dict[tuple[int, str, int], np.ndarray] = field(default_factory=dict)
    rates: set[float] = field(default_factory=set)

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        self.rates.add(fps)
        return self.nth if is_preferred or self.all_cameras else 0

    def keep(self, episode_index: int, camera: str, frame_index: int, picture: Picture) -> None:
        self.kept[episode_index, camera, frame_index] = picture.rgb()

    def drop(self, episode_index: int, camera: str) -> None:
        self.kept = {k: v for k, v in self.kept.items() if k[:2] != (episode_index, camera)}


def test_pictures_of_the_preferred_camera_are_kept_and_no_damaged_ones(two_cameras: Dataset):
    two_cameras.add(8, {FRONT: moving(8), WRIST: moving(8)})
    two_cameras.add(8, {FRONT: moving(8), WRIST: moving(8)})
    damaged = two_cameras.video(1)
    data = bytearray(damaged.read_bytes())
    at = data.index(b"mdat") + len(data) // 2
    data[at : at + 200] = bytes(200)
    damaged.write_bytes(data)
    two_cameras.add(8, {WRIST: moving(8)})
    two_cameras.video(2).write_bytes(b"")
    source, recorder = replace(two_cameras.source(), decoding_threads=2), Recorder()
    result = frames_stage(source, list_episodes(source).records, 7, FramesConfig(), Store(), [recorder])
    assert {f.episode_index for f in result.findings} == {1, 2}
    of = {(e, c) for e, c, _ in recorder.kept}
    assert of & {(0, FRONT), (0, WRIST), (1, FRONT)} == {(0, FRONT)}  # the second of episode 0 is shown by no sample
    assert (2, WRIST) in of
    shown = [f.rgb() for f in decode(two_cameras.video(0))]
    assert all(np.array_equal(recorder.kept[0, FRONT, k], shown[k]) for k in range(8))


def test_each_keeper_is_handed_the_frames_and_cameras_that_it_wants(two_cameras: Dataset):
    two_cameras.add(8, {FRONT: moving(8), WRIST: moving(8)})
    source = two_cameras.source()
    first, third = Recorder(), Recorder(nth=3, all_cameras=True)
    frames_stage(source, list_episodes(source).records, 7, FramesConfig(), Store(), [first, third])
    assert set(first.kept) == {(0, FRONT, k) for k in range(8)}
    assert set(third.kept) == {(0, camera, k) for camera in (FRONT, WRIST) for k in (0, 3, 6)}
    assert first.rates == {list_episodes(source).records[0].fps}


# What is refused


@pytest.mark.parametrize(
    ("rows", "pictures", "reason", "detail"),
    [
        (8, black(8), "black_video", "all 8 frames are black"),
        (8, frozen(8), "frozen_video", "all 8 frames show one picture"),
        (4, moving(4), "too_short", "4 frames; at least 5 are needed"),
        (10, moving(12), "frame_count", "12 frames decoded, the episode has 10 rows"),
        (10, moving(8), "frame_count", "8 frames decoded, the episode has 10 rows"),
    ],
)
def test_an_episode_without_a_usable_camera(
    dataset: Dataset, rows: int, pictures: list[np.ndarray], reason: str, detail: str
):
    dataset.add(rows, {FRONT: pictures})
    dataset.add(8, {FRONT: moving(8)})
    result, _ = measure(dataset)
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.detail) == (reason, "unusable", detail)
    assert (finding.episode_index, finding.camera) == (0, FRONT)
    assert finding.file == dataset.video(0).relative_to(dataset.root).as_posix()
    for name in set(result.tables) - {"signal_lags"}:  # only the good episode is there
        assert set(result.tables[name]["episode_index"].to_pylist()) == {1}
    assert result.decoded_frames == len(pictures) + 8


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"crf": "30", "g": "2"}),  # as LeRobot has it encoded: every second frame is a key frame
        ("libx264", {"crf": "23", "g": "10"}),
        ("libsvtav1", {"crf": "30", "g": "2", "preset": "10"}),
    ],
)
def test_a_still_picture_is_frozen_however_it_was_compressed(dataset: Dataset, codec: str, options: dict[str, str]):
    video = next((ROOT / "samples" / "sim_long" / "videos" / FRONT / "chunk-000").glob("*.mp4"))
    still = next(decode(video)).rgb()
    dataset.add(24, {})
    write_video(dataset.video(0), [still] * 24, codec, **options)
    result, _ = measure(dataset)
    assert [f.reason for f in result.findings] == ["frozen_video"]


def test_a_slow_fade_and_a_small_dim_motion_are_not_frozen(dataset: Dataset):
    fade = [np.full((SIZE, SIZE, 3), 80 + k, np.uint8) for k in range(12)]
    dim = [np.full((SIZE, SIZE, 3), 80, np.uint8) for _ in range(12)]
    for k, picture in enumerate(dim):
        picture[30:34, 30 + k : 34 + k] = 104
    dataset.add(12, {FRONT: fade})
    dataset.add(12, {FRONT: dim})
    result, _ = measure(dataset)
    assert result.findings == []


def test_the_least_number_of_frames_is_a_setting(dataset: Dataset):
    dataset.add(4, {FRONT: moving(4)})
    result, _ = measure(dataset, min_frames=4)
    assert result.findings == []
    assert result.tables["frames"].num_rows == 4


@pytest.mark.parametrize("damage", ["rubbish", "empty", "pointer", "cut"])
def test_a_video_that_cannot_be_decoded(dataset: Dataset, damage: str):
    dataset.add(8, {FRONT: moving(8)})
    path = dataset.video(0)
    data = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    path.write_bytes(
        {"rubbish": b"\0\1" * 500, "empty": b"", "pointer": pointer, "cut": data[: len(data) // 2]}[damage]
    )
    result, _ = measure(dataset)
    (finding,) = result.findings
    assert finding.reason == ("lfs_pointer" if damage == "pointer" else "undecodable_video")
    assert finding.severity == "unusable"
    assert all(t.num_rows == 0 for t in result.tables.values())


@pytest.mark.parametrize(
    ("pictures", "reason"), [(black(8), "black_video"), (frozen(8), "frozen_video"), (moving(7), "frame_count")]
)
@pytest.mark.parametrize("bad", [FRONT, WRIST])
def test_a_bad_camera_beside_a_good_one_is_a_warning(
    two_cameras: Dataset, bad: str, pictures: list[np.ndarray], reason: str
):
    good = WRIST if bad == FRONT else FRONT
    two_cameras.add(8, {bad: pictures, good: moving(8)})
    result, _ = measure(two_cameras)
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.camera) == (reason, "warning", bad)
    assert result.tables["episode_content"]["usable_cameras"].to_pylist() == [[good]]
    assert set(result.tables["frames"]["camera"].to_pylist()) == {good}
    assert set(result.tables["keyframes"]["camera"].to_pylist()) == {good}
    assert result.tables["frames"].num_rows == 8


def test_two_bad_cameras_make_the_episode_unusable(two_cameras: Dataset):
    two_cameras.add(8, {FRONT: black(8), WRIST: frozen(8)})
    result, _ = measure(two_cameras)
    assert {(f.reason, f.severity, f.camera) for f in result.findings} == {
        ("black_video", "unusable", FRONT),
        ("frozen_video", "unusable", WRIST),
    }
    assert result.tables["frames"].num_rows == 0


def test_the_rate_of_the_rows_overrules_the_stated_one(dataset: Dataset):
    dataset.add(8, {FRONT: moving(8)}, timestamp=np.arange(8) / FPS * 1.5)
    dataset.add(8, {FRONT: moving(8)}, timestamp=np.arange(8) / FPS + 100.0)
    result, _ = measure(dataset)
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("frame_rate", "warning", 0)
    assert finding.detail == "stated 10 fps, the rows' times give 6.667: the measured rate is used"
    contents = result.tables["episode_content"].to_pylist()
    assert [c["fps"] for c in contents] == [6.667, 10.0]
    assert contents[1]["max_drift_s"] == pytest.approx(0, abs=1e-5)
    times = result.tables["frames"]["timestamp_s"].to_pylist()
    assert times[7] == pytest.approx(7 / 6.667)
    assert times[15] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("times", "fps", "drift", "reasons"),
    [
        (None, 20.0, None, []),
        ([0, 0.05, 0.1], 20.0, None, []),  # too few to measure on
        (np.arange(40) / 20 + 3, 20.0, 0.0, []),
        (np.arange(40) / 20.2, 20.0, 39 / 20 - 39 / 20.2, []),  # within the tolerance of the rate
        (np.arange(40) / 16, 16.0, 0.0, ["frame_rate"]),
        (np.cumsum([0.04, 0.06] * 20) - 0.04, 20.0, 0.01, []),  # jitter
        (np.array([*range(20), *range(24, 44)]) / 20, 20.0, 0.2, ["timestamp_drift"]),  # four frames dropped
        (np.zeros(40), 20.0, None, ["timestamp_drift"]),
        (np.arange(40)[::-1] / 20, 20.0, None, ["timestamp_drift"]),
        (np.array([0.0, np.nan, *range(2, 40)]) / 20, 20.0, None, ["timestamp_drift"]),
    ],
)
def test_rate_and_drift(times: Any, fps: float, drift: float | None, reasons: list[str]):
    found = timing(None if times is None else np.array(times, np.float64), 20.0, certain=False)
    assert (found.fps, [r for r, _ in found.findings]) == (fps, reasons)
    assert found.drift_s == (None if drift is None else pytest.approx(drift, abs=1e-9))


def test_a_rate_that_the_registry_gives_is_kept():
    found = timing(np.arange(40) / 16, 20.0, certain=True)
    assert (found.fps, [r for r, _ in found.findings]) == (20.0, ["frame_rate", "timestamp_drift"])
    assert found.drift_s == pytest.approx(39 / 16 - 39 / 20)


def test_rows_that_cannot_be_read(dataset: Dataset):
    dataset.add(8, {FRONT: moving(8)})
    source = dataset.source()
    records = list_episodes(source).records
    path = dataset.root / "data" / "chunk-000" / "episode_000000.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    result = frames_stage(source, records, 0, FramesConfig(), Store())
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("unreadable_data", "unusable", 0)
    assert result.decoded_frames == 0


# Decoding


def test_each_video_is_decoded_once(two_cameras: Dataset, monkeypatch: pytest.MonkeyPatch):
    opened: Counter = Counter()
    frames: Counter = Counter()

    def counting(path: Path, *where: Any, **how: Any) -> Iterator[Frame]:
        opened[path] += 1
        for frame in decode(path, *where, **how):
            frames[path] += 1
            yield frame

    monkeypatch.setattr(ingest.formats.lerobot, "decode", counting)
    two_cameras.add(8, {FRONT: moving(8), WRIST: moving(8)})
    two_cameras.add(11, {FRONT: moving(11), WRIST: black(11)})
    result, _ = measure(two_cameras)
    assert set(opened.values()) == {1}
    assert frames == Counter({two_cameras.video(i, c): n for i, n in ((0, 8), (1, 11)) for c in (FRONT, WRIST)})
    assert result.decoded_frames == frames.total() == 38
    assert result.tables["frames"].num_rows == 8 + 8 + 11


# Signals


def test_each_gripper_has_its_place_in_a_list(dataset: Dataset):
    """The one that closes most often is also the gripper; one that is not used has no values."""
    dataset.add(8, {FRONT: moving(8)})
    source = dataset.source()
    left, unused = signal_at(0, arm="left"), signal_at(1, arm="middle", is_used=False, closings_per_episode=None)
    right = signal_at(2, arm="right", closed=0.8, open=0.2, closings_per_episode=3.0)

    def frames(*signals: GripperSignal) -> dict[str, list]:
        result = frames_stage(source, list_episodes(source).records, 0, FramesConfig(), Store(), signals=signals)
        return result.tables["frames"].to_pydict()

    of_all = frames(left, unused, right)
    ramp = np.linspace(0, 1, 8)
    np.testing.assert_allclose(of_all["gripper"], ramp[::-1], atol=1e-6)
    np.testing.assert_allclose([row[0] for row in of_all["grippers"]], ramp, atol=1e-6)
    assert {row[1] for row in of_all["grippers"]} == {None}
    assert [row[2] for row in of_all["grippers"]] == of_all["gripper"]
    of_unused = frames(unused)
    assert (of_unused["gripper"], of_unused["grippers"]) == ([None] * 8, [None] * 8)


@pytest.mark.parametrize(("dimension", "what"), [(0, "state"), (2, "gripper")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_finite_numbers(dataset: Dataset, dimension: int, what: str, bad: float):
    state = np.zeros((8, 3))
    state[3, dimension] = bad
    dataset.add(8, {FRONT: moving(8)}, state=state)
    source = dataset.source()
    records = list_episodes(source).records
    result = frames_stage(source, records, 0, FramesConfig(), Store(), signals=[signal_at(2)])
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("nan_state", "unusable", 0)
    assert finding.detail == f"{what} is not a finite number in row 3"
    assert (result.decoded_frames, result.tables["frames"].num_rows) == (0, 0)


def test_speed_has_no_unit_and_leaves_out_what_hardly_moves():
    t = np.arange(50) / FPS
    path = np.stack([np.sin(t), np.cos(t)], axis=1)
    noise = np.random.default_rng(0).normal(0, 1e-4, (50, 1))
    first = speed(path, FPS)
    assert first[0] == 0
    np.testing.assert_allclose(speed(1000 * path, FPS), first, rtol=1e-5)
    np.testing.assert_allclose(speed(np.hstack([path, noise]), FPS), first, rtol=1e-5)
    assert not speed(np.ones((5, 3)), FPS).any()
    assert not speed(np.empty((5, 0)), FPS).any()
    assert np.isfinite(speed(np.array([[0.0], [np.nan], [1.0]]), FPS)).all()


# Damage


def damage(path: Path, where: float, count: int) -> None:
    """Overwrite some bytes of a video's pictures."""
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 8 + int(where * (len(data) - data.index(b"mdat") - 8))
    data[at : at + count] = b"\xa5" * count
    path.write_bytes(bytes(data))


@pytest.fixture
def damaged(dataset: Dataset) -> Dataset:
    noise = list(np.random.default_rng(0).integers(0, 255, (60, SIZE, SIZE, 3), np.uint8))
    dataset.add(60, {FRONT: noise})
    return dataset


def test_a_few_damaged_frames_are_a_warning(damaged: Dataset):
    damage(damaged.video(0, FRONT), 0.5, 20)
    result, _ = measure(damaged)
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.camera) == ("damaged_frames", "warning", FRONT)
    assert finding.detail.startswith("1 of 60 frames are damaged")
    assert result.tables["frames"].num_rows == 60


def test_many_damaged_frames_make_a_camera_unusable(damaged: Dataset):
    for k in range(12):
        damage(damaged.video(0, FRONT), 0.05 + 0.07 * k, 20)
    result, _ = measure(damaged)
    (finding,) = result.findings
    assert (finding.reason, finding.severity) == ("damaged_frames", "unusable")
    assert result.tables["frames"].num_rows == 0


def test_damage_is_measured_the_same_on_several_threads(damaged: Dataset):
    damage(damaged.video(0, FRONT), 0.5, 20)
    one, _ = measure(damaged)
    several, _ = measure(damaged, threads=4)
    assert several.tables["frames"] == one.tables["frames"]
    assert several.tables["episode_content"] == one.tables["episode_content"]
    assert several.findings == one.findings != []
