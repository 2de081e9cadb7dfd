"""AgiBot World: loose files and tar archives, timed steps, rows in HDF5, and what can be wrong with each."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.formats import agibot
from tests.kits.agibot_writer import (
    GRIPPER_CAMERAS,
    entry,
    pack,
    rows_path,
    write_agibot,
    write_data,
    write_tar,
    write_tasks,
)
from tests.kits.lerobot_writer import source_of
from tests.kits.told import New, Told, golden, told

HEAD = GRIPPER_CAMERAS[0]


@pytest.mark.parametrize("rows_tar", ["proprio_stats.tar", "5-648650.tar"])  # of Alpha, of Beta
def test_archives(tmp_path: Path, rows_tar: str) -> None:
    """The two halves of the data in tars as on the hub: the same episodes as from loose files, by uris of members."""
    loose = tmp_path / "loose"
    root = tmp_path / "hub"
    write_agibot(loose, lengths={648642: 6, 648649: 8, 648650: 5})
    write_agibot(loose, 9, {5: 7}, cameras=(HEAD,))
    shutil.copytree(loose / "task_info", root / "task_info")
    for tar, task, episodes in (
        ("327/648642-648649", "327", ["648642", "648649"]),
        ("327/648650-648650", "327", ["648650"]),
        ("9/5-5", "9", ["5"]),
    ):
        pack(root / f"observations/{tar}.tar", loose / "observations" / task, episodes)
    pack(root / f"proprio_stats/{rows_tar}", loose / "proprio_stats", ["327", "9"])
    archive_lines = told(source_of(root))
    expected = told(source_of(loose))
    assert f"6 rows of proprio_stats/{rows_tar}!/327/648642/proprio_stats.h5" in archive_lines[1]
    for index, (line, other_line) in enumerate(zip(archive_lines, expected, strict=True)):
        if " rows of " in line:
            line, other_line = (
                text.replace(text.split(" rows of ")[1].split(",")[0], "")
                for text in (line, other_line)
            )
        assert line == other_line, index


@golden
def test_metadata(new: New) -> Told:
    write_agibot(root := new(), lengths={1: 6})
    write_tar(root / "observations/327/1-1.tar", [("../1/videos/extra_color.mp4", b"x")])
    yield "a name that leads out of an archive", source_of(root)
    write_data(root := new(), 1, {1: 5, 2: 5, 3: 5}, cameras=(HEAD,))
    first = entry(1, done=True, site="kitchen")
    second = entry(2, task_name="a second one")
    broken = [{"task_name": "of none"}, entry(5) | {"episode_id": "5"}, "text"]
    write_tasks(root, 1, [first, entry(2, task_name=" "), second, entry(4), *broken])
    yield (
        "what the task file says, and does not",
        source_of(root, success_field="done", group_field="site"),
    )


@golden
def test_rows(new: New) -> Told:
    def edited(**arrays: Any) -> Path:
        """One episode of 6 frames with other arrays, `__` standing for `/`; None takes one out."""
        write_agibot(root := new(), 1, {1: 6}, cameras=(HEAD,))
        with h5py.File(rows_path(root, 1, 1), "r+") as file:
            for name, array in arrays.items():
                del file[name.replace("__", "/")]
                if array is not None:
                    file[name.replace("__", "/")] = array
        return root

    write_agibot(root := new(), 1, {1: 6}, cameras=(HEAD,), effectors=12)
    yield "dexterous hands", source_of(root)
    empty = edited(state__effector__position=np.zeros(0, np.float32), timestamp=None)
    yield "an empty array is what AgiBot writes for what it has not", source_of(empty)
    root = edited()
    keys = {"state": ["state/end/position", "state/effector/position"]}
    state = {"column": "state", "dimension": 7}
    action = {"column": "action", "dimension": "right_gripper"}
    yield "as the registry says", source_of(root, keys=keys, gripper=state, fps=15)
    yield "the gripper in the action, by the registry", source_of(root, gripper=action)
    write_agibot(root := new(), 1, {1: 6, 2: 6}, cameras=(HEAD,))
    rows_path(root, 1, 2).unlink()
    with h5py.File(rows_path(root, 1, 1), "w") as file:
        file["timestamp"] = np.zeros(0, np.int64)
    yield "none", source_of(root)


def test_not_agibot(tmp_path: Path) -> None:
    for name in (
        "task_info/readme.json",
        "observations/x/a.mp4",
        "videos/head_color.mp4",
        "proprio_stats.h5",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps([]))
    assert not agibot.recognises(source_of(tmp_path))
