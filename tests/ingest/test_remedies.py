"""Every remedy that a finding of a source names is tried: the fault is made, the remedy done, the
finding is gone."""

import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
from tests.kits import parts
from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_datasets import write_base
from tests.kits.lerobot_writer import FRONT, WRIST, source_of
from tests.kits.rh20t_writer import write_scene
from tests.kits.step_forms import V2_FORMS
from tests.kits.told import GOLDEN
from tests.kits.zarr_writer import write_replay

type Fields = dict[str, Any]  # of the registry entry
# Done to a dataset's folder, which may give fields of the registry entry; `whole` beside it is as it was before
type Change = Callable[[Path], object]


# Where the remedy is nothing to do, or lies outside of files: with the robot, another tool, a model, or people
NOTHING = {
    "human_demonstration", "timestamp_drift", "unsorted_stamps", "gripper_unused",
    "rows_not_read", "frames_missing", "idle_end", "camera_moved",
}  # fmt: skip
OUTSIDE = {
    "another tool, model or server": {
        "other_layout", "bad_reply", "refused", "cut", "refusal", "filtered", "wrong_request",
    },
    "a person": {
        "task_inferred", "needs_review", "transfer_no_fit", "correction_outdated", "label_rejected",
        "camera_jumps", "gripper_stays", "outcome_differs", "text_differs",
    },
    "where it is recorded": {
        "rows_late", "state_jumps", "state_stuck", "action_clipped", "dead_dimension",
        "other_scale", "other_pictures",
    },
}  # fmt: skip
# The remedy is the file as it was, such as fetched again. What is said without it stands in tests/data/told
AS_IT_WAS = {
    "no_metadata", "no_episodes", "no_data", "unreadable_data", "lfs_pointer", "unknown_codec", "missing_chunks",
    "never_ends", "no_video", "missing_camera", "bad_video_pointer", "undecodable_video",
}  # fmt: skip
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
    "nan_state": ("tests/annotate/test_frames.py", "values_that_are_no_finite_numbers"),
}


def findings(root: Path, fields: Fields) -> dict[str, str]:
    source = source_of(root, **{name: fields[name] for name in fields if name != "min_frames"})
    listing = settle(list_episodes(source), source.config)
    surveyed = survey(source, listing.records, listing.robot)
    unusable = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    usable = [record for record in listing.records if record.episode_index not in unusable]
    config = FramesConfig(keyframe_interval_s=1e9, min_frames=fields.get("min_frames", 5))
    measured = frames_stage(
        source, usable, 0, config, lambda sha256, jpeg: None, signals=surveyed.signals
    )
    return {f.reason: f.detail for f in (*listing.findings, *surveyed.findings, *measured.findings)}


def v2(*lengths: int, cameras: tuple[str, ...] = (FRONT, WRIST)) -> Change:
    return lambda root: le.write_v2(root, lengths or (6, 7, 8), cameras=cameras)


def base(name: str) -> Change:
    return lambda root: write_base(name, root)


def lost(*patterns: str) -> Change:
    """Files that are gone."""

    def delete(root: Path) -> None:
        for path in _matching(root, patterns):
            path.unlink()

    return delete


def cut(pattern: str) -> Change:
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


def fetched(root: Path) -> None:
    """All of it is fetched again."""
    shutil.rmtree(root)
    shutil.copytree(root.with_name("whole"), root)


def entry(**fields: Any) -> Change:
    return lambda root: fields


def edited(**info: Any) -> Change:
    return lambda root: le.edit_info(root, **info)


def changed(pattern: str, change: Mapping[str, Any] | Callable[[Any], Any]) -> Change:
    """Other parts of a file, or what a function makes of them."""

    def write(root: Path) -> None:
        for path in _matching(root, (pattern,)):
            parts.change(path, change)

    return write


def both(*changes: Change) -> Change:
    def write(root: Path) -> None:
        for change in changes:
            change(root)

    return write


def linked_out(root: Path) -> None:
    path = le.v2_video(root, FRONT, 1)
    outside_file = root.parent / "outside.mp4"
    path.rename(outside_file)
    path.symlink_to(outside_file)


def copied_in(root: Path) -> None:
    path = le.v2_video(root, FRONT, 1)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def shuffled(root: Path) -> None:
    path = le.v3_data(root, 0)
    table = le.pq.ParquetFile(path).read()
    order = np.arange(table.num_rows)
    order[[1, -2]] = order[[-2, 1]]
    le.pq.write_table(table.take(order), path)


def in_order(root: Path) -> None:
    path = le.v3_data(root, 0)
    table = le.pq.ParquetFile(path).read()
    le.pq.write_table(
        table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")]), path
    )


def vectors(values: np.ndarray) -> le.pa.Array:
    return le.pa.FixedSizeListArray.from_arrays(le.pa.array(values.reshape(-1)), 3)


def at_rate(rate: int) -> Change:
    """Rows and pictures at another rate than info.json states."""

    def write(root: Path) -> None:
        for episode, length in enumerate((6, 7, 8)):
            times = (np.arange(length) / rate).astype(np.float32)
            le.edit_parquet(le.v2_data(root, episode), timestamp=times)
            for path in root.glob(f"videos/*/*/*{episode:03d}.mp4"):
                le.write_video(path, range(length), fps=rate)

    return write


def with_statistics(factor: float) -> Change:
    def write(root: Path) -> None:
        tables = [le.pq.ParquetFile(le.v2_data(root, episode)).read() for episode in range(3)]
        values = np.concatenate(
            [np.array(table["observation.state"].to_pylist()) for table in tables]
        )
        highest = (values.max(axis=0) * factor).tolist()
        numbers = {"min": values.min(axis=0).tolist(), "max": highest}
        numbers |= {"mean": values.mean(axis=0).tolist(), "std": values.std(axis=0).tolist()}
        parts.put(root, {"meta/stats.json": {"observation.state": numbers}})

    return write


def dimensions(
    values: Callable[[np.ndarray], np.ndarray], names: list[str] | None = None
) -> Change:
    def write(root: Path) -> None:
        about = {"dtype": "float32", "shape": [3], "names": names}
        le.declare(root, {"observation.state": about, "action": about})
        for episode, length in enumerate((20, 21)):
            rows = vectors(values(np.arange(length)).astype(np.float32))
            columns = dict.fromkeys(("observation.state", "action"), rows)
            le.edit_parquet(le.v2_data(root, episode), **columns)

    return write


def smooth(k: np.ndarray) -> np.ndarray:
    """Three joints that swing."""
    return np.stack([np.sin(k / 5 + phase) for phase in range(3)], axis=1)


def opening(k: np.ndarray) -> np.ndarray:
    values = smooth(k)
    values[:, 2] = np.where((k // 5) % 2 == 0, -1.0, 1.0)
    return values


def hand_of(k: np.ndarray) -> np.ndarray:
    moves = (k // 5) % 2
    return np.stack([moves, moves * 1.5, moves * 1.2], axis=1)


def recovered(root: Path) -> None:
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


def ends(*values: int) -> Change:
    def write(root: Path) -> None:
        group: Any = zarr.open_group(root / "umi.zarr", mode="r+", zarr_format=2)
        group["meta/episode_ends"][...] = values

    return write


def tfds(**of_first: Any) -> Change:
    """Two episodes, of which the first has other features."""

    def write(root: Path) -> Fields:
        rlds.write_dataset(root, {"train": [[rlds.episode(0, **of_first), rlds.episode(1, 7)]]})
        return {"fps": 5.0}

    return write


def scene(root: Path) -> None:
    cameras = {"cam_1": 6}
    metadata = {"rating": 7, "calib": 3}
    write_scene(root / "RH20T_cfg3", 1, cameras=cameras, metadata=metadata, plain=6)


def pickled(root: Path) -> None:
    for path in root.rglob("transformed/*.npy"):
        rows = np.load(path)
        np.save(path, np.array({"cam_1": rows}, dtype=object), allow_pickle=True)


def plain_again(root: Path) -> None:
    for path in root.rglob("transformed/*.npy"):
        rows = np.load(path, allow_pickle=True).item()["cam_1"]
        np.save(path, rows, allow_pickle=False)


def kitchen(instruction: str | None) -> Change:
    name = "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5"
    return lambda root: hdf5.write_libero(root / name, {0: 6}, instruction)


def labelled(*forms: str, spans: list[tuple[str, int, int]]) -> Change:
    def write(root: Path) -> None:
        for form in forms:
            V2_FORMS[form](root, spans)

    return write


def one_form(root: Path) -> None:
    fetched(root)
    labelled("action_config", spans=STEPS)(root)


OTHER_FORM = "subtask_index"
ODD_NAME = b"notes-\xff.txt".decode(errors="surrogateescape")
FILM = {"c.mp4": range(6), "metadata.jsonl": [{"file": "c.mp4", "task": "sort"}]}
GRIPPER = {"column": "state", "dimension": 2}
STEPS = [("reach", 0, 4), ("grasp", 4, 8)]
FINGERS = ["index_finger_0", "middle_finger_0", "ring_finger_0"]
FORCES = np.random.default_rng(0).normal(size=(7, 6))
EPISODES = "meta/episodes.jsonl"
TASKS = "meta/tasks.jsonl"
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
textless = both(changed(TASKS, lambda rows: []), changed(EPISODES, {"tasks": []}))
# A reason, a dataset, what is done to it, and what the remedy says
CASES: list[tuple[str, Change, Change, Change]] = [
    ("stale_statistics", v2(), with_statistics(0.8), with_statistics(1.0)),
    (
        "camera_without_files",
        v2(),
        lost(f"videos/*/{WRIST}/*"),
        edited(features=le.features([FRONT], le.RATE)),
    ),
    ("path_escape", v2(), linked_out, copied_in),
    (
        "path_escape",
        v2(),
        lambda root: (root / ODD_NAME).write_text("x"),
        lambda root: (root / ODD_NAME).rename(root / "notes.txt"),
    ),
    (
        "path_template",
        v2(),
        edited(data_path="rows/{episode_index:06d}.parquet"),
        edited(data_path=V2_DATA),
    ),
    ("over_limit", v2(), entry(limits={"max_rows": 7}), entry(limits={"max_rows": 8})),
    (
        "not_in_metadata",
        v2(),
        changed(EPISODES, lambda rows: rows[:2]),
        lost("data/*/*002.parquet", "videos/*/*/*002.mp4"),
    ),
    (
        "length_differs",
        v2(),
        changed(EPISODES, {"length": 5}),
        changed(EPISODES, lambda rows: [r | {"length": 6 + r["episode_index"]} for r in rows]),
    ),
    (
        "length_differs",
        v2(cameras=(FRONT,)),
        lambda root: le.write_video(le.v2_video(root, FRONT, 0), range(9)),
        lambda root: le.write_video(le.v2_video(root, FRONT, 0), range(6)),
    ),
    ("row_order", base("lerobot_v3"), shuffled, in_order),
    ("frame_rate", v2(), at_rate(20), edited(fps=20)),
    ("frame_rate", v2(), at_rate(20), entry(fps=20.0)),
    ("no_frame_rate", tfds(), entry(fps=None), entry(fps=5.0)),
    (
        "missing_topic",
        recorded,
        entry(keys={"state": ["/joint_state"]}),
        entry(keys={"state": ["/joint_states"]}),
    ),
    ("cut_off", recorded, cut_off, recovered),
    ("bad_episode_ends", stored, ends(13, 6), ends(6, 13)),
    ("no_gripper", v2(20, 21), dimensions(smooth), entry(gripper=GRIPPER)),
    ("no_gripper", v2(20, 21), dimensions(smooth), entry(gripper={"column": "none"})),
    (
        "polarity_unknown",
        v2(20, 21),
        dimensions(opening, ["x", "y", "gripper"]),
        entry(gripper=GRIPPER | {"closed": -1.0, "open": 1.0}),
    ),
    (
        "polarity_unknown",
        v2(20, 21),
        dimensions(hand_of, FINGERS),
        entry(gripper={"column": "state", "dimension": [0, 1, 2], "closed": 3.0, "open": 0.0}),
    ),
    (
        "steps_differ",
        v2(12, 9),
        both(labelled("action_config", spans=STEPS), labelled(OTHER_FORM, spans=[("push", 0, 8)])),
        one_form,
    ),
    (
        "stray_file",
        tfds(),
        lambda root: shutil.copytree(root / "1.0.0", root / "0.9.0"),
        lambda root: shutil.rmtree(root / "0.9.0"),
    ),
    ("too_short", v2(6, 3), entry(), entry(min_frames=3)),
    (
        "duplicate_episode",
        lambda root: parts.put(root, FILM),
        changed("metadata.jsonl", lambda rows: rows * 2),
        changed("metadata.jsonl", lambda rows: rows[:1]),
    ),
    (
        "known_bad",
        v2(),
        entry(bad_episodes={"episode_000001": "the arm was unplugged"}),
        entry(bad_episodes={}),
    ),
    ("known_bad", tfds(), tfds(invalid=[1]), tfds()),
    ("no_task", v2(), textless, changed(EPISODES, {"tasks": ["pick"]})),
    ("no_task", v2(), textless, entry(task="pick")),
    ("task_from_name", kitchen("turn on the stove"), kitchen(None), kitchen("turn on the stove")),
    (
        "bad_steps",
        v2(12, 9),
        labelled("action_config", spans=[("reach", 0, 6), ("grasp", 4, 3)]),
        labelled("action_config", spans=STEPS),
    ),
    ("pickled_data", scene, pickled, plain_again),
    (
        "part_not_used",
        base("aloha"),
        both(
            changed("episode_0.hdf5", {"observations/quux_forces": FORCES[:6]}),
            changed("episode_1.hdf5", {"observations/quux_forces": FORCES}),
        ),
        entry(keys={"state": ["observations/qpos", "observations/quux_forces"]}),
    ),
]


def fields_after(change: Change, root: Path, fields: Fields) -> Fields:
    result = change(root)
    if isinstance(result, dict):
        return fields | result
    return fields


@pytest.mark.parametrize(("reason", "write", "fault", "cure"), CASES)
def test_a_remedy_cures(tmp_path, reason, write, fault, cure):
    whole = tmp_path / "whole"
    root = tmp_path / "set"
    whole.mkdir()
    fields = fields_after(write, whole, {})
    if reason != "too_short":
        assert reason not in findings(whole, fields)
    shutil.copytree(whole, root)
    fields = fields_after(fault, root, fields)
    findings_before = findings(root, fields)
    assert reason in findings_before, findings_before
    findings_after = findings(root, fields_after(cure, root, fields))
    assert reason not in findings_after, findings_after
    # The cure brings nothing worse than was there
    harmless = {"gripper_unused", "part_not_used", "no_gripper"}
    assert set(findings_after) - set(findings_before) <= harmless, findings_after


def test_every_code_has_its_remedy_tried_or_says_why_not():
    tried = {reason for reason, *_ in CASES} | ELSEWHERE.keys()
    untried = NOTHING.union(AS_IT_WAS, *OUTSIDE.values())
    assert tried & untried == set()
    assert tried | untried == REASONS.keys()
    for reason in NOTHING:
        assert "nothing to do" in REASONS[reason].remedy, reason
    golden_text = " ".join(path.read_text() for path in GOLDEN.glob("*.json"))
    assert [reason for reason in AS_IT_WAS if f" {reason} " not in golden_text] == []
    for path, name in ELSEWHERE.values():
        assert re.search(rf"def test_\w*{name}", (ROOT / path).read_text())
