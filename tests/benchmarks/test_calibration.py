"""The measure of motion's confidence: what counts as right, what is expected of it, and how far both are apart."""

import json

import numpy as np
import pytest

from annotate import motion
from annotate.label import plain_label
from annotate.motion.confidence import SHARES, BoundaryEvidence, LabelEvidence
from annotate.segments import DONE, Segment
from benchmarks.calibration import (
    BY_HAND,
    BY_SIMULATOR,
    FIGURES,
    GROUPS,
    LEVELS,
    PICTURE,
    WAYS,
    JudgedLabel,
    as_json,
    diagram,
    evidence_cells,
    evidence_rows,
    fitted,
    judged,
    judged_labels,
    left_out,
    reliability,
    reliability_by_level,
    share_by_chance,
    stated,
)
from core.paths import ROOT
from eval.annotators.truth import EpisodeTruth, read_truth
from tests.kits.hand_truth import write_truth
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.lake import Lake

FPS = 10.0
NONE = float("nan")


def truth_of(*boundaries: int, dataset: str = "arms") -> EpisodeTruth:
    return EpisodeTruth(dataset, 0, 100, FPS, True, boundaries, (), ())


def fit(labels: list[JudgedLabel]) -> dict[BoundaryEvidence, float]:
    return fitted(labels, share_by_chance(labels))


def label_of(source: str, evidence: BoundaryEvidence, *right: float, group: str = BY_SIMULATOR) -> JudgedLabel:
    """A label whose boundaries are all shown by the same."""
    n = len(right)
    shown = LabelEvidence((evidence,) * n, (None,) * (n + 1))
    return JudgedLabel(group, source, shown, right, (NONE,) * (n + 1), by_chance=0.4)


SEGMENTS = [Segment("Reach", 0, 30, step=0), Segment("Pull", 30, 80, step=1), Segment("Done", 80, 100, DONE)]
SHOWN = LabelEvidence((BoundaryEvidence.TURNS, BoundaryEvidence.ENDS_AT_REST), (None, None, None))


def test_a_boundary_is_right_within_half_a_second():
    label = plain_label(SEGMENTS, 2, None)
    assert judged(label, SHOWN, truth_of(35, 74), BY_HAND, "arms").boundaries == (1.0, 0.0)
    assert judged(label, SHOWN, truth_of(), BY_HAND, "arms").boundaries == (0.0, 0.0)


def test_a_stand_still_is_not_judged_where_the_truth_has_none():
    rests = LabelEvidence((BoundaryEvidence.STANDS_STILL, BoundaryEvidence.ENDS_AT_REST), (None, None, None))
    label = plain_label(SEGMENTS, 2, None)
    assert judged(label, rests, truth_of(80), BY_HAND, "arms").boundaries == (0.0, 1.0)
    unmarked = judged(label, rests, truth_of(80, dataset="sim_short"), BY_SIMULATOR, "arms")
    assert np.isnan(unmarked.boundaries[0])
    assert list(unmarked.judged()) == [(BoundaryEvidence.ENDS_AT_REST, 1.0)]


def test_an_only_step_is_right_if_nothing_ends_inside_it():
    label = plain_label([Segment("Wave", 0, 80, step=0), Segment("Done", 80, 100, DONE)], 1, None)
    alone = LabelEvidence((BoundaryEvidence.ENDS_AT_REST,), (BoundaryEvidence.ONLY_STEP, None))
    inside = [judged(label, alone, truth_of(*at), BY_HAND, "arms").inside[0] for at in [(80,), (78,), (40, 80)]]
    assert inside == [1.0, 1.0, 0.0]


def test_what_was_hardly_seen_is_expected_to_be_as_right_as_cuts_that_look_at_nothing():
    labels = [label_of("a", BoundaryEvidence.CLOSES, 1.0, 1.0)]
    expected = fit(labels)
    assert expected[BoundaryEvidence.DIPS] == pytest.approx(0.4)
    assert expected[BoundaryEvidence.ONLY_STEP] == 0.0
    # One run says little: even a boundary that was right is not yet expected to be always right
    assert 0.4 < expected[BoundaryEvidence.CLOSES] < 0.9
    many = fit([label_of(f"task {k}", BoundaryEvidence.CLOSES, 1.0, 1.0) for k in range(40)])
    assert many[BoundaryEvidence.CLOSES] >= 0.9


def test_many_runs_of_one_task_say_less_than_as_many_of_several():
    wrong = [label_of("a", BoundaryEvidence.TURNS, 0.0) for _ in range(100)]
    right = [label_of(f"task {k}", BoundaryEvidence.TURNS, 1.0, 1.0, 1.0, 1.0) for k in range(5)]
    assert fit([*wrong, *right])[BoundaryEvidence.TURNS] > 0.6


def test_simulation_does_not_outweigh_what_people_labelled():
    simulated = [label_of(f"task {k}", BoundaryEvidence.DIPS, *[1.0] * 8) for k in range(100)]
    by_hand = [label_of(f"robot {k}", BoundaryEvidence.DIPS, *[0.0] * 8, group=BY_HAND) for k in range(8)]
    assert fit(simulated)[BoundaryEvidence.DIPS] > 0.85
    assert fit([*simulated, *by_hand])[BoundaryEvidence.DIPS] == pytest.approx(0.5, abs=0.05)


def test_a_dataset_is_judged_by_what_the_others_show():
    labels = [label_of("a", BoundaryEvidence.TURNS, *[1.0] * 4), label_of("b", BoundaryEvidence.TURNS, *[0.0] * 4)]
    expected = left_out(labels)
    assert (
        expected["a"][BoundaryEvidence.TURNS]
        < fit(labels)[BoundaryEvidence.TURNS]
        < expected["b"][BoundaryEvidence.TURNS]
    )


def test_what_is_said_and_what_is_right_are_compared_at_each_level():
    label = label_of("a", BoundaryEvidence.TURNS, 1.0, 0.0)
    expected = {"a": dict.fromkeys(BoundaryEvidence, 0.5)}
    right = {level: [s.right for s in stated([label], expected, level)] for level in LEVELS}
    assert right == {"boundaries": [1.0, 0.0], "segments": [1.0, 0.5, 0.0], "episodes": [0.5]}
    # What is not judged is neither said nor right
    unjudged = label_of("a", BoundaryEvidence.TURNS, NONE, 0.0)
    assert [s.right for s in stated([unjudged], expected, "boundaries")] == [0.0]
    assert [s.right for s in stated([unjudged], expected, "segments")] == [0.0, 0.0]


def test_the_calibration_error_is_how_far_both_are_apart():
    def error(share: float, *right: float) -> float:
        labels = [label_of("a", BoundaryEvidence.TURNS, *right)]
        return reliability(stated(labels, {"a": dict.fromkeys(BoundaryEvidence, share)}, "boundaries")).error.value

    assert error(0.75, 1.0, 1.0, 1.0, 0.0) == pytest.approx(0.0)
    assert error(0.95, 0.0, 0.0) == pytest.approx(0.95)
    assert error(0.25, 1.0, 1.0, 1.0, 0.0) == pytest.approx(0.5)


def test_episodes_of_a_corpus_are_judged_in_each_way(made: Made, tmp_path) -> None:
    write_truth(tmp_path, 0, LENGTHS[0])
    lake = Lake(made.space, read_only=True)
    labels = list(judged_labels(lake, "tiny", read_truth(tmp_path, "tiny"), BY_HAND, "tiny"))
    assert 1 <= len(labels) <= len(WAYS)
    assert sum(label.weight for label in labels) == pytest.approx(1.0)
    assert len({(label.frames, label.evidence) for label in labels}) == len(labels)
    rows, by_level = evidence_rows(labels), reliability_by_level(labels)
    data = json.loads(json.dumps(as_json(labels, rows, by_level), allow_nan=False))
    counted = sum(row[BY_HAND]["boundaries"] for row in data["evidence"])
    assert counted == sum(b["count"] for b in data["reliability"]["boundaries"]["all"]["bins"])
    assert diagram(by_level).axes[0].get_title(loc="left").startswith("boundaries")


def test_the_table_in_the_code_is_what_was_measured() -> None:
    data = json.loads(FIGURES.read_text())
    assert data["code_version"] == motion.CODE_VERSION
    assert {row["evidence"]: row["share"] for row in data["evidence"]} == SHARES
    assert all(sum(row[group]["boundaries"] for group in GROUPS) > 0 for row in data["evidence"])
    assert PICTURE.stat().st_size > 10_000


def test_the_docs_have_the_table_that_was_measured() -> None:
    page = (ROOT / "docs" / "labels.md").read_text()
    for row in json.loads(FIGURES.read_text())["evidence"]:
        assert f"| {' | '.join(evidence_cells(row))} |" in page
    assert PICTURE.name in page
