"""Graded runs: benchmarks of videos with an instruction and a grade of how the run ended.

rbm-eval     Robometer's evaluation sets (arXiv 2603.02115): TABLE in each split's folder, a row for each video with its
             quality (failure, suboptimal, success) and, where somebody gave one, partial success 0..1
roboreward   RoboRewardBench (arXiv 2601.00675): LINES in each split's folder, a reward of 1 to 5 for each video

A run is asked about once, at its end: how much of the task is done?
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from annotate.samples.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer
from eval.benchmarks.rows import json_lines, read_row
from eval.benchmarks.source import MAX_PX, Data, Numbered, frame_files, holds
from ingest.media.frames import VideoError
from ingest.media.video import Frame, probe
from ingest.sources.files import Source

RBM, ROBOREWARD = "rbm-eval", "roboreward"
TABLE, LINES = "metadata.parquet", "metadata.jsonl"
QUALITIES = {"failure": 0.0, "suboptimal": 0.5, "success": 1.0, "successful": 1.0}
POINTS = (1, 5)  # of RoboReward
FAMILY = "progress"
MAX_LINE_BYTES = 4 << 20


def _share(value: Any) -> float | None:
    """Published tables have texts: "0.5" as 0.5, an empty one, "None" and "nan" as None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "nan", "null")):
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
    return "success" if value == "successful" else value


Text = Annotated[str, Field(min_length=1)]


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


@dataclass(frozen=True)
class GradedRun:
    """`grade` ranks runs, 0..1; `share`: of the task that is done, where the benchmark says it."""

    video: str
    name: str
    task: str
    dataset: str
    grade: float
    share: float | None
    success: bool | None
    facts: Mapping[str, Any]


def load(data: Data) -> list[Question]:
    """A question about each run of some splits, the first `limit` of each; pictures are written below `image_root`.

    A video that is not there or damaged costs its own question, whose answer then says so. Raises BenchmarkError for a
    row that is wrong, and where no video at all is there; SourceError.
    """
    source, benchmark, address = data.source(), data.asked.benchmark, data.address
    tables = {split: f"{split}/{TABLE if benchmark == RBM else LINES}" for split in data.parts}
    there = {split: uri for split, uri in tables.items() if holds(source, uri)}
    if not there:
        raise BenchmarkError(f"{address} holds no {' and no '.join(tables.values())}")
    questions, found, missing = [], 0, ""
    for split, table in there.items():
        for run in _runs(benchmark, source, table, data.asked.limit):
            uri = f"{split}/{run.video}"
            if holds(source, uri):
                found, pictures = found + 1, _pictures(source.resolve(uri), data.frames)
            else:
                missing, pictures = missing or uri, (PictureFile(source.path / uri),)
            questions.append(_question(benchmark, split, run, pictures))
    if not questions:
        raise BenchmarkError(f"{address} holds no run in {', '.join(there)}")
    if not found:
        raise BenchmarkError(f"none of {len(questions)} videos of {address} is there, such as {missing}")
    return questions


def _runs(benchmark: str, source: Source, uri: str, limit: int | None) -> Iterator[GradedRun]:
    """Raises BenchmarkError, which names the row."""
    path = source.resolve(uri)
    lines = json_lines(path, uri, MAX_LINE_BYTES, f"no row of {ROBOREWARD}")
    rows = _table_rows(path, uri) if benchmark == RBM else lines
    seen: dict[str, str] = {}
    for where, raw in islice(rows, limit):
        run = _rbm(read_row(RbmRow, raw, where)) if benchmark == RBM else _roboreward(raw, where)
        if (first := seen.setdefault(run.name, where)) != where:
            raise BenchmarkError(f"{where} is the same run as {first}: {run.name}")
        yield run


def _table_rows(path: Path, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = list(RbmRow.model_fields)
    try:
        names = pq.read_schema(path).names
        if lacking := [c for c in ("file_name", "id", "task", "quality_label") if c not in names]:
            raise BenchmarkError(f"{uri} has no column {', '.join(lacking)}: it is no table of {RBM}")
        table = pq.read_table(path, columns=[c for c in columns if c in names])
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{uri} cannot be read as Parquet: {e}") from e
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{uri} row {number}", {k: v for k, v in row.items() if v is not None}


def _rbm(row: RbmRow) -> GradedRun:
    grade = QUALITIES[row.quality_label] if row.partial_success is None else row.partial_success
    # A run that went all the way did all of the task, however well; of the others only a person knows
    share = 1.0 if row.partial_success is None and row.quality_label == "success" else row.partial_success
    facts = {"quality": row.quality_label}
    return GradedRun(
        row.file_name, row.id, row.task, row.data_source, grade, share, row.quality_label == "success", facts
    )


def _roboreward(raw: dict[str, Any], where: str) -> GradedRun:
    """1 is nothing, 5 is all of it, as Robometer's loader has it, too. The first folder of a video names its source."""
    row = read_row(RoboRewardRow, raw, where)
    share = (row.reward - POINTS[0]) / (POINTS[1] - POINTS[0])
    # One video stands under several instructions
    name = f"{row.file_name} {row.task}"
    dataset = row.file_name.split("/")[0] if "/" in row.file_name else ""
    return GradedRun(row.file_name, name, row.task, dataset, share, share, share == 1, {"reward": row.reward})


def _question(benchmark: str, split: str, run: GradedRun, pictures: tuple[PictureFile, ...]) -> Question:
    # The first is that of the run's beginning: it is not among those asked about
    first, shown = (pictures[0], pictures[1:]) if len(pictures) > 1 else (None, pictures)
    row = {
        "dataset": run.dataset,
        "run": run.name,
        "split": split,
        "task": run.task,
        "video": run.video,
        "grade": run.grade,
        "progress": run.share,
        "success": run.success,
        **run.facts,
    }
    return Question(
        benchmark=benchmark,
        part=split,
        family=FAMILY,
        trajectory=run.name,
        dataset=run.dataset or split,
        camera="",
        goal=task_text(run.task),
        text=progress_question(run.task, len(shown), with_actions=False),
        pictures=shown,
        truth=RightAnswer(score=run.share, success=run.success),
        frame_index=1,
        num_frames=2,  # asked at its end, which is all that a clock has to know
        first=first,
        row=row,
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

    return frame_files(video, folder / "graded", chosen, f"{MAX_PX} {config.window_frames} {config.window_step_s}")
