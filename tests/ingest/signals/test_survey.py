"""What a survey of a dataset's episodes finds: where grippers and hands are, their range, use and polarity."""

from dataclasses import replace
from itertools import product
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
from ingest.signals.gripper import GripperRun, observed_evidence, opening, polarity_of
from ingest.signals.naming import named_grippers, polarity_by_name, switching_dimensions
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
    signal_at,
    surveyed,
)

NAMED = (*JOINTS, "gripper")
FINGERS = ("index_finger_0", "middle_finger_0", "ring_finger_0")


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
def test_a_polarity_that_nothing_shows_is_unknown(value, names, kind, reason):
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


def test_the_state_counts_before_the_action():
    episodes = [replace(e, actions=e.states) for e in one_armed(lambda o: o, NAMED)]
    assert only_surveyed(episodes).column == "state"
    of_action = [replace(e, states=numbers(e.state[:, ::-1])) for e in episodes]  # pyright: ignore
    assert only_surveyed(of_action).column == "action"
    alone = [replace(e, states=None) for e in episodes]
    signal = only_surveyed(alone)
    assert (signal.column, signal.polarity) == ("action", "high_is_open")


def arms_in_turn(num_arms: int) -> list[EpisodeData]:
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
def test_values_that_move_by_themselves_are_of_grippers_of_their_own(num_arms, arms):
    signals = surveyed(arms_in_turn(num_arms)).signals
    assert [signal.arm for signal in signals] == arms
    assert [signal.dimensions for signal in signals] == [
        (6 * num_arms + k,) for k in range(num_arms)
    ]
    assert all(signal.is_used and signal.polarity != "high_is_closed" for signal in signals)


@pytest.mark.filterwarnings("error")
def test_runs_that_are_too_short_to_move_show_no_grippers_of_their_own():
    names = [*(f"joint.{j}" for j in range(12)), "effector.position.0", "effector.position.1"]
    rows = np.tile(np.arange(3.0)[:, None], len(names))
    signal = only_surveyed([episode_of(0, rows, names)])
    assert (signal.arm, signal.dimensions) == ("", (12, 13))


def test_fingers_that_move_together_are_of_one_gripper():
    names = (*JOINTS, "finger.0", "finger.1")
    signal = only_surveyed(one_armed(lambda o: np.outer(o, [0.04, -0.04]), names))
    assert (signal.arm, signal.dimensions, signal.weights) == ("", (6, 7), (0.5, -0.5))


@pytest.mark.parametrize(("closes", "keeps", "opens"), [(0, 1, 2), (1, 0, -1)])
def test_a_command_of_pulses_holds(closes, keeps, opens):
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


def test_rows_of_another_layout_are_read_by_their_names():
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


def test_the_registry_says_that_there_is_none():
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"column": "none"})
    assert (result.signals, result.findings) == ((), ())


@pytest.mark.parametrize("dimension", ["nowhere", 7, -8])
def test_a_gripper_of_the_registry_that_is_not_there(dimension):
    """Nothing else is looked for, and it is said."""
    result = surveyed(one_armed(lambda o: o, NAMED), gripper={"dimension": dimension})
    assert (result.signals, [f.reason for f in result.findings]) == ((), ["no_gripper"])
    assert result.findings[0].detail.startswith(
        f"the registry's state[{dimension}] is not there; looked at state of 7"
    )


def test_a_survey_is_made_again_when_it_may_come_out_otherwise(monkeypatch):
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
def test_an_episode_whose_rows_cannot_be_had_is_left_out(error):
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


ARM = [f"joint_{k}" for k in range(6)]
HAND = ["thumb_0", "thumb_1", "index_finger", "middle_finger", "ring_finger", "pinky"]


def grippers(*names: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(g.arm, g.kind, g.dimensions) for g in named_grippers(names)]


def test_hands():
    assert grippers(*ARM, *HAND) == [("", "hand", tuple(range(6, 12)))]
    both = [f"{side}_hand_{name}" for side, name in product(("left", "right"), HAND)]
    assert grippers(*both) == [
        ("left", "hand", tuple(range(6))),
        ("right", "hand", tuple(range(6, 12))),
    ]
    assert grippers(*(f"left_hand.{k}" for k in range(6))) == [("left", "hand", tuple(range(6)))]
    assert grippers("inspire_0", "inspire_1", "inspire_2") == [("", "hand", (0, 1, 2))]
    assert grippers(*HAND, "thumb_rotation") == [("", "hand", tuple(range(6)))]  # it goes sideways


def test_an_arm_has_its_gripper_before_its_hand():
    assert grippers("right_gripper", *(f"right_hand_{name}" for name in HAND)) == [
        ("right", "gripper", (0,))
    ]


@pytest.mark.parametrize(
    ("name", "polarity"),
    [
        ("gripper_width", ("high_is_open", "width")),
        ("open_gripper", ("high_is_open", "open")),
        ("gripper_closed", ("high_is_closed", "closed")),
        ("is_grasp", ("high_is_closed", "grasp")),
        ("gripper_close_open", None),
        ("gripper", None),
    ],
)
def test_what_names_say_of_the_ends(name, polarity):
    assert polarity_by_name(["other", name]) == polarity


RATE = 10.0
WAY = np.linspace(0, 1, 100)


def run(
    *parts: tuple[int, float], way: np.ndarray | None = WAY, push: np.ndarray | None = None
) -> GripperRun:
    """So many frames at each level."""
    return GripperRun(
        np.concatenate([np.full(count, level) for count, level in parts]), way, push, RATE
    )


def shown(*runs: GripperRun) -> tuple[str, float]:
    finding = polarity_of(observed_evidence(runs))
    return finding.polarity, round(finding.confidence, 2)


def test_a_command_beyond_what_is_reached():
    levels = ((20, 1.0), (20, 0.2), (20, 1.0), (20, 0.2), (20, 1.0))
    low = run(*levels).relative < 0.5
    squeezes = run(*levels, push=np.where(low, -0.2, 0.0))
    assert shown(squeezes) == ("high_is_open", 0.88)
    opens_wide = run(*levels, push=np.where(low, 0.0, 0.2))
    assert shown(opens_wide) == ("high_is_closed", 0.88)
    assert shown(run(*levels, push=np.zeros(100))) == ("unknown", 0.5)
    beyond_both_ends = run(*levels, push=np.where(low, -0.2, 0.2))
    assert shown(beyond_both_ends) == ("unknown", 0.5)


def test_a_gripper_that_does_not_move_shows_nothing():
    assert observed_evidence([run((100, 0.5), push=np.full(100, 0.5))]) == []


ARMS = joints_and_openings()
RATES = [FPS] * len(ARMS)


def with_gripper(place: int) -> list[np.ndarray]:
    return [np.insert(joints, place, opening, axis=1) for joints, opening in ARMS]


def test_two_arms_one_behind_the_other():
    rows = [np.hstack([run, run]) for run in with_gripper(6)]
    assert switching_dimensions(rows, RATES, ()) == {"left": 6, "right": 13}
    names = [f"{arm}_{k}" for k, arm in product(range(7), ("robot1", "robot2"))]
    alternating = [np.repeat(run, 2, axis=1) for run in with_gripper(6)]
    assert switching_dimensions(alternating, RATES, names) == {"robot1": 12, "robot2": 13}
    # Without names one half is one arm
    assert switching_dimensions(alternating, RATES, ()) == {"right": 13}


ROWS = np.array([[0.0, 10.0, 0.5, 1.0], [1.0, 20.0, 0.25, 3.0]])
EPISODE = episode_of(0, ROWS, action=-ROWS)


def opened(*values: float, closed: float, open: float) -> list[float]:
    state = np.array(values)[:, None]
    curve = opening(signal_at(0, closed=closed, open=open), episode_of(0, state))
    return curve.tolist()


def test_an_opening_is_the_share_of_the_range():
    assert opened(0.0, 0.01, 0.04, closed=0, open=0.04) == [0.0, 0.25, 1.0]
    assert opened(0.0, 0.25, 1.0, closed=1, open=0) == [1.0, 0.75, 0.0]
    assert opened(-1.0, 0.0, 1.0, closed=-1, open=1) == [0.0, 0.5, 1.0]
    assert opened(-5.0, 120.0, closed=0, open=100) == [0.0, 1.0]  # beyond the ends
    assert opened(3.0, 4.0, closed=3, open=3) == [0.0, 0.0]


def test_an_episode_that_has_not_the_dimensions():
    assert opening(signal_at(4), EPISODE) is None
    assert opening(signal_at(0, column="action"), episode_of(0, ROWS)) is None
    assert opening(signal_at(0), episode_of(0, ROWS[:0])) is None
