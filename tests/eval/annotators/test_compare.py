"""Annotators compared: worked examples on tiny lakes, with embeddings that know equal names only."""

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.segments import Segment
from annotate.similarity import embed
from core.errors import UserError
from core.paths import ROOT, Workspace
from core.tables import TABLES
from eval.annotators.compare import (
    TRUTH,
    AnnotatorComparison,
    compare,
    differences,
    gain,
    store,
)
from eval.annotators.labels import LabelledEpisode, label_runs
from eval.annotators.scoring import CLOCK, UNIFORM, published_counts, score_label, score_steps
from eval.annotators.truth import EpisodeTruth, simulator_truth
from eval.metrics.segments import plain_name
from tests.kits.hand_truth import write_truth as write_people
from warehouse.lake import Lake

SAMPLES = ROOT / "samples" / "truth"

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


def segments(rows: Sequence[Row]) -> tuple[Segment, ...]:
    return tuple(Segment(name, start, end, kind, completed) for name, start, end, kind, completed in rows)


def label(rows: Sequence[Row], end: float = 1.0) -> LabelledEpisode:
    """A label whose progress comes to `end` with time."""
    own = segments(rows)
    return LabelledEpisode(own, np.linspace(0, end, own[-1].end_frame), "motion")


def true(rows: Sequence[Row], success: bool | None = False, fps: float = 10.0) -> EpisodeTruth:
    own = segments(rows)
    boundaries = tuple(s.start_frame for s in own[1:])
    return EpisodeTruth("a", 0, own[-1].end_frame, fps, success, boundaries, (), (own,))


def test_every_metric_of_one_episode() -> None:
    names = ["Grasp the cube", "Place it", "grasp cube."]
    vectors = dict(zip(names, np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), strict=True))
    ours, target = label(GOOD, 0.4), true(TRUE)
    assert score_steps(ours, target, vectors) == pytest.approx(
        {
            "boundary_f1@5%": 2 / 3,  # 43 for 40; 80 was missed
            "segment_iou": (40 / 43 + 37 / 60 + 20 / 57) / 3,
            "edit_score": 1,  # articles, case and the full stop do not count
            "label_similarity": (0.6 + 1) / 2,
            "completed_accuracy": 1,
            "finished_accuracy": 1,
            "num_segments": 2,
            "target_num_segments": 3,
        }
    )
    assert score_label(ours, target)["boundary_f1@0.5s"] == pytest.approx(2 / 3)
    # truth 0 39 40 79 80 99 against 0 42 43 99: all four are near one of six
    assert published_counts(ours, target) == (8, 10)


def test_of_two_passes_metrics_are_the_mean() -> None:
    vectors = dict.fromkeys(["Grasp the cube", "Place it", "grasp cube.", "Move"], np.ones(1))
    both = replace(true(TRUE), passes=(segments(TRUE), segments(GOOD)))
    alone = score_steps(label(GOOD), true(TRUE), vectors)
    assert score_steps(label(GOOD), both, vectors)["segment_iou"] == pytest.approx((alone["segment_iou"] + 1) / 2)


def test_the_tolerance_in_seconds_goes_by_the_frame_rate() -> None:
    near = label([("Grasp the cube", 0, 47, "step", True), ("Place it", 47, 80, "step", True), TRUE[2]])
    assert [score_label(near, true(TRUE, fps=fps))["boundary_f1@0.5s"] for fps in (10.0, 20.0)] == [0.5, 1]
    vectors = dict.fromkeys(["Grasp the cube", "Place it"], np.ones(1))
    values = score_steps(near, true(TRUE, None), vectors)
    assert (values["boundary_f1@5%"], values["completed_accuracy"]) == (0.5, 0.5)
    assert np.isnan(values["finished_accuracy"])


def test_rest_is_never_alike_a_step_nor_completes_it() -> None:
    idle = label([("Stand still", 0, 100, "idle", False)], 0.5)
    values = score_steps(idle, true(TRUE), dict.fromkeys(["Grasp the cube", "Place it"], np.ones(1)))
    assert (values["label_similarity"], values["completed_accuracy"], values["edit_score"]) == (0, 0.5, 0)


def test_an_episode_against_itself() -> None:
    for dataset, lengths in (("sim_short", 66), ("sim_long", 18)):
        truths = simulator_truth(SAMPLES, dataset, dict.fromkeys(range(lengths), 10.0))
        assert len(truths) == lengths
        for one in truths.values():
            own = LabelledEpisode(one.passes[0], one.progress(), "simulator")
            vectors = dict.fromkeys([s.name for s in one.passes[0]], np.ones(1))
            ours = {k: v for k, v in score_steps(own, one, vectors).items() if "num_segments" not in k}
            assert set(ours.values()) == {1.0}
            score = score_label(own, one)
            assert (score["boundary_f1@0.5s"], score["mae"]) == (1, 0)
            hits, total = published_counts(own, one)
            assert hits == total
    assert simulator_truth(SAMPLES, "elsewhere", {}) == {}


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
                tables["segments"].append(
                    here | span | {"name": name, "kind": kind, "completed": completed, "named": name != "Move"}
                )
            curve = np.linspace(0, 1.0 if rows[-1][4] else 0.4, rows[-1][2])
            tables["progress"] += [here | {"frame_index": f, "progress": p} for f, p in enumerate(curve)]
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
    return {(c.benchmark, c.model): c for c in found}


def compared(lake: Lake, truth: Path | None, **options: Any) -> dict[tuple[str, str], AnnotatorComparison]:
    return by_benchmark(compare(lake, truth, embedded=one_hot, **options).labellers)


def test_truth_where_there_is_any_else_the_active_label(lake: Lake, truth: Path) -> None:
    found = compared(lake, truth)
    runs = {key for key, c in found.items() if c.label_run}
    assert runs == {
        ("annotators/a", "motion r1"),
        ("annotators/a", "vlm r2"),
        ("annotators/b (active label)", "vlm r2"),
    }
    r1, r2 = found["annotators/a", "motion r1"], found["annotators/a", "vlm r2"]
    assert (r1.counts, r2.counts, r1.coverage["all"]) == (True, False, 1)
    assert r1.scores["all", "boundary_f1@0.5s"].value == pytest.approx(2 / 3)
    assert r2.scores["all", "boundary_f1@0.5s"].value == 0
    assert (r1.scores["all", "unnamed"].value, r2.scores["all", "unnamed"].value) == (0, 1)
    assert r1.scores["all", "published_bf1@5"].value == pytest.approx(0.8)
    assert r1.scores["all", "finished_accuracy"].value == 1
    assert r2.scores["all", "finished_accuracy"].value == 0
    assert r1.scores["successes", "segment_iou"].n == r1.scores["failures", "segment_iou"].n == 1
    assert r1.scores["all", "segment_iou"].n == 2


def test_baselines_stand_beside_the_runs(lake: Lake, truth: Path) -> None:
    """Uniform cuts are at 33 and 67; neither is within half a second of 40 or 80."""
    found = compared(lake, truth, datasets=["a"])
    uniform, clock = found["annotators/a", UNIFORM], found["annotators/a", CLOCK]
    assert uniform.scores["all", "boundary_f1@0.5s"].value == 0
    assert ("all", "mae") not in uniform.scores
    assert clock.scores["all", "mae"].n == 2
    gap = differences(found["annotators/a", "motion r1"], uniform)["boundary_f1@0.5s"]
    assert (gap.value, gap.n) == (pytest.approx(2 / 3), 2)


def test_what_is_gained_is_more_where_an_error_is_less(lake: Lake, truth: Path) -> None:
    """The curve of r2 is the clock itself; that of r1 comes to 0.4 only."""
    found = compared(lake, truth, datasets=["a"])
    r1, r2, clock = (found["annotators/a", name] for name in ("motion r1", "vlm r2", CLOCK))
    assert gain(r2, clock, "mae").value == pytest.approx(0, abs=1e-6)
    assert gain(r1, clock, "mae").value == -differences(r1, clock)["mae"].value != 0
    assert gain(r1, r2, "unnamed").value == 1
    assert gain(r2, r1, "boundary_f1@0.5s").value == pytest.approx(-2 / 3)
    assert gain(r1, clock, "boundary_f1@0.5s").n == 0


def test_where_two_runs_are_farthest_apart(lake: Lake, truth: Path) -> None:
    lake.con.execute("UPDATE progress SET progress = 1 WHERE dataset = 'a' AND label_run = 'r2' AND episode_index = 1")
    (apart,) = compare(lake, truth, datasets=["a"], embedded=one_hot).apart
    assert (apart.first, apart.second, apart.num_episodes) == ("r1", "r2", 2)
    assert [(a.episode_index, a.boundary_f1) for a in apart.episodes] == [(1, 0), (0, 0)]
    assert apart.episodes[0].progress == pytest.approx(0.8)
    (alone,) = compare(lake, truth, run="r1", datasets=["a"], embedded=one_hot).apart
    assert (alone.first, alone.second) == ("r1", TRUTH)


def test_over_all_datasets_episodes_count_alike(lake: Lake, truth: Path) -> None:
    write_truth(truth, "b", {0: BAD})
    score = compared(lake, truth)["annotators/all", "vlm r2"].scores["all", "completed_accuracy"]
    assert (score.value, score.n) == (pytest.approx((0.5 + 0.5 + 1) / 3), 3)


def test_run_against_run(lake: Lake, truth: Path) -> None:
    found = compare(lake, truth, run="r2", against="r1", datasets=["a"], embedded=one_hot)
    c = found.labellers[0]
    assert (c.label_run, c.against, c.benchmark) == ("r2", "r1", "annotators/a (r1)")
    assert c.scores["all", "target_num_segments"].value == 2
    assert compare(lake, truth, run="r1", against="r1", embedded=one_hot).labellers == []


def test_what_is_asked_for_and_is_not_there(lake: Lake, truth: Path) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"run": "x"}, "no label run begins with 'x'; there are r1, r2"),
        ({"against": "r"}, "several label runs begin with 'r'; there are r1, r2"),
        ({"datasets": ["a", "c"]}, "no labels of a dataset 'c'; labelled: a, b"),
        ({"against": TRUTH, "datasets": ["b"]}, "no truth of b in .*: it has a$"),
    ]
    for options, message in asked:
        with pytest.raises(UserError, match=message):
            compare(lake, truth, embedded=one_hot, **options)
    assert label_runs(lake) == {"a": {"r1": "motion", "r2": "vlm"}, "b": {"r1": "motion", "r2": "vlm"}}


def test_people_s_files_are_a_truth(lake: Lake, tmp_path: Path) -> None:
    """Boundaries at 50 and 52, a grasp at 50; one episode is not in the corpus, which is said."""
    write_people(tmp_path, 0, 100, dataset="a")
    write_people(tmp_path, 7, 100, dataset="a")
    found = compare(lake, tmp_path, against=TRUTH, datasets=["a"], embedded=one_hot)
    r1 = by_benchmark(found.labellers)["annotators/a", "motion r1"]
    assert (r1.scores["all", "events@0.5s"].value, r1.scores["all", "events_off_s"].value) == (0, pytest.approx(0.7))
    assert r1.scores["all", "boundary_f1@1s"].value == pytest.approx(2 / 3)
    assert found.without == {"a": 1}


def test_coverage_and_what_is_left_out(lake: Lake, truth: Path) -> None:
    lake.con.execute("DELETE FROM segments WHERE dataset = 'a' AND label_run = 'r1' AND episode_index = 1")
    changed = "UPDATE segments SET end_frame = 99 WHERE dataset = 'a' AND label_run = 'r2' AND episode_index = 0"
    lake.con.execute(changed)
    found = compared(lake, truth)
    assert found["annotators/a", "motion r1"].coverage == {"all": 0.5, "successes": 0, "failures": 1}
    assert found["annotators/a", "vlm r2"].coverage == {"all": 0.5, "successes": 1, "failures": 0}
    assert found["annotators/a", UNIFORM].coverage["all"] == 1
    bad = {"dataset": "a", "episode_index": 1, "chunk": 0, "stage": "frames", "reason": "too_short"}
    lake.upsert("bad", findings=TABLES["findings"].rows([bad | {"severity": "unusable"}]))
    found = compared(lake, truth)
    assert found["annotators/a", "motion r1"].coverage == {"all": 1, "failures": 1}
    assert found["annotators/a", "vlm r2"].coverage == {"all": 0, "failures": 0}


def test_labels_without_progress_are_compared_by_their_segments(lake: Lake, truth: Path) -> None:
    lake.con.execute("DELETE FROM progress WHERE dataset = 'a' AND label_run = 'r2'")
    r2 = compared(lake, truth, datasets=["a"])["annotators/a", "vlm r2"]
    assert r2.scores["all", "mae"].n == r2.scores["all", "finished_accuracy"].n == 0
    assert r2.scores["all", "segment_iou"].n == 2


def test_truth_of_other_episodes_is_an_error(lake: Lake, truth: Path) -> None:
    lake.con.execute("UPDATE episode_facts SET num_rows = 90 WHERE dataset = 'a' AND episode_index = 1")
    with pytest.raises(UserError, match="a episode 1: the truth has 100 frames, the corpus 90"):
        compare(lake, truth, embedded=one_hot)


def test_scores_are_stored_once_and_newer_labels_replace_older(lake: Lake, truth: Path) -> None:
    def stored() -> list[tuple]:
        return lake.rows(
            "SELECT benchmark, model, value, n, coverage FROM leaderboard WHERE slice = 'all' "
            "AND metric = 'boundary_f1@5%' ORDER BY ALL"
        )

    # On each dataset its runs, uniform and random cuts and the clock; the baselines of both are of different kinds
    assert store(lake, compare(lake, truth, embedded=one_hot).labellers) == 5 + 4
    assert stored() == [
        ("annotators/a", "motion r1", pytest.approx(2 / 3), 2, 1.0),
        ("annotators/a", "vlm r2", 0.0, 2, 1.0),
        ("annotators/b (active label)", "vlm r2", 0.0, 1, 1.0),
    ]
    before = lake.snapshot()
    assert store(lake, compare(lake, truth, embedded=one_hot).labellers) == 0
    assert lake.snapshot() == before
    lake.con.execute("UPDATE segments SET end_frame = 60 WHERE dataset = 'a' AND label_run = 'r1' AND end_frame = 43")
    lake.con.execute(
        "UPDATE segments SET start_frame = 60 WHERE dataset = 'a' AND label_run = 'r1' AND start_frame = 43"
    )
    # Of dataset b nothing has changed; what is compared with a's truth needs no label of its own
    assert store(lake, compare(lake, truth, embedded=one_hot).labellers) == 1
    assert stored()[0] == ("annotators/a", "motion r1", 0.0, 2, 1.0)
    assert len(stored()) == 3
