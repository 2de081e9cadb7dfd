"""A real robot's episode with all its quirks, by the command line: NVIDIA GR1, LeRobot v2.0."""

from pathlib import Path

import pytest

from tests.kits.cli_kit import digest_of, ok, proccorpus, rows, snapshot_of
from tests.kits.real_data import GR1


@pytest.mark.slow
def test_gr1_is_built_in_full_and_only_once(away: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    command = ("build", "--source", GR1, "--name", "gr1")
    ok(proccorpus(*command, cwd=away, workspace=workspace))
    (row,) = ok(proccorpus("status", "--format", "json", cwd=away, workspace=workspace)).json["datasets"]
    counts = {"episodes": 1, "ok": 1, "quarantined": 0, "frames": 328, "labelled_frames": 328}
    assert {k: row[k] for k in counts} == counts

    facts = rows(workspace, "SELECT episode_index, num_frames, tasks, status FROM episodes")
    assert facts == [(4, 328, ["pick the cupcake from the counter and place it in the plate"], "ok")]

    before, snapshot = digest_of(workspace), snapshot_of(workspace)
    again = ok(proccorpus(*command, cwd=away, workspace=workspace))
    assert again.out.startswith("Everything is up to date")
    assert (digest_of(workspace), snapshot_of(workspace)) == (before, snapshot)
