"""Labels of a chunk's episodes: segments and progress per frame, and what a label says of its episode as a whole."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.domain.label import NOTHING_STATED, EpisodeFrame, Segment, StatedEnd
from core.errors import UserError
from warehouse.exports.export import Export, counted
from warehouse.exports.options import Selection
from warehouse.exports.selection import ExportEpisode, Selected
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of


@dataclass(frozen=True)
class ActiveLabel:
    """One episode's active label. `progress` float32 [num_frames]; `confidence` of the episode as a whole.

    `named`: has every planned step a name? `sure_of_names`: is the label sure enough of those that have one?
    `as_far_as`: a failed episode came as far as this frame of another one. `end`: what a person states.
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
        return np.interp(np.arange(len(self.progress)), knots, self.progress[knots]).astype(
            np.float32
        )


def chunk_labels(
    selected: Selected,
    dataset: str,
    chunk: int,
    episodes: Iterable[ExportEpisode],
    label_run: str | None = None,
) -> dict[int, ActiveLabel]:
    """Labels of those episodes of a chunk that have one: the active ones, or those of a label run, as they are.

    Raises UserError for labels that do not fit the frames.
    """
    stored = labels_of(selected.lake.con, dataset, chunk, label_run=label_run, whole=True)
    labels = {}
    for e in episodes:
        label = stored.get(e.episode_index)
        if e.label_run is None if label_run is None else label is None:
            continue
        # Progress and segments cover every frame exactly; anything else is a label of other pictures
        covered = 0 if label is None else len(label.progress)
        if covered != e.num_frames or label is None or label.segments[-1].end_frame != e.num_frames:
            raise UserError(
                f"the label of {dataset} episode {e.episode_index} covers {covered} frames, the episode has "
                f"{e.num_frames}: build the dataset again"
            )
        labels[e.episode_index] = ActiveLabel(
            segments=tuple(label.segments),
            num_planned=label.num_planned or 0,
            progress=label.progress,
            # A label run that was asked for by name counts as it is
            named=e.named is not False
            if label_run is None
            else all(s.named for s in label.segments),
            sure_of_names=e.sure_of_names or label_run is not None,
            **_facts(label.facts),
        )
    return labels


def each_label(
    selected: Selected, label_run: str | None = None
) -> Iterator[tuple[ExportEpisode, ActiveLabel | None]]:
    """Every episode in order, and its label if it has one; one chunk's labels are in memory at a time."""
    for dataset, chunk, episodes in selected.chunks():
        labels = chunk_labels(selected, dataset, chunk, episodes, label_run)
        yield from ((e, labels.get(e.episode_index)) for e in episodes)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of episode_labels says of its episode as a whole, as fields of a label; a lake of an earlier version
    has nothing of what people stated."""
    last_episode = row.get("as_far_as_episode")
    return {
        "plan": tuple(row.get("plan") or ()),
        "confidence": row.get("confidence"),
        "needs_review": bool(row.get("needs_review")),
        "as_far_as": None
        if last_episode is None
        else EpisodeFrame(last_episode, row["as_far_as_frame"]),
        "end": StatedEnd(row.get("final_progress"), row.get("catastrophic_frame")),
    }


class LabelExport(Export):
    """An export of the active labels, or of those of the label run that the options name."""

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        if self.options.label_run is not None:
            rows = selected.lake.rows(
                "SELECT l.label_run, count(*) FROM episode_labels l JOIN selected USING (dataset, episode_index) "
                "GROUP BY 1 ORDER BY 1"
            )
            if self.options.label_run not in dict(rows):
                available_runs = (
                    ", ".join(f"{name} ({count} episodes)" for name, count in rows) or "no labels"
                )
                raise UserError(
                    f"no episode selected has a label of the run {self.options.label_run!r}; there is {available_runs}"
                )
        return selected

    def labels(self) -> Iterator[tuple[ExportEpisode, ActiveLabel | None]]:
        return each_label(self.selected, self.options.label_run)

    def labelled(self) -> Iterator[tuple[ExportEpisode, ActiveLabel]]:
        yield from ((e, label) for e, label in self.labels() if label is not None)

    def no_labels(self) -> UserError:
        number = len(self.selected.episodes)
        return UserError(f"nothing to export: none of the {number} episodes selected has a label")

    def notes(self, labelled: int | None = None) -> list[str]:
        """Which labels and episodes are left out, in sentences. `labelled`: episodes that were written, where only
        those with a label are; raises UserError where none has one."""
        if labelled == 0:
            raise self.no_labels()
        notes = self.selected.label_notes() if self.options.label_run is None else []
        without = 0 if labelled is None else len(self.selected.episodes) - labelled
        return notes + counted(without, "episodes without a label are left out")
