"""Any dataset that ingest reads as a benchmark: progress at moments of each run, and whether the run succeeded.

Progress labels are a column of numbers 0..1 in a LeRobot dataset's rows; success is what its rows or metadata say
(RoboFAC, arXiv 2505.12224, asks the same of runs that failed). A dataset may have either or both.
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from annotate.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from core.files import write_file
from core.values import image_marks, spread
from eval.benchmarks import procvqa
from eval.benchmarks.question import BenchmarkError, Data, PictureFile, Question, encoded_jpeg
from ingest.episode import EpisodeRecord
from ingest.formats.tables import has_numbers, read_columns, single_numbers
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source

BENCHMARK = "dataset"
PROGRESS = "progress"
SUCCESS = "success"
FAMILIES = (PROGRESS, SUCCESS)
MOMENTS = 16  # of a run that are asked about, evenly spaced, its first and last frame among them
SUCCESS_PICTURES = 8  # of the whole run
MAX_PX = 640
SUCCESS_QUESTION = """{frames}
A robot works on this task: {task}
The pictures show its whole run in the order of time; the last one is how it ended. Was the task done? Answer yes or
no."""


def load(data: Data) -> list[Question]:
    """Questions of a dataset's runs, of the first `limit` runs; the frames shown are written below `image_root`.

    Raises SourceError, and BenchmarkError where no run has a label.
    """
    name = data.address.rstrip("/").rsplit("/", 1)[-1]
    source = data.source()
    # Frames of another state of the source have a folder of their own
    folder = data.frames / f"{name}-{source.fingerprint()[:12]}"
    questions: list[Question] = []
    for record in list_episodes(source).records[: data.asked.limit]:
        try:
            progress = _progress_labels(source, record) if PROGRESS in data.parts else None
            success = record.success if SUCCESS in data.parts else None
            # A run without a label can be asked nothing: its video need not be decoded
            if record.num_rows and (progress is not None or success is not None):
                questions += _questions(source, name, record, progress, success, folder)
        except DataError as e:
            raise BenchmarkError(f"{name} episode {record.episode_index}: {e}") from e
    if not questions:
        raise BenchmarkError(
            f"{data.address}: no run has a column {PROGRESS!r} with numbers from 0 to 1, or says whether it succeeded "
            f"({SUCCESS!r})"
        )
    return questions


def _progress_labels(source: Source, record: EpisodeRecord) -> np.ndarray | None:
    """float64 [frames] of a run, 0..1; None where its rows have no such column, or any row has no such number."""
    data = record.data_uri or ""
    if not data.endswith(".parquet") or record.num_rows is None:
        return None
    # LeRobot puts the rows of many runs into one file
    rows = read_columns(source.resolve(data), record.row_start, record.num_rows, (PROGRESS,))
    if not has_numbers(rows.schema, PROGRESS):
        return None
    # A null has become NaN, which lies in no range
    values = single_numbers(rows[PROGRESS])
    return values if ((values >= 0) & (values <= 1)).all() else None


def _questions(
    source: Source,
    name: str,
    record: EpisodeRecord,
    progress: np.ndarray | None,
    success: bool | None,
    folder: Path,
) -> list[Question]:
    num_frames = record.num_rows or 0
    camera = next(iter(record.cameras), "")
    pictures = folder / camera.replace("/", "_") / f"{record.episode_index:06d}"

    def question(family: str, frames: list[int], text: str, score: float | None) -> Question:
        row = {
            "dataset": name,
            "episode_index": record.episode_index,
            "family": family,
            "camera": camera,
            "frames": frames,
            "num_frames": num_frames,
            "fps": record.fps,
            "progress": score,
            "success": success,
        }
        return replace(
            procvqa.question(BENCHMARK, row),
            goal=record.task or "",
            text=text,
            pictures=tuple(PictureFile(pictures / f"{frame:06d}.jpg") for frame in frames),
        )

    questions = []
    # The label is that of the last frame shown: the moment that the question calls now
    if progress is not None:
        for frame_index in spread(range(num_frames), MOMENTS):
            frames = window(frame_index, record.fps, SamplesConfig())
            text = progress_question(record.task, len(frames))
            questions.append(question(PROGRESS, frames, text, float(progress[frames[-1]])))
    if success is not None:
        frames = spread(range(num_frames), SUCCESS_PICTURES)
        text = SUCCESS_QUESTION.format(frames=image_marks(len(frames)), task=task_text(record.task))
        questions.append(question(SUCCESS, frames, text, None))
    needed = set(chain.from_iterable(q.row["frames"] for q in questions))
    _write_frames(source, record, camera, pictures, needed)
    return questions


def _write_frames(
    source: Source, record: EpisodeRecord, camera: str, folder: Path, needed: set[int]
) -> None:
    missing = {frame for frame in needed if not (folder / f"{frame:06d}.jpg").exists()}
    if not missing:
        return
    # One pass over the video, ended with the last frame that is wanted
    for frame, _, picture in read_episode(source, record).frames(camera):
        if frame in missing:
            write_file(folder / f"{frame:06d}.jpg", encoded_jpeg(picture.rgb(), MAX_PX))
            missing.discard(frame)
        if not missing:
            return
    raise BenchmarkError(f"{record.source_id}: camera {camera} has no frame {min(missing)}")
