"""Checks of what runs look like beside the others: a camera that stands otherwise, a text that others do not fit."""

from collections.abc import Iterator, Sequence

import numpy as np

from annotate.checkup.faults import RunFault
from annotate.checkup.summary import RunSummary, cameras_of
from annotate.pictures import BLACK_LUMA

NEAREST = 3  # runs that a run is held against
# A camera that stands still over the dataset: what of its picture rests is nearly the same in all runs
MIN_RUNS_OF_CAMERA = 8
MIN_MOVED = 6.0  # of 255
MIN_MOVED_TIMES, USUAL = 2.0, 90  # times the percentile of the others
# Texts: runs of one text have to look like one another, and this one like those of another text
MIN_RUNS_OF_TEXT = 4
MAX_RATIO = 0.8
MIN_APART_TIMES = 1.2
MAX_NEAR_TIMES = 2.0


def moved_cameras(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """A camera whose resting picture is unlike that of every other run, where those are alike."""
    for camera in cameras_of(runs):
        having = [run for run in runs if camera in run.cameras]
        if len(having) < MIN_RUNS_OF_CAMERA:
            continue
        resting = np.stack([_resting(run.cameras[camera].phases) for run in having])
        nearest = np.array([_mean_of_nearest(resting, k) for k in range(len(having))])
        for k, run in enumerate(having):
            usual_distance = float(np.percentile(np.delete(nearest, k), USUAL))
            if nearest[k] < max(MIN_MOVED, MIN_MOVED_TIMES * usual_distance):
                continue
            detail = (
                f"what {camera} shows at rest is {nearest[k]:.0f} of 255 from the {NEAREST} runs that are most alike; "
                f"others are within {usual_distance:.0f}"
            )
            place = run.episode_index, 0, run.num_frames
            yield RunFault(
                "camera_moved", *place, detail, float(nearest[k]), usual_distance, "of 255", camera
            )


def _resting(phases: np.ndarray) -> np.ndarray:
    """What stays in a camera's pictures [k, 16, 16], float32 [16, 16]; where it is black, that is told by itself."""
    is_lit = phases.reshape(len(phases), -1).max(axis=1) >= BLACK_LUMA
    if is_lit.any():
        phases = phases[is_lit]
    return np.median(phases, axis=0).astype(np.float32)


def _mean_of_nearest(pictures: np.ndarray, number: int) -> float:
    """Mean distance of a picture to the nearest other ones of [k, 16, 16]."""
    differences = np.abs(pictures - pictures[number]).mean(axis=(1, 2))
    return float(np.sort(np.delete(differences, number))[:NEAREST].mean())


def differing_texts(runs: Sequence[RunSummary]) -> Iterator[RunFault]:
    """A run that looks and moves like the runs of another text, and not like those of its own, which are alike."""
    texts = [run.task or "" for run in runs]
    common = sorted({text for text in texts if text and texts.count(text) > MIN_RUNS_OF_TEXT})
    if len(common) < 2:
        return
    run_distances = _distances(runs)
    # How far runs of a text are from the nearest ones of their own text
    usual_distances = {text: _usual_distance(run_distances, texts, text) for text in common}
    for k, run in enumerate(runs):
        if texts[k] not in common:
            continue
        distances = {text: _to_nearest(run_distances, texts, k, text) for text in common}
        text_distance = distances.pop(texts[k])
        other_text = min(distances, key=lambda text: distances[text])
        other_distance = distances[other_text]
        is_unlike_own = (
            other_distance <= MAX_RATIO * text_distance
            and text_distance >= MIN_APART_TIMES * usual_distances[texts[k]]
        )
        if is_unlike_own and other_distance <= MAX_NEAR_TIMES * usual_distances[other_text]:
            detail = f'the run looks and moves like those of "{other_text}", not like those of its text "{texts[k]}"'
            ratio = other_distance / text_distance
            place = (run.episode_index, 0, run.num_frames)
            yield RunFault(
                "text_differs",
                *place,
                detail,
                ratio,
                MAX_RATIO,
                "ratio of distances",
                signal="text",
            )


def _usual_distance(run_distances: np.ndarray, texts: Sequence[str], text: str) -> float:
    members = [k for k, other_text in enumerate(texts) if other_text == text]
    return float(np.median([_to_nearest(run_distances, texts, k, text) for k in members]))


def _to_nearest(run_distances: np.ndarray, texts: Sequence[str], run: int, text: str) -> float:
    """Mean distance of a run to the nearest other ones of a text."""
    members = [k for k, other_text in enumerate(texts) if other_text == text and k != run]
    return float(np.sort(run_distances[run, members])[:NEAREST].mean())


def _distances(runs: Sequence[RunSummary]) -> np.ndarray:
    """How far runs are from one another, [runs, runs]: by what each camera shows and by the state, at their phases.

    Each of these counts by its median over all pairs. Of a camera that a run lacks, and of rows of
    another form, it is as far as the median.
    """
    parts = [_pictures(runs, camera) for camera in cameras_of(runs)]
    parts.append(_states(runs))
    total = np.zeros((len(runs), len(runs)), np.float32)
    for part in parts:
        members = np.array(sorted(part), int)
        if len(members) > 1:
            member_distances = _euclidean(np.stack([part[k] for k in members.tolist()]))
        else:
            member_distances = np.zeros((1, 1))
        if len(members) > 1:
            middle = float(np.median(member_distances[np.triu_indices(len(member_distances), 1)]))
        else:
            middle = 0.0
        if middle > 0:
            whole = np.ones_like(total)
            whole[np.ix_(members, members)] = member_distances / middle
            total += whole
    np.fill_diagonal(total, 0)
    return total


def _pictures(runs: Sequence[RunSummary], camera: str) -> dict[int, np.ndarray]:
    """What a camera shows in each run that has it, as one vector, by the run's place in the list."""
    having = {k: run.cameras[camera].phases for k, run in enumerate(runs) if camera in run.cameras}
    return {k: phases.reshape(-1).astype(np.float32) for k, phases in having.items()}


def _states(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
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


def _euclidean(vectors: np.ndarray) -> np.ndarray:
    """Distances between all pairs of vectors [k, d], [k, k]."""
    squares = (vectors**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0))
