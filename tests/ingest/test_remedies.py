"""Every remedy that a finding of a source names is tried: the fault is made, the remedy done, the finding is gone."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from annotate.config import FramesConfig
from annotate.frames import frames_stage
from core.paths import ROOT
from ingest.episodes import settle
from ingest.reasons import REASONS
from ingest.signals.survey import survey
from ingest.source import list_episodes
from tests.kits import hdf5_writer as hdf5
from tests.kits import lerobot_writer as le
from tests.kits import mcap_writer as mcap
from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_datasets import write_base
from tests.kits.lerobot_writer import FRONT, LFS_POINTER, WRIST, source_of
from tests.kits.rh20t_writer import write_scene
from tests.kits.step_forms import V2_FORMS
from tests.kits.zarr_writer import write_replay

type Fields = dict[str, Any]  # of the registry entry
type Write = Callable[[Path], Fields | None]
# Of the dataset; the second folder holds it as it was before
type Cure = Callable[[Path, Path], Fields | None]


@dataclass(frozen=True)
class Case:
    """A dataset, what is done to it, and what the remedy says; the last two may give fields of the registry entry."""

    write: Write
    fault: Write
    cure: Cure


# Where the remedy is nothing to do, or lies outside of files: with the robot, another tool, a model, or people
NOTHING = {
    "human_demonstration", "timestamp_drift", "unsorted_stamps", "gripper_unused",
    "rows_not_read", "frames_missing", "idle_end", "camera_moved",
}  # fmt: skip
OUTSIDE = {
    "other_layout": "the layout's own tools convert it",
    "bad_reply": "another model",
    "refused": "fewer pictures in a question",
    "cut": "another model",
    "refusal": "another model",
    "filtered": "another model",
    "wrong_request": "another server",
    "task_inferred": "a person reads it",
    "needs_review": "a person looks at it",
    "transfer_no_fit": "a person corrects its steps",
    "correction_outdated": "a person decides in the review queue",
    "label_rejected": "a person corrects the segments",
    "camera_jumps": "a person looks at the frame",
    "rows_late": "the robot's clocks are synchronised before it records again",
    "state_jumps": "the values are corrected where they were recorded",
    "state_stuck": "the driver is mended before the robot records again",
    "action_clipped": "it is recorded again",
    "dead_dimension": "the joint's sensor is mended",
    "other_scale": "the values are converted where they were recorded",
    "gripper_stays": "a person looks at the pictures",
    "other_pictures": "the run's own videos are copied",
    "outcome_differs": "a person looks at the end",
    "text_differs": "a person corrects the text",
}
# Tried where the fault is made: the module, and its test
ELSEWHERE = {
    "steps_lost": (
        "tests/ingest/formats/test_lerobot_edits.py",
        "texts_that_a_tool_leaves_out",
    ),
    "changed_during_build": ("tests/warehouse/test_measured.py", "the_next_build_takes"),
    "taken_down": ("tests/pipeline/test_kept_workspaces.py", ""),
    "copy": ("tests/pipeline/test_kept_workspaces.py", ""),
    "camera_frozen": ("tests/cli/test_without.py", ""),
    "camera_black": ("tests/cli/test_without.py", ""),
}


def findings(root: Path, fields: Fields) -> dict[str, str]:
    """The reasons of all findings of listing, survey and measuring, with a detail of each."""
    source = source_of(root, **fields)
    listing = settle(list_episodes(source), source.config)
    surveyed = survey(source, listing.records, listing.robot)
    unusable = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    usable = [record for record in listing.records if record.episode_index not in unusable]
    config = FramesConfig(keyframe_interval_s=1e9, min_frames=MIN_FRAMES[0])
    measured = frames_stage(
        source, usable, 0, config, lambda sha256, jpeg: None, signals=surveyed.signals
    )
    return {f.reason: f.detail for f in (*listing.findings, *surveyed.findings, *measured.findings)}


MIN_FRAMES = [5]  # of the build's configuration


def v2(*lengths: int, cameras: tuple[str, ...] = (FRONT, WRIST)) -> Write:
    return lambda root: le.write_v2(root, lengths or (6, 7, 8), cameras=cameras) and None


def base(name: str) -> Write:
    return lambda root: dict(write_base(name, root))


def lost(*patterns: str) -> Write:
    """Files that are gone."""

    def delete(root: Path) -> None:
        for path in _matching(root, patterns):
            path.unlink()

    return delete


def written(pattern: str, data: bytes | str) -> Write:
    def write(root: Path) -> None:
        for path in _matching(root, (pattern,)):
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def cut(pattern: str) -> Write:
    """Files of which only the first half is here."""

    def halve(root: Path) -> None:
        for path in _matching(root, (pattern,)):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return halve


def _matching(root: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        paths = sorted(root.glob(pattern))
        assert paths, pattern
        yield from paths


def fetched(root: Path, whole: Path) -> None:
    """All of it is fetched again."""
    shutil.rmtree(root)
    shutil.copytree(whole, root)


def entry(**fields: Any) -> Cure:
    return lambda root, whole: fields


def edited(**info: Any) -> Cure:
    return lambda root, whole: le.edit_info(root, **info)


def edit_episodes(
    root: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    path = root / "meta/episodes.jsonl"
    le.write_json_lines(path, change([json.loads(line) for line in path.read_text().splitlines()]))


def without_wrist(root: Path, whole: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    le.edit_info(root, features={name: about for name, about in features.items() if name != WRIST})


def linked_out(root: Path) -> None:
    path = le.v2_video(root, FRONT, 1)
    outside_file = root.parent / "outside.mp4"
    path.rename(outside_file)
    path.symlink_to(outside_file)


def copied_in(root: Path, whole: Path) -> None:
    path = le.v2_video(root, FRONT, 1)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


BAD_NAME = b"notes-\xff.txt"


def badly_named(root: Path) -> None:
    _odd(root).write_text("x")


def renamed(root: Path, whole: Path) -> None:
    _odd(root).rename(root / "notes.txt")


def _odd(root: Path) -> Path:
    return root / BAD_NAME.decode(errors="surrogateescape")


def shuffled(root: Path) -> None:
    path = le.v3_data(root, 0)
    table = le.pq.ParquetFile(path).read()
    order = np.arange(table.num_rows)
    order[[1, -2]] = order[[-2, 1]]
    le.pq.write_table(table.take(order), path)


def in_order(root: Path, whole: Path) -> None:
    path = le.v3_data(root, 0)
    table = le.pq.ParquetFile(path).read()
    le.pq.write_table(
        table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")]), path
    )


def with_nan(root: Path) -> None:
    path = le.v2_data(root, 1)
    values = np.full((7, 3), np.nan, np.float32)
    vectors = le.pa.FixedSizeListArray.from_arrays(le.pa.array(values.reshape(-1)), 3)
    le.edit_parquet(path, **{"observation.state": vectors})


def at_rate(rate: int) -> Write:
    """Rows and pictures at another rate than info.json states."""

    def write(root: Path) -> None:
        for episode, length in enumerate((6, 7, 8)):
            times = (np.arange(length) / rate).astype(np.float32)
            le.edit_parquet(le.v2_data(root, episode), timestamp=times)
            for path in root.glob(f"videos/*/*/*{episode:03d}.mp4"):
                le.write_video(path, range(length), fps=rate)

    return write


def with_statistics(factor: float) -> Write:
    """The ranges of states that are stored of all rows, times a factor."""

    def write(root: Path) -> None:
        tables = [le.pq.ParquetFile(le.v2_data(root, episode)).read() for episode in range(3)]
        values = np.concatenate(
            [np.array(table["observation.state"].to_pylist()) for table in tables]
        )
        numbers = {
            "min": values.min(axis=0),
            "max": values.max(axis=0) * factor,
            "mean": values.mean(axis=0),
        }
        numbers["std"] = values.std(axis=0)
        stored = {
            "observation.state": {
                name: of_dimensions.tolist() for name, of_dimensions in numbers.items()
            }
        }
        (root / "meta/stats.json").write_text(json.dumps(stored))

    return write


def unnamed(values: Callable[[np.ndarray], np.ndarray]) -> Write:
    """State and action whose dimensions have no names; the state's values are given by the row's number."""

    def write(root: Path) -> None:
        features = json.loads((root / "meta/info.json").read_text())["features"]
        plain = {"dtype": "float32", "shape": [3], "names": None}
        le.edit_info(root, features=features | {"observation.state": plain, "action": plain})
        for episode, length in enumerate((20, 21)):
            rows = values(np.arange(length)).astype(np.float32)
            vectors = le.pa.FixedSizeListArray.from_arrays(le.pa.array(rows.reshape(-1)), 3)
            le.edit_parquet(
                le.v2_data(root, episode), **{"observation.state": vectors, "action": vectors}
            )

    return write


def smooth(k: np.ndarray) -> np.ndarray:
    """Three joints that swing."""
    return np.stack([np.sin(k / 5 + phase) for phase in range(3)], axis=1)


def opening(k: np.ndarray) -> np.ndarray:
    """Two joints that stand, and an end effector that moves without a sign of which end is open."""
    values = smooth(k)
    values[:, 2] = np.where((k // 5) % 2 == 0, -1.0, 1.0)
    return values


def hand_of(k: np.ndarray) -> np.ndarray:
    """Three fingers that move together, without a sign of which end is open."""
    moves = (k // 5) % 2
    return np.stack([moves, moves * 1.5, moves * 1.2], axis=1)


def named_dimensions(names: list[str], values: Callable[[np.ndarray], np.ndarray]) -> Write:
    def write(root: Path) -> None:
        unnamed(values)(root)
        features = json.loads((root / "meta/info.json").read_text())["features"]
        about = {"dtype": "float32", "shape": [3], "names": names}
        le.edit_info(root, features=features | {"observation.state": about, "action": about})

    return write


def recovered(root: Path, whole: Path) -> None:
    """As `mcap recover` does: what stands before the damage, with an end mark."""
    path = root / "run.mcap"
    data = path.read_bytes()
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        with suppress(EndOfFile):
            for record in StreamReader(io.BytesIO(data)).records:
                if isinstance(record, Schema):
                    schemas[record.id] = writer.register_schema(
                        record.name, record.encoding, record.data
                    )
                elif isinstance(record, Channel):
                    schema = schemas[record.schema_id]
                    channels[record.id] = writer.register_channel(
                        record.topic, record.message_encoding, schema
                    )
                elif isinstance(record, Message):
                    times = record.log_time, record.data, record.publish_time
                    writer.add_message(channels[record.channel_id], *times)
        writer.finish()


def recorded(root: Path) -> None:
    mcap.record(root)


def cut_off(root: Path) -> None:
    with mcap.recorder(root / "run.mcap", chunk_size=2000) as recording:
        for k in range(200):
            time_ns = mcap.START + k * mcap.SECOND // 100
            recording.move(k / 100, k // 50, time_ns)
            if k % 10 == 0:
                recording.show(k // 10, time_ns + mcap.SECOND // 1000)
    data = (root / "run.mcap").read_bytes()
    (root / "run.mcap").write_bytes(data[: len(data) * 2 // 3])


def stored(root: Path) -> None:
    write_replay(root / "umi.zarr", [6, 7], task="fold", fps=20)


def wrong_ends(root: Path) -> None:
    group: Any = zarr.open_group(root / "umi.zarr", mode="r+", zarr_format=2)
    group["meta/episode_ends"][...] = [13, 6]


def right_ends(root: Path, whole: Path) -> None:
    group: Any = zarr.open_group(root / "umi.zarr", mode="r+", zarr_format=2)
    group["meta/episode_ends"][...] = [6, 13]


def packed_oddly(root: Path) -> None:
    path = root / "umi.zarr/data/robot0_gripper_width/.zarray"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"filters": [{"id": "delta", "dtype": "<f4"}]})
    )


def packed_again(root: Path, whole: Path) -> None:
    shutil.rmtree(root / "umi.zarr")
    stored(root)


def tfds(root: Path) -> Fields:
    rlds.write_dataset(root, {"train": [[rlds.episode(0), rlds.episode(1, 7)]]})
    return {"fps": 5.0}


def without_end(root: Path) -> Fields:
    changes = {"steps/is_last": np.zeros(6, bool), "steps/is_terminal": np.zeros(6, bool)}
    rlds.write_dataset(root, {"train": [[rlds.episode(0, changes=changes), rlds.episode(1, 7)]]})
    return {"fps": 5.0}


def marked(root: Path) -> None:
    rlds.write_dataset(
        root, {"train": [[rlds.episode(0, changes={INVALID_MARK: [1]}), rlds.episode(1, 7)]]}
    )


def unmarked(root: Path, whole: Path) -> None:
    tfds(root)


def without_chunk(root: Path) -> None:
    """Of a picture."""
    for path in _matching(root, ("umi.zarr/data/camera0_rgb/3.0.0.0",)):
        path.unlink()


def with_forces(root: Path) -> None:
    for path, rows in zip(sorted(root.glob("*.hdf5")), (6, 7), strict=True):
        with h5py.File(path, "r+") as file:
            file["observations/quux_forces"] = np.random.default_rng(0).normal(size=(rows, 6))


def scene(root: Path) -> None:
    write_scene(
        root / "RH20T_cfg3", 1, cameras={"cam_1": 6}, metadata={"rating": 7, "calib": 3}, plain=6
    )


def pickled(root: Path) -> None:
    for path in root.rglob("transformed/*.npy"):
        rows = np.load(path)
        np.save(path, np.array({"cam_1": rows}, dtype=object), allow_pickle=True)


def plain_again(root: Path, whole: Path) -> None:
    for path in root.rglob("transformed/*.npy"):
        rows = np.load(path, allow_pickle=True).item()["cam_1"]
        np.save(path, rows, allow_pickle=False)


def kitchen(root: Path) -> None:
    hdf5.write_libero(root / "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5", {0: 6})


def textless(root: Path) -> None:
    hdf5.write_libero(root / "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5", {0: 6}, None)


def labelled(*forms: str, spans: list[tuple[str, int, int]]) -> Write:
    def write(root: Path) -> None:
        for form in forms:
            V2_FORMS[form](root, spans)

    return write


def twice(root: Path) -> None:
    data = (root / "metadata.jsonl").read_text()
    (root / "metadata.jsonl").write_text(data + data)


def once(root: Path, whole: Path) -> None:
    lines = (root / "metadata.jsonl").read_text().splitlines()
    (root / "metadata.jsonl").write_text(lines[0] + "\n")


def film(root: Path) -> None:
    le.write_video(root / "c.mp4", range(6))
    le.write_json_lines(root / "metadata.jsonl", [{"file": "c.mp4", "task": "sort"}])


def longer_film(root: Path) -> None:
    le.write_video(le.v2_video(root, FRONT, 0), range(9))


def cut_film(root: Path, whole: Path) -> None:
    le.write_video(le.v2_video(root, FRONT, 0), range(6))


def noise(root: Path) -> None:
    le.write_v2(root, [60])
    pictures = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    le.write_video(le.v2_video(root, FRONT, 0), list(pictures))


def damaged(root: Path) -> None:
    """Bytes in the middle of the pictures."""
    path = le.v2_video(root, FRONT, 0)
    data = bytearray(path.read_bytes())
    offset = (data.index(b"mdat") + 8 + len(data)) // 2
    data[offset : offset + 4] = b"\xa5" * 4
    path.write_bytes(data)


def differing_steps(root: Path) -> None:
    labelled("action_config", spans=STEPS)(root)
    labelled(OTHER_FORM, spans=[("push", 0, 8)])(root)


def one_form(root: Path, whole: Path) -> None:
    fetched(root, whole)
    labelled("action_config", spans=STEPS)(root)


def older_version(root: Path) -> None:
    shutil.copytree(root / "1.0.0", root / "0.9.0")


def without_older(root: Path, whole: Path) -> None:
    shutil.rmtree(root / "0.9.0")


def short_frames(root: Path, whole: Path) -> None:
    MIN_FRAMES[0] = 3


INVALID_MARK = "invalid"
OTHER_FORM = "subtask_index"
GRIPPER = {"column": "state", "dimension": 2}
STEPS = [("reach", 0, 4), ("grasp", 4, 8)]
CASES: dict[str, list[Case]] = {
    "stale_statistics": [
        Case(v2(), with_statistics(0.8), lambda root, whole: with_statistics(1.0)(root))
    ],
    "no_metadata": [Case(v2(), lost("meta/info.json"), fetched)],
    "no_episodes": [Case(v2(), lost("meta/episodes.jsonl", "data/*/*", "videos/*/*/*"), fetched)],
    "camera_without_files": [
        Case(v2(), lost(f"videos/*/{WRIST}/*"), fetched),
        Case(v2(), lost(f"videos/*/{WRIST}/*"), without_wrist),
    ],
    "path_escape": [Case(v2(), linked_out, copied_in), Case(v2(), badly_named, renamed)],
    "path_template": [
        Case(
            v2(),
            lambda root: le.edit_info(root, data_path="rows/{episode_index:06d}.parquet"),
            edited(data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"),
        )
    ],
    "no_data": [
        Case(v2(), lost("data/*/*001.parquet"), fetched),
        Case(
            v2(),
            lambda root: (
                lost("data/*/*001.parquet", "videos/*/*/*001.mp4")(root)
                or edit_episodes(root, lambda rows: [r for r in rows if r["episode_index"] != 1])
            ),
            fetched,
        ),
    ],
    "unreadable_data": [Case(v2(), cut("data/*/*001.parquet"), fetched)],
    "over_limit": [
        Case(v2(), lambda root: {"limits": {"max_rows": 7}}, entry(limits={"max_rows": 8})),
    ],
    "lfs_pointer": [Case(v2(), written("videos/*/*/*001.mp4", LFS_POINTER), fetched)],
    "not_in_metadata": [
        Case(v2(), lambda root: edit_episodes(root, lambda rows: rows[:2]), fetched),
        Case(
            v2(),
            lambda root: edit_episodes(root, lambda rows: rows[:2]),
            lambda root, whole: lost("data/*/*002.parquet", "videos/*/*/*002.mp4")(root),
        ),
    ],
    "length_differs": [
        Case(
            v2(),
            lambda root: edit_episodes(root, lambda rows: [row | {"length": 5} for row in rows]),
            lambda root, whole: edit_episodes(
                root, lambda rows: [row | {"length": 6 + row["episode_index"]} for row in rows]
            ),
        ),
        Case(v2(cameras=(FRONT,)), longer_film, cut_film),
    ],
    "row_order": [Case(base("lerobot_v3"), shuffled, in_order)],
    "nan_state": [Case(v2(), with_nan, fetched)],
    "frame_rate": [
        Case(v2(), at_rate(20), edited(fps=20)),
        Case(v2(), at_rate(20), entry(fps=20.0)),
    ],
    "no_frame_rate": [Case(tfds, lambda root: {"fps": None}, entry(fps=5.0))],
    "missing_topic": [
        Case(
            recorded,
            lambda root: {"keys": {"state": ["/joint_state"]}},
            entry(keys={"state": ["/joint_states"]}),
        )
    ],
    "cut_off": [Case(recorded, cut_off, recovered)],
    "bad_episode_ends": [Case(stored, wrong_ends, right_ends)],
    "unknown_codec": [Case(stored, packed_oddly, packed_again)],
    "missing_chunks": [Case(stored, without_chunk, fetched)],
    "never_ends": [Case(tfds, without_end, fetched)],
    "no_gripper": [
        Case(v2(20, 21), unnamed(smooth), entry(gripper=GRIPPER)),
        Case(v2(20, 21), unnamed(smooth), entry(gripper={"column": "none"})),
    ],
    "polarity_unknown": [
        Case(
            v2(20, 21),
            named_dimensions(["x", "y", "gripper"], opening),
            entry(gripper=GRIPPER | {"closed": -1.0, "open": 1.0}),
        ),
        Case(
            v2(20, 21),
            named_dimensions(["index_finger_0", "middle_finger_0", "ring_finger_0"], hand_of),
            entry(gripper={"column": "state", "dimension": [0, 1, 2], "closed": 3.0, "open": 0.0}),
        ),
    ],
    "no_video": [Case(v2(), lost("videos/*/*/*001.mp4"), fetched)],
    "missing_camera": [Case(v2(), lost(f"videos/*/{WRIST}/*001.mp4"), fetched)],
    "bad_video_pointer": [
        Case(
            base("lerobot_v3"),
            lambda root: le.edit_parquet(
                le.v3_meta(root), **{f"videos/{FRONT}/from_timestamp": [0.0, None, -4.0]}
            ),
            fetched,
        )
    ],
    "undecodable_video": [
        Case(v2(), written(f"videos/*/{FRONT}/*001.mp4", "no video"), fetched),
        Case(noise, damaged, fetched),
    ],
    "steps_differ": [Case(v2(12, 9), differing_steps, one_form)],
    "stray_file": [Case(tfds, older_version, without_older)],
    "too_short": [Case(v2(6, 3), lambda root: None, short_frames)],
    "duplicate_episode": [Case(film, twice, once)],
    "known_bad": [
        Case(
            v2(),
            lambda root: {"bad_episodes": {"episode_000001": "the arm was unplugged"}},
            entry(bad_episodes={}),
        ),
        Case(tfds, marked, unmarked),
    ],
    "no_task": [
        Case(
            v2(),
            lambda root: (
                le.write_json_lines(root / "meta/tasks.jsonl", [])
                or edit_episodes(root, lambda rows: [row | {"tasks": []} for row in rows])
            ),
            lambda root, whole: edit_episodes(
                root, lambda rows: [row | {"tasks": ["pick"]} for row in rows]
            ),
        ),
        Case(
            v2(),
            lambda root: (
                le.write_json_lines(root / "meta/tasks.jsonl", [])
                or edit_episodes(root, lambda rows: [row | {"tasks": []} for row in rows])
            ),
            entry(task="pick"),
        ),
    ],
    "task_from_name": [Case(kitchen, textless, lambda root, whole: kitchen(root))],
    "bad_steps": [
        Case(
            v2(12, 9),
            labelled("action_config", spans=[("reach", 0, 6), ("grasp", 4, 3)]),
            lambda root, whole: labelled("action_config", spans=STEPS)(root),
        )
    ],
    "pickled_data": [Case(scene, pickled, plain_again)],
    "part_not_used": [
        Case(
            base("aloha"),
            with_forces,
            entry(keys={"state": ["observations/qpos", "observations/quux_forces"]}),
        )
    ],
}


NUMBERED: list[tuple[str, int]] = []
for _reason, _cases in CASES.items():
    NUMBERED += [(_reason, number) for number in range(len(_cases))]


@pytest.mark.parametrize(("reason", "number"), NUMBERED)
def test_a_remedy_cures(tmp_path: Path, reason: str, number: int) -> None:
    case = CASES[reason][number]
    whole = tmp_path / "whole"
    root = tmp_path / "set"
    MIN_FRAMES[0] = 5
    whole.mkdir()
    fields = case.write(whole) or {}
    if reason != "too_short":
        assert reason not in findings(whole, fields)
    shutil.copytree(whole, root)
    fields |= case.fault(root) or {}
    findings_before = findings(root, fields)
    assert reason in findings_before, findings_before
    fields |= case.cure(root, whole) or {}
    findings_after = findings(root, fields)
    assert reason not in findings_after, findings_after
    # The cure brings nothing worse than was there
    assert set(findings_after) - set(findings_before) <= {
        "gripper_unused",
        "part_not_used",
        "no_gripper",
    }, findings_after


def test_every_code_has_its_remedy_tried_or_says_why_not() -> None:
    tried = CASES.keys() | ELSEWHERE.keys()
    untried = NOTHING | OUTSIDE.keys()
    assert tried & untried == set()
    assert tried | untried == REASONS.keys()
    for reason in NOTHING:
        assert "nothing to do" in REASONS[reason].remedy, reason
    for path, name in ELSEWHERE.values():
        assert re.search(rf"def test_\w*{name}", (ROOT / path).read_text())
