"""Which picture of a LeRobot video each row has: by time, as LeRobot has it; else a finding says
how far it is off."""

from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.config import FramesConfig
from annotate.frames import frames_stage
from core.files import write_file
from ingest.episode import DecodeOptions, Finding, FrameTimes
from ingest.formats.lerobot_episode import refusal
from ingest.source import list_episodes, read_episode
from tests.kits import lerobot_writer
from tests.kits.lerobot_writer import (
    FRONT,
    RATE,
    edit_parquet,
    film_of,
    number,
    numbers,
    read_number,
    shown,
    source_of,
    v2_data,
    v2_video,
    v3_data,
    v3_meta,
    v3_video,
    write_v2,
    write_v3,
    write_video,
)

STARTS = f"videos/{FRONT}/from_timestamp"
ENDS = f"videos/{FRONT}/to_timestamp"
LENGTHS = [16, 20, 14]
Places = list[list[int]]  # of each episode, the frame that each row shows


def looked_at(root: Path) -> tuple[Places, list[Finding]]:
    source = source_of(root)
    listing = list_episodes(source)
    pictures = [shown(source, record, FRONT) for record in listing.records]
    for k, picture_numbers in enumerate(pictures):
        assert {episode for _, episode, _ in picture_numbers} <= {k}
    measured = frames_stage(source, listing.records, 0, FramesConfig(), lambda *_: None)
    frames = [list(map(itemgetter(2), picture_numbers)) for picture_numbers in pictures]
    return frames, [*listing.findings, *measured.findings]


def take_rows_away(root: Path, rows: slice) -> None:
    """As filters of idle frames do: of each episode, `timestamp` kept and `frame_index` anew."""
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.ParquetFile(path).read()
        parts = []
        for episode in table["episode_index"].unique().to_pylist():
            of_episode = table.filter(pa.array(table["episode_index"].to_numpy() == episode))
            rows_left = np.delete(np.arange(of_episode.num_rows), rows)
            column_index = table.schema.get_field_index("frame_index")
            parts.append(
                of_episode.take(rows_left).set_column(
                    column_index, "frame_index", pa.array(np.arange(len(rows_left)))
                )
            )
        pq.write_table(pa.concat_tables(parts), path)


@pytest.mark.parametrize(
    "rows", [slice(5), slice(4, 8), slice(-3, None)], ids=["start", "middle", "end"]
)
@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_rows_that_were_taken_away(tmp_path, write, rows):
    root = write(tmp_path, LENGTHS)
    take_rows_away(root, rows)
    if write is write_v3:
        edit_parquet(v3_meta(root), length=[len(np.delete(np.arange(n), rows)) for n in LENGTHS])
    places, findings = looked_at(root)
    assert places == [np.delete(np.arange(n), rows).tolist() for n in LENGTHS]
    if write is write_v3:
        # What the explorer begins to play at
        begins = [record.videos[0].start_frame for record in list_episodes(source_of(root)).records]
        assert begins == [0 + places[0][0], 16 + places[1][0], 36 + places[2][0]]
    assert not [
        f
        for f in findings
        if f.severity == "unusable" or (f.reason, bool(f.camera)) == ("timestamp_drift", True)
    ]


def test_some_frames_of_rows_in_the_middle_are_wanted(tmp_path):
    root = write_v3(tmp_path, LENGTHS)
    take_rows_away(root, slice(4, 8))
    source = source_of(root)
    episode = read_episode(source, list_episodes(source).records[1])
    options = DecodeOptions(wanted=frozenset({3, 4, 15}))
    pictures = {k: picture for k, _, picture in episode.frames(FRONT, options)}
    assert [read_number(pictures[k].luma()) for k in (3, 4, 15)] == [
        number(0, 1, k) for k in (3, 8, 19)
    ]
    assert len(pictures) == 16


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_one_frame_lacks_in_a_shared_file(tmp_path, lacking):
    root = write_v3(tmp_path, LENGTHS)
    frames = [n - (k == lacking) for k, n in enumerate(LENGTHS)]
    write_video(v3_video(root, FRONT, 0), numbers(frames))
    ends = np.cumsum(frames) / RATE
    edit_parquet(v3_meta(root), **{STARTS: [0.0, *ends[:-1]], ENDS: ends})
    places, findings = looked_at(root)
    assert places == [[*range(n)] for n in frames]
    unusable = [(f.reason, f.episode_index, f.detail) for f in findings if f.severity == "unusable"]
    detail = f"{frames[lacking]} frames decoded, the episode has {LENGTHS[lacking]} rows"
    assert unusable == [("length_differs", lacking, detail)]


def test_a_video_of_its_own_may_be_longer(tmp_path):
    root = write_v2(tmp_path, LENGTHS)
    write_video(v2_video(root, FRONT, 1), film_of(0, 1, LENGTHS[1] + 1))
    places, (finding,) = looked_at(root)
    assert places == [[*range(n)] for n in LENGTHS]
    assert (finding.reason, finding.severity, finding.episode_index) == (
        "length_differs",
        "warning",
        1,
    )
    assert (
        finding.detail == "21 frames, 20 rows: each row has its own by time, 1 frames have no row"
    )


@pytest.mark.parametrize("drift_s", [0.009, 0.013, -0.009])
def test_starts_that_drift(tmp_path, drift_s):
    # LeRobot's `from_timestamp` was a sum of rounded durations: the lengths of the file's episodes tell the frames
    lengths = [12] * 10
    root = write_v3(tmp_path, lengths, cameras={FRONT: 10})
    starts = np.arange(10) * 12 / RATE + np.maximum(
        np.arange(10) * drift_s, -12 / RATE * np.arange(10)
    )
    edit_parquet(v3_meta(root), **{STARTS: starts, ENDS: [*starts[1:], starts[-1] + 1.2]})
    places, findings = looked_at(root)
    assert places == [[*range(12)]] * 10
    time_details = {f.episode_index: f.detail for f in findings if f.reason == "timestamp_drift"}
    assert [*time_details] == [*range(1, 10)]
    frames = 9 * abs(drift_s) * RATE
    assert f"up to {9 * abs(drift_s):.4f} s ({frames:.2f} frames)" in time_details[9]
    assert "by the lengths of the file's episodes; LeRobot refuses 12 of 12 rows" in time_details[9]


def test_starts_that_drift_after_an_episode_was_left_out(tmp_path):
    """Lengths then say nothing: the nearest pictures are taken, and how far they are off is
    said."""
    root = write_v3(tmp_path, LENGTHS)
    table = pq.ParquetFile(v3_meta(root)).read()
    table = table.set_column(
        table.schema.get_field_index(STARTS), STARTS, pa.array([0.0, 1.62, 3.63])
    )
    pq.write_table(table.slice(1), v3_meta(root))
    rows = pq.ParquetFile(v3_data(root, 0)).read()
    pq.write_table(rows.filter(pa.array(rows["episode_index"].to_numpy() == 1)), v3_data(root, 0))
    source = source_of(root)
    for record in list_episodes(source).records:
        episode = read_episode(source, record)
        frames = [read_number(picture.luma()) & 63 for _, _, picture in episode.frames(FRONT)]
        assert frames == [*range(LENGTHS[record.episode_index])]
        assert "matched" in episode.match(FRONT).doubt
        assert (
            f"({0.2 if record.episode_index == 1 else 0.3:.2f} frames)"
            in episode.match(FRONT).doubt
        )


@pytest.mark.parametrize("write", [write_v2, write_v3])
@pytest.mark.parametrize("by_rows", [True, False])
def test_another_rate_in_the_file(tmp_path, write, by_rows):
    # 11 frames a second where rows say 10: each row has its frame, and the end is said to be far off. Starts count by
    # rows, or by what the file plays
    root = write(tmp_path, LENGTHS)
    if write is write_v2:
        for episode, n in enumerate(LENGTHS):
            write_video(v2_video(root, FRONT, episode), film_of(0, episode, n), fps=11)
    else:
        write_video(v3_video(root, FRONT, 0), numbers(LENGTHS), fps=11)
        rate = RATE if by_rows else 11
        ends = np.cumsum(LENGTHS) / rate
        edit_parquet(v3_meta(root), **{STARTS: [0.0, *ends[:-1]], ENDS: ends})
    places, findings = looked_at(root)
    assert places == [[*range(n)] for n in LENGTHS]
    time_details = {f.episode_index: f.detail for f in findings if f.reason == "timestamp_drift"}
    assert [*time_details] == [0, 1, 2]
    off_s = 15 / 10 - 15 / 11
    assert f"up to {off_s:.4f} s ({off_s * 11:.2f} frames)" in time_details[0]


def test_times_that_begin_late(tmp_path):
    # Row k is stamped when frame k + 1 is shown, as GR-1's sets are: there is no picture for the last one
    root = write_v2(tmp_path, [12])
    edit_parquet(v2_data(root, 0), timestamp=(np.arange(12) + 1) / RATE)
    places, findings = looked_at(root)
    assert places == [[*range(12)]]
    (finding,) = findings
    assert (finding.reason, finding.severity) == ("timestamp_drift", "warning")
    assert finding.detail.endswith(
        "LeRobot refuses 1 of 12 rows and would show another picture for 11"
    )


def test_episodes_whose_numbers_of_frames_do_not_fit(tmp_path):
    root = write_v3(tmp_path, [10, 10])
    write_video(v3_video(root, FRONT, 0), numbers((11, 9)))
    edit_parquet(v3_meta(root), **{STARTS: [0.0, 1.1], ENDS: [1.1, 2.0]})
    places, findings = looked_at(root)
    assert places == [[*range(10)], [*range(9)]]
    assert [(f.reason, f.episode_index) for f in findings if f.severity == "unusable"] == [
        ("length_differs", 1)
    ]


def test_the_nearest_of_two_pictures():
    times = FrameTimes(np.array([0, 10, 20]), 0.1)
    assert times.nearest(np.array([-5, 0, 0.4, 0.5, 0.51, 1.49, 9])).tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        2,
    ]
    assert FrameTimes(np.array([7]), 0.1).nearest(np.array([-5.0, 0.7, 9])).tolist() == [0, 0, 0]


def test_rows_that_lerobot_refuses_since_it_rounds(tmp_path, monkeypatch):
    # Told by metadata: the videos are empty files. Opened one by one LeRobot 0.6.1 refuses as many
    monkeypatch.setattr(lerobot_writer, "RATE", 15)
    monkeypatch.setattr(lerobot_writer, "write_video", lambda path, _: write_file(path, b""))
    lengths = [4500] * 6
    shared = write_v3(tmp_path / "shared", lengths, cameras={FRONT: 6})
    findings = [
        f for f in list_episodes(source_of(shared)).findings if f.reason == "timestamp_drift"
    ]
    file = str(v3_video(shared, FRONT, 0).relative_to(shared))
    assert [(f.episode_index, f.camera, f.file) for f in findings] == [
        (episode, FRONT, file) for episode in (3, 4, 5)
    ]
    for finding in findings:
        assert "refuses 344 of 4500 rows" in finding.detail
        assert "LeRobotDataset(..., tolerance_s=0.001) opens them" in finding.detail

    alone = write_v3(tmp_path / "alone", [4500, 18000], cameras={FRONT: 1})
    former = write_v2(tmp_path / "v2", [18000])
    edit_parquet(v3_meta(shared), **{STARTS: np.arange(6) * 300.0 + 0.01})
    for root in (alone, former, shared):
        reasons = {f.reason for f in list_episodes(source_of(root)).findings}
        assert "timestamp_drift" not in reasons
    assert "tolerance_s=0.002)" in refusal(18000.0, range(30_000), 7), "files of hours need more"
