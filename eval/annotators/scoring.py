"""What one episode's label scores against what is true of the episode, beside labels that look at nothing.

Those are uniform and random cuts, as many as the truth has boundaries, and the clock: progress as time goes by.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from annotate.segments import DONE, STEP, Segment
from eval.annotators.labels import ComparedLabel, spans
from eval.annotators.truth import NEAR_S, EpisodeTruth, hand_progress
from eval.metrics.published import boundary_hits, first_and_last
from eval.metrics.segments import Span, best_overlaps, boundary_f1, edit_score, matched, plain_name, segment_iou

FAR_S = 1.0  # s: how far off a boundary may be at most; NEAR_S is the narrower one
EVENTS = ("grasp", "release")
SLIVER_S = 0.3  # s: a step that is shorter is none
RANDOM_DRAWS = 100  # of random cuts per episode
UNIFORM, RANDOM, CLOCK, PASSES = "uniform cuts", "random cuts", "clock", "the other pass"
NAN = float("nan")


# Boundaries and events


def cuts_f1(cuts: Sequence[int], boundaries: Sequence[int], within: float) -> float:
    """F1 of cuts matched one to one with boundaries at most `within` frames away; 1 when there are none."""
    total = len(cuts) + len(boundaries)
    return 2 * len(matched(cuts, boundaries, within)) / total if total else 1.0


def even_cuts(count: int, num_frames: int) -> list[int]:
    return [round(num_frames * (k + 1) / (count + 1)) for k in range(count)]


def random_cuts(count: int, num_frames: int, seed: int) -> list[list[int]]:
    """RANDOM_DRAWS times `count` different inner frames in order."""
    rng = np.random.default_rng(seed)
    count = min(count, num_frames - 1)
    return [sorted((rng.choice(num_frames - 1, count, replace=False) + 1).tolist()) for _ in range(RANDOM_DRAWS)]


def score_cuts(cuts: Sequence[int], truth: EpisodeTruth) -> dict[str, float]:
    """F1 of boundaries; of grasps and releases the share with a cut within NEAR_S, and the seconds from each to the
    nearest cut, on average: the whole episode's where there is no cut."""
    frames = np.array(truth.frames_of(*EVENTS), np.float64)
    apart = np.abs(frames[:, None] - np.array(cuts, np.float64)) / truth.fps
    off = apart.min(axis=1) if cuts else np.full(len(frames), truth.num_frames / truth.fps)
    return {
        "boundary_f1@0.5s": cuts_f1(cuts, truth.boundaries, NEAR_S * truth.fps),
        "boundary_f1@1s": cuts_f1(cuts, truth.boundaries, FAR_S * truth.fps),
        "events@0.5s": _mean(off <= NEAR_S),
        "events_off_s": _mean(off),
    }


# One episode


def score_label(label: ComparedLabel, truth: EpisodeTruth) -> dict[str, float]:
    """The metrics of one label, NaN where it has none. Raises ValueError where it is of a recording of another
    length."""
    if label.num_frames != truth.num_frames:
        raise ValueError(
            f"{truth.dataset} episode {truth.episode_index}: {label.num_frames} frames are labelled, the truth has "
            f"{truth.num_frames}: it is of another recording"
        )
    steps = [s for s in label.segments if s.kind == STEP]
    return {
        **score_cuts(label.cuts, truth),
        "mae": NAN if label.progress is None else _mean(np.abs(label.progress - truth.progress())),
        "unnamed": sum(not s.named for s in steps) / max(1, len(steps)),
        "slivers": sum(len(s) < SLIVER_S * truth.fps for s in steps) / max(1, len(steps)),
    }


def score_baselines(truth: EpisodeTruth) -> dict[str, dict[str, float]]:
    """The metrics of each label that looks at nothing; of the clock and of one person's pass beside the other's only
    the error of progress."""
    count, length = len(truth.boundaries), truth.num_frames
    draws = [score_cuts(cuts, truth) for cuts in random_cuts(count, length, truth.episode_index)]
    curves = [hand_progress(one_pass, length) for one_pass in truth.passes]
    return {
        UNIFORM: score_cuts(even_cuts(count, length), truth),
        RANDOM: {metric: float(np.mean([draw[metric] for draw in draws])) for metric in draws[0]},
        CLOCK: {"mae": _mean(np.abs(np.linspace(0, 1, length) - truth.progress()))},
        PASSES: {"mae": _mean(np.abs(curves[0] - curves[-1])) if len(curves) > 1 else NAN},
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else NAN


# Steps: their overlap, names, and what was achieved


def score_steps(label: ComparedLabel, truth: EpisodeTruth, vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
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


def published_counts(label: ComparedLabel, truth: EpisodeTruth) -> tuple[int, int]:
    """Numerator and denominator of the published BF1@5, which sees no segments in which everything is done."""
    counts = np.zeros(2, int)
    for one_pass in truth.passes:
        undone = (tuple(s for s in segments if s.kind != DONE) for segments in (label.segments, one_pass))
        ours, wanted = (first_and_last(spans(segments)) for segments in undone)
        counts += boundary_hits(ours, wanted)[:2]
    return int(counts[0]), int(counts[1])
