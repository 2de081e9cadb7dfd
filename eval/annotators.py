"""Annotators compared: the segments of any label run against ground truth, the active label or another run."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
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
class AnnotatorLabel:
    """The segments of one episode in order of time; they tile it. Lists are parallel."""

    spans: tuple[Span, ...]
    kinds: tuple[str, ...]  # step, idle or done
    completed: tuple[bool, ...]
    finished: bool | None  # was the whole task done at the end; None: not known

    def step_names(self) -> list[str]:
        return [s[0] for s, kind in zip(self.spans, self.kinds, strict=True) if kind == "step"]


@dataclass(frozen=True)
class EpisodeFacts:
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
class AnnotatorComparison:
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
    annotators: dict[str, dict[str, str]] = {}
    for dataset, run, annotator in rows:
        annotators.setdefault(dataset, {})[run] = annotator
    return annotators


def usable_episodes(lake: Lake, dataset: str) -> dict[int, EpisodeFacts]:
    rows = lake.rows(
        "SELECT episode_index, num_frames, fps, success FROM episodes WHERE dataset = ? AND status = 'ok' "
        "AND num_frames IS NOT NULL ORDER BY 1",
        [dataset],
    )
    return {e: EpisodeFacts(n, fps, success) for e, n, fps, success in rows}


def stored_labels(
    lake: Lake, dataset: str, run: str | None, episodes: Mapping[int, EpisodeFacts]
) -> dict[int, AnnotatorLabel]:
    """One run's labels of a dataset, or the active ones; episodes that have changed in length since are left out."""
    if run is None:
        prefix, where, values = "active_", "dataset = ?", [dataset]
    else:
        prefix, where, values = "", "dataset = ? AND label_run = ?", [dataset, run]
    # Progress at an episode's last labelled frame says whether the run was finished.
    finished = dict(
        lake.rows(
            f"SELECT episode_index, arg_max(progress, frame_index) = 1 FROM {prefix}progress WHERE {where} GROUP BY 1",
            values,
        )
    )
    rows = lake.rows(
        f"SELECT episode_index, name, start_frame, end_frame, kind, completed FROM {prefix}segments "
        f"WHERE {where} ORDER BY episode_index, segment_index",
        values,
    )
    labels = _labels_of_rows(rows, finished)
    return {e: x for e, x in labels.items() if e in episodes and x.spans[-1][2] == episodes[e].num_frames}


def truth_labels(folder: Path, dataset: str, episodes: Mapping[int, EpisodeFacts]) -> dict[int, AnnotatorLabel] | None:
    """Ground truth as samples/truth/<dataset> holds it; None where there is none. Raises TruthError."""
    if not (folder / dataset / "segments.parquet").exists():
        return None
    order = [("episode_index", "ascending"), ("segment_index", "ascending")]
    table = pq.read_table(folder / dataset / "segments.parquet").sort_by(order)
    columns = ("episode_index", "text", "start_frame", "end_frame", "kind", "completed")
    rows = list(zip(*(table[c].to_pylist() for c in columns), strict=True))
    outcome = pq.read_table(folder / dataset / "episodes.parquet", columns=["episode_index", "success"]).to_pydict()
    finished = dict(zip(outcome["episode_index"], outcome["success"], strict=True))

    # Ground truth of another length is of another run
    all_labels = _labels_of_rows(rows, finished)
    labels = {e: label for e, label in all_labels.items() if e in episodes}
    for e, label in labels.items():
        true, ours = label.spans[-1][2], episodes[e].num_frames
        if true != ours:
            raise TruthError(f"{dataset} episode {e}: ground truth has {true} frames, not {ours}")
    return labels


def _labels_of_rows(rows: Sequence[tuple], finished: Mapping[int, bool]) -> dict[int, AnnotatorLabel]:
    """Labels of rows (episode, name, start, end, kind, completed) in order."""
    labels = {}
    for episode, group in groupby(rows, key=lambda r: r[0]):
        _, names, starts, ends, kinds, completed = zip(*group, strict=True)
        spans = tuple(zip(names, starts, ends, strict=True))
        labels[episode] = AnnotatorLabel(spans, kinds, completed, finished.get(episode))
    return labels


# Scores


def score_episode(
    label: AnnotatorLabel, target: AnnotatorLabel, facts: EpisodeFacts, vectors: Mapping[str, np.ndarray]
) -> EpisodeResult:
    """Every metric of one episode; `vectors` are the embeddings of all step names."""
    similarity, completed = _matched_steps(label, target, vectors)
    finished_known = label.finished is not None and target.finished is not None
    values = {
        # Where segments begin and end
        "boundary_f1@5%": boundary_f1(label.spans, target.spans),
        "boundary_f1@0.5s": boundary_f1(label.spans, target.spans, frames=0.5 * facts.fps),
        "segment_iou": segment_iou(label.spans, target.spans),
        # What they are called, and what was achieved
        "edit_score": edit_score(_steps(label), _steps(target)),
        "label_similarity": _mean_or_nan(similarity),
        "completed_accuracy": _mean_or_nan(completed),
        "finished_accuracy": float(label.finished == target.finished) if finished_known else float("nan"),
        "num_segments": float(len(label.spans)),
        "target_num_segments": float(len(target.spans)),
    }
    hits, total, _ = boundary_hits(*(first_and_last(_undone(side)) for side in (label, target)))
    return EpisodeResult(facts.success, values, (hits, total))


def _mean_or_nan(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _matched_steps(
    label: AnnotatorLabel, target: AnnotatorLabel, vectors: Mapping[str, np.ndarray]
) -> tuple[list[float], list[bool]]:
    """For each step of the target, against the segment that overlaps it most: cosine of the names, 0 where that is no
    step or there is none; and whether both say the same of its completion."""
    best_segments = best_overlaps(label.spans, target.spans)
    similarity, completed = [], []
    for i, kind in enumerate(target.kinds):
        if kind != "step":
            continue
        j = best_segments[i][0]  # -1: nothing overlaps
        cosine = 0.0
        if j >= 0 and label.kinds[j] == "step":
            cosine = float(vectors[target.spans[i][0]] @ vectors[label.spans[j][0]])
        similarity.append(max(0.0, cosine))
        completed.append((j >= 0 and label.completed[j]) == target.completed[i])
    return similarity, completed


def _undone(label: AnnotatorLabel) -> list[Span]:
    """What the published metric sees: no segments in which everything is done."""
    return [s for s, kind in zip(label.spans, label.kinds, strict=True) if kind != "done"]


def _steps(label: AnnotatorLabel) -> list[Span]:
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
        num_targets = sum(part in _slices(success) for success in targets)
        if not num_targets:
            continue
        labelled = [r for r in results if part in _slices(r.success)]
        coverage[part] = len(labelled) / num_targets
        for metric, its_score in _scores_of(labelled).items():
            scores[part, metric] = its_score
    return scores, coverage


def _scores_of(results: Sequence[EpisodeResult]) -> dict[str, Score]:
    """Every metric's score over some episodes."""
    hits, total = np.array([r.published for r in results]).reshape(-1, 2).T
    scores = {PUBLISHED: score(ratio_of(hits, total))}
    for metric in results[0].values if results else ():
        scores[metric] = score(mean_of([r.values[metric] for r in results]))
    return scores


# Comparing


@dataclass(frozen=True)
class _Pair:
    """A label run beside its reference on one dataset, before scores are summed up."""

    dataset: str
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
) -> list[AnnotatorComparison]:
    """Score label runs (all, or one) dataset by dataset, then over all datasets with the same kind of target.

    `against` is TRUTH or a label run; None: ground truth where there is any, else the active label. A run is known by
    its id or the beginning of it. Raises ComparisonError, TruthError.
    """
    runs = label_runs(lake)
    unlabelled = [dataset for dataset in datasets if dataset not in runs]
    if unlabelled:
        raise ComparisonError(f"no labels of a dataset {unlabelled[0]!r}; labelled: {', '.join(runs) or 'none yet'}")
    compared = runs if run is None else _only(runs, find_run(runs, run))
    other = against if against in (None, TRUTH) else find_run(runs, against)

    # Each run beside its reference, dataset by dataset
    pairs: list[_Pair] = []
    for dataset in datasets or runs:
        pairs += _pairs(lake, dataset, compared[dataset], other, truth, embedded)
    # A dataset without ground truth gives no pair; that is an error only where truth was asked for.
    if against == TRUTH and not pairs:
        raise ComparisonError(f"no ground truth of {', '.join(datasets or runs) or 'any dataset'}")
    comparisons = [_comparison(pair.dataset, [pair]) for pair in pairs]
    return comparisons + _over_all_datasets(pairs)


def _only(runs: Mapping[str, Mapping[str, str]], run: str) -> dict[str, dict[str, str]]:
    """Of every dataset one label run alone, and none where the dataset lacks it."""
    return {dataset: {r: a for r, a in annotators.items() if r == run} for dataset, annotators in runs.items()}


def _over_all_datasets(pairs: Sequence[_Pair]) -> list[AnnotatorComparison]:
    """A comparison over all datasets for each run that has several against the same kind of label."""
    groups: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.run, pair.against), []).append(pair)
    return [_comparison(EVERY_DATASET, group) for group in groups.values() if len(group) > 1]


def find_run(runs: Mapping[str, Mapping[str, str]], text: str) -> str:
    """The one label run whose id begins so. Raises ComparisonError."""
    ids = sorted(set(chain.from_iterable(runs.values())))
    matches = [text] if text in ids else [r for r in ids if r.startswith(text)]
    if len(matches) != 1:
        problem = "several label runs begin with" if matches else "no label run begins with"
        raise ComparisonError(f"{problem} {text!r}; there are {', '.join(matches or ids) or 'none yet'}")
    return matches[0]


@dataclass(frozen=True)
class _Reference:
    """The labels of one dataset that label runs are compared with; `runs`: those that they are of."""

    against: str
    labels: Mapping[int, AnnotatorLabel]
    runs: frozenset[str] = frozenset()


def _reference(
    lake: Lake, dataset: str, episodes: Mapping[int, EpisodeFacts], against: str | None, truth: Path | None
) -> _Reference | None:
    """As `compare` says of `against`; None where no ground truth is there and nothing else is allowed."""
    if truth and against in (None, TRUTH):
        true_labels = truth_labels(truth, dataset, episodes)
        if true_labels is not None:
            return _Reference(TRUTH, true_labels)
    # Where truth alone was asked for, no other label may stand for it.
    if against == TRUTH:
        return None
    labels = stored_labels(lake, dataset, against, episodes)
    if against is not None:
        return _Reference(against, labels, frozenset({against}))
    active = lake.rows("SELECT DISTINCT label_run FROM active_runs WHERE dataset = ?", [dataset])
    # Where the active labels are of several runs, each run is compared with the mixture
    own = frozenset(run for (run,) in active) if len(active) == 1 else frozenset()
    return _Reference(ACTIVE, labels, own)


def _pairs(
    lake: Lake, dataset: str, annotators: Mapping[str, str], against: str | None, truth: Path | None, embedded: Embed
) -> list[_Pair]:
    """Label runs of a dataset (`annotators`: by label run) beside their reference, all but the reference itself."""
    episodes = usable_episodes(lake, dataset)
    reference = _reference(lake, dataset, episodes, against, truth)
    if reference is None or not reference.labels:
        return []
    target = reference.labels
    runs = [run for run in annotators if run not in reference.runs]
    labels = {run: stored_labels(lake, dataset, run, episodes) for run in runs}
    if not labels:
        return []

    # Names are embedded once for all runs: the model that does so is slow
    vectors = _name_vectors([target, *labels.values()], embedded)
    targets = [episodes[e].success for e in target]
    pairs = []
    for run, side in labels.items():
        in_both = [e for e in target if e in side]
        results = [score_episode(side[e], target[e], episodes[e], vectors) for e in in_both]
        # Of all the target's episodes: one that the run labels later changes the coverage.
        content = content_key(*(_compared_text(e, target[e], side.get(e), episodes[e]) for e in target))
        pairs.append(_Pair(dataset, run, annotators[run], reference.against, results, targets, content))
    return pairs


def _name_vectors(sides: Sequence[Mapping[int, AnnotatorLabel]], embedded: Embed) -> dict[str, np.ndarray]:
    """The embedding of every step name."""
    labels = chain.from_iterable(side.values() for side in sides)
    names = sorted(set(chain.from_iterable(label.step_names() for label in labels)))
    if not names:
        return {}
    return dict(zip(names, embedded(names), strict=True))


def _compared_text(episode: int, target: AnnotatorLabel, label: AnnotatorLabel | None, facts: EpisodeFacts) -> str:
    """All that a comparison of one episode depends on. It is hashed into eval_runs: another text stores all anew."""
    sides = f"{_label_text(target)}, {_label_text(label)}"
    return f"({episode}, {sides}, Facts(num_frames={facts.num_frames}, fps={facts.fps}, success={facts.success}))"


def _label_text(label: AnnotatorLabel | None) -> str:
    if label is None:
        return "None"
    flags = f"kinds={label.kinds}, completed={label.completed}, finished={label.finished}"
    return f"Label(spans={label.spans}, {flags})"


def _comparison(dataset: str, pairs: Sequence[_Pair]) -> AnnotatorComparison:
    results = [result for pair in pairs for result in pair.results]
    targets = [success for pair in pairs for success in pair.targets]
    scores, coverage = _summary(results, targets)
    content = content_key(*(pair.content for pair in pairs))
    first = pairs[0]
    return AnnotatorComparison(dataset, first.run, first.annotator, first.against, scores, coverage, content)


# Storing


def store(lake: Lake, comparisons: Sequence[AnnotatorComparison]) -> int:
    """Store comparisons in one transaction; returns how many were new or had changed.

    A run on a dataset against one kind of label is one eval_run: newer labels take the place of older ones.
    """
    stored_config = dict(lake.rows("SELECT eval_run, config FROM eval_runs WHERE code_version = ?", [CODE_VERSION]))
    evaluations = []
    for c in comparisons:
        content = {"label_run": c.label_run, "against": c.against, "content": c.content, "resamples": RESAMPLES}
        # The id says what is compared; whether it has to be stored anew is for the config, with the labels' hash in it.
        eval_run = content_key(c.model, c.benchmark)[:16]
        config = json.dumps(content, sort_keys=True)
        if stored_config.get(eval_run) == config:
            continue
        scores = {(part, metric): replace(s, coverage=c.coverage[part]) for (part, metric), s in c.scores.items()}
        stored = EvalRun(eval_run, c.model, c.benchmark, config, CODE_VERSION)
        evaluations.append(StoredEvaluation(stored, scores))
    if evaluations:
        store_evaluations(lake, "annotators compared", evaluations)
    return len(evaluations)
