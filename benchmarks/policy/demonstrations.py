"""Scripted demonstrations of mixed quality, recorded as benchmarks/sim_short does, and made a LeRobot dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.policy.protocol import QUALITIES

if TYPE_CHECKING:
    from benchmarks.policy.cell import Cell

LONGEST = 110  # frames; a run that is not over by then has failed
AFTERWARDS = 4  # frames that a run stands still after its success
NOISE = 0.6  # of the expert's speed: how far a noisy hand's speed is off, as one standard deviation
NOISE_MEMORY = 0.8  # of the noise of a frame, what is left in the next
NOISY_TRIES = 5


@dataclass(frozen=True)
class Demonstration:
    """One run to be: `number` counts all runs of a task, and is its start state."""

    task: str
    number: int
    quality: str


def planned(task: str, counts: Mapping[str, int]) -> list[Demonstration]:
    """The demonstrations of a task, the qualities in turn, so that any first part of them is a mixture.

    Raises ValueError for a quality that there is not.
    """
    if unknown := sorted(set(counts) - set(QUALITIES)):
        raise ValueError(f"no such quality: {', '.join(unknown)}; there are {', '.join(QUALITIES)}")
    remaining = dict(counts)
    order = list[str]()
    while any(remaining.values()):
        order += [q for q in QUALITIES if remaining.get(q)]
        remaining = {q: max(0, n - 1) for q, n in remaining.items()}
    return [Demonstration(task, k, quality) for k, quality in enumerate(order)]


@dataclass(frozen=True)
class Recorded:
    """A run: rows as of sim_short's frames.parquet, pictures before each action, and what a policy sees [n, d]."""

    rows: list[dict[str, Any]]
    pictures: list[np.ndarray]
    seen: np.ndarray


class Script:
    """Says the action of each frame of a run of one quality; `over` once a failed run has shown what it shows."""

    def __init__(self, cell: "Cell", demonstration: Demonstration, attempt: int) -> None:
        self.cell = cell
        self.quality = demonstration.quality
        self.rng = rng = np.random.default_rng(
            [QUALITIES.index(self.quality), demonstration.number, attempt]
        )
        self.frame = 0
        self.over = False
        self.noise = np.zeros(3)
        self.grip = -1.0
        if self.quality == "stalled":
            self.stalls = sorted(rng.choice(np.arange(3, 21), 2, replace=False))
        else:
            self.stalls = []
        self.still = 0
        side = rng.choice([-1.0, 1.0])
        self.beside = np.array([side * rng.uniform(0.08, 0.14), rng.uniform(-0.04, 0.04), 0.0])
        self.misses_for = int(rng.integers(10, 19))
        self.begin = cell.obs[:3].copy()
        # Of the failed runs every second one freezes on its way, the others aim beside the object
        if demonstration.number // len(QUALITIES) % 2:
            self.freezes_at = int(rng.integers(6, 18))
        else:
            self.freezes_at = None

    def action(self) -> np.ndarray:
        """float32 [4]"""
        chosen = getattr(self, f"_{self.quality}")()
        self.frame += 1
        self.grip = float(chosen[3])
        return np.clip(chosen, -1, 1).astype(np.float32)

    def _expert(self) -> np.ndarray:
        return self.cell.expert()

    def _noisy(self) -> np.ndarray:
        limit = self.cell.spec["limit"]
        fresh = self.rng.normal(0, NOISE * limit * np.sqrt(1 - NOISE_MEMORY**2), 3)
        self.noise = NOISE_MEMORY * self.noise + fresh
        return self.cell.expert() + np.r_[self.noise, 0]

    def _stalled(self) -> np.ndarray:
        if self.still:
            self.still -= 1
            return self._stand()
        # Counted in frames in which the arm moved
        frame_number = self.frame
        if self.stalls and frame_number >= self.stalls[0]:
            length = int(self.rng.integers(10, 26))
            self.stalls = [stall_frame + length for stall_frame in self.stalls[1:]]
            self.still = length - 1
            return self._stand()
        return self.cell.expert()

    def _retried(self) -> np.ndarray:
        if self.frame < self.misses_for:
            return self.cell.expert(self.beside)
        away = self.begin - self.cell.obs[:3]
        if self.frame < 2 * self.misses_for and np.linalg.norm(away) > 0.03:
            return np.r_[
                np.clip(10 * away, -self.cell.spec["limit"], self.cell.spec["limit"]), -1.0
            ]
        self.misses_for = 0
        return self.cell.expert()

    def _failed(self) -> np.ndarray:
        if self.freezes_at is None:
            self.over = self.frame >= 36
            return self.cell.expert(self.beside)
        self.over = self.frame >= self.freezes_at + 20
        if self.frame < self.freezes_at:
            return self.cell.expert()
        return self._stand()

    def _stand(self) -> np.ndarray:
        return np.array([0, 0, 0, self.grip])


def record(cell: "Cell", demonstration: Demonstration, *, pictures: bool = True) -> Recorded:
    """One run. A run whose end does not fit its quality is drawn anew; raises RuntimeError where none fits."""
    for attempt in range(NOISY_TRIES):
        recorded_run = _attempt(cell, demonstration, attempt, pictures)
        if recorded_run.rows[-1]["success"] == (demonstration.quality != "failed"):
            return recorded_run
    raise RuntimeError(f"{demonstration}: none of {NOISY_TRIES} runs ended as it should")


def _attempt(cell: "Cell", demonstration: Demonstration, attempt: int, pictures: bool) -> Recorded:
    observations = [cell.restart(demonstration.number)]
    script = Script(cell, demonstration, attempt)
    rows = []
    drawn = []
    frames_after = 0
    while True:
        row = cell.measured()
        rows.append(row)
        if pictures:
            drawn.append(cell.picture())
        frames_after += bool(frames_after) or row["success"]
        if frames_after:
            row["action"] = np.array([0, 0, 0, script.grip], np.float32)
        else:
            row["action"] = script.action()
        if frames_after > AFTERWARDS or script.over or len(rows) >= LONGEST:
            return Recorded(rows, drawn, np.stack(observations))
        cell.act(row["action"])
        observations.append(cell.seen())
