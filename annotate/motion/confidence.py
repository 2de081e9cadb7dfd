"""How sure a label by motion is: the expected share of its boundaries that lie within 0.5 s of a true one.

What shows a boundary decides how often such boundaries are right: those at which a gripper closes, say, more often
than those at which a picture changes less. `SHARES` says how often, as `python -m benchmarks.calibration` measured it
on real and simulated runs whose true boundaries are known; docs/data/calibration.json has the counts.

A segment's confidence is the mean over its ends that are not the episode's own; the episode's is that over all
boundaries. A label of one step states that nothing in it is a boundary: that counts as a boundary more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from annotate.label import EpisodeLabel
from annotate.motion.arm_events import speed_dips, turns
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import EventKind, closings, next_opening
from annotate.motion.signals import LIFT_S, MotionRun
from annotate.motion.stand_stills import LEAST_STEP_S
from annotate.segments import STEP


class BoundaryEvidence(StrEnum):
    """What shows a boundary. Of several at one frame the first in this order counts."""

    CLOSES = "gripper closes"
    OPENS = "gripper opens"
    MOVES = "gripper moves"
    BEGINS_TO_CLOSE = "fingers begin to close"
    STANDS_STILL = "arm stands still"
    ENDS_AT_REST = "run ends at rest"
    TURNS = "arm turns"
    DIPS = "speed dips"
    PICTURE_STANDS_STILL = "picture stands still"  # of a source without a state
    ENDS_IN_STILL_PICTURE = "run ends with a still picture"
    CARRIES = "arm carries something"
    OTHER_RUNS = "other runs only"
    ONLY_STEP = "only step"  # that a step has no boundary inside it, of a label without another step


IN_ORDER = tuple(BoundaryEvidence)
OF_EVENT: dict[EventKind, BoundaryEvidence] = {
    "close": BoundaryEvidence.CLOSES,
    "open": BoundaryEvidence.OPENS,
    "move": BoundaryEvidence.MOVES,
}

SHARES: dict[BoundaryEvidence, float] = {
    BoundaryEvidence.CLOSES: 0.95,
    BoundaryEvidence.OPENS: 0.92,
    BoundaryEvidence.MOVES: 0.85,
    BoundaryEvidence.BEGINS_TO_CLOSE: 0.69,
    BoundaryEvidence.STANDS_STILL: 0.93,
    BoundaryEvidence.ENDS_AT_REST: 0.93,
    BoundaryEvidence.TURNS: 0.81,
    BoundaryEvidence.DIPS: 0.6,
    BoundaryEvidence.PICTURE_STANDS_STILL: 0.53,
    BoundaryEvidence.ENDS_IN_STILL_PICTURE: 0.81,
    BoundaryEvidence.CARRIES: 0.85,
    BoundaryEvidence.OTHER_RUNS: 0.8,
    BoundaryEvidence.ONLY_STEP: 0.24,
}


@dataclass(frozen=True)
class LabelEvidence:
    """What shows each boundary of a label, in time; and inside each segment, that it has none: ONLY_STEP, or None."""

    boundaries: tuple[BoundaryEvidence, ...]
    inside: tuple[BoundaryEvidence | None, ...]

    def shares(self, expected: Mapping[BoundaryEvidence, float]) -> tuple[list[float], list[float]]:
        """Expected confidence of the boundaries, and of the insides; NaN: none."""
        inside = [math.nan if evidence is None else expected[evidence] for evidence in self.inside]
        return [expected[evidence] for evidence in self.boundaries], inside


@dataclass(frozen=True)
class _Moment:
    """Frames, both included, at which a run shows that something ends or begins."""

    start: int
    end: int
    evidence: BoundaryEvidence

    def distance(self, frame: int) -> int:
        return max(self.start - frame, frame - self.end, 0)


def label_evidence(run: MotionRun, label: EpisodeLabel, config: MotionConfig) -> LabelEvidence:
    """What shows a run's label."""
    moments = [*_gripper_moments(run), *_rests(run), *_arm_moments(run, config)]
    shown = tuple(_shown_at(segment.start_frame, moments, run.signals.fps) for segment in label.segments[1:])

    has_one_step = len({s.step for s in label.segments if s.kind == STEP}) < 2
    unparted = [has_one_step and (s.kind == STEP or not shown) for s in label.segments]
    return LabelEvidence(shown, tuple(BoundaryEvidence.ONLY_STEP if alone else None for alone in unparted))


def _shown_at(frame: int, moments: Sequence[_Moment], fps: float) -> BoundaryEvidence:
    """The evidence of the nearest moment; the least length of a step may have moved a boundary away from it."""
    near = [moment for moment in moments if moment.distance(frame) <= LEAST_STEP_S * fps]
    if not near:
        return BoundaryEvidence.OTHER_RUNS
    return min(near, key=lambda moment: (moment.distance(frame), IN_ORDER.index(moment.evidence))).evidence


def _gripper_moments(run: MotionRun) -> list[_Moment]:
    after = round(LIFT_S * run.signals.fps)
    moments = []
    for event in run.gripper_events:
        if event.kind == "close":
            moments.append(_Moment(event.start, event.start, BoundaryEvidence.BEGINS_TO_CLOSE))
        moments.append(_Moment(event.start + 1, event.end + after, OF_EVENT[event.kind]))
    return moments


def _rests(run: MotionRun) -> list[_Moment]:
    between, at_end = BoundaryEvidence.STANDS_STILL, BoundaryEvidence.ENDS_AT_REST
    if run.signals.speed is None:
        between, at_end = BoundaryEvidence.PICTURE_STANDS_STILL, BoundaryEvidence.ENDS_IN_STILL_PICTURE
    inner = [edge for start, end in run.stand_stills if end < len(run) for edge in (start, end)]
    return [*(_Moment(edge, edge, between) for edge in inner), _Moment(run.final_rest, run.final_rest, at_end)]


def _arm_moments(run: MotionRun, config: MotionConfig) -> list[_Moment]:
    """Where the arm turns, or begins its action a little later; where it slows down; while it carries something."""
    state, fps = run.signals.state, run.signals.fps
    frames = {
        BoundaryEvidence.TURNS: [] if state is None else turns(state, config, fps),
        BoundaryEvidence.DIPS: speed_dips(run.activity, config, max(1, round(config.step_min_s * fps))),
    }
    frames[BoundaryEvidence.DIPS if state is None else BoundaryEvidence.TURNS] += run.action_candidates
    moments = [_Moment(frame, frame, evidence) for evidence, at in frames.items() for frame in at]
    for closing in closings(run.gripper_events):
        opening = next_opening(run.gripper_events, closing)
        end = opening.start if opening else len(run)
        moments.append(_Moment(closing.end, end, BoundaryEvidence.CARRIES))
    return moments


def of_segments(boundaries: Sequence[float], inside: Sequence[float]) -> list[float]:
    """Per segment the mean over its ends that are boundaries, and over its inside; NaN: not counted.

    Example: of three segments with boundaries of 1.0 and 0.4, nothing inside, they are 1.0, 0.7 and 0.4.
    """
    ends = [boundaries[max(0, k - 1) : k + 1] for k in range(len(inside))]
    return [_mean([*its_ends, within]) for its_ends, within in zip(ends, inside, strict=True)]


def of_episode(boundaries: Sequence[float], inside: Sequence[float]) -> float:
    return _mean([*boundaries, *inside])


def _mean(shares: Sequence[float]) -> float:
    counted = [share for share in shares if not math.isnan(share)]
    return sum(counted) / len(counted) if counted else math.nan


def with_confidence(label: EpisodeLabel, evidence: LabelEvidence) -> EpisodeLabel:
    """The same label with the confidence of each segment, and of the episode."""
    shares = evidence.shares(SHARES)
    segments = [replace(s, confidence=sure) for s, sure in zip(label.segments, of_segments(*shares), strict=True)]
    return replace(label, segments=segments, confidence=of_episode(*shares))
