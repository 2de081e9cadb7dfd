"""Checks of what runs look like beside the others: a camera that stands otherwise, a text that others do not fit, a
success whose last picture is unlike the ends of the others."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.summary import PHASES, RunSummary, cameras_of
from annotate.pictures import BLACK_LUMA
from core.values import grouped

NEAREST = 3  # runs that a run is held against
USUAL = 90  # percentile of the others
# A camera that stands still over the dataset: what of its picture rests is nearly the same in all runs
MIN_RUNS_OF_CAMERA = 8
MIN_MOVED = 6.0  # of 255
MIN_MOVED_TIMES = 2.0  # times what is usual
# Texts: runs of one text have to look like one another, and this one like those of another text
MIN_RUNS_OF_TEXT = 4
MAX_RATIO = 0.8
MIN_APART_TIMES = 1.2
MAX_NEAR_TIMES = 2.0
# Outcomes: an end is held against the ends of the other runs of its task, and what they show earlier
MIN_OTHERS = 5
EARLIER = slice(0, PHASES - 4)  # moments of the others that are surely not their end
MIN_END_TIMES = 1.5  # of how far the others' ends are from one another
MIN_EARLIER_TIMES = 2.2  # of how far the end is from what the others show earlier


def moved_cameras(runs: Sequence[RunSummary]) -> Iterator[Finding]:
    """A camera whose resting picture is unlike that of every other run, where those are alike."""
    for camera in cameras_of(runs):
        camera_runs = [run for run in runs if camera in run.cameras]
        if len(camera_runs) < MIN_RUNS_OF_CAMERA:
            continue
        resting = np.stack([_resting_picture(run.cameras[camera].phases) for run in camera_runs])
        nearest = np.array(
            [_distance_to_nearest_pictures(resting, k) for k in range(len(camera_runs))]
        )
        for k, run in enumerate(camera_runs):
            usual_distance = float(np.percentile(np.delete(nearest, k), USUAL))
            if nearest[k] < max(MIN_MOVED, MIN_MOVED_TIMES * usual_distance):
                continue
            detail = (
                f"what {camera} shows at rest is {nearest[k]:.0f} of 255 from the {NEAREST} runs that are most alike; "
                f"others are within {usual_distance:.0f}"
            )
            yield run_fault(
                "camera_moved",
                *run.whole,
                detail,
                float(nearest[k]),
                usual_distance,
                "of 255",
                camera,
            )


def _resting_picture(phases: np.ndarray) -> np.ndarray:
    """What stays in a camera's pictures [k, 16, 16], float32 [16, 16]; where it is black, that is told by itself."""
    is_lit = phases.reshape(len(phases), -1).max(axis=1) >= BLACK_LUMA
    if is_lit.any():
        phases = phases[is_lit]
    return np.median(phases, axis=0).astype(np.float32)


def _distance_to_nearest_pictures(pictures: np.ndarray, number: int) -> float:
    """Mean distance of a picture to the nearest other ones of [k, 16, 16]."""
    distances = np.abs(pictures - pictures[number]).mean(axis=(1, 2))
    return _mean_of_least(np.delete(distances, number))


def _mean_of_least(distances: np.ndarray) -> float:
    """The mean of the NEAREST smallest of some distances [k]."""
    return float(np.sort(distances)[:NEAREST].mean())


def differing_texts(runs: Sequence[RunSummary]) -> Iterator[Finding]:
    """A run that looks and moves like the runs of another text, and not like those of its own, which are alike."""
    texts = [run.task or "" for run in runs]
    common = sorted({text for text in texts if text and texts.count(text) > MIN_RUNS_OF_TEXT})
    if len(common) < 2:
        return
    run_distances = _run_distances(runs)
    # How far runs of a text are from the nearest ones of their own text
    usual_distances = {text: _usual_distance(run_distances, texts, text) for text in common}
    for k, run in enumerate(runs):
        if texts[k] not in common:
            continue
        distances = {text: _distance_to_text(run_distances, texts, k, text) for text in common}
        text_distance = distances.pop(texts[k])
        other_text = min(distances, key=lambda text: distances[text])
        other_distance = distances[other_text]
        is_unlike_own = (
            other_distance <= MAX_RATIO * text_distance
            and text_distance >= MIN_APART_TIMES * usual_distances[texts[k]]
        )
        if is_unlike_own and other_distance <= MAX_NEAR_TIMES * usual_distances[other_text]:
            detail = f'the run looks and moves like those of "{other_text}", not like those of its text "{texts[k]}"'
            yield run_fault(
                "text_differs",
                *run.whole,
                detail,
                other_distance / text_distance,
                MAX_RATIO,
                "ratio of distances",
                signal="text",
            )


def _usual_distance(run_distances: np.ndarray, texts: Sequence[str], text: str) -> float:
    members = [k for k, other_text in enumerate(texts) if other_text == text]
    return float(np.median([_distance_to_text(run_distances, texts, k, text) for k in members]))


def _distance_to_text(
    run_distances: np.ndarray, texts: Sequence[str], run: int, text: str
) -> float:
    """Mean distance of a run to the nearest other ones of a text."""
    members = [k for k, other_text in enumerate(texts) if other_text == text and k != run]
    return _mean_of_least(run_distances[run, members])


def _run_distances(runs: Sequence[RunSummary]) -> np.ndarray:
    """How far runs are from one another, [runs, runs]: by what each camera shows and by the state, at their phases.

    Each of these counts by its median over all pairs. Of a camera that a run lacks, and of rows of
    another form, it is as far as the median.
    """
    parts = [_picture_vectors(runs, camera) for camera in cameras_of(runs)]
    parts.append(_state_vectors(runs))
    total = np.zeros((len(runs), len(runs)), np.float32)
    for part in parts:
        members = np.array(sorted(part), int)
        if len(members) < 2:
            continue
        member_distances = _euclidean_distances(np.stack([part[k] for k in members.tolist()]))
        middle = float(np.median(member_distances[np.triu_indices(len(members), 1)]))
        if middle > 0:
            whole = np.ones_like(total)
            whole[np.ix_(members, members)] = member_distances / middle
            total += whole
    np.fill_diagonal(total, 0)
    return total


def _picture_vectors(runs: Sequence[RunSummary], camera: str) -> dict[int, np.ndarray]:
    """What a camera shows in each run that has it, as one vector, by the run's place in the list."""
    return {
        k: run.cameras[camera].phases.reshape(-1).astype(np.float32)
        for k, run in enumerate(runs)
        if camera in run.cameras
    }


def _state_vectors(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """The states of runs, likewise, in standard deviations of each dimension; of those with the commonest width."""
    states = {
        k: run.columns["state"].phases for k, run in enumerate(runs) if "state" in run.columns
    }
    widths = [values.shape[1] for values in states.values()]
    if not widths:
        return {}
    width = max(sorted(set(widths)), key=widths.count)
    states = {k: values for k, values in states.items() if values.shape[1] == width}
    spread = np.maximum(np.concatenate(list(states.values())).std(axis=0), 1e-9)
    return {k: (values / spread).reshape(-1).astype(np.float32) for k, values in states.items()}


def _euclidean_distances(vectors: np.ndarray) -> np.ndarray:
    """Distances between all pairs of vectors [k, d], [k, k]."""
    squares = (vectors**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0))


def contradicted_outcomes(runs: Sequence[RunSummary]) -> Iterator[Finding]:
    """A run that is said to have succeeded, and ends like what the others of its task show earlier,
    not like their ends."""
    runs_by_task = grouped((run.task, run) for run in runs if run.task and run.success is not False)
    for siblings in runs_by_task.values():
        cameras = set.intersection(*(set(run.cameras) for run in siblings))
        if len(siblings) > MIN_OTHERS and cameras:
            yield from _contradicted_in_task(siblings, sorted(cameras))


def _contradicted_in_task(runs: Sequence[RunSummary], cameras: Sequence[str]) -> Iterator[Finding]:
    pictures = np.stack([_pictures_at_phases(run, cameras) for run in runs])
    ends = pictures[:, -1]
    end_distances = np.array([_distance_to_ends(ends, k) for k in range(len(runs))])
    for k, run in enumerate(runs):
        usual_distance = float(np.percentile(np.delete(end_distances, k), USUAL))
        end_distance = float(end_distances[k])
        # Asked first, since what is earlier costs more to look through
        if not run.success or end_distance < MIN_END_TIMES * usual_distance:
            continue
        earlier_distance = _distance_to_earlier(pictures, k)
        if end_distance < MIN_EARLIER_TIMES * earlier_distance:
            continue
        detail = (
            f"it is said to have succeeded, and its last picture is {end_distance:.1f} of 255 from the ends of the "
            f"other runs of its task, and {earlier_distance:.1f} from what they show earlier; others are within "
            f"{usual_distance:.1f} of an end"
        )
        yield run_fault(
            "outcome_differs",
            run.episode_index,
            run.num_frames - 1,
            run.num_frames,
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


def _distance_to_ends(ends: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest of the others, of [runs, pixels]."""
    return _mean_of_least(np.abs(np.delete(ends, run, axis=0) - ends[run]).mean(axis=1))


def _distance_to_earlier(pictures: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest moments of others, before their end; of [runs, PHASES, pixels]."""
    earlier = np.delete(pictures[:, EARLIER], run, axis=0)
    return _mean_of_least(np.abs(earlier - pictures[run, -1]).mean(axis=2).min(axis=1))
