"""ProcVQA's two benchmarks from a release, procvqa-id (split test_id) and procvqa-ood (split test_ood); the scores of
its three families and of runs of any dataset: segments, plans, progress over time, success."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
from json_repair import repair_json
from pydantic import BaseModel, Field

from annotate import similarity
from core.values import spread
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import (
    BenchmarkError,
    PictureFile,
    PredictionLine,
    Question,
    share_of,
)
from eval.metrics import errors, segments
from eval.metrics.score import Measure
from eval.metrics.segments import Span, plain_name
from eval.scored import BenchmarkAnswers, ScoredBenchmark, length_slice, progress_measures
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import usable_episodes
from warehouse.releases.release import Release
from warehouse.shards.shard import entry_at, named_picture, picture_places, read_index, shown

SPLITS = {"procvqa-id": "test_id", "procvqa-ood": "test_ood"}
SEGMENTS = "procvqa_a"
ACTIONS = "procvqa_b"
PROGRESS = "procvqa_c"
SUCCESS = "success"
FAMILIES = (SEGMENTS, ACTIONS, PROGRESS)
# By benchmark; of others whose rows are like these, progress alone
FAMILIES_OF = {**dict.fromkeys(SPLITS, FAMILIES), "dataset": ("progress", SUCCESS)}
OF_PROGRESS = ("progress",)
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
    """Which samples are asked: those of these families, and of this form where it is given;
    `labelled`: that have a label of progress. `most`: of so many episodes, spread over all; None:
    of all."""

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


class ProcVqaRow(BaseModel):
    """A question about a run, as prediction files carry it."""

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


def question(benchmark: str, raw: Mapping[str, Any]) -> Question:
    """The question of a row, without its words and pictures. Raises ValueError."""
    family = raw.get("family")
    families = FAMILIES_OF.get(benchmark, OF_PROGRESS)
    if family not in families:
        raise ValueError(f"its meta_data has family {family!r}, not {', '.join(families)}")
    return question_of(benchmark, raw, ProcVqaRow.model_validate(raw))


def question_of(benchmark: str, raw: Mapping[str, Any], row: ProcVqaRow) -> Question:
    slices = (
        f"dataset {row.dataset}",
        f"family {row.family}",
        length_slice(row.num_frames / row.fps),
    )
    return Question(
        benchmark=benchmark,
        part=row.family,
        family=row.family,
        trajectory=str(row.episode_index),
        dataset=row.dataset,
        camera=row.camera,
        goal="",
        text="",
        pictures=(),
        progress=row.progress,
        success=row.success,
        frame_index=row.frames[-1],
        num_frames=row.num_frames,
        row=raw,
        unit=(row.family, row.dataset, str(row.episode_index), row.camera),
        slices=(*slices, *([f"camera {row.camera}"] if row.camera else [])),
        answer=row.answer,
    )


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions of some families (parts) of procvqa-id or procvqa-ood, the first `limit` of
    each. Raises BenchmarkError or ShardError."""
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
    """A question for each sample that is chosen, as they lie in the shards; `con`: the lake as the
    release has it.

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
            yield replace(
                question_of(benchmark, meta_data, ProcVqaRow.model_validate(meta_data)),
                goal=episode.task or "",
                text=row["question"],
                pictures=tuple(PictureFile(tar, *place) for place in shown(row, places)),
            )


def goal_pictures(lake: Lake, release: Release) -> dict[tuple[str, str], PictureFile]:
    """By (dataset, task): the last frame of the first training run that succeeded. Of each its
    place alone is kept."""
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
Embed = Callable[[Sequence[str]], np.ndarray]  # unit vectors of texts


# What an answer says


def spans_of(text: str) -> list[Span] | None:
    """The segments of an answer: the JSON list in it, half-open in picture numbers; None for what
    is none."""
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
    """Whether an answer says that the run succeeded: a head's share, else yes or no, else the share
    in its tag."""
    words = {word.lower() for word in _YES_NO.findall(line.response)}
    if line.value is None and len(words) == 1:
        return words == {"yes"}
    share = share_of(line.response) if line.value is None else line.value
    if share is None:
        return None
    return share >= errors.FINISHED


# Each family by its own metrics; an answer that cannot be read counts as wrong

Found = tuple[dict[str, Measure], np.ndarray]  # measures, and which answers [k] could be read


def score(answers: BenchmarkAnswers, embedded: Embed = similarity.embed) -> ScoredBenchmark:
    """Raises BenchmarkError for a row without what it is scored by."""
    scorers: dict[str, Callable[[BenchmarkAnswers], Found]] = {
        SEGMENTS: _segment_measures,
        ACTIONS: lambda chosen: _plan_measures(chosen, embedded),
        SUCCESS: _success_measures,
    }
    # No two families have a metric in common
    measures: dict[str, Measure] = {}
    counts = {}
    readable = answers.is_read
    series = None
    for family in FAMILIES_OF.get(answers.benchmark, OF_PROGRESS):
        places = np.flatnonzero([q.family == family for q in answers.questions])
        counts[f"rows_{family}"] = len(places)
        if not len(places):
            continue
        chosen = answers.among(places)
        field = SCORED_BY.get(family, "progress")
        for q, line in zip(chosen.questions, chosen.lines, strict=True):
            if getattr(q, field) is None:
                raise BenchmarkError(
                    f"{line.where}: {field} is missing, which family {family} is scored by"
                )
        if family in scorers:
            family_measures, readable[places] = scorers[family](chosen)
            measures |= family_measures
        else:
            series = chosen.series
            measures |= progress_measures(series)
    return answers.scored(measures, readable, series, **counts)


def _segment_measures(answers: BenchmarkAnswers) -> Found:
    """An answer that could not be read has found no segment: it has its distance from the labelled
    ones, and else 0."""
    values = []
    is_read = []
    for q, line in zip(answers.questions, answers.lines, strict=True):
        replies = spans_of(line.response)
        target = spans_of(q.answer or "")
        if target is None:
            raise BenchmarkError(f"{line.where}: its right answer is no list of segments")
        spans = replies or []
        of_answer = {
            "bf1@5": segments.boundary_f1(spans, target),
            "mmae": segments.boundary_mae(spans, target),
            "segment_iou": segments.segment_iou(spans, target),
            "edit": segments.edit_score(spans, target),
            **{
                f"segment_f1@{percent}": segments.segment_f1(spans, target, percent / 100)
                for percent in OVERLAPS
            },
        }
        # Two lists without segments are alike; what is no list is wrong
        zeros = dict.fromkeys(
            of_answer.keys() - {"mmae", "segment_iou"} if replies is None else (), 0
        )
        values.append(of_answer | zeros)
        is_read.append(replies is not None)
    return answers.means(values, np.array(is_read)), np.array(is_read)


def _plan_measures(answers: BenchmarkAnswers, embedded: Embed) -> Found:
    """An empty answer is wrong."""
    targets = [segments.plan_of(q.answer or "") or () for q in answers.questions]
    plans = [segments.plan_of(line.response) for line in answers.lines]
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
    is_read = np.array([plan is not None for plan in plans])
    return answers.means(values, is_read), is_read


def _success_measures(answers: BenchmarkAnswers) -> Found:
    replies = list(map(success_of, answers.lines))
    readable = np.array([success is not None for success in replies])
    predicted = np.array([success is True for success in replies])
    actual = np.array([bool(q.success) for q in answers.questions])
    statistics = {
        "success_accuracy": errors.accuracy,
        "success_balanced": errors.balanced_accuracy,
    }
    measures = {
        name: answers.episodes.confusion(predicted, actual, answers.everywhere, readable, statistic)
        for name, statistic in statistics.items()
    }
    return measures, readable
