"""Data that is valid, and whose values mean something else than its names say: it is read as it is
meant, or told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr

from ingest.signals.survey import steps_in_rows, survey
from ingest.source import list_episodes, read_episode
from tests.kits import mcap_writer as mcap
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import edit_parquet, source_of, v2_data, write_v2
from tests.kits.parts import put
from tests.kits.told import Told, golden_rows
from tests.kits.zarr_writer import film, smooth, write_zarr

ROWS = 30
K = np.arange(ROWS)
STEPS = np.tile(np.arange(8), 3)  # of a flat file
ENDS = "meta/episode_ends"
LABELS = np.array(["row", ""], h5py.string_dtype())  # of dimensions
TEXTS = ["pick the cup", "open the drawer", "pick the cup"]


type Tree = Mapping[str, Any]


def write_demos(folder: Path, *of_demos: Tree, **stored: Any) -> Path:
    """Three groups of an action, a pose and a camera; the k-th tree is put into the k-th, `stored`
    into the file.

    A single tree is put into all of them.
    """
    tree: dict[str, Any] = {"data@fps": 10}
    for k in range(3):
        demo = {
            "/actions": smooth(ROWS, 7, k),
            "/obs/robot0_eef_pos": smooth(ROWS, 3, k),
            "/obs/front_image": film(ROWS, k),
        }
        if of_demos:
            demo |= of_demos[k if len(of_demos) > 1 else 0]
        tree |= {f"data/demo_{k}{name}": values for name, values in demo.items()}
    return put(folder, {"run.hdf5": tree | stored})


def write_flat(folder: Path, **arrays: Any) -> Path:
    rows = {"observations/state": smooth(24, 7), "observations/rgb": film(24)}
    tree = {"/@fps": 10, "actions": smooth(24, 7)} | rows | arrays
    return put(folder, {"run.hdf5": tree})


def write_runs(folder: Path, texts: Mapping[str, dict[str, Any]], fps: int = 10) -> Path:
    """Videos with a text beside each."""
    for name, text in texts.items():
        put(folder, {f"{name}.mp4": range(6), f"{name}.json": {"task": "pick"} | text}, fps)
    return folder


def write_run(folder: Path, **steps: Any) -> Path:
    """An episode of RLDS with other steps."""
    changes = {f"steps__{name}": values for name, values in steps.items()}
    return rlds.write_dataset(folder, {"train": [[rlds.episode(0, 12, **changes)]]})


@golden_rows
def test_outcomes(new) -> Told:
    successes = {
        "of stages": np.array([True, True, True, False]),
        "minus one": np.where(K == ROWS - 1, 1, -1),
        "of stages in rows": np.stack([K > 5, K > 10], axis=1),
    }
    for title, success in successes.items():
        yield f"HDF5, {title}", source_of(write_demos(new(), {"/success": success}))
    flags = ({"@success": "failed"}, *({"/success": np.arange(ROWS - k) > 20} for k in (1, 2)))
    title = "HDF5, of rows and once: a value more or less than rows is a flag of these, two are not"
    yield title, source_of(write_demos(new(), *flags))
    values = {f"run_{k}": {"success": value} for k, value in enumerate((0.8, True, "", None))}
    yield "metadata that is no truth", source_of(write_runs(new(), values))
    yield "metadata that says nothing", source_of(write_runs(new(), values | {"run_0": {}}))
    percents = {"meta/success": np.array([100.0, 0.0, np.nan])}
    yield "Zarr, in percent", source_of(write_zarr(new(), percents, {}, task="pick", fps=10))
    columns: dict[str, list] = {
        "minus one": [[-1] * 6, [*[-1] * 5, 1]],
        "stages": [[[k > 2, k > 4] for k in range(6)]] * 2,
        "a flag": [[k > 4 for k in range(6)]] * 2,
        "of another name": [[-1] * 5 + [1]] * 2,
    }
    for title, cells in columns.items():
        root = write_v2(new(), [6, 6])
        name = "next.success" if title == "of another name" else "success"
        for episode in range(2):
            edit_parquet(v2_data(root, episode), **{name: pa.array(cells[episode])})
        yield f"LeRobot, {title}", source_of(root)
    rows = np.arange(12)
    stages = np.stack([rows > 3, rows > 30, rows > 9], axis=1)
    features = rlds.features_json(steps={"success": rlds.tensor("bool", 3)})
    episode = rlds.episode(0, 12, steps__success=stages)
    yield "RLDS, stages", source_of(rlds.write_dataset(new(), {"train": [[episode]]}, features))


@golden_rows
def test_texts_of_all_episodes(new) -> Told:
    above = {"data/language_instruction": np.array([text.encode() for text in TEXTS])}
    yield "HDF5, above the episodes", source_of(write_demos(new(), **above))
    listed = {"/@tasks": [*TEXTS[:2], "press the button"]}
    yield "HDF5, an attribute", source_of(write_demos(new(), **listed))
    chosen = ({"@task_index": k % 2} for k in range(3))
    yield (
        "HDF5, chosen by a number",
        source_of(write_demos(new(), *chosen, **{"/@tasks": TEXTS[:2]})),
    )
    numbers = {"meta/task_index": np.array([0, 1, 0])}
    yield (
        "Zarr, chosen by a number",
        source_of(write_zarr(new(), numbers, {}, tasks=TEXTS[:2], fps=10)),
    )
    yield "Zarr", source_of(write_zarr(new(), {}, {}, task=TEXTS, fps=10))


@golden_rows
def test_ends_of_episodes(new) -> Told:
    for last in (23, 24):
        root = write_flat(new(), episode_ends=np.array([8, 16, last]))
        yield f"HDF5, the last is {last} of 24", source_of(root)
    root = write_zarr(new(), {}, {}, task="pick", fps=10)
    yield "Zarr, of all rows", source_of(root)
    store = zarr.open_group(root / "replay.zarr", mode="r+")
    del store[ENDS]
    store.create_array(ENDS, shape=(2,), dtype="int64", chunks=(2,))[...] = [5, 12]
    yield "Zarr, before the last row", source_of(root)
    starts: dict[str, dict[str, np.ndarray]] = {
        "firsts": {"is_first": STEPS == 0},
        "last done": {"is_first": STEPS == 0, "done": np.arange(24) == 23},
        "one": {"is_first": np.arange(24) == 0},
        "no terminal": {"terminals": np.zeros(24), "episode_index": np.repeat([0, 1, 2], 8)},
        "steps": {"frame_index": STEPS},
        "one by index": {"frame_index": STEPS, "episode_index": np.zeros(24)},
        "one by steps": {"frame_index": np.arange(24)},
    }
    for title, arrays in starts.items():
        yield f"a flat file, {title}", source_of(write_flat(new(), **arrays))
    ends = [{"/done": ROWS - 1 - k <= K} for k in range(3)]
    twice = np.isin(K, [11, ROWS - 1])
    marks = {"done": twice, "is_last": twice, "obs/is_first": K == 12, "frame_index": K % 12}
    for name, mark in marks.items():
        root = write_demos(new(), ends[0], {f"/{name}": mark}, ends[2])
        yield f"HDF5, within a group by {name}", source_of(root)
    unwritten = {"/done": {"shape": (ROWS,), "dtype": bool, "chunks": (8,)}}
    root = write_demos(new(), unwritten, {}, {})
    yield "HDF5, marks that were never written", source_of(root)
    steps = np.arange(12)
    firsts = (steps == 0) | (steps == 6)
    lasts = (steps == 5) | (steps == 11)
    root = write_run(new(), is_last=lasts, is_terminal=steps >= 10, is_first=firsts)
    yield "RLDS, ends and starts within an episode", source_of(root)
    root = write_v2(new(), [6, 6])
    for episode, rows in enumerate(((2, 5), (4, 5))):
        done = pa.array([k in rows for k in range(6)])
        edit_parquet(v2_data(root, episode), **{"next.done": done})
    yield "LeRobot, ends within an episode", source_of(root)


def odd_layouts(folder: Path) -> list[str]:
    """What the survey of the rows says of their dimensions."""
    source = source_of(folder)
    surveyed = survey(source, list_episodes(source).records, None)
    return [finding.detail for finding in surveyed.findings if finding.reason == "other_layout"]


def windows(values: np.ndarray, offsets: range) -> np.ndarray:
    """Of each row [d] those at some offsets, [n, h, d]; the first or last row where there is
    none."""
    places = np.arange(len(values))[:, None] + np.array(offsets)
    return values[np.clip(places, 0, len(values) - 1)]


@pytest.mark.parametrize(
    ("offsets", "num_steps"),
    [(range(8), 8), (range(-1, 1), 2), (range(0, -3, -1), 3), (range(1), 0)],
    ids=["chunks", "history", "newest first", "one step"],
)
def test_steps_in_rows(offsets, num_steps):
    rows = windows(smooth(ROWS, 4), offsets).reshape(ROWS, -1)
    assert steps_in_rows(rows) == num_steps
    assert steps_in_rows(np.zeros_like(rows)) == 0


def test_chunks_of_actions(tmp_path):
    of_demos = ({"/actions": windows(smooth(ROWS, 7, k), range(8))} for k in range(3))
    assert odd_layouts(write_demos(tmp_path, *of_demos)) == [
        "each row of the action repeats values of the rows beside it: 8 steps of 7 values, read as 56 dimensions"
    ]


def test_two_robots(tmp_path):
    write_demos(tmp_path, {}, {"/actions": smooth(ROWS, 3)}, {})
    [detail] = odd_layouts(tmp_path)
    assert detail.startswith("the dimensions of the action are not the same in all episodes: 7 (")
    assert detail.endswith("of episode 1: 3 (actions_0, actions_1, actions_2)")


def record_arms(path: Path, topics: list[str], joints: list[str]) -> None:
    with mcap.recorder(path) as recording:
        for k in range(100):
            time_ns = mcap.START + k * mcap.SECOND // 100
            for j, topic in enumerate(topics):
                message = {
                    "name": joints,
                    "position": [len(topic) + len(joint) + k / 100 for joint in joints],
                    "velocity": [],
                    "effort": [],
                }
                recording.write(topic, recording.joints, message, time_ns + j)
            if k % 10 == 0:
                recording.show(k // 10, time_ns + mcap.SECOND // 1000)


def test_mcap_topics_in_another_order(tmp_path):
    topics = ["/left/joint_states", "/right/joint_states"]
    record_arms(tmp_path / "a.mcap", topics, ["j0", "gripper"])
    record_arms(tmp_path / "b.mcap", topics[::-1], ["j0", "gripper"])
    source = source_of(tmp_path)
    first, second = (read_episode(source, r) for r in list_episodes(source).records)
    assert first.state_names == second.state_names
    assert first.state is not None
    assert second.state is not None
    assert np.allclose(first.state, second.state)
    assert not odd_layouts(tmp_path)


def test_mcap_joints_in_another_order(tmp_path):
    record_arms(tmp_path / "a.mcap", ["/joint_states"], ["j0", "gripper"])
    record_arms(tmp_path / "b.mcap", ["/joint_states"], ["gripper", "j0"])
    assert odd_layouts(tmp_path) == [
        "the dimensions of the state are not the same in all episodes: 2 (j0, gripper); "
        "of episode 1: 2 (gripper, j0)"
    ]


@golden_rows
def test_what_is_stated_beside_the_rows(new) -> Told:
    joints = [smooth(ROWS, 7, k) for k in range(3)]
    names = ("/gello/joint_positions", "/obs/prev_joint_positions")
    arrays = (dict.fromkeys(names, joints[k]) | {"/mask": K < 20} for k in range(3))
    yield "arrays of others than the robot", source_of(write_demos(new(), *arrays))
    lengths_by_demo = [
        {
            "@episode_length": ROWS + k,
            "/meta/num_steps": ROWS - k,
            "/tactile/data": np.zeros((5 * ROWS, 4)),
            "/tactile/num_samples": 5 * ROWS,
            "@length": "0.4 m",
        }
        for k in range(3)
    ]
    yield "HDF5, lengths", source_of(write_demos(new(), *lengths_by_demo))
    of_all = {"data@num_samples": 3 * ROWS}
    yield "HDF5, the number of all samples", source_of(write_demos(new(), **of_all))
    lengths = np.array([8, 8, 7])
    root = write_flat(new(), episode_ends=np.array([8, 16, 24]), episode_lengths=lengths)
    yield "HDF5, lengths of a flat file", source_of(root)
    of_zarr = {"meta/episode_length": np.array([5, 5, 5])}
    yield "Zarr, lengths", source_of(write_zarr(new(), of_zarr, {}, task="pick", fps=10))
    for kind, name in (
        ("attribute", "/obs/tactile@frequency"),
        ("array", "/obs/tactile/frequency"),
    ):
        sensor = {"/obs/tactile/frames": np.zeros((5 * ROWS, 4)), name: 500}
        of_others = sensor | {"/obs@hz": 20}
        root = write_demos(new(), sensor, of_others, of_others, **{"/@rate": 40})
        yield f"a sensor's rate, as an {kind}", source_of(root)
    pose = "/obs/robot0_eef_pos@"
    units = {f"{pose}units": "mm", f"{pose}scale": 1000.0, f"{pose}DIMENSION_LABELS": LABELS}
    instruction = {"data@language_instruction": "pick the cup"}
    yield "attributes of an array", source_of(write_demos(new(), units, **instruction))
    root = write_runs(new(), {"a": {"fps": 10}})
    write_runs(root, {"b": {"fps": 10}}, fps=30)
    yield "a rate, and that of the video", source_of(root)
    yield "the registry's rate", source_of(root, fps=10)
    root = new()
    with mcap.recorder(root / "a.mcap") as recording:
        for k in range(10):
            recording.show(k, mcap.START + k * mcap.SECOND // 10)
        writer = recording.writer._writer
        writer.add_attachment(mcap.START, mcap.START, "arm.yaml", "text/yaml", b"length: 1")
        writer.add_metadata("run", {"task": "pick", "success": "true"})
        writer.add_metadata("rosbag2", {"serialized_metadata": "first"})
        writer.add_metadata("rosbag2", {"serialized_metadata": "last"})
        writer.add_metadata("run", {"task": "pick", "success": "false"})
    yield "MCAP, attachments and metadata of one key", source_of(root)


@golden_rows
def test_texts_that_change(new) -> Told:
    steps = [b"reach", b"grasp the cup", b"lift it"]
    texts = [np.repeat(steps, ROWS // 3), [b"pick it", b"grasp it"], [b"pick it"] * ROWS]
    root = write_demos(new(), *({"/language_instruction": text} for text in texts))
    yield "HDF5", source_of(root)
    yield "HDF5, wordings by the registry", source_of(root, instruction="paraphrases")
    root = new()
    for name, (first, second) in {
        "a": ("pick", "place"),
        "b": ("pick", "pick"),
        "c": ("pick", "place"),
    }.items():
        with mcap.recorder(root / f"{name}.mcap") as recording:
            for k in range(120):
                time_ns = mcap.START + k * mcap.SECOND // 10
                recording.show(k % 10, time_ns)
                message = {"data": second if k >= 110 else first}
                recording.writer.write_message("/task", recording.text, message, time_ns)
            if name == "c":
                recording.writer.add_metadata("run", {"task": "clear the table"})
    yield "MCAP", source_of(root)
    root = write_run(new(), language_instruction=[b"pick"] * 6 + [b"place"] * 6)
    yield "RLDS", source_of(root)
    yield "RLDS, wordings by the registry", source_of(root, instruction="paraphrases")
    root = write_run(new(), language_instruction=[b""] + [b"pick"] * 11)
    yield "RLDS, none in the first", source_of(root)


def test_npz_arrays_that_are_no_rows(tmp_path):
    arrays: dict[str, Any] = {"stage": np.array("grasp"), "seed": np.array(3)}
    arrays |= dict.fromkeys(("tactile", "depth"), np.zeros((6, 4, 4)))
    write_runs(tmp_path, {"a": {}})
    np.savez(
        tmp_path / "a.npz",
        action=smooth(6, 7),
        weight=np.float32(0.2),
        nothing=np.zeros((0, 4, 4)),
        **arrays,
    )
    listing = list_episodes(source_of(tmp_path))
    reason = "rows of numbers alone are read, [n] or [n, d]"
    assert [f.detail for f in listing.findings if f.reason == "part_not_used"] == [
        f"array stage (<U5): {reason}",
        f"array tactile (6 x 4 x 4 float64): {reason}",
        f"array weight (float32): {reason}",
    ]
    left_out = {part.name for part in listing.parts if part.status == "known"}
    assert left_out == {"depth", "seed"}


@golden_rows
def test_times(new) -> Told:
    """Which unit they have, and whether they are times at all, where nothing or a rate is
    stated."""
    units: dict[str, tuple[np.ndarray, int | None]] = {
        "ticks": (K * 5, None),
        "milliseconds": (K * 50.0, None),
        "a clock": (K * 50 + K % 2, None),
        "nanoseconds": (K * 50_000_000, None),
        "seconds": (K * 0.05, None),
        "rows": (K, None),
        "rows at a hertz": (K, 1),
        "seconds at a hertz": (K.astype(np.float64), 1),
        "rows at 20": (K, 20),
    }
    for title, (times, fps) in units.items():
        root = write_demos(new(), {"/timestamp": times}, **{"data@fps": fps})
        yield f"HDF5, {title}", source_of(root)
        rate = {"fps": fps} if fps else {}
        root = write_zarr(new(), {"data/timestamp": times[:18]}, {}, task="pick", **rate)
        yield f"Zarr, {title}", source_of(root)
