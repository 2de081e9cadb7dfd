"""A real robot's dataset, where there is one beside the checkout: NVIDIA GR1, LeRobot v2.0 with all its quirks."""

from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits.cli_kit import digest_of, ok, proccorpus, rows, snapshot_of

GR1 = ROOT.parent / "shared" / "data" / "gr1_pick_place"
LENGTHS = [416, 470, 470, 412, 328]
THINGS = {"pear", "sweet potato", "meat", "salt", "cupcake"}


@pytest.mark.slow
@pytest.mark.skipif(not GR1.exists(), reason="the GR1 sample is not beside this checkout")
def test_gr1_is_built_in_full_and_only_once(away: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    command = ("build", "--source", GR1, "--name", "gr1")
    ok(proccorpus(*command, cwd=away, workspace=workspace))
    (row,) = ok(proccorpus("status", "--format", "json", cwd=away, workspace=workspace)).json["datasets"]
    counts = {"episodes": 5, "ok": 5, "quarantined": 0, "frames": 2096, "labelled_frames": 2096}
    assert {k: row[k] for k in counts} == counts

    facts = rows(workspace, "SELECT num_frames, task, status FROM episodes ORDER BY episode_index")
    assert [(n, status) for n, _, status in facts] == [(n, "ok") for n in LENGTHS]
    assert {t for _, t, _ in facts} == {f"pick the {x} from the counter and place it in the plate" for x in THINGS}
    assert rows(workspace, "SELECT count(*) FROM episodes WHERE 'valid' = ANY(tasks)") == [(0,)]

    before, snapshot = digest_of(workspace), snapshot_of(workspace)
    again = ok(proccorpus(*command, cwd=away, workspace=workspace))
    assert again.out.startswith("Everything is up to date")
    assert (digest_of(workspace), snapshot_of(workspace)) == (before, snapshot)
