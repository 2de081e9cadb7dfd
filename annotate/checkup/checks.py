"""The checkup of a chunk's runs, and the faults among them.

All measures are in three lists, by what each looks at. Copies are found by rows, by pictures or by both: each run is
compared with those that share rare hashes of pictures, or rows at the same moments; the work grows with the frames of a
chunk, and with the square of its runs only where their few moments are compared.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched, chain, combinations, product
from operator import itemgetter

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement, faults
from annotate.checkup.comparisons import (
    Group,
    clipped_action,
    common_lag,
    compared_runs,
    contradicted_outcomes,
    dead_dimensions,
    differing_texts,
    idle_ends,
    late_rows,
    moved_cameras,
    offsets,
    opposite_signs,
    other_units,
    still_gripper,
)
from annotate.checkup.single_runs import (
    CameraSignals,
    RunSignals,
    black_stretches,
    frozen_stretches,
    jumps,
    missing_frames,
    picture_jumps,
    stale_statistics,
    stuck_stretches,
)
from annotate.checkup.summary import RunSummary, cameras_of, euclidean_distances, summarize
from core.values import grouped
from ingest.episode import Finding

COPY = LIMITS["copy"]
FOREIGN = LIMITS["other_pictures"]


def copies(dataset: str, runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """Runs that are a copy of an earlier one; or, where pictures are equal and rows differ, have foreign pictures."""
    by_index = {run.episode_index: run for run in runs}
    picture_copies = _picture_copies(runs)
    row_distances = _row_distances(runs, picture_copies)
    lag = common_lag(runs)
    near = [pair for pair, distance in row_distances.items() if distance <= COPY.rows_seen]
    picture_copies |= {
        (a, b) for a, b in near if _look_equal(by_index[a], by_index[b], COPY.mean_of_near)
    }
    row_copies = {pair for pair, distance in row_distances.items() if distance <= COPY.rows}
    # Of several runs that a run is a copy of, the earliest counts
    first_pairs = {
        later: (earlier, later)
        for earlier, later in sorted(row_copies | picture_copies, reverse=True)
    }
    for pair in sorted(first_pairs.values()):
        earlier, later = (by_index[episode] for episode in pair)
        distance = row_distances.get(pair)
        fault = _foreign_pictures(dataset, earlier, later, lag, distance)
        yield fault or _copy(dataset, earlier, later, distance, pair in picture_copies)


def exact_copies(dataset: str, runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """Runs of which both the rows and the pictures of all cameras are equal to those of an earlier one, however far."""
    first = dict[tuple, RunSummary]()
    for run in runs:
        pictures = tuple(sorted((name, camera.sha256) for name, camera in run.cameras.items()))
        earlier = first.setdefault((run.rows_digest, pictures), run)
        if earlier is not run:
            yield _copy(dataset, earlier, run, 0.0, are_pictures_equal=True)


def _copy(
    dataset: str,
    earlier: RunSummary,
    later: RunSummary,
    distance: float | None,
    are_pictures_equal: bool,
) -> Measurement:
    """`distance`: between the rows; None where they were not compared."""
    pictures = "the pictures are equal" if are_pictures_equal else "the pictures differ"
    if earlier.rows_digest is None:
        kind = "the pictures are equal, and no rows tell the runs apart"
    elif distance == 0 and are_pictures_equal:
        kind = "rows and pictures are equal"
    elif distance is not None and distance <= COPY.rows_seen:
        kind = f"the rows are {distance:.2g} standard deviations apart, {pictures}"
    else:
        kind = "the pictures are equal, the rows differ in length or values"
    return Measurement(
        "copy",
        later,
        distance or 0.0,
        COPY.rows,
        other=(dataset, earlier.episode_index),
        words={"kind": kind},
    )


def _foreign_pictures(
    dataset: str, earlier: RunSummary, later: RunSummary, lag: int, distance: float | None
) -> Measurement | None:
    """Which of two runs with equal pictures has those of the other: the one whose rows do not go with them.

    None where their rows are near each other, or nothing tells which of both it is.
    """
    first = _likeness_at_lag(earlier, lag)
    second = _likeness_at_lag(later, lag)
    are_near = distance is not None and distance < FOREIGN.rows
    if are_near or first is None or second is None:
        return None
    loss = abs(first - second)
    if loss < FOREIGN.minimum:
        return None
    wrong, right = (earlier, later) if first < second else (later, earlier)
    low, high = sorted((first, second))
    partner = dataset, right.episode_index
    return Measurement("other_pictures", wrong, low, high, size=loss, other=partner)


def _likeness_at_lag(run: RunSummary, lag: int) -> float | None:
    if run.row_curve is None:
        return None
    middle = len(run.row_curve) // 2
    near = run.row_curve[max(0, middle + lag - 1) : middle + lag + 2]
    return float(near.max())


def _row_distances(
    runs: Sequence[RunSummary], picture_copies: Collection[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """How far the rows of each pair of runs of one length are apart, where they can be compared.

    Of pairs that may be near each other, and of copies by pictures; 0: exactly equal.
    """
    distances = dict[tuple[int, int], float]()
    for group in _comparable_groups(runs):
        vectors = _phase_vectors(group)
        places = {run.episode_index: k for k, run in enumerate(group)}
        # The mean over the dimensions is no larger than that of one
        flat = vectors.reshape(len(group), -1)
        bounds = euclidean_distances(flat) / max(1, flat.shape[1]) ** 0.5
        near = np.argwhere(np.triu(bounds <= 1.01 * COPY.rows_seen, 1))
        copied = [(places[a], places[b]) for a, b in picture_copies if {a, b} <= places.keys()]
        for a, b in {*map(tuple, near.tolist()), *copied}:
            first = group[a]
            second = group[b]
            if abs(first.num_frames - second.num_frames) <= COPY.lengths:
                squares = ((vectors[a] - vectors[b]) ** 2).mean(axis=0)
                distance = max(1e-12, float(np.sqrt(squares).max(initial=0.0)))
                is_equal = first.rows_digest == second.rows_digest
                distances[first.episode_index, second.episode_index] = 0.0 if is_equal else distance
    return distances


def _comparable_groups(runs: Sequence[RunSummary]) -> Iterator[list[RunSummary]]:
    """Runs with rows of the same form, in which the arm moves."""
    comparable = [run for run in runs if run.rows_digest is not None and run.columns]
    groups = grouped((_column_widths(run), run) for run in comparable)
    return (group for group in groups.values() if len(group) > 1)


def _column_widths(run: RunSummary) -> frozenset[tuple[str, int]]:
    """The widths of a run's columns, by their names."""
    return frozenset((name, len(column.spread)) for name, column in run.columns.items())


def _phase_vectors(group: Sequence[RunSummary]) -> np.ndarray:
    """Rows of runs at their moments, in standard deviations of each dimension over the group, [runs, PHASES, d]."""
    vectors = []
    for name in sorted(group[0].columns):
        values = np.stack([run.columns[name].phases for run in group])
        spread = values.reshape(-1, values.shape[2]).std(axis=0)
        is_moving = spread > 1e-9
        vectors.append(values[:, :, is_moving] / spread[is_moving])
    return np.concatenate(vectors, axis=2)


def _picture_copies(runs: Sequence[RunSummary]) -> set[tuple[int, int]]:
    """Pairs of runs whose pictures are those of one recording, in all cameras that both have."""
    pairs = set[tuple[int, int]]()
    by_index = {run.episode_index: run for run in runs}
    for camera in cameras_of(runs):
        summaries = {
            run.episode_index: run.cameras[camera] for run in runs if camera in run.cameras
        }
        pairs |= {
            pair
            for pair, shift in _shifts_of_sharing_pairs(summaries).items()
            if _is_copy(summaries, pair, shift)
        }
    return {(a, b) for a, b in pairs if _look_equal(by_index[a], by_index[b], COPY.mean)}


def _shifts_of_sharing_pairs(cameras: Mapping[int, CameraSignals]) -> dict[tuple[int, int], int]:
    """Pairs of runs that share many rare hashes of pictures, and the frames from those of the first to the second's."""
    first_frames = {episode: _first_frames(camera.phash) for episode, camera in cameras.items()}
    # Few hashes are of several runs
    num_runs = Counter(chain.from_iterable(first_frames.values()))
    shared = {phash for phash, count in num_runs.items() if 2 <= count <= COPY.runs_of_hash}
    hashes = (
        product(filter(shared.__contains__, of_run), [e]) for e, of_run in first_frames.items()
    )
    shifts: dict[tuple[int, int], Counter[int]] = {}
    for phash, episodes in grouped(chain.from_iterable(hashes)).items():
        for a, b in combinations(sorted(episodes), 2):
            shift = first_frames[b][phash] - first_frames[a][phash]
            shifts.setdefault((a, b), Counter())[shift] += 1
    sharing = {}
    for (a, b), counts in shifts.items():
        num_shorter = min(len(first_frames[a]), len(first_frames[b]))
        if num_shorter >= COPY.hashes and counts.total() >= COPY.shared * num_shorter:
            sharing[a, b] = counts.most_common(1)[0][0]
    return sharing


def _first_frames(phash: np.ndarray) -> dict[int, int]:
    values, frames = np.unique(phash, return_index=True)
    return dict(zip(values.tolist(), frames.tolist(), strict=True))


def _is_copy(cameras: Mapping[int, CameraSignals], pair: tuple[int, int], shift: int) -> bool:
    """Are the pictures of two runs equal, frame by frame, where the second's are `shift` frames later?"""
    a, b = (cameras[episode] for episode in pair)
    start = max(0, -shift)
    end = min(len(a.phash), len(b.phash) - shift)
    if end - start < COPY.overlap * min(len(a.phash), len(b.phash)):
        return False
    bits = np.bitwise_count(a.phash[start:end] ^ b.phash[start + shift : end + shift])
    if max(part.mean() for part in np.array_split(bits, COPY.parts)) > COPY.bits:
        return False
    changes = a.change[start + 1 : end], b.change[start + shift + 1 : end + shift]
    if min(change.std() for change in changes) == 0:
        return bool((changes[0] == changes[1]).all())
    return float(np.corrcoef(*changes)[0, 1]) >= COPY.correlation


def _look_equal(a: RunSummary, b: RunSummary, max_mean: float) -> bool:
    """Are the tiny pictures of all cameras that both runs have equal, but for what coding does to them?

    At all moments of runs of one length, else at the first. `max_mean`: of 255, over all cells.
    """
    shared = a.cameras.keys() & b.cameras.keys()
    is_of_one_length = abs(a.num_frames - b.num_frames) <= COPY.lengths
    moments = slice(None) if is_of_one_length else slice(1)
    for camera in shared:
        differences = np.abs(
            a.cameras[camera].tiny[moments].astype(int) - b.cameras[camera].tiny[moments]
        )
        if (
            np.median(differences.reshape(len(differences), -1).max(axis=1)) > COPY.cell
            or differences.mean() > max_mean
        ):
            return False
    return bool(shared)


# Of one run by itself
OF_RUNS: tuple[Callable[[RunSignals], Iterator[Measurement]], ...] = (
    black_stretches,
    frozen_stretches,
    picture_jumps,
    jumps,
    stuck_stretches,
    missing_frames,
    stale_statistics,
)
# Of one run beside the others of its task, or of any
OF_GROUPS: tuple[Callable[[RunSummary, Group], Iterator[Measurement]], ...] = (
    still_gripper,
    clipped_action,
    dead_dimensions,
    other_units,
    offsets,
    idle_ends,
)
# Of all runs together
OF_BLOCKS: tuple[Callable[[Sequence[RunSummary]], Iterator[Measurement]], ...] = (
    late_rows,
    moved_cameras,
    differing_texts,
    contradicted_outcomes,
    opposite_signs,
)
COMPARED = 500  # runs at a time, in order of their numbers; as many as a chunk has


@dataclass
class Checkup:
    """Gathers the faults of a dataset's runs, a run at a time, and what comparisons need of each."""

    dataset: str
    runs: dict[int, tuple[RunSummary, list[Finding]]] = field(default_factory=dict)

    def add(self, run: RunSignals) -> None:
        measurements = chain.from_iterable(measure(run) for measure in OF_RUNS)
        self.runs[run.episode_index] = summarize(run), [*faults(measurements)]

    def without(self, episodes: Collection[int]) -> "Checkup":
        """What was gathered of all other runs."""
        runs = {episode: run for episode, run in self.runs.items() if episode not in episodes}
        return replace(self, runs=runs)

    def faults(self) -> list[Finding]:
        """All faults, in order of runs and frames."""
        runs = [self.runs[episode][0] for episode in sorted(self.runs)]
        all_faults = [*chain.from_iterable(map(itemgetter(1), self.runs.values()))]
        copied = {fault.episode_index: fault for fault in faults(exact_copies(self.dataset, runs))}
        # Runs are compared within blocks, so that time and memory grow with their number, not with its square
        for block in batched(runs, COMPARED):
            all_faults += faults(chain.from_iterable(measure(block) for measure in OF_BLOCKS))
            for run, group in compared_runs(block):
                all_faults += faults(chain.from_iterable(m(run, group) for m in OF_GROUPS))
            copied |= {fault.episode_index: fault for fault in faults(copies(self.dataset, block))}
        all_faults += copied.values()
        # What two measures show of one stretch is said once, by the first of them
        by_place = {_place(fault): fault for fault in reversed(all_faults)}
        return [by_place[place] for place in sorted(by_place)]


def _place(fault: Finding) -> tuple[int | None, int, str, str, str]:
    """What a fault is about, for order: episode, first frame, code, camera and signal."""
    return fault.episode_index, fault.start_frame, fault.reason, fault.camera or "", fault.signal
