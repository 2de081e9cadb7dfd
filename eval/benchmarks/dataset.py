"""Any dataset that ingest reads as a benchmark: progress at moments of each run, and whether the run succeeded.

Progress labels are a column of numbers 0..1 in a LeRobot dataset's rows; success is what its rows or metadata say
(RoboFAC, arXiv 2505.12224, asks the same of runs that failed). A dataset may have either or both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.samples.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from annotate.samples.wording import IMAGE_MARK
from core.files import write_file
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
    folder = pictures / f"{name}-{source.fingerprint()[:12]}"
    questions: list[Question] = []
    for record in list_episodes(source).records[:limit]:
        progress = _labels(source, record, progress_field) if PROGRESS in (parts or FAMILIES) else None
        success = record.success if SUCCESS in (parts or FAMILIES) else None
        if progress is None and success is None:
            continue
        shown = camera or (record.cameras[0] if record.cameras else "")
        try:
            questions += _questions(name, source, record, shown, progress, success, folder)
        except (VideoError, RowsError) as e:
            raise BenchmarkError(f"{name} episode {record.episode_index}: {e}") from e
    if not questions:
        raise BenchmarkError(
            f"{data}: no run has a column {progress_field!r} with numbers from 0 to 1, or says whether it succeeded "
            f"({success_field!r})"
        )
    return questions


def _labels(source: Source, record: EpisodeRecord, column: str) -> np.ndarray | None:
    """float64 [frames] of a run, 0..1; None where its rows have no such column, or any row has no such number."""
    if not record.data_uri or not record.data_uri.endswith(".parquet") or record.num_rows is None:
        return None
    path = source.resolve(record.data_uri)
    try:
        if column not in pq.read_schema(path).names:
            return None
        rows = pq.read_table(path, columns=[column])[column].slice(record.row_start, record.num_rows)
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{record.data_uri}: its column {column!r} cannot be read: {e}") from e
    flat = rows.combine_chunks()
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = flat.flatten()
    if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)) or len(flat) != len(rows):
        return None
    values = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    return values if np.isfinite(values).all() and ((values >= 0) & (values <= 1)).all() else None


def _questions(
    name: str,
    source: Source,
    record: EpisodeRecord,
    camera: str,
    progress: np.ndarray | None,
    success: bool | None,
    folder: Path,
) -> list[Question]:
    n = record.num_rows or (0 if progress is None else len(progress))
    if n == 0:
        return []
    config = SamplesConfig()
    asked: list[tuple[str, list[int]]] = []
    if progress is not None:
        moments = sorted({round(x) for x in np.linspace(0, n - 1, MOMENTS)})
        asked += [(PROGRESS, window(now, record.fps, config)) for now in moments]
    if success is not None:
        asked.append((SUCCESS, sorted({round(x) for x in np.linspace(0, n - 1, SUCCESS_PICTURES)})))
    at = folder / camera.replace("/", "_") / f"{record.episode_index:06d}"
    _write_frames(read_episode(source, record), camera, {f for _, frames in asked for f in frames}, at)
    return [_question(name, record, camera, n, family, frames, progress, success, at) for family, frames in asked]


def _write_frames(episode: Episode, camera: str, wanted: set[int], folder: Path) -> None:
    """JPEGs of some frames, those that are not there yet. Raises VideoError, BenchmarkError."""
    missing = {f for f in wanted if not (folder / f"{f:06d}.jpg").exists()}
    for frame, _, picture in episode.frames(camera) if missing else ():
        if frame in missing:
            bgr = cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2BGR)
            scale = min(1.0, MAX_PX / max(bgr.shape[:2]))
            if scale < 1:
                bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            write_file(
                folder / f"{frame:06d}.jpg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            )
            missing.discard(frame)
            if not missing:
                return
    if missing:
        raise BenchmarkError(f"{episode.record.source_id}: camera {camera} has no frame {min(missing)}")


def _question(
    name: str,
    record: EpisodeRecord,
    camera: str,
    num_frames: int,
    family: str,
    frames: list[int],
    progress: np.ndarray | None,
    success: bool | None,
    folder: Path,
) -> Question:
    now = frames[-1]
    score = None if progress is None or family == SUCCESS else float(progress[now])
    row: dict[str, Any] = {
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
    if family == PROGRESS:
        text = progress_question(record.task, len(frames))
    else:
        text = SUCCESS_QUESTION.format(frames="\n".join([IMAGE_MARK] * len(frames)), task=task_text(record.task))
    return Question(
        key=question_key(BENCHMARK, family, row),
        benchmark=BENCHMARK,
        part=family,
        family=family,
        trajectory=str(record.episode_index),
        dataset=name,
        camera=camera,
        goal=record.task or "",
        text=text,
        pictures=tuple(PictureFile(folder / f"{f:06d}.jpg") for f in frames),
        truth=RightAnswer(score=score, success=success),
        frame_index=now,
        num_frames=num_frames,
        row=row,
    )
