"""ProcVQA's three families and runs of any dataset: segments, plans, progress over time, success."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import check_benchmark, read_row
from eval.metrics import errors, plans, published, segments
from eval.metrics.runs import Runs
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.metrics.segments import Span, plain_name
from eval.predictions import PredictionLine
from eval.scoring.progress import progress_measures
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode, Series, length_slice, numbered

SEGMENTS, ACTIONS, PROGRESS, SUCCESS = "procvqa_a", "procvqa_b", "procvqa_c", "success"
FAMILIES = {
    "procvqa-id": (SEGMENTS, ACTIONS, PROGRESS),
    "procvqa-ood": (SEGMENTS, ACTIONS, PROGRESS),
    "dataset": ("progress", SUCCESS),
}
OVERLAPS = (10, 25, 50)
_TAG = re.compile(r"<progress>\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*</progress>")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
Embed = Callable[[Sequence[str]], np.ndarray]


class ProcVqaRow(BaseModel):
    """A question's row, as prediction files carry it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    family: str
    dataset: str
    episode_index: int
    camera: str = ""
    frames: Annotated[tuple[int, ...], Field(min_length=1)]
    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)]
    answer: str | None = None
    progress: Annotated[float | None, Field(ge=0, le=1)] = None
    success: bool | None = None
    sample_id: str | None = None
    inference: Annotated[int, Field(alias="_inference_idx")] = 0

    def identity(self) -> tuple:
        return self.sample_id, self.family, self.dataset, self.episode_index, self.camera, self.frames, self.inference


@dataclass(frozen=True)
class ProcVqaAnswer:
    row: ProcVqaRow
    text: str
    value: float | None  # of a head
    where: str


def score(
    benchmark: str, predictions: Iterable[PredictionLine], as_published: bool = False, embedded: Embed | None = None
) -> ScoredBenchmark:
    """`embedded`: unit vectors of texts; default annotate.similarity's model, loaded where actions are to be compared.

    Raises BenchmarkError for a row that is broken, of another benchmark, or there twice.
    """
    answers: list[ProcVqaAnswer] = []
    seen: dict[tuple, str] = {}
    for p in predictions:
        row = _row(benchmark, p)
        # Two answers to one row would count it twice.
        first = seen.setdefault(row.identity(), p.where)
        if first != p.where:
            raise BenchmarkError(f"{p.where} is the same row as {first}: keep one answer")
        answers.append(_answer(row, p))
    if not answers:
        raise BenchmarkError("the prediction file holds no row")
    if as_published:
        return _published(benchmark, answers)
    return _mended(benchmark, answers, embedded)


def _answer(row: ProcVqaRow, p: PredictionLine) -> ProcVqaAnswer:
    """An answer that failed says nothing, whatever the line holds beside its error."""
    if p.error:
        return ProcVqaAnswer(row, "", None, p.where)
    return ProcVqaAnswer(row, p.response, p.value, p.where)


def _row(benchmark: str, p: PredictionLine) -> ProcVqaRow:
    family = p.meta_data.get("family")
    check_benchmark(benchmark, p.meta_data, p.where)
    if family not in FAMILIES[benchmark]:
        families = ", ".join(FAMILIES[benchmark])
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its meta_data has family {family!r}, not {families}")
    row = read_row(ProcVqaRow, p.meta_data, p.where)
    scored_by = {SEGMENTS: "answer", ACTIONS: "answer", SUCCESS: "success"}.get(row.family, "progress")
    if getattr(row, scored_by) is None:
        raise BenchmarkError(f"{p.where}: {scored_by} is missing, which family {row.family} is scored by")
    return row


# What an answer says


def share_of(text: str) -> float:
    """The share in the one progress tag of an answer; NaN where it has none, several, or a number that is unclear.

    45% is 0.45, as is 45 and 0.45; 1 without % could be either.
    """
    tags = _TAG.findall(text)
    if len(tags) != 1:
        return float("nan")
    number, percent_sign = tags[0]
    value = float(number)
    if percent_sign or value > 1:
        value /= 100
    elif value == 1:
        return float("nan")
    return value if value <= 1 else float("nan")


def spans_of(text: str) -> list[Span] | None:
    """The segments of an answer: the JSON list in it, half-open in picture numbers; None for what is none."""
    from json_repair import repair_json

    # Models write prose around their list: what lies between the outermost brackets is taken for it.
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        entries = json.loads(repair_json(text[start : end + 1]))
        # Answers name a segment's last frame, spans the first one after it.
        return [
            (plain_name(str(e["action_description"])), int(e["start_frame"]), int(e["end_frame"]) + 1) for e in entries
        ]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def success_of(a: ProcVqaAnswer) -> bool | None:
    """Whether an answer says that the run succeeded: a head's share, else yes or no, else the share in its tag."""
    if a.value is None:
        words = {word.lower() for word in _YES_NO.findall(a.text)}
        if len(words) == 1:
            return words == {"yes"}
    share = _share(a)
    return None if math.isnan(share) else share >= errors.FINISHED


# Mended


def _sums_over_episodes(episode: np.ndarray, columns: Iterable[np.ndarray], num_episodes: int) -> np.ndarray:
    """Sums of columns [k] over each episode's answers, float64 [episodes, columns]."""
    return np.stack([np.bincount(episode, column, num_episodes) for column in columns], 1)


@dataclass(frozen=True)
class FamilyAnswers:
    """The answers of one family [k], and the episode of each."""

    answers: Sequence[ProcVqaAnswer]
    at: np.ndarray  # int64 [k]: their numbers among all answers
    episode: np.ndarray  # int64 [k]: number of the episode
    num_episodes: int

    def means(self, values: Sequence[float]) -> np.ndarray:
        """Means of values [k] over each episode's answers, float64 [episodes]; NaN values are left out."""
        all_values = np.array(values, np.float64)
        has_value = ~np.isnan(all_values)
        total = np.bincount(self.episode[has_value], all_values[has_value], minlength=self.num_episodes)
        count = np.bincount(self.episode[has_value], minlength=self.num_episodes)
        return total / np.where(count > 0, count, np.nan)

    def counts(self, readable: np.ndarray) -> np.ndarray:
        """How many answers of each episode could be read, and how many there are, float64 [episodes, 2]."""
        return _sums_over_episodes(self.episode, (readable, np.ones(len(self.at))), self.num_episodes)


@dataclass(frozen=True)
class FamilyScores:
    """The measures of one family, and which of its answers [k] could be read."""

    measures: Mapping[str, Measure]
    readable: np.ndarray
    series: Series | None = None


def _mended(benchmark: str, answers: Sequence[ProcVqaAnswer], embedded: Embed | None) -> ScoredBenchmark:
    """Each family by its own metrics; an answer that cannot be read counts as wrong."""
    episode, episodes = _episodes(answers)
    n = len(episodes)

    # No two families have a metric in common
    measures: dict[str, Measure] = {}
    rows_of_family = {}
    unread = np.zeros(len(answers), bool)
    series: Series | None = None
    for family in FAMILIES[benchmark]:
        at = np.flatnonzero([a.row.family == family for a in answers])
        rows_of_family[f"rows_{family}"] = len(at)
        if not len(at):
            continue
        of_family = FamilyAnswers([answers[k] for k in at], at, episode[at], n)
        scored = _family_scores(family, of_family, embedded)
        measures |= scored.measures
        # Back from places in the family to places among all answers.
        unread[at] = ~scored.readable
        series = scored.series or series
    read = _sums_over_episodes(episode, (~unread, np.ones(len(answers))), n)
    measures["coverage"] = ratio_of(read[:, 0], read[:, 1], read)
    counts = {"rows": len(answers), "episodes": n, "unparsable": int(unread.sum()), **rows_of_family}
    return ScoredBenchmark(benchmark, episodes, measures, counts, series)


def _family_scores(family: str, of_family: FamilyAnswers, embedded: Embed | None) -> FamilyScores:
    if family == SEGMENTS:
        return _segment_scores(of_family)
    if family == ACTIONS:
        return _plan_scores(of_family, embedded)
    if family == SUCCESS:
        return _success_scores(of_family)
    return _progress_scores(of_family)


def _segment_scores(of_family: FamilyAnswers) -> FamilyScores:
    predicted = [spans_of(a.text) for a in of_family.answers]
    readable = np.array([spans is not None for spans in predicted], bool)
    read = of_family.counts(readable)
    values = _segment_values(of_family.answers, predicted)
    return FamilyScores({name: mean_of(of_family.means(v), read) for name, v in values.items()}, readable)


def _segment_values(answers: Sequence[ProcVqaAnswer], predicted: Sequence[list[Span] | None]) -> dict[str, list[float]]:
    """Each metric per answer; an answer that could not be read has found no segment."""
    values: dict[str, list[float]] = {}
    for answer, spans in zip(answers, predicted, strict=True):
        target = spans_of(answer.row.answer or "")
        if target is None:
            raise BenchmarkError(f"{answer.where}: its right answer is no list of segments")
        for name, value in _segment_metrics(spans, target).items():
            values.setdefault(name, []).append(value)
    return values


def _segment_metrics(spans: list[Span] | None, target: list[Span]) -> dict[str, float]:
    overlaps = {f"segment_f1@{percent}": percent / 100 for percent in OVERLAPS}
    if spans is None:
        nothing = {"bf1@5": 0.0, "mmae": float("nan"), "segment_iou": segments.segment_iou([], target), "edit": 0.0}
        return nothing | dict.fromkeys(overlaps, 0.0)
    values = {
        "bf1@5": segments.boundary_f1(spans, target),
        "mmae": segments.boundary_mae(spans, target),
        "segment_iou": segments.segment_iou(spans, target),
        "edit": segments.edit_score(spans, target),
    }
    return values | {name: segments.segment_f1(spans, target, least) for name, least in overlaps.items()}


def _plan_scores(of_family: FamilyAnswers, embedded: Embed | None) -> FamilyScores:
    predicted = [plans.plan_of(a.text) for a in of_family.answers]
    readable = np.array([plan is not None for plan in predicted], bool)
    read = of_family.counts(readable)
    values = _plan_values(of_family.answers, predicted, embedded)
    return FamilyScores({name: mean_of(of_family.means(v), read) for name, v in values.items()}, readable)


def _plan_values(
    answers: Sequence[ProcVqaAnswer], predicted: Sequence[tuple[str, ...] | None], embedded: Embed | None
) -> dict[str, list[float]]:
    """Each metric per answer; an empty answer is wrong."""
    targets = [plans.plan_of(a.row.answer or "") or () for a in answers]
    vectors = _action_vectors([*targets, *(plan for plan in predicted if plan)], embedded)
    values: dict[str, list[float]] = {"plan_success": [], "plan_f1": []}
    for plan, target in zip(predicted, targets, strict=True):
        values["plan_success"].append(0.0 if plan is None else plans.plan_success(plan, target, vectors))
        values["plan_f1"].append(0.0 if plan is None else plans.semantic_f1(plan, target, vectors))
    return values


def _action_vectors(all_plans: Sequence[tuple[str, ...]], embedded: Embed | None) -> dict[str, np.ndarray]:
    """The vector of each action's name."""
    names = sorted({name for plan in all_plans for name in plan})
    if not names:
        return {}
    if embedded is None:
        from annotate.similarity import embed as embedded  # loads a language model: some seconds
    return dict(zip(names, embedded(names), strict=True))


def _success_scores(of_family: FamilyAnswers) -> FamilyScores:
    predicted = [success_of(a) for a in of_family.answers]
    readable = np.array([success is not None for success in predicted], bool)
    actual = np.array([bool(a.row.success) for a in of_family.answers])
    cells = errors.confusion(np.array([bool(success) for success in predicted]), actual, readable)
    # Cells of the confusion are summed over each episode, which is what is resampled
    parts = _sums_over_episodes(of_family.episode, cells.T, of_family.num_episodes)
    counted, read = parts.sum(axis=1) > 0, of_family.counts(readable)
    measures = {
        "success_accuracy": Measure(parts, counted, read, errors.accuracy),
        "success_balanced": Measure(parts, counted, read, errors.balanced_accuracy),
    }
    return FamilyScores(measures, readable)


def _progress_scores(of_family: FamilyAnswers) -> FamilyScores:
    """Answers to questions of progress, in order of episode and time."""
    rows = [a.row for a in of_family.answers]
    shares = np.array([_share(a) for a in of_family.answers], np.float64)
    now = np.array([row.frames[-1] for row in rows])
    order = np.lexsort((now, of_family.episode))
    starts = np.searchsorted(of_family.episode[order], np.arange(of_family.num_episodes + 1))
    runs = Runs(shares[order], np.array([row.progress for row in rows], np.float64)[order], starts)
    elapsed = (now / np.maximum([row.num_frames - 1 for row in rows], 1))[order]
    return FamilyScores(progress_measures(runs, elapsed), ~np.isnan(shares), Series(runs, elapsed))


def _share(a: ProcVqaAnswer) -> float:
    return share_of(a.text) if a.value is None else a.value


def _episodes(answers: Sequence[ProcVqaAnswer]) -> tuple[np.ndarray, tuple[ScoredEpisode, ...]]:
    """The number of each answer's episode, int64 [n], and the episodes, which have the slices of their first answer."""
    numbers, keys = numbered([(a.row.family, a.row.dataset, str(a.row.episode_index), a.row.camera) for a in answers])
    first_row: dict[int, ProcVqaRow] = {}
    for number, a in zip(numbers.tolist(), answers, strict=True):
        first_row.setdefault(number, a.row)
    return numbers, tuple(ScoredEpisode(key, _slices(first_row[number])) for number, key in enumerate(keys))


def _slices(row: ProcVqaRow) -> tuple[str, ...]:
    named = (f"dataset {row.dataset}", f"family {row.family}", length_slice(row.num_frames / row.fps))
    return (*named, *([f"camera {row.camera}"] if row.camera else []))


# As published


def _published(benchmark: str, answers: Sequence[ProcVqaAnswer]) -> ScoredBenchmark:
    """ProcVLM's evaluation: what cannot be read is left out, numbers come from anywhere, episodes are told apart by
    their number alone, boundaries and finished answers are counted over everything."""
    if benchmark == "dataset":
        raise BenchmarkError("--as-published goes with benchmarks that were published, not with dataset")
    episode, keys = numbered([(str(a.row.episode_index),) for a in answers])
    n = len(keys)
    predicted = np.array([_published_share(a) for a in answers], np.float64)
    target = np.array([_number(a.row.answer or "") for a in answers], np.float64)
    numeric = ~np.isnan(predicted) & ~np.isnan(target)
    of_progress = np.array([a.row.family == PROGRESS for a in answers])

    # Progress over time: the numbers of each episode, in the order of the file
    in_runs = np.flatnonzero(numeric & of_progress)
    at = in_runs[np.argsort(episode[in_runs], kind="stable")]
    runs = Runs(predicted[at], target[at], np.searchsorted(episode[at], np.arange(n + 1)))
    sides = (np.split(values, runs.starts[1:-1]) for values in (runs.predicted, runs.target))
    pairs = list(zip(*sides, strict=True))
    has_order = np.where(runs.lengths >= 2, 1.0, np.nan)

    # Boundaries and finished answers: counts, which are summed before anything is divided
    hits = _published_boundary_hits(answers, episode, n)
    finished = errors.confusion(predicted >= errors.FINISHED, target >= errors.FINISHED, numeric) * numeric[:, None]
    finished_of_episode = _sums_over_episodes(episode, finished.T, n)
    measures = {
        "voc": mean_of(np.nan_to_num(published.voc(runs)) * has_order),
        "tau_a": mean_of([published.kendall(p, t) for p, t in pairs]),
        "ccc": mean_of([_published_ccc(p, t) for p, t in pairs]),
        "epr@50": mean_of([published.effective_resolution(p) for p, _ in pairs]),
        "ubr": mean_of([published.used_bins(p, t) for p, t in pairs]),
        "bf1@5": ratio_of(hits[:, 0], hits[:, 1]),
        "mmae": ratio_of(hits[:, 2], hits[:, 0] / 2),
        "mcc@95": Measure(finished_of_episode, np.ones(n, bool), np.zeros((n, 2)), published.mcc),
        "coverage": ratio_of(
            np.bincount(episode, of_progress & numeric, minlength=n), np.bincount(episode, of_progress, minlength=n)
        ),
    }
    counts = {"rows": len(answers), "episodes": n, "numbers": int(numeric.sum())}
    return ScoredBenchmark(benchmark, tuple(ScoredEpisode(k) for k in keys), measures, counts)


def _published_boundary_hits(answers: Sequence[ProcVqaAnswer], episode: np.ndarray, n: int) -> np.ndarray:
    """Sums of `published.boundary_hits` over each episode's answers about segments, float64 [episodes, 3]."""
    hits = np.zeros((n, 3))
    for number, answer in zip(episode, answers, strict=True):
        if answer.row.family != SEGMENTS:
            continue
        predicted = published.boundary_values(answer.text)
        target = published.boundary_values(answer.row.answer or "")
        if predicted is not None and target is not None:
            hits[number] += published.boundary_hits(predicted, target)
    return hits


def _published_ccc(predicted: np.ndarray, target: np.ndarray) -> float:
    """NaN where an episode has a single number."""
    return published.ccc(predicted, target) if len(predicted) >= 2 else float("nan")


def _published_share(a: ProcVqaAnswer) -> float:
    return _number(a.text) if a.value is None else a.value


def _number(text: str) -> float:
    number = published.progress_number(text)
    return float("nan") if number is None else number
