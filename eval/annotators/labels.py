"""The labels of label runs as the lake has them, ready to be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from annotate.segments import Segment
from core.errors import UserError
from eval.metrics.segments import Span
from warehouse.lake import Lake
from warehouse.lake.labels import labels_of


@dataclass(frozen=True)
class ComparedLabel:
    """One label of one episode: segments that tile it, in order of time."""

    segments: tuple[Segment, ...]
    progress: np.ndarray | None  # float64 [num_frames]; None where the label has not one for every frame
    annotator: str
    confidence: float | None = None

    @property
    def num_frames(self) -> int:
        return self.segments[-1].end_frame

    @property
    def cuts(self) -> list[int]:
        return [segment.start_frame for segment in self.segments[1:]]

    @property
    def finished(self) -> bool | None:
        """Does the label say that the whole task was done? None: it has no progress."""
        return None if self.progress is None else bool(self.progress[-1] == 1)


@dataclass(frozen=True)
class EpisodeFacts:
    """Facts of an episode in the lake that do not depend on its annotator."""

    num_frames: int
    fps: float
    success: bool | None


def spans(segments: tuple[Segment, ...]) -> list[Span]:
    return [(s.name, s.start_frame, s.end_frame) for s in segments]


def label_runs(lake: Lake) -> dict[str, dict[str, str]]:
    """Annotator of each label run by dataset and label run."""
    rows = lake.rows(
        "SELECT DISTINCT s.dataset, s.label_run, coalesce(r.annotator, 'unknown') FROM segments s "
        "LEFT JOIN label_runs r USING (label_run) ORDER BY ALL"
    )
    annotators: dict[str, dict[str, str]] = {}
    for dataset, run, annotator in rows:
        annotators.setdefault(dataset, {})[run] = annotator
    return annotators


def find_run(runs: Mapping[str, Mapping[str, str]], text: str) -> str:
    """The one label run whose id begins so. Raises UserError."""
    ids = sorted(set(chain.from_iterable(runs.values())))
    matches = [text] if text in ids else [r for r in ids if r.startswith(text)]
    if len(matches) != 1:
        problem = "several label runs begin with" if matches else "no label run begins with"
        raise UserError(f"{problem} {text!r}; there are {', '.join(matches or ids) or 'none yet'}")
    return matches[0]


def usable_episodes(lake: Lake, dataset: str) -> dict[int, EpisodeFacts]:
    rows = lake.rows(
        "SELECT episode_index, num_frames, fps, success FROM episodes WHERE dataset = ? AND status = 'ok' "
        "AND num_frames IS NOT NULL ORDER BY 1",
        [dataset],
    )
    return {e: EpisodeFacts(n, fps, success) for e, n, fps, success in rows}


def active_runs(lake: Lake, dataset: str) -> set[str]:
    """The label runs that count for some episode."""
    return {run for (run,) in lake.rows("SELECT DISTINCT label_run FROM active_runs WHERE dataset = ?", [dataset])}


def stored_labels(lake: Lake, dataset: str, run: str | None = None) -> dict[int, ComparedLabel]:
    """One run's labels of a dataset by episode, or the active ones."""
    stored = labels_of(lake.con, dataset, label_run=run, whole=True)
    annotators = dict(lake.rows("SELECT label_run, annotator FROM label_runs"))
    labels = {}
    for episode, label in stored.items():
        is_whole = len(label.progress) == label.segments[-1].end_frame
        labels[episode] = ComparedLabel(
            tuple(label.segments),
            label.progress.astype(np.float64) if is_whole else None,
            annotators.get(label.label_run) or "unknown",
            label.facts.get("confidence"),
        )
    return labels
