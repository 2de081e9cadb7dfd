"""ProcVQA's two benchmarks from a release, procvqa-id (split test_id) and procvqa-ood (split test_ood); the scores of
its three families and of runs of any dataset: segments, plans, progress over time, success."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
from json_repair import repair_json
from pydantic import Field

from annotate import similarity
from core.values import spread
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, PredictionLine, Question, share_of
from eval.metrics import errors, published, segments
from eval.metrics.progress import progress_measures
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.metrics.segments import Span, plain_name
from eval.scored import (
    AnsweredRow,
    Episodes,
    ScoredBenchmark,
    Series,
    length_slice,
    lines_with_rows,
    scored_answers,
)
from warehouse.lake import Lake
from warehouse.lake.episodes import usable_episodes
from warehouse.lake.sql import open_for_users
from warehouse.releases.release import Release
from warehouse.shards.shard import entry_at, named_picture, picture_places, read_index, shown

SPLITS = {"procvqa-id": "test_id", "procvqa-ood": "test_ood"}
SEGMENTS = "procvqa_a"
ACTIONS = "procvqa_b"
PROGRESS = "procvqa_c"
SUCCESS = "success"
FAMILIES = (SEGMENTS, ACTIONS, PROGRESS)
FAMILIES_OF = {**dict.fromkeys(SPLITS, FAMILIES), "dataset": ("progress", SUCCESS)}
LAST_PICTURES = """
    SELECT DISTINCT ON (s.dataset, e.task) s.dataset, e.task, s.episode_index, s.pictures[-1], l.shard, l.offset
    FROM samples s JOIN episodes e USING (dataset, episode_index) JOIN sample_location l USING (sample_id)
    WHERE s.split = 'train' AND s.family = 'procvqa_c' AND e.success AND s.frames[-1] = e.num_frames - 1
    ORDER BY s.dataset, e.task, s.episode_index, s.sample_id
"""
# Of a sample's row, what scoring and reports need; the question is left out: it can be made again
KEPT = (
    "sample_id",
    "family",
    "variant",
    "dataset",
    "episode_index",
    "camera",
    "frames",
    "answer",
    "progress",
    "state",
)


@dataclass(frozen=True)
class SampleChoice:
    """Which samples are asked: those of these families, and of this form where it is given; `labelled`: that have a
    label of progress. `most`: of so many episodes, spread over all; None: of all."""

    families: frozenset[str] = frozenset({"procvqa_c"})
    form: str | None = None
    most: int | None = None
    labelled: bool = True

    def takes(self, row: Mapping[str, Any]) -> bool:
        is_form = self.form is None or row.get("form") in (None, self.form)
        return (
            row["family"] in self.families
            and is_form
            and (not self.labelled or row["progress"] is not None)
        )


ALL_MOMENTS = SampleChoice()


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions of some families (parts) of procvqa-id or procvqa-ood, the first `limit` of each. Raises
    BenchmarkError or ShardError."""
    benchmark = options.benchmark
    families = options.part or FAMILIES
    con = open_for_users(lake.workspace, release.snapshot)
    num_taken = dict.fromkeys(families, 0)
    questions = []
    chosen = SampleChoice(frozenset(families), labelled=False)
    for q in sample_questions(
        benchmark, con, release.paths(lake.workspace, SPLITS[benchmark]), chosen
    ):
        # The limit holds for each family, so the other families are still read after one is full.
        if num_taken[q.family] != options.limit:
            num_taken[q.family] += 1
            questions.append(q)
    if not questions:
        raise BenchmarkError(
            f"release {release.name} holds no sample of {benchmark} (split {SPLITS[benchmark]})"
        )
    return questions


def sample_questions(
    benchmark: str, con: duckdb.DuckDBPyConnection, tars: Sequence[Path], chosen: SampleChoice
) -> Iterator[Question]:
    """A question for each sample that is chosen, as they lie in the shards; `con`: the lake as the release has it.

    Of pictures their places alone are read. Raises ShardError.
    """
    episodes = {episode.key: episode for episode in usable_episodes(con)}
    entries = []
    for tar in tars:
        entries += [(tar, e) for e in read_index(tar).entries if chosen.families & set(e.family)]
    for tar, entry in spread(entries, chosen.most or len(entries)):
        rows, places = picture_places(tar, entry)
        for row in filter(chosen.takes, rows):
            episode = episodes[row["dataset"], row["episode_index"]]
            meta_data = {k: row.get(k) for k in KEPT} | {
                "num_frames": episode.num_frames,
                "fps": episode.fps,
                "success": episode.success,
            }
            yield Question(
                benchmark=benchmark,
                part=row["family"],
                family=row["family"],
                trajectory=str(row["episode_index"]),
                dataset=row["dataset"],
                camera=row["camera"],
                goal=episode.task or "",
                text=row["question"],
                pictures=tuple(PictureFile(tar, *place) for place in shown(row, places)),
                progress=row.get("progress"),
                success=episode.success,
                frame_index=row["frames"][-1],
                num_frames=episode.num_frames,
                row=meta_data,
            )


def goal_pictures(lake: Lake, release: Release) -> dict[tuple[str, str], PictureFile]:
    """By (dataset, task): the last frame of the first training run that succeeded. Of each its place alone is kept."""
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(LAST_PICTURES).fetchall()
    paths = {s.shard: s.path(lake.workspace) for s in release.shard_list}
    goals = {}
    for dataset, task, episode, picture, shard, offset in rows:
        # Only what this release's own shards hold can be read
        if shard not in paths or task is None:
            continue
        _, places = picture_places(paths[shard], entry_at(paths[shard], offset))
        for name, place in places.items():
            if named_picture(episode, name) == picture:
                goals[dataset, task] = PictureFile(paths[shard], *place)
    return goals


# The field that a family is scored by; of the other families it is progress
SCORED_BY = {
    SEGMENTS: "answer",
    ACTIONS: "answer",
    SUCCESS: "success",
}
OVERLAPS = (10, 25, 50)
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
Embed = Callable[[Sequence[str]], np.ndarray]


class ProcVqaRow(AnsweredRow):
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

    def identity(self) -> tuple:
        return (
            self.sample_id,
            self.family,
            self.dataset,
            self.episode_index,
            self.camera,
            self.frames,
            self.inference,
        )

    @property
    def slices(self) -> tuple[str, ...]:
        slice_names = (
            f"dataset {self.dataset}",
            f"family {self.family}",
            length_slice(self.num_frames / self.fps),
        )
        return (*slice_names, *([f"camera {self.camera}"] if self.camera else []))


Answer = tuple[PredictionLine, ProcVqaRow]


def score(
    benchmark: str,
    predictions: Iterable[PredictionLine],
    as_published: bool = False,
    embedded: Embed = similarity.embed,
) -> ScoredBenchmark:
    """`embedded`: unit vectors of texts. Raises BenchmarkError for a row that is broken, of another benchmark, or
    there twice."""

    def foreign(meta: dict) -> str | None:
        family = meta.get("family")
        families = FAMILIES_OF[benchmark]
        if family in families:
            return None
        return f"its meta_data has family {family!r}, not {', '.join(families)}"

    answers = list(zip(*lines_with_rows(ProcVqaRow, benchmark, predictions, foreign), strict=True))
    for line, row in answers:
        field = SCORED_BY.get(row.family, "progress")
        if getattr(row, field) is None:
            raise BenchmarkError(
                f"{line.where}: {field} is missing, which family {row.family} is scored by"
            )
    if as_published:
        return _published(benchmark, answers)
    return _strict(benchmark, answers, embedded)


# What an answer says


def spans_of(text: str) -> list[Span] | None:
    """The segments of an answer: the JSON list in it, half-open in picture numbers; None for what is none."""
    # Models write prose around their list: what lies between the outermost brackets is taken for it.
    start = text.find("[")
    end = text.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        entries = json.loads(repair_json(text[start : end + 1]))
        # Answers name a segment's last frame, spans the first one after it.
        return [
            (
                plain_name(str(e["action_description"])),
                int(e["start_frame"]),
                int(e["end_frame"]) + 1,
            )
            for e in entries
        ]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def success_of(line: PredictionLine) -> bool | None:
    """Whether an answer says that the run succeeded: a head's share, else yes or no, else the share in its tag."""
    words = {word.lower() for word in _YES_NO.findall(line.response)}
    if line.value is None and len(words) == 1:
        return words == {"yes"}
    share = progress_of(line)
    if share is None:
        return None
    return share >= errors.FINISHED


def progress_of(line: PredictionLine) -> float | None:
    """The share that an answer states, 0..1; None where none can be read."""
    if line.value is None:
        return share_of(line.response)
    return line.value


# Strict: each family by its own metrics; an answer that cannot be read counts as wrong

# Measures, which answers [k] could be read, progress
Found = tuple[dict[str, Measure], np.ndarray, Series | None]


def _strict(benchmark: str, answers: Sequence[Answer], embedded: Embed) -> ScoredBenchmark:
    episodes = Episodes.of(
        answers,
        lambda a: (a[1].family, a[1].dataset, str(a[1].episode_index), a[1].camera),
        lambda a: a[1].slices,
    )
    scorers: dict[str, Callable[[Sequence[Answer], Episodes], Found]] = {
        SEGMENTS: _segment_measures,
        ACTIONS: lambda chosen, its: _plan_measures(chosen, its, embedded),
        SUCCESS: _success_measures,
    }
    # No two families have a metric in common
    measures: dict[str, Measure] = {}
    counts = {}
    readable = np.ones(len(answers), bool)
    series = None
    for family in FAMILIES_OF[benchmark]:
        places = np.flatnonzero([row.family == family for _, row in answers])
        counts[f"rows_{family}"] = len(places)
        if len(places):
            measure = scorers.get(family, _progress_measures)
            family_measures, readable[places], its_series = measure(
                [answers[k] for k in places], episodes.among(places)
            )
            measures |= family_measures
            series = its_series or series
    return scored_answers(
        benchmark,
        episodes,
        measures,
        readable,
        series,
        **counts,
    )


def _means(values: Sequence[dict[str, float]], readable: np.ndarray, episodes: Episodes) -> Found:
    """Of the metrics of each answer the mean over episodes, of which each is the mean over its answers."""
    read = episodes.sums(readable, np.ones(len(readable)))
    measures = {}
    for name in values[0]:
        column = np.array([of_answer[name] for of_answer in values])
        measures[name] = mean_of(episodes.means(column), read)
    return measures, readable, None


def _segment_measures(answers: Sequence[Answer], episodes: Episodes) -> Found:
    """An answer that could not be read has found no segment."""
    values = []
    readable = []
    for line, row in answers:
        spans = spans_of(line.response)
        target = spans_of(row.answer or "")
        if target is None:
            raise BenchmarkError(f"{line.where}: its right answer is no list of segments")
        readable.append(spans is not None)
        answered_spans = spans or []
        of_answer = {
            "bf1@5": segments.boundary_f1(answered_spans, target),
            "mmae": segments.boundary_mae(answered_spans, target),
            "segment_iou": segments.segment_iou(answered_spans, target),
            "edit": segments.edit_score(answered_spans, target),
            **{
                f"segment_f1@{percent}": segments.segment_f1(answered_spans, target, percent / 100)
                for percent in OVERLAPS
            },
        }
        # Two lists without segments are alike; what is no list is wrong
        if spans is None:
            of_answer = {
                name: value if name in ("mmae", "segment_iou") else 0.0
                for name, value in of_answer.items()
            }
        values.append(of_answer)
    return _means(values, np.array(readable), episodes)


def _plan_measures(answers: Sequence[Answer], episodes: Episodes, embedded: Embed) -> Found:
    """An empty answer is wrong."""
    targets = [segments.plan_of(row.answer or "") or () for _, row in answers]
    plans = [segments.plan_of(line.response) for line, _ in answers]
    names = sorted(set(chain.from_iterable(filter(None, (*targets, *plans)))))
    vectors = dict(zip(names, embedded(names), strict=True)) if names else {}
    metrics = {"plan_success": segments.plan_success, "plan_f1": segments.semantic_f1}
    values = []
    for plan, target in zip(plans, targets, strict=True):
        if plan is None:
            values.append(dict.fromkeys(metrics, 0.0))
        else:
            values.append(
                {name: of_plan(plan, target, vectors) for name, of_plan in metrics.items()}
            )
    return _means(values, np.array([plan is not None for plan in plans]), episodes)


def _success_measures(answers: Sequence[Answer], episodes: Episodes) -> Found:
    answers_given = [success_of(line) for line, _ in answers]
    readable = np.array([success is not None for success in answers_given])
    predicted = np.array([s is True for s in answers_given])
    actual = np.array([bool(row.success) for _, row in answers])
    all_rows = np.ones(len(answers_given), bool)
    measures = {
        "success_accuracy": episodes.confusion(
            predicted, actual, all_rows, readable, errors.accuracy
        ),
        "success_balanced": episodes.confusion(
            predicted, actual, all_rows, readable, errors.balanced_accuracy
        ),
    }
    return measures, readable, None


def _progress_measures(answers: Sequence[Answer], episodes: Episodes) -> Found:
    rows = [row for _, row in answers]
    shares = np.array([progress_of(line) for line, _ in answers], np.float64)
    frame_indices = np.array([row.frames[-1] for row in rows])
    runs, order = episodes.runs(
        shares, np.array([row.progress for row in rows], np.float64), frame_indices
    )
    elapsed = (frame_indices / np.maximum([row.num_frames - 1 for row in rows], 1))[order]
    return progress_measures(runs, elapsed), ~np.isnan(shares), Series(runs, elapsed)


# As published


def _published(benchmark: str, answers: Sequence[Answer]) -> ScoredBenchmark:
    """ProcVLM's evaluation: what cannot be read is left out, numbers come from anywhere, episodes are told apart by
    their number alone, boundaries and finished answers are counted over everything."""
    if benchmark == "dataset":
        raise BenchmarkError(
            "--as-published goes with benchmarks that were published, not with dataset"
        )
    episodes = Episodes.of(answers, lambda a: (str(a[1].episode_index),))
    read = np.array([_published_numbers(line, row) for line, row in answers], np.float64)
    predicted = read[:, 0]
    target = read[:, 1]
    of_progress = read[:, 2] > 0
    hits = episodes.sums(*read[:, 3:].T)
    numeric = ~np.isnan(predicted) & ~np.isnan(target)

    # Progress over time: the numbers of each episode, in the order of the file
    places = np.flatnonzero(numeric & of_progress)
    runs, _ = episodes.among(places).runs(predicted[places], target[places], places)
    sides = (np.split(values, runs.starts[1:-1]) for values in (runs.predicted, runs.target))
    pairs = list(zip(*sides, strict=True))
    has_order = np.where(runs.lengths >= 2, 1.0, np.nan)

    # Boundaries and finished answers: counts, which are summed before anything is divided
    finished = (
        errors.confusion(predicted >= errors.FINISHED, target >= errors.FINISHED, numeric)
        * numeric[:, None]
    )
    n = len(episodes.scored)
    measures = {
        "voc": mean_of(np.nan_to_num(published.voc(runs)) * has_order),
        "tau_a": mean_of([published.kendall(p, t) for p, t in pairs]),
        "ccc": mean_of([published.ccc(p, t) if len(p) >= 2 else math.nan for p, t in pairs]),
        "epr@50": mean_of([published.effective_resolution(p) for p, _ in pairs]),
        "ubr": mean_of([published.used_bins(p, t) for p, t in pairs]),
        "bf1@5": ratio_of(hits[:, 0], hits[:, 1]),
        "mmae": ratio_of(hits[:, 2], hits[:, 0] / 2),
        "mcc@95": Measure(
            episodes.sums(*finished.T), np.ones(n, bool), np.zeros((n, 2)), published.mcc
        ),
        "coverage": ratio_of(*episodes.sums(of_progress & numeric, of_progress).T),
    }
    counts = {"rows": len(answers), "episodes": n, "numbers": int(numeric.sum())}
    return ScoredBenchmark(benchmark, episodes.scored, measures, counts)


def _published_numbers(line: PredictionLine, row: ProcVqaRow) -> tuple[float | None, ...]:
    """Progress that an answer states, that of the label, whether it is asked for, and `published.boundary_hits` of an
    answer about segments; of one that is no list, and of other families, no hits."""
    number = published.progress_number(line.response) if line.value is None else line.value
    numbers = (number, published.progress_number(row.answer or ""), row.family == PROGRESS)
    if row.family == SEGMENTS:
        predicted = published.boundary_values(line.response)
        target = published.boundary_values(row.answer or "")
        if predicted is not None and target is not None:
            return (*numbers, *published.boundary_hits(predicted, target))
    return (*numbers, 0, 0, 0)
