"""What comparisons of runs need of each: some ten thousand numbers, however long the run is."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

import numpy as np

from annotate.checkup.comparer import LIMITS
from annotate.checkup.single_runs import CameraSignals, RunSignals, idle_seconds, row_curve
from ingest.signals import naming
from ingest.signals.naming import transitions

CLIPPED = LIMITS["action_clipped"]
SIGN = LIMITS["other_scale sign"]
PHASES = 16  # moments of a run, evenly spread from its first to its last frame
TINY_SPREAD = 1e-15  # product of standard deviations: less is rounding


@dataclass(frozen=True)
class ColumnSummary:
    """State or action of a run by its dimensions, arrays [d].

    phases: float64 [PHASES, d]. largest: of the absolute values. at_largest: share of frames there.
    arm: which dimensions are of no gripper. is_clipped: which of these stay there often, in several
    stretches, and take several values else.
    """

    titles: tuple[str, ...]
    phases: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    largest: np.ndarray
    at_largest: np.ndarray
    is_clipped: np.ndarray
    arm: np.ndarray


@dataclass(frozen=True)
class RunSummary:
    """One run in short.

    columns: state and action, as far as the run has them. leads: median of action minus state of
    each dimension [d], where both have the same ones, and `follows`, their correlation [d]. follow:
    how the state moves with the action, see `_follow_correlations`. row_curve:
    likeness of pictures and rows at each lag, see rows. closings: of each gripper, None where it
    is not used. cameras: of their tiny pictures those at the PHASES. idle_s: at its start and its end.
    """

    episode_index: int
    num_frames: int
    fps: float
    task: str | None
    success: bool | None
    rows_digest: bytes | None
    columns: Mapping[str, ColumnSummary]
    leads: np.ndarray | None
    follows: np.ndarray | None
    follow: np.ndarray | None
    cameras: Mapping[str, CameraSignals]
    row_curve: np.ndarray | None
    gripper_titles: tuple[str, ...]
    closings: tuple[int | None, ...]
    idle_s: Mapping[str, float]

    def __len__(self) -> int:
        return self.num_frames


def cameras_of(runs: Iterable[RunSummary]) -> list[str]:
    """Those that any of the runs has, by name."""
    return sorted(set(chain.from_iterable(run.cameras for run in runs)))


def summarize(run: RunSignals) -> RunSummary:
    """What is kept of a run."""
    columns = {
        name: _column_summary(run, name, values)
        for name, values in (("state", run.state), ("action", run.action))
        if values is not None and len(values) > 1 and np.isfinite(values).all()
    }
    leads, follows = _leads(run) if len(columns) == 2 else (None, None)
    return RunSummary(
        run.episode_index,
        len(run),
        run.fps,
        run.task,
        run.success,
        _rows_digest(run),
        columns,
        leads,
        follows,
        _follow_correlations(run) if len(columns) == 2 else None,
        {
            camera.camera: replace(camera, tiny=camera.tiny[phases(len(camera.tiny))])
            for camera in run.cameras
        },
        row_curve(run),
        tuple(signal.title for signal in run.grippers),
        tuple(_num_closings(curve, run.fps) for curve in run.openings),
        idle_seconds(run),
    )


@lru_cache(maxsize=64)
def phases(length: int) -> np.ndarray:
    """Indices of the PHASES moments of `length` things."""
    return np.round(np.linspace(0, length - 1, PHASES)).astype(int)


def euclidean_distances(vectors: np.ndarray) -> np.ndarray:
    """Distances between all pairs of vectors [k, d], [k, k]."""
    squares = (vectors**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0))


def _column_summary(run: RunSignals, name: str, values: np.ndarray) -> ColumnSummary:
    sizes = np.abs(values)
    largest = sizes.max(axis=0)
    is_largest = sizes >= largest * (1 - CLIPPED.tie)
    at_largest = is_largest.mean(axis=0)
    width = values.shape[1]
    is_arm = np.zeros(width, bool)
    for d in run.arm_dimensions(name):
        is_arm[d] = not _is_gripper(run, name, d, width)
    num_visits = is_largest[0] + (is_largest[1:] & ~is_largest[:-1]).sum(axis=0)
    is_clipped = is_arm & (at_largest >= CLIPPED.frames) & (num_visits >= CLIPPED.visits)
    for d in np.flatnonzero(is_clipped).tolist():
        is_clipped[d] = len(set(sizes[:, d].tolist())) >= CLIPPED.levels
    return ColumnSummary(
        tuple(run.title(name, d) for d in range(width)),
        values[phases(len(values))],
        values.min(axis=0),
        values.max(axis=0),
        values.std(axis=0),
        largest,
        at_largest,
        is_clipped,
        is_arm,
    )


def _is_gripper(run: RunSignals, column: str, dimension: int, width: int) -> bool:
    """Is a dimension the gripper's counterpart in the other column: by its name, or as the last one of an arm?"""
    has_gripper = any(signal.column != column for signal in run.grippers)
    is_last = has_gripper and dimension == width - 1
    return is_last or _names_gripper(run.title(column, dimension))


@lru_cache(maxsize=256)
def _names_gripper(title: str) -> bool:
    return not naming.GRIPPERS.isdisjoint(naming.words(title))


def _leads(run: RunSignals) -> tuple[np.ndarray | None, np.ndarray | None]:
    """By how much the action is above the state at the median, and how alike they run, of each dimension [d].

    None where they are not of the same dimensions.
    """
    state = run.state
    action = run.action
    if (
        state is None
        or action is None
        or state.shape != action.shape
        or run.state_names != run.action_names
    ):
        return None, None
    return np.median(action - state, axis=0), _correlation(state, action)


def _follow_correlations(run: RunSignals) -> np.ndarray | None:
    """Correlation of the change of each joint's state over SIGN.follows_s with the action [0] and with
    its change [1], of each joint that state and action have at one place, [2, d]; NaN of grippers,
    0 of what does not move."""
    state = run.state
    action = run.action
    step = max(1, round(SIGN.follows_s * run.fps))
    if (
        state is None
        or action is None
        or len(state) != len(action)
        or len(state) < SIGN.rows + step
    ):
        return None
    num_joints = min(state.shape[1], action.shape[1])
    moves = state[step:, :num_joints] - state[:-step, :num_joints]
    pushes = action[:-step, :num_joints]
    follow = np.stack(
        [_correlation(pushes, moves), _correlation(action[step:, :num_joints] - pushes, moves)]
    )
    joints = set(run.arm_dimensions("state")) & set(run.arm_dimensions("action"))
    follow[:, [d for d in range(num_joints) if d not in joints]] = np.nan
    return follow


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each column of [n, d] with that of the other, [d]; 0 where one does not move."""
    of_a = a - a.mean(axis=0)
    of_b = b - b.mean(axis=0)
    spreads = np.sqrt((of_a * of_a).mean(axis=0)) * np.sqrt((of_b * of_b).mean(axis=0))
    products = (of_a * of_b).mean(axis=0)
    return np.divide(products, spreads, out=np.zeros_like(products), where=spreads > TINY_SPREAD)


def _rows_digest(run: RunSignals) -> bytes | None:
    """Over state and action; None where there are none, or nothing moves."""
    values = [column for column in (run.state, run.action) if column is not None]
    if not values or all((column == column[0]).all() for column in values):
        return None
    digest = hashlib.sha256()
    for column in values:
        digest.update(np.ascontiguousarray(column, np.float64).tobytes())
    return digest.digest()


def _num_closings(opening: np.ndarray | None, fps: float) -> int | None:
    """How often a gripper moves to an end other than the one that it starts at; None of one that is not used."""
    if opening is None:
        return None
    return (len(list(transitions(opening, fps))) + 1) // 2
