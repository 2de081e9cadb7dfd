"""Prediction files: the golden set, published variants, ProcVQA, broken files."""

import json
import pkgutil
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.metrics import LEADERBOARD, METRICS, is_lower_better, leading_metrics, metrics_shown_in
from core.paths import ROOT
from eval.benchmarks import load, procvqa
from eval.benchmarks.load import Benchmark, score_predictions
from eval.benchmarks.question import (
    MAX_LINE_BYTES,
    BenchmarkError,
    PredictionLine,
    read_predictions,
)
from eval.benchmarks.videos import options_of
from eval.scored import ScoredBenchmark
from tests.kits.files import table

DEMO = [f"cam_{f:04d}.jpg" for f in (0, 40, 80, 120, 160)]


def row(share: Any, reply_text: str, frame: int = 13, **fields: Any) -> PredictionLine:
    """A same-view row and its answer; `share` as a file has it."""
    meta = {
        "id": "toy/stack_cups/ep01",
        "task_goal": "stack the cups",
        "total_steps": 4,
        "stage_to_estimate": f"cam_{frame:04d}.jpg",
        "closest_idx": 2,
        "progress_score": share,
        "data_source": "toy",
        "visual_demo": DEMO,
    }
    return PredictionLine(f"frame {frame}", meta | fields, reply_text)


def said(score: str, ref: str = "2") -> str:
    return f"<ref_think>a</ref_think><ref>{ref}</ref><score_think>b</score_think><score>{score}</score>"


def values(scored: ScoredBenchmark) -> dict[str, float]:
    return {m: s.value for (part, m), s in scored.scores.items() if part == "all"}


@pytest.fixture
def golden() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("progresslm_golden.json").read_text())


def lines_of(golden: dict[str, Any], first: str = "", *fields: str) -> list[PredictionLine]:
    rows = [(r["meta_data"], r["response"]) for r in golden["rows"]]
    rows[0] = rows[0][0], first or rows[0][1]
    answer = frozenset(fields)
    return [PredictionLine(str(k), *row, fields=answer) for k, row in enumerate(rows)]


def test_golden_file_as_published(golden):
    scored = score_predictions("progress-bench", lines_of(golden), as_published=True)
    voc, wrong = (golden["expected_metric_py"][name] for name in ("voc", "errors"))
    expected = {
        "voc": voc["voc_mean"],
        "score_error": wrong["score_error_mean"],
        "ref_error": wrong["ref_error_mean"],
        "coverage": voc["sample_coverage"],
    }
    assert {m: values(scored)[m] for m in expected} == pytest.approx(expected, abs=1e-12)
    assert scored.scores["all", "voc"].n == voc["valid_trajectories"]
    assert scored.counts["answerable"] == voc["total_samples"]
    assert scored.counts["numbers"] == voc["valid_samples"]


def test_golden_file_mended(golden):
    scored = score_predictions("progress-bench", lines_of(golden))
    ours = {
        "voc": "voc_mean_zero_for_constant",
        "score_error": "nse_penalised_mean",
        "score_error_parsed": "nse_parsed_mean",
        "afrr": "afrr_strict",
        "na_recall": "na_recall_strict",
        "na_recall_reference": "na_recall_reference_style",
    }
    expected = {metric: golden["expected_corrected"][name] for metric, name in ours.items()}
    assert {m: values(scored)[m] for m in expected} == pytest.approx(expected, abs=1e-12)
    # one of the unparsable ones on an answerable row: 0.1 of 10
    assert list(scored.counts) == [
        *("rows", "episodes", "answerable", "numbers", "refusals", "unparsable", "without_order")
    ]
    assert list(scored.counts.values()) == [12, 5, 10, 8, 2, 2, 2]


@pytest.mark.parametrize("fields", [(), ("ref", "score", "ground_truth_score")])
def test_an_unreadable_first_reply_does_not_hide_the_tags_of_the_others(golden, fields):
    rows = lines_of(golden, "I cannot say.", *fields)
    scored_values = values(score_predictions("progress-bench", rows, as_published=True))
    # What metric.py gives for the rows after the first
    errors = 0.8275862068965517, 0.325301204819277, 0.5074626865671643, 0.015151515151515164
    errors += 0.0, 0.46808510638297873, 0.4623655913978495
    assert scored_values["score_error"] == pytest.approx(np.mean(errors), abs=1e-12)
    ref_errors = [0.5, 0.0, 0.5, 0.0, 0.0, 1.0, 0.6, 0.0]
    assert scored_values["ref_error"] == pytest.approx(np.mean(ref_errors), abs=1e-12)


SHARES = (0.08, 0.33, 0.58, 0.83)
NA = said("n/a", "n/a")
# Rows, and what metrics are as published, and what ours are
CASES = {
    # Half of the questions were not answered
    "refusals": (
        [row(s, said(f"{s:.0%}") if k < 2 else NA, 10 + k) for k, s in enumerate(SHARES)],
        {"score_error": 0, "voc": 1},
        {"score_error": 0.5, "coverage": 0.5, "voc_worst": -3.5 / 22.5**0.5},
    ),
    "no idea": (
        [row(s, said(f"{s:.0%}") if k < 2 else "no idea", 10 + k) for k, s in enumerate(SHARES)],
        {"score_error": 0, "voc": 1},
        {"score_error": 0.5, "coverage": 0.5},
    ),
    "constant": (
        [row(s, said("50%"), 10 + k) for k, s in enumerate(SHARES)],
        {"voc": np.nan},
        {"voc": 0},
    ),
    "babble": (
        [row("n/a", "?", 10 + k, closest_idx="n/a") for k in range(3)],
        {"na_recall": 1},
        {"na_recall": 0, "na_recall_reference": 1, "unparsable": 1},
    ),
    "always refusing": (
        [row("n/a", NA, 10, closest_idx="n/a"), row(0.5, NA, 11)],
        {"na_recall": 1, "afrr": 1},
        {"na_recall": 1, "afrr": 1, "answerability": 0.5},
    ),
    # Qwen's and OpenAI's runners without reasoning: tags that a model writes all the same are not looked for
    "tags": ([row(0.5, said("50%"), k) for k in range(2)], {"ref_error": 0}, {"ref_error": 0}),
    **{
        f"no tags, {name}": (
            [
                PredictionLine(str(k), row(0.5, "", k).meta_data, said("50%"), fields=fields)
                for k in range(2)
            ],
            {"ref_error": np.nan},
            {"ref_error": 0},
        )
        for name, fields in {
            "predicted": frozenset({"predicted_score"}),
            "truth": frozenset({"score", "ground_truth_score"}),
        }.items()
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_published_metrics_let_through(case):
    rows, published, ours = CASES[case]
    for as_published, expected in ((True, published), (False, ours)):
        metrics = values(score_predictions("progress-bench", rows, as_published))
        assert {m: metrics[m] for m in expected} == pytest.approx(expected, abs=1e-12, nan_ok=True)


GOOD = json.dumps({"meta_data": row("33%", "").meta_data, "response": said("33%")})


def broken_lines() -> Iterator[tuple[str, str]]:
    """Each with what is said of it."""
    wrong = table("wrong_predictions")
    yield from wrong["lines"]
    for old, new, message in wrong["changes"]:
        yield GOOD.replace(old, new, 1), message
    unanswerable = GOOD.replace("33%", "n/a", 1)
    yield unanswerable.replace('"closest_idx": 2', '"closest_idx": "two"'), "closest_idx"
    yield GOOD, "line 2 is the same row as predictions.jsonl line 1"
    yield "[" * 3_000, "line 2 is not JSON"
    yield "x" * (MAX_LINE_BYTES + 1), "line 2 is longer than 16 MiB"
    yield '{"meta_data": {}, "response": "\udcff"}', "line 2 is not UTF-8 text"


@pytest.mark.parametrize(("line", "message"), broken_lines())
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(f"{GOOD}\n{line}\n{GOOD}\n".encode(errors="surrogateescape"))
    with pytest.raises(BenchmarkError, match="line 2") as e:
        score_predictions("progress-bench", read_predictions(path))
    assert message in str(e.value)
    assert len(str(e.value)) < 400


def test_no_rows_and_no_file(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(BenchmarkError, match="holds no row"):
        score_predictions("progress-bench", read_predictions(tmp_path / "empty.jsonl"))
    with pytest.raises(BenchmarkError, match=r"none\.jsonl: No such file"):
        score_predictions("progress-bench", read_predictions(tmp_path / "none.jsonl"))
    with pytest.raises(BenchmarkError, match="its data_source is toy"):
        score_predictions("human-bench", [row("33%", "")])
    with pytest.raises(BenchmarkError, match="family None, not procvqa_a"):
        score_predictions("procvqa-id", [row("33%", "")])


def vqa(
    family: str, response: str, frame: int = 0, episode: int = 0, **fields: Any
) -> PredictionLine:
    meta = {
        "family": family,
        "dataset": "toy",
        "episode_index": episode,
        "camera": "front",
        "frames": [frame],
        "num_frames": 101,
        "fps": 10.0,
    }
    return PredictionLine(f"{family} {episode} {frame}", meta | fields, response)


def tag(share: float) -> str:
    return f"Remaining actions:\n1. Go on\n<progress>{100 * share:.2f}%</progress>"


def spans(*cuts: int) -> str:
    edges = zip((0, *cuts), (*cuts, 60), strict=True)
    return json.dumps(
        [
            {"action_description": f"step {k}", "start_frame": a, "end_frame": b - 1}
            for k, (a, b) in enumerate(edges)
        ]
    )


def one_hot(texts: Any) -> np.ndarray:
    return np.eye(len(texts), dtype=np.float32)


@pytest.fixture
def one_hot_names(monkeypatch) -> None:
    scored = partial(procvqa.score, embedded=one_hot)
    of_release = Benchmark(procvqa.FAMILIES, scored, procvqa.question)
    monkeypatch.setitem(load.BENCHMARKS, "procvqa-id", of_release)


@pytest.mark.usefixtures("one_hot_names")
def test_segments_and_plans():
    rows = [
        vqa("procvqa_a", spans(23, 45), answer=spans(20, 40)),
        vqa("procvqa_a", "```json\n" + spans(20, 40) + "\n```", 1, answer=spans(20, 40)),
        vqa("procvqa_a", "there are none", episode=1, answer=spans(20, 40)),
        vqa(
            "procvqa_b",
            "1. Lift the cup\n2. Place it",
            answer="Remaining actions:\n1. Lift the cup\n2. Place it",
        ),
        vqa("procvqa_b", "Lift the cup", 1, episode=1, answer="No action remains. Done."),
    ]
    scored = score_predictions("procvqa-id", rows)
    scored_values = values(scored)
    # A mean per episode, then over episodes
    assert scored_values["bf1@5"] == pytest.approx(((0.5 + 1) / 2 + 0) / 2)
    assert scored_values["edit"] == pytest.approx(0.5)
    # Who saw no segments has some error, not none
    assert np.isfinite([scored_values["mmae"], scored_values["segment_iou"]]).all()
    assert {n: c for n, c in scored.counts.items() if n.startswith("rows_")} == {
        "rows_procvqa_a": 3, "rows_procvqa_b": 2, "rows_procvqa_c": 0
    }  # fmt: skip
    assert (scored_values["plan_success"], scored_values["plan_f1"]) == (0.5, 0.5)
    assert scored.counts["unparsable"] == 1


def test_time_ends_with_the_last_frame_and_episodes_are_of_their_dataset():
    rows = [vqa("procvqa_c", tag(s), frame, progress=s) for frame, s in ((50, 0.3), (100, 0.7))]
    series = score_predictions("procvqa-id", rows).series
    assert series.elapsed.tolist() == [0.5, 1]
    rows += [vqa("procvqa_c", "1. Go on", progress=0.9, dataset="two")]
    ours = score_predictions("procvqa-id", rows)
    assert (ours.counts["episodes"], ours.counts["unparsable"]) == (2, 1)


@pytest.mark.parametrize("benchmark", [name for name, b in load.BENCHMARKS.items() if b.question])
def test_as_published_goes_where_a_published_table_is_reproduced(benchmark):
    if benchmark not in ("progress-bench", "human-bench"):
        with pytest.raises(BenchmarkError, match="goes with progress-bench and"):
            score_predictions(benchmark, [], as_published=True)


@pytest.mark.parametrize(("text", "share"), table("progress_shares"))
def test_shares_are_read_only_where_they_are_clear(text, share):
    assert procvqa.share_of(text) == (None if share is None else pytest.approx(share))


def test_success_of_runs():
    rows = [
        vqa("success", "Yes, it is on the plate.", episode=0, success=True),
        vqa("success", "No.", episode=1, success=False),
        vqa("success", "yes", episode=2, success=False),
        vqa("success", "yes and no", episode=3, success=True),
        PredictionLine(
            "head", vqa("success", "", episode=4, success=True).meta_data, "", value=0.97
        ),
    ]
    scored_values = values(score_predictions("dataset", rows))
    assert scored_values["success_accuracy"] == pytest.approx(3 / 5)
    assert scored_values["success_balanced"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scored_values["coverage"] == pytest.approx(4 / 5)
    with pytest.raises(BenchmarkError, match="success is missing"):
        score_predictions("dataset", [vqa("success", "yes")])


PAGE = (ROOT / "docs" / "metrics.md").read_text()
BETTER = {
    name: {"↑": "more", "↓": "less"}[sign]
    for names, sign in re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) ([↑↓]) \|", PAGE, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", names)
}


@pytest.mark.usefixtures("one_hot_names")
def test_every_metric_is_explained():
    answered = [row(s, said(s)) for s in ("10%", "50%", "90%")]
    lines = [
        vqa("procvqa_a", spans(23, 45), answer=spans(20, 40)),
        vqa("procvqa_b", "1. Lift the cup", answer="Remaining actions:\n1. Lift the cup"),
        *(
            vqa("procvqa_c", tag(s), round(100 * s), progress=s, answer=tag(s))
            for s in (0.1, 0.5, 1.0)
        ),
    ]
    scored = [
        score_predictions("progress-bench", answered),
        score_predictions("procvqa-id", lines),
    ]
    metric_names = set(chain.from_iterable(s.measures for s in scored))
    assert {"voc", "score_error", "bf1@5", "plan_f1", "mcc@95"} <= metric_names
    # One by one in the page, or in a sentence of the list, which the explorer shows
    assert metric_names <= {*BETTER, *(metric.name for metric in METRICS if metric.sentence)}


def test_the_page_and_the_list_agree_which_way_is_better():
    listed = {metric.name: "less" if metric.lower_is_better else "more" for metric in METRICS}
    assert set(BETTER) <= set(listed)
    assert {name: listed[name] for name in BETTER} == BETTER


def test_tables_follow_the_list():
    assert leading_metrics()[:5] == ("mae", "score_error", "bf1@5", "confusion_margin", "voc")
    columns = metrics_shown_in(LEADERBOARD)
    assert columns.index("voc") < columns.index("mae") < columns.index("stall_drift")
    # Their beginning is that of a metric
    assert is_lower_better("mae_rise")
    assert not is_lower_better("mae_margin")
    computed = [pkgutil.resolve_name(metric.compute) for metric in METRICS if metric.compute]
    assert all(map(callable, computed))
    assert {"mae", "voc", "voc_margin", "coverage"} <= {
        metric.name for metric in METRICS if metric.compute
    }


ERRORS = [
    "Grasping error.",
    "Wrong object.",
    "Position deviation.",
    "Position deviation of the object.",
]
WHICH = f"Which error is it? (one of the following: {ERRORS})"


def line(
    kind: str, answer: str, response: str, question: str = WHICH, video: str = "v1"
) -> PredictionLine:
    row = {
        "id": video,
        "kind": kind,
        "question": question,
        "answer": answer,
        "split": "test_qa_sim",
    }
    return PredictionLine(
        f"{kind} {video} {response}", row | {"task": "LiftCube", "_inference_idx": 0}, response
    )


def accuracy(*lines: PredictionLine) -> dict[str, float]:
    scored = score_predictions("robofac", lines)
    return {name: s.value for (part, name), s in scored.scores.items() if part == "all"}


def test_options_are_the_list_in_the_question():
    assert options_of(WHICH) == tuple(e.lower().rstrip(".") for e in ERRORS)
    assert options_of("Which? [1, 2]") == ()
    assert options_of("Which? ['cut") == ()
    assert options_of("Which? [__import__('os').getcwd()]") == ()
    assert options_of("[x] Which? (['The robot\\'s hand.', \"A\"])") == ("the robot's hand", "a")


def test_right_and_wrong_by_kind():
    scored_values = accuracy(
        line("failure_detection", "Yes", "Yes, it failed.", "Did it fail?"),
        line("failure_detection", "No", "Yes", "Did it fail?", "v2"),
        line("failure_detection", "No.", "no", "Did it fail?", "v3"),
        line("failure_identification", "Grasping error.", "The robot makes a grasping error."),
        line("failure_identification", "Wrong object.", "A grasping error", video="v2"),
        line("failure_locating", "Grasping error.", "perhaps", video="v2"),
    )
    assert scored_values["detection_accuracy"] == pytest.approx(2 / 3)
    assert scored_values["detection_balanced"] == pytest.approx((1 + 1 / 2) / 2)
    assert scored_values["identification_accuracy"] == 0.5
    assert scored_values["locating_accuracy"] == 0
    assert scored_values["choice_accuracy"] == 0.5
    assert scored_values["coverage"] == pytest.approx(5 / 6)


def test_an_empty_reply_is_unread_and_a_sentence_may_name_the_option():
    replies = ("", "It is a grasping error.", "grasping error", "Wrong object.")
    lines = [
        line("failure_identification", "Grasping error.", reply, video=f"v {reply}")
        for reply in replies
    ]
    assert accuracy(*lines)["coverage"] == 0.75
    assert [accuracy(x)["choice_accuracy"] for x in lines] == [0, 1, 1, 0]
