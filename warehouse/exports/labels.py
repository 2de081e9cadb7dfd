"""Labels of a chunk's episodes: segments and progress per frame, and what a label says of its episode as a whole."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from core.domain.episode import Episode
from core.domain.label import Label
from core.errors import UserError
from warehouse.exports.export import Export, counted
from warehouse.exports.options import Selection
from warehouse.exports.selection import Selected
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of


def ramp(label: Label) -> np.ndarray:
    """Progress that rises evenly inside each segment, through the label's values where segments
    begin and end.

    float32 [num_frames]. The label itself stands still while the arm does, so a reward for the gain
    over the next few frames would take every pause for a stall.
    """
    knots = [s.start_frame for s in label.segments] + [len(label.progress) - 1]
    frames = np.arange(len(label.progress))
    return np.interp(frames, knots, label.progress[knots]).astype(np.float32)


def chunk_labels(
    selected: Selected,
    dataset: str,
    chunk: int,
    episodes: Iterable[Episode],
    label_run: str | None = None,
) -> dict[int, Label]:
    """Labels of those episodes of a chunk that have one: the active ones, or those of a label run,
    as they are.

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
        if covered != e.num_frames or label is None or label.num_frames != e.num_frames:
            raise UserError(
                f"the label of {dataset} episode {e.episode_index} covers {covered} frames, the episode has "
                f"{e.num_frames}: build the dataset again"
            )
        # A label run that was asked for by name counts as it is
        sure_of_names = e.sure_of_names or label_run is not None
        labels[e.episode_index] = replace(label, sure_of_names=sure_of_names)
    return labels


def each_label(
    selected: Selected, label_run: str | None = None
) -> Iterator[tuple[Episode, Label | None]]:
    """Every episode in order, and its label if it has one; one chunk's labels are in memory at a time."""
    for dataset, chunk, episodes in selected.chunks():
        labels = chunk_labels(selected, dataset, chunk, episodes, label_run)
        yield from ((e, labels.get(e.episode_index)) for e in episodes)


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

    def labels(self) -> Iterator[tuple[Episode, Label | None]]:
        return each_label(self.selected, self.options.label_run)

    def labelled(self) -> Iterator[tuple[Episode, Label]]:
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
