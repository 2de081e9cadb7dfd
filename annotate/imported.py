"""Annotations that others made: LeRobot's language columns, SARM's episode columns, and ProcVQA-style JSON lines.

They are read into spans of steps per episode. The native annotator's rule makes segments of them: frames that no step
covers are idle, or done at the end of a run that did not fail. An export of ours brings its segments whole.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from annotate.native import StepsError, annotate
from annotate.segments import Segment, check_tiling
from core.errors import UserError
from ingest.episode import NativeStep

CODE_VERSION = "imported-2"
FORMS = ("segments", "language", "sarm", "frames")
NOT_STEPS = ("", "idle", "between steps", "stand still", "done", "done.", "not done", "not done.")
EPISODE_NAME = re.compile(r"(\d+)(\.[a-z_]+)*\.jsonl$")


class ImportedError(UserError, ValueError):
    """Annotations that cannot be read: what, where, what to do."""


@dataclass(frozen=True)
class Annotation:
    """One episode's annotation, by the index that the annotated dataset gives it.

    `of` names the corpus's dataset and episode where the annotated dataset is an export of ours. `num_frames` None: the
    form does not say. Either `segments` with `num_planned`, or `steps`.
    """

    episode_index: int
    num_frames: int | None
    steps: tuple[NativeStep, ...] = ()
    segments: tuple[Segment, ...] = ()
    num_planned: int = 0
    of: tuple[str, int] | None = None

    def tiling(self, num_frames: int, success: bool | None) -> tuple[list[Segment], int]:
        """Segments that cover the episode, and the planned steps. Raises ImportedError where they do not fit it."""
        try:
            if self.num_frames not in (None, num_frames):
                raise StepsError(f"it is of an episode of {self.num_frames} frames, this one has {num_frames}")
            if self.segments:
                check_tiling(list(self.segments), num_frames, self.num_planned)
                return list(self.segments), self.num_planned
            return annotate(self.steps, num_frames, success)
        except ValueError as e:
            raise ImportedError(str(e)) from e


@dataclass(frozen=True)
class Annotations:
    form: str
    episodes: tuple[Annotation, ...]

    @property
    def sha256(self) -> str:
        """A hash of the annotations, not of the files that hold them."""
        return hashlib.sha256(repr((self.form, self.episodes)).encode()).hexdigest()


def read_annotations(path: Path, form: str | None = None) -> Annotations:
    """The annotations in a LeRobot v3.0 folder, a JSON-lines file or a folder of such files. Raises ImportedError."""
    if not path.exists():
        raise ImportedError(f"no such file or folder: {path}")
    # The folder meta makes it a LeRobot dataset, which has several forms; all else is JSON lines
    if (path / "meta").is_dir():
        return _read_lerobot(path, form)
    if form not in (None, "frames"):
        raise ImportedError(f"{path} is no LeRobot dataset, so it has no form {form}")
    episodes: list[Annotation] = []
    for file in _line_files(path):
        episodes += _frames(file)
    if not episodes:
        raise ImportedError(f"{path} holds no annotations: expected JSON lines with frame_id and sub_task")
    return Annotations("frames", tuple(episodes))


# LeRobot


def _read_lerobot(path: Path, form: str | None) -> Annotations:
    """Of the forms that the folder has, the one that says most: whole segments, language columns, SARM's columns."""
    readers = {"segments": _segments, "language": _language, "sarm": _sarm}
    for name in [form] if form else list(readers):
        if name not in readers:
            raise ImportedError(f"{path} is a LeRobot dataset, which has no form {name}")
        annotations = readers[name](path)
        if annotations:
            return Annotations(name, tuple(annotations))
    raise ImportedError(f"{path} has neither language_persistent rows of style subtask nor SARM's columns")


def _metadata(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(path.glob("meta/episodes/chunk-*/file-*.parquet")):
        with pq.ParquetFile(file) as parquet:
            names = [n for n in parquet.schema_arrow.names if not n.startswith("stats/")]
            rows += parquet.read(names).to_pylist()
    if not rows:
        raise ImportedError(f"{path} has no meta/episodes: only LeRobot v3.0 holds annotations")
    return rows


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an Annotation that say which episode it is of, from the episode's metadata."""
    ours = row.get("proccorpus_dataset"), row.get("proccorpus_episode_index")
    of = None if None in ours else ours
    return {"episode_index": row["episode_index"], "num_frames": row["length"], "of": of}


def _segments(path: Path) -> list[Annotation]:
    """Exports of ours bring their segments whole."""
    annotations = []
    for row in _metadata(path):
        rows = row.get("proccorpus_segments")
        if rows:
            segments = tuple(Segment(**segment) for segment in rows)
            planned = row.get("proccorpus_num_planned") or 0
            annotations.append(Annotation(segments=segments, num_planned=planned, **_identity(row)))
    return annotations


def _language(path: Path) -> list[Annotation]:
    """Rows of style `subtask` hold until the next one; the list is the same in all rows of an episode."""
    fps = json.loads((path / "meta/info.json").read_text())["fps"]
    metadata = {row["episode_index"]: row for row in _metadata(path)}
    annotations = []
    for episode, rows in _language_rows(path):
        identity = _identity(metadata[episode])
        steps = _subtask_steps(rows, fps, identity["num_frames"])
        if steps:
            annotations.append(Annotation(steps=steps, **identity))
    return annotations


def _language_rows(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(episode, its language_persistent rows) from the files that have such a column."""
    for file in sorted(path.glob("data/chunk-*/file-*.parquet")):
        with pq.ParquetFile(file) as parquet:
            if "language_persistent" in parquet.schema_arrow.names:
                yield from _first_rows(parquet)


def _subtask_steps(rows: Sequence[Mapping[str, Any]], fps: float, num_frames: int) -> tuple[NativeStep, ...]:
    """Each subtask as a step, from its time to that of the next one."""
    subtasks = sorted((row["timestamp"], row["content"]) for row in rows if row["style"] == "subtask")
    names = [name for _, name in subtasks]
    starts = [round(timestamp * fps) for timestamp, _ in subtasks]
    return _native_steps(names, starts, [*starts[1:], num_frames])


def _native_steps(names: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> tuple[NativeStep, ...]:
    """The steps among the named spans; ends are exclusive."""
    spans = zip(names, starts, ends, strict=True)
    return tuple(NativeStep(name, start, end) for name, start, end in spans if _is_step(name))


def _first_rows(parquet: pq.ParquetFile) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(episode, its language_persistent rows), each episode once."""
    last = None
    for batch in parquet.iter_batches(1 << 14, columns=["episode_index", "language_persistent"]):
        episodes = batch["episode_index"].to_pylist()
        for k, episode in enumerate(episodes):
            if episode != last:
                yield episode, batch["language_persistent"][k].as_py() or []
                last = episode


def _sarm(path: Path) -> list[Annotation]:
    """Frames of a stage include its last one; the columns without a prefix are those of older versions."""
    annotations = []
    for row in _metadata(path):
        # An episode that nobody annotated has none of the columns filled
        prefix = _sarm_prefix(row)
        if prefix is None:
            continue
        starts = row[f"{prefix}subtask_start_frames"]
        last_frames = row[f"{prefix}subtask_end_frames"]
        # A stage that includes the next one's first frame ends before it
        limits = [*starts[1:], row["length"]]
        steps = []
        for name, start, last, limit in zip(row[f"{prefix}subtask_names"], starts, last_frames, limits, strict=True):
            if _is_step(name):
                steps.append(NativeStep(name, start, min(last + 1, limit)))
        annotations.append(Annotation(steps=tuple(steps), **_identity(row)))
    return annotations


def _sarm_prefix(row: Mapping[str, Any]) -> str | None:
    """The prefix of the columns that the episode fills: dense stages come before sparse ones."""
    return next((p for p in ("dense_", "", "sparse_") if row.get(f"{p}subtask_names")), None)


# JSON lines


def _line_files(path: Path) -> list[Path]:
    """The files of a folder, or the one file."""
    if path.is_dir():
        return sorted(path.glob("*.jsonl"))
    return [path]


def _frames(file: Path) -> list[Annotation]:
    """One line per frame: {frame_id, sub_task}, in a file that is named by its episode, or with episode_index.

    Frame ids may count over the whole dataset: an episode's first one is its frame 0.
    """
    rows = _read_lines(file)
    default = _named_episode(file, rows)

    def episode_of(row: Mapping[str, Any]) -> Any:
        return row.get("episode_index", default)

    # In order of time, whatever order the lines have
    annotations = []
    rows.sort(key=lambda row: (episode_of(row), row["frame_id"]))
    for episode, group in groupby(rows, key=episode_of):
        frames = list(group)
        if not _are_consecutive(frames):
            raise ImportedError(f"{file.name}: the frames of episode {episode} are not one after another")
        names = [(row["sub_task"] or "").strip() for row in frames]
        steps = tuple(_spans(names))
        if steps:
            annotations.append(Annotation(int(episode), len(frames), steps))
    return annotations


def _named_episode(file: Path, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The episode in the file's name; None where each line has its own. Raises ImportedError where neither is so."""
    named = EPISODE_NAME.search(file.name)
    if named:
        return int(named[1])
    if any("episode_index" not in row for row in rows):
        raise ImportedError(f"{file.name}: neither its name nor its lines say which episode it is of")
    return None


def _are_consecutive(frames: Sequence[Mapping[str, Any]]) -> bool:
    first = frames[0]["frame_id"]
    return [row["frame_id"] for row in frames] == list(range(first, first + len(frames)))


def _read_lines(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file.read_text().split("\n"), 1):
        if line.strip():
            rows.append(_parsed(line, f"{file.name}: line {number}"))
    return rows


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise ImportedError(f"{where} is not JSON ({e})") from e
    is_object = isinstance(row, dict)
    if not is_object or not isinstance(row.get("frame_id"), int) or "sub_task" not in row:
        raise ImportedError(f"{where} has no frame_id with a sub_task")
    return row


def _spans(names: Sequence[str]) -> Iterator[NativeStep]:
    """The steps of an episode, by the name that each frame has.

    Example: ["reach", "reach", "", "grasp"] gives "reach" from 0 to 2 and "grasp" from 3 to 4.
    """
    start = 0
    for name, group in groupby(names):
        end = start + len(list(group))
        if _is_step(name):
            yield NativeStep(name, start, end)
        start = end


def _is_step(name: str) -> bool:
    return name.strip().lower() not in NOT_STEPS
