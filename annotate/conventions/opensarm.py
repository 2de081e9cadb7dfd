"""opensarm's forms (xdofai/opensarm @9978198d; its labelling tool's formulas @6dd65047), written and read.

Its labelling tool writes JSON lines, the last of a video counts: {ts, user, plan_id, episode_index, episode_id,
video_path, label: {start_progress?, final_progress, segments: [{start, end, label}], catastrophic_frame}}, in seconds.
Its rollouts are folders `episode_*` with videos, timestamp.npy, progress.npy and reward.npy. Its training data are
LeRobot v2 rows with `reward` (progress, whatever its name says) and, where it is known, `act_pri`.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from annotate.imported_label import ImportedError, ImportedLabel
from annotate.segments import IDLE, STEP, Segment, check_tiling
from annotate.stated_progress import StatedEnd, check_stated
from core.step_names import unnamed_step
from ingest.episode import RowsError
from ingest.formats.arrays import PickledError, npy_rows

LABELS, ROLLOUTS = "labels.jsonl", "rollouts"
OURS = "lerobot/meta/episodes.jsonl"  # says of an export of ours which episodes they were
WORDS = {"fast": "progress_fast", "slow": "progress_slow", "adjust": "adjust", "mistake": "mistake"}
PACES = {word: pace for pace, word in WORDS.items()}
CATASTROPHIC = "catastrophic"
ALL_LOST = -100.0  # the final progress that the tool writes beside a catastrophic frame
TOLERANCE_S = 1e-4  # times in the file are rounded
# config/act_pri.yaml: the index of a primitive is its place here, and `dummy` is none of them
PRIMITIVES = (
    *("clamp", "erase", "fold_flatten", "hang", "insert", "install", "pass", "pick_grab", "place", "pour_dump"),
    *("press", "pull", "roll", "rotate_turn", "scoop", "screw_unscrew", "sweep", "tie", "untie", "wrap"),
    *("zip_unzip", "dummy"),
)
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


def label_of(segments: Sequence[Segment], progress: np.ndarray, end: StatedEnd, fps: float) -> dict[str, Any]:
    """The `label` of a line. Paces that nobody stated are read off the curve: steeper than one and a half times the
    middle of what rises is fast."""
    lost = end.catastrophic_frame
    rises = [_slope(progress, s) for s in segments]
    usual = float(np.median([r for r in rises if r > 0] or [0.0]))
    written = []
    for segment, rise in zip(segments, rises, strict=True):
        # A segment in which all is lost has two parts
        for start, stop, is_lost in _parts(segment, lost):
            word = CATASTROPHIC if is_lost else WORDS[segment.pace or _pace(rise, usual)]
            written.append({"start": start / fps, "end": stop / fps, "label": word})
    last = len(progress) - 1 if lost is None else lost - 1
    final = float(progress[last]) if end.final_progress is None else end.final_progress
    return {
        "final_progress": ALL_LOST if lost is not None and final == 0 else final,
        "segments": written,
        "catastrophic_frame": None if lost is None else lost / fps,
    }


def _parts(segment: Segment, lost: int | None) -> Iterator[tuple[int, int, bool]]:
    """(start, end, is all lost in it) of the parts of a segment."""
    cut = segment.end_frame if lost is None else min(max(lost, segment.start_frame), segment.end_frame)
    if segment.start_frame < cut:
        yield segment.start_frame, cut, False
    if cut < segment.end_frame:
        yield cut, segment.end_frame, True


def _slope(progress: np.ndarray, segment: Segment) -> float:
    return float(progress[segment.end_frame - 1] - progress[max(0, segment.start_frame - 1)]) / len(segment)


def _pace(rise: float, usual: float) -> str:
    if abs(rise) < 1e-6:
        return "adjust"
    if rise < 0:
        return "mistake"
    return "fast" if rise > 1.5 * usual else "slow"


# Reading


@dataclass(frozen=True)
class RolloutAnnotation:
    """An episode of opensarm's: what a person said of it, a curve, or both. `segments`: (start s, end s, word)."""

    episode_index: int
    of: tuple[str, int] | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    final_progress: float | None = None
    catastrophic_s: float | None = None
    progress: tuple[float, ...] = ()

    def label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """The whole task is one step without a name, of which what rises is an attempt."""
        if self.progress and len(self.progress) != num_frames:
            raise ImportedError(f"its progress is of {len(self.progress)} frames, this episode has {num_frames}")
        curve = np.array(self.progress, np.float32) if self.progress else None
        if not self.segments:
            assert curve is not None, "an annotation says something"
            whole = Segment(unnamed_step(0), 0, num_frames, STEP, bool(curve[-1] == 1), 0, named=False)
            return ImportedLabel([whole], 1, progress=curve)
        lost = None if self.catastrophic_s is None else _frame(self.catastrophic_s, fps)
        final = self.final_progress
        if final is not None and lost is not None and final < 0:
            final = 0.0
        end = StatedEnd(final, lost)
        segments = self._tiling(num_frames, fps, is_finished=lost is None and final == 1)
        try:
            check_tiling(segments, num_frames, 1)
            check_stated(segments, 1, end)
        except ValueError as e:
            raise ImportedError(str(e)) from e
        return ImportedLabel(segments, 1, progress=curve, end=end)

    def _tiling(self, num_frames: int, fps: float, *, is_finished: bool) -> list[Segment]:
        """Segments that cover the episode; where the file's have a gap, nothing goes on."""
        part_of = np.full(num_frames, -1)
        for number, (start, stop, _) in enumerate(self.segments):
            part_of[_frame(start, fps) : _frame(stop, fps)] = number
        # The last one counts to the end, as opensarm takes it
        part_of[_frame(self.segments[-1][0], fps) :] = len(self.segments) - 1
        segments: list[Segment] = []
        for number, frames in groupby(part_of.tolist()):
            at = segments[-1].end_frame if segments else 0
            word = "adjust" if number < 0 else self.segments[number][2]
            segments.append(_segment(word, at, at + sum(1 for _ in frames)))
        rising = [k for k, s in enumerate(segments) if s.kind == STEP]
        if rising and is_finished:
            last = segments[rising[-1]]
            done = Segment(last.name, last.start_frame, last.end_frame, STEP, True, 0, named=False, pace=last.pace)
            segments[rising[-1]] = done
        return segments


@dataclass(frozen=True)
class Said:
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


def read(path: Path) -> list[RolloutAnnotation]:
    """Read JSON lines, a folder with labels.jsonl, or rollouts with progress.npy. Raises ImportedError."""
    lines, rollouts = (path / LABELS, path / ROLLOUTS) if path.is_dir() else (path, None)
    said = {a.episode_index: a for a in _read_lines(lines)} if lines.is_file() else {}
    folders = _rollouts(path if rollouts is None or not rollouts.is_dir() else rollouts) if path.is_dir() else {}
    if not said and not folders:
        raise ImportedError(f"{path} holds neither {LABELS} nor folders episode_* with progress.npy")
    found, ours = [], _exported_from(path)
    for index in sorted(said.keys() | folders.keys()):
        told = said.get(index, RolloutAnnotation(index))
        curve = _curve(folders[index]) if index in folders else ()
        found.append(replace(told, of=told.of or ours.get(index), progress=curve))
    return found


def _exported_from(folder: Path) -> dict[int, tuple[str, int]]:
    """The corpus's episode of each rollout, where the folder is an export of ours. Raises ImportedError."""
    path = folder / OURS
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {r["episode_index"]: (r["proccorpus_dataset"], r["proccorpus_episode_index"]) for r in rows}
    except (ValueError, KeyError, TypeError) as e:
        raise ImportedError(f"{path} does not say which episodes the rollouts are: {e}") from e


def _rollouts(folder: Path) -> dict[int, Path]:
    """Folders of rollouts by the number that their names end with, else by their order."""
    folders = sorted(p.parent for p in folder.glob("episode_*/progress.npy"))
    numbers = [re.search(r"(\d+)$", p.name) for p in folders]
    if all(numbers) and len({int(n[1]) for n in numbers if n}) == len(folders):
        return {int(n[1]): p for n, p in zip(numbers, folders, strict=True) if n}
    return dict(enumerate(folders))


def _curve(folder: Path) -> tuple[float, ...]:
    """Raises ImportedError."""
    path = folder / "progress.npy"
    try:
        values = npy_rows(path, str(path)).ravel()
    except PickledError as e:
        raise ImportedError(f"{path} cannot be read: it holds pickled objects") from e
    except RowsError as e:
        raise ImportedError(str(e)) from e
    if values.dtype.kind not in "fiu" or not len(values) or not np.isfinite(values).all():
        raise ImportedError(f"{path} holds no progress: {values.dtype} of {len(values)} values")
    if values.min() < 0 or values.max() > 1:
        raise ImportedError(f"{path} goes from {values.min():g} to {values.max():g}, and progress from 0 to 1")
    return tuple(map(float, values))


def _read_lines(path: Path) -> list[RolloutAnnotation]:
    return [said.annotation for said in read_said(path)]


def read_said(path: Path) -> list[Said]:
    """The lines of a results file; of a video the last one counts. Raises ImportedError."""
    rows: dict[Any, Said] = {}
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise ImportedError(f"{path} is no text that can be read: {e}") from e
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                video, annotation = _row(row)
                rows[video] = Said(annotation, row.get("user"), row.get("ts"))
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                raise ImportedError(f"{path.name}: line {number} is no label of opensarm's ({e})") from e
    return list(rows.values())


def _row(row: Any) -> tuple[str, RolloutAnnotation]:
    """The video of a line, and what it says. Raises ValueError, TypeError, KeyError, AttributeError."""
    label, ours = row["label"], row.get("proccorpus")
    if label.get("start_progress"):
        raise ValueError("it begins with progress made before, and a label here begins at 0")
    segments = tuple((float(s["start"]), float(s["end"]), str(s["label"])) for s in label["segments"])
    unknown = {word for _, _, word in segments} - {*PACES, CATASTROPHIC}
    if unknown or not segments:
        raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}" if unknown else "it has no segments")
    lost = label.get("catastrophic_frame")
    index = row["episode_id"] if isinstance(row.get("episode_id"), int) else row["episode_index"]
    return str(row["video_path"]), RolloutAnnotation(
        int(index),
        None if ours is None else (str(ours["dataset"]), int(ours["episode_index"])),
        segments,
        float(label["final_progress"]),
        None if lost is None else float(lost),
    )
