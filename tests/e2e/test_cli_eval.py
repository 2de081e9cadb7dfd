"""`proccorpus eval score` and `compare` as their user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT, Workspace
from warehouse.lake import Lake

SHARES = (0.08, 0.33, 0.58, 0.83)


def run(where: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PROCCORPUS_WORKSPACE"}
    command = [sys.executable, str(ROOT / "proccorpus.py"), "eval", *map(str, args)]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)


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
            said = f"<ref>{min(3, k + 1)}</ref><score>{share:.0%}</score>" if k < 3 else "?"
            lines.append(json.dumps({"meta_data": meta, "response": said}) + "\n")
    path = tmp_path / "model_a.jsonl"
    path.write_text("".join(lines))
    return path


def test_a_file_is_scored_without_a_workspace_and_kept_in_one_if_asked(predictions: Path, tmp_path: Path) -> None:
    base = ("score", "--benchmark", "progress-bench", "--predictions", predictions)
    done = run(tmp_path, *base, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["score_error"] == {"value": 0.25, "low": 0.25, "high": 0.25, "n": 3, "coverage": 0.75}
    assert metrics["na_recall"]["value"] is None
    published = run(tmp_path, *base, "--as-published", "--format", "json")
    assert json.loads(published.stdout)["metrics"]["score_error"]["value"] == pytest.approx(
        0.01 / 0.58 / 3  # 58 % is written 57 %; who cannot be read is left out
    )
    assert [p.name for p in tmp_path.iterdir()] == [predictions.name]

    stored = run(tmp_path, *base, "--store", "--workspace", tmp_path / "ws")
    assert stored.returncode == 0, stored.stderr
    assert "score_error" in stored.stdout
    lake = Lake(Workspace(tmp_path / "ws"), read_only=True)
    sql = "SELECT model, value, low, n, coverage FROM leaderboard WHERE metric = 'score_error' AND slice = 'all'"
    assert lake.rows(sql) == [("model_a", 0.25, 0.25, 3, 0.75)]
    ((run_id, config),) = lake.rows("SELECT eval_run, config FROM eval_runs")
    kept = tmp_path / "ws" / json.loads(config)["predictions"]
    assert kept.read_bytes() == predictions.read_bytes()
    assert run_id in stored.stderr


def test_two_files_are_compared(predictions: Path, tmp_path: Path) -> None:
    other = tmp_path / "model_b.jsonl"
    other.write_text(predictions.read_text().replace("<score>33%", "<score>66%"))
    done = run(tmp_path, "compare", predictions, other, "--benchmark", "progress-bench", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["common"], found["only_first"]) == (3, 0)
    by_metric = {d["metric"]: d for d in found["differences"]}
    assert by_metric["score_error"]["value"] == pytest.approx(-0.33 / 0.67 / 4)
    assert by_metric["ref_error"]["value"] == 0
