"""Graded runs: benchmarks of videos with an instruction and a grade of how the run ended.

rbm-eval     Robometer's evaluation sets (arXiv 2603.02115): TABLE in each split's folder, a row for each video with its
             quality (failure, suboptimal, success) and, where somebody gave one, partial success 0..1
roboreward   RoboRewardBench (arXiv 2601.00675): LINES in each split's folder, a reward of 1 to 5 for each video

A run is asked about once, at its end: how much of the task is done?
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from annotate.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from eval.benchmarks.question import (
    MAX_PX,
    BenchmarkError,
    Data,
    Numbered,
    PictureFile,
    Question,
    frame_files,
    has_file,
    json_lines,
    read_row,
)
from eval.metrics.outcomes import auc, ranking_measures
from eval.metrics.score import Measure
from eval.scored import BenchmarkAnswers, ScoredBenchmark
from ingest.media.frames import VideoError
from ingest.media.video import Frame, probe
from ingest.sources.files import Source

RBM = "rbm-eval"
ROBOREWARD = "roboreward"
TABLE = "metadata.parquet"
LINES = "metadata.jsonl"
QUALITIES = {"failure": 0.0, "suboptimal": 0.5, "success": 1.0, "successful": 1.0}
POINTS = (1, 5)  # of RoboReward
FAMILY = "progress"
MAX_LINE_BYTES = 4 << 20


def _share(value: Any) -> float | None:
    """Published tables have texts: "0.5" as 0.5, an empty one, "None" and "nan" as None. Raises ValueError."""
    if value is None or (
        isinstance(value, str) and value.strip().lower() in ("", "none", "nan", "null")
    ):
        return None
    share = float(value)
    if math.isnan(share):
        return None
    if not 0 <= share <= 1:
        raise ValueError(f"is {value!r}, not a share from 0 to 1")
    return share


def _quality(value: Any) -> str:
    if value not in QUALITIES:
        raise ValueError(f"is {value!r}: it is one of {', '.join(QUALITIES)}")
    if value == "successful":
        return "success"
    return value


Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class RbmRow(BaseModel):
    model_config = ConfigDict(extra="ignore")

    file_name: Text
    id: Text
    task: Text
    quality_label: Annotated[str, BeforeValidator(_quality)]
    partial_success: Annotated[float | None, BeforeValidator(_share)] = None
    data_source: str = ""


class RoboRewardRow(BaseModel):
    model_config = ConfigDict(extra="ignore")

    file_name: Text
    task: Text
    reward: Annotated[int, Field(strict=True, ge=POINTS[0], le=POINTS[1])]


def load(data: Data) -> list[Question]:
    """A question about each run of some splits, the first `limit` of each; pictures are written below `image_root`.

    A video that is not there or damaged costs its own question, whose answer then says so. Raises BenchmarkError for a
    row that is wrong, and where no video at all is there; SourceError.
    """
    source = data.source()
    benchmark = data.asked.benchmark
    address = data.address
    tables = {split: f"{split}/{TABLE if benchmark == RBM else LINES}" for split in data.parts}
    present_tables = {split: uri for split, uri in tables.items() if has_file(source, uri)}
    if not present_tables:
        raise BenchmarkError(f"{address} holds no {' and no '.join(tables.values())}")
    questions = []
    num_readable = 0
    missing = ""
    for split, table in present_tables.items():
        for row in _runs(benchmark, source, split, table, data.asked.limit):
            uri = f"{split}/{row['video']}"
            if has_file(source, uri):
                num_readable = num_readable + 1
                pictures = _pictures(source.resolve(uri), data.frames)
            else:
                missing = missing or uri
                pictures = (PictureFile(source.path / uri),)
            # The first is that of the run's beginning: it is not among those asked about
            later = pictures[1:] or pictures
            text = progress_question(row["task"], len(later), with_actions=False)
            first = pictures[0] if len(pictures) > 1 else None
            q = question(benchmark, row)
            questions.append(replace(q, text=text, pictures=later, first=first))
    if not questions:
        raise BenchmarkError(f"{address} holds no run in {', '.join(present_tables)}")
    if not num_readable:
        raise BenchmarkError(
            f"none of {len(questions)} videos of {address} is there, such as {missing}"
        )
    return questions


def _runs(
    benchmark: str, source: Source, split: str, uri: str, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Raises BenchmarkError, which names the row."""
    path = source.resolve(uri)
    lines = json_lines(path, uri, MAX_LINE_BYTES, f"no row of {ROBOREWARD}")
    rows, read = (_table_rows(path, uri), _rbm) if benchmark == RBM else (lines, _roboreward)
    first_lines: dict[str, str] = {}
    for line_name, raw in islice(rows, limit):
        row = read(raw, line_name, split)
        if (first := first_lines.setdefault(row["run"], line_name)) != line_name:
            raise BenchmarkError(f"{line_name} is the same run as {first}: {row['run']}")
        yield row


def _table_rows(path: Path, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = list(RbmRow.model_fields)
    try:
        names = pq.read_schema(path).names
        if lacking := [c for c in ("file_name", "id", "task", "quality_label") if c not in names]:
            raise BenchmarkError(
                f"{uri} has no column {', '.join(lacking)}: it is no table of {RBM}"
            )
        table = pq.read_table(path, columns=[c for c in columns if c in names])
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{uri} cannot be read as Parquet: {e}") from e
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{uri} row {number}", {k: v for k, v in row.items() if v is not None}


def _rbm(raw: dict[str, Any], line_name: str, split: str) -> dict[str, Any]:
    """`grade` ranks runs, 0..1; `progress`: the share of the task that is done, where the benchmark says it."""
    row = read_row(RbmRow.model_validate, raw, line_name)
    went = row.quality_label
    # A run that went all the way did all of the task, however well; of the others only a person knows
    share = 1.0 if row.partial_success is None and went == "success" else row.partial_success
    return {
        "dataset": row.data_source,
        "run": row.id,
        "split": split,
        "task": row.task,
        "video": row.file_name,
        "grade": QUALITIES[went] if row.partial_success is None else row.partial_success,
        "progress": share,
        "success": went == "success",
        "quality": went,
    }


def _roboreward(raw: dict[str, Any], line_name: str, split: str) -> dict[str, Any]:
    """1 is nothing, 5 is all of it, as Robometer's loader has it, too. The first folder of a video names its source."""
    row = read_row(RoboRewardRow.model_validate, raw, line_name)
    share = (row.reward - POINTS[0]) / (POINTS[1] - POINTS[0])
    return {
        "dataset": row.file_name.split("/")[0] if "/" in row.file_name else "",
        "run": f"{row.file_name} {row.task}",  # one video stands under several instructions
        "split": split,
        "task": row.task,
        "video": row.file_name,
        "grade": share,
        "progress": share,
        "success": share == 1,
        "reward": row.reward,
    }


class GradedRow(BaseModel):
    """A question about a run, as prediction files carry it."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    run: Text
    split: str
    task: str
    grade: Share
    progress: Share | None = None
    success: bool | None = None


def question(benchmark: str, raw: Mapping[str, Any]) -> Question:
    """The question of a row, without its pictures. What is resampled is tasks: runs of one are compared. Raises
    ValueError."""
    row = GradedRow.model_validate(raw)
    return Question(
        benchmark=benchmark,
        part=row.split,
        family=FAMILY,
        trajectory=row.run,
        dataset=row.dataset or row.split,
        camera="",
        goal=task_text(row.task),
        text="",
        pictures=(),
        progress=row.progress,
        success=row.success,
        frame_index=1,
        num_frames=2,  # asked at its end, which is all that a clock has to know
        row=raw,
        unit=(row.split, row.dataset, row.task),
        slices=(f"part {row.split}", *([f"dataset {row.dataset}"] if row.dataset else [])),
    )


def _pictures(video: Path, folder: Path) -> tuple[PictureFile, ...]:
    """A video's first frame and the window that ends it."""
    config = SamplesConfig()

    def chosen(frames: Numbered) -> Iterator[tuple[int, Frame]]:
        fps = probe(video).fps
        reach = round((config.window_frames - 1) * config.window_step_s * fps) + 1
        last: deque[tuple[int, Frame]] = deque(maxlen=max(1, reach))
        for number, frame in frames:
            if number == 0:
                yield number, frame
            last.append((number, frame))
        if not last:
            raise VideoError(f"{video.name} holds no frame")
        by_number = dict(last)
        yield from ((f, by_number[f]) for f in window(last[-1][0], fps, config) if f in by_number)

    return frame_files(
        video, folder / "graded", chosen, f"{MAX_PX} {config.window_frames} {config.window_step_s}"
    )


# Scores


def score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """An answer that cannot be read is as wrong as can be."""
    tasks = answers.episodes
    answer_values = answers.values
    is_answered = answers.is_read
    grades, shares, success = map(answers.column, ("grade", "progress", "success"))
    worst = np.where(is_answered, answer_values, (grades < 0.5).astype(np.float64))
    runs, _ = tasks.runs(answer_values, grades, np.arange(len(answer_values)))
    measures: dict[str, Measure] = {
        **ranking_measures(runs),
        "final_mae": tasks.ratio(np.abs(worst - shares), ~np.isnan(shares), answers.read),
        "coverage": tasks.ratio(is_answered, answers.everywhere, answers.read),
    }
    if answers.benchmark == ROBOREWARD:
        low, high = POINTS
        points = np.rint(low + (high - low) * worst)
        right = np.rint(low + (high - low) * grades)
        farthest = np.maximum(right - low, high - right)
        off = np.where(is_answered, np.abs(points - right), farthest)
        is_right = (points == right) & is_answered
        measures["points_mae"] = tasks.ratio(off, answers.everywhere, answers.read)
        measures["points_accuracy"] = tasks.ratio(is_right, answers.everywhere, answers.read)
    # Over all runs whose outcome is known, where these are not all alike
    if np.nanmin(success, initial=1) < np.nanmax(success, initial=0):
        by_run = auc(np.where(np.isnan(success), np.nan, answer_values), success == 1)
        parts = tasks.sums(*by_run.parts.T)
        counted = parts.sum(axis=1) > 0
        measures["success_auc"] = Measure(parts, counted, answers.read, by_run.statistic)
    return answers.scored(measures)
