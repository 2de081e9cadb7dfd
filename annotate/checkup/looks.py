"""Measures of what runs look like beside the others: a camera that stands otherwise, a text that others do not fit, a
success whose last picture is unlike the ends of the others."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement
from annotate.checkup.summary import PHASES, RunSummary, cameras_of, euclidean_distances
from annotate.pictures import BLACK_LUMA
from annotate.signal_lag import percentile
from core.values import grouped

OTHERS = LIMITS["others"]
MOVED = LIMITS["camera_moved"]
TEXT = LIMITS["text_differs"]
OUTCOME = LIMITS["outcome_differs"]
TINY = 1e-9  # a distance that is none


def moved_cameras(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """How unlike a camera's resting picture is to that of every other run."""
    for camera in cameras_of(runs):
        camera_runs = [run for run in runs if camera in run.cameras]
        if len(camera_runs) < MOVED.runs:
            continue
        resting = np.stack([_resting_picture(run.cameras[camera].phases) for run in camera_runs])
        for k, distance, usual_distance in _beside_others(resting, MOVED.minimum):
            yield Measurement(
                "camera_moved", camera_runs[k], distance, usual_distance, camera=camera
            )


def _beside_others(
    pictures: np.ndarray, minimum: float = 0.0
) -> Iterator[tuple[int, float, float]]:
    """How far each run's picture, of [runs, ...], is from the nearest others, where it is so far, and how far the
    others' are."""
    flat = pictures.reshape(len(pictures), -1)
    distances = np.stack([np.abs(flat - picture).mean(axis=1) for picture in flat])
    np.fill_diagonal(distances, np.inf)
    nearest = _mean_of_least(distances)
    for k in np.flatnonzero(nearest >= minimum).tolist():
        yield k, float(nearest[k]), percentile(np.delete(nearest, k), OTHERS.usual)


def _resting_picture(phases: np.ndarray) -> np.ndarray:
    """What stays in a camera's pictures [k, 16, 16], float32 [16, 16]; where it is black, that is told by itself."""
    is_lit = phases.reshape(len(phases), -1).max(axis=1) >= BLACK_LUMA
    if is_lit.any():
        phases = phases[is_lit]
    return np.median(phases, axis=0).astype(np.float32)


def _mean_of_least(distances: np.ndarray) -> np.ndarray:
    """The mean of the OTHERS.nearest smallest of each row of distances [n, k], float64 [n]; infinite ones are none."""
    least = np.sort(distances, axis=1)[:, : OTHERS.nearest]
    return least.mean(axis=1, where=np.isfinite(least)).astype(np.float64)


def differing_texts(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """A run that looks and moves like those of another text, not of its own."""
    texts = np.array([run.task or "" for run in runs])
    names, counts = np.unique(texts[texts != ""], return_counts=True)
    common = names[counts > TEXT.runs].tolist()
    if len(common) < 2:
        return
    run_distances = _run_distances(runs)
    distances = [_distances_to_text(run_distances, texts == text) for text in common]
    # How far runs of a text are from the nearest ones of their own text
    usual_distances = np.array(
        [np.median(column[texts == text]) for column, text in zip(distances, common, strict=True)]
    )
    for number, text in enumerate(common):
        foreign_distances = np.stack(distances, axis=1)
        text_distances = foreign_distances[:, number].copy()
        foreign_distances[:, number] = np.inf
        nearest = foreign_distances.argmin(axis=1)
        nearest_distances = foreign_distances.min(axis=1)
        is_unlike = text_distances >= TEXT.apart * usual_distances[number]
        is_near = nearest_distances <= TEXT.near * usual_distances[nearest]
        for k in np.flatnonzero((texts == text) & is_unlike & is_near).tolist():
            yield Measurement(
                "text_differs",
                runs[k],
                float(text_distances[k] / max(nearest_distances[k], TINY)),
                signal="text",
                words={"nearest": common[nearest[k]], "text": text},
            )


def _distances_to_text(run_distances: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """Mean distance of each run to the nearest others of a text, [runs]; is_member: those that have it, bool [runs]."""
    is_other = is_member & ~np.eye(len(is_member), dtype=bool)
    return _mean_of_least(np.where(is_other, run_distances, np.inf))


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
        member_distances = euclidean_distances(np.stack([part[k] for k in members.tolist()]))
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


def contradicted_outcomes(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """A run that is said to have succeeded, and ends like what the others of its task show earlier,
    not like their ends."""
    runs_by_task = grouped((run.task, run) for run in runs if run.task and run.success is not False)
    for siblings in runs_by_task.values():
        cameras = set.intersection(*(set(run.cameras) for run in siblings))
        if len(siblings) > OUTCOME.others and cameras:
            yield from _contradicted_in_task(siblings, sorted(cameras))


def _contradicted_in_task(
    runs: Sequence[RunSummary], cameras: Sequence[str]
) -> Iterator[Measurement]:
    pictures = np.stack([_pictures_at_phases(run, cameras) for run in runs])
    for k, distance, usual_distance in _beside_others(pictures[:, -1]):
        run = runs[k]
        # Asked first, since what is earlier costs more to look through
        if not run.success or distance < OUTCOME.times * usual_distance:
            continue
        earlier = _distance_to_earlier(pictures, k)
        if distance >= OUTCOME.earlier * earlier:
            yield Measurement(
                "outcome_differs",
                run,
                distance,
                usual_distance,
                (len(run) - 1, len(run)),
                signal="outcome",
                words={"earlier": earlier},
            )


def _pictures_at_phases(run: RunSummary, cameras: Sequence[str]) -> np.ndarray:
    """What cameras show at the phases, float32 [PHASES, pixels]."""
    pictures = [run.cameras[camera].phases.reshape(PHASES, -1) for camera in cameras]
    return np.concatenate(pictures, axis=1).astype(np.float32)


def _distance_to_earlier(pictures: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest moments of others, before their end; of [runs, PHASES, pixels]."""
    earlier = np.delete(pictures[:, : -OUTCOME.last], run, axis=0)
    distances = np.abs(earlier - pictures[run, -1]).mean(axis=2).min(axis=1)
    return float(_mean_of_least(distances[None])[0])
