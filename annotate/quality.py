"""Quality of labels and runs: signs that a label may be wrong, whether a run failed whose outcome
nobody says, and how well it was demonstrated.

Signs tell people who review what is odd about an episode among those of its task; none proves that
a label is wrong.

A run that ends as most others do is likely to have ended well, since recordings are kept because
most worked. Each sign is how far a run is from the others in robust deviations (median, MAD), so
that a task whose runs differ much needs a larger difference. A logistic function of few signs gives
the probability, and how many runs of the task seem to have failed shifts it. Its weights were
fitted once on simulated runs whose outcomes were left out, and tried on tasks that they were not
fitted on.

How a run was demonstrated is measured by numbers that need neither a label nor other runs; the view
`demonstration_quality` (core/demonstration_quality.py) compares them within a task.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from annotate.config import MotionConfig
from annotate.motion.observe import Signals, gripper_moves, observe
from annotate.signal_lag import FAST_PERCENTILE
from core.demonstration_quality import (
    FEWEST,
    LEAST_SPREAD,
    MAD_TO_STD,
    PICTURE_FLOOR,
    STATE_FLOOR,
)
from core.domain.label import Label, Segment
from ingest.outcomes import BY_PERSON

JUMP_S = 0.5  # time within which a jump of progress is measured
# Of progress from one frame to the next: a smaller fall does not count as going backwards
FALL = 0.01
MIN_SCALE = 0.05  # of the log duration: 5 % of the duration, however alike the runs are
# What says how a run ended. LABEL: its annotator saw it, a model in the pictures, motion that a step was left undone.
# ASSUMED: nobody says, so the label takes it as complete
SOURCE = "source"
PERSON = "person"
LABEL = "label"
ASSUMED = "assumed"
END_WORDS = {
    SOURCE: "by the source's outcome",
    PERSON: "by a person",
    LABEL: "by the label itself: nobody says how the run ended",
    ASSUMED: "assumed complete: nobody says how the run ended",
}


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
    # The source calls it a success and the label ends below 1, or the other way round
    contradicts: bool


def qualities(
    labels: Sequence[Label], rates: Sequence[float], outcomes: Sequence[bool | None]
) -> list[Quality]:
    """One for each run of a task, by its label, which has progress; `rates`: frames per second of each run."""
    orders = [step_order(label.segments) for label in labels]
    enough = len(labels) >= FEWEST
    counts = Counter(orders)
    # Of the logarithm: a run of twice and one of half the usual length are equally odd
    log_durations = np.log(
        [len(label.progress) / fps for label, fps in zip(labels, rates, strict=True)]
    )
    length_z = robust_deviations(log_durations, np.ones(len(labels), bool), MIN_SCALE)
    return [
        _quality(
            label,
            fps,
            success,
            float(z) if enough else None,
            1 - counts[order] / len(labels) if enough else None,
        )
        for label, fps, success, order, z in zip(
            labels, rates, outcomes, orders, length_z, strict=True
        )
    ]


def _quality(
    label: Label,
    fps: float,
    success: bool | None,
    length_z: float | None,
    order_rarity: float | None,
) -> Quality:
    end = float(label.progress[-1])
    # Positive where progress falls; rises are negative and count nowhere below
    falls = -np.diff(label.progress.astype(np.float64))
    return Quality(
        length_z=length_z,
        order_rarity=order_rarity,
        jump=largest_jump(label.progress, fps),
        falls=int((falls > FALL).sum()),
        worst_fall=float(falls.max(initial=0.0)),
        end=end,
        shortest_step_s=min(
            (len(s) / fps for s in label.segments if s.step is not None), default=None
        ),
        contradicts=success is not None and success != (end >= 1.0),
    )


def robust_deviations(values: np.ndarray, is_usual: np.ndarray, min_scale: float) -> np.ndarray:
    """How far values [n] are from the median of the `is_usual` ones (bool [n]), in robust standard deviations of those.

    A deviation of less than `min_scale` does not count as one.
    """
    median = np.median(values[is_usual])
    scale = max(min_scale, MAD_TO_STD * float(np.median(np.abs(values[is_usual] - median))))
    return (values - median) / scale


def end_source(
    success: bool | None, success_source: str | None, end_progress: float, *, has_visual_check: bool
) -> str:
    """What says how a run ended, of an annotator's label; `has_visual_check`: it judges what pictures show.

    Example: nobody says how the run ended, and its label leaves a step undone: the label says it.
    """
    if success is not None:
        if (success_source or "").startswith(BY_PERSON):
            return PERSON
        return SOURCE
    if has_visual_check or end_progress < 1:
        return LABEL
    return ASSUMED


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


MOVES = 0.1  # of its fast speed: an arm below it stands still
LAST_S = 0.25  # of a run: how fast it ends
FARTHEST = 2.0  # robust deviations: no sign alone is to decide, since people differ more than simulated runs
# What is added before logarithms, and the least deviation that counts, however alike the runs are
MOVING_FLOOR_S = 0.1
MOVING_SCALE = 0.05
STATE_SCALE = 0.2
PICTURE_SCALE = 0.1
SPEED_SCALE = 0.1  # share of the fast speed

# Fitted to simulated runs without outcomes (179 runs of 16 tasks, 55 failed). Only three of them leave a step undone,
# all failed: that weight is set by hand.
BIAS = -3.29
WEIGHTS = {
    "the arm stops elsewhere": 1.44,
    "the last picture differs": 1.14,
    "it moves for a shorter time": 1.77,
    "it ends faster or slower": 0.33,
    "a step is left undone": 2.0,
}
SIGNS = tuple(WEIGHTS)
ALL_WEIGHTS = np.array(list(WEIGHTS.values()))
FITTED_SHARE = 55 / 179  # of the runs that the weights were fitted to had failed
# Before anything is seen of a task, one run in ten is taken to fail, as surely as ten seen runs would say it
PRIOR_FAILED = 1.0
PRIOR_RUNS = 10.0
ROUNDS = 50  # of estimating how many runs of a task failed; it has settled after twenty
SPEAKS = 1.0  # log-odds from which on a sign is named


def activity(run: Signals) -> np.ndarray:
    """How fast a run moves at each frame, float64 [n]: its speed, else how much its pictures change."""
    return np.asarray(run.change if run.speed is None else run.speed, np.float64)


def moving_s(run: Signals) -> float:
    speeds = activity(run)
    return float((speeds > MOVES * np.percentile(speeds, FAST_PERCENTILE)).sum() / run.fps)


def last_speed(run: Signals) -> float:
    """Mean over the last moment, as a share of the fast speed."""
    speeds = activity(run)
    last = speeds[-max(1, round(LAST_S * run.fps)) :]
    return float(last.mean() / max(np.percentile(speeds, FAST_PERCENTILE), 1e-9))


@dataclass(frozen=True)
class Doubt:
    """Probability that a run failed, and the signs that speak for it, the strongest first."""

    p_failure: float
    because: tuple[str, ...]


def doubts(
    runs: Sequence[Signals], last_hashes: Sequence[int], end_progress: Sequence[float]
) -> list[Doubt | None]:
    """For each run of a task; None where its outcome is known, or too few runs show what is usual.

    last_hashes: the 64-bit perceptual hash of each run's last picture. end_progress: at the last
    frame, by its label.
    """
    is_usual = np.array([run.success is not False for run in runs])
    if is_usual.sum() < FEWEST:
        return [None] * len(runs)
    signs = signs_of(runs, last_hashes, end_progress)
    parts = signs * ALL_WEIGHTS
    p = task_failure_probabilities(
        1 / (1 + np.exp(-(BIAS + signs @ ALL_WEIGHTS))), [run.success for run in runs]
    )

    def doubt(k: int) -> Doubt:
        strongest_first = sorted(range(len(SIGNS)), key=lambda sign: -parts[k, sign])
        return Doubt(
            float(p[k]), tuple(SIGNS[sign] for sign in strongest_first if parts[k, sign] >= SPEAKS)
        )

    return [doubt(k) if run.success is None else None for k, run in enumerate(runs)]


def task_failure_probabilities(p: np.ndarray, outcomes: Sequence[bool | None]) -> np.ndarray:
    """Probabilities [runs], as the fit gives them, with the share of failures of their own task in place of the fit's.

    Share and probabilities are estimated in turn (expectation maximisation); known outcomes count
    for the share.

    Example: of eight runs with 0.05 and one with 0.6, hardly any failed: the one has 0.19.
    """
    unknown = np.array([outcome is None for outcome in outcomes])
    known_failed = sum(outcome is False for outcome in outcomes)
    odds = p / (1 - p) * (1 - FITTED_SHARE) / FITTED_SHARE
    share = FITTED_SHARE
    adapted = p
    for _ in range(ROUNDS):
        task_odds = odds * share / (1 - share)
        adapted = task_odds / (1 + task_odds)
        failed = adapted[unknown].sum() + known_failed
        share = (PRIOR_FAILED + failed) / (PRIOR_RUNS + len(p))
    return adapted


def signs_of(
    runs: Sequence[Signals], last_hashes: Sequence[int], end_progress: Sequence[float]
) -> np.ndarray:
    """How odd the end of each run of a task is, float64 [runs, SIGNS]: from 0 (as the others) to FARTHEST.

    What is usual is read off the runs that are not known to have failed; there are to be two of
    them at least.
    """
    is_usual = np.array([run.success is not False for run in runs])
    log_moving_s = np.log([moving_s(run) + MOVING_FLOOR_S for run in runs])
    speed = np.array([last_speed(run) for run in runs])
    hashes = np.array(last_hashes, np.uint64)
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None])  # in which the last pictures differ
    signs = [
        robust_deviations(
            _log_distances(_last_states(runs), is_usual, STATE_FLOOR), is_usual, STATE_SCALE
        ),
        robust_deviations(
            _log_distances(bits.astype(np.float64), is_usual, PICTURE_FLOOR),
            is_usual,
            PICTURE_SCALE,
        ),
        -robust_deviations(log_moving_s, is_usual, MOVING_SCALE),
        np.abs(robust_deviations(speed, is_usual, SPEED_SCALE)),
        np.array([float(progress < 1) for progress in end_progress]),
    ]
    return np.clip(np.stack(signs, axis=1), 0, FARTHEST)


def _log_distances(distances: np.ndarray | None, is_usual: np.ndarray, floor: float) -> np.ndarray:
    """Log of the mean distance [n] of each run to the nearer half of the usual ones, itself left out; 0 without any."""
    if distances is None:
        return np.zeros(len(is_usual))
    # With an infinite distance to itself a run is never among its nearer half
    other_distances = np.where(np.eye(len(is_usual), dtype=bool), np.inf, distances)[:, is_usual]
    nearer = max(1, (int(is_usual.sum()) - 1) // 2)
    return np.log(np.sort(other_distances, axis=1)[:, :nearer].mean(axis=1) + floor)


def _last_states(runs: Sequence[Signals]) -> np.ndarray | None:
    """Distances between the last states [n, n], in standard deviations of all states; None where they have none."""
    states = [run.state for run in runs if run.state is not None]
    if len(states) < len(runs) or len({state.shape[1] for state in states}) > 1:
        return None
    scale = np.concatenate(states).std(axis=0, dtype=np.float64)
    moves = scale > 1e-4 * scale.max(initial=0.0)
    if not moves.any():
        return None
    last = np.array([state[-1, moves] for state in states], np.float64) / scale[moves]
    return np.sqrt(((last[:, None] - last[None]) ** 2).mean(axis=2))


PATH_HZ = 10.0  # at which the arm's way is looked at, whatever the frame rate is: no hand trembles on purpose
PATH_SMOOTH_S = 0.2  # moving average over the state: takes out what sensors add

MIN_MOVES = 5  # points of the way at which the arm moves: fewer say nothing about how smoothly
WAY_S = 0.4  # before and after a point of the way; as long as those by which motion sees a turn
BACK = -0.5  # cosine between the two from which on the arm turns back
LEAST_WAY = 0.03  # of the extent of the whole way: shorter ones have no direction
END_S = 0.25  # of a run: where it ends


@dataclass(frozen=True)
class RunMeasures:
    """Measurements of one run; a value is None if the source has no state, or no gripper is used.

    rest_s: in all stand-stills, also before the arm sets out and after it has come to rest. pauses:
    stand-stills between. jerk: 1/s², see `_jerk`. reversals: how often the arm turns back.
    gripper_moves: closings and openings. end_state [d]: mean over the last END_S; state_spread [d]:
    standard deviation over the run.
    """

    duration_s: float
    rest_s: float
    pauses: int
    reversals: int | None
    jerk: float | None
    gripper_moves: int | None
    end_state: np.ndarray | None
    state_spread: np.ndarray | None


def run_measures(signals: Signals) -> RunMeasures:
    """Measure one run, whatever its outcome."""
    # An outcome that becomes known later must not change what is measured
    run = observe(replace(signals, success=None), MotionConfig())
    n = len(run)
    fps = signals.fps
    way = None if signals.state is None else _way(signals.state, fps)
    end_state = state_spread = None
    if signals.state is not None and np.isfinite(signals.state).all():
        state = np.asarray(signals.state, np.float64)
        end_state = state[-max(1, round(END_S * fps)) :].mean(axis=0)
        state_spread = state.std(axis=0)
    return RunMeasures(
        duration_s=n / fps,
        rest_s=sum(end - start for start, end in run.idle) / fps,
        pauses=sum(start > 0 and end < n for start, end in run.idle),
        reversals=None if way is None else _reversals(way),
        jerk=None if way is None else _jerk(way),
        gripper_moves=_gripper_moves(signals),
        end_state=end_state,
        state_spread=state_spread,
    )


def _gripper_moves(signals: Signals) -> int | None:
    moves = [
        gripper_moves(gripper.opening, MotionConfig(), signals.fps) for gripper in signals.grippers
    ]
    if moves:
        return sum(map(len, moves))
    return None


def _way(state: np.ndarray, fps: float) -> np.ndarray | None:
    """State [n, d] at PATH_HZ, smoothed, each dimension in its standard deviations; None: nothing moves."""
    spread = state.std(axis=0, dtype=np.float64)
    max_spread = spread.max(initial=0.0)
    if not np.isfinite(state).all() or not max_spread:
        return None
    # A joint that hardly moves shows little but its sensor's steps
    scaled = state.astype(np.float64) / np.maximum(spread, LEAST_SPREAD * max_spread)
    window = max(1, round(PATH_SMOOTH_S * fps))
    padded = np.pad(scaled, ((window // 2, window - 1 - window // 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((1, 0), (0, 0))), axis=0)
    smooth = (sums[window:] - sums[:-window]) / window
    times = np.arange(len(state)) / fps
    points = np.arange(0, times[-1] + 1e-9, 1 / PATH_HZ)
    return np.stack([np.interp(points, times, dimension) for dimension in smooth.T], axis=1)


def _jerk(way: np.ndarray) -> float | None:
    """Median jerk over median speed while the arm moves, in 1/s²; None where it hardly moves.

    Jerk that is normalised by speed is what Hogan and Sternad (J. Motor Behavior 41, 2009) measure
    smoothness by. Their integral, and the spectral arc length of Balasubramanian et al. (J.
    NeuroEng. Rehab. 12, 2015), follow how long a run is and its few hardest moments; medians see a
    hand that trembles (docs/data.md has both measured).
    """
    velocity = np.diff(way, axis=0) * PATH_HZ
    jerk = _length(np.diff(velocity, n=2, axis=0)) * PATH_HZ**2
    speed = _length(velocity)
    if len(speed):
        is_moving = speed > MOVES * np.percentile(speed, FAST_PERCENTILE)
    else:
        is_moving = np.zeros(0, bool)
    if is_moving[: len(jerk)].sum() < MIN_MOVES:
        return None
    return float(np.median(jerk[is_moving[: len(jerk)]]) / np.median(speed[is_moving]))


def _reversals(way: np.ndarray) -> int:
    """How often the ways of WAY_S before and after a point lead into opposite directions."""
    k = round(WAY_S * PATH_HZ)
    if len(way) <= 2 * k:
        return 0
    previous_move = way[k:-k] - way[: -2 * k]
    next_move = way[2 * k :] - way[k:-k]
    long = np.minimum(_length(previous_move), _length(next_move)) > LEAST_WAY * _length(
        way.max(axis=0) - way.min(axis=0)
    )
    product = (previous_move * next_move).mean(axis=1)
    is_back = long & (product < BACK * _length(previous_move) * _length(next_move))
    return int((np.diff(is_back.astype(np.int8), prepend=0) == 1).sum())


def _length(vectors: np.ndarray) -> np.ndarray:
    """Root mean square over the last axis."""
    return np.sqrt((vectors**2).mean(axis=-1))
