"""What a survey of a dataset's episodes finds: where grippers and hands are, their range, use and polarity."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from annotate.config import MotionConfig
from annotate.motion.observe import GripperCurve, gripper_attempts, gripper_moves
from ingest.episode import EpisodeData, EpisodeRecord
from ingest.formats.tables import numbers
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.signals import survey as of_survey
from ingest.signals.gripper import opening
from ingest.sources.files import Source
from ingest.sources.types import DownloadError
from tests.kits.signal_kit import (
    FPS,
    JOINTS,
    NUM_EPISODES,
    episode_of,
    joints_and_openings,
    one_armed,
    only_surveyed,
    surveyed,
)

NAMED = (*JOINTS, "gripper")
FINGERS = ("index_finger_0", "middle_finger_0", "ring_finger_0")


# What is not there, not used, or not known


@pytest.mark.parametrize(
    ("value", "names", "kind", "reason"),
    [
        (lambda s: s, NAMED, "gripper", "polarity_unknown"),
        (
            lambda s: np.outer(s, [1.0, 1.5, 1.2]),
            (*JOINTS, *FINGERS),
            "hand",
            "polarity_unknown",
        ),
    ],
)
def test_a_polarity_that_nothing_shows_is_unknown(
    value: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...], kind: str, reason: str
) -> None:
    """It goes from end to end again and again, as an arm goes on moving.

    Its moves count, open and closed do not: 0 is only its low end.
    """
    turns = [
        (joints, value((np.arange(len(joints)) // 15 % 2).astype(float)))
        for joints, _ in joints_and_openings()
    ]
    episodes = [episode_of(k, np.column_stack(columns), names) for k, columns in enumerate(turns)]
    result = surveyed(episodes)
    (signal,) = result.signals
    assert (signal.kind, signal.polarity, signal.has_polarity, signal.is_used) == (
        kind,
        "unknown",
        False,
        True,
    )
    assert signal.closed < signal.open
    assert [(f.reason, f.severity) for f in result.findings] == [(reason, "warning")]
    assert result.findings[0].detail.endswith(": nothing shows it")
    curve = opening(signal, episodes[0])
    assert curve is not None
    assert len(gripper_moves(curve, MotionConfig(), FPS)) > 5
    curves = [GripperCurve(curve, has_polarity=signal.has_polarity)]
    assert gripper_attempts(curves, MotionConfig(), FPS) == []


# Where values lie


def test_the_state_counts_before_the_action() -> None:
    episodes = [replace(e, actions=e.states) for e in one_armed(lambda o: o, NAMED)]
    assert only_surveyed(episodes).column == "state"
    of_action = [replace(e, states=numbers(e.state[:, ::-1])) for e in episodes]  # pyright: ignore
    assert only_surveyed(of_action).column == "action"
    alone = [replace(e, states=None) for e in episodes]
    signal = only_surveyed(alone)
    assert (signal.column, signal.polarity) == ("action", "high_is_open")


def arms_in_turn(num_arms: int) -> list[EpisodeData]:
    """Joints of all arms, then a value in mm for each gripper; the arms have their turns."""
    episodes = []
    names = [f"joint.{j}" for j in range(6 * num_arms)]
    names += [f"effector.position.{arm}" for arm in range(num_arms)]
    for k, (joints, opened) in enumerate(joints_and_openings()):
        turns = [np.full((len(joints), num_arms), 80.0) for _ in range(num_arms)]
        for arm, openings in enumerate(turns):
            openings[:, arm] = 80 * opened
        all_joints = np.tile(joints, (num_arms, num_arms))
        episodes.append(episode_of(k, np.c_[all_joints, np.concatenate(turns)], names))
    return episodes


@pytest.mark.parametrize(
    ("num_arms", "arms"), [(2, ["left", "right"]), (3, ["arm1", "arm2", "arm3"])]
)
def test_values_that_move_by_themselves_are_of_grippers_of_their_own(
    num_arms: int, arms: list[str]
) -> None:
    signals = surveyed(arms_in_turn(num_arms)).signals
    assert [signal.arm for signal in signals] == arms
    assert [signal.dimensions for signal in signals] == [
        (6 * num_arms + k,) for k in range(num_arms)
    ]
    assert all(signal.is_used and signal.polarity != "high_is_closed" for signal in signals)


@pytest.mark.filterwarnings("error")
def test_runs_that_are_too_short_to_move_show_no_grippers_of_their_own() -> None:
    names = [*(f"joint.{j}" for j in range(12)), "effector.position.0", "effector.position.1"]
    rows = np.tile(np.arange(3.0)[:, None], len(names))
    signal = only_surveyed([episode_of(0, rows, names)])
    assert (signal.arm, signal.dimensions) == ("", (12, 13))


def test_fingers_that_move_together_are_of_one_gripper() -> None:
    names = (*JOINTS, "finger.0", "finger.1")
    signal = only_surveyed(one_armed(lambda o: np.outer(o, [0.04, -0.04]), names))
    assert (signal.arm, signal.dimensions, signal.weights) == ("", (6, 7), (0.5, -0.5))


@pytest.mark.parametrize(("closes", "keeps", "opens"), [(0, 1, 2), (1, 0, -1)])
def test_a_command_of_pulses_holds(closes: int, keeps: int, opens: int) -> None:
    episodes = []
    for k, (joints, opened) in enumerate(joints_and_openings()):
        moves = np.diff(opened, prepend=1.0)
        pulses = np.select([moves < 0, moves > 0], [closes, opens], keeps)
        pulses[1:3] = opens  # as the operator begins
        episodes.append(episode_of(k, joints, JOINTS, pulses[:, None], ("gripper",)))
    signal = only_surveyed(episodes)
    assert (signal.unit, signal.closed, signal.open) == ("pulses", closes, opens)
    assert signal.polarity_by.startswith("it is commanded by pulses")
    curve = opening(signal, episodes[0])
    assert curve is not None
    moves = gripper_moves(curve, MotionConfig(), FPS)
    assert [closes for *_, closes in moves] == [True, False]


def test_rows_of_another_layout_are_read_by_their_names() -> None:
    """A force stands before the gripper in later runs; the first have no names."""
    early = [
        replace(e, states=numbers(e.state))
        for e in one_armed(lambda o: o)[:2]
        if e.state is not None
    ]
    names = (*JOINTS, "force", "gripper")
    late = one_armed(lambda o: np.column_stack([o * 0, o]), names)[2:]
    signal = only_surveyed([*early, *late])
    assert (signal.dimensions, signal.names) == ((7,), ("gripper",))
    assert opening(signal, early[0]) is None
    moved = one_armed(lambda o: o, NAMED)[0]
    assert opening(signal, moved) is not None


# The registry


def test_the_registry_says_that_there_is_none() -> None:
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"column": "none"})
    assert (result.signals, result.findings) == ((), ())


@pytest.mark.parametrize("dimension", ["nowhere", 7, -8])
def test_a_gripper_of_the_registry_that_is_not_there(dimension: int | str) -> None:
    """Nothing else is looked for, and it is said."""
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"dimension": dimension})
    assert (result.signals, [f.reason for f in result.findings]) == ((), ["no_gripper"])
    assert result.findings[0].detail.startswith(
        f"the registry's state[{dimension}] is not there; looked at state of 7"
    )


# Which episodes, and when again


def test_a_survey_is_made_again_when_it_may_come_out_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By other code, or another registry entry."""
    episodes = one_armed(lambda o: o, NAMED)
    first = tuple(
        replace(signal, polarity_by="the first survey") for signal in surveyed(episodes).signals
    )
    assert surveyed(episodes, former_survey=first).signals == first
    entry = {"dimension": 6, "closed": 1, "open": 0}
    (second_survey,) = surveyed(episodes, former_survey=first, gripper=entry).signals
    assert second_survey.polarity_by == "the registry says so"
    assert surveyed(episodes, former_survey=first, gripper={"column": "none"}).signals == ()
    monkeypatch.setattr(of_survey, "VERSION", "another")
    assert surveyed(episodes, former_survey=first).signals != first


@pytest.mark.parametrize("error", [DataError("cut off"), DownloadError("toy: 503")])
def test_an_episode_whose_rows_cannot_be_had_is_left_out(error: Exception) -> None:
    episodes = one_armed(lambda o: o)
    by_index = {episode.record.episode_index: episode for episode in episodes}

    def read(_: Source, record: EpisodeRecord) -> EpisodeData:
        if record.episode_index == 0:
            raise error
        return by_index[record.episode_index]

    source = Source(DatasetConfig(name="toy", source="/nowhere"))
    with patch.object(of_survey, "read_episode", read):
        (signal,) = of_survey.survey(source, [episode.record for episode in episodes], None).signals
    assert signal.num_surveyed == NUM_EPISODES - 1
    assert signal.polarity == "high_is_open"
