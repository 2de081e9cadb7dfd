"""Label runs of a corpus beside ground truth, the label that counts, or one another."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from annotate.similarity import embed
from core.domain.label import STEP, Episode, Label
from core.errors import UserError
from core.metrics import is_lower_better
from core.values import grouped
from eval.annotators.scoring import (
    BASELINES,
    ComparedWith,
    RunsApart,
    active_runs,
    find_run,
    label_runs,
    runs_apart,
    score_label,
    score_steps,
    stored_labels,
    truth_by_label,
)
from eval.annotators.truth import EpisodeTruth, corpus_truth
from eval.benchmarks.question import PredictionLine, Question
from eval.metrics.score import (
    NO_SCORE,
    RESAMPLES,
    Difference,
    Score,
    paired,
)
from eval.scored import (
    BenchmarkAnswers,
    EvalRun,
    Predictor,
    ScoredBenchmark,
    ScoredView,
    model_comparison,
    store_evaluations,
)
from warehouse.lake import Lake, content_key
from warehouse.lake.stored import usable_episodes

CODE_VERSION = "annotators-2"
TRUTH = "truth"
ACTIVE = "active label"
EVERY_DATASET = "all"
OUTCOME_SLICES: dict[bool | None, tuple[str, ...]] = {True: ("successes",), False: ("failures",)}
Embed = Callable[[Sequence[str]], np.ndarray]


Metrics = Mapping[str, float]  # of one episode


@dataclass(frozen=True)
class AnnotatorComparison:
    """One labeller on one dataset (or on all of them) against one kind of label.

    A labeller is a label run or, with an empty `label_run`, a baseline. `questions`: the
    reference's episodes, in the same order for all labellers of a dataset; `lines`: of those that
    are labelled, by the questions' keys.
    """

    dataset: str
    label_run: str
    annotator: str
    against: str
    counts: bool  # is it the label run that counts, in all episodes that have a label
    questions: Sequence[Question]
    lines: Mapping[str, PredictionLine]
    contents: tuple[str, ...]  # hashes of all that was compared, by dataset

    @property
    def content(self) -> str:
        return content_key(*self.contents)

    @property
    def model(self) -> str:
        return f"{self.annotator} {self.label_run}".strip()

    @property
    def benchmark(self) -> str:
        return f"annotators/{self.dataset}" + (
            "" if self.against == TRUTH else f" ({self.against})"
        )

    @property
    def num_episodes(self) -> int:
        return max((int(m.counted.sum()) for m in self.scored.measures.values()), default=0)

    @cached_property
    def scored(self) -> ScoredBenchmark:
        view = ScoredView(self.benchmark, self.questions, label_scores)
        return Predictor(self.model, {}, lines=self.lines).scored(view, of_all=True)

    @cached_property
    def scores(self) -> dict[tuple[str, str], Score]:
        """By (slice, metric)."""
        return self.scored.scores

    @property
    def coverage(self) -> float:
        """The share of the other side's episodes that it has, too."""
        return len(self.lines) / len(self.questions)

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is compared with what, and the score, for each slice and metric."""
        names = ("dataset", "label_run", "annotator", "against", "benchmark")
        facts = {name: getattr(self, name) for name in names}
        for (part, metric), s in self.scores.items():
            yield facts | {"slice": part, "metric": metric} | s.__dict__


def label_scores(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """Metrics over the reference's episodes; one without a label lowers the coverage."""
    is_labelled = np.array([line.measured is not None for line in answers.lines])
    measures = answers.means([line.measured or {} for line in answers.lines], is_labelled)
    return ScoredBenchmark(answers.benchmark, answers.episodes.scored, measures, {})


@dataclass(frozen=True)
class Comparison:
    """All that was compared: labellers, label runs before the baselines of each dataset, and where
    runs are apart."""

    labellers: list[AnnotatorComparison]
    apart: list[RunsApart]
    # By dataset: episodes of the truth that the corpus has not, or not usable
    without: Mapping[str, int]


# One dataset


def _reference_of_dataset(
    lake: Lake,
    dataset: str,
    episodes: Mapping[int, Episode],
    reference_name: str | None,
    truth: Path | None,
) -> ComparedWith | None:
    """As `compare` says of `reference_name`; None where no ground truth is there and nothing else
    is allowed."""
    if truth and reference_name in (None, TRUTH):
        all_truths = corpus_truth(lake, truth, dataset)
        truths = {e: t for e, t in all_truths.items() if e in episodes}
        for e, t in truths.items():
            if t.num_frames != episodes[e].num_frames:
                raise UserError(
                    f"{dataset} episode {e}: the truth has {t.num_frames} frames, the corpus {episodes[e].num_frames}: "
                    "it is of another recording"
                )
        if truths:
            return ComparedWith(TRUTH, truths, without=len(all_truths) - len(truths))
    # Where truth alone was asked for, no other label may stand for it
    if reference_name == TRUTH:
        return None
    labels = stored_labels(lake, dataset, episodes, reference_name)
    truths = {e: truth_by_label(episodes[e], label) for e, label in labels.items()}
    if reference_name is not None:
        return ComparedWith(reference_name, truths, frozenset({reference_name}))
    # Where the active labels are of several runs, each run is compared with the mixture
    active = active_runs(lake, dataset)
    return ComparedWith(ACTIVE, truths, frozenset(active) if len(active) == 1 else frozenset())


def _compared_dataset(
    lake: Lake,
    dataset: str,
    annotators: Mapping[str, str],
    reference_name: str | None,
    truth: Path | None,
    embedded: Embed,
) -> tuple[list[AnnotatorComparison], list[RunsApart], int]:
    """Label runs of a dataset (`annotators`: by label run) beside their reference, all but the
    reference itself, then what needs no label; where runs are apart; and how many episodes of the
    truth the corpus has not."""
    counted = usable_episodes(lake.con, "dataset = ? AND num_frames > 0", [dataset])
    episodes = {episode.episode_index: episode for episode in counted}
    reference = _reference_of_dataset(lake, dataset, episodes, reference_name, truth)
    if reference is None or not reference.truths:
        return [], [], 0
    truths = dict(sorted(reference.truths.items()))
    runs = [run for run in annotators if run not in reference.runs]
    labels = {run: stored_labels(lake, dataset, episodes, run) for run in runs}
    if not labels:
        return [], [], 0

    active = active_runs(lake, dataset)
    vectors = _name_vectors(truths, labels, embedded)
    measured: dict[tuple[str, str], dict[int, Metrics]] = {}
    for run, run_labels in labels.items():
        measured[run, annotators[run]] = {
            e: score_label(run_labels[e], t) | score_steps(run_labels[e], t, vectors)
            for e, t in truths.items()
            if e in run_labels
        }
    labelled = set(chain.from_iterable(measured.values()))
    by_some = {e: t for e, t in truths.items() if e in labelled}
    measured |= {("", name): of_truths for name, of_truths in _baselines(by_some).items()}
    questions = {e: _question(episodes[e]) for e in truths}
    labellers = []
    for (run, annotator), of_episodes in measured.items():
        # Of all the reference's episodes: one that the run labels later changes the coverage
        run_labels = labels.get(run, {})
        content = content_key(
            *(
                _compared_text(truths[e], run_labels.get(e), episodes[e])
                for e in (truths if run else of_episodes)
            )
        )
        lines = {
            questions[e].key: PredictionLine(questions[e].key, {}, measured=values)
            for e, values in of_episodes.items()
        }
        facts = reference.against, active == {run}, [*questions.values()], lines, (content,)
        labellers.append(AnnotatorComparison(dataset, run, annotator, *facts))
    return labellers, runs_apart(dataset, labels, active, reference, episodes), reference.without


def _baselines(truths: Mapping[int, EpisodeTruth]) -> dict[str, dict[int, Metrics]]:
    """What looks at nothing; without those that have no number."""
    measured: dict[str, dict[int, Metrics]] = {}
    for name, baseline in BASELINES.items():
        of_truths: dict[int, Metrics] = {e: baseline(t) for e, t in truths.items()}
        values = chain.from_iterable(metrics.values() for metrics in of_truths.values())
        if not all(map(math.isnan, values)):
            measured[name] = of_truths
    return measured


def _question(e: Episode) -> Question:
    """How is the episode to be labelled?"""
    return Question(
        benchmark="annotators",
        part=e.dataset,
        family="label",
        trajectory=str(e.episode_index),
        dataset=e.dataset,
        camera="",
        goal=e.task or "",
        text="",
        pictures=(),
        row={"episode_index": e.episode_index},
        unit=(e.dataset, str(e.episode_index)),
        slices=OUTCOME_SLICES.get(e.success, ()),
    )


def _name_vectors(
    truths: Mapping[int, EpisodeTruth],
    labels: Mapping[str, Mapping[int, Label]],
    embedded: Embed,
) -> dict[str, np.ndarray]:
    of_truths = chain.from_iterable(truth.passes for truth in truths.values())
    all_labels = chain.from_iterable(run_labels.values() for run_labels in labels.values())
    of_labels = (label.segments for label in all_labels)
    segments = chain.from_iterable(chain(of_truths, of_labels))
    names = sorted({s.name for s in segments if s.kind == STEP})
    if names:
        return dict(zip(names, embedded(names), strict=True))
    return {}


def _compared_text(truth: EpisodeTruth, label: Label | None, episode: Episode) -> str:
    """All that a comparison of one episode depends on. It is hashed into eval_runs: another text
    stores all anew."""
    curve = None if truth.curve is None else truth.curve.tolist()
    if label is None:
        label_facts = None
    else:
        progress = label.progress.tolist() if label.has_progress else None
        label_facts = (tuple(label.segments), progress)
    parts = (
        truth.episode_index,
        truth.boundaries,
        truth.events,
        truth.passes,
        truth.success,
        curve,
        label_facts,
    )
    # The name of a class that is gone stays in the text
    facts = f"num_frames={episode.num_frames}, fps={episode.fps}, success={episode.success}"
    return f"({', '.join(map(repr, parts))}, EpisodeFacts({facts}))"


# Scores


def differences(first: AnnotatorComparison, second: AnnotatorComparison) -> dict[str, Difference]:
    """The first labeller's scores less the second's by metric, over the episodes that both have
    labelled."""
    pairs = model_comparison(first.scored, second.scored).differences
    return {metric: difference for metric, difference in pairs.items() if difference.n}


def nearness_gain(first: AnnotatorComparison, second: AnnotatorComparison, metric: str) -> Score:
    """By how much the first labeller is nearer than the second over the episodes that both have:
    more is nearer.

    Without an episode in which both have the metric it is NO_SCORE.
    """
    ours, theirs = (c.scored.measures.get(metric) for c in (first, second))
    if ours is None or theirs is None:
        return NO_SCORE
    gap = paired(ours, theirs)
    if is_lower_better(metric):
        return Score(-gap.value, -gap.high, -gap.low, gap.n)
    return Score(gap.value, gap.low, gap.high, gap.n)


# Comparing


def compare(
    lake: Lake,
    truth: Path | None,
    *,
    run: str | None = None,
    against: str | None = None,
    datasets: Sequence[str] = (),
    embedded: Embed = embed,
) -> Comparison:
    """Score label runs (all, or one) dataset by dataset, then over all datasets with the same kind
    of reference.

    `against` is TRUTH or a label run; None: ground truth where there is any, else the active label.
    A run is known by its id or the beginning of it. Raises UserError.
    """
    runs = label_runs(lake)
    unlabelled = [dataset for dataset in datasets if dataset not in runs]
    if unlabelled:
        raise UserError(
            f"no labels of a dataset {unlabelled[0]!r}; labelled: {', '.join(runs) or 'none yet'}"
        )
    only = None if run is None else find_run(runs, run)
    if against in (None, TRUTH):
        reference_run = against
    else:
        reference_run = find_run(runs, against)

    # Each run beside its reference, dataset by dataset
    dataset_names = datasets or list(runs)
    labellers = []
    differences = []
    without = {}
    for dataset in dataset_names:
        chosen_runs = {r: annotator for r, annotator in runs[dataset].items() if only in (None, r)}
        results, of_dataset, missing = _compared_dataset(
            lake, dataset, chosen_runs, reference_run, truth, embedded
        )
        labellers += results
        differences += of_dataset
        without |= {dataset: missing} if missing else {}
    # A dataset without ground truth is not compared; that is an error only where truth was asked for
    if against == TRUTH and not labellers:
        raise UserError(
            f"no truth of {', '.join(dataset_names) or 'any dataset'} in {truth}: {_datasets_in_words(truth)}"
        )
    groups = grouped(((c.label_run, c.annotator, c.against), c) for c in labellers)
    for group in groups.values():
        if len(group) > 1:
            labellers.append(_over_datasets(group))
    return Comparison(labellers, differences, without)


def _datasets_in_words(truth: Path | None) -> str:
    """Which datasets a folder of truth has, in words."""
    if truth and truth.is_dir():
        folders = sorted(p.name for p in truth.iterdir() if p.is_dir())
    else:
        folders = []
    if folders:
        return f"it has {', '.join(folders[:10])}"
    return "it needs a folder per dataset, with a file per episode"


def _over_datasets(group: Sequence[AnnotatorComparison]) -> AnnotatorComparison:
    return replace(
        group[0],
        dataset=EVERY_DATASET,
        counts=all(c.counts for c in group),
        questions=[*chain.from_iterable(c.questions for c in group)],
        lines=dict(chain.from_iterable(c.lines.items() for c in group)),
        contents=tuple(chain.from_iterable(c.contents for c in group)),
    )


# Storing


def store(lake: Lake, labellers: Sequence[AnnotatorComparison]) -> int:
    """Store scores in one transaction; returns how many labellers were new or had changed.

    A labeller on a dataset against one kind of label is one eval_run: newer labels take the place
    of older ones.
    """
    stored_config = dict(
        lake.rows("SELECT eval_run, config FROM eval_runs WHERE code_version = ?", [CODE_VERSION])
    )
    evaluations = []
    for c in labellers:
        content = {
            "label_run": c.label_run,
            "against": c.against,
            "content": c.content,
            "resamples": RESAMPLES,
        }
        # The id says what is compared; whether it has to be stored anew is for the config, with the labels' hash in it
        eval_run = content_key(c.model, c.benchmark)[:16]
        config = json.dumps(content, sort_keys=True)
        if stored_config.get(eval_run) == config:
            continue
        evaluations.append(
            EvalRun(eval_run, c.model, c.benchmark, config, CODE_VERSION, scores=c.scores)
        )
    if evaluations:
        store_evaluations(lake, "annotators compared", evaluations)
    return len(evaluations)
