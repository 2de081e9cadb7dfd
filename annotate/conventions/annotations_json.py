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

from annotate.imported_label import ImportedError, ImportedLabel
from annotate.native import annotate
from annotate.segments import check_tiling
from ingest.episode import NativeStep
from ingest.formats.lerobot_steps import VISUALIZER_FILE, is_step

VERSION = 2
SUBTASK = "subtask"


@dataclass(frozen=True)
class DrawnAnnotation:
    """An episode's steps as (name, start s, end s); an end of None: until the next one begins, or the run ends."""

    episode_index: int
    spans: tuple[tuple[str, float, float | None], ...]
    of: tuple[str, int] | None = None

    def label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """Times are rounded to frames. What is no name of a step, such as an empty text, only ends the one before."""
        starts = [round(start * fps) for _, start, _ in self.spans]
        ends = [*starts[1:], num_frames]
        steps = []
        for (name, _, end), start, following in zip(self.spans, starts, ends, strict=True):
            until = following if end is None else min(round(end * fps), following)
            if is_step(name):
                steps.append(NativeStep(name.strip(), start, until))
        try:
            segments, num_planned = annotate(steps, num_frames, success)
            check_tiling(segments, num_frames, num_planned)
        except ValueError as e:
            raise ImportedError(str(e)) from e
        return ImportedLabel(segments, num_planned)


def read(path: Path) -> list[DrawnAnnotation]:
    """Read the file, or the one in a dataset's folder. Raises ImportedError."""
    file = path / VISUALIZER_FILE if path.is_dir() else path
    try:
        episodes = json.loads(file.read_text())["episodes"]
        by_number = {int(number): notes for number, notes in episodes.items()}
    except (OSError, UnicodeDecodeError) as e:
        raise ImportedError(f"{file} cannot be read: {e}") from e
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ImportedError(f"{file} is no file of LeRobot's dataset visualizer: it has no object `episodes`") from e
    found = []
    for number in sorted(by_number):
        try:
            spans = _spans(by_number[number])
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise ImportedError(f"{file}: episode {number} has atoms or subtasks that are none ({e})") from e
        if spans:
            found.append(DrawnAnnotation(number, spans))
    if not found:
        raise ImportedError(f"{file} has no steps: no atoms of style {SUBTASK}")
    return found


def _spans(notes: Mapping[str, Any]) -> tuple[tuple[str, float, float | None], ...]:
    """In order of time. Raises ValueError, TypeError, KeyError, AttributeError."""
    if "atoms" in notes:
        texts = [atom for atom in notes["atoms"] if atom.get("style") == SUBTASK]
        spans = [(str(atom.get("content") or ""), float(atom["timestamp"]), None) for atom in texts]
    else:
        drawn = notes.get("subtasks") or ()
        spans = [(str(span["label"]), float(span["start"]), float(span["end"])) for span in drawn]
    return tuple(sorted(spans, key=lambda span: span[1]))
