"""Grippers and hands that move in a known way, what a survey of their episodes shows, and a corpus
with two."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from ingest.episode import DECODE_ALL, DecodeOptions, EpisodeData, EpisodeRecord, TimedPicture
from ingest.formats.tables import numbers
from ingest.registry import DatasetConfig
from ingest.signals import survey as of_survey
from ingest.signals.gripper import GripperSignal
from ingest.signals.survey import Survey, survey
from ingest.sources.files import Source

FPS = 20.0
JOINTS = ("j0", "j1", "j2", "j3", "j4", "j5")
NUM_EPISODES = 6


SIGNAL = GripperSignal(
    arm="",
    kind="gripper",
    column="state",
    dimensions=(6,),
    names=("main_gripper",),
    weights=(1.0,),
    unit="m",
    closed=0.0,
    open=0.07,
    polarity="high_is_open",
    polarity_by="0 to 0.07 is a width in metres",
    confidence=0.953,
    located_by="name",
    is_used=True,
    closings_per_episode=1.4,
    num_surveyed=10,
    survey_version="0123456789abcdef",
)


def signal(**changes: Any) -> GripperSignal:
    """A gripper in metres; `changes`: fields that are other."""
    return replace(SIGNAL, **changes)


def signal_at(
    *dimensions: int, closed: float = 0.0, open: float = 1.0, **changes: Any
) -> GripperSignal:
    """A signal at some dimensions of the state, which weigh alike; of known polarity, and used."""
    defaults = {
        "dimensions": dimensions,
        "names": tuple(f"state[{d}]" for d in dimensions),
        "weights": (1 / len(dimensions),) * len(dimensions),
        "closed": closed,
        "open": open,
        "polarity": "high_is_open" if open > closed else "high_is_closed",
    }
    return signal(**defaults | changes)


def pick_and_place(seed: int, held_width: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Joints [n, 6] and opening [n] of a run: reach, close round a thing, carry it, let go of it,
    go home.

    `held_width`: how far open the thing keeps the gripper. 9 to 11 s.
    """
    rng = np.random.default_rng(seed)
    reach, close, carry, release, home = (int(rng.integers(*limits)) for limits in PHASES)
    # Way points of the arm: it stands still while the gripper moves
    home_pose, thing, place = rng.normal(size=(3, len(JOINTS)))
    joints = np.concatenate(
        [
            _way(home_pose, thing, reach),
            np.tile(thing, (close, 1)),
            _way(thing, place, carry),
            np.tile(place, (release, 1)),
            _way(place, home_pose, home),
        ]
    )
    open_at = np.ones

    def held_at(n):
        return np.full(n, held_width)

    opening = np.concatenate(
        [
            open_at(reach + close // 2),
            np.linspace(1, held_width, close - close // 2),
            held_at(carry + release // 2),
            np.linspace(held_width, 1, release - release // 2),
            open_at(home),
        ]
    )
    joints += rng.normal(scale=1e-3, size=joints.shape)
    return joints, opening


# Frames of: the way there, closing, carrying, letting go, the way home
PHASES = ((45, 55), (16, 20), (45, 55), (16, 20), (45, 55))


def _way(start: np.ndarray, end: np.ndarray, frames: int) -> np.ndarray:
    share = (1 - np.cos(np.linspace(0, np.pi, frames))) / 2
    return start + share[:, None] * (end - start)


def joints_and_openings(num_episodes: int = NUM_EPISODES) -> list[tuple[np.ndarray, np.ndarray]]:
    """As pick_and_place gives, of several runs. The last one grasps nothing: there the gripper
    closes fully."""
    return [
        pick_and_place(seed, held_width=0.0 if seed == num_episodes - 1 else 0.15)
        for seed in range(num_episodes)
    ]


def one_armed(
    value: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str] = (*JOINTS, "gripper"),
) -> list[EpisodeData]:
    """Runs of one arm; its gripper's values [n, k], in the source's unit, follow from the
    opening."""
    return [
        episode_of(k, np.column_stack([joints, value(o)]), names)
        for k, (joints, o) in enumerate(joints_and_openings())
    ]


def episode_of(
    index: int,
    state: np.ndarray | None,
    names: Sequence[str] = (),
    action: np.ndarray | None = None,
    action_names: Sequence[str] = (),
) -> EpisodeData:
    """An episode with these rows, and without pictures."""
    rows = state if state is not None else action
    num_rows = None if rows is None else len(rows)
    file = f"episode_{index}"
    return EpisodeData(
        EpisodeRecord(index, str(index), FPS, "pick it", data_uri=file, num_rows=num_rows),
        None if state is None else numbers(state, names if len(names) == state.shape[1] else ()),
        None if action is None else numbers(action, action_names),
        None,
        no_pictures,
    )


def no_pictures(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
    return iter(())


def surveyed(
    episodes: Sequence[EpisodeData],
    robot: str | None = None,
    former_survey: Sequence[GripperSignal] = (),
    **config: Any,
) -> Survey:
    """What a survey of generated episodes shows; `config`: fields of the registry entry."""
    by_index = {episode.record.episode_index: episode for episode in episodes}
    source = Source(DatasetConfig(name="toy", source="/nowhere", **config))
    with patch.object(of_survey, "read_episode", lambda _, record: by_index[record.episode_index]):
        return survey(source, [episode.record for episode in episodes], robot, former_survey)


def only_surveyed(episodes: Sequence[EpisodeData]) -> GripperSignal:
    (signal,) = surveyed(episodes).signals
    return signal


RIGHT_HAND = signal(
    arm="right",
    kind="hand",
    dimensions=(7, 8, 9, 10),
    names=("thumb", "index", "middle", "ring"),
    weights=(0.25, 0.25, 0.25, 0.25),
    unit="rad",
    closed=-0.02,
    open=1.2,
    polarity="unknown",
    polarity_by="nothing shows it",
    confidence=0.5,
)
