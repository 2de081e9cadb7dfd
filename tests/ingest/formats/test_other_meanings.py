"""Data that is valid, and whose values mean something else than its names say: it is read as it is meant, or told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr

from ingest.episode import Listing
from ingest.signals.survey import steps_in_rows, survey
from ingest.source import list_episodes, read_episode
from tests.kits import mcap_writer as mcap
from tests.kits import rlds_writer as rlds
from tests.kits.array_layouts import film, smooth, write_zarr
from tests.kits.lerobot_writer import edit_parquet, source_of, v2_data, write_v2, write_video

ROWS = 30
NEITHER = "its value is neither true nor false"
ENDS = "meta/episode_ends"
CHANGES = "{} changes within the episode, so that its {} texts are steps; "
STAND_IN = "no text is of the whole, and these together stand for it"


def write_demos(folder: Path, change: Callable[[h5py.File, int], None] | None = None) -> Path:
    """Three groups of an action, a pose and a camera; `change` gets the file and the number of each."""
    with h5py.File(folder / "run.hdf5", "w") as file:
        file.create_group("data").attrs["fps"] = 10
        for k in range(3):
            file[f"data/demo_{k}/actions"] = smooth(ROWS, 7, k)
            file[f"data/demo_{k}/obs/robot0_eef_pos"] = smooth(ROWS, 3, k)
            file[f"data/demo_{k}/obs/front_image"] = film(ROWS, k)
            if change:
                change(file, k)
    return folder


def write_flat(folder: Path, **arrays: Any) -> Path:
    with h5py.File(folder / "run.hdf5", "w") as file:
        file.attrs["fps"] = 10
        file["observations/state"] = smooth(24, 7)
        file["observations/rgb"] = film(24)
        file["actions"] = smooth(24, 7)
        for name, values in arrays.items():
            file[name] = values
    return folder


def listed(folder: Path) -> Listing:
    return list_episodes(source_of(folder))


def details(listing: Listing, reason: str) -> list[str]:
    return [finding.detail for finding in listing.findings if finding.reason == reason]


def outcomes(listing: Listing) -> list[bool | None]:
    return [record.success for record in listing.records]


def odd_layouts(folder: Path) -> list[str]:
    """What the survey of the rows says of their dimensions."""
    source = source_of(folder)
    surveyed = survey(source, list_episodes(source).records, None)
    return [finding.detail for finding in surveyed.findings if finding.reason == "other_layout"]


# Outcomes


@pytest.mark.parametrize(
    "success",
    [
        np.array([True, True, True, False]),  # of stages
        np.where(np.arange(ROWS) == ROWS - 1, 1, -1),
        np.stack([np.arange(ROWS) > 5, np.arange(ROWS) > 10], axis=1),
    ],
    ids=["stages", "minus one", "stages in rows"],
)
def test_hdf5_success_that_is_no_flag_of_the_rows(tmp_path: Path, success: np.ndarray) -> None:
    def add(file: h5py.File, k: int) -> None:
        file[f"data/demo_{k}/success"] = success

    listing = listed(write_demos(tmp_path, add))
    assert outcomes(listing) == [None, None, None]
    assert any(NEITHER in detail for detail in details(listing, "part_not_used"))


def test_hdf5_success_of_rows_and_once(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        if k:
            file[f"data/demo_{k}/success"] = np.arange(ROWS - k) > 20
        else:
            file["data/demo_0"].attrs["success"] = "failed"

    # One value more or less than rows is a flag of these; the third has two less
    assert outcomes(listed(write_demos(tmp_path, add))) == [False, True, None]


def test_success_of_metadata_that_is_no_truth(tmp_path: Path) -> None:
    for k, success in enumerate((0.8, True, "", None)):
        write_video(tmp_path / f"run_{k}.mp4", range(6))
        (tmp_path / f"run_{k}.json").write_text(json.dumps({"task": "pick", "success": success}))
    listing = listed(tmp_path)
    assert outcomes(listing) == [None, True, None, None]
    assert details(listing, "part_not_used") == [f"text outcome: success: {NEITHER}"]
    (tmp_path / "run_0.json").write_text(json.dumps({"task": "pick"}))
    assert not details(listed(tmp_path), "part_not_used")


def test_zarr_success_in_percent(tmp_path: Path) -> None:
    write_zarr(tmp_path, {"meta/success": np.array([100.0, 0.0, np.nan])}, {}, task="pick", fps=10)
    assert details(listed(tmp_path), "part_not_used") == [f"text outcome: success: {NEITHER}"]


@pytest.mark.parametrize(
    ("values", "titles"),
    [
        ([[-1] * 6, [*[-1] * 5, 1]], ["text outcome: success"]),
        ([[[k > 2, k > 4] for k in range(6)]] * 2, ["text outcome: success"]),
        ([[k > 4 for k in range(6)]] * 2, []),
    ],
    ids=["minus one", "stages", "flag"],
)
def test_lerobot_success(tmp_path: Path, values: list[Any], titles: list[str]) -> None:
    write_v2(tmp_path, [6, 6])
    for episode in range(2):
        edit_parquet(v2_data(tmp_path, episode), success=pa.array(values[episode]))
    unused = [d for d in details(listed(tmp_path), "part_not_used") if NEITHER in d]
    assert unused == [f"{title}: {NEITHER}" for title in titles]


def test_lerobot_success_of_another_name(tmp_path: Path) -> None:
    write_v2(tmp_path, [6, 6])
    for episode in range(2):
        edit_parquet(v2_data(tmp_path, episode), **{"next.success": pa.array([-1] * 5 + [1])})
    assert f"column next.success (int64): {NEITHER}" in details(listed(tmp_path), "part_not_used")


def test_rlds_success_of_stages(tmp_path: Path) -> None:
    stages = np.stack([np.arange(12) > 3, np.arange(12) > 30, np.arange(12) > 9], axis=1)
    features = rlds.features_json(steps={"success": rlds.tensor("bool", 3)})
    rlds.write_dataset(
        tmp_path, {"train": [[rlds.episode(0, 12, steps__success=stages)]]}, features
    )
    listing = listed(tmp_path)
    assert outcomes(listing) == [None]
    assert any("steps/success" in detail for detail in details(listing, "part_not_used"))


# Texts of all episodes


def test_hdf5_texts_above_the_episodes(tmp_path: Path) -> None:
    texts = [b"pick the cup", b"open the drawer", b"pick the cup"]

    def add(file: h5py.File, k: int) -> None:
        if k == 0:
            file["data/language_instruction"] = np.array(texts)

    listing = listed(write_demos(tmp_path, add))
    assert [record.task for record in listing.records] == [text.decode() for text in texts]
    assert not listing.findings


def test_hdf5_attribute_of_texts_above_the_episodes(tmp_path: Path) -> None:
    texts = ["pick the cup", "open the drawer", "press the button"]

    def add(file: h5py.File, k: int) -> None:
        file.attrs["tasks"] = texts[: 3 if k else 2]

    listing = listed(write_demos(tmp_path, add))
    assert [record.tasks for record in listing.records] == [(text,) for text in texts]


def test_texts_that_a_number_chooses(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file.attrs["tasks"] = ["pick the cup", "open the drawer"]
        file[f"data/demo_{k}"].attrs["task_index"] = k % 2

    (tmp_path / "hdf5").mkdir()
    (tmp_path / "zarr").mkdir()
    write_demos(tmp_path / "hdf5", add)
    arrays = {"meta/task_index": np.array([0, 1, 0])}
    write_zarr(tmp_path / "zarr", arrays, {}, tasks=["pick the cup", "open the drawer"], fps=10)
    for folder, name in (("hdf5", "attribute task_index"), ("zarr", "meta/task_index")):
        [detail] = details(listed(tmp_path / folder), "no_task")
        assert detail.startswith(f"all episodes have the 2 texts; {name} is not read")


def test_zarr_texts_of_all_episodes(tmp_path: Path) -> None:
    texts = ["pick the cup", "open the drawer", "pick the cup"]
    listing = listed(write_zarr(tmp_path, {}, {}, task=texts, fps=10))
    assert [record.tasks for record in listing.records] == [(text,) for text in texts]


# Rows of no episode


def test_hdf5_ends_that_name_the_last_row(tmp_path: Path) -> None:
    listing = listed(write_flat(tmp_path, episode_ends=np.array([8, 16, 23])))
    assert details(listing, "bad_episode_ends") == [
        "the last 1 rows are of no episode: the last one ends at row 23"
    ]


def test_hdf5_ends_of_all_rows(tmp_path: Path) -> None:
    listing = listed(write_flat(tmp_path, episode_ends=np.array([8, 16, 24])))
    assert not details(listing, "bad_episode_ends")


def test_zarr_ends_before_the_last_row(tmp_path: Path) -> None:
    write_zarr(tmp_path, {}, {}, task="pick", fps=10)
    assert not details(listed(tmp_path), "bad_episode_ends")
    root = zarr.open_group(tmp_path / "replay.zarr", mode="r+")
    del root[ENDS]
    root.create_array(ENDS, shape=(2,), dtype="int64", chunks=(2,))[...] = [5, 12]
    assert details(listed(tmp_path), "bad_episode_ends") == [
        "the last 6 rows are of no episode: the last one ends at row 12"
    ]


# Rows


def windows(values: np.ndarray, offsets: range) -> np.ndarray:
    """Of each row [d] those at some offsets, [n, h, d]; the first or last row where there is none."""
    places = np.arange(len(values))[:, None] + np.array(offsets)
    return values[np.clip(places, 0, len(values) - 1)]


@pytest.mark.parametrize(
    ("offsets", "num_steps"),
    [(range(8), 8), (range(-1, 1), 2), (range(0, -3, -1), 3), (range(1), 0)],
    ids=["chunks", "history", "newest first", "one step"],
)
def test_steps_in_rows(offsets: range, num_steps: int) -> None:
    rows = windows(smooth(ROWS, 4), offsets).reshape(ROWS, -1)
    assert steps_in_rows(rows) == num_steps
    assert steps_in_rows(np.zeros_like(rows)) == 0


def test_chunks_of_actions(tmp_path: Path) -> None:
    def change(file: h5py.File, k: int) -> None:
        del file[f"data/demo_{k}/actions"]
        file[f"data/demo_{k}/actions"] = windows(smooth(ROWS, 7, k), range(8))

    assert odd_layouts(write_demos(tmp_path, change)) == [
        "each row of the action repeats values of the rows beside it: 8 steps of 7 values, read as 56 dimensions"
    ]


def test_two_robots(tmp_path: Path) -> None:
    def change(file: h5py.File, k: int) -> None:
        if k == 1:
            del file["data/demo_1/actions"]
            file["data/demo_1/actions"] = smooth(ROWS, 3)

    [detail] = odd_layouts(write_demos(tmp_path, change))
    assert detail.startswith("the dimensions of the action are not the same in all episodes: 7 (")
    assert detail.endswith("of episode 1: 3 (actions_0, actions_1, actions_2)")


def record_arms(path: Path, topics: list[str], joints: list[str]) -> None:
    """A second of arms whose first messages come in the order of the topics."""
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


def test_mcap_topics_in_another_order(tmp_path: Path) -> None:
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


def test_mcap_joints_in_another_order(tmp_path: Path) -> None:
    record_arms(tmp_path / "a.mcap", ["/joint_states"], ["j0", "gripper"])
    record_arms(tmp_path / "b.mcap", ["/joint_states"], ["gripper", "j0"])
    assert odd_layouts(tmp_path) == [
        "the dimensions of the state are not the same in all episodes: 2 (j0, gripper); "
        "of episode 1: 2 (gripper, j0)"
    ]


def test_hdf5_arrays_of_others_than_the_robot(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file[f"data/demo_{k}/gello/joint_positions"] = smooth(ROWS, 7, k)
        file[f"data/demo_{k}/obs/prev_joint_positions"] = smooth(ROWS, 7, k)
        file[f"data/demo_{k}/mask"] = np.arange(ROWS) < 20

    listing = listed(write_demos(tmp_path, add))
    unused = details(listing, "part_not_used")
    for name in ("gello/joint_positions", "obs/prev_joint_positions", "mask"):
        assert any(f"array {name} " in detail for detail in unused)


def test_times_that_count_rows(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs.pop("fps", None)
        file[f"data/demo_{k}/timestamp"] = np.arange(ROWS)

    assert details(listed(write_demos(tmp_path, add)), "no_frame_rate")


# Lengths, ends, rates and texts that are stated beside the rows


def test_hdf5_lengths(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        group = file[f"data/demo_{k}"]
        group.attrs["episode_length"] = ROWS + k
        group["meta/num_steps"] = ROWS - k
        group["tactile/data"] = np.zeros((5 * ROWS, 4))
        group["tactile/num_samples"] = 5 * ROWS
        group.attrs["length"] = "0.4 m"

    assert details(listed(write_demos(tmp_path, add)), "length_differs") == [
        "episode_length says 31, its rows are 30",
        "meta/num_steps says 29, its rows are 30",
        "episode_length says 32, its rows are 30",
        "meta/num_steps says 28, its rows are 30",
    ]


def test_hdf5_number_of_all_samples(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs["num_samples"] = 3 * ROWS

    listing = listed(write_demos(tmp_path, add))
    assert {finding.reason for finding in listing.findings} == {"no_task"}


def test_hdf5_lengths_of_a_flat_file(tmp_path: Path) -> None:
    ends = np.array([8, 16, 24])
    listing = listed(write_flat(tmp_path, episode_ends=ends, episode_lengths=np.array([8, 8, 7])))
    assert details(listing, "length_differs") == ["episode_lengths says 7, its rows are 8"]


def test_zarr_lengths(tmp_path: Path) -> None:
    write_zarr(tmp_path, {"meta/episode_length": np.array([5, 5, 5])}, {}, task="pick", fps=10)
    listing = listed(tmp_path)
    lengths = [record.num_rows for record in listing.records]
    assert details(listing, "length_differs") == [
        f"meta/episode_length says 5, its rows are {length}" for length in lengths if length != 5
    ]
    assert lengths.count(5) < 3


STEPS = np.tile(np.arange(8), 3)


@pytest.mark.parametrize(
    ("arrays", "lengths", "finding"),
    [
        ({"is_first": STEPS == 0}, [8, 8, 8], ""),
        ({"is_first": STEPS == 0, "done": np.arange(24) == 23}, [8, 8, 8], ""),
        ({"is_first": np.arange(24) == 0}, [24], ""),
        ({"terminals": np.zeros(24), "episode_index": np.repeat([0, 1, 2], 8)}, [8, 8, 8], ""),
        (
            {"frame_index": STEPS},
            [8, 8, 8],
            "nothing marks the ends of episodes; one starts wherever frame_index falls, first at row 8",
        ),
        ({"frame_index": STEPS, "episode_index": np.zeros(24)}, [24], ""),
        ({"frame_index": np.arange(24)}, [24], ""),
    ],
    ids=["firsts", "last done", "one", "no terminal", "steps", "one by index", "one by steps"],
)
def test_hdf5_starts_of_a_flat_file(
    tmp_path: Path, arrays: dict[str, Any], lengths: list[int], finding: str
) -> None:
    listing = listed(write_flat(tmp_path, **arrays))
    assert [record.num_rows for record in listing.records] == lengths
    assert details(listing, "bad_episode_ends") == [finding] * bool(finding)


@pytest.mark.parametrize("name", ["done", "is_last", "obs/is_first", "frame_index"])
def test_hdf5_ends_within_a_group(tmp_path: Path, name: str) -> None:
    rows = np.arange(ROWS)
    marks = {"obs/is_first": rows == 12, "frame_index": rows % 12}

    def add(file: h5py.File, k: int) -> None:
        if k == 1:
            file[f"data/demo_1/{name}"] = marks.get(name, np.isin(rows, [11, ROWS - 1]))
        else:
            file[f"data/demo_{k}/done"] = rows >= ROWS - 1 - k

    findings = listed(write_demos(tmp_path, add)).findings
    assert [
        (finding.episode_index, finding.detail)
        for finding in findings
        if finding.reason != "no_task"
    ] == [(1, f"an episode ends at row 12 of 30 by {name}: the group is read as one episode")]


def test_hdf5_marks_that_were_never_written(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        if k == 0:
            file.create_dataset("data/demo_0/done", (ROWS,), bool, chunks=(8,))

    listing = listed(write_demos(tmp_path, add))
    assert [record.num_rows for record in listing.records] == [ROWS] * 3
    [detail] = details(listing, "unreadable_data")
    assert detail.endswith("whether it marks ends is not known")


@pytest.mark.parametrize("is_attribute", [True, False])
def test_hdf5_rate_of_a_sensor(tmp_path: Path, is_attribute: bool) -> None:
    def add(file: h5py.File, k: int) -> None:
        sensor = file.create_group(f"data/demo_{k}/obs/tactile")
        sensor["frames"] = np.zeros((5 * ROWS, 4))
        if is_attribute:
            sensor.attrs["frequency"] = 500
        else:
            sensor["frequency"] = 500
        file.attrs["rate"] = 40
        if k:
            file[f"data/demo_{k}/obs"].attrs["hz"] = 20

    listing = listed(write_demos(tmp_path, add))
    assert [record.fps for record in listing.records] == [10, 20, 20]
    name = "attribute frequency" if is_attribute else "array obs/tactile/frequency"
    assert any(name in d and "a rate of other rows" in d for d in details(listing, "part_not_used"))


def test_hdf5_texts_that_change(tmp_path: Path) -> None:
    steps = [b"reach", b"grasp the cup", b"lift it"]
    texts = [np.repeat(steps, ROWS // 3), [b"pick it", b"grasp it"], [b"pick it"] * ROWS]

    def add(file: h5py.File, k: int) -> None:
        file[f"data/demo_{k}/language_instruction"] = texts[k]

    listing = listed(write_demos(tmp_path, add))
    assert [record.tasks for record in listing.records] == [
        ("reach; grasp the cup; lift it",),
        ("pick it", "grasp it"),
        ("pick it",),
    ]
    name = "language_instruction"
    assert details(listing, "no_task") == [CHANGES.format(name, 3) + STAND_IN]
    listing = list_episodes(source_of(tmp_path, instruction="paraphrases"))
    assert listing.records[0].tasks == ("reach", "grasp the cup", "lift it")
    assert not details(listing, "no_task")


def test_hdf5_attributes_of_an_array(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs["language_instruction"] = "pick the cup"
        pose = file[f"data/demo_{k}/obs/robot0_eef_pos"]
        pose.dims[0].label = "row"
        pose.attrs["units"] = "mm"
        pose.attrs["scale"] = 1000.0

    [finding] = listed(write_demos(tmp_path, add)).findings
    assert finding.detail == (
        "text attribute obs/robot0_eef_pos/scale: it is said of one array, and is not read"
    )


# Texts, ends and rates that say more than is read


def test_mcap_task_that_changes(tmp_path: Path) -> None:
    for name, texts in (
        ("a", ["pick", "place"]),
        ("b", ["pick", "pick"]),
        ("c", ["pick", "place"]),
    ):
        with mcap.recorder(tmp_path / f"{name}.mcap") as recording:
            for k in range(120):
                time_ns = mcap.START + k * mcap.SECOND // 10
                recording.show(k % 10, time_ns)
                message = {"data": texts[k // 110]}
                recording.writer.write_message("/task", recording.text, message, time_ns)
            if name == "c":
                recording.writer.add_metadata("run", {"task": "clear the table"})
    listing = listed(tmp_path)
    assert [record.tasks for record in listing.records] == [
        ("pick; place",),
        ("pick",),
        ("clear the table",),
    ]
    steps = CHANGES.format("/task", 2)
    assert details(listing, "no_task") == [
        steps + STAND_IN,
        f"{steps}clear the table is of the whole",
    ]


@pytest.mark.parametrize(
    ("texts", "task", "found"),
    [
        (
            [b"pick"] * 6 + [b"place"] * 6,
            "pick; place",
            [CHANGES.format("language_instruction", 2) + STAND_IN],
        ),
        ([b""] + [b"pick"] * 11, "pick", []),
    ],
    ids=["steps", "none in the first"],
)
def test_rlds_text_that_changes(
    tmp_path: Path, texts: list[bytes], task: str, found: list[str]
) -> None:
    run = rlds.episode(0, 12, steps__language_instruction=texts)
    rlds.write_dataset(tmp_path, {"train": [[run]]})
    listing = listed(tmp_path)
    assert [record.tasks for record in listing.records] == [(task,)]
    assert details(listing, "no_task") == found


def test_rlds_texts_that_the_registry_calls_wordings(tmp_path: Path) -> None:
    texts = [b"pick"] * 6 + [b"grasp"] * 6
    rlds.write_dataset(
        tmp_path, {"train": [[rlds.episode(0, 12, steps__language_instruction=texts)]]}
    )
    listing = list_episodes(source_of(tmp_path, instruction="paraphrases"))
    assert [record.tasks for record in listing.records] == [("pick", "grasp")]
    assert not details(listing, "no_task")


def test_rlds_ends_and_starts_within_an_episode(tmp_path: Path) -> None:
    steps = np.arange(12)
    marks = {
        "steps__is_last": (steps == 5) | (steps == 11),
        "steps__is_terminal": steps >= 10,
        "steps__is_first": (steps == 0) | (steps == 6),
    }
    rlds.write_dataset(tmp_path, {"train": [[rlds.episode(0, 12, **marks)]]})
    assert details(listed(tmp_path), "bad_episode_ends") == [
        "is_last is set in steps 5, 11 of 12",
        "is_first is set in steps 0, 6 of 12",
    ]


def test_lerobot_ends_within_an_episode(tmp_path: Path) -> None:
    write_v2(tmp_path, [6, 6])
    for episode, rows in enumerate(((2, 5), (4, 5))):
        done = pa.array([k in rows for k in range(6)])
        edit_parquet(v2_data(tmp_path, episode), **{"next.done": done})
    listing = listed(tmp_path)
    assert details(listing, "bad_episode_ends") == [
        "next.done is set in a row that has others behind it"
    ]


def test_stated_rate_and_that_of_the_video(tmp_path: Path) -> None:
    for name, fps in (("a", 10), ("b", 30)):
        write_video(tmp_path / f"{name}.mp4", range(6), fps=fps)
        (tmp_path / f"{name}.json").write_text(json.dumps({"task": "pick", "fps": 10}))
    listing = listed(tmp_path)
    assert [record.fps for record in listing.records] == [10, 10]
    assert details(listing, "frame_rate") == ["fps is 10, the video has 30; the former counts"]
    assert not details(list_episodes(source_of(tmp_path, fps=10)), "frame_rate")


# What lies beside the rows


def test_npz_arrays_that_are_no_rows(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", range(6))
    (tmp_path / "a.json").write_text(json.dumps({"task": "pick"}))
    np.savez(
        tmp_path / "a.npz",
        action=smooth(6, 7),
        tactile=np.zeros((6, 4, 4)),
        depth=np.zeros((6, 4, 4)),
        stage=np.array("grasp"),
        seed=np.array(3),
        weight=np.float32(0.2),
        nothing=np.zeros((0, 4, 4)),
    )
    listing = listed(tmp_path)
    reason = "rows of numbers alone are read, [n] or [n, d]"
    assert details(listing, "part_not_used") == [
        f"array stage (<U5): {reason}",
        f"array tactile (6 x 4 x 4 float64): {reason}",
        f"array weight (float32): {reason}",
    ]
    left_out = {part.name for part in listing.parts if part.status == "known"}
    assert left_out == {"depth", "seed"}


def test_mcap_attachments_and_metadata_of_one_key(tmp_path: Path) -> None:
    with mcap.recorder(tmp_path / "a.mcap") as recording:
        for k in range(10):
            recording.show(k, mcap.START + k * mcap.SECOND // 10)
        writer = recording.writer._writer
        writer.add_attachment(mcap.START, mcap.START, "arm.yaml", "text/yaml", b"length: 1")
        writer.add_metadata("run", {"task": "pick", "success": "true"})
        writer.add_metadata("rosbag2", {"serialized_metadata": "first"})
        writer.add_metadata("rosbag2", {"serialized_metadata": "last"})
        writer.add_metadata("run", {"task": "pick", "success": "false"})
    listing = listed(tmp_path)
    assert outcomes(listing) == [False]
    assert details(listing, "part_not_used") == [
        "file attachment arm.yaml (text/yaml): it is not read",
        "text metadata: success: its values differ; the last counts",
    ]


# Units of times


@pytest.mark.parametrize(
    ("times", "fps", "is_told"),
    [
        (np.arange(ROWS) * 5, 200, True),
        (np.arange(ROWS) * 50.0, 20, True),
        (np.arange(ROWS) * 50 + np.arange(ROWS) % 2, 20.408, False),
        (np.arange(ROWS) * 50_000_000, 20, False),
        (np.arange(ROWS) * 0.05, 20, False),
    ],
    ids=["ticks", "milliseconds", "a clock", "nanoseconds", "seconds"],
)
def test_unit_of_times_that_is_a_guess(
    tmp_path: Path, times: np.ndarray, fps: float, is_told: bool
) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs.pop("fps", None)
        file[f"data/demo_{k}/timestamp"] = times

    (tmp_path / "hdf5").mkdir()
    (tmp_path / "zarr").mkdir()
    write_demos(tmp_path / "hdf5", add)
    write_zarr(tmp_path / "zarr", {"data/timestamp": times[:18]}, {}, task="pick")
    for folder in ("hdf5", "zarr"):
        listing = listed(tmp_path / folder)
        assert listing.fps == pytest.approx(fps, rel=0.05)
        guesses = {
            f"the rows' times have steps of one size in no unit that is stated: {fps:g} fps is a guess"
        }
        assert {*details(listing, "frame_rate")} == (guesses if is_told else set())


@pytest.mark.parametrize(("fps", "is_kept"), [(1, True), (20, False)])
def test_counted_rows_are_no_seconds_where_a_rate_is_stated(
    tmp_path: Path, fps: float, is_kept: bool
) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs["fps"] = fps
        file[f"data/demo_{k}/timestamp"] = np.arange(ROWS)

    (tmp_path / "hdf5").mkdir()
    (tmp_path / "zarr").mkdir()
    write_demos(tmp_path / "hdf5", add)
    write_zarr(tmp_path / "zarr", {"data/timestamp": np.arange(18)}, {}, task="pick", fps=fps)
    for folder in ("hdf5", "zarr"):
        source = source_of(tmp_path / folder)
        listing = list_episodes(source)
        assert listing.fps == fps
        episode = read_episode(source, listing.records[0])
        assert (episode.timestamps_s is not None) == is_kept


def test_times_of_one_hertz(tmp_path: Path) -> None:
    def add(file: h5py.File, k: int) -> None:
        file["data"].attrs["fps"] = 1
        file[f"data/demo_{k}/timestamp"] = np.arange(ROWS, dtype=np.float64)

    listing = listed(write_demos(tmp_path, add))
    assert listing.fps == 1
    assert not details(listing, "frame_rate")
    assert not details(listing, "no_frame_rate")
