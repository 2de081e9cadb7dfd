"""A labelled episode for tests of samples: two steps with a pause between them."""

from dataclasses import replace
from typing import Any

import numpy as np

from annotate.samples.labelled_episode import LabelledEpisode
from core.domain.label import DONE, IDLE, Episode, Label, Segment

STEPS = ("Grasp the cup", "Place the cup")


def episode(
    index: int = 0,
    fps: float = 10.0,
    seconds: float = 20.0,
    finished: bool = True,
    *,
    cameras: tuple[str, ...] = ("front",),
    task: str | None = "Put the cup away",
    steps: tuple[str, str] = STEPS,
    split: str = "train",
) -> LabelledEpisode:
    """Step, pause and step are each a third of the run but its last two seconds."""
    n = int(seconds * fps)
    end = int((seconds - 2) * fps)
    third = end // 3
    segments = [
        Segment(steps[0], 0, third, step=0),
        Segment("Wait", third, 2 * third, IDLE),
        Segment(steps[1], 2 * third, end, completed=finished, step=1),
        Segment("Done", end, n, DONE) if finished else Segment("Wait", end, n, IDLE),
    ]
    ends = [0.5, 0.5, 1.0, 1.0] if finished else [0.5, 0.5, 0.75, 0.75]
    curve = np.interp(np.arange(n), [0, *(s.end_frame - 1 for s in segments)], [0.0, *ends]).astype(
        np.float32
    )
    facts = Episode("d", index, 0, fps, n, task, None, split, cameras)
    sizes = dict.fromkeys(cameras, (256, 256))
    label = Label(segments, 2, steps, curve, task=task, label_run="run")
    return LabelledEpisode(facts, label, sizes)


def relabelled(e: LabelledEpisode, **changes: Any) -> LabelledEpisode:
    """The episode with another label."""
    return replace(e, label=replace(e.label, **changes))
