"""Robometer's rows (dataset_upload/generate_hf_dataset.py, BASE_FEATURES; jesbu1/robometer @4dc7d0f7): one per view.

id, task, lang_vector (all-MiniLM-L6-v2 of the task), data_source, frames (path of a video), is_robot, quality_label
(successful, suboptimal, failure) and partial_success in 0..1. It knows how far a run came, and nothing of when.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from annotate.imported_label import EpisodeAnnotation, ImportedError, ImportedLabel, whole_run
from annotate.progress import NOTHING_STATED, StatedEnd

SUCCESSFUL, SUBOPTIMAL, FAILURE = "successful", "suboptimal", "failure"
HALF = 0.5  # from which on a run that did not succeed is suboptimal
NEEDED = ("id", "quality_label", "partial_success")
EPISODE_ID = re.compile(r"^(?:(?P<dataset>.+)/)?(?:\D*)(?P<episode>\d+)(?:/[^/]*)?$")


def grade(success: bool | None, end_progress: float | None) -> tuple[str | None, float | None]:
    """Quality and partial success of a run, by its outcome and where its label ends; None: nobody says.

    Example: grade(False, 0.7) == ("suboptimal", 0.7).
    """
    if success or (success is None and end_progress == 1):
        return SUCCESSFUL, 1.0
    if end_progress is None:
        return (None if success is None else FAILURE), None
    # A label that ends at 1 does not overrule a source that calls the run failed
    share = min(end_progress, 0.99)
    return (SUBOPTIMAL if share >= HALF else FAILURE), share


@dataclass(frozen=True)
class GradedAnnotation(EpisodeAnnotation):
    """The outcome of an episode, on which all its views agree."""

    episode_index: int
    of: tuple[str, int] | None
    quality: str | None
    partial_success: float | None

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """One step without a name, completed where the run was successful; progress ends at the partial success."""
        if self.quality is None and self.partial_success is None:
            raise ImportedError("it has neither a quality_label nor a partial_success")
        done = self.quality == SUCCESSFUL or self.partial_success == 1
        end = NOTHING_STATED if done or self.partial_success is None else StatedEnd(self.partial_success)
        return ImportedLabel(whole_run(num_frames, done), 1, end=end)


def read_robometer(path: Path) -> list[GradedAnnotation]:
    """Read a folder of Parquet files with such rows, or one file. Raises ImportedError."""
    found: dict[tuple[str | None, int], GradedAnnotation] = {}
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        for annotation in _graded_rows(file):
            key = (annotation.of[0] if annotation.of else None, annotation.episode_index)
            if found.setdefault(key, annotation) != annotation:
                raise ImportedError(f"{file}: the views of episode {key[1]} do not agree on how it ended")
    if not found:
        raise ImportedError(f"{path} holds no rows of Robometer's: Parquet with {', '.join(NEEDED)}")
    return list(found.values())


def _graded_rows(file: Path) -> Iterator[GradedAnnotation]:
    """Of each row. Raises ImportedError."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as e:
        raise ImportedError(f"{file} is no Parquet file that can be read: {e}") from e
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise ImportedError(f"{file} lacks the columns {', '.join(missing)} of Robometer's rows")
    for row in table.select(list(NEEDED)).to_pylist():
        try:
            yield _graded(**row)
        except ValueError as e:
            raise ImportedError(f"{file}: {row['id']!r} {e}") from e


def _graded(id: object, quality_label: object, partial_success: object) -> GradedAnnotation:
    named, share = EPISODE_ID.match(str(id)), partial_success
    if named is None:
        raise ValueError("does not say which episode it is: it has no number")
    if quality_label not in (None, SUCCESSFUL, SUBOPTIMAL, FAILURE):
        raise ValueError(f"has the quality_label {quality_label!r}")
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise ValueError(f"has the partial_success {share!r}, which is none of 0..1")
    dataset, episode = named["dataset"], int(named["episode"])
    of = (dataset, episode) if dataset else None
    return GradedAnnotation(episode, of, quality_label, None if share is None else float(share))
