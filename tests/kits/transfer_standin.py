"""A stand-in for the transfer annotator: boundaries of the nearest reference by length, at the same share of a run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from annotate.label import plain_label
from annotate.motion import MotionConfig
from annotate.segments import Segment
from annotate.transfer import Alignment, Reference, SeenRun, TransferConfig, Transferred

NO_FIT = 2.0  # times as long as its reference: nothing fits


def by_share(
    runs: Sequence[SeenRun], references: Sequence[Reference], config: TransferConfig, motion: MotionConfig
) -> list[Transferred]:
    """Stands for annotate.transfer.annotate."""
    return [_transferred(run, references) for run in runs]


def _transferred(run: SeenRun, references: Sequence[Reference]) -> Transferred:
    others = [r for r in references if r.run.signals.episode_index != run.signals.episode_index]
    if not others:
        return Transferred(None, None, None)
    nearest = min(others, key=lambda r: (abs(len(r.run) - len(run)), r.run.signals.episode_index))
    if len(run) > NO_FIT * len(nearest.run):
        return Transferred(None, None, None)
    share = len(run) / len(nearest.run)
    ends = [max(k + 1, round(s.end_frame * share)) for k, s in enumerate(nearest.segments)]
    ends[-1] = len(run)
    starts = [0, *ends[:-1]]
    segments = [
        replace(s, start_frame=start, end_frame=end, confidence=0.5)
        for s, start, end in zip(nearest.segments, starts, ends, strict=True)
    ]
    label = plain_label(_tiling(segments), len(nearest.plan), run.signals.task, step_names=nearest.plan)
    frames = np.arange(0, len(run), 2)
    num = len(frames)
    like = np.minimum((frames / share).astype(np.int64), len(nearest.run) - 1)
    episodes = np.full(num, nearest.run.signals.episode_index)
    alignment = Alignment(frames, episodes, like, np.full(num, 0.5, np.float32), np.ones(num, bool))
    return Transferred(label, alignment, None)


def _tiling(segments: Sequence[Segment]) -> list[Segment]:
    return [segment for segment in segments if len(segment) > 0]
