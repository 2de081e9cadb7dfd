"""Which end of a gripper is open: what each kind of evidence says, and that nobody guesses."""

import math

import numpy as np
import pytest

from ingest.signals.polarity import Evidence, GripperRun, counted, named_evidence, observed_evidence, polarity_of
from ingest.signals.switching import Range

FPS = 10.0
WAY = np.linspace(0, 1, 100)


def run(*parts: tuple[int, float], way: np.ndarray | None = WAY, push: np.ndarray | None = None) -> GripperRun:
    """So many frames at each level."""
    return GripperRun(np.concatenate([np.full(count, level) for count, level in parts]), way, push, FPS)


def shown(*runs: GripperRun) -> tuple[str, float]:
    finding = polarity_of(observed_evidence(runs))
    return finding.polarity, round(finding.confidence, 2)


CARRIES = run((30, 1.0), (40, 0.2), (30, 1.0))


# Sums


def test_evidence_adds_up() -> None:
    for_open, against = Evidence(3.0, "a"), Evidence(-2.5, "b")
    assert polarity_of([for_open]).polarity == "high_is_open"
    assert polarity_of([against]).polarity == "high_is_closed"
    both = polarity_of([for_open, against])
    assert (both.polarity, both.why) == ("unknown", "a; b")
    assert both.confidence == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert polarity_of([]).polarity == "unknown"
    assert polarity_of([]).why == "nothing shows it"


def test_too_little_is_unknown() -> None:
    assert polarity_of([Evidence(1.3, "a")]).polarity == "unknown"  # 79 %
    assert polarity_of([Evidence(1.4, "a")]).polarity == "high_is_open"  # 80 %
    assert polarity_of([Evidence(-1.4, "a")]).polarity == "high_is_closed"


# Names, robots and sizes


@pytest.mark.parametrize(
    ("names", "robot", "ends", "polarity"),
    [
        (["gripper_width"], None, Range(0, 100), "high_is_open"),
        (["gripper_closed"], None, Range(0, 1), "high_is_closed"),
        (["gripper"], None, Range(0, 0.08), "high_is_open"),  # metres
        (["finger_joint2"], None, Range(-0.04, 0), "high_is_closed"),  # the finger that goes the other way
        (["gripper"], None, Range(0.31, 0.33), "unknown"),
        (["gripper_command"], None, Range(0, 0.08), "unknown"),
        (["gripper.pos"], None, Range(0, 100), "high_is_open"),
        (["main_gripper"], "so101_follower", Range(1800, 2900), "high_is_open"),
        (["main_gripper"], "ur5", Range(1800, 2900), "unknown"),
        (["gripper"], None, Range(0, 1), "unknown"),
        (["gripper"], None, Range(0, 0), "unknown"),
    ],
)
def test_what_is_said(names: list[str], robot: str | None, ends: Range, polarity: str) -> None:
    assert polarity_of(named_evidence(names, robot, ends)).polarity == polarity


# What episodes show


def test_one_excursion_holds() -> None:
    assert shown(CARRIES, CARRIES) == ("high_is_open", 0.89)
    turned = run((30, 0.2), (40, 1.0), (30, 0.2))
    assert shown(turned, turned) == ("high_is_closed", 0.89)
    assert shown(*[CARRIES] * 5) == ("high_is_open", 0.92)  # more episodes, surer


def test_an_excursion_without_a_way_carries_nothing() -> None:
    still = np.r_[np.linspace(0, 0.9, 30), np.full(40, 0.9), np.linspace(0.9, 1, 30)]
    stays = run((30, 1.0), (40, 0.2), (30, 1.0), way=still)
    assert shown(*[stays] * 5) == ("unknown", 0.5)
    # Of an arm that nothing is known of, it counts
    assert shown(*[run((30, 1.0), (40, 0.2), (30, 1.0), way=None)] * 5)[0] == "high_is_open"


def test_episodes_that_disagree() -> None:
    turned = run((30, 0.2), (40, 1.0), (30, 0.2))
    assert shown(CARRIES, CARRIES, turned, turned) == ("unknown", 0.5)
    assert shown(CARRIES, CARRIES, CARRIES, turned)[0] == "high_is_open"


def test_the_first_pose_is_not_counted() -> None:
    """Before the arm sets out, or in the first half second."""
    early = run((3, 1.0), (97, 0.0))
    assert counted(early) == []
    waits = np.r_[np.zeros(50), np.linspace(0, 1, 50)]
    assert counted(run((30, 1.0), (70, 0.0), way=waits)) == []
    assert [move.end for move in counted(run((30, 1.0), (70, 0.0)))] == [30]


def test_the_end_of_a_run_that_moves_once() -> None:
    takes = run((50, 1.0), (50, 0.0))
    assert shown(*[takes] * 5) == ("high_is_open", 0.82)
    at_the_end = run((97, 1.0), (3, 0.0))
    assert shown(*[at_the_end] * 5) == ("unknown", 0.5)


def test_an_object_keeps_it_open() -> None:
    """It begins closed, and at its second closing stays wider than before."""
    first_empty = run((20, 0.0), (20, 1.0), (20, 0.25), (20, 1.0), (20, 0.0))
    assert shown(*[first_empty] * 5)[0] == "high_is_open"
    turned = run((20, 1.0), (20, 0.0), (20, 0.75), (20, 0.0), (20, 1.0))
    assert shown(*[turned] * 5)[0] == "high_is_closed"
    nothing_held = run((20, 0.0), (20, 1.0), (20, 0.0), (20, 1.0), (20, 0.0))
    assert shown(*[nothing_held] * 5) == ("unknown", 0.5)


def test_a_command_beyond_what_is_reached() -> None:
    levels = ((20, 1.0), (20, 0.2), (20, 1.0), (20, 0.2), (20, 1.0))
    low = run(*levels).relative < 0.5
    squeezes = run(*levels, push=np.where(low, -0.2, 0.0))
    assert shown(squeezes) == ("high_is_open", 0.88)
    opens_wide = run(*levels, push=np.where(low, 0.0, 0.2))
    assert shown(opens_wide) == ("high_is_closed", 0.88)
    assert shown(run(*levels, push=np.zeros(100))) == ("unknown", 0.5)
    assert shown(run(*levels, push=np.where(low, -0.2, 0.2))) == ("unknown", 0.5)  # beyond both ends alike


def test_a_gripper_that_does_not_move_shows_nothing() -> None:
    assert observed_evidence([run((100, 0.5), push=np.full(100, 0.5))]) == []
