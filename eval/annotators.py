"""Annotators compared: the segments of any label run against ground truth, the active label or another run."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from eval.held_out.truth import TruthError
from eval.metrics.published import boundary_hits, first_and_last
from eval.metrics.score import RESAMPLES, Score, mean_of, ratio_of, score
from eval.metrics.segments import Span, best_overlaps, boundary_f1, edit_score, plain_name, segment_iou
from eval.similarity import embed
from eval.store import EvalRun, StoredEvaluation, store_evaluations
from warehouse.lake import Lake, content_key

CODE_VERSION = "annotators-1"
TRUTH, ACTIVE = "truth", "active label"
EVERY_DATASET = "all"
PUBLISHED = "published_bf1@5"
Embed = Callable[[Sequence[str]], np.ndarray]


class ComparisonError(Exception):
    """A comparison that was asked for and cannot be made: what there is instead."""


@dataclass(frozen=True)
class Label:
    """The segments of one episode in order of time; they tile it. Lists are parallel."""

    spans: tuple[Span, ...]
    kinds: tuple[str, ...]  # step, idle or done
    completed: tuple[bool, ...]
    finished: bool | None  # was the whole task done at the end; None: not known

    def step_names(self) -> list[str]:
        return [s[0] for s, kind in zip(self.spans, self.kinds, strict=True) if kind == "step"]


@dataclass(frozen=True)
class Facts:
    """What the lake knows of an episode whoever labels it."""

    num_frames: int
    fps: float
    success: bool | None


@dataclass(frozen=True)
class EpisodeResult:
    """One episode that both sides have labelled; `published` is numerator and denominator of the published BF1@5."""

    success: bool | None
    values: Mapping[str, float]
    published: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """One label run on one dataset (or on all of them) against one kind of label; scores by (slice, metric)."""

    dataset: str
    label_run: str
    annotator: str
    against: str
    scores: Mapping[tuple[str, str], Score]
    coverage: Mapping[str, float]  # by slice: share of the other side's episodes that the run has, too
    content: str  # hash of all that was compared

    @property
    def model(self) -> str:
        return f"{self.annotator} {self.label_run}"

    @property
    def benchmark(self) -> str:
        return f"annotators/{self.dataset}" + ("" if self.against == TRUTH else f" ({self.against})")

    def facts(self) -> dict[str, str]:
        """What is compared with what."""
        return {
            "dataset": self.dataset,
            "label_run": self.label_run,
            "annotator": self.annotator,
            "against": self.against,
            "benchmark": self.benchmark,
        }

    def rows(self) -> Iterator[dict]:
        """One row per slice and metric."""
        for (part, metric), s in self.scores.items():
            yield {"slice": part, "metric": metric} | s.__dict__ | {"coverage": self.coverage[part]}


# Labels


def label_runs(lake: Lake) -> dict[str, dict[str, str]]:
    """Annotator of each label run by dataset and label run."""
    rows = lake.rows(
        "SELECT DISTINCT s.dataset, s.label_run, coalesce(r.annotator, 'unknown') FROM segments s "
        "LEFT JOIN label_runs r USING (label_run) ORDER BY ALL"
    )
    found: dict[str, dict[str, str]] = {}
    for dataset, run, annotator in rows:
        found.setdefault(dataset, {})[run] = annotator
    return found


def usable_episodes(lake: Lake, dataset: str) -> dict[int, Facts]:
    rows = lake.rows(
        "SELECT episode_index, num_frames, fps, success FROM episodes WHERE dataset = ? AND status = 'ok' "
        "AND num_frames IS NOT NULL ORDER BY 1",
        [dataset],
    )
    return {e: Facts(n, fps, success) for e, n, fps, success in rows}


def stored_labels(lake: Lake, dataset: str, run: str | None, episodes: Mapping[int, Facts]) -> dict[int, Label]:
    """One run's labels of a dataset, or the active ones; episodes that have changed in length since are left out."""
    view, only = ("active_", "") if run is None else ("", "AND label_run = ?")
    here = [dataset] if run is None else [dataset, run]
    finished = dict(
        lake.rows(
            f"SELECT episode_index, arg_max(progress, frame_index) = 1 FROM {view}progress "
            f"WHERE dataset = ? {only} GROUP BY 1",
            here,
        )
    )
    rows = lake.rows(
        f"SELECT episode_index, name, start_frame, end_frame, kind, completed FROM {view}segments "
        f"WHERE dataset = ? {only} ORDER BY episode_index, segment_index",
        here,
    )
    labels = _grouped(rows, finished)
    return {e: x for e, x in labels.items() if e in episodes and x.spans[-1][2] == episodes[e].num_frames}


def truth_labels(folder: Path, dataset: str, episodes: Mapping[int, Facts]) -> dict[int, Label] | None:
    """Ground truth as samples/truth/<dataset> holds it; None where there is none. Raises TruthError."""
    if not (folder / dataset / "segments.parquet").exists():
        return None
    order = [("episode_index", "ascending"), ("segment_index", "ascending")]
    table = pq.read_table(folder / dataset / "segments.parquet").sort_by(order)
    columns = ("episode_index", "text", "start_frame", "end_frame", "kind", "completed")
    outcome = pq.read_table(folder / dataset / "episodes.parquet", columns=["episode_index", "success"]).to_pydict()
    finished = dict(zip(outcome["episode_index"], outcome["success"], strict=True))
    rows = zip(*(table[c].to_pylist() for c in columns), strict=True)
    labels = {e: x for e, x in _grouped(list(rows), finished).items() if e in episodes}
    for e, label in labels.items():
        if label.spans[-1][2] != episodes[e].num_frames:
            true, ours = label.spans[-1][2], episodes[e].num_frames
            raise TruthError(f"{dataset} episode {e}: ground truth has {true} frames, not {ours}")
    return labels


def _grouped(rows: Sequence[tuple], finished: Mapping[int, bool]) -> dict[int, Label]:
    """Labels of rows (episode, name, start, end, kind, completed) in order."""
    found = {}
    for episode, group in groupby(rows, key=lambda r: r[0]):
        _, names, starts, ends, kinds, completed = zip(*group, strict=True)
        found[episode] = Label(tuple(zip(names, starts, ends, strict=True)), kinds, completed, finished.get(episode))
    return found


# Scores


def score_episode(label: Label, target: Label, facts: Facts, vectors: Mapping[str, np.ndarray]) -> EpisodeResult:
    """Every metric of one episode; `vectors` are the embeddings of all step names."""
    steps = [i for i, kind in enumerate(target.kinds) if kind == "step"]
    matched = best_overlaps(label.spans, target.spans)
    alike, completed = [], []
    for i in steps:
        j = matched[i][0]
        is_step = j >= 0 and label.kinds[j] == "step"
        cosine = float(vectors[target.spans[i][0]] @ vectors[label.spans[j][0]]) if is_step else 0.0
        alike.append(max(0.0, cosine))
        completed.append((j >= 0 and label.completed[j]) == target.completed[i])
    known = label.finished is not None and target.finished is not None
    values = {
        "boundary_f1@5%": boundary_f1(label.spans, target.spans),
        "boundary_f1@0.5s": boundary_f1(label.spans, target.spans, frames=0.5 * facts.fps),
        "segment_iou": segment_iou(label.spans, target.spans),
        "edit_score": edit_score(_steps(label), _steps(target)),
        "label_similarity": float(np.mean(alike)) if steps else float("nan"),
        "completed_accuracy": float(np.mean(completed)) if steps else float("nan"),
        "finished_accuracy": float(label.finished == target.finished) if known else float("nan"),
        "num_segments": float(len(label.spans)),
        "target_num_segments": float(len(target.spans)),
    }
    hits, total, _ = boundary_hits(*(first_and_last(_undone(side)) for side in (label, target)))
    return EpisodeResult(facts.success, values, (hits, total))


def _undone(label: Label) -> list[Span]:
    """What the published metric sees: no segments in which everything is done."""
    return [s for s, kind in zip(label.spans, label.kinds, strict=True) if kind != "done"]


def _steps(label: Label) -> list[Span]:
    return [(plain_name(name), 0, 0) for name in label.step_names()]


def _slices(success: bool | None) -> tuple[str, ...]:
    return ("all",) if success is None else ("all", "successes" if success else "failures")


def _summary(
    results: Sequence[EpisodeResult], targets: Sequence[bool | None]
) -> tuple[dict[tuple[str, str], Score], dict[str, float]]:
    """Scores by (slice, metric) and coverage by slice; `targets` has the success of each episode to be labelled."""
    scores: dict[tuple[str, str], Score] = {}
    coverage = {}
    for part in ("all", "successes", "failures"):
        chosen = [r for r in results if part in _slices(r.success)]
        wanted = sum(part in _slices(success) for success in targets)
        if not wanted:
            continue
        coverage[part] = len(chosen) / wanted
        scores[part, PUBLISHED] = score(ratio_of(*np.array([r.published for r in chosen]).reshape(-1, 2).T))
        for metric in chosen[0].values if chosen else ():
            scores[part, metric] = score(mean_of([r.values[metric] for r in chosen]))
    return scores, coverage


# Comparing


@dataclass(frozen=True)
class _Pair:
    """A label run beside what it is compared with, on one dataset, before scores are summed up."""

    run: str
    annotator: str
    against: str
    results: list[EpisodeResult]
    targets: list[bool | None]
    content: str


def compare(
    lake: Lake,
    truth: Path | None,
    *,
    run: str | None = None,
    against: str | None = None,
    datasets: Sequence[str] = (),
    embedded: Embed = embed,
) -> list[Comparison]:
    """Score label runs (all, or one) dataset by dataset, then over all datasets with the same kind of target.

    `against` is TRUTH or a label run; None: ground truth where there is any, else the active label. A run is known by
    its id or the beginning of it. Raises ComparisonError, TruthError.
    """
    runs = label_runs(lake)
    unknown = [d for d in datasets if d not in runs]
    if unknown:
        raise ComparisonError(f"no labels of a dataset {unknown[0]!r}; labelled: {', '.join(runs) or 'none yet'}")
    one = None if run is None else find_run(runs, run)
    other = against if against in (None, TRUTH) else find_run(runs, against)
    by_dataset: dict[str, list[_Pair]] = {}
    for dataset in datasets or runs:
        chosen = {r: by for r, by in runs[dataset].items() if one in (None, r)}
        by_dataset[dataset] = _pairs(lake, dataset, chosen, other, truth, embedded)
    found = [_comparison(d, [p]) for d, pairs in by_dataset.items() for p in pairs]
    if against == TRUTH and not found:
        raise ComparisonError(f"no ground truth of {', '.join(datasets or runs) or 'any dataset'}")
    together: dict[tuple[str, str], list[_Pair]] = {}
    for pair in (p for pairs in by_dataset.values() for p in pairs):
        together.setdefault((pair.run, pair.against), []).append(pair)
    return found + [_comparison(EVERY_DATASET, pairs) for pairs in together.values() if len(pairs) > 1]


def find_run(runs: Mapping[str, Mapping[str, str]], text: str) -> str:
    """The one label run whose id begins so. Raises ComparisonError."""
    ids = sorted({r for of_dataset in runs.values() for r in of_dataset})
    found = [text] if text in ids else [r for r in ids if r.startswith(text)]
    if len(found) != 1:
        what = "several label runs begin with" if found else "no label run begins with"
        raise ComparisonError(f"{what} {text!r}; there are {', '.join(found or ids) or 'none yet'}")
    return found[0]


def _pairs(
    lake: Lake, dataset: str, runs: Mapping[str, str], other: str | None, truth: Path | None, embedded: Embed
) -> list[_Pair]:
    episodes = usable_episodes(lake, dataset)
    target = truth_labels(truth, dataset, episodes) if truth and other in (None, TRUTH) else None
    against = TRUTH if target is not None else other or ACTIVE
    if against == TRUTH and target is None:
        return []
    itself = {against}
    if target is None:
        target = stored_labels(lake, dataset, other, episodes)
        active = {r[0] for r in lake.rows("SELECT DISTINCT label_run FROM active_runs WHERE dataset = ?", [dataset])}
        if against == ACTIVE and len(active) == 1:
            itself = active  # a run against itself says nothing
    if not target:
        return []
    labels = {r: stored_labels(lake, dataset, r, episodes) for r in runs if r not in itself}
    names = sorted({n for side in (target, *labels.values()) for label in side.values() for n in label.step_names()})
    vectors = dict(zip(names, embedded(names), strict=True)) if names and labels else {}
    targets = [episodes[e].success for e in target]
    pairs = []
    for r, side in labels.items():
        common = [e for e in target if e in side]
        results = [score_episode(side[e], target[e], episodes[e], vectors) for e in common]
        facts = [repr((e, target[e], side.get(e), episodes[e])) for e in target]
        pairs.append(_Pair(r, runs[r], against, results, targets, content_key(*facts)))
    return pairs


def _comparison(dataset: str, pairs: Sequence[_Pair]) -> Comparison:
    p = pairs[0]
    scores, coverage = _summary([r for x in pairs for r in x.results], [t for x in pairs for t in x.targets])
    content = content_key(*(x.content for x in pairs))
    return Comparison(dataset, p.run, p.annotator, p.against, scores, coverage, content)


# Storing


def store(lake: Lake, comparisons: Sequence[Comparison]) -> int:
    """Store comparisons in one transaction; returns how many were new or had changed.

    A run on a dataset against one kind of label is one eval_run: newer labels take the place of older ones.
    """
    stored_config = dict(lake.rows("SELECT eval_run, config FROM eval_runs WHERE code_version = ?", [CODE_VERSION]))
    evaluations = []
    for c in comparisons:
        content = {"label_run": c.label_run, "against": c.against, "content": c.content, "resamples": RESAMPLES}
        eval_run = content_key(c.model, c.benchmark)[:16]
        config = json.dumps(content, sort_keys=True)
        if stored_config.get(eval_run) == config:
            continue
        scores = {(part, metric): replace(s, coverage=c.coverage[part]) for (part, metric), s in c.scores.items()}
        evaluations.append(StoredEvaluation(EvalRun(eval_run, c.model, c.benchmark, config, CODE_VERSION), scores))
    if evaluations:
        store_evaluations(lake, "annotators compared", evaluations)
    return len(evaluations)
