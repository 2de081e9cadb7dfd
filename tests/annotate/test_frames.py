"""The frames stage on tiny real videos: what it measures, keeps, refuses, and how often it
decodes."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from annotate.config import FramesConfig
from annotate.frames import FramesResult, content_columns, frames_stage, timing
from annotate.pictures import published_phash
from ingest.media.video import LONG, decode
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_parquet,
    film_of,
    numbers,
    said,
    source_of,
    v2_data,
    v2_video,
    v3_video,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.signal_kit import signal_at
from tests.kits.tiny_lerobot import make_dataset

SIZE = 64


def moving(n: int) -> list[np.ndarray]:
    """A bright square that walks over noise; RGB."""
    ground = np.random.default_rng(0).integers(40, 90, (SIZE, SIZE, 1), np.uint8).repeat(3, axis=2)
    pictures = []
    for k in range(n):
        picture = ground.copy()
        picture[20:36, 2 * k % 48 : 2 * k % 48 + 16] = (230, 40, 40)
        pictures.append(picture)
    return pictures


# x264's macroblock trees depend on what happened to lie in fresh memory: with them equal pictures may differ
ENCODED = {"crf": "10", "g": "4", "mbtree": "0"}


def written(root: Path, pictures: list[np.ndarray], **columns: Any) -> Path:
    write_v2(root, [len(pictures)])
    edit_parquet(v2_data(root, 0), **columns)
    write_video(v2_video(root, FRONT, 0), pictures, options=ENCODED)
    return root


def keep(sha256: str, jpeg: bytes) -> None:
    assert (len(sha256), jpeg[:2]) == (64, b"\xff\xd8")


def measure(root: Path, threads: int = 1, **config: Any) -> FramesResult:
    """Of what listing leaves, as a build does it."""
    source = replace(source_of(root), decoding_threads=threads)
    listing = list_episodes(source)
    unusable = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    records = [r for r in listing.records if r.episode_index not in unusable]
    return frames_stage(source, records, 7, FramesConfig(**config), keep, signals=[signal_at(2)])


def usable(result: FramesResult) -> dict[int, tuple[int, list[str]]]:
    """Frames and cameras of each usable episode."""
    rows = result.tables["episode_content"].to_pylist()
    return {r["episode_index"]: (r["num_frames"], r["usable_cameras"]) for r in rows}


def test_the_published_hash_on_request(tmp_path):
    pytest.importorskip("imagehash")
    root = written(tmp_path, moving(6))
    expected = [published_phash(f) for f in decode(v2_video(root, FRONT, 0))]
    assert measure(root, published_phash=True).tables["frames"]["phash"].to_pylist() == expected


def test_an_episode_that_is_left_out_counts_in_no_lag(tmp_path):
    write_v2(tmp_path, [40, 36, 44])
    source = source_of(tmp_path)
    records = list_episodes(source).records
    without, present = (
        frames_stage(source, some_records, 7, FramesConfig(), keep, signals=[signal_at(2)])
        for some_records in ([records[0], records[2]], records)
    )
    assert present.tables["signal_lags"] != without.tables["signal_lags"]
    present_without = present.without([1])
    assert present_without.tables == without.tables
    assert present_without.findings == without.findings


@pytest.mark.parametrize(
    ("times", "fps", "drift", "reasons"),
    [
        (None, 20.0, None, []),
        ([0, 0.05, 0.1], 20.0, None, []),  # too few to measure on
        (np.arange(40) / 20 + 3, 20.0, 0.0, []),
        # Within the tolerance of the rate
        (np.arange(40) / 20.2, 20.0, 39 / 20 - 39 / 20.2, []),
        (np.arange(40) / 16, 16.0, 0.0, ["frame_rate"]),
        (np.cumsum([0.04, 0.06] * 20) - 0.04, 20.0, 0.01, []),  # jitter
        (
            np.array([*range(20), *range(24, 44)]) / 20,
            20.0,
            0.2,
            ["timestamp_drift"],
        ),  # four frames dropped
        (np.zeros(40), 20.0, None, ["timestamp_drift"]),
        (np.arange(40)[::-1] / 20, 20.0, None, ["timestamp_drift"]),
        (np.array([0.0, np.nan, *range(2, 40)]) / 20, 20.0, None, ["timestamp_drift"]),
    ],
)
def test_rate_and_drift(times, fps, drift, reasons):
    rate, off_s, findings = timing(
        None if times is None else np.array(times, np.float64), 20.0, certain=False
    )
    assert (rate, [r for r, _ in findings]) == (fps, reasons)
    assert off_s == (None if drift is None else pytest.approx(drift, abs=1e-9))


def test_a_rate_that_the_registry_gives_is_kept():
    fps, drift_s, findings = timing(np.arange(40) / 16, 20.0, certain=True)
    assert (fps, [r for r, _ in findings]) == (20.0, ["frame_rate", "timestamp_drift"])
    assert drift_s == pytest.approx(39 / 16 - 39 / 20)


@pytest.mark.parametrize(("dimension", "what"), [(0, "state"), (2, "gripper")])
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_values_that_are_no_finite_numbers(tmp_path, dimension, what, bad):
    state = np.zeros((8, 3), np.float32)
    state[3, dimension] = bad
    result = measure(written(tmp_path, moving(8), **{"observation.state": list(state)}))
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("nan_state", "unusable", 0)
    assert finding.detail == f"{what} is not a finite number in row 3"
    assert (result.decoded_frames, result.tables["frames"].num_rows) == (0, 0)


@pytest.mark.parametrize(
    ("rows", "dimension", "detail", "measured"),
    [
        ([3], 0, "the state lacks values in 1 of 8 rows, first in row 3: ", [3.0, 4.0]),
        (range(8), 0, "x of the state has no value: it is left out", [0.0, 4.0]),
        (range(8), slice(3), "state has a value in hardly any row: it is not used", None),
    ],
)
def test_values_that_are_missing(tmp_path, rows, dimension, detail, measured):
    state = np.repeat(np.arange(8, dtype=np.float32)[:, None], 3, axis=1) * [1, 1 + 1 / 3, 0]
    state[[*rows], dimension] = np.nan
    result = measure(written(tmp_path, moving(8), **{"observation.state": list(state)}))
    (finding,) = result.findings
    assert (finding.reason, finding.severity) == ("nan_state", "warning")
    assert finding.detail.startswith(detail)
    states = result.tables["states"]["state"].to_pylist()
    assert (states[3] if states else None) == (measured and pytest.approx(measured, rel=1e-6))


def noise_in_one_file(root: Path) -> Path:
    lengths = [LONG + k for k in range(3)]
    write_v3(root, lengths, cameras={FRONT: len(lengths)})
    path = v3_video(root, FRONT, 0)
    shape = (sum(lengths), SIZE, SIZE, 3)
    pictures = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    write_video(path, list(pictures), options=ENCODED)
    return path


def test_damage_is_measured_the_same_on_several_threads(tmp_path):
    path = noise_in_one_file(tmp_path)
    data = bytearray(path.read_bytes())
    offset = (data.index(b"mdat") + 8 + len(data)) // 2  # in the middle of its pictures
    data[offset : offset + 20] = b"\xa5" * 20
    path.write_bytes(data)
    single_thread = measure(tmp_path)
    four_threads = measure(tmp_path, threads=4)
    assert four_threads.tables["frames"] == single_thread.tables["frames"]
    assert four_threads.tables["episode_content"] == single_thread.tables["episode_content"]
    assert four_threads.findings == single_thread.findings
    assert {f.reason for f in single_thread.findings} == {"undecodable_video"}


def test_several_threads_open_a_file_once_for_the_episodes_inside(tmp_path, monkeypatch):
    noise_in_one_file(tmp_path)
    single_thread = measure(tmp_path)
    opened_files = list[str]()
    plain = av.open

    def noted(file: str, **options: Any) -> Any:
        opened_files.append(file)
        return plain(file, **options)

    monkeypatch.setattr(av, "open", noted)
    two_threads = measure(tmp_path, threads=2)
    assert two_threads.tables["frames"] == single_thread.tables["frames"]
    assert two_threads.findings == single_thread.findings
    # To look at its groups; to read it, and for each thread's decoder, once for the episode at its beginning, which may
    # be all of a file, and once for the others. Its times are known
    assert len(opened_files) == 1 + 2 * (1 + 2)


@pytest.mark.parametrize(("frames", "has_times"), [(1, True), (6, True), (8, False), (30, False)])
def test_another_number_of_frames_than_rows(tmp_path, frames, has_times):
    # Where rows have times a longer video has a picture for each (tests/ingest/formats/test_lerobot_frames.py)
    root = write_v2(tmp_path, [7, 7], cameras=[FRONT, WRIST])
    for episode, camera in ((0, WRIST), (1, FRONT), (1, WRIST)):
        write_video(v2_video(root, camera, episode), film_of(0, episode, frames))
        if not has_times:
            edit_parquet(v2_data(root, episode), timestamp=None)
    result = measure(root)
    assert usable(result) == {0: (7, [FRONT])}
    assert said(result.findings) == [
        ("length_differs", "warning", 0, WRIST),
        ("length_differs", "unusable", 1, FRONT),
        ("length_differs", "unusable", 1, WRIST),
    ]
    assert {f.detail for f in result.findings} == {
        f"{frames} frames decoded, the episode has 7 rows"
    }


def test_a_shared_video_with_fewer_frames_than_its_episodes_claim(tmp_path):
    root = write_v3(tmp_path, [6, 7, 8, 9], cameras={FRONT: 4})
    pictures = numbers((6, 7, 8))
    write_video(v3_video(root, FRONT, 0), pictures[:-2])
    result = measure(root)
    assert usable(result) == {0: (6, [FRONT]), 1: (7, [FRONT])}
    assert [(f.reason, f.severity, f.episode_index, f.detail) for f in result.findings] == [
        ("length_differs", "unusable", 2, "6 frames decoded, the episode has 8 rows"),
        ("length_differs", "unusable", 3, "0 frames decoded, the episode has 9 rows"),
    ]


def test_rows_that_break_after_listing(tmp_path):
    # Rows are read again when frames are measured: what is wrong then is a finding, and the others go on
    root = write_v2(tmp_path, [6, 6, 6])
    source = source_of(root)
    listing = list_episodes(source)
    edit_parquet(
        v2_data(root, 0), **{"observation.state": [[1.0], [2.0, 3.0, 4.0]] + [[1.0, 2.0]] * 4}
    )
    shutil.copy(v2_data(write_v2(tmp_path / "b", [5]), 0), v2_data(root, 1))
    result = frames_stage(source, listing.records, 0, FramesConfig(), keep)
    assert usable(result) == {2: (6, [FRONT])}
    assert said(result.findings) == [("unreadable_data", "unusable", e, None) for e in range(2)]
    assert result.findings[0].detail == "column observation.state: rows of different length"


# Of episode 0 of the tiny dataset, whose pictures are known by these bytes
PICTURES = {"observation.images.front": b"pictures"}


def test_a_version_knows_the_contents_of_those_before(tmp_path):
    source = Source(DatasetConfig(name="tiny", source=str(make_dataset(tmp_path / "tiny"))))
    episode = read_episode(source, list_episodes(source).records[0])
    known_columns = content_columns(episode, PICTURES, (), ())
    assert known_columns["former_hashes"] == sorted(set(known_columns["former_hashes"]))
    # Version 1: the state without what is named gripper, and that
    h = hashlib.sha256(episode.record.task.encode() + b"observation.images.frontpictures")
    for values in (episode.state[:, :2], episode.state[:, 2]):
        h.update(np.ascontiguousarray(values, np.float64).tobytes())
    assert h.hexdigest() in known_columns["former_hashes"]
    other_columns = content_columns(episode, {"observation.images.front": b"others"}, (), ())
    assert {other_columns["content_hash"], *other_columns["former_hashes"]}.isdisjoint(
        {known_columns["content_hash"], *known_columns["former_hashes"]}
    )
