"""Real bytes of other people's datasets, with all that is odd in them: exact counts."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.episodes import settle
from ingest.source import list_episodes
from tests.kits.lerobot_writer import source_of
from tests.kits.real_data import BRIDGE, GR1, kinds, measured, usable
from tests.kits.told import check, told

ACTION = {"column": "action", "dimension": 6}
SHOWN: dict[str, tuple[Path, dict[str, Any]]] = {
    "gr1": (GR1, {}),
    "bridge": (BRIDGE, {}),
    "bridge_by_entry": (BRIDGE, {"gripper": ACTION}),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_they_show(name):
    # What is odd in them stands in SOURCE.md beside them
    root, fields = SHOWN[name]
    check("real_samples", name, {"": told(source_of(root, **fields), pictures=False)}, SHOWN)


def test_gr1():
    """The task "valid" is a mark of quality."""
    source = source_of(GR1)
    listing = settle(list_episodes(source), source.config)
    assert kinds(listing) == {
        ("path_template", "warning", None): 2,
        ("camera_without_files", "warning", "observation.images.egoview"): 1,
        ("no_data", "warning", None): 1,
    }
    (record,) = usable(listing)
    assert record.tasks == ("pick the cupcake from the counter and place it in the plate",)
    result = measured(source, [record])
    assert (result.decoded_frames, result.tables["frames"].num_rows) == (328, 328)
    # Its rows' times begin a frame late: LeRobot's reader shows the next picture, and none for the last row
    (finding,) = result.findings
    assert finding.reason == "timestamp_drift"
    assert "matched row by row; LeRobot refuses 1 of 328 rows" in finding.detail
    assert result.tables["episode_content"]["num_frames"].to_pylist() == [328]


def test_bridge():
    """One camera is black."""
    source = source_of(BRIDGE, gripper=ACTION)
    settled = settle(list_episodes(source), source.config)
    assert kinds(settled) == {
        ("duplicate_episode", "unusable", None): 4,
        ("no_frame_rate", "warning", None): 1,
        ("never_ends", "warning", None): 1,
    }
    result = measured(source, usable(settled))
    assert Counter((f.reason, f.severity, f.camera) for f in result.findings) == {
        ("camera_black", "warning", "image_3"): 4
    }
    content = result.tables["episode_content"].to_pylist()
    assert {(c["num_frames"], *c["usable_cameras"]) for c in content} == {
        (10, "image_0", "image_1", "image_2")
    }
    assert (result.decoded_frames, len({c["content_hash"] for c in content})) == (4 * 4 * 10, 4)
