"""What one episode's label scores against what is true of the episode, beside labels that look at nothing.

Those are uniform and random cuts, as many as the truth has boundaries, and the clock: progress as time goes by.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from core.domain.label import NO_PROGRESS, STEP, Episode, Label, Segment
from core.errors import UserError
from core.values import grouped
from eval.annotators.truth import NEAR_S, EpisodeTruth
from eval.metrics.segments import (
    Span,
    best_overlaps,
    boundary_f1,
    edit_score,
    matched_pairs,
    plain_name,
    segment_f1,
    segment_iou,
)
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of

FAR_S = 1.0  # s: how far off a boundary may be at most; NEAR_S is the narrower one
EVENTS = ("grasp", "release")
SLIVER_S = 0.3  # s: a step that is shorter is none
RANDOM_DRAWS = 100  # of random cuts per episode
CLOCK = "clock"
NAN = float("nan")


# Labels as the lake has them


def spans(
    segments: Sequence[Segment], name: Callable[[Segment], str] = lambda s: s.name
) -> list[Span]:
    return [(name(s), s.start_frame, s.end_frame) for s in segments]


def label_runs(lake: Lake) -> dict[str, dict[str, str]]:
    """Annotator of each label run by dataset and label run."""
    rows = lake.rows(
        "SELECT DISTINCT s.dataset, s.label_run, coalesce(r.annotator, 'unknown') FROM segments s "
        "LEFT JOIN label_runs r USING (label_run) ORDER BY ALL"
    )
    by_dataset = grouped((dataset, (run, annotator)) for dataset, run, annotator in rows)
    return {dataset: dict(runs) for dataset, runs in by_dataset.items()}


def find_run(runs: Mapping[str, Mapping[str, str]], text: str) -> str:
    """The one label run whose id begins so. Raises UserError."""
    ids = sorted(set(chain.from_iterable(runs.values())))
    matches = [text] if text in ids else [r for r in ids if r.startswith(text)]
    if len(matches) != 1:
        problem = "several label runs begin with" if matches else "no label run begins with"
        raise UserError(f"{problem} {text!r}; there are {', '.join(matches or ids) or 'none yet'}")
    return matches[0]


def active_runs(lake: Lake, dataset: str) -> set[str]:
    """The label runs that count for some episode."""
    sql = "SELECT DISTINCT label_run FROM active_runs WHERE dataset = ?"
    return set(lake.column(sql, [dataset]))


def stored_labels(
    lake: Lake, dataset: str, episodes: Mapping[int, Episode], run: str | None = None
) -> dict[int, Label]:
    """One run's labels of the episodes, or the active ones, but of those that have changed in length
    since; with progress where every frame has it."""
    labels = labels_of(lake.con, dataset, label_run=run, whole=True)
    labels_by_episode: dict[int, Label] = {}
    for e, label in labels.items():
        if e in episodes and label.num_frames == episodes[e].num_frames:
            is_whole = len(label.progress) == label.num_frames
            progress = label.progress.astype(np.float64) if is_whole else NO_PROGRESS
            labels_by_episode[e] = replace(label, progress=progress)
    return labels_by_episode


# Boundaries and events


def cuts_f1(cuts: Sequence[int], boundaries: Sequence[int], tolerance: float) -> float:
    """F1 of cuts matched one to one with boundaries at most `tolerance` frames away; 1 when there are none."""
    total = len(cuts) + len(boundaries)
    if total:
        return 2 * len(matched_pairs(cuts, boundaries, tolerance)) / total
    return 1.0


def even_cuts(count: int, num_frames: int) -> list[int]:
    return [round(num_frames * (k + 1) / (count + 1)) for k in range(count)]


def random_cuts(count: int, num_frames: int, seed: int) -> list[list[int]]:
    """RANDOM_DRAWS times `count` different inner frames in order."""
    rng = np.random.default_rng(seed)
    count = min(count, num_frames - 1)
    return [
        sorted((rng.choice(num_frames - 1, count, replace=False) + 1).tolist())
        for _ in range(RANDOM_DRAWS)
    ]


def score_cuts(cuts: Sequence[int], truth: EpisodeTruth) -> dict[str, float]:
    """F1 of boundaries; of grasps and releases the share with a cut within NEAR_S, and the seconds from each to the
    nearest cut, on average: the whole episode's where there is no cut."""
    frames = np.array(truth.frames_of(*EVENTS), np.float64)
    distances_s = np.abs(frames[:, None] - np.array(cuts, np.float64)) / truth.fps
    if cuts:
        off = distances_s.min(axis=1)
    else:
        off = np.full(len(frames), truth.num_frames / truth.fps)
    return {
        "boundary_f1@0.5s": cuts_f1(cuts, truth.boundaries, NEAR_S * truth.fps),
        "boundary_f1@1s": cuts_f1(cuts, truth.boundaries, FAR_S * truth.fps),
        "events@0.5s": _mean(off <= NEAR_S),
        "events_off_s": _mean(off),
    }


# One episode


def score_label(label: Label, truth: EpisodeTruth) -> dict[str, float]:
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
        "mae": _mean(np.abs(label.progress - truth.progress())) if label.has_progress else NAN,
        "unnamed": sum(not s.named for s in steps) / max(1, len(steps)),
        "slivers": sum(len(s) < SLIVER_S * truth.fps for s in steps) / max(1, len(steps)),
    }


def _score_random(truth: EpisodeTruth) -> dict[str, float]:
    cuts = random_cuts(len(truth.boundaries), truth.num_frames, truth.episode_index)
    return _mean_by_name([score_cuts(draw, truth) for draw in cuts])


def _score_passes(truth: EpisodeTruth) -> dict[str, float]:
    """One person's pass beside the other's."""
    curves = truth.pass_curves()
    return {"mae": _mean(np.abs(curves[0] - curves[-1])) if len(curves) > 1 else NAN}


# Labels that look at nothing; of the clock and of another pass there is only the error of progress
BASELINES: dict[str, Callable[[EpisodeTruth], dict[str, float]]] = {
    "uniform cuts": lambda t: score_cuts(even_cuts(len(t.boundaries), t.num_frames), t),
    "random cuts": _score_random,
    CLOCK: lambda t: {"mae": _mean(np.abs(np.linspace(0, 1, t.num_frames) - t.progress()))},
    "the other pass": _score_passes,
}


def _mean_by_name(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means: dict[str, float] = {}
    for name in scores[0]:
        means[name] = float(np.mean([score[name] for score in scores]))
    return means


def _mean(values: np.ndarray) -> float:
    if values.size:
        return float(values.mean())
    return NAN


# Steps: their overlap, names, and what was achieved


def score_steps(
    label: Label, truth: EpisodeTruth, vectors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Metrics of one episode's steps against each pass, the mean over passes; NaN where there is none.

    `vectors`: embeddings of all step names.
    """
    pass_scores = [_against_pass(label.segments, one_pass, vectors) for one_pass in truth.passes]
    values = _mean_by_name(pass_scores)
    is_finished = label.is_finished
    both_known = is_finished is not None and truth.success is not None
    values["finished_accuracy"] = float(is_finished == truth.success) if both_known else NAN
    return values


def _against_pass(
    ours: Sequence[Segment], target: Sequence[Segment], vectors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    similarity, completed = _matched_steps(ours, target, vectors)
    our_spans = spans(ours)
    target_spans = spans(target)
    our_stretches = spans(ours, lambda s: "")
    target_stretches = spans(target, lambda s: "")
    return {
        "boundary_f1@5%": boundary_f1(our_spans, target_spans),
        "segment_iou": segment_iou(our_spans, target_spans),
        "segment_f1@50": segment_f1(our_stretches, target_stretches, 0.5),
        "segment_f1@75": segment_f1(our_stretches, target_stretches, 0.75),
        "edit_score": edit_score(_plain_steps(ours), _plain_steps(target)),
        "label_similarity": _mean(np.array(similarity)),
        "completed_accuracy": _mean(np.array(completed, np.float64)),
        "num_segments": float(len(ours)),
        "target_num_segments": float(len(target)),
    }


def _matched_steps(
    ours: Sequence[Segment], target: Sequence[Segment], vectors: Mapping[str, np.ndarray]
) -> tuple[list[float], list[bool]]:
    """For each step of the target, against the segment that overlaps it most: cosine of the names, 0 where that is no
    step or there is none; and whether both say the same of its completion."""
    best_segments = best_overlaps(spans(ours), spans(target))
    similarity = []
    completed = []
    for target_step, (j, _) in zip(target, best_segments, strict=True):
        if target_step.kind != STEP:
            continue
        best = ours[j] if j >= 0 else None  # -1: nothing overlaps
        is_step = best is not None and best.kind == STEP
        similarity.append(
            max(0.0, float(vectors[target_step.name] @ vectors[best.name]))
            if best and is_step
            else 0.0
        )
        completed.append((best is not None and best.completed) == target_step.completed)
    return similarity, completed


def _plain_steps(segments: Sequence[Segment]) -> list[Span]:
    return [(plain_name(s.name), 0, 0) for s in segments if s.kind == STEP]


# Where label runs are farthest apart

MOST_DIFFERENT = 3  # episodes


@dataclass(frozen=True)
class ComparedWith:
    """What label runs of one dataset are compared with; `runs`: those whose own labels these are."""

    against: str
    truths: Mapping[int, EpisodeTruth]
    runs: frozenset[str] = frozenset()
    without: int = 0  # episodes of the truth that are not in the corpus, or not usable


@dataclass(frozen=True)
class Apart:
    """How far two label runs are apart in one episode, or a label run and its reference."""

    episode_index: int
    progress: float  # mean absolute difference, NaN where one has none
    boundary_f1: float  # of the one's boundaries within 0.5 s of the other's


@dataclass(frozen=True)
class RunsApart:
    """Two label runs of a dataset: where they are farthest apart, the farthest first."""

    dataset: str
    first: str
    second: str
    num_episodes: int  # that both have labelled
    episodes: tuple[Apart, ...]


def truth_by_label(episode: Episode, label: Label) -> EpisodeTruth:
    """Another label in the place of the truth."""
    return EpisodeTruth(
        dataset=episode.dataset,
        episode_index=episode.episode_index,
        num_frames=label.num_frames,
        fps=episode.fps,
        success=label.is_finished,
        boundaries=tuple(label.cuts),
        events=(),
        passes=(tuple(label.segments),),
        curve=label.progress if label.has_progress else None,
    )


def runs_apart(
    dataset: str,
    labels: Mapping[str, Mapping[int, Label]],
    active: set[str],
    reference: ComparedWith,
    episodes: Mapping[int, Episode],
) -> list[RunsApart]:
    """The run that counts beside each other one; a run that is alone beside the reference."""
    first, *other_runs = sorted(labels, key=lambda run: run not in active)
    references: dict[str, Mapping[int, EpisodeTruth]] = {}
    for run in other_runs:
        references[run] = {
            e: truth_by_label(episodes[e], label) for e, label in labels[run].items()
        }
    comparisons = []
    for second, truths in (references or {reference.against: reference.truths}).items():
        common = truths.keys() & labels[first].keys()
        measured = {e: score_label(labels[first][e], truths[e]) for e in common}
        differences = [Apart(e, m["mae"], m["boundary_f1@0.5s"]) for e, m in measured.items()]
        # Labels without progress are told apart by their boundaries alone
        differences.sort(
            key=lambda a: (
                0.0 if math.isnan(a.progress) else -a.progress,
                a.boundary_f1,
                a.episode_index,
            )
        )
        comparisons.append(
            RunsApart(dataset, first, second, len(differences), tuple(differences[:MOST_DIFFERENT]))
        )
    return comparisons
