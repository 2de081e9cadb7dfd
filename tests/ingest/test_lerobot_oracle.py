"""LeRobot's own reader beside ours, over datasets that its tools and people made: each frame's number, time, state,
task and pictures are those of LeRobotDataset, or a finding names the episode whose pictures are not.

LeRobot does not open v2.1 any more: there its function that finds pictures by time is asked.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.config import FramesConfig
from annotate.frames import frames_stage
from ingest.episode import EpisodeRecord, Finding
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits import changed_sources as changes
from tests.kits import lerobot_writer as le
from tests.kits import small_sources as small

FEW = small.RECORDINGS[:4]
OF_PICTURES = {"timestamp_drift", "length_differs", "bad_video_pointer", "undecodable_video"}
STARTS, ENDS = (f"videos/{small.CAMERA}/{name}_timestamp" for name in ("from", "to"))
VIDEO = f"videos/{small.CAMERA}/chunk-000/file-000.mp4"


# What people do to their datasets; `changes` has what LeRobot's tools do


def table_of(root: Path, pattern: str) -> tuple[Path, pa.Table]:
    (path,) = root.glob(pattern)
    return path, pq.ParquetFile(path).read()


def with_columns(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        column_index = table.schema.get_field_index(name)
        table = table.set_column(
            column_index, table.schema.field(name), pa.array(values, table.schema.field(name).type)
        )
    return table


def keep_rows(root: Path, keeps: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """As idle filters do: of the rows those that `keeps`, given episodes and frames; times stay."""
    path, rows = table_of(root, "data/*/*.parquet")
    rows = rows.filter(
        pa.array(keeps(rows["episode_index"].to_numpy(), rows["frame_index"].to_numpy()))
    )
    lengths = np.unique(rows["episode_index"].to_numpy(), return_counts=True)[1]
    frames = np.concatenate([np.arange(n) for n in lengths])
    pq.write_table(with_columns(rows, frame_index=frames, index=np.arange(rows.num_rows)), path)
    path, episodes = table_of(root, "meta/episodes/*/*.parquet")
    ends = np.cumsum(lengths)
    about = {"length": lengths, "dataset_from_index": ends - lengths, "dataset_to_index": ends}
    pq.write_table(with_columns(episodes, **about), path)


def drift(root: Path, by_s: float) -> None:
    """Where episodes begin is off by a little more with each."""
    path, episodes = table_of(root, "meta/episodes/*/*.parquet")
    delays_s = np.arange(episodes.num_rows) * by_s
    moved_columns = {name: episodes[name].to_numpy() + delays_s for name in (STARTS, ENDS)}
    pq.write_table(with_columns(episodes, **moved_columns), path)


def film(root: Path, lengths: list[int], fps: int = small.FPS, restate: bool = False) -> None:
    """The shared video anew, with so many frames of each recording; `restate`: and where each begins and ends."""
    pictures: list[np.ndarray] = []
    for recording, length in zip(FEW, lengths, strict=True):
        pictures.extend(small.pictures_of(recording)[:length])
    le.write_video(root / VIDEO, pictures, fps=fps, options=small.ENCODER)
    if restate:
        path, episodes = table_of(root, "meta/episodes/*/*.parquet")
        ends = np.cumsum(lengths) / fps
        pq.write_table(with_columns(episodes, **{STARTS: [0.0, *ends[:-1]], ENDS: ends}), path)


LENGTHS = [r.length for r in FEW]
SHORT = [n - (k == 1) for k, n in enumerate(LENGTHS)]


def in_one_file(
    root: Path, change: Callable[[Path], object] | None = None, **dataset_options: Any
) -> None:
    """Four recordings in one video file, by LeRobot's writer."""
    shutil.rmtree(root)
    vector = {"dtype": "float32", "shape": (len(small.NAMES),), "names": small.NAMES}
    video = {
        "dtype": "video",
        "shape": (small.SIDE, small.SIDE, 3),
        "names": ["height", "width", "channels"],
    }
    features = {"observation.state": vector, "action": vector, small.CAMERA: video}
    dataset_options = {"rgb_encoder": small.h264()} | dataset_options
    dataset = small.with_lerobot().create(
        "local/arm", small.FPS, features, root=root, robot_type="toy_arm", **dataset_options
    )
    small.record(dataset, FEW)
    if change:
        change(root)


def v2(root: Path, change: Callable[[Path], object] | None = None, **writer_options: Any) -> None:
    small.write_v2(root, FEW, **writer_options)
    if change:
        change(root)


def film_v2(root: Path, num_more: int, fps: int = small.FPS) -> None:
    pictures = np.concatenate([small.pictures_of(FEW[1]), small.pictures_of(FEW[0])])[
        : FEW[1].length + num_more
    ]
    le.write_video(le.v2_video(root, small.CAMERA, 1), pictures, fps=fps, options=small.ENCODER)


def shift_v2_times(root: Path, by_s: float, jitter_s: float = 0.0) -> None:
    path = le.v2_data(root, 1)
    times = np.arange(FEW[1].length) / small.FPS + by_s
    jitter = np.random.default_rng(0).uniform(-jitter_s, jitter_s, len(times))
    le.edit_parquet(path, timestamp=(times + jitter).astype(np.float32))


def trim_v2(root: Path) -> None:
    path = le.v2_data(root, 1)
    rows = pq.ParquetFile(path).read().slice(7)
    pq.write_table(with_columns(rows, frame_index=np.arange(rows.num_rows)), path)


CASES: dict[str, Callable[[Path], object]] = {
    "recorded, four to a file": lambda root: None,
    "recorded in one file": in_one_file,
    "recorded as AV1": partial(in_one_file, rgb_encoder=None),
    "a file for each": partial(in_one_file, video_files_size_in_mb=0.0001),
    "two cameras": partial(small.write_v3, recordings=FEW, cameras=(small.CAMERA, small.WRIST)),
    "delete_episodes": partial(changes.delete_by_tool, episodes=(2, 5)),
    "split": changes.split_by_tool,
    "merge": changes.merge_by_tool,
    "reencode_videos": changes.encode_by_tool,
    "encoded by hand": changes.encode_by_hand,
    "modify_tasks": changes.rename_tasks_by_tool,
    "tasks in another order": changes.reorder_tasks,
    "texts corrected": changes.correct_texts,
    "resumed": changes.append_by_writer,
    "files renamed": changes.rename_v3_files,
    "rows lack at the start": partial(in_one_file, change=partial(keep_rows, keeps=lambda _, k: k >= 7)),
    "rows lack in the middle": partial(
        in_one_file, change=partial(keep_rows, keeps=lambda _, k: (k < 9) | (k >= 15))
    ),
    "rows lack at the end": partial(in_one_file, change=partial(keep_rows, keeps=lambda _, k: k < 30)),
    "rows of one episode lack": partial(
        in_one_file, change=partial(keep_rows, keeps=lambda e, k: (e != 1) | (k >= 5))
    ),
    "starts drift": partial(in_one_file, change=partial(drift, by_s=0.021)),
    "starts drift, rows lack": partial(
        in_one_file, change=lambda root: (keep_rows(root, lambda _, k: k >= 7), drift(root, 0.012))
    ),
    "a frame lacks": partial(in_one_file, change=partial(film, lengths=SHORT, restate=True)),
    "a frame lacks, starts by rows": partial(in_one_file, change=partial(film, lengths=SHORT)),
    "another rate in the file": partial(in_one_file, change=partial(film, lengths=LENGTHS, fps=11)),
    "another rate, starts by it": partial(in_one_file, change=partial(film, lengths=LENGTHS, fps=11, restate=True)),
    "converted from v2.1": partial(v2, change=changes.convert_by_lerobot),
    "v2.1": v2,
    "v2.1, two cameras": partial(v2, cameras=(small.CAMERA, small.WRIST)),
    "v2.1, a longer video": partial(v2, change=partial(film_v2, num_more=1)),
    "v2.1, a shorter video": partial(v2, change=partial(film_v2, num_more=-1)),
    "v2.1, another rate": partial(v2, change=partial(film_v2, num_more=0, fps=11)),
    "v2.1, times begin late": partial(v2, change=partial(shift_v2_times, by_s=1 / small.FPS)),
    "v2.1, times of a clock": partial(v2, change=partial(shift_v2_times, by_s=0.0, jitter_s=0.02)),
    "v2.1, rows lack": partial(v2, change=trim_v2),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return small.write_v3(tmp_path_factory.mktemp("oracle") / "arm", small.RECORDINGS)


# Looked at each time: one of each kind. `make oracle` looks at all
EACH_TIME = (
    "recorded in one file", "delete_episodes", "rows lack in the middle", "starts drift", "a frame lacks",
    "another rate in the file", "converted from v2.1", "v2.1", "v2.1, a longer video",
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case in EACH_TIME else pytest.mark.long)
        for case in CASES
    ],
)
def test_each_frame_is_lerobots_or_a_finding_says_so(base, tmp_path, monkeypatch, case):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    root = shutil.copytree(base, tmp_path / "arm")
    CASES[case](root)
    source = le.source_of(root)
    listing = list_episodes(source)
    measured = frames_stage(source, listing.records, 0, FramesConfig(), lambda *_: None)
    findings = [*listing.findings, *measured.findings]
    assert listing.records
    compare = _by_function if case.startswith("v2.1") else _by_dataset
    for record, difference in compare(source, listing.records, findings):
        explained = [
            f
            for f in findings
            if f.episode_index == record.episode_index and f.reason in OF_PICTURES
        ]
        is_explained = difference.startswith("picture") and bool(explained)
        assert is_explained, f"episode {record.episode_index}: {difference}"


def _pictures(source: Source, record: EpisodeRecord) -> dict[str, list[np.ndarray]]:
    episode = read_episode(source, record)
    return {
        camera: [p.rgb().copy() for _, _, p in episode.frames(camera)] for camera in record.cameras
    }


def _off(ours: list[np.ndarray], row: int, theirs: np.ndarray | None) -> str:
    if theirs is None or row >= len(ours):
        return f"picture {row}: {'LeRobot has none' if theirs is None else 'there is none'}"
    off = np.abs(ours[row].astype(int) - theirs).mean()
    if off > 0.5:
        return f"picture {row}: {off:.1f} of 255 off"
    return ""


def _is_unusable(record: EpisodeRecord, findings: list[Finding]) -> bool:
    return any(
        f.severity == "unusable" and f.episode_index == record.episode_index for f in findings
    )


def _by_dataset(
    source: Source, records: tuple[EpisodeRecord, ...], findings: list[Finding]
) -> Iterator[tuple[EpisodeRecord, str]]:
    """What differs from LeRobotDataset."""
    dataset = small.with_lerobot()("local/arm", root=source.root, video_backend="pyav")
    assert {r.episode_index for r in records} == {*range(dataset.num_episodes)}
    for record in records:
        about = dataset.meta.episodes[record.episode_index]
        begin = about["dataset_from_index"]
        end = about["dataset_to_index"]
        if record.num_rows != end - begin:
            yield record, f"{record.num_rows} rows, not {end - begin}"
            continue
        # An unusable episode is shown to nobody, and says why
        if _is_unusable(record, findings):
            continue
        episode = read_episode(source, record)
        ours = _pictures(source, record)
        assert episode.timestamps_s is not None
        for row in range(end - begin):
            try:
                item: Any = dataset[begin + row]
            except (ValueError, IndexError):  # its tolerance
                for camera in record.cameras:
                    yield record, _off(ours[camera], row, None)
                continue
            item_key = int(item["episode_index"]), int(item["frame_index"]), item["task"]
            if item_key != (record.episode_index, row, record.task):
                yield record, f"row {row}: {item_key}"
            if not np.array_equal(
                item["observation.state"].numpy(), episode.state[row].astype(np.float32)
            ):
                yield record, f"row {row}: another state"
            if abs(float(item["timestamp"]) - episode.timestamps_s[row]) > 1e-6:
                yield record, f"row {row}: another time"
            for camera in record.cameras:
                theirs = (item[camera].numpy().transpose(1, 2, 0) * 255).round()
                if difference := _off(ours[camera], row, theirs):
                    yield record, difference


def _by_function(
    source: Source, records: tuple[EpisodeRecord, ...], findings: list[Finding]
) -> Iterator[tuple[EpisodeRecord, str]]:
    small.with_lerobot()
    from lerobot.datasets.video_utils import decode_video_frames

    for record in records:
        if _is_unusable(record, findings):
            continue
        times = (
            pq.ParquetFile(source.resolve(record.data_uri or "")).read()["timestamp"].to_pylist()
        )
        for video, pictures in zip(record.videos, _pictures(source, record).values(), strict=True):
            for row, time_s in enumerate(times):
                try:
                    decoded = decode_video_frames(source.resolve(video.uri), [time_s], 1e-4, "pyav")
                    theirs = (decoded[0].numpy().transpose(1, 2, 0) * 255).round()
                except (ValueError, IndexError):
                    theirs = None
                if difference := _off(pictures, row, theirs):
                    yield record, difference
