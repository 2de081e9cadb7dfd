"""Active labels of a chunk's episodes: segments and progress per frame, and ramps of progress inside segments."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from annotate.segments import Segment
from ingest.episode import EpisodeFrame
from warehouse.exports.common import ExportEpisode, ExportError, Selected
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels

BINS = 100_000  # of the histogram of gains in progress, over 0..1


@dataclass(frozen=True)
class ActiveLabel:
    """One episode's active label. `progress` float32 [num_frames]; `confidence` of the episode as a whole.

    `named`: has every planned step a name? `sure_of_names`: is the label sure enough of those that have one?
    `as_far_as`: a failed run came as far as this frame of another episode of its dataset.
    """

    segments: tuple[Segment, ...]
    num_planned: int
    progress: np.ndarray
    plan: tuple[str, ...]
    confidence: float | None
    needs_review: bool
    as_far_as: EpisodeFrame | None = None
    named: bool = True
    sure_of_names: bool = True

    @property
    def has_names(self) -> bool:
        """Has every step a name that may be used?"""
        return self.named and self.sure_of_names

    def ramp(self) -> np.ndarray:
        """Progress that rises evenly inside each segment, through the label's values where segments begin and end.

        float32 [num_frames]. The label itself stands still while the arm does, so a reward for the gain over the next
        few frames would take every pause for a stall.
        """
        knots = [s.start_frame for s in self.segments] + [len(self.progress) - 1]
        return np.interp(np.arange(len(self.progress)), knots, self.progress[knots]).astype(np.float32)


@dataclass(frozen=True)
class LabelFacts:
    """What a label says of its episode as a whole."""

    plan: tuple[str, ...] = ()
    confidence: float | None = None
    needs_review: bool = False
    as_far_as: EpisodeFrame | None = None


def chunk_labels(
    selected: Selected, dataset: str, chunk: int, episodes: Iterable[ExportEpisode]
) -> dict[int, ActiveLabel]:
    """Labels of those episodes of a chunk that have one. Raises ExportError for labels that do not fit the frames."""
    lake = selected.lake
    stored = active_labels(lake.con, dataset, chunk)
    facts = _label_facts(lake, dataset, chunk)
    # One query for the chunk: the file of progress is opened once and not for each episode
    table = lake.arrow(
        "SELECT episode_index, progress FROM active_progress WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, frame_index",
        [dataset, chunk],
    )
    index, progress = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    labels = {}
    for e in episodes:
        if e.label_run is None:
            continue
        # rows stand in order of episodes: those of this one lie together
        first, last = np.searchsorted(index, [e.episode_index, e.episode_index + 1])
        label = stored.get(e.episode_index)
        # Progress and segments cover every frame exactly; anything else is a label of other pictures
        if last - first != e.num_frames or label is None or label.segments[-1].end_frame != e.num_frames:
            raise ExportError(
                f"the label of {dataset} episode {e.episode_index} covers {last - first} frames, the episode has "
                f"{e.num_frames}: build the dataset again"
            )
        of_episode = facts.get(e.episode_index, LabelFacts())
        labels[e.episode_index] = ActiveLabel(
            segments=tuple(label.segments),
            num_planned=label.num_planned or 0,
            progress=progress[first:last],
            named=e.named is not False,
            sure_of_names=e.sure_of_names,
            **vars(of_episode),
        )
    return labels


def _label_facts(lake: Lake, dataset: str, chunk: int) -> dict[int, LabelFacts]:
    """By episode, of its active label."""
    rows = lake.rows(
        "SELECT l.episode_index, l.plan, l.confidence, l.needs_review, l.as_far_as_episode, l.as_far_as_frame "
        "FROM episode_labels l JOIN active_runs a USING (dataset, episode_index, label_run) "
        "WHERE l.dataset = ? AND l.chunk = ?",
        [dataset, chunk],
    )
    facts = {}
    for episode, plan, confidence, needs_review, other, frame in rows:
        as_far_as = None if other is None else EpisodeFrame(other, frame)
        facts[episode] = LabelFacts(tuple(plan or ()), confidence, bool(needs_review), as_far_as)
    return facts


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


def episode_quality(label: ActiveLabel | None) -> dict[str, float | bool | None]:
    """What a label says of an episode as a whole, as columns."""
    if label is None:
        return {"label_confidence": None, "needs_review": None, "end_progress": None}
    end = float(label.progress[-1])
    return {"label_confidence": label.confidence, "needs_review": label.needs_review, "end_progress": end}
