"""`proccorpus export` and `import` as a user runs them: output, exit codes, what is refused.

Also: `annotators compare` on a workspace with two label runs and no ground truth; `proccorpus eval score` and
`compare` as their user runs them; `--help` of every command, and what asking for it costs; proccorpus model, as a
user has it.
"""

import json
from pathlib import Path

import pytest

from core.paths import Workspace
from tests.kits.cli_kit import (
    USAGE,
    Result,
    assert_one_error_line,
    column,
    command,
    digest_of,
    ok,
    proccorpus,
    rows,
    write_config,
)
from tests.kits.published_kit import write_adapter
from warehouse.exports import EXPORT_KINDS
from warehouse.lake import Lake

BOTH = ("--set", "label_run=x", "--set", "from_model=y")
# Of two of its labels the names of steps are less sure than is usual
ALL = ("--allow-licence", "unknown", "--min-name-confidence", 0)


def test_signals_of_frames_go_out_and_come_in(own, tmp_path):
    out = tmp_path / "s.parquet"
    words = ("export", "frame-signals", "--out", out, *ALL, "--set", "advantage=8")
    exported = command(*words, cwd=tmp_path, workspace=own.workspace)
    assert exported.code == 0
    assert (
        exported.err
        == "note: tiny: 5 of 5 labels take for complete what nobody says the outcome of (outcome_assumed)\n"
    )
    words = ("import", "frame-signals", out, "--name", "tiny", "--format", "json")
    imported = json.loads(ok(command(*words, cwd=tmp_path, workspace=own.workspace)).out)
    assert (imported["form"], imported["episodes"], imported["refused"]) == ("frame-signals", 5, [])
    for wrong, reason_pattern in (
        (("import", "frame-signals", tmp_path / "gone", "--name", "tiny"), "no such file"),
        (("import", "frame-signals", __file__, "--name", "tiny"), "no Parquet file"),
        (("import", "mine", out, "--name", "tiny"), "there is no form mine"),
        (("import", "a", "b", out, "--name", "tiny"), "one form and one path"),
        (("export", "frame-signals", "--out", tmp_path / "t", *BOTH), "one of them"),
    ):
        result = command(*wrong, cwd=tmp_path, workspace=own.workspace)
        assert result.code == USAGE
        assert reason_pattern in assert_one_error_line(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lerobot",), "licence is unknown"),
        (("rabc", *ALL, "--where", "1; DROP TABLE frames"), "Parser Error"),
        (("rabc", *ALL, "--where", "FROM read_csv('/etc/passwd')"), "not allowed"),
    ],
)
def test_what_is_refused_leaves_nothing(built, tmp_path, words, message):
    words = ("export", *words, "--out", tmp_path / "out")
    result = command(*words, cwd=tmp_path, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert message in assert_one_error_line(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_setting_that_no_kind_has_is_named_with_those_that_there_are(built, tmp_path, kind):
    """In a file and on the command line; what an earlier version
    took as an option says its new form."""
    file = tmp_path / "settings.yaml"
    file.write_text("sead: 1\n")
    words = ("export", kind, "--out", tmp_path / "out", *ALL)
    for wrong, message in (
        (("--set", "sead=1"), f"{kind} has no setting 'sead'"),
        (("--settings", file), f"{kind} has no setting 'sead'"),
        (("--sead", 1), "No such option: --sead"),
        (("--set", "seed"), "a setting is KEY=VALUE"),
        (("elsewhere",), "Got unexpected extra argument(s) (elsewhere)"),
    ):
        result = command(*words, *wrong, cwd=tmp_path, workspace=built.workspace)
        assert result.code == USAGE
        assert message in assert_one_error_line(result)


def test_settings_of_a_file_give_way_to_those_of_the_command_line(built, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("chunk_size: [8, 16]\n")
    out = tmp_path / "out"
    former = ("--chunk-size", 4, "--chunk-size=5")
    words = ("export", "rabc", "--out", out, "--settings", file, *former, *ALL)
    result = command(*words, cwd=tmp_path, workspace=built.workspace)
    assert "--set chunk_size=4 --set chunk_size=5" in result.err
    assert json.loads((out / "manifest.json").read_text())["options"]["chunk_sizes"] == [4, 5]


@pytest.mark.slow
def test_two_runs_are_compared_and_the_scores_stored(own, build, away):
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


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Two adapters and their base."""
    root = tmp_path_factory.mktemp("cli") / "w"
    Lake(Workspace(root)).con.close()
    write_adapter(root / "models", ("run", "other"), head={"pooling": "published"})
    return root


def ask(workspace: Path, *arguments: str | Path) -> Result:
    model_workspace = None if arguments[0] == "convert" else workspace
    return command("model", *arguments, cwd=workspace, workspace=model_workspace)


@pytest.mark.slow
def test_listed_merged_and_checked(workspace):
    result = ask(workspace, "merge", "--all", "--format", "json")
    assert result.code == 0, result.err
    assert [Path(r["model"]).name for r in json.loads(result.out)] == ["other.merged", "run.merged"]
    kinds = {
        r["model"]: r["is"] for r in json.loads(ask(workspace, "list", "--format", "json").out)
    }
    assert kinds == {
        "base": "whole",
        "other": "adapter of base",
        "other.merged": "other merged",
        "run": "adapter of base",
        "run.merged": "run merged",
    }
    checkpoint_rows = Lake(Workspace(workspace), read_only=True).rows(
        "SELECT training_run, path FROM checkpoints ORDER BY 1"
    )
    assert checkpoint_rows == [
        ("other.merged", "models/other.merged"),
        ("run.merged", "models/run.merged"),
    ]
    assert (
        0
        < json.loads(ask(workspace, "check", "run.merged", "--format", "json").out)["progress"]
        < 1
    )


SHARES = (0.08, 0.33, 0.58, 0.83)


@pytest.fixture
def predictions(tmp_path) -> Path:
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


def test_a_file_is_scored_without_a_workspace_and_kept_in_one_if_asked(predictions, tmp_path):
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


def test_two_files_are_compared(predictions, tmp_path):
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


def test_an_option_that_is_none_is_told_with_the_nearest_one(away):
    result = proccorpus("build", "--sorce", "x", cwd=away)
    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == "error: No such option: --sorce. Did you mean --source? proccorpus build --help says more\n"
    )
