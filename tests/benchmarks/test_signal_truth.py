"""Detected gripper events against labelled ones, and the signal report against what a person sees."""

from pathlib import Path

import pytest

from annotate.segments import Segment
from benchmarks import signal_truth
from benchmarks.signal_truth import (
    Detected,
    SeenSignal,
    agrees,
    count_events,
    event_scores,
    of_a_gripper,
)
from eval.annotators.truth import EpisodeTruth, TruthEvent, nearest_pairs


def truth(*events: TruthEvent) -> EpisodeTruth:
    """10 fps; the hand withdraws from frame 90 on."""
    one_pass = (Segment("carry", 0, 90), Segment("withdraw", 90, 100))
    return EpisodeTruth("arm", 0, 100, 10.0, True, (90,), events, (one_pass,))


def test_the_nearest_are_paired_first_and_each_once() -> None:
    assert nearest_pairs([10, 13], [12, 20], 5) == [(1, 0)]
    assert nearest_pairs([10, 13], [9, 14], 5) == [(0, 0), (1, 1)]
    assert nearest_pairs([10], [16], 5) == []


def test_events_count_once_and_by_their_way() -> None:
    seen = truth(TruthEvent("grasp", 30), TruthEvent("release", 60), TruthEvent("contact", 45))
    # Closings: at the grasp, once more beside it, where something is let go, at a contact, at a boundary
    frames = (31, 33, 62, 45, 91)
    counts = count_events([Detected("left", frame, "close") for frame in frames], seen)
    assert (counts.detected, counts.near_truth, counts.near_truth_or_boundary) == (5, 2, 4)
    assert (counts.labelled, counts.near_detected, counts.right_way) == (2, 2, 1)
    assert counts.seconds_off == pytest.approx(0.3)


def test_an_event_more_than_half_a_second_off_is_another() -> None:
    counts = count_events([Detected("", 36, "close")], truth(TruthEvent("grasp", 30)))
    assert (counts.near_truth, counts.near_detected) == (0, 0)


def test_two_arms_may_close_at_once() -> None:
    events = [Detected("left", 30, "close"), Detected("right", 31, "close")]
    counts = count_events(events, truth(TruthEvent("grasp", 30), TruthEvent("grasp", 31)))
    assert (counts.near_truth, counts.near_detected, counts.right_way) == (2, 2, 2)


def test_a_button_is_no_gripper() -> None:
    assert of_a_gripper(TruthEvent("other", 3, "failed grasp: gripper closed"))
    assert of_a_gripper(TruthEvent("other", 3))
    assert not of_a_gripper(TruthEvent("other", 3, "button fully pressed"))
    assert not of_a_gripper(TruthEvent("contact", 3))


def test_shares_are_over_events_and_undefined_without_any() -> None:
    one = count_events([Detected("", 30, "close")], truth(TruthEvent("grasp", 30), TruthEvent("release", 60)))
    none = count_events([], truth())
    shares = event_scores([one, none])
    assert shares["detected ones near the truth"].value == 1
    assert shares["labelled ones detected"].value == 0.5
    assert event_scores([none])["labelled ones detected"].n == 0


def reported(**changes: object) -> dict:
    usual = {"column": "state", "dimensions": [6], "is_used": True, "polarity": "high_is_open"}
    return usual | changes


def test_the_report_is_compared_by_place_use_and_polarity() -> None:
    seen = SeenSignal("gripper", {"state": (6,)}, "low")
    assert agrees(seen, [reported()]) == "right"
    assert agrees(seen, [reported(polarity="high_is_closed")]) == "polarity inverted"
    assert agrees(seen, [reported(polarity="unknown")]) == "right, polarity unknown"
    assert agrees(seen, [reported(is_used=False)]) == "said to be unused"
    assert agrees(seen, [reported(column="action")]) == "not reported"
    assert agrees(seen, []) == "not reported"


def test_an_unused_gripper_is_to_be_called_so() -> None:
    seen = SeenSignal("rests", {"state": (6,)}, None, is_used=False)
    assert agrees(seen, [reported(is_used=False, polarity="unknown")]) == "right"
    assert agrees(seen, [reported()]) == "said to be used"


def test_the_table_says_what_is_reported_beside_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = reported(
        arm="", kind="gripper", dimensions=[6], unit="0..100", closed=0.0, open=99.5, confidence=0.9,
        closings_per_episode=None,
    )  # fmt: skip
    monkeypatch.setattr(signal_truth, "reported_signals", lambda path: [signal, signal | {"dimensions": [2]}])
    seen, extra = signal_truth.report_rows(Path(), ["piper_pen"])
    words = "gripper; state 6 (0..100); 0 closed, 99.5 open; high_is_open (0.90); closes ? times"
    assert seen == ["piper_pen", "gripper, 0 to 100", words, "right"]
    assert extra[1] == "none"
    assert extra[3] == "not there"


def test_a_set_without_grippers_is_right_when_none_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_truth, "reported_signals", lambda path: [])
    assert signal_truth.report_rows(Path(), ["robo_dopamine"]) == [["robo_dopamine", "none", "none", "right"]]
    monkeypatch.setattr(signal_truth, "reported_signals", lambda path: None)
    assert signal_truth.report_rows(Path(), ["robo_dopamine"])[0][2] == "no report"
