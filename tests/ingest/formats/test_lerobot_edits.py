"""Steps by number after LeRobot's own tools edited the dataset: right, or a finding, and never
another step's name."""

import shutil
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import Listing
from ingest.formats.lerobot_meta import LerobotListing, columns_of
from ingest.source import list_episodes
from tests.kits.lerobot_writer import source_of, write_parquet

pytestmark = pytest.mark.slow

STATE = "observation.state"
COLUMN = "annotation.human.action.task_description"
LENGTHS = (20, 21, 22)
TASKS = ("open", "close", "open")


def recorded(root: Path, column: str) -> Any:
    """Three episodes by LeRobot's recorder: each opens for twelve frames, then closes, as a column
    of indices says."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    whole_number = {"dtype": "int64", "shape": (1,), "names": None}
    features = {STATE: {"dtype": "float32", "shape": (1,), "names": ["x"]}, column: whole_number}
    dataset = LeRobotDataset.create("local/recorded", 10, features, root=root, robot_type="toy")
    for length, task in zip(LENGTHS, TASKS, strict=True):
        for k in range(length):
            row = {
                STATE: np.array([k], np.float32),
                column: np.array([k >= 12], np.int64),
                "task": task,
            }
            dataset.add_frame(row)
        dataset.save_episode()
    dataset.finalize()
    return LeRobotDataset("local/recorded", root=root)


def names_of(listing: Listing) -> list[list[str]]:
    return [list(map(attrgetter("name"), record.steps)) for record in listing.records]


def lost_steps(listing: Listing) -> list[str]:
    return [finding.detail for finding in listing.findings if finding.reason == "steps_lost"]


def test_annotations_whose_tasks_are_numbered_anew_are_not_used(tmp_path):
    from lerobot.datasets.dataset_tools import delete_episodes

    whole = recorded(tmp_path / "recorded", COLUMN)
    assert names_of(list_episodes(source_of(tmp_path / "recorded"))) == [["open", "close"]] * 3
    delete_episodes(whole, [0], output_dir=tmp_path / "deleted", repo_id="local/deleted")
    listing = list_episodes(source_of(tmp_path / "deleted"))
    # The tool takes the tasks in the order of a set, so that they may come to lie as before
    swapped = f"{COLUMN} is not used: the tasks were numbered anew in 2 of 2 episodes"
    assert names_of(listing) == ([[], []] if lost_steps(listing) else [["open", "close"]] * 2)
    assert all(detail.startswith(swapped) for detail in lost_steps(listing))
    assert [record.task for record in listing.records] == ["close", "open"]


def test_texts_that_a_tool_leaves_out_are_told_and_used_again_when_they_are_put_back(tmp_path):
    from lerobot.datasets.dataset_tools import split_dataset

    whole = recorded(tmp_path / "recorded", "subtask_index")
    texts = "meta/subtasks.parquet"
    write_parquet(
        tmp_path / "recorded" / texts, {"subtask_index": [0, 1], "subtask": ["reach", "grasp"]}
    )
    assert names_of(list_episodes(source_of(tmp_path / "recorded"))) == [["reach", "grasp"]] * 3
    parts = split_dataset(whole, {"train": [0, 2], "val": [1]}, output_dir=tmp_path / "parts")
    root = Path(parts["train"].root)
    [detail] = lost_steps(list_episodes(source_of(root)))
    assert detail.startswith(f"subtask_index numbers the steps of 2 episodes, and {texts}")
    shutil.copyfile(tmp_path / "recorded" / texts, root / texts)
    assert names_of(listing := list_episodes(source_of(root))) == [["reach", "grasp"]] * 2
    assert lost_steps(listing) == []


def test_episodes_that_a_tool_left_one_of_their_tasks_are_told(tmp_path):
    from lerobot.datasets.dataset_tools import modify_tasks
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path / "recorded"
    features = {STATE: {"dtype": "float32", "shape": (1,), "names": ["x"]}}
    dataset = LeRobotDataset.create("local/recorded", 10, features, root=root, robot_type="toy")
    for tasks in (("pick", "place"), ("wave",)):
        for task in tasks * 10:
            dataset.add_frame({STATE: np.zeros(1, np.float32), "task": task})
        dataset.save_episode()
    dataset.finalize()
    assert lost_steps(list_episodes(source_of(root))) == []
    modify_tasks(
        LeRobotDataset("local/recorded", root=root), task_replacements={"wave": "wave a hand"}
    )
    listing = list_episodes(source_of(root))
    assert [len(record.tasks) for record in listing.records] == [1, 1]
    [detail] = lost_steps(listing)
    assert detail.startswith(
        "task_index is one task in 1 of 2 episodes (the first: 0) that had several"
    )


def test_columns_are_those_of_any_data_file(tmp_path):
    # A column that no metadata declares may be in later files alone
    info = {"features": {"index": {}}}
    dataset = LerobotListing(source_of(tmp_path), info=info, version="v3.0")
    dataset.note_schema(pa.schema([("index", pa.int64())]), "data/file-000.parquet")
    later = pa.schema([("index", pa.int64()), ("subtask_index", pa.int64())])
    dataset.note_schema(later, "data/file-001.parquet")
    assert columns_of(dataset) == {"index", "subtask_index"}
