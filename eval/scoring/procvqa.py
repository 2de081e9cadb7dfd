"""ProcVQA's three families and runs of any dataset: segments, plans, progress over time, success."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import read_row
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
    """`embedded`: unit vectors of texts; default eval.similarity's model, loaded where actions are to be compared.

    Raises BenchmarkError for a row that is broken, of another benchmark, or there twice.
    """
    answers: list[ProcVqaAnswer] = []
    seen: dict[tuple, str] = {}
    for p in predictions:
        row = _row(benchmark, p)
        known = seen.setdefault(row.identity(), p.where)
        if known != p.where:
            raise BenchmarkError(f"{p.where} is the same row as {known}: keep one answer")
        answers.append(ProcVqaAnswer(row, "" if p.error else p.response, None if p.error else p.value, p.where))
    if not answers:
        raise BenchmarkError("the prediction file holds no row")
    if as_published:
        return _published(benchmark, answers)
    return _mended(benchmark, answers, embedded)


def _row(benchmark: str, p: PredictionLine) -> ProcVqaRow:
    stated, family = p.meta_data.get("benchmark"), p.meta_data.get("family")
    if isinstance(stated, str) and stated != benchmark:
        raise BenchmarkError(f"{p.where} is of {stated}, not of {benchmark}: give --benchmark {stated}")
    if family not in FAMILIES[benchmark]:
        known = ", ".join(FAMILIES[benchmark])
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its meta_data has family {family!r}, not {known}")
    row = read_row(ProcVqaRow, p.meta_data, p.where)
    wanted = {SEGMENTS: "answer", ACTIONS: "answer", SUCCESS: "success"}.get(row.family, "progress")
    if getattr(row, wanted) is None:
        raise BenchmarkError(f"{p.where}: {wanted} is missing, which family {row.family} is scored by")
    return row


# What an answer says


def share_of(text: str) -> float:
    """The share in the one progress tag of an answer; NaN where it has none, several, or a number that is unclear.

    45% is 0.45, as is 45 and 0.45; 1 without % could be either.
    """
    found = _TAG.findall(text)
    if len(found) != 1:
        return float("nan")
    value = float(found[0][0])
    if found[0][1] or value > 1:
        value /= 100
    elif value == 1:
        return float("nan")
    return value if value <= 1 else float("nan")


def spans_of(text: str) -> list[Span] | None:
    """The segments of an answer: the JSON list in it, half-open in picture numbers; None for what is none."""
    from json_repair import repair_json

    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        found = json.loads(repair_json(text[start : end + 1]))
        return [
            (plain_name(str(e["action_description"])), int(e["start_frame"]), int(e["end_frame"]) + 1) for e in found
        ]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def success_of(a: ProcVqaAnswer) -> bool | None:
    """Whether an answer says that the run succeeded: a head's share, else yes or no, else the share in its tag."""
    share = share_of(a.text) if a.value is None else a.value
    if a.value is None and len(said := {s.lower() for s in _YES_NO.findall(a.text)}) == 1:
        return said == {"yes"}
    return None if math.isnan(share) else share >= errors.FINISHED


# Mended


def _mended(benchmark: str, answers: Sequence[ProcVqaAnswer], embedded: Embed | None) -> ScoredBenchmark:
    episode, episodes = _episodes(answers)
    n = len(episodes)
    by_family = {f: np.array([a.row.family == f for a in answers]) for f in FAMILIES[benchmark]}
    measures: dict[str, Measure] = {}
    unread = np.zeros(len(answers), bool)
    series: Series | None = None

    def per_episode(at: np.ndarray, values: Sequence[float]) -> np.ndarray:
        """Means over the answers `at` [k] of each episode."""
        known = np.array([k for k, v in zip(at, values, strict=True) if not math.isnan(v)], np.int64)
        total = np.bincount(episode[known], [v for v in values if not math.isnan(v)], minlength=n)
        count = np.bincount(episode[known], minlength=n)
        return total / np.where(count > 0, count, np.nan)

    def read_of(at: np.ndarray, readable: Sequence[bool]) -> np.ndarray:
        unread[at[~np.array(readable, bool)]] = True
        return np.stack([np.bincount(episode[at], r, minlength=n) for r in (readable, np.ones(len(at)))], 1)

    for family, wanted in by_family.items():
        at = np.flatnonzero(wanted)
        chosen = [answers[k] for k in at]
        if not chosen:
            continue
        if family == SEGMENTS:
            found = [spans_of(a.text) for a in chosen]
            read = read_of(at, [s is not None for s in found])
            for name, values in _segment_values(chosen, found).items():
                measures[name] = mean_of(per_episode(at, values), read)
        elif family == ACTIONS:
            plan = [plans.plan_of(a.text) for a in chosen]
            read = read_of(at, [p is not None for p in plan])
            for name, values in _plan_values(chosen, plan, embedded).items():
                measures[name] = mean_of(per_episode(at, values), read)
        elif family == SUCCESS:
            said = [success_of(a) for a in chosen]
            read = read_of(at, [s is not None for s in said])
            measures |= _success(episode[at], n, chosen, said, read)
        else:
            runs, elapsed = _runs(at, chosen, episode, n)
            measures |= progress_measures(runs, elapsed)
            series = Series(runs, elapsed)
            unread[at] = [math.isnan(_share(a)) for a in chosen]
    total = np.bincount(episode, minlength=n)
    read = np.stack([np.bincount(episode, ~unread, minlength=n), total], 1).astype(np.float64)
    measures["coverage"] = ratio_of(read[:, 0], read[:, 1], read)
    counts = {"rows": len(answers), "episodes": n, "unparsable": int(unread.sum())}
    counts |= {f"rows_{f}": int(w.sum()) for f, w in by_family.items()}
    return ScoredBenchmark(benchmark, episodes, measures, counts, series)


def _segment_values(chosen: Sequence[ProcVqaAnswer], found: Sequence[list[Span] | None]) -> dict[str, list[float]]:
    """Per answer of family a; what could not be read has found nothing."""
    pairs = []
    for a, spans in zip(chosen, found, strict=True):
        target = spans_of(a.row.answer or "")
        if target is None:
            raise BenchmarkError(f"{a.where}: its right answer is no list of segments")
        pairs.append((spans, target))
    values = {
        "bf1@5": [0.0 if p is None else segments.boundary_f1(p, t) for p, t in pairs],
        "mmae": [float("nan") if p is None else segments.boundary_mae(p, t) for p, t in pairs],
        "segment_iou": [segments.segment_iou(p or [], t) for p, t in pairs],
        "edit": [0.0 if p is None else segments.edit_score(p, t) for p, t in pairs],
    }
    for k in OVERLAPS:
        values[f"segment_f1@{k}"] = [0.0 if p is None else segments.segment_f1(p, t, k / 100) for p, t in pairs]
    return values


def _plan_values(
    chosen: Sequence[ProcVqaAnswer], found: Sequence[tuple[str, ...] | None], embedded: Embed | None
) -> dict[str, list[float]]:
    """Per answer of family b; an empty one is wrong."""
    targets = [plans.plan_of(a.row.answer or "") or () for a in chosen]
    names = sorted({name for plan in (*found, *targets) for name in plan or ()})
    if names and embedded is None:
        from eval.similarity import embed as embedded  # loads a language model: some seconds
    vectors = dict(zip(names, embedded(names), strict=True)) if names and embedded else {}
    pairs = list(zip(found, targets, strict=True))
    return {
        "plan_success": [0.0 if p is None else plans.plan_success(p, t, vectors) for p, t in pairs],
        "plan_f1": [0.0 if p is None else plans.semantic_f1(p, t, vectors) for p, t in pairs],
    }


def _success(
    episode: np.ndarray, n: int, chosen: Sequence[ProcVqaAnswer], said: Sequence[bool | None], read: np.ndarray
) -> dict[str, Measure]:
    actual = np.array([bool(a.row.success) for a in chosen])
    cells = errors.confusion(np.array([bool(s) for s in said]), actual, np.array([s is not None for s in said]))
    parts = np.stack([np.bincount(episode, c, minlength=n) for c in cells.T], 1)
    counted = parts.sum(axis=1) > 0
    found = {"success_accuracy": errors.accuracy, "success_balanced": errors.balanced_accuracy}
    return {name: Measure(parts, counted, read, statistic) for name, statistic in found.items()}


def _share(a: ProcVqaAnswer) -> float:
    return share_of(a.text) if a.value is None else a.value


def _runs(at: np.ndarray, chosen: Sequence[ProcVqaAnswer], episode: np.ndarray, n: int) -> tuple[Runs, np.ndarray]:
    """Answers to questions of progress in order of episode and time, and the share of time gone by at each."""
    now = np.array([a.row.frames[-1] for a in chosen])
    order = np.lexsort((now, episode[at]))
    predicted = np.array([_share(a) for a in chosen], np.float64)[order]
    target = np.array([a.row.progress for a in chosen], np.float64)[order]
    elapsed = (now / np.maximum([a.row.num_frames - 1 for a in chosen], 1))[order]
    return Runs(predicted, target, np.searchsorted(episode[at][order], np.arange(n + 1))), elapsed


def _episodes(answers: Sequence[ProcVqaAnswer]) -> tuple[np.ndarray, tuple[ScoredEpisode, ...]]:
    keys = [(a.row.family, a.row.dataset, str(a.row.episode_index), a.row.camera) for a in answers]
    numbers, known = numbered(keys)
    first: dict[int, ProcVqaRow] = {}
    for k, a in zip(numbers.tolist(), answers, strict=True):
        first.setdefault(k, a.row)
    return numbers, tuple(ScoredEpisode(key, _slices(first[k])) for k, key in enumerate(known))


def _slices(row: ProcVqaRow) -> tuple[str, ...]:
    named = (f"dataset {row.dataset}", f"family {row.family}", length_slice(row.num_frames / row.fps))
    return (*named, *([f"camera {row.camera}"] if row.camera else []))


# As published


def _published(benchmark: str, answers: Sequence[ProcVqaAnswer]) -> ScoredBenchmark:
    """ProcVLM's evaluation: what cannot be read is left out, numbers come from anywhere, episodes are told apart by
    their number alone, boundaries and finished answers are counted over everything."""
    if benchmark == "dataset":
        raise BenchmarkError("--as-published goes with benchmarks that were published, not with dataset")
    numbers, keys = numbered([(str(a.row.episode_index),) for a in answers])
    n = len(keys)
    said = np.array([_number(a.text) if a.value is None else a.value for a in answers], np.float64)
    true = np.array([_number(a.row.answer or "") for a in answers], np.float64)
    both = ~np.isnan(said) & ~np.isnan(true)
    progress = np.flatnonzero(both & np.array([a.row.family == PROGRESS for a in answers]))
    at = progress[np.argsort(numbers[progress], kind="stable")]
    runs = Runs(said[at], true[at], np.searchsorted(numbers[at], np.arange(n + 1)))
    parts = [(said[at][a:b], true[at][a:b]) for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True)]
    enough = np.where(runs.lengths >= 2, 1.0, np.nan)
    hits = np.zeros((n, 3))
    for k, a in zip(numbers, answers, strict=True):
        sides = [published.boundary_values(x) for x in (a.text, a.row.answer or "")] if a.row.family == SEGMENTS else []
        if len(sides) == 2 and sides[0] is not None and sides[1] is not None:
            hits[k] += published.boundary_hits(sides[0], sides[1])
    cells = errors.confusion(said >= errors.FINISHED, true >= errors.FINISHED, both) * both[:, None]
    wanted = np.array([a.row.family == PROGRESS for a in answers])
    measures = {
        "voc": mean_of(np.nan_to_num(published.voc(runs)) * enough),
        "tau_a": mean_of([published.kendall(*p) for p in parts]),
        "ccc": mean_of([published.ccc(*p) if len(p[0]) >= 2 else float("nan") for p in parts]),
        "epr@50": mean_of([published.effective_resolution(p[0]) for p in parts]),
        "ubr": mean_of([published.used_bins(*p) for p in parts]),
        "bf1@5": ratio_of(hits[:, 0], hits[:, 1]),
        "mmae": ratio_of(hits[:, 2], hits[:, 0] / 2),
        "mcc@95": Measure(
            np.stack([np.bincount(numbers, c, minlength=n) for c in cells.T], 1),
            np.ones(n, bool),
            np.zeros((n, 2)),
            published.mcc,
        ),
        "coverage": ratio_of(*(np.bincount(numbers, m, minlength=n) for m in (wanted & both, wanted))),
    }
    counts = {"rows": len(answers), "episodes": n, "numbers": int(both.sum())}
    return ScoredBenchmark(benchmark, tuple(ScoredEpisode(k) for k in keys), measures, counts)


def _number(text: str) -> float:
    found = published.progress_number(text)
    return float("nan") if found is None else found
