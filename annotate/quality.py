"""Signs that a label may be wrong, for people who review: what is odd about an episode among those of its task.

None of them proves that a label is wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from annotate.segments import Segment
from core.demonstration_quality import FEWEST, MAD_TO_STD
from ingest.outcomes import BY_PERSON

JUMP_S = 0.5  # time within which a jump of progress is measured
FALL = 0.01  # of progress from one frame to the next: a smaller fall does not count as going backwards
MIN_SCALE = 0.05  # of the log duration: 5 % of the duration, however alike the runs are
# What says how a run ended. LABEL: its annotator saw it, a model in the pictures, motion that a step was left undone.
# ASSUMED: nobody says, so the label takes it as complete
SOURCE, PERSON, LABEL, ASSUMED = "source", "person", "label", "assumed"
END_WORDS = {
    SOURCE: "by the source's outcome",
    PERSON: "by a person",
    LABEL: "by the label itself: nobody says how the run ended",
    ASSUMED: "assumed complete: nobody says how the run ended",
}


@dataclass(frozen=True)
class LabelledRun:
    """One labelled episode: `progress` is [n]."""

    duration_s: float
    fps: float
    success: bool | None
    segments: Sequence[Segment]
    progress: np.ndarray


@dataclass(frozen=True)
class Quality:
    """None where too few runs of the task show what is usual."""

    length_z: float | None  # robust standard deviations of the log duration from the median
    order_rarity: float | None  # share of the task's runs whose steps follow each other otherwise
    jump: float  # largest rise or fall within half a second
    falls: int  # frames at which progress is lower than at the one before, by more than FALL
    worst_fall: float  # the largest fall from one frame to the next; 0 where there is none
    end: float  # progress at the last frame
    shortest_step_s: float | None  # None without a step
    contradicts: bool  # the source calls it a success and the label ends below 1, or the other way round


def qualities(runs: Sequence[LabelledRun]) -> list[Quality]:
    """One for each run of a task."""
    orders = [step_order(r.segments) for r in runs]
    enough, counts = len(runs) >= FEWEST, Counter(orders)
    # Of the logarithm: a run of twice and one of half the usual length are equally odd
    log_durations = np.log([run.duration_s for run in runs])
    length_z = robust_deviations(log_durations, np.ones(len(runs), bool), MIN_SCALE)
    return [
        _quality(run, float(z) if enough else None, 1 - counts[order] / len(runs) if enough else None)
        for run, order, z in zip(runs, orders, length_z, strict=True)
    ]


def _quality(run: LabelledRun, length_z: float | None, order_rarity: float | None) -> Quality:
    end = float(run.progress[-1])
    # Positive where progress falls; rises are negative and count nowhere below
    falls = -np.diff(run.progress.astype(np.float64))
    return Quality(
        length_z=length_z,
        order_rarity=order_rarity,
        jump=largest_jump(run.progress, run.fps),
        falls=int((falls > FALL).sum()),
        worst_fall=float(falls.max(initial=0.0)),
        end=end,
        shortest_step_s=min((len(s) / run.fps for s in run.segments if s.step is not None), default=None),
        contradicts=run.success is not None and run.success != (end >= 1.0),
    )


def robust_deviations(values: np.ndarray, usual: np.ndarray, least: float) -> np.ndarray:
    """How far values [n] are from the median of the `usual` ones (bool [n]), in robust standard deviations of those.

    A deviation of less than `least` does not count as one.
    """
    median = np.median(values[usual])
    scale = max(least, MAD_TO_STD * float(np.median(np.abs(values[usual] - median))))
    return (values - median) / scale


def end_by(success: bool | None, success_source: str | None, end_progress: float, *, looked: bool) -> str:
    """What says how a run ended, of an annotator's label; `looked`: it judges what pictures show.

    Example: nobody says how the run ended, and its label leaves a step undone: the label says it.
    """
    if success is not None:
        return PERSON if (success_source or "").startswith(BY_PERSON) else SOURCE
    return LABEL if looked or end_progress < 1 else ASSUMED


def step_order(segments: Sequence[Segment]) -> tuple[int, ...]:
    """Planned steps as they were attempted; a step that was only interrupted counts once.

    Example: segments of the steps 0, none, 0, 1, 0 have the order (0, 1, 0).
    """
    steps = [s.step for s in segments if s.step is not None]
    return tuple(step for step, _ in groupby(steps))


def largest_jump(progress: np.ndarray, fps: float) -> float:
    """Largest change of progress [n], up or down, within half a second."""
    lag = min(max(1, round(JUMP_S * fps)), len(progress) - 1)
    if lag <= 0:
        return 0.0
    return float(np.abs(progress[lag:] - progress[:-lag]).max(initial=0.0))
