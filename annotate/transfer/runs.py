"""Inputs and results of the transfer annotator."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotate.label import EpisodeLabel
from annotate.motion import Signals
from annotate.segments import Segment


@dataclass(frozen=True)
class SeenRun:
    """One run: its signals, and what an encoder saw in its pictures.

    frames: int64 [k], rising: the frames that the encoder looked at; none where it looked at none.
    pictures: float32 [k, d] of each camera, in the same order in all runs of a task.
    """

    signals: Signals
    frames: np.ndarray
    pictures: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.signals.change)


@dataclass(frozen=True)
class Reference:
    """A run whose label a person vouches for; its segments tile it, and `plan` names the planned steps."""

    run: SeenRun
    segments: Sequence[Segment]
    plan: tuple[str, ...]


@dataclass(frozen=True)
class Alignment:
    """Which frame of which reference each looked-at frame of a run is like; arrays [k].

    frames: int64, of the run. episodes, reference_frames: int64, the reference and its frame.
    distances: float32; 1 is usual between frames that show the same moment of two runs.
    follows: bool; False: the run does something that the reference does not show.
    """

    frames: np.ndarray
    episodes: np.ndarray
    reference_frames: np.ndarray
    distances: np.ndarray
    follows: np.ndarray


@dataclass(frozen=True)
class Transferred:
    """What one run is like. `label` and `alignment` None: it follows no reference.

    p_failure: how likely the run ended unfinished; None where nothing shows it. why_none: why it follows none.
    """

    label: EpisodeLabel | None
    alignment: Alignment | None
    p_failure: float | None
    why_none: str | None = None
