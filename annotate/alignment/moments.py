"""The moments at which episodes are compared: what the pictures, the arm's state and the grippers show at each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np

from annotate.motion.observe import Observed

HZ = 5.0  # moments per second
MOST = 600  # moments of an episode: a longer one is looked at less often
LEAST = 1e-3  # of a usual distance: nothing is divided by less
GRIPPER, HAND = 0.15, 0.3  # of its range: so far apart is the opening at the same moment of two episodes
MAX_PAIRS = 60  # of episodes that show how far apart moments usually are


@dataclass(frozen=True)
class Seen:
    """What shows where an episode is, at k moments.

    pictures: float32 [k, d] of each camera, of length 1, less the mean of the task's. state: float64 [k, d] in standard
    deviations of the task's, None without. openings: float64 [k, grippers], likewise, in units of how far they usually
    are apart.
    """

    pictures: tuple[np.ndarray, ...]
    state: np.ndarray | None = None
    openings: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Moments(Seen):
    """One episode at k moments; frames: int64 [k]."""

    episode: Observed
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_comparable(self) -> bool:
        """Does anything show what is done at each moment?"""
        return bool(self.pictures) or self.state is not None or self.openings is not None

    def at_all_frames(self, values: np.ndarray) -> np.ndarray:
        """Values [k] at the moments as values [n] at all frames, linear between."""
        return np.interp(np.arange(len(self.episode)), self.frames, values)


def task_moments(episodes: Sequence[Observed], most: int = MOST) -> list[Moments]:
    """The moments of all episodes of a task; kinds of signals that some episode lacks are left out of all of them.

    most: moments of an episode.
    """
    # Every so many frames; an arm that waits stays where it is in its reference
    frames = [np.arange(0, len(e), max(1, round(e.fps / HZ), -(-len(e) // most))) for e in episodes]
    pictures = _pictures(episodes, frames)
    states = _states(episodes, frames)
    openings = _openings(episodes, frames)
    return [
        Moments(shown, state, opened, episode=episode, frames=at)
        for episode, at, shown, state, opened in zip(episodes, frames, pictures, states, openings, strict=True)
    ]


def _pictures(episodes: Sequence[Observed], frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Of each episode and camera, [k, d]: between two known pictures what lies between both.

    An episode that lacks a camera is as far from all others by it: 0 is as unlike everything.
    """
    of_camera = []
    for camera in range(min(len(e.signals.pictures) for e in episodes)):
        known = [e.signals.pictures[camera] for e in episodes]
        seen = [None if p is None else _between(*p, at) for p, at in zip(known, frames, strict=True)]
        mean = np.concatenate([values for values in seen if values is not None]).mean(axis=0)
        of_camera.append(
            [
                np.zeros((len(at), len(mean)), np.float32) if values is None else of_length_1(values - mean)
                for values, at in zip(seen, frames, strict=True)
            ]
        )
    return list(zip(*of_camera, strict=True)) if of_camera else [() for _ in episodes]


def of_length_1(values: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-6)


def _between(known: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows [k, d] at the frames `at`, linear between those at the known frames, float32."""
    place = np.interp(at, known, np.arange(len(known)))
    before = np.floor(place).astype(np.int64)
    share = (place - before)[:, None].astype(np.float32)
    return values[before] * (1 - share) + values[np.minimum(before + 1, len(known) - 1)] * share


def grey_features(pixels: np.ndarray) -> np.ndarray:
    """What small grey pictures are compared by: float32 [k, p], of even contrast, of uint8 [k, ...] with p pixels."""
    luma = pixels.reshape(len(pixels), -1).astype(np.float32)
    return (luma - luma.mean(axis=1, keepdims=True)) / np.maximum(luma.std(axis=1, keepdims=True), 1.0)


def _states(episodes: Sequence[Observed], frames: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    seen = [
        e.signals.state[at].astype(np.float64)
        for e, at in zip(episodes, frames, strict=True)
        if e.signals.state is not None
    ]
    if len(seen) < len(episodes) or len({values.shape[1] for values in seen}) != 1:
        return [None] * len(episodes)
    together = np.concatenate(seen)
    mean, spread = together.mean(axis=0), together.std(axis=0) + 1e-6
    return [(values - mean) / spread for values in seen]


def _openings(episodes: Sequence[Observed], frames: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    counts = {len(e.signals.grippers) for e in episodes}
    if len(counts) != 1 or counts == {0}:
        return [None] * len(episodes)
    return [
        np.stack([g.opening[at] / (HAND if g.is_hand else GRIPPER) for g in e.signals.grippers], axis=1)
        for e, at in zip(episodes, frames, strict=True)
    ]


# How unlike two moments are


def usual_distances(episodes: Sequence[Seen]) -> tuple[float, float]:
    """How far apart the nearest moments of two episodes usually are: by pictures, by state; 1 where there are none."""
    pairs = list(combinations(episodes, 2))
    nearest: tuple[list[float], list[float]] = ([], [])
    for pair in pairs[:: max(1, -(-len(pairs) // MAX_PAIRS))]:
        for kind, values in zip(_apart(*pair)[:2], nearest, strict=True):
            if kind is not None:
                values.append(float(kind.min(axis=1).mean()))
    by_pictures, by_state = (max(median(values), LEAST) if values else 1.0 for values in nearest)
    return by_pictures, by_state


def distances(episode: Seen, reference: Seen, usual: tuple[float, float]) -> np.ndarray:
    """How unlike the moments of an episode and a reference are, float64 [k, m]: 1 is usual where both show the same.

    The mean over pictures, state and grippers, of those that both have.
    """
    kinds = zip(_apart(episode, reference), (*usual, 1.0), strict=True)
    return np.mean([apart / scale for apart, scale in kinds if apart is not None], axis=0)


def _apart(a: Seen, b: Seen) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """By kind, [k, m]: cosine distance of pictures, mean square distance of states, distance of grippers."""
    pictures = state = grippers = None
    if a.pictures:
        cosines = [own @ other.T for own, other in zip(a.pictures, b.pictures, strict=True)]
        # Rounding may find two equal pictures more alike than equal
        pictures = np.maximum(1 - np.stack(cosines).mean(axis=0, dtype=np.float64), 0.0)
    if a.state is not None and b.state is not None:
        # The square of a difference without an array of all differences
        squares = (a.state**2).mean(axis=1)[:, None] + (b.state**2).mean(axis=1)
        state = np.sqrt(np.maximum(squares - 2 * a.state @ b.state.T / a.state.shape[1], 0.0))
    if a.openings is not None and b.openings is not None:
        grippers = np.abs(a.openings[:, None] - b.openings).mean(axis=2)
    return pictures, state, grippers
