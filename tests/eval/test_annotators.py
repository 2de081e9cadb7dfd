"""Annotators compared: worked examples on tiny lakes, with embeddings that know equal names only."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import ROOT, Workspace
from core.tables import TABLES
from eval.annotators import (
    TRUTH,
    AnnotatorComparison,
    AnnotatorLabel,
    ComparisonError,
    EpisodeFacts,
    compare,
    label_runs,
    plain_name,
    score_episode,
    store,
    truth_labels,
)
from eval.held_out.truth import TruthError
from eval.similarity import embed
from warehouse.lake import Lake

SAMPLES = ROOT / "samples" / "truth"
TARGET = [("a", 0, 20), ("b", 20, 40), ("c", 40, 60)]
SHIFTED = [("a", 0, 23), ("b", 23, 45), ("c", 45, 60)]

# name, first frame, frame after, kind, completed
Row = tuple[str, int, int, str, bool]
TRUE: list[Row] = [
    ("Grasp the cube", 0, 40, "step", True),
    ("Place it", 40, 80, "step", False),
    ("Idle", 80, 100, "idle", False),
]
GOOD: list[Row] = [("grasp cube.", 0, 43, "step", True), ("Place it", 43, 100, "step", False)]
BAD: list[Row] = [("Move", 0, 100, "step", True)]


def one_hot(texts: Sequence[str]) -> np.ndarray:
    return np.eye(len(texts), 50, dtype=np.float32)


def test_names_that_do_not_tell_steps_apart() -> None:
    assert plain_name("Grasp the red cube.") == plain_name("grasp  red cube") == "grasp red cube"
    assert plain_name("Grasp the red cube") != plain_name("Grasp the green cube")


def label(rows: Sequence[Row], finished: bool | None = None) -> AnnotatorLabel:
    return AnnotatorLabel(tuple(r[:3] for r in rows), tuple(r[3] for r in rows), tuple(r[4] for r in rows), finished)


def test_every_metric_of_one_episode() -> None:
    names = ["Grasp the cube", "Place it", "grasp cube."]
    vectors = dict(zip(names, np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), strict=True))
    result = score_episode(label(GOOD, False), label(TRUE, False), EpisodeFacts(100, 10.0, False), vectors)
    assert result.values == pytest.approx(
        {
            "boundary_f1@5%": 2 / 3,  # 43 for 40; 80 was missed
            "boundary_f1@0.5s": 2 / 3,
            "segment_iou": (40 / 43 + 37 / 60 + 20 / 57) / 3,
            "edit_score": 1,  # articles, case and the full stop do not count
            "label_similarity": (0.6 + 1) / 2,
            "completed_accuracy": 1,
            "finished_accuracy": 1,
            "num_segments": 2,
            "target_num_segments": 3,
        }
    )
    assert result.published == (8, 10)  # truth 0 39 40 79 80 99 against 0 42 43 99: all four are near one of six


def test_the_tolerance_in_seconds_goes_by_the_frame_rate() -> None:
    near = [
        ("Grasp the cube", 0, 47, "step", True),
        ("Place it", 47, 80, "step", True),
        ("Idle", 80, 100, "idle", False),
    ]
    vectors = dict.fromkeys(["Grasp the cube", "Place it"], np.ones(1))
    values = [
        score_episode(label(near), label(TRUE), EpisodeFacts(100, fps, None), vectors).values for fps in (10.0, 20.0)
    ]
    assert [v["boundary_f1@0.5s"] for v in values] == [0.5, 1]
    assert [v["boundary_f1@5%"] for v in values] == [0.5, 0.5]
    assert [v["completed_accuracy"] for v in values] == [0.5, 0.5]
    assert np.isnan(values[0]["finished_accuracy"])


def test_rest_is_never_alike_a_step_nor_completes_it() -> None:
    idle = [("Stand still", 0, 100, "idle", False)]
    values = score_episode(
        label(idle),
        label(TRUE),
        EpisodeFacts(100, 10.0, None),
        dict.fromkeys(["Grasp the cube", "Place it"], np.ones(1)),
    ).values
    assert (values["label_similarity"], values["completed_accuracy"], values["edit_score"]) == (0, 0.5, 0)


def test_an_episode_against_itself() -> None:
    for dataset, lengths in (("sim_short", 66), ("sim_long", 18)):
        table = pq.read_table(SAMPLES / dataset / "segments.parquet").to_pylist()
        ends = {r["episode_index"]: r["end_frame"] for r in table}
        truth = truth_labels(SAMPLES, dataset, {e: EpisodeFacts(n, 10.0, None) for e, n in ends.items()})
        assert truth is not None
        assert len(truth) == lengths
        for one in truth.values():
            vectors = dict.fromkeys(one.step_names(), np.ones(1))
            result = score_episode(one, one, EpisodeFacts(one.spans[-1][2], 10.0, None), vectors)
            ours = {k: v for k, v in result.values.items() if "num_segments" not in k}
            assert set(ours.values()) == {1.0}
            assert result.published[0] == result.published[1]
    assert truth_labels(SAMPLES, "elsewhere", {}) is None


def test_embeddings_of_the_installed_model_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    vectors = embed(
        ["Grasp the red cube", "Place the cube onto the green cube", "Pick up the red cube", "Grasp the red cube"]
    )
    assert vectors.shape == (4, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    alike = vectors @ vectors[0]
    assert alike[3] == pytest.approx(1, abs=1e-5)
    assert alike[2] == pytest.approx(0.861, abs=0.01)
    assert alike[1] < alike[2]


# Lakes


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """`a` has ground truth, `b` has none; each has the runs r1 and r2, b's active one is r1."""
    lake = Lake(Workspace(tmp_path / "w"))
    fill(lake, "a", {"r1": {0: GOOD, 1: GOOD}, "r2": {0: BAD, 1: BAD}})
    fill(lake, "b", {"r1": {0: GOOD}, "r2": {0: BAD}})
    runs = [{"label_run": "r1", "annotator": "motion"}, {"label_run": "r2", "annotator": "vlm"}]
    lake.upsert("runs", label_runs=TABLES["label_runs"].rows(runs))
    return lake


def fill(lake: Lake, dataset: str, runs: dict[str, dict[int, list[Row]]]) -> None:
    """Episodes of 100 frames at 10 a second; even ones failed. The first run is the active one."""
    episodes = sorted({e for labels in runs.values() for e in labels})
    tables: dict[str, list[dict[str, Any]]] = {n: [] for n in ("episode_facts", "segments", "progress", "active_runs")}
    for e in episodes:
        here = {"dataset": dataset, "episode_index": e, "chunk": 0}
        tables["episode_facts"].append(here | {"num_rows": 100, "fps": 10.0, "success": e % 2 == 1})
        tables["active_runs"].append(here | {"label_run": next(iter(runs))})
    for run, labels in runs.items():
        for e, rows in labels.items():
            here = {"dataset": dataset, "episode_index": e, "chunk": 0, "label_run": run}
            for i, (name, start, end, kind, completed) in enumerate(rows):
                span = {"segment_index": i, "start_frame": start, "end_frame": end}
                tables["segments"].append(here | span | {"name": name, "kind": kind, "completed": completed})
            ends = ((0, 0.0), (99, 1.0 if rows[-1][4] else 0.4))
            tables["progress"] += [here | {"frame_index": f, "progress": p} for f, p in ends]
    lake.upsert("labels", **{n: TABLES[n].rows(rows) for n, rows in tables.items()})


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_truth(tmp_path / "truth", "a", {0: TRUE, 1: TRUE, 2: TRUE})  # of episode 2 the lake knows nothing
    return tmp_path / "truth"


def write_truth(folder: Path, dataset: str, labels: dict[int, list[Row]]) -> None:
    (folder / dataset).mkdir(parents=True)
    names = ("text", "start_frame", "end_frame", "kind", "completed")
    segments = [
        {"episode_index": e, "segment_index": i} | dict(zip(names, row, strict=True))
        for e, rows in labels.items()
        for i, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(segments[::-1]), folder / dataset / "segments.parquet")
    episodes = [{"episode_index": e, "success": False} for e in labels]
    pq.write_table(pa.Table.from_pylist(episodes), folder / dataset / "episodes.parquet")


def by_benchmark(found: list[AnnotatorComparison]) -> dict[tuple[str, str], AnnotatorComparison]:
    return {(c.benchmark, c.label_run): c for c in found}


def test_truth_where_there_is_any_else_the_active_label(lake: Lake, truth: Path) -> None:
    found = by_benchmark(compare(lake, truth, embedded=one_hot))
    assert set(found) == {("annotators/a", "r1"), ("annotators/a", "r2"), ("annotators/b (active label)", "r2")}
    r1, r2 = found["annotators/a", "r1"], found["annotators/a", "r2"]
    assert (r1.model, r2.model, r1.coverage["all"]) == ("motion r1", "vlm r2", 1)
    assert r1.scores["all", "boundary_f1@5%"].value == pytest.approx(2 / 3)
    assert r2.scores["all", "boundary_f1@5%"].value == 0
    assert r1.scores["all", "published_bf1@5"].value == pytest.approx(0.8)
    assert r1.scores["all", "finished_accuracy"].value == 1
    assert r2.scores["all", "finished_accuracy"].value == 0
    assert r1.scores["successes", "segment_iou"].n == r1.scores["failures", "segment_iou"].n == 1
    assert r1.scores["all", "segment_iou"].n == 2


def test_over_all_datasets_episodes_count_alike(lake: Lake, truth: Path) -> None:
    write_truth(truth, "b", {0: BAD})
    found = by_benchmark(compare(lake, truth, embedded=one_hot))
    score = found["annotators/all", "r2"].scores["all", "completed_accuracy"]
    assert (score.value, score.n) == (pytest.approx((0.5 + 0.5 + 1) / 3), 3)


def test_run_against_run(lake: Lake, truth: Path) -> None:
    found = compare(lake, truth, run="r2", against="r1", datasets=["a"], embedded=one_hot)
    (c,) = found
    assert (c.label_run, c.against, c.benchmark) == ("r2", "r1", "annotators/a (r1)")
    assert c.scores["all", "target_num_segments"].value == 2
    assert compare(lake, truth, run="r1", against="r1", embedded=one_hot) == []


def test_what_is_asked_for_and_is_not_there(lake: Lake, truth: Path) -> None:
    for options, message in (
        ({"run": "x"}, "no label run begins with 'x'; there are r1, r2"),
        ({"against": "r"}, "several label runs begin with 'r'; there are r1, r2"),
        ({"datasets": ["a", "c"]}, "no labels of a dataset 'c'; labelled: a, b"),
        ({"against": TRUTH, "datasets": ["b"]}, "no ground truth of b"),
    ):
        with pytest.raises(ComparisonError, match=message):
            compare(lake, truth, embedded=one_hot, **options)
    assert label_runs(lake) == {"a": {"r1": "motion", "r2": "vlm"}, "b": {"r1": "motion", "r2": "vlm"}}


def test_coverage_and_what_is_left_out(lake: Lake, truth: Path) -> None:
    lake.con.execute("DELETE FROM segments WHERE dataset = 'a' AND label_run = 'r1' AND episode_index = 1")
    changed = "UPDATE segments SET end_frame = 99 WHERE dataset = 'a' AND label_run = 'r2' AND episode_index = 0"
    lake.con.execute(changed)
    found = by_benchmark(compare(lake, truth, embedded=one_hot))
    assert found["annotators/a", "r1"].coverage == {"all": 0.5, "successes": 0, "failures": 1}
    assert found["annotators/a", "r2"].coverage == {"all": 0.5, "successes": 1, "failures": 0}
    bad = {"dataset": "a", "episode_index": 1, "chunk": 0, "stage": "frames", "reason": "too_short"}
    lake.upsert("bad", findings=TABLES["findings"].rows([bad | {"severity": "unusable"}]))
    found = by_benchmark(compare(lake, truth, embedded=one_hot))
    assert found["annotators/a", "r1"].coverage == {"all": 1, "failures": 1}
    assert found["annotators/a", "r2"].coverage == {"all": 0, "failures": 0}


def test_truth_of_other_episodes_is_an_error(lake: Lake, truth: Path) -> None:
    lake.con.execute("UPDATE episode_facts SET num_rows = 90 WHERE dataset = 'a' AND episode_index = 1")
    with pytest.raises(TruthError, match="a episode 1: ground truth has 100 frames, not 90"):
        compare(lake, truth, embedded=one_hot)


def test_scores_are_stored_once_and_newer_labels_replace_older(lake: Lake, truth: Path) -> None:
    def scores() -> list[tuple]:
        return lake.rows(
            "SELECT benchmark, model, value, n, coverage FROM leaderboard WHERE slice = 'all' "
            "AND metric = 'boundary_f1@5%' ORDER BY ALL"
        )

    assert store(lake, compare(lake, truth, embedded=one_hot)) == 3
    assert scores() == [
        ("annotators/a", "motion r1", pytest.approx(2 / 3), 2, 1.0),
        ("annotators/a", "vlm r2", 0.0, 2, 1.0),
        ("annotators/b (active label)", "vlm r2", 0.0, 1, 1.0),
    ]
    before = lake.snapshot()
    assert store(lake, compare(lake, truth, embedded=one_hot)) == 0
    assert lake.snapshot() == before
    lake.con.execute("UPDATE segments SET end_frame = 60 WHERE dataset = 'a' AND label_run = 'r1' AND end_frame = 43")
    lake.con.execute(
        "UPDATE segments SET start_frame = 60 WHERE dataset = 'a' AND label_run = 'r1' AND start_frame = 43"
    )
    assert store(lake, compare(lake, truth, embedded=one_hot)) == 1
    assert scores()[0] == ("annotators/a", "motion r1", 0.0, 2, 1.0)
    assert len(scores()) == 3
