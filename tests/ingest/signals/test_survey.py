"""What a survey of a dataset's episodes finds: where grippers and hands are, their range, use and polarity."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import attempts, gripper_moves
from annotate.signal_lag import proprioception
from annotate.signals import GripperCurve
from ingest.episode import Episode, EpisodeRecord
from ingest.formats.numbers import numbers
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.signals import survey as of_survey
from ingest.signals.gripper import GripperSignal, opening
from ingest.signals.survey import MAX_EPISODES, PER_TASK, chosen, survey_version
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
    sided,
    surveyed,
    two_armed,
)

NAMED, UNNAMED = (*JOINTS, "gripper"), ()
FINGERS = ("thumb_0", "thumb_1", "index_finger_0", "middle_finger_0", "ring_finger_0", "pinky_0")
RUNS = joints_and_openings()


def reasons(*episodes: Episode, **config: Any) -> list[tuple[str, str]]:
    return [(finding.reason, finding.severity) for finding in surveyed(episodes, **config).findings]


def closed_hand(o: np.ndarray) -> np.ndarray:
    """Six joints in rad [n, 6], larger when closed; of the thumb one goes the other way, and one hardly moves."""
    closed = 1 - o
    return np.column_stack([-0.4 * closed, 0.01 * closed, *(1.4 * closed + 0.01 * k for k in range(4))])


def to_and_fro(n: int) -> np.ndarray:
    """It goes from end to end again and again [n], as an arm goes on moving: nothing shows which is which."""
    return (np.arange(n) // 15 % 2).astype(float)


def wavers(value: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...]) -> list[Episode]:
    return [episode_of(k, np.column_stack([j, value(to_and_fro(len(j)))]), names) for k, (j, _) in enumerate(RUNS)]


# Units


@pytest.mark.parametrize("names", [NAMED, UNNAMED])
@pytest.mark.parametrize(
    ("value", "unit", "closed", "opened"),
    [
        (lambda o: 0.08 * o, "m", 0.0, 0.08),
        (lambda o: 1800 + 1100 * o, "counts", 1800, 2900),
        (lambda o: 3000 - 900 * o, "counts", 3000, 2100),
        (lambda o: 100 * o, "0..100", 0, 100),
        (lambda o: 60 * (1 - o), "0..100", 60, 0),  # degrees
        (lambda o: 0.8 * (1 - o), "0..1", 0.8, 0),
        (lambda o: o, "0..1", 0, 1),
        (lambda o: 1 - o, "0..1", 1, 0),
        (lambda o: 2 * o - 1, "-1..1", -1, 1),
        (lambda o: 2.5 * (1 - o), "rad", 2.5, 0),
    ],
)
def test_any_unit_and_either_way_round(
    value: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...], unit: str, closed: float, opened: float
) -> None:
    episodes = one_armed(value, names)
    result = surveyed(episodes)
    (signal,) = result.signals
    assert result.findings == ()
    assert (signal.arm, signal.kind, signal.column, signal.dimensions) == ("", "gripper", "state", (6,))
    assert (signal.located_by, signal.names) == (("name", ("gripper",)) if names else ("values", ("state[6]",)))
    assert (signal.closed, signal.open, signal.unit) == (pytest.approx(closed), pytest.approx(opened), unit)
    assert signal.polarity == ("high_is_open" if opened > closed else "high_is_closed")
    assert (signal.is_used, signal.closings_per_episode, signal.num_surveyed) == (True, 1.0, NUM_EPISODES)
    assert signal.confidence > 0.9
    for episode, (_, expected) in zip(episodes, RUNS, strict=True):
        np.testing.assert_allclose(opening(signal, episode), expected, atol=1e-9)  # pyright: ignore


def test_a_finger_that_moves_4_cm_is_a_full_grasp() -> None:
    """Two fingers in metres that move against each other; the last run grasps nothing."""
    names = (*JOINTS, "finger_joint1", "finger_joint2")
    episodes = one_armed(lambda o: np.column_stack([0.04 * o, -0.04 * o]), names)
    signal = only_surveyed(episodes)
    assert (signal.dimensions, signal.weights, signal.unit) == ((6, 7), (0.5, -0.5), "m")
    assert (signal.closed, signal.open) == (pytest.approx(0), pytest.approx(0.04))
    for episode in episodes:
        curve = opening(signal, episode)
        assert curve is not None
        assert [closes for _, _, closes in gripper_moves(curve, MotionConfig(), FPS)] == [True, False]
    assert (curve.min(), curve.max()) == (pytest.approx(0), pytest.approx(1))


def test_the_range_is_of_the_dataset() -> None:
    """A run that closes round a thing does not close fully, however far it closes beside its own range."""
    episodes = one_armed(lambda o: 100 * o, NAMED)
    signal = only_surveyed(episodes)
    curves = [opening(signal, episode) for episode in episodes]
    assert [round(float(c.min()), 6) for c in curves if c is not None] == [0.15] * (NUM_EPISODES - 1) + [0.0]


# Several arms, and hands


@pytest.mark.parametrize("names", [tuple(sided(NAMED)), UNNAMED])
def test_two_arms_are_two_signals(names: tuple[str, ...]) -> None:
    episodes = two_armed(lambda o: 100 * o, names)
    left, right = surveyed(episodes).signals
    assert (left.title, left.dimensions, right.title, right.dimensions) == (
        "left gripper",
        (6,),
        "right gripper",
        (13,),
    )
    assert (left.polarity, right.polarity) == ("high_is_open", "high_is_open")
    assert (left.closings_per_episode, right.closings_per_episode) == (0.5, 0.5)
    # While one works the other rests
    for k, episode in enumerate(episodes):
        working, resting = (right, left) if k % 2 == 0 else (left, right)
        assert opening(working, episode).min() < 0.2  # pyright: ignore
        assert opening(resting, episode).min() == 1.0  # pyright: ignore
    arms = proprioception(episodes[0], [left, right])
    assert arms.state is not None
    assert (arms.state.shape[1], len(arms.openings)) == (12, 2)


def test_one_of_two_is_not_used() -> None:
    episodes = two_armed(lambda o: 100 * o, tuple(sided(NAMED)))[::2]
    left, right = surveyed(episodes).signals
    assert (left.is_used, left.closings_per_episode, right.is_used) == (False, None, True)
    assert reasons(*episodes) == [("gripper_unused", "warning")]
    assert proprioception(episodes[0], [left, right]).openings[0] is None


def test_the_joints_of_a_hand_are_one_signal() -> None:
    names = (*JOINTS, *(f"right_hand_{name}" for name in FINGERS))
    episodes = one_armed(closed_hand, names)
    signal = only_surveyed(episodes)
    assert (signal.title, signal.dimensions, signal.polarity) == ("right hand", tuple(range(6, 12)), "high_is_closed")
    assert signal.weights == pytest.approx((-0.2, 0.0, 0.2, 0.2, 0.2, 0.2))
    assert signal.unit == "rad"
    for episode, (_, expected) in zip(episodes, RUNS, strict=True):
        np.testing.assert_allclose(opening(signal, episode), expected, atol=1e-9)  # pyright: ignore


# What is not there, not used, or not known


def test_no_gripper() -> None:
    arms = [episode_of(k, joints, JOINTS) for k, (joints, _) in enumerate(RUNS)]
    result = surveyed(arms)
    assert (result.signals, [f.reason for f in result.findings]) == ((), ["no_gripper"])
    assert result.findings[0].detail == "looked at state of 6 dimensions (j0, j1, j2, j3, j4, j5) of 6 episodes"
    unnamed = [numbers(joints) for joints, _ in RUNS]
    both = [replace(arm, states=rows, actions=rows) for arm, rows in zip(arms, unnamed, strict=True)]
    assert (
        surveyed(both).findings[0].detail == "looked at state of 6 dimensions and action of 6 dimensions of 6 episodes"
    )


@pytest.mark.parametrize(
    "value",
    [
        lambda o: np.full(len(o), 0.3),
        lambda o: 0.3 + 0.01 * np.random.default_rng(len(o)).normal(size=len(o)),
        lambda o: 2000 + 3 * o,  # a hundredth of its value
        lambda o: np.arange(len(o)) % 2,
    ],
)
def test_an_unused_gripper(value: Callable[[np.ndarray], np.ndarray]) -> None:
    result = surveyed(one_armed(value, NAMED))
    (signal,) = result.signals
    assert (signal.is_used, signal.closings_per_episode) == (False, None)
    assert [(f.reason, f.severity) for f in result.findings] == [("gripper_unused", "warning")]
    assert result.findings[0].detail == "gripper (state: gripper) does not go from end to end in 6 episodes"


@pytest.mark.parametrize(
    ("value", "names", "kind", "reason"),
    [
        (lambda s: s, NAMED, "gripper", "polarity_unknown"),
        (lambda s: np.outer(s, [1.0, 1.5, 1.2]), (*JOINTS, *FINGERS[2:5]), "hand", "hand_without_polarity"),
    ],
)
def test_a_polarity_that_nothing_shows_is_unknown(
    value: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...], kind: str, reason: str
) -> None:
    """Its moves count, open and closed do not: 0 is only its low end."""
    episodes = wavers(value, names)
    result = surveyed(episodes)
    (signal,) = result.signals
    assert (signal.kind, signal.polarity, signal.has_polarity, signal.is_used) == (kind, "unknown", False, True)
    assert signal.closed < signal.open
    assert [(f.reason, f.severity) for f in result.findings] == [(reason, "warning")]
    assert result.findings[0].detail.endswith(": nothing shows it")
    curve = opening(signal, episodes[0])
    assert curve is not None
    assert len(gripper_moves(curve, MotionConfig(), FPS)) > 5
    assert attempts([GripperCurve(curve, has_polarity=signal.has_polarity)], MotionConfig(), FPS) == []


@pytest.mark.parametrize("command", [lambda o: 50 * o, lambda o: 30 - o])
def test_the_command_shows_what_the_gripper_does_not(command: Callable[[np.ndarray], np.ndarray]) -> None:
    """It slips while it carries, so that it moves four times; its command, either way round, moves twice."""
    episodes = []
    for k, (joints, o) in enumerate(RUNS):
        slips = o.copy()
        # In the middle of its way, so that it carries before and after
        carries = np.flatnonzero(o < 0.5)
        way = np.abs(np.diff(joints[carries], axis=0)).sum(axis=1).cumsum()
        middle = int(carries[np.searchsorted(way, way[-1] / 2)])
        slips[middle - 6 : middle + 6] = 1.0
        action = np.column_stack([joints, command(o)])
        episodes.append(episode_of(k, np.column_stack([joints, slips]), NAMED, action, NAMED))
    alone = [replace(episode, actions=None) for episode in episodes]
    assert only_surveyed(alone).polarity == "unknown"
    signal = only_surveyed(episodes)
    assert (signal.column, signal.polarity, signal.closed, signal.open) == ("state", "high_is_open", 0.0, 1.0)
    assert signal.polarity_by.startswith("its command: it goes there once")


# Where values lie


def test_the_state_counts_before_the_action() -> None:
    episodes = [replace(e, actions=e.states) for e in one_armed(lambda o: o, NAMED)]
    assert only_surveyed(episodes).column == "state"
    of_action = [replace(e, states=numbers(e.state[:, ::-1])) for e in episodes]  # pyright: ignore
    assert only_surveyed(of_action).column == "action"
    alone = [replace(e, states=None) for e in episodes]
    signal = only_surveyed(alone)
    assert (signal.column, signal.polarity) == ("action", "high_is_open")


def test_names_of_modality_are_said() -> None:
    episodes = [replace(e, names_by="modality.json") for e in one_armed(lambda o: o, NAMED)]
    assert only_surveyed(episodes).located_by == "modality.json"


def test_episodes_with_values_that_are_no_numbers() -> None:
    """They are left out; where all have such an action, it is."""
    episodes = one_armed(lambda o: o, NAMED)
    spoilt = np.array(episodes[0].state)
    spoilt[3, 2] = np.nan
    assert (
        only_surveyed([replace(episodes[0], states=numbers(spoilt, NAMED)), *episodes[1:]]).num_surveyed
        == NUM_EPISODES - 1
    )
    actions = [replace(e, actions=numbers(np.full_like(e.state, np.nan), NAMED)) for e in episodes]
    assert only_surveyed(actions).column == "state"
    assert only_surveyed([*actions[1:], episodes[0]]).num_surveyed == 1
    nothing = surveyed([replace(e, states=numbers(np.full_like(e.state, np.nan), NAMED)) for e in episodes])  # pyright: ignore
    assert (nothing.signals, nothing.findings) == ((), ())


# The registry


def test_the_registry_overrules() -> None:
    """Where it is, by number or name, and which end is open, whatever names and values say."""
    episodes = one_armed(lambda o: 1 - o, (*JOINTS[:5], "gripper", "lid"))
    assert only_surveyed(episodes, gripper={"dimension": 6}).names == ("lid",)
    assert only_surveyed(episodes, gripper={"dimension": -1}).dimensions == (6,)
    signal = only_surveyed(episodes, gripper={"dimension": "lid", "closed": 0, "open": 2, "arm": "left"})
    assert (signal.title, signal.dimensions, signal.located_by) == ("left gripper", (6,), "registry")
    assert (signal.closed, signal.open, signal.polarity, signal.confidence) == (0, 2, "high_is_open", 1.0)
    assert signal.polarity_by == "the registry says so"
    turned = only_surveyed(episodes, gripper={"dimension": "lid"})  # without its ends these are found
    assert (turned.polarity, turned.closed, turned.open) == ("high_is_closed", 1, 0)
    assert opening(signal, episodes[-1]).max() == 0.5  # pyright: ignore


def test_the_registry_has_one_of_each_arm() -> None:
    episodes = two_armed(lambda o: o)
    entries = [{"arm": "left", "dimension": 6}, {"arm": "right", "dimension": 13, "closed": 0, "open": 1}]
    left, right = surveyed(episodes, gripper=entries).signals
    assert (left.title, left.dimensions, right.title, right.dimensions) == (
        "left gripper",
        (6,),
        "right gripper",
        (13,),
    )
    fingers = surveyed(one_armed(closed_hand), gripper={"dimension": [8, 9, 10]}).signals[0]
    assert (fingers.kind, fingers.dimensions) == ("hand", (8, 9, 10))


def test_the_registry_says_that_there_is_none() -> None:
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"column": "none"})
    assert (result.signals, result.findings) == ((), ())


@pytest.mark.parametrize("dimension", ["nowhere", 7, -8])
def test_a_gripper_of_the_registry_that_is_not_there(dimension: int | str) -> None:
    """Nothing else is looked for, and it is said."""
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"dimension": dimension})
    assert (result.signals, [f.reason for f in result.findings]) == ((), ["no_gripper"])
    assert result.findings[0].detail.startswith(f"the registry's state[{dimension}] is not there; looked at state of 7")


# Which episodes, and when again


def before(num: int, **changes: object) -> tuple[GripperSignal, ...]:
    """What an earlier survey of so many episodes showed."""
    return tuple(replace(signal, **changes) for signal in surveyed(one_armed(lambda o: o, NAMED, num)).signals)


def test_a_survey_is_kept_when_episodes_are_added() -> None:
    first = before(4, polarity_by="the first survey")
    more = one_armed(lambda o: 100 * o, NAMED, 7)
    assert surveyed(more, before=first).signals == first
    # Twice as many and more: too much rests on too few
    assert surveyed(one_armed(lambda o: 100 * o, NAMED, 9), before=first).signals != first
    assert surveyed(one_armed(lambda o: o, NAMED, 9), before=before(4, num_surveyed=20)).signals[0].num_surveyed == 20


def test_a_kept_survey_still_has_its_findings() -> None:
    unknown = before(6, polarity="unknown")
    assert [f.reason for f in surveyed(one_armed(lambda o: o, NAMED), before=unknown).findings] == ["polarity_unknown"]


def test_a_survey_is_made_again_when_it_may_come_out_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """By other code, or another registry entry."""
    episodes, first = one_armed(lambda o: o, NAMED), before(6, polarity_by="the first survey")
    assert surveyed(episodes, before=first).signals == first
    entry = {"dimension": 6, "closed": 1, "open": 0}
    (again,) = surveyed(episodes, before=first, gripper=entry).signals
    assert again.polarity_by == "the registry says so"
    assert surveyed(episodes, before=first, gripper={"column": "none"}).signals == ()
    monkeypatch.setattr(of_survey, "VERSION", "another")
    assert surveyed(episodes, before=first).signals != first


def test_the_version_is_of_code_and_entry() -> None:
    def version(**fields: Any) -> str:
        return survey_version(DatasetConfig(name="a", source="b", **fields))

    usual = version()
    assert version(fps=3) == usual
    assert len({usual, version(gripper={"dimension": 1}), version(gripper=[{"dimension": 1, "arm": "left"}])}) == 3


def test_which_episodes_are_looked_at() -> None:
    """The first of each task come before more of one task."""
    source = Source(DatasetConfig(name="toy", source="/nowhere"))
    one = np.zeros((1, 1))

    def records(*tasks: str) -> list:
        return [episode_of(k, one, task=task).record for k, task in enumerate(tasks)]

    def looked_at(*tasks: str) -> list[int]:
        return [record.episode_index for record in chosen(source, records(*tasks))]

    assert looked_at("a", "b", "a") == [0, 1, 2]
    many = looked_at(*["a"] * 100, "b")
    assert (len(many), many[-1], many[: MAX_EPISODES - 1]) == (MAX_EPISODES, 100, list(range(MAX_EPISODES - 1)))
    of_tasks = looked_at(*(f"{k % 20}" for k in range(300)))
    assert len(of_tasks) == MAX_EPISODES < 20 * PER_TASK
    without_rows = [replace(record, data_uri=None) for record in records("a", "b")]
    assert chosen(source, without_rows) == []
    far = Source(DatasetConfig(name="toy", source="hf://a/b"), frozenset({1}))
    assert [record.episode_index for record in chosen(far, records("a", "a", "a"))] == [1]


@pytest.mark.parametrize("error", [DataError("cut off"), DownloadError("toy: 503")])
def test_an_episode_whose_rows_cannot_be_had_is_left_out(error: Exception) -> None:
    episodes = one_armed(lambda o: o)
    by_index = {episode.record.episode_index: episode for episode in episodes}

    def read(_: Source, record: EpisodeRecord) -> Episode:
        if record.episode_index == 0:
            raise error
        return by_index[record.episode_index]

    source = Source(DatasetConfig(name="toy", source="/nowhere"))
    with patch.object(of_survey, "read_episode", read):
        (signal,) = of_survey.survey(source, [episode.record for episode in episodes], None).signals
    assert signal.num_surveyed == NUM_EPISODES - 1
    assert signal.polarity == "high_is_open"
