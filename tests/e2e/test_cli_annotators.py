"""`annotators compare` on a workspace with two label runs and no ground truth."""

import pytest

from tests.kits.cli_kit import Built, column, command, digest_of, ok, rows, write_config

pytestmark = pytest.mark.slow


def test_two_runs_are_compared_and_the_scores_stored(own: Built, build, away) -> None:
    """The tiny dataset, labelled by two settings of the motion annotator; the second is active."""
    config = write_config(
        own.config.parent / "other", own.source, "[motion]\nstep_min_s = 0.2\nslow_speed = 0.9"
    )
    ok(build(config, own.workspace, "--workers", 1))

    def compare(*options: object):
        return command("annotators", "compare", *options, cwd=away, workspace=own.workspace)

    active = rows(own.workspace, "SELECT DISTINCT label_run FROM active_runs")[0][0]
    [other_run] = {*column(own.workspace, "SELECT label_run FROM label_runs")} - {active}
    digest_before = digest_of(own.workspace)
    compared = ok(compare("--format", "json")).json
    scores = [r for r in compared["scores"] if r["label_run"]]
    assert {(r["benchmark"], r["label_run"]) for r in scores} == {
        ("annotators/tiny (active label)", other_run)
    }
    short = ok(compare("--run", active[:6], "--against", other_run, "--dataset", "tiny")).out
    assert f"tiny, against label run {other_run}" in short
    assert f"motion {active} (counts)" in short
    assert "farthest apart" in short
    assert "segment_iou" not in short
    assert "segment_iou" in ok(compare("--all")).out
    stored = "SELECT DISTINCT model FROM leaderboard WHERE model LIKE 'motion%'"
    models = {f"motion {active}", f"motion {other_run}"}
    assert {*column(own.workspace, stored)} == models
    assert digest_of(own.workspace) == digest_before
