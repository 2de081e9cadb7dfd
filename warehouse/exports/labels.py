"""Active labels of a chunk's episodes: segments and progress per frame, and ramps of progress inside segments."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from annotate.segments import Segment
from annotate.stated_progress import NOTHING_STATED, StatedEnd
from ingest.episode import EpisodeFrame
from warehouse.exports.common import ExportEpisode, ExportError, Selected, select
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels, labels_of_run

STATED = ("final_progress", "catastrophic_frame")  # columns of episode_labels: StatedEnd
FACTS = ("plan", "confidence", "needs_review", "as_far_as_episode", "as_far_as_frame", *STATED)
BINS = 100_000  # of the histogram of gains in progress, over 0..1


@dataclass(frozen=True)
class ActiveLabel:
    """One episode's active label. `progress` float32 [num_frames]; `confidence` of the episode as a whole.

    `named`: has every planned step a name? `sure_of_names`: is the label sure enough of those that have one?
    `as_far_as`: a failed run came as far as this frame of another episode of its dataset. `end`: what a person states.
    """

    segments: tuple[Segment, ...]
    num_planned: int
    progress: np.ndarray
    plan: tuple[str, ...]
    confidence: float | None
    needs_review: bool
    as_far_as: EpisodeFrame | None = None
    end: StatedEnd = NOTHING_STATED
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
    end: StatedEnd = NOTHING_STATED


def chunk_labels(
    selected: Selected, dataset: str, chunk: int, episodes: Iterable[ExportEpisode], label_run: str | None = None
) -> dict[int, ActiveLabel]:
    """Labels of those episodes of a chunk that have one: the active ones, or those of a label run, as they are.

    Raises ExportError for labels that do not fit the frames.
    """
    lake = selected.lake
    if label_run is None:
        stored = active_labels(lake.con, dataset, chunk)
        of_chunk, values = "active_progress WHERE dataset = ? AND chunk = ?", [dataset, chunk]
    else:
        stored = labels_of_run(lake.con, dataset, chunk, label_run)
        of_chunk = "progress WHERE dataset = ? AND chunk = ? AND label_run = ?"
        values = [dataset, chunk, label_run]
    facts = _label_facts(lake, dataset, chunk, label_run)
    # One query for the chunk: the file of progress is opened once and not for each episode
    table = lake.arrow(f"SELECT episode_index, progress FROM {of_chunk} ORDER BY episode_index, frame_index", values)
    index, progress = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    labels = {}
    for e in episodes:
        lacks = e.label_run is None if label_run is None else e.episode_index not in stored
        if lacks:
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
        # A label run that was asked for by name counts as it is
        sure = {"named": e.named is not False, "sure_of_names": e.sure_of_names} if label_run is None else {}
        labels[e.episode_index] = ActiveLabel(
            segments=tuple(label.segments),
            num_planned=label.num_planned or 0,
            progress=progress[first:last],
            **{"named": all(s.named for s in label.segments)} | sure,
            **vars(of_episode),
        )
    return labels


def select_for_labels(lake: Lake, selection: Selection, label_run: str | None) -> Selected:
    """The episodes of a selection, to be exported with their active labels or with those of `label_run`.

    Raises ExportError where none of them has a label of that run, and what `select` raises.
    """
    selected = select(lake, selection)
    if label_run is not None:
        _check_label_run(selected, label_run)
    return selected


def each_label(selected: Selected, label_run: str | None = None) -> Iterator[tuple[ExportEpisode, ActiveLabel | None]]:
    """Every episode in order, and its label if it has one; one chunk's labels are in memory at a time."""
    for dataset, chunk, episodes in selected.chunks():
        labels = chunk_labels(selected, dataset, chunk, episodes, label_run)
        for e in episodes:
            yield e, labels.get(e.episode_index)


def no_labels(selected: Selected) -> ExportError:
    return ExportError(f"nothing to export: none of the {len(selected.episodes)} episodes selected has a label")


def left_out_notes(selected: Selected, label_run: str | None, *, labelled: int | None = None) -> list[str]:
    """Which labels and episodes an export leaves out, in sentences. `labelled`: episodes that it wrote, where only
    those with a label are written. A label run that was asked for by name counts as it is.
    """
    notes = selected.label_notes() if label_run is None else []
    unlabelled = 0 if labelled is None else len(selected.episodes) - labelled
    return notes + ([f"{unlabelled} episodes without a label are left out"] if unlabelled else [])


def _check_label_run(selected: Selected, label_run: str) -> None:
    rows = selected.lake.rows(
        "SELECT l.label_run, count(*) FROM episode_labels l JOIN selected USING (dataset, episode_index) "
        "GROUP BY 1 ORDER BY 1"
    )
    if label_run not in dict(rows):
        there = ", ".join(f"{name} ({count} episodes)" for name, count in rows) or "no labels"
        raise ExportError(f"no episode selected has a label of the run {label_run!r}; there is {there}")


def _label_facts(lake: Lake, dataset: str, chunk: int, label_run: str | None) -> dict[int, LabelFacts]:
    """By episode, of its active label or that of a label run."""
    columns = f"l.episode_index, COLUMNS('^({'|'.join(FACTS)})$')"
    active = "JOIN active_runs a USING (dataset, episode_index, label_run)" if label_run is None else ""
    rows = lake.dicts(
        f"SELECT {columns} FROM episode_labels l {active} WHERE l.dataset = ? AND l.chunk = ?"
        + ("" if label_run is None else " AND l.label_run = ?"),
        [dataset, chunk, *([] if label_run is None else [label_run])],
    )
    facts = {}
    for row in rows:
        other = row["as_far_as_episode"]
        as_far_as = None if other is None else EpisodeFrame(other, row["as_far_as_frame"])
        # A lake of an earlier version, and a release made with it, has nothing of what people stated
        end = StatedEnd(*(row.get(name) for name in STATED))
        plan, sure = tuple(row["plan"] or ()), row["confidence"]
        facts[row["episode_index"]] = LabelFacts(plan, sure, bool(row["needs_review"]), as_far_as, end)
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
