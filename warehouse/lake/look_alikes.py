"""Look-alikes: held-out runs whose pictures another dataset has in training, by what the same encoder saw of both.

Copies at another frame rate, with frames left out, cut, smaller or encoded anew. Of each cell of the pictures' grid it
counts how far what was seen is apart: coding changes all cells a little, another run some cells much. docs/releases.md
has the numbers behind the thresholds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np

from warehouse.lake.connection import LakeConnection
from warehouse.lake.copies import USABLE, luma_grid, peak
from warehouse.lake.embeddings import episode_embeddings
from warehouse.lake.lake import Lake

CELL = 64  # numbers of a cell
MIN_MEAN = 0.9  # cosine of the means of two runs' pictures, for them to be compared picture by picture
MAX_PARTNERS = 5  # runs of training that a held-out one is compared with: those of the likest mean
SIBLINGS = 3  # runs of its own dataset that tell how near different runs of that scene are
MIN_PICTURES = 8  # of the run that has fewer
MAX_CELL = 0.15  # 1 - cosine of the cell that is farthest apart, median over the pictures
STANDS_OUT = 0.5  # of the distance of its siblings: a copy is nearer than this
MIN_MOMENTS = 2  # of which both runs have stored pictures
# Lower quartile over the moments: an arm that moves on between two pictures stands out of most, not of all
MAX_LOW_PEAK = 9.0
HELD_AT_A_TIME = 64
ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class LookAlike:
    """A held-out run, and the run of another dataset's training that shows the same; `apart` is 0 of equal pictures."""

    dataset: str
    episode_index: int
    split: str
    of_dataset: str
    of_episode: int
    encoder: str
    apart: float

    def __str__(self) -> str:
        return (
            f"{self.dataset} episode {self.episode_index} ({self.split}) looks to {self.encoder} like "
            f"{self.of_dataset} episode {self.of_episode} (train) from beginning to end"
        )


@dataclass(frozen=True)
class _Run:
    dataset: str
    episode_index: int
    split: str
    camera: str


@dataclass(frozen=True)
class _Pictures:
    """What was seen of a run: frames int64 [k], and unit vectors of each cell float32 [k, cells, 64]."""

    frames: np.ndarray
    cells: np.ndarray


def look_alikes(lake: Lake) -> list[LookAlike]:
    """Held-out runs of the table USABLE that look like a run of another dataset's training.

    The work grows with the pictures, and with held-out runs times runs; in memory is a mean of 256 numbers a run.
    """
    pairs: list[LookAlike] = []
    for encoder, cells, datasets in _comparable(lake):
        runs, means = _means(lake, encoder, cells, datasets)
        partners = _partners(runs, means)
        for held in batched(sorted(partners), HELD_AT_A_TIME):
            pairs += _compared(lake, encoder, runs, {run: partners[run] for run in held})
    return sorted(pairs, key=lambda p: (p.dataset, p.episode_index, p.of_dataset, p.of_episode))


def not_looked_at(lake: LakeConnection, datasets: Sequence[str]) -> str:
    """Which of some datasets have runs that cannot be compared with those of the others, and why; empty: none."""
    if len(datasets) < 2:
        return ""
    seen = _seen_by(lake, datasets)
    unseen = [name for name in datasets if not seen[name]]
    reasons = [f'no encoder has looked at {", ".join(unseen)} (embeddings.when = "always")'] if unseen else []
    alone = [name for name in datasets if seen[name] and not seen[name] & _seen_by_others(seen, name)]
    if alone and len(unseen) < len(datasets) - 1:
        named = "; ".join(f"{name}, by {' and '.join(sorted(seen[name]))}" for name in alone)
        reasons.append(f"another encoder than at the others has looked at {named}")
    return "; ".join(reasons)


def _seen_by(lake: LakeConnection, datasets: Sequence[str]) -> dict[str, set[str]]:
    """Of each dataset who looked at it: encoders with the sizes of their grids."""
    seen: dict[str, set[str]] = {name: set() for name in datasets}
    sql = "SELECT DISTINCT dataset, encoder, sqrt(len(cells) / 64)::INTEGER FROM embeddings"
    for name, encoder, grid in lake.rows(f"{sql} WHERE list_contains(?, dataset)", [list(datasets)]):
        seen[name].add(f"{encoder} (grid {grid})")
    return seen


def _seen_by_others(seen: Mapping[str, set[str]], name: str) -> set[str]:
    return set[str]().union(*(by for other, by in seen.items() if other != name))


def _comparable(lake: Lake) -> list[tuple[str, int, list[str]]]:
    """Encoders, with the numbers of cells that they gave, and the datasets (two or more) that they looked at."""
    return lake.rows(
        "SELECT encoder, cells, list(dataset ORDER BY dataset) FROM (SELECT DISTINCT e.encoder, len(e.cells) AS cells, "
        f"e.dataset FROM embeddings e SEMI JOIN {USABLE} u USING (dataset)) GROUP BY 1, 2 HAVING count(*) > 1 "
        "ORDER BY 1, 2"
    )


def _means(lake: Lake, encoder: str, cells: int, datasets: Sequence[str]) -> tuple[list[_Run], np.ndarray]:
    """Runs that have enough pictures, in order, and the direction of each one's mean, float32 [n, 256]."""
    runs: list[_Run] = []
    means = [np.zeros((0, 256), np.float32)]
    for dataset in datasets:
        here = [
            _Run(*row)
            for row in lake.rows(
                f"SELECT dataset, episode_index, split, camera FROM {USABLE} WHERE dataset = ? ORDER BY 2", [dataset]
            )
        ]
        place = {run.episode_index: k for k, run in enumerate(here)}
        # Sums of what float16 holds are exact in float64, in any order
        sums, counts = np.zeros((len(here), 256)), np.zeros(len(here), np.int64)
        reader = lake.con.execute(
            "SELECT e.episode_index, e.embedding FROM embeddings e "
            f"JOIN {USABLE} u ON u.dataset = e.dataset AND u.episode_index = e.episode_index AND u.camera = e.camera "
            "WHERE e.dataset = ? AND e.encoder = ? AND len(e.cells) = ?",
            [dataset, encoder, cells],
        ).to_arrow_reader(ROWS_AT_A_TIME)
        for batch in reader:
            places = np.array([place[int(e)] for e in batch.column(0).to_numpy()], np.int64)
            seen = batch.column(1).flatten().to_numpy().reshape(len(places), 256)
            np.add.at(sums, places, seen)
            np.add.at(counts, places, 1)
        enough = counts >= MIN_PICTURES
        runs += [run for run, is_enough in zip(here, enough, strict=True) if is_enough]
        means.append(_directions(sums[enough]).astype(np.float32))
    return runs, np.concatenate(means)


def _directions(numbers: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; one of no length stays as it is."""
    lengths = np.linalg.norm(numbers, axis=-1, keepdims=True)
    return numbers / np.where(lengths == 0, 1, lengths)


def _partners(runs: Sequence[_Run], means: np.ndarray) -> dict[int, tuple[list[int], list[int]]]:
    """By place of a held-out run: likest runs of other datasets' training, and likest runs of its own dataset."""
    datasets = np.array([run.dataset for run in runs])
    is_training = np.array([run.split == "train" for run in runs])
    partners = {}
    for held in batched(np.flatnonzero(~is_training), HELD_AT_A_TIME):
        for run, likeness in zip(held, means[list(held)] @ means.T, strict=True):
            is_own = datasets == datasets[run]
            candidates = _likest(likeness, is_training & ~is_own & (likeness >= MIN_MEAN), MAX_PARTNERS)
            if candidates:
                is_own[run] = False
                partners[int(run)] = candidates, _likest(likeness, is_own, SIBLINGS)
    return partners


def _likest(likeness: np.ndarray, among: np.ndarray, most: int) -> list[int]:
    """Places of the largest values among some, the largest first; of equal ones the first."""
    places = np.flatnonzero(among)
    return places[np.argsort(-likeness[places], kind="stable")[:most]].tolist()


def _compared(
    lake: Lake, encoder: str, runs: Sequence[_Run], partners: dict[int, tuple[list[int], list[int]]]
) -> Iterator[LookAlike]:
    """Of some held-out runs those that look like one of their partners, and clearly less like their siblings."""
    wanted = set(partners)
    for candidates, siblings in partners.values():
        wanted |= {*candidates, *siblings}
    pictures = _pictures(lake, runs, wanted)
    for held, (candidates, siblings) in partners.items():
        if not _changes(pictures[held]):
            continue
        limit = MAX_CELL
        if siblings:
            distances = [apart(pictures[held], pictures[sibling])[0] for sibling in siblings]
            limit = min(limit, STANDS_OUT * float(np.median(distances)))
        for other in filter(lambda place: _changes(pictures[place]), candidates):
            distance, ways = apart(pictures[held], pictures[other])
            if distance <= limit and _show_the_same(lake, runs[held], runs[other], *ways):
                a, b = runs[held], runs[other]
                yield LookAlike(a.dataset, a.episode_index, a.split, b.dataset, b.episode_index, encoder, distance)


def _pictures(lake: Lake, runs: Sequence[_Run], wanted: Collection[int]) -> dict[int, _Pictures]:
    """What was seen of some runs, by place."""
    by_camera: dict[tuple[str, str], dict[int, int]] = {}
    for place in sorted(wanted):
        run = runs[place]
        by_camera.setdefault((run.dataset, run.camera), {})[run.episode_index] = place
    pictures = {}
    for (dataset, camera), places in by_camera.items():
        for episode, seen in episode_embeddings(lake.con, dataset, places, [camera], ("cells",)).items():
            cells = seen.features.reshape(len(seen.frame_indices), -1, CELL)
            pictures[places[episode]] = _Pictures(seen.frame_indices, _directions(cells))
    return pictures


def _changes(run: _Pictures) -> bool:
    """Does a run's picture ever change by more than that of a copy may? Else all that stands still looks alike."""
    middle = run.cells[len(run.cells) // 2]
    return float((1 - np.einsum("kcd,cd->kc", run.cells, middle)).max()) > MAX_CELL


def apart(one: _Pictures, other: _Pictures) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """How far two runs are apart, and the frames of `one` and of `other` that go together.

    Each picture of the run that has fewer goes with the likest picture of the other. Of the two that go together the
    cell that is farthest apart counts, of all of them the median: 0 is equal.
    """
    fewer, more = (one, other) if len(one.frames) <= len(other.frames) else (other, one)
    likeness = fewer.cells.reshape(len(fewer.cells), -1) @ more.cells.reshape(len(more.cells), -1).T
    likest = likeness.argmax(axis=1)
    farthest = 1 - np.einsum("kcd,kcd->kc", fewer.cells, more.cells[likest]).min(axis=1)
    frames, others = fewer.frames, more.frames[likest]
    return float(np.median(farthest)), (frames, others) if fewer is one else (others, frames)


def _show_the_same(lake: Lake, one: _Run, other: _Run, frames: np.ndarray, others: np.ndarray) -> bool:
    """Do stored pictures of the same moments differ a little everywhere, not by much where an object stands elsewhere?

    Moments are the same by the line through the frames that go together, to half a step between pictures.
    """
    if min(len(np.unique(frames)), len(np.unique(others))) < MIN_MOMENTS:
        return False
    slope, offset = _line(frames, others)
    tolerance = np.median(np.diff(np.unique(others))) / 2
    kept, kept_others = _keyframes(lake, one), _keyframes(lake, other)
    peaks = []
    for frame, sha256 in kept.items():
        expected = slope * frame + offset
        nearest = min(kept_others, key=lambda f, at=expected: abs(f - at), default=None)
        if nearest is not None and abs(nearest - expected) <= tolerance:
            peaks.append(peak(luma_grid(lake, sha256), luma_grid(lake, kept_others[nearest])))
    return len(peaks) >= MIN_MOMENTS and float(np.quantile(peaks, 0.25)) <= MAX_LOW_PEAK


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line through points of which some are astray, by medians."""
    dx, dy = x[None] - x[:, None], y[None] - y[:, None]
    slope = float(np.median(dy[dx > 0] / dx[dx > 0]))
    return slope, float(np.median(y - slope * x))


def _keyframes(lake: Lake, run: _Run) -> dict[int, str]:
    """Stored pictures taken at an even pace, sha256 by frame."""
    return dict(
        lake.rows(
            "SELECT DISTINCT frame_index, sha256 FROM keyframes WHERE dataset = ? AND episode_index = ? "
            "AND camera = ? AND purpose = 'coarse' ORDER BY 1",
            [run.dataset, run.episode_index, run.camera],
        )
    )
