"""The file of LeRobot's dataset visualizer, meta/lerobot_annotations.json (backend/README.md @670a9d87), by itself.

Version 2 has `episodes`, by number, with `atoms`: {role, content, style, timestamp, tool_calls}; a text of style
`subtask` holds until the next one. Version 1 has `subtasks`: {label, start, end}. Times are seconds of the episode.
Beside its dataset the file is read by ingest.formats.lerobot_steps, which knows the dataset's own times.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.imported_label import MALFORMED, EpisodeAnnotation, ImportedError, ImportedLabel
from annotate.native import annotate
from ingest.episode import NativeStep
from ingest.formats.folders import is_step
from ingest.formats.lerobot_steps import VISUALIZER_FILE

VERSION = 2
SUBTASK = "subtask"


@dataclass(frozen=True)
class DrawnAnnotation(EpisodeAnnotation):
    """An episode's steps as (name, start s, end s); an end of None: until the next one begins, or the run ends."""

    episode_index: int
    spans: tuple[tuple[str, float, float | None], ...]
    of: tuple[str, int] | None = None

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """Times are rounded to frames. What is no name of a step, such as an empty text, only ends the one before."""
        starts = [round(start * fps) for _, start, _ in self.spans]
        ends = [*starts[1:], num_frames]
        steps = [
            NativeStep(name.strip(), start, following if end is None else min(round(end * fps), following))
            for (name, _, end), start, following in zip(self.spans, starts, ends, strict=True)
            if is_step(name)
        ]
        return ImportedLabel(*annotate(steps, num_frames, success))


def read(path: Path) -> list[DrawnAnnotation]:
    """Read the file, or the one in a dataset's folder. Raises ImportedError."""
    file = path / VISUALIZER_FILE if path.is_dir() else path
    spans = {number: _spans(file, number, notes) for number, notes in sorted(_episodes(file).items())}
    if not any(spans.values()):
        raise ImportedError(f"{file} has no steps: no atoms of style {SUBTASK}")
    return [DrawnAnnotation(number, drawn) for number, drawn in spans.items() if drawn]


def _episodes(file: Path) -> dict[int, Mapping[str, Any]]:
    try:
        return {int(number): notes for number, notes in json.loads(file.read_text())["episodes"].items()}
    except (OSError, UnicodeDecodeError) as e:
        raise ImportedError(f"{file} cannot be read: {e}") from e
    except MALFORMED as e:
        raise ImportedError(f"{file} is no file of LeRobot's dataset visualizer: it has no object `episodes`") from e


def _spans(file: Path, number: int, notes: Mapping[str, Any]) -> tuple[tuple[str, float, float | None], ...]:
    """In order of time. Raises ImportedError."""
    try:
        atoms = [atom for atom in notes.get("atoms", ()) if atom.get("style") == SUBTASK]
        drawn = () if "atoms" in notes else notes.get("subtasks") or ()
        spans = [(str(atom.get("content") or ""), float(atom["timestamp"]), None) for atom in atoms]
        spans += [(str(span["label"]), float(span["start"]), float(span["end"])) for span in drawn]
    except MALFORMED as e:
        raise ImportedError(f"{file}: episode {number} has atoms or subtasks that are none ({e})") from e
    return tuple(sorted(spans, key=lambda span: span[1]))
