"""The tables of label_truth on a small built corpus."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.segments import Segment
from benchmarks.real_truth import (
    RealSet,
    ends_off,
    figures,
    is_wrong,
    print_real,
    real_claims,
    real_json,
    score_dataset,
)
from benchmarks.sim_truth import Run, failed_among_first
from benchmarks.simulated_sets import SIM_COLUMNS, print_simulated, simulated_rows
from benchmarks.trial import among_first, stated_outcomes, without_outcomes
from eval.annotators.labels import stored_labels
from eval.annotators.scoring import EpisodeScore
from eval.annotators.truth import corpus_truth, read_truth
from tests.kits.hand_truth import write_truth
from tests.kits.lake_kit import facts, stage_run
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.lake import Lake
from warehouse.lake.outcomes import listed


@pytest.fixture
def scored(made: Made, tmp_path: Path) -> RealSet:
    """Truth of three episodes: one fits, one is of a longer recording, one has no label."""
    write_truth(tmp_path, 0, LENGTHS[0])
    write_truth(tmp_path, 1, LENGTHS[1] + 5)
    write_truth(tmp_path, 99, 20)
    return score_dataset(Lake(made.space, read_only=True), "tiny", read_truth(tmp_path, "tiny"))


def test_labels_are_read_as_the_workspace_has_them(made: Made) -> None:
    labels = stored_labels(Lake(made.space, read_only=True), "tiny")
    assert sorted(labels) == list(range(len(LENGTHS)))
    for episode, label in labels.items():
        assert len(label.progress) == LENGTHS[episode]
        assert label.segments[-1].end_frame == LENGTHS[episode]
        assert label.annotator == "motion"


def test_what_cannot_be_scored_is_named_and_not_counted(scored: RealSet) -> None:
    assert list(scored.scores) == [0]
    assert scored.missing[99] == "no label"
    assert "18 frames are labelled, the truth has 23" in scored.missing[1]


def test_the_figures_go_to_json_with_null_for_what_is_not_defined(scored: RealSet) -> None:
    data = json.loads(json.dumps(real_json([scored]), allow_nan=False))["tiny"]
    assert data["figures"]["mae"]["value"] == pytest.approx(scored.scores[0].mae, abs=1e-4)
    assert data["figures"]["mae_passes"]["value"] is None
    ends = [segment["ends_off_s"] for segment in data["episodes"]["0"]["segments"]]
    assert sum(map(len, ends)) == 2 * scored.scores[0].cuts
    assert set(data["missing"]) == {"1", "99"}


def test_the_table_has_a_row_per_set_and_names_what_is_missing(
    scored: RealSet, capsys: pytest.CaptureFixture[str]
) -> None:
    print_real([scored])
    printed = capsys.readouterr().out
    assert "| tiny | motion | 1 (and 2 without) |" in printed
    assert "tiny episode 99 is not scored: no label" in printed


def test_differences_are_ours_less_the_others(scored: RealSet) -> None:
    own = scored.scores[0]
    by_name, gaps = figures([own, own])
    assert gaps["mae less clock"].value == pytest.approx(own.mae - own.mae_clock)
    assert gaps["f1_near less uniform"].value == pytest.approx(own.f1_near - own.f1_near_uniform)
    assert by_name["f1_near"].n == 2


def test_truth_is_found_by_the_number_that_a_folder_bears(lake: Lake, ds: str, tmp_path: Path) -> None:
    """Folders 1 and 2 are the corpus's episodes 0 and 1; of 3 there are two cameras, so its own number counts."""
    sources = {0: "episode_001", 1: "day/episode_002", 2: "episode_003/top.mp4", 3: "episode_003/wrist.mp4"}
    table = pa.concat_tables(facts(ds, episodes=(e,), source_id=source_id) for e, source_id in sources.items())
    lake.publish(stage_run(stage="episodes", dataset=ds, chunk=None), {"episode_facts": table})
    for number in (1, 2, 3):
        write_truth(tmp_path, number, 20, dataset=ds)
    truth = corpus_truth(lake, tmp_path, ds)
    assert {episode: t.episode_index for episode, t in truth.items()} == {0: 1, 1: 2, 3: 3}


# The review queue


def run(success: bool, review_score: float) -> Run:
    return Run("task", "expert", success, np.zeros((4, 5)), None, ((0, 0), (0, 0)), (0, 0), review_score)  # type: ignore[arg-type]


def test_failed_runs_first_in_the_queue_count_over_chance() -> None:
    runs = [run(False, 0.9), run(False, 0.8), *[run(True, 0.7 - 0.01 * k) for k in range(8)]]
    assert failed_among_first(runs, 0.2) == pytest.approx(5)
    assert failed_among_first([run(r.success, 1 - r.review_score) for r in runs], 0.2) == 0


def test_an_empty_queue_is_chance() -> None:
    assert failed_among_first([run(k == 0, 0.0) for k in range(10)], 0.3) == pytest.approx(1)


def test_equal_scores_count_as_drawn_by_chance() -> None:
    """The first two of four: one is sure to be there, of three alike one in three is."""
    assert among_first([False, True, False, False], [0.9, 0.5, 0.5, 0.5], 0.5) == pytest.approx(1 / 3)


def test_without_a_failed_run_there_is_nothing_to_say() -> None:
    assert np.isnan(failed_among_first([run(True, 0.5)], 0.3))


def test_only_ends_inside_the_episode_are_judged(scored: RealSet) -> None:
    """Boundaries are at frames 12 and 14, at 10 fps."""
    truth = scored.truth[0]
    assert ends_off(Segment("all", 0, LENGTHS[0]), truth) == []
    assert ends_off(Segment("middle", 10, 20), truth) == pytest.approx([0.2, 0.6])


def test_what_is_no_better_than_looking_at_nothing_is_wrong(scored: RealSet) -> None:
    own = scored.scores[0]
    good = replace(own, f1_near=0.9, f1_near_random=0.3, mae=0.1, mae_clock=0.2)
    assert not is_wrong(good)
    assert is_wrong(replace(good, mae=0.2))
    assert is_wrong(replace(good, f1_near=0.3))


def test_claims_of_real_sets_need_an_interval_clear_of_zero(scored: RealSet) -> None:
    own = scored.scores[0]
    good = replace(own, f1_near=0.9, f1_near_uniform=0.5, f1_near_random=0.3, mae=0.1, mae_clock=0.2)
    several = replace(scored, scores={0: good, 1: replace(good, f1_near=0.8)})
    assert [holds for *_, holds in real_claims([several])] == [True, True, True]
    worse = replace(scored, scores={0: good, 1: replace(good, f1_near=0.4, mae=0.5)})
    assert [(what, holds) for _, what, _, _, holds in real_claims([worse])] == [
        ("f1_near less uniform", False),
        ("f1_near less random", True),
        ("mae less clock", False),
    ]
    assert real_claims([replace(several, made_by="native")]) == []


def test_of_one_episode_random_cuts_stand_in_for_the_interval(scored: RealSet) -> None:
    for share, holds in ((0.04, True), (0.06, False)):
        one = replace(scored, scores={0: replace(scored.scores[0], f1_near_chance=share, mae=0.1, mae_clock=0.2)})
        assert [(what, ok) for _, what, _, _, ok in real_claims([one])] == [
            ("mae less clock", True),
            ("random cuts as good", holds),
        ]


# Simulated sets


def simulated(success: bool, error: float, clock: float) -> Run:
    """A run whose labels have an error, with a clock beside them; boundaries are as good as uniform cuts."""
    values = np.full((4, 5), np.nan)
    values[0, :2], values[2, 0] = (error, clock), 1 - success
    names = [f.name for f in fields(EpisodeScore)]
    score = EpisodeScore(**dict.fromkeys(names, 0.5))
    kind = "expert" if success else "stopped"
    return Run(f"task {clock}", kind, success, values, score, ((1, 2), (1, 4)), (0.5, 0.25), 0.0 if success else 1.0)


def test_figures_of_simulated_runs_are_apart_by_what_happened() -> None:
    runs = [simulated(True, 0.1, 0.2), simulated(True, 0.1, 0.4), simulated(False, 0.3, 0.2)]
    (row,) = simulated_rows({("new", "sim_short", "without"): runs})
    assert (row["set"], row["outcomes"], row["runs"], row["tasks"]) == ("new", "without", 3, 2)
    values = {name: figure["value"] for name, figure in row["figures"].items()}
    assert set(values) == set(SIM_COLUMNS)
    assert values["clean: MAE less clock's"] == pytest.approx(-0.2)
    assert values["troubled: MAE less clock's"] == pytest.approx(0.1)
    assert values["failed: end error"] == 1
    assert values["BF1@5 less uniform's"] == pytest.approx(0.25)
    assert values["IoU less uniform's"] == pytest.approx(0.25)
    assert values["failed runs first in the queue, over chance"] == pytest.approx(3)


def test_what_no_run_shows_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = simulated_rows({("new", "sim_long", "with"): [simulated(True, 0.1, 0.2)]})
    assert row["figures"]["failed: end error"] == {"value": None, "low": None, "high": None}
    json.dumps(row, allow_nan=False)
    print_simulated([row])
    assert "| new | sim_long | with | 1 | -0.100 (-0.100 to -0.100) | – | – |" in capsys.readouterr().out


# Outcomes stated, and left out


def test_stated_outcomes_are_taken_back(made: Made, tmp_path: Path) -> None:
    space = made.copy(tmp_path).space

    def stated() -> dict[int, bool]:
        lake = Lake(space, read_only=True)
        try:
            return {row["episode_index"]: row["success"] for row in listed(lake, "tiny")}
        finally:
            lake.con.close()

    before = stated()
    with stated_outcomes(space, "tiny", {0: False, 1: True}):
        assert stated() == before | {0: False, 1: True}
    assert stated() == before


def test_a_copy_without_outcomes_has_all_but_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "meta").mkdir(parents=True)
    rows = pa.table({"action": [[0.0], [1.0]], "next.success": [False, True], "stats/next.success/max": [1, 1]})
    pq.write_table(rows, source / "rows.parquet")
    features = {"action": {"dtype": "float32"}, "next.success": {"dtype": "bool"}}
    (source / "meta" / "info.json").write_text(json.dumps({"fps": 10, "features": features}))
    (source / "meta" / "stats.json").write_text(json.dumps({"action": {}, "next.success": {}}))
    (source / "video.mp4").write_bytes(b"pictures")

    copy = without_outcomes(source, tmp_path / "copy")
    assert pq.read_table(copy / "rows.parquet").to_pydict() == {"action": [[0.0], [1.0]]}
    assert json.loads((copy / "meta" / "info.json").read_text()) == {
        "fps": 10,
        "features": {"action": features["action"]},
    }
    assert json.loads((copy / "meta" / "stats.json").read_text()) == {"action": {}}
    assert (copy / "video.mp4").read_bytes() == b"pictures"
    assert "next.success" in pq.read_table(source / "rows.parquet").column_names
