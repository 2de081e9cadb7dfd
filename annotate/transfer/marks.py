"""What marks a moment in a run by itself: a gripper that closes, an arm that comes to rest, a cut that motion makes.

A boundary that a person put beside such a mark is put beside the same mark in the other runs: pictures show what is
done, marks show the frame.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from annotate.motion.signals import MotionRun
from annotate.segments import Segment

NEAR_S = 0.5  # s: a mark of the reference that is as near as this may explain its boundary
REACH_S = 1.0  # s: a mark of the run that is farther from where pictures put the boundary is another one
PER_SECOND = 0.3  # of the doubt about a mark that is far from its boundary in the reference: the same in the run

type Marks = Mapping[tuple[object, ...], Sequence[int]]  # frames by kind


def marks(run: MotionRun, motion_segments: Sequence[Segment]) -> Marks:
    """The frames of a run that something marks, by what does; `motion_segments`: as motion cuts it."""
    frames: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for event in run.gripper_events:
        frames[event.kind, "begins"].append(event.start)
        frames[event.kind, "holds"].append(event.moment)
        frames[event.kind, "ends"].append(event.end)
    for start, end in run.stand_stills:
        if start > 0:
            frames["comes to rest",].append(start)
        if end < len(run):
            frames["sets out",].append(end)
    for before, after in pairwise(motion_segments):
        frames["cut", before.kind, before.step, after.kind, after.step].append(after.start_frame)
    return frames


def at_same_mark(cut: int, marks: Marks, fps: float, boundary: int, of_reference: Marks, its_fps: float) -> int | None:
    """Where a run has the mark that a reference has beside its boundary; None where they share none.

    cut: where the pictures put the boundary in the run. The nearest mark to both counts.
    """
    best: tuple[float, int] | None = None
    for kind, frames in of_reference.items():
        for frame in frames:
            beside_s = (boundary - frame) / its_fps
            if abs(beside_s) > NEAR_S:
                continue
            for other in marks.get(kind, ()):
                moved = other + round(beside_s * fps)
                off_s = abs(moved - cut) / fps
                doubt = abs(beside_s) + PER_SECOND * off_s
                if off_s <= REACH_S and (best is None or (doubt, moved) < best):
                    best = doubt, moved
    return None if best is None else best[1]
