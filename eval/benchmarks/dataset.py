"""Any dataset that ingest reads as a benchmark: progress at moments of each run, and whether the run succeeded.

Progress labels are a column of numbers 0..1 in a LeRobot dataset's rows; success is what its rows or metadata say
(RoboFAC, arXiv 2505.12224, asks the same of runs that failed). A dataset may have either or both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.samples.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from core.files import write_file
from core.values import IMAGE_MARK
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer, question_key
from ingest.episode import Episode, EpisodeRecord, RowsError
from ingest.media.video import VideoError
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source

BENCHMARK = "dataset"
PROGRESS, SUCCESS = "progress", "success"
FAMILIES = (PROGRESS, SUCCESS)
MOMENTS = 16  # of a run that are asked about, evenly spaced, its first and last frame among them
SUCCESS_PICTURES = 8  # of the whole run
MAX_PX, QUALITY = 640, 95
SUCCESS_QUESTION = """{frames}
A robot works on this task: {task}
The pictures show its whole run in the order of time; the last one is how it ended. Was the task done? Answer yes or
no."""


def load(
    data: str,
    pictures: Path,
    parts: Sequence[str] = (),
    *,
    camera: str | None = None,
    progress_field: str = "progress",
    success_field: str = "success",
    revision: str | None = None,
    cache: Path | None = None,
    limit: int | None = None,
) -> list[Question]:
    """Questions of a dataset's runs, of the first `limit` runs; the frames shown are written below `pictures`.

    `camera`: default the first of each run. Raises SourceError, and BenchmarkError where no run has a label.
    """
    if unknown := set(parts) - set(FAMILIES):
        raise BenchmarkError(f"{BENCHMARK} has no part {min(unknown)!r}; it has {', '.join(FAMILIES)}")
    name = data.rstrip("/").rsplit("/", 1)[-1]
    config = DatasetConfig(name="benchmark", title=name, source=data, revision=revision, success_field=success_field)
    source = Source(config, None, cache)
    # Frames of another state of the source have a folder of their own
    folder = pictures / f"{name}-{source.fingerprint()[:12]}"
    families = parts or FAMILIES
    questions: list[Question] = []
    for record in list_episodes(source).records[:limit]:
        progress = _progress_labels(source, record, progress_field) if PROGRESS in families else None
        success = record.success if SUCCESS in families else None
        # A run without a label can be asked nothing: its video need not be decoded.
        if progress is None and success is None:
            continue
        shown_camera = camera or next(iter(record.cameras), "")
        run = _Run(name, record, shown_camera, progress, success, _frames_folder(folder, shown_camera, record))
        try:
            questions += _questions(source, run)
        except (VideoError, RowsError) as e:
            raise BenchmarkError(f"{name} episode {record.episode_index}: {e}") from e
    if not questions:
        raise BenchmarkError(
            f"{data}: no run has a column {progress_field!r} with numbers from 0 to 1, or says whether it succeeded "
            f"({success_field!r})"
        )
    return questions


@dataclass(frozen=True)
class _Run:
    """One run of the dataset, its labels, and the folder of its frames."""

    dataset: str
    record: EpisodeRecord
    camera: str
    progress: np.ndarray | None  # float64 [frames]
    success: bool | None
    folder: Path

    @property
    def num_frames(self) -> int:
        return self.record.num_rows or (0 if self.progress is None else len(self.progress))

    def picture(self, frame: int) -> Path:
        return self.folder / f"{frame:06d}.jpg"


def _frames_folder(folder: Path, camera: str, record: EpisodeRecord) -> Path:
    return folder / camera.replace("/", "_") / f"{record.episode_index:06d}"


def _progress_labels(source: Source, record: EpisodeRecord, column: str) -> np.ndarray | None:
    """float64 [frames] of a run, 0..1; None where its rows have no such column, or any row has no such number."""
    if not record.data_uri or not record.data_uri.endswith(".parquet") or record.num_rows is None:
        return None
    path = source.resolve(record.data_uri)
    try:
        if column not in pq.read_schema(path).names:
            return None
        # LeRobot puts the rows of many runs into one file.
        rows = pq.read_table(path, columns=[column])[column].slice(record.row_start, record.num_rows)
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{record.data_uri}: its column {column!r} cannot be read: {e}") from e
    return _shares(rows)


def _shares(rows: pa.ChunkedArray) -> np.ndarray | None:
    """float64 [rows] of a column; None where it is no column of one number 0..1 a row."""
    numbers = _flat(rows)
    is_number = pa.types.is_floating(numbers.type) or pa.types.is_integer(numbers.type)
    if not is_number or len(numbers) != len(rows):
        return None
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    # A null has become NaN, which lies in no range
    are_shares = ((values >= 0) & (values <= 1)).all()
    return values if are_shares else None


def _flat(rows: pa.ChunkedArray) -> pa.Array:
    """The values of a column; LeRobot writes a number as a list of one."""
    values = rows.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values


def _questions(source: Source, run: _Run) -> list[Question]:
    """The questions about one run; the frames that they show are written."""
    if run.num_frames == 0:
        return []
    questions = []
    if run.progress is not None:
        config = SamplesConfig()
        for now in _evenly_spaced(run.num_frames, MOMENTS):
            questions.append(_question(run, PROGRESS, window(now, run.record.fps, config)))
    if run.success is not None:
        questions.append(_question(run, SUCCESS, _evenly_spaced(run.num_frames, SUCCESS_PICTURES)))

    # The run is decoded once for all of its questions
    needed = set().union(*(question.row["frames"] for question in questions))
    _write_frames(read_episode(source, run.record), run, needed)
    return questions


def _evenly_spaced(num_frames: int, count: int) -> list[int]:
    """Frames of a run, its first and last among them; fewer than `count` of a short run."""
    return sorted({round(x) for x in np.linspace(0, num_frames - 1, count)})


def _write_frames(episode: Episode, run: _Run, needed: set[int]) -> None:
    """JPEGs of some frames, those that are not there yet. Raises VideoError, BenchmarkError."""
    missing = {frame for frame in needed if not run.picture(frame).exists()}
    if not missing:
        return
    # One pass over the video, ended with the last frame that is wanted.
    for frame, _, picture in episode.frames(run.camera):
        if frame not in missing:
            continue
        write_file(run.picture(frame), jpeg(picture.rgb(), MAX_PX))
        missing.discard(frame)
        if not missing:
            return
    raise BenchmarkError(f"{episode.record.source_id}: camera {run.camera} has no frame {min(missing)}")


def jpeg(rgb: np.ndarray, max_px: int) -> bytes:
    """A picture, uint8 [h, w, 3], no larger than max_px on its longer side."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    scale = min(1.0, max_px / max(bgr.shape[:2]))
    if scale < 1:
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _question(run: _Run, family: str, frames: list[int]) -> Question:
    record, now = run.record, frames[-1]
    if family == PROGRESS:
        text = progress_question(record.task, len(frames))
    else:
        marks = "\n".join([IMAGE_MARK] * len(frames))
        text = SUCCESS_QUESTION.format(frames=marks, task=task_text(record.task))
    # The label is that of the last frame shown: the moment that the question calls now.
    score = None
    if family == PROGRESS and run.progress is not None:
        score = float(run.progress[now])
    row: dict[str, Any] = {
        "dataset": run.dataset,
        "episode_index": record.episode_index,
        "family": family,
        "camera": run.camera,
        "frames": frames,
        "num_frames": run.num_frames,
        "fps": record.fps,
        "progress": score,
        "success": run.success,
    }
    return Question(
        key=question_key(BENCHMARK, family, row),
        benchmark=BENCHMARK,
        part=family,
        family=family,
        trajectory=str(record.episode_index),
        dataset=run.dataset,
        camera=run.camera,
        goal=record.task or "",
        text=text,
        pictures=tuple(PictureFile(run.picture(frame)) for frame in frames),
        truth=RightAnswer(score=score, success=run.success),
        frame_index=now,
        num_frames=run.num_frames,
        row=row,
    )
