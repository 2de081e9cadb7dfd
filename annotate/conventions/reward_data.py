"""Forms of reward models of others, written and read.

opensarm's (xdofai/opensarm @9978198d; its labelling tool's formulas @6dd65047): its labelling tool
writes JSON lines, the last of a video counts: {ts, user, plan_id, episode_index, episode_id,
video_path, label: {start_progress?, final_progress, segments: [{start, end, label}],
catastrophic_frame}}, in seconds. Its rollouts are folders `episode_*` with videos, timestamp.npy,
progress.npy and reward.npy. Its training data are LeRobot v2 rows with `reward` (progress, whatever
its name says) and, where it is known, `act_pri`.

Robometer's (dataset_upload/generate_hf_dataset.py, BASE_FEATURES; jesbu1/robometer @4dc7d0f7): one
row per view, with id, task, lang_vector (all-MiniLM-L6-v2 of the task), data_source, frames (path
of a video), is_robot, quality_label (successful, suboptimal, failure) and partial_success in 0..1.
It knows how far a run came, and nothing of when.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.imported_label import (
    MALFORMED,
    EpisodeAnnotation,
    ImportedError,
    whole_run,
)
from annotate.spans import equal_spans
from core.domain.label import IDLE, NO_PROGRESS, NOTHING_STATED, STEP, Label, Segment, StatedEnd
from core.names import unnamed_step
from ingest.formats.tables import npy_rows
from ingest.reasons import DataError

LABELS = "labels.jsonl"
ROLLOUTS = "rollouts"
OURS = "lerobot/meta/episodes.jsonl"  # says of an export of ours which episodes they were
WORDS = {"fast": "progress_fast", "slow": "progress_slow", "adjust": "adjust", "mistake": "mistake"}
PACES = {word: pace for pace, word in WORDS.items()}
CATASTROPHIC = "catastrophic"
ALL_LOST = -100.0  # the final progress that the tool writes beside a catastrophic frame
TOLERANCE_S = 1e-4  # times in the file are rounded
# config/act_pri.yaml: the index of a primitive is its place here, and `dummy` is none of them
PRIMITIVES = (
    "clamp", "erase", "fold_flatten", "hang", "insert", "install", "pass", "pick_grab", "place", "pour_dump",
    "press", "pull", "roll", "rotate_turn", "scoop", "screw_unscrew", "sweep", "tie", "untie", "wrap",
    "zip_unzip", "dummy",
)  # fmt: skip
VERBS = {
    **dict.fromkeys(("pick", "grab", "grasp", "take", "lift"), "pick_grab"),
    **dict.fromkeys(("place", "put", "drop", "release", "set"), "place"),
    **dict.fromkeys(("fold", "flatten"), "fold_flatten"),
    **dict.fromkeys(("pour", "dump", "tip"), "pour_dump"),
    **dict.fromkeys(("rotate", "turn", "twist"), "rotate_turn"),
    **dict.fromkeys(("screw", "unscrew"), "screw_unscrew"),
    **dict.fromkeys(("zip", "unzip"), "zip_unzip"),
    **dict.fromkeys(("erase", "wipe"), "erase"),
    **dict.fromkeys(("pull", "open"), "pull"),
    **dict.fromkeys(("press", "push"), "press"),
    **{verb: verb for verb in PRIMITIVES if "_" not in verb and verb != "dummy"},
}


def primitive(name: str) -> int:
    """The action primitive that a step's first word names; `dummy` where it names none.

    Example: primitive("Pick up the cube") == PRIMITIVES.index("pick_grab").
    """
    word = re.match(r"[a-z]+", name.strip().lower())
    return PRIMITIVES.index(VERBS.get(word[0], "dummy") if word else "dummy")


# Writing


def label_of(
    segments: Sequence[Segment], progress: np.ndarray, end: StatedEnd, fps: float
) -> dict[str, Any]:
    """The `label` of a line."""
    is_lost = end.catastrophic_frame is not None
    end_frame = end.catastrophic_frame or len(progress)  # it is never the first one
    written = []
    for segment, word in zip(segments, _words(segments, progress), strict=True):
        # A segment in which all is lost has two parts
        cut = min(max(end_frame, segment.start_frame), segment.end_frame)
        parts = ((segment.start_frame, cut, word), (cut, segment.end_frame, CATASTROPHIC))
        written += [
            {"start": a / fps, "end": b / fps, "label": label} for a, b, label in parts if a < b
        ]
    final = float(progress[end_frame - 1]) if end.final_progress is None else end.final_progress
    return {
        "final_progress": ALL_LOST if is_lost and final == 0 else final,
        "segments": written,
        "catastrophic_frame": end_frame / fps if is_lost else None,
    }


def _words(segments: Sequence[Segment], progress: np.ndarray) -> list[str]:
    """Of each segment. Paces that nobody stated are read off the curve: steeper than one and a half
    times the middle of what rises is fast."""
    rises = [
        float(progress[s.end_frame - 1] - progress[max(0, s.start_frame - 1)]) for s in segments
    ]
    slopes = np.array(rises) / list(map(len, segments))
    usual_slope = np.median(slopes[slopes > 0]) if (slopes > 0).any() else 0.0
    kinds = [np.abs(slopes) < 1e-6, slopes < 0, slopes > 1.5 * usual_slope]
    paces = np.select(kinds, ["adjust", "mistake", "fast"], "slow").tolist()
    return [WORDS[s.pace or pace] for s, pace in zip(segments, paces, strict=True)]


# Reading


@dataclass(frozen=True)
class RolloutAnnotation(EpisodeAnnotation):
    """An episode of opensarm's: what a person said of it, a curve, or both. `segments`: (start s, end s, word)."""

    episode_index: int
    of: tuple[str, int] | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    final_progress: float | None = None
    catastrophic_s: float | None = None
    progress: tuple[float, ...] = ()

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """The whole task is one step without a name, of which what rises is an attempt."""
        if self.progress and len(self.progress) != num_frames:
            raise ValueError(
                f"its progress is of {len(self.progress)} frames, this episode has {num_frames}"
            )
        curve = np.array(self.progress, np.float32) if self.progress else NO_PROGRESS
        if not self.segments:
            assert len(curve), "an annotation says something"
            return Label(whole_run(num_frames, bool(curve[-1] == 1)), 1, progress=curve)
        catastrophic_frame = None
        final = self.final_progress
        if self.catastrophic_s is not None:
            catastrophic_frame = _frame(self.catastrophic_s, fps)
            final = final and max(final, 0.0)
        segments = self._tiling(num_frames, fps)
        rising = [k for k, s in enumerate(segments) if s.kind == STEP]
        if rising and catastrophic_frame is None and final == 1:
            segments[rising[-1]] = replace(segments[rising[-1]], completed=True)
        return Label(segments, 1, progress=curve, end=StatedEnd(final, catastrophic_frame))

    def _tiling(self, num_frames: int, fps: float) -> list[Segment]:
        """Segments that cover the episode; where the file's have a gap, nothing goes on."""
        part_of = np.full(num_frames, -1)
        for number, (start, stop, _) in enumerate(self.segments):
            part_of[_frame(start, fps) : _frame(stop, fps)] = number
        # The last one counts to the end, as opensarm takes it
        part_of[_frame(self.segments[-1][0], fps) :] = len(self.segments) - 1
        words = [*(word for _, _, word in self.segments), "adjust"]  # the last one, -1, is of gaps
        return [
            _segment(words[part_of[start]], start, end)
            for start, end in equal_spans(part_of.tolist())
        ]


@dataclass(frozen=True)
class OpensarmLine:
    """A line of the tool's: the annotation, who made it and when, where the line says so."""

    annotation: RolloutAnnotation
    user: Any
    ts: Any


def _frame(time_s: float, fps: float) -> int:
    """The first frame that is not before a time."""
    return math.ceil((time_s - TOLERANCE_S) * fps)


def _segment(word: str, start: int, end: int) -> Segment:
    pace = PACES.get(word)
    if pace in ("fast", "slow"):
        return Segment(unnamed_step(0), start, end, STEP, False, 0, named=False, pace=pace)
    name = {"adjust": "Adjust", "mistake": "Mistake"}.get(word, "All is lost")
    return Segment(name, start, end, IDLE, False, pace=pace)


def read_opensarm(path: Path) -> list[RolloutAnnotation]:
    """Read JSON lines, a folder with labels.jsonl, or rollouts with progress.npy. Raises ImportedError."""
    lines = path / LABELS if path.is_dir() else path
    if lines.is_file():
        label_lines = {
            line.annotation.episode_index: line.annotation for line in read_results(lines)
        }
    else:
        label_lines = {}
    folders = _rollouts(path)
    if not label_lines and not folders:
        raise ImportedError(
            f"{path} holds neither {LABELS} nor folders episode_* with progress.npy"
        )
    ours = _exported_episodes(path)
    curves = {index: _curve(folder) for index, folder in folders.items()}
    annotations = [
        label_lines.get(index, RolloutAnnotation(index))
        for index in sorted(label_lines.keys() | folders.keys())
    ]
    return [
        replace(a, of=a.of or ours.get(a.episode_index), progress=curves.get(a.episode_index, ()))
        for a in annotations
    ]


def _exported_episodes(folder: Path) -> dict[int, tuple[str, int]]:
    """The corpus's episode of each rollout, where the folder is an export of ours. Raises ImportedError."""
    path = folder / OURS
    try:
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            rows = []
        return {
            r["episode_index"]: (r["proccorpus_dataset"], r["proccorpus_episode_index"])
            for r in rows
        }
    except MALFORMED as e:
        raise ImportedError(f"{path} does not say which episodes the rollouts are: {e}") from e


def _rollouts(folder: Path) -> dict[int, Path]:
    """Folders of rollouts by the number that their names end with, else by their order."""
    rollouts_folder = folder / ROLLOUTS if (folder / ROLLOUTS).is_dir() else folder
    folders = sorted(p.parent for p in rollouts_folder.glob("episode_*/progress.npy"))
    numbers = [re.search(r"(\d+)$", p.name) for p in folders]
    by_number = {int(n[1]): p for n, p in zip(numbers, folders, strict=True) if n}
    if len(by_number) == len(folders):
        return by_number
    return dict(enumerate(folders))


def _curve(folder: Path) -> tuple[float, ...]:
    """Raises ImportedError."""
    path = folder / "progress.npy"
    try:
        values = npy_rows(path, str(path)).ravel()
    except DataError as e:
        raise ImportedError(str(e)) from e
    if values.dtype.kind not in "fiu" or not len(values) or not np.isfinite(values).all():
        raise ImportedError(f"{path} holds no progress: {values.dtype} of {len(values)} values")
    if values.min() < 0 or values.max() > 1:
        raise ImportedError(
            f"{path} goes from {values.min():g} to {values.max():g}, and progress from 0 to 1"
        )
    return tuple(map(float, values))


def read_results(path: Path) -> list[OpensarmLine]:
    """The lines of a results file; of a video the last one counts. Raises ImportedError."""
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise ImportedError(f"{path} is no text that can be read: {e}") from e
    rows: dict[str, OpensarmLine] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            if row is not None:
                rows[str(row["video_path"])] = OpensarmLine(
                    _annotation(row), row.get("user"), row.get("ts")
                )
        except MALFORMED as e:
            raise ImportedError(
                f"{path.name}: line {number} is no label of opensarm's ({e})"
            ) from e
    return list(rows.values())


def _annotation(row: Mapping[str, Any]) -> RolloutAnnotation:
    """What a line says. Raises ValueError, TypeError, KeyError, AttributeError."""
    label = row["label"]
    ours = row.get("proccorpus")
    index = row.get("episode_id")
    if label.get("start_progress"):
        raise ValueError("it begins with progress made before, and a label here begins at 0")
    number = int(index if isinstance(index, int) else row["episode_index"])
    episode_key = (str(ours["dataset"]), int(ours["episode_index"])) if ours else None
    final = float(label["final_progress"])
    catastrophic_s = label.get("catastrophic_frame")
    return RolloutAnnotation(
        number,
        episode_key,
        _segments_of(label),
        final,
        None if catastrophic_s is None else float(catastrophic_s),
    )


def _segments_of(label: Mapping[str, Any]) -> tuple[tuple[float, float, str], ...]:
    segments = tuple(
        (float(s["start"]), float(s["end"]), str(s["label"])) for s in label["segments"]
    )
    if not segments:
        raise ValueError("it has no segments")
    if unknown := {word for _, _, word in segments} - {*PACES, CATASTROPHIC}:
        raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}")
    return segments


SUCCESSFUL = "successful"
SUBOPTIMAL = "suboptimal"
FAILURE = "failure"
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

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """One step without a name, completed where the run was successful; progress ends at the partial success."""
        if self.quality is None and self.partial_success is None:
            raise ImportedError("it has neither a quality_label nor a partial_success")
        is_success = self.quality == SUCCESSFUL or self.partial_success == 1
        if is_success or self.partial_success is None:
            end = NOTHING_STATED
        else:
            end = StatedEnd(self.partial_success)
        return Label(whole_run(num_frames, is_success), 1, end=end)


def read_robometer(path: Path) -> list[GradedAnnotation]:
    """Read a folder of Parquet files with such rows, or one file. Raises ImportedError."""
    annotations: dict[tuple[str | None, int], GradedAnnotation] = {}
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        for annotation in _graded_rows(file):
            key = (annotation.of[0] if annotation.of else None, annotation.episode_index)
            if annotations.setdefault(key, annotation) != annotation:
                raise ImportedError(
                    f"{file}: the views of episode {key[1]} do not agree on how it ended"
                )
    if not annotations:
        raise ImportedError(
            f"{path} holds no rows of Robometer's: Parquet with {', '.join(NEEDED)}"
        )
    return list(annotations.values())


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
            yield _graded_annotation(**row)
        except ValueError as e:
            raise ImportedError(f"{file}: {row['id']!r} {e}") from e


def _graded_annotation(
    id: object, quality_label: object, partial_success: object
) -> GradedAnnotation:
    id_match = EPISODE_ID.match(str(id))
    share = partial_success
    if id_match is None:
        raise ValueError("does not say which episode it is: it has no number")
    if quality_label not in (None, SUCCESSFUL, SUBOPTIMAL, FAILURE):
        raise ValueError(f"has the quality_label {quality_label!r}")
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise ValueError(f"has the partial_success {share!r}, which is none of 0..1")
    dataset = id_match["dataset"]
    episode = int(id_match["episode"])
    episode_key = (dataset, episode) if dataset else None
    return GradedAnnotation(
        episode, episode_key, quality_label, None if share is None else float(share)
    )
