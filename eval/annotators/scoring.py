"""What one episode's label scores against what is true of the episode, beside labels that look at nothing.

Those are uniform and random cuts, as many as the truth has boundaries, and the clock: progress as time goes by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from annotate.segments import DONE, STEP, Segment
from eval.annotators.labels import LabelledEpisode, spans, step_spans
from eval.annotators.truth import NEAR_S, EpisodeTruth, hand_progress, planned_step
from eval.metrics.published import boundary_hits, first_and_last
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.metrics.segments import Span, best_overlaps, boundary_f1, edit_score, plain_name, segment_iou

FAR_S = 1.0  # s: how far off a boundary may be at most; NEAR_S is the narrower one
EVENTS = ("grasp", "release")
SLIVER_S = 0.3  # s: a step that is shorter is none
RANDOM_DRAWS = 500  # of random cuts per episode
NAN = float("nan")


@dataclass(frozen=True)
class EpisodeScore:
    """One episode's figures, NaN where it has none. `uniform`, `random`: as many cuts as the truth has boundaries."""

    f1_near: float
    f1_near_uniform: float
    f1_near_random: float
    f1_near_chance: float  # share of the random cuts that are as good
    f1_far: float
    f1_far_uniform: float
    f1_far_random: float
    f1_far_chance: float
    bf1_hits: float  # of ProcVLM's BF1@5: twice the hits, and what they are divided by
    bf1_total: float
    bf1_hits_uniform: float
    bf1_total_uniform: float
    events: float  # share of grasps and releases with a boundary within NEAR_S
    events_uniform: float
    events_random: float
    events_off_s: float  # from a grasp or release to the nearest boundary, mean
    events_off_s_uniform: float
    events_off_s_random: float
    mae: float
    mae_clock: float
    mae_passes: float  # of the one pass's curve to the other's
    unnamed: float  # share of steps
    slivers: float  # share of steps shorter than SLIVER_S
    cuts: float
    cuts_truth: float


# Boundaries and events


def cuts_f1(cuts: Sequence[int], boundaries: Sequence[int], within: float) -> float:
    """F1 of cuts matched one to one, each in its turn to the nearest boundary that is left; 1 when there are none.

    `within` is in frames.
    """
    return float(draws_f1(np.array([cuts], np.float64), boundaries, within)[0])


def draws_f1(draws: np.ndarray, boundaries: Sequence[int], within: float) -> np.ndarray:
    """`cuts_f1` of each of several sets of cuts, float64 [draws], for cuts [draws, cuts]."""
    num_draws, num_cuts = draws.shape
    total = num_cuts + len(boundaries)
    if not total:
        return np.ones(num_draws)
    hits, every = np.zeros(num_draws), np.arange(num_draws)
    if boundaries:
        left = np.tile(np.asarray(boundaries, np.float64), (num_draws, 1))  # infinite: taken
        for cut in draws.T:
            apart = np.abs(left - cut[:, None])
            nearest = apart.argmin(axis=1)
            hit = apart[every, nearest] <= within
            hits += hit
            left[every[hit], nearest[hit]] = np.inf
    return 2 * hits / total


def even_cuts(count: int, num_frames: int) -> list[int]:
    return [round(num_frames * (k + 1) / (count + 1)) for k in range(count)]


def random_cuts(count: int, num_frames: int, seed: int) -> np.ndarray:
    """RANDOM_DRAWS times `count` different inner frames in order, int [RANDOM_DRAWS, count]."""
    rng = np.random.default_rng(seed)
    count = min(count, num_frames - 1)
    draws = [rng.choice(num_frames - 1, count, replace=False) + 1 for _ in range(RANDOM_DRAWS)]
    return np.sort(np.array(draws), axis=1)


def seconds_off(cuts: Sequence[int], frames: Sequence[int], truth: EpisodeTruth) -> np.ndarray:
    """From each frame to the nearest cut, float64 [frames]; the whole episode where there is no cut."""
    return draws_off(np.array([cuts], np.float64), frames, truth)[0]


def draws_off(draws: np.ndarray, frames: Sequence[int], truth: EpisodeTruth) -> np.ndarray:
    """`seconds_off` of each of several sets of cuts [draws, cuts], float64 [draws, frames]."""
    if not draws.shape[1]:
        return np.full((len(draws), len(frames)), truth.num_frames / truth.fps)
    at = np.asarray(frames, np.float64)
    return np.abs(at[None, :, None] - draws[:, None, :]).min(axis=2, initial=np.inf) / truth.fps


# One episode


def score_episode(label: LabelledEpisode, truth: EpisodeTruth) -> EpisodeScore:
    """The figures of one label. Raises ValueError where it is of a recording of another length."""
    if label.num_frames != truth.num_frames:
        raise ValueError(
            f"{truth.dataset} episode {truth.episode_index}: {label.num_frames} frames are labelled, the truth has "
            f"{truth.num_frames}: it is of another recording"
        )
    even = even_cuts(len(truth.boundaries), truth.num_frames)
    draws = random_cuts(len(truth.boundaries), truth.num_frames, truth.episode_index)
    f1: dict[str, float] = {}
    for name, seconds in (("near", NEAR_S), ("far", FAR_S)):
        within = seconds * truth.fps
        f1[f"f1_{name}"] = cuts_f1(label.cuts, truth.boundaries, within)
        f1[f"f1_{name}_uniform"] = cuts_f1(even, truth.boundaries, within)
        at_random = draws_f1(draws, truth.boundaries, within)
        f1[f"f1_{name}_random"] = float(at_random.mean())
        f1[f"f1_{name}_chance"] = float((at_random >= f1[f"f1_{name}"]).mean())

    # Grasps and releases
    frames = truth.frames_of(*EVENTS)
    ours, uniform = seconds_off(label.cuts, frames, truth), seconds_off(even, frames, truth)
    off_at_random = draws_off(draws, frames, truth)

    # Progress
    hand, curves = truth.progress(), [hand_progress(p, truth.num_frames) for p in truth.passes]
    clock = np.linspace(0, 1, truth.num_frames)
    steps = [s for s in label.segments if s.kind == STEP]
    return EpisodeScore(
        **f1,
        **_bf1(label, truth),
        events=_mean(ours <= NEAR_S),
        events_uniform=_mean(uniform <= NEAR_S),
        events_random=_mean(off_at_random <= NEAR_S),
        events_off_s=_mean(ours),
        events_off_s_uniform=_mean(uniform),
        events_off_s_random=_mean(off_at_random),
        mae=NAN if label.progress is None else _mean(np.abs(label.progress - hand)),
        mae_clock=_mean(np.abs(clock - hand)),
        mae_passes=_mean(np.abs(curves[0] - curves[-1])) if len(curves) > 1 else NAN,
        unnamed=sum(not s.named for s in steps) / max(1, len(steps)),
        slivers=sum(len(s) < SLIVER_S * truth.fps for s in steps) / max(1, len(steps)),
        cuts=len(label.cuts),
        cuts_truth=len(truth.boundaries),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else NAN


def _bf1(label: LabelledEpisode, truth: EpisodeTruth) -> dict[str, float]:
    """Hits and totals of ProcVLM's BF1@5 against the steps of each pass, for the label and a uniform split."""
    ours, uniform = np.zeros(2), np.zeros(2)
    for one_pass in truth.passes:
        wanted = step_spans(one_pass)
        split = even_split(len({planned_step(s) for s in one_pass if s.kind == STEP}), truth.num_frames)
        ours += published_hits(step_spans(label.segments), wanted)
        uniform += published_hits(split, wanted)
    names = ("bf1_hits", "bf1_total", "bf1_hits_uniform", "bf1_total_uniform")
    return dict(zip(names, [*ours, *uniform], strict=True))


def published_hits(ours: Sequence[Span], wanted: Sequence[Span]) -> tuple[int, int]:
    """(2 TP, 2 TP + FP + FN) of BF1@5."""
    hits, total, _ = boundary_hits(first_and_last(ours), first_and_last(wanted))
    return hits, total


def even_split(count: int, num_frames: int) -> list[Span]:
    ends = np.linspace(0, num_frames, count + 1).round().astype(int).tolist()
    return [(str(k), start, end) for k, (start, end) in enumerate(pairwise(ends))]


# Steps: their overlap, names, and what was achieved


def score_steps(label: LabelledEpisode, truth: EpisodeTruth, vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of one episode's steps against each pass, the mean over passes; NaN where there is none.

    `vectors`: embeddings of all step names.
    """
    each = [_against_pass(label.segments, one_pass, vectors) for one_pass in truth.passes]
    values = {name: float(np.mean([values[name] for values in each])) for name in each[0]}
    both_known = label.finished is not None and truth.success is not None
    values["finished_accuracy"] = float(label.finished == truth.success) if both_known else NAN
    return values


def _against_pass(
    ours: tuple[Segment, ...], target: tuple[Segment, ...], vectors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    similarity, completed = _matched_steps(ours, target, vectors)
    our_spans, target_spans = spans(ours), spans(target)
    return {
        "boundary_f1@5%": boundary_f1(our_spans, target_spans),
        "segment_iou": segment_iou(our_spans, target_spans),
        "edit_score": edit_score(_plain_steps(ours), _plain_steps(target)),
        "label_similarity": _mean(np.array(similarity)),
        "completed_accuracy": _mean(np.array(completed, np.float64)),
        "num_segments": float(len(ours)),
        "target_num_segments": float(len(target)),
    }


def _matched_steps(
    ours: tuple[Segment, ...], target: tuple[Segment, ...], vectors: Mapping[str, np.ndarray]
) -> tuple[list[float], list[bool]]:
    """For each step of the target, against the segment that overlaps it most: cosine of the names, 0 where that is no
    step or there is none; and whether both say the same of its completion."""
    best_segments = best_overlaps(spans(ours), spans(target))
    similarity, completed = [], []
    for wanted, (j, _) in zip(target, best_segments, strict=True):
        if wanted.kind != STEP:
            continue
        best = ours[j] if j >= 0 else None  # -1: nothing overlaps
        is_step = best is not None and best.kind == STEP
        similarity.append(max(0.0, float(vectors[wanted.name] @ vectors[best.name])) if best and is_step else 0.0)
        completed.append((best is not None and best.completed) == wanted.completed)
    return similarity, completed


def _plain_steps(segments: tuple[Segment, ...]) -> list[Span]:
    return [(plain_name(s.name), 0, 0) for s in segments if s.kind == STEP]


def published_counts(label: LabelledEpisode, truth: EpisodeTruth) -> tuple[int, int]:
    """Numerator and denominator of the published BF1@5, which sees no segments in which everything is done."""
    counts = np.zeros(2, int)
    for one_pass in truth.passes:
        counts += published_hits(_undone(label.segments), _undone(one_pass))
    return int(counts[0]), int(counts[1])


def _undone(segments: tuple[Segment, ...]) -> list[Span]:
    return spans(tuple(s for s in segments if s.kind != DONE))


# Many episodes


def measures(scores: Sequence[EpisodeScore]) -> dict[str, Measure]:
    """Each figure over episodes: the mean over those that have it; of BF1@5 the ratio of sums, as it is published."""
    columns = {f.name: np.array([getattr(s, f.name) for s in scores], np.float64) for f in fields(EpisodeScore)}
    of_bf1 = {
        f"bf1{suffix}": ratio_of(columns[f"bf1_hits{suffix}"], columns[f"bf1_total{suffix}"])
        for suffix in ("", "_uniform")
    }
    means = {name: mean_of(column) for name, column in columns.items() if not name.startswith("bf1")}
    return means | of_bf1
