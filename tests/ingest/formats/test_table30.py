"""RoboChallenge Table30: four robots with fields of their own, and what can be wrong with their files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import LFS_POINTER, said, source_of, write_json_lines
from tests.kits.signal_kit import places_of
from tests.kits.table30_writer import frame, write_task

K = np.arange(6)[:, None]


def joints(count: int, arm: int = 0) -> np.ndarray:
    return K + np.arange(count) / 10 + 100 * arm


def states(root: Path, name: str = "states", episode: int = 0, task: str = "task") -> Path:
    return root / f"{task}/data/episode_{episode:06d}/states/{name}.jsonl"


def one(root: Path, robot: str = "arx5", **fields: Any) -> Source:
    write_task(root, "task", robot, {0: 6})
    return source_of(root, **fields)


def test_a_root_that_is_one_task(tmp_path: Path) -> None:
    write_task(tmp_path, "task", "arx5", {0: 6})
    source = source_of(tmp_path / "task", format="table30")
    listing = list_episodes(source)
    assert [(r.source_id, r.task, r.num_rows) for r in listing.records] == [("episode_000000", "do it", 6)]
    assert said(listing) == []
    assert places_of(source) == [("gripper", "state", (6,))]


# Metadata


def test_instructions(tmp_path: Path) -> None:
    """Both files may have one: all are kept, the first of task_info.json counts."""
    write_task(tmp_path, "task", "arx5", {0: 6}, "one way")
    (tmp_path / "task/task_desc.json").write_text(json.dumps({"prompt": " another way "}))
    write_task(tmp_path, "unsaid", "arx5", {0: 6}, None)
    listing = list_episodes(source_of(tmp_path))
    assert [(r.task, r.tasks) for r in listing.records] == [("one way", ("one way", "another way")), (None, ())]
    assert said(listing) == [("no_task", "warning", 1, None)]


# Rows


def test_arms_of_different_length(tmp_path: Path) -> None:
    source = one(tmp_path, "aloha")
    write_json_lines(states(tmp_path, "right_states"), [frame("aloha", k) for k in range(5)])
    with pytest.raises(DataError, match="different lengths"):
        read_episode(source, list_episodes(source).records[0])


def test_times_that_are_absent(tmp_path: Path) -> None:
    source = one(tmp_path)
    rows = [frame("arx5", k) for k in range(6)]
    write_json_lines(states(tmp_path), [{k: v for k, v in r.items() if k != "timestamp"} for r in rows])
    assert read_episode(source, list_episodes(source).records[0]).timestamps_s is None


FIRST = json.dumps(frame("arx5", 0))


@pytest.mark.parametrize(
    ("text", "reason", "why"),
    [
        ("", "no_data", "has no line"),
        (LFS_POINTER, "lfs_pointer", "pointer"),
        ("[1]\n", "unreadable_data", "line 1: "),
        ("{}\n", "unreadable_data", "neither joints nor a gripper"),
        (f"{FIRST}\n" + "[" * 100_000, "unreadable_data", "line 2"),
        (f"{FIRST}\n" + "x" * ((1 << 20) + 1), "unreadable_data", "line 2: Invalid value"),
        (f"{FIRST}\n{{}}\n", "unreadable_data", "joint_positions is not a number or a list of them in every line"),
        (f"{FIRST}\n" + FIRST.replace("[0.0, 0.1,", "["), "unreadable_data", "rows of different length"),
        (FIRST.replace("[0.0, 0.1,", '["0", 0.1,'), "unreadable_data", "line 1: .*joint_positions.* to string"),
        ("\x80\n", "unreadable_data", "line 1"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, text: str, reason: str, why: str) -> None:
    """The episode beside it is read."""
    write_task(tmp_path, "task", "arx5", {0: 6, 1: 6})
    states(tmp_path).write_bytes(text.encode("latin-1"))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    with pytest.raises(DataError, match=why) as error:
        read_episode(source, listing.records[0])
    assert error.value.reason == reason
    assert {f.episode_index for f in listing.findings} <= {0}
    assert read_episode(source, listing.records[1]).state is not None
