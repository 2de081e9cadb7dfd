"""The check of outcomes: a success whose last picture is unlike the ends of the other runs of its task."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import RunFault
from annotate.checkup.summary import PHASES, RunSummary
from core.values import grouped

MIN_OTHERS = 5
NEAREST = 3  # ends that an end is held against
EARLIER = slice(0, PHASES - 4)  # moments of the others that are surely not their end
USUAL = 90  # percentile of the others
MIN_END_TIMES = 1.5  # of how far the others' ends are from one another
MIN_EARLIER_TIMES = 2.2  # of how far the end is from what the others show earlier


def contradicted_outcomes(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """A run that is said to have succeeded, and ends like what the others of its task show earlier,
    not like their ends."""
    runs_by_task = grouped((run.task, run) for run in runs if run.task and run.success is not False)
    for siblings in runs_by_task.values():
        cameras = set.intersection(*(set(run.cameras) for run in siblings))
        if len(siblings) > MIN_OTHERS and cameras:
            yield from _contradicted(siblings, sorted(cameras))


def _contradicted(runs: Sequence[RunSummary], cameras: Sequence[str]) -> Iterator[RunFault]:
    pictures = np.stack([_pictures_at_phases(run, cameras) for run in runs])
    ends = pictures[:, -1]
    end_distances = np.array([_to_ends(ends, k) for k in range(len(runs))])
    for k, run in enumerate(runs):
        usual_distance = float(np.percentile(np.delete(end_distances, k), USUAL))
        end_distance = float(end_distances[k])
        # Asked first, since what is earlier costs more to look through
        if not run.success or end_distance < MIN_END_TIMES * usual_distance:
            continue
        earlier_distance = _to_earlier(pictures, k)
        if end_distance < MIN_EARLIER_TIMES * earlier_distance:
            continue
        detail = (
            f"it is said to have succeeded, and its last picture is {end_distance:.1f} of 255 from the ends of the "
            f"other runs of its task, and {earlier_distance:.1f} from what they show earlier; others are within "
            f"{usual_distance:.1f} of an end"
        )
        place = run.episode_index, run.num_frames - 1, run.num_frames
        yield RunFault(
            "outcome_differs",
            *place,
            detail,
            end_distance,
            usual_distance,
            "of 255",
            signal="outcome",
        )


def _pictures_at_phases(run: RunSummary, cameras: Sequence[str]) -> np.ndarray:
    """What cameras show at the phases, float32 [PHASES, pixels]."""
    pictures = [run.cameras[camera].phases.reshape(PHASES, -1) for camera in cameras]
    return np.concatenate(pictures, axis=1).astype(np.float32)


def _to_ends(ends: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest of the others, of [runs, pixels]."""
    distances = np.abs(np.delete(ends, run, axis=0) - ends[run]).mean(axis=1)
    return float(np.sort(distances)[:NEAREST].mean())


def _to_earlier(pictures: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest moments of others, before their end; of [runs, PHASES, pixels]."""
    earlier = np.delete(pictures[:, EARLIER], run, axis=0)
    distances = np.abs(earlier - pictures[run, -1]).mean(axis=2).min(axis=1)
    return float(np.sort(distances)[:NEAREST].mean())
