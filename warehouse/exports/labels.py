"""Active labels of a chunk's episodes: segments and progress per frame, and ramps of progress inside segments."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from warehouse.exports.common import ExportEpisode, ExportError, Selected

STEP = "step"
BINS = 100_000  # of the histogram of gains in progress, over 0..1


@dataclass(frozen=True)
class Span:
    """A segment: half-open, in frames; `step` is the planned step that it is an attempt at."""

    name: str
    start_frame: int
    end_frame: int
    kind: str
    completed: bool
    step: int | None


@dataclass(frozen=True)
class Label:
    """One episode's active label. `progress` float32 [num_frames]; `confidence` of the episode as a whole."""

    spans: tuple[Span, ...]
    num_planned: int
    progress: np.ndarray
    plan: tuple[str, ...]
    confidence: float | None
    needs_review: bool

    def ramp(self) -> np.ndarray:
        """Progress that rises evenly inside each segment, through the label's values where segments begin and end.

        float32 [num_frames]. What rewards a gain over a few frames would see stalls in the label itself, which stands
        still with the arm.
        """
        knots = [s.start_frame for s in self.spans] + [len(self.progress) - 1]
        return np.interp(np.arange(len(self.progress)), knots, self.progress[knots]).astype(np.float32)


def chunk_labels(selected: Selected, dataset: str, chunk: int, episodes: Iterable[ExportEpisode]) -> dict[int, Label]:
    """Labels of those episodes of a chunk that have one. Raises ExportError for labels that do not fit the frames."""
    lake, here = selected.lake, [dataset, chunk]
    lengths = {e.episode_index: e.num_frames for e in episodes if e.label_run}
    table = lake.arrow(
        "SELECT episode_index, progress FROM active_progress WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, frame_index",
        here,
    )
    index, progress = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    spans: dict[int, list[Span]] = {}
    planned: dict[int, int] = {}
    for episode, steps, *values in lake.rows(
        "SELECT episode_index, num_planned, name, start_frame, end_frame, kind, completed, step FROM active_segments "
        "WHERE dataset = ? AND chunk = ? ORDER BY episode_index, segment_index",
        here,
    ):
        spans.setdefault(episode, []).append(Span(*values))
        planned[episode] = steps or 0
    told = {
        episode: (tuple(plan or ()), confidence, bool(review))
        for episode, plan, confidence, review in lake.rows(
            "SELECT l.episode_index, l.plan, l.confidence, l.needs_review FROM episode_labels l JOIN active_runs a "
            "USING (dataset, episode_index, label_run) WHERE l.dataset = ? AND l.chunk = ?",
            here,
        )
    }
    found = {}
    for episode, n in lengths.items():
        first, last = np.searchsorted(index, [episode, episode + 1])
        if last - first != n or episode not in spans or spans[episode][-1].end_frame != n:
            raise ExportError(
                f"the label of {dataset} episode {episode} covers {last - first} frames, the episode has {n}: build "
                "the dataset again"
            )
        plan, confidence, review = told.get(episode, ((), None, False))
        found[episode] = Label(tuple(spans[episode]), planned[episode], progress[first:last], plan, confidence, review)
    return found


# Which gain in progress is a good one


def gains(progress: np.ndarray, chunk_size: int) -> np.ndarray:
    """Progress `chunk_size` frames later, at most at the last frame, less progress now; as LeRobot's RA-BC takes it."""
    later = np.minimum(np.arange(len(progress)) + chunk_size, len(progress) - 1)
    return progress[later] - progress


def histogram(values: np.ndarray) -> np.ndarray:
    """Counts of the positive ones of some gains, int64 [BINS]."""
    positive = values[values > 0]
    return np.bincount(np.minimum((positive * BINS).astype(np.int64), BINS - 1), minlength=BINS)


def percentile(counts: np.ndarray, share: float) -> float | None:
    """The lower edge of the bin in which `share` of the values is reached; None without values."""
    total = int(counts.sum())
    return int(np.searchsorted(np.cumsum(counts), share * total)) / BINS if total else None


def episode_quality(label: Label | None) -> dict[str, float | bool | None]:
    """What a label says of an episode as a whole, as columns."""
    if label is None:
        return {"label_confidence": None, "needs_review": None, "end_progress": None}
    end = float(label.progress[-1])
    return {"label_confidence": label.confidence, "needs_review": label.needs_review, "end_progress": end}
