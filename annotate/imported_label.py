"""The label of one episode that an imported annotation gives, in whichever form it was."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from annotate.segments import Segment
from annotate.stated_progress import NOTHING_STATED, StatedEnd
from core.errors import UserError


class ImportedError(UserError, ValueError):
    """Annotations that cannot be read: what, where, what to do."""


@dataclass(frozen=True)
class ImportedLabel:
    """Segments that tile the episode, of `num_planned` planned steps; `plan` has their names where the form does.

    progress: float32 [num_frames] where the form brings it; None: it follows from the segments, and from `end`.
    """

    segments: list[Segment]
    num_planned: int
    plan: tuple[str, ...] = ()
    progress: np.ndarray | None = None
    end: StatedEnd = NOTHING_STATED


class EpisodeAnnotation(Protocol):
    """One episode's annotation, by the index that the annotated dataset gives it; equal ones have equal `repr`.

    `of` names the corpus's dataset and episode where the annotated dataset is an export of ours.
    """

    @property
    def episode_index(self) -> int: ...

    @property
    def of(self) -> tuple[str, int] | None: ...

    def label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """The label of an episode of the corpus. Raises ImportedError where the annotation does not fit it."""
        ...
