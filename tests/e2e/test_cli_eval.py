"""`proccorpus eval score` and `compare` as their user runs them."""

import json
from pathlib import Path

import pytest

from core.paths import Workspace
from tests.kits.cli_kit import command, ok
from warehouse.lake import Lake

SHARES = (0.08, 0.33, 0.58, 0.83)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Answers that are right but for the last one of each recording."""
    lines = []
    for episode in range(3):
        for k, share in enumerate(SHARES):
            meta = {
                "id": f"toy/cups/{episode}",
                "task_goal": "stack the cups",
                "text_demo": ["a", "b", "c"],
                "stage_to_estimate": [f"cam_{k}.jpg"],
                "closest_idx": str(min(3, k + 1)),
                "progress_score": f"{share:.0%}",
            }
            if k < 3:
                response_text = f"<ref>{min(3, k + 1)}</ref><score>{share:.0%}</score>"
            else:
                response_text = "?"
            lines.append(json.dumps({"meta_data": meta, "response": response_text}) + "\n")
    path = tmp_path / "model_a.jsonl"
    path.write_text("".join(lines))
    return path


def test_a_file_is_scored_without_a_workspace_and_kept_in_one_if_asked(
    predictions: Path, tmp_path: Path
) -> None:
    base = ("eval", "score", "--benchmark", "progress-bench", "--predictions", predictions)
    metrics = ok(command(*base, "--format", "json", cwd=tmp_path)).json["metrics"]
    assert metrics["score_error"] == {
        "value": 0.25,
        "low": 0.25,
        "high": 0.25,
        "n": 3,
        "coverage": 0.75,
    }
    assert metrics["na_recall"]["value"] is None
    published = command(*base, "--as-published", "--format", "json", cwd=tmp_path).json
    assert published["metrics"]["score_error"]["value"] == pytest.approx(
        0.01 / 0.58 / 3  # 58 % is written 57 %; who cannot be read is left out
    )
    assert [p.name for p in tmp_path.iterdir()] == [predictions.name]

    stored = command(*base, "--store", cwd=tmp_path, workspace=tmp_path / "ws")
    assert stored.code == 0, stored.err
    assert "score_error" in stored.out
    lake = Lake(Workspace(tmp_path / "ws"), read_only=True)
    sql = "SELECT model, value, low, n, coverage FROM leaderboard WHERE metric = 'score_error' AND slice = 'all'"
    assert lake.rows(sql) == [("model_a", 0.25, 0.25, 3, 0.75)]
    ((run_id, config),) = lake.rows("SELECT eval_run, config FROM eval_runs")
    stored_file = tmp_path / "ws" / json.loads(config)["predictions"]
    assert stored_file.read_bytes() == predictions.read_bytes()
    assert run_id in stored.err


def test_two_files_are_compared(predictions: Path, tmp_path: Path) -> None:
    other_file = tmp_path / "model_b.jsonl"
    other_file.write_text(predictions.read_text().replace("<score>33%", "<score>66%"))
    words = (
        "eval",
        "compare",
        predictions,
        other_file,
        "--benchmark",
        "progress-bench",
        "--format",
        "json",
    )
    result = command(*words, cwd=tmp_path)
    assert result.code == 0, result.err
    comparison = result.json
    assert (comparison["common"], comparison["only_first"]) == (3, 0)
    by_metric = {d["metric"]: d for d in comparison["differences"]}
    assert by_metric["score_error"]["value"] == pytest.approx(-0.33 / 0.67 / 4)
    assert by_metric["ref_error"]["value"] == 0
