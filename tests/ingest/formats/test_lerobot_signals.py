"""State and action of LeRobot sets, in one column or in parts, and the names of their dimensions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import matrix, names_of
from ingest.formats.lerobot_signals import read_signals, signal_columns
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import FRONT, edit_info, said, source_of, write_v2

K = np.arange(5.0)
STATE, ACTION = "observation.state", "action"


def vectors(*dimensions: np.ndarray) -> pa.Array:
    return pa.array(np.column_stack(dimensions).tolist())


def feature(names: Any = None, dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "names": names}


def info_of(**features: Any) -> dict[str, Any]:
    return {"features": features}


def empty(root: Path) -> Source:
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text("{}")
    return source_of(root)


def with_modality(root: Path, content: Any) -> Source:
    source = empty(root)
    (root / "meta/modality.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return source


def test_a_column_for_each_part(tmp_path: Path) -> None:
    """In the order of info.json; one of texts is none."""
    info = info_of(
        **{
            "observation.state.joints": feature(["j0", "j1"]),
            "observation.state.gripper_position": feature(["gripper"]),
            "observation.state.mode": feature(dtype="string"),
            "action.wrist": feature(),
        }
    )
    assert {"observation.state.joints", "observation.state.gripper_position", "action.wrist"} < {*signal_columns(info)}
    assert "observation.state.mode" not in signal_columns(info)
    rows = pa.table(
        {
            "action.wrist": vectors(K, 9 * K),
            "observation.state.gripper_position": 5 * K,
            "observation.state.joints": vectors(K, 2 * K),
        }
    )
    state, action, _ = read_signals(empty(tmp_path), info, rows)
    assert names_of(state) == ("joints.j0", "joints.j1", "gripper_position")
    assert names_of(action) == ("wrist.0", "wrist.1")
    assert state is not None
    assert matrix(state)[2].tolist() == [2, 4, 10]


@pytest.mark.parametrize(
    ("state_names", "names"),
    [
        (["x", "y"], ("x", "y", "gripper_width")),
        (None, ("", "", "gripper_width")),
        (["x", "claw"], ("x", "claw")),  # it has its gripper already
    ],
)
def test_a_gripper_that_stands_beside_the_state(tmp_path: Path, state_names: Any, names: tuple[str, ...]) -> None:
    info = info_of(
        **{STATE: feature(state_names), "observation.gripper_width": feature(), "observation.time": feature()}
    )
    rows = pa.table({STATE: vectors(K, K), "observation.gripper_width": 7 * K, "observation.time": K})
    state, _, _ = read_signals(empty(tmp_path), info, rows)
    assert names_of(state) == names
    assert state is not None
    assert matrix(state)[1].tolist() == [1, 1, 7][: len(names)]


def test_slices_of_modality(tmp_path: Path) -> None:
    """Where names say nothing, the parts of GR00T's file do."""
    parts = {"left_hand": {"start": 1, "end": 3}, "arm": {"start": 0, "end": 1}, "bad": {"start": 2, "end": 9}}
    source = with_modality(tmp_path, {"state": parts, "action": {"arm": {"start": 0, "end": 1}}})
    info = info_of(**{STATE: feature(["motor_0", "motor_1", "motor_2"]), ACTION: feature(["motor_0"])})
    rows = pa.table({STATE: vectors(K, K, K), ACTION: vectors(K)})
    state, action, names_by = read_signals(source, info, rows)
    assert names_of(state) == ("arm.0", "left_hand.0", "left_hand.1")
    assert (names_of(action), names_by) == (("motor_0",), "modality.json")  # no hand among them
    # Names that say where the gripper is count before
    named = info_of(**{STATE: feature(["a", "b", "gripper"]), ACTION: feature()})
    assert read_signals(source, named, rows)[2] == "name"


def test_modality_that_is_damaged(tmp_path: Path) -> None:
    """A finding of the dataset; its episodes are read without it."""
    root = write_v2(tmp_path, [6])
    (root / "meta/modality.json").write_text('{"state": ')
    edit_info(root, features={STATE: feature(), ACTION: feature(), FRONT: {"dtype": "video"}})
    source = source_of(root)
    listing = list_episodes(source)
    assert said(listing) == [("unreadable_data", "warning", None, None)]
    assert listing.findings[0].file == "meta/modality.json"
    episode = read_episode(source, listing.records[0])
    assert (episode.state_names, episode.names_by) == ((), "name")
    assert episode.state is not None
