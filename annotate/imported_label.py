"""The label of one episode that an imported annotation gives, in whichever form it was."""

from abc import ABC, abstractmethod

from core.domain.label import STEP, Label, Segment, check_stated, check_tiling
from core.errors import UserError
from core.names import unnamed_step

# JSON that has another shape, too large numbers, or lists in too many lists raises these
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class ImportedError(UserError, ValueError):
    """Annotations that cannot be read: what, where, what to do."""


class EpisodeAnnotation(ABC):
    """One episode's annotation, by the index that the annotated dataset gives it; equal ones have equal `repr`.

    `of` names the corpus's dataset and episode where the annotated dataset is an export of ours.
    """

    episode_index: int
    of: tuple[str, int] | None

    def label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """The label of an episode of the corpus. Raises ImportedError where the annotation does not fit it."""
        try:
            label = self.unchecked_label(num_frames, fps, success)
            check_tiling(label.segments, num_frames, label.num_planned)
            check_stated(label.segments, label.num_planned, label.end)
        except ValueError as e:
            raise ImportedError(str(e)) from e
        return label

    @abstractmethod
    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """Raises ValueError."""


def whole_run(num_frames: int, completed: bool) -> list[Segment]:
    """All of the run as one step without a name."""
    return [Segment(unnamed_step(0), 0, num_frames, STEP, completed, 0, named=False)]
