"""`annotators compare` on a workspace with two label runs and no ground truth."""

import pytest

from tests.kits.cli_kit import Built, command, digest_of, ok, rows, write_config

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
    (other_run,) = (
        r for (r,) in rows(own.workspace, "SELECT label_run FROM label_runs") if r != active
    )
    digest_before = digest_of(own.workspace)
    compared = ok(compare("--format", "json")).json
    scores = [r for r in compared["scores"] if r["label_run"]]
    assert {(r["benchmark"], r["label_run"]) for r in scores} == {
        ("annotators/tiny (active label)", other_run)
    }
    by_metric = {r["metric"]: r for r in scores if r["slice"] == "all" and r["n"]}
    assert {
        "boundary_f1@5%",
        "boundary_f1@0.5s",
        "published_bf1@5",
        "label_similarity",
        "mae",
    } <= set(by_metric)
    assert all(
        r["n"] == 5 and r["coverage"] == 1 and r["low"] <= r["value"] <= r["high"]
        for r in by_metric.values()
    )
    assert {d["beside"] for d in compared["differences"]} == {
        "uniform cuts",
        "random cuts",
        "clock",
    }
    (farthest,) = compared["farthest_apart"]
    assert (farthest["first"], farthest["second"], len(farthest["episodes"])) == (
        other_run,
        "active label",
        3,
    )
    short = ok(compare("--run", active[:6], "--against", other_run, "--dataset", "tiny")).out
    assert f"tiny, against label run {other_run}" in short
    assert f"motion {active} (counts)" in short
    assert "farthest apart" in short
    assert "segment_iou" not in short
    assert "segment_iou" in ok(compare("--all")).out
    stored = set(
        rows(
            own.workspace,
            "SELECT DISTINCT benchmark, model FROM leaderboard WHERE model LIKE 'motion%'",
        )
    )
    assert stored == {
        (f"annotators/tiny ({other_run})", f"motion {active}"),
        (scores[0]["benchmark"], f"motion {other_run}"),
    }
    assert digest_of(own.workspace) == digest_before
