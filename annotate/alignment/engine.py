"""Soft alignment: how likely each moment of an episode is each moment of a reference, and labels carried over by it.

Moments are compared by what the pictures, the arm's state and the grippers show at each. An episode
goes through its reference from the beginning on. From one moment to the next it stays where it is,
or goes on and passes over any number of moments; both cost a little, and so does each moment that
is unlike. The least cost of all ways through a pair of moments, from the beginning (forward) and to
the end (backward), becomes a probability: the softmax over the reference's moments (the max-product
form of the forward-backward algorithm of hidden Markov models, Rabiner 1989).
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched, chain, combinations, product
from statistics import median

import numpy as np

from annotate.config import MotionConfig
from annotate.motion.observe import Observed, Signals, observe
from core.domain.label import Label

# In units of what it costs to pass over a moment: to stay at one, and a usual distance
STAY = 1 / 3
DISTANCE = 5 / 3
FLATNESS = 0.3  # of usual distances: a reference that is so much farther weighs 1/e as much
BLOCK = 2**22  # cells of the distances that are worked on side by side


@dataclass(frozen=True)
class Beside:
    """An episode beside one reference.

    likely: float64 [k, m], rows sum to 1: how likely each moment of the episode is each of the
    reference's. apart: float64 [k]: how unlike both are at each moment of the episode; 1 is usual.
    """

    likely: np.ndarray
    apart: np.ndarray

    @property
    def doubt(self) -> float:
        return float(self.apart.mean())


def alignments_by_distance(distances: Sequence[np.ndarray]) -> list[Beside]:
    """Each pair of an episode and a reference by its distances [k, m]; pairs do not depend on one another."""
    order = sorted(range(len(distances)), key=lambda i: distances[i].shape)
    alignments: dict[int, Beside] = {}
    block: list[int] = []
    for place, i in enumerate(order):
        block.append(i)
        next_shape = distances[order[place + 1]].shape if place + 1 < len(order) else None
        longest = (
            max(distances[j].shape[0] for j in block),
            max(distances[j].shape[1] for j in block),
        )
        if (
            next_shape is None
            or (len(block) + 1) * max(longest[0], next_shape[0]) * max(longest[1], next_shape[1])
            > BLOCK
        ):
            for j, alignment in zip(
                block, _aligned_block([distances[j] for j in block]), strict=True
            ):
                alignments[j] = alignment
            block = []
    return [alignments[i] for i in range(len(distances))]


def _aligned_block(distances: Sequence[np.ndarray]) -> list[Beside]:
    weighted = [d * DISTANCE for d in distances]
    forward = forward_costs(weighted)
    backward = forward_costs([d[::-1, ::-1] for d in weighted])
    besides = []
    for d, moment_costs, costs_until, costs_from in zip(
        distances, weighted, forward, backward, strict=True
    ):
        probabilities = softmax(costs_until + costs_from[::-1, ::-1] - moment_costs)
        besides.append(Beside(probabilities, (probabilities * d).sum(axis=1)))
    return besides


def forward_costs(weighted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The least cost [k, m] of being at each moment of the reference by what was seen so far, of several pairs.

    weighted: distances [k, m], in the unit of the moves.
    """
    longest = max(len(d) for d in weighted)
    widest = max(d.shape[1] for d in weighted)
    # Pairs lie side by side; what a shorter one lacks is never come to
    costs = np.full((longest, len(weighted), widest), np.inf)
    for p, d in enumerate(weighted):
        costs[: d.shape[0], p, : d.shape[1]] = d
    out = np.empty_like(costs)
    best = out[0] = np.arange(widest, dtype=np.float64) + costs[0]
    for i in range(1, longest):
        best = out[i] = forward_step(best) + costs[i]
    return [out[: d.shape[0], p, : d.shape[1]] for p, d in enumerate(weighted)]


def forward_step(best: np.ndarray, passing: float = 1.0, back_cost: float = np.inf) -> np.ndarray:
    """The least cost of coming to each moment of a reference, [..., m], from the costs of having
    been at each before: by staying, by going on and passing over any number of moments, or by going
    back as far as need be."""
    passed = np.arange(best.shape[-1], dtype=np.float64) * passing
    ahead = np.minimum.accumulate(best - passed, axis=-1)[..., :-1] + passed[:-1]
    next_costs = best + STAY
    np.minimum(next_costs[..., 1:], ahead, out=next_costs[..., 1:])
    if back_cost < np.inf:
        behind = np.minimum.accumulate(best[..., ::-1], axis=-1)[..., ::-1][..., 1:] + back_cost
        np.minimum(next_costs[..., :-1], behind, out=next_costs[..., :-1])
    return next_costs


def softmax(costs: np.ndarray) -> np.ndarray:
    """Probabilities of each row, by costs [..., m]."""
    exponentials = np.exp(costs.min(axis=-1, keepdims=True) - costs)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def reference_weights(doubts: np.ndarray) -> np.ndarray:
    """How much each reference of one episode counts, by its doubt: float64 [references], the nearest 1."""
    return np.exp((doubts.min() - doubts) / FLATNESS)


def spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted standard deviation [k] of what several references say, [references, k]."""
    mean = np.average(values, axis=0, weights=weights)
    return np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))


HZ = 5.0  # moments per second
MOST = 600  # moments of an episode: a longer one is looked at less often
LEAST = 1e-3  # of a usual distance: nothing is divided by less
OPENING = 0.25  # of its range: so far apart is a gripper or hand at the same moment of two episodes
MAX_PAIRS = 60  # of episodes that show how far apart moments usually are


@dataclass(frozen=True)
class Seen:
    """What shows where an episode is, at k moments.

    pictures: float32 [k, d] of each camera, of length 1, less the mean of the task's. state:
    float64 [k, d] in standard deviations of the task's, None without. openings: float64 [k,
    grippers], likewise, in units of how far they usually are apart.
    """

    pictures: tuple[np.ndarray, ...]
    state: np.ndarray | None = None
    openings: np.ndarray | None = None

    def part(self, moments: slice | np.ndarray) -> "Seen":
        """What shows it at some of the moments: a slice, or bool [k]."""
        return Seen(
            tuple(pictures[moments] for pictures in self.pictures),
            None if self.state is None else self.state[moments],
            None if self.openings is None else self.openings[moments],
        )


@dataclass(frozen=True, kw_only=True)
class Moments(Seen):
    """One episode as others are compared with it: its features at k moments, no facts. frames: int64 [k]."""

    episode: Observed
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_comparable(self) -> bool:
        """Does anything show what is done at each moment?"""
        return bool(self.pictures) or self.state is not None or self.openings is not None

    def at_all_frames(self, values: np.ndarray) -> np.ndarray:
        """Values [k] at the moments as values [n] at all frames, linear between."""
        return np.interp(np.arange(len(self.episode)), self.frames, values)


def task_moments(episodes: Sequence[Observed], max_moments: int = MOST) -> list[Moments]:
    """The moments of all episodes of a task; kinds of signals that some episode lacks are left out of all of them.

    max_moments: moments of an episode.
    """
    # Every so many frames; an arm that waits stays where it is in its reference
    frames = [
        np.arange(0, len(e), max(1, round(e.fps / HZ), -(-len(e) // max_moments))) for e in episodes
    ]
    pictures = _pictures(episodes, frames)
    states = _states(episodes, frames)
    openings = _openings(episodes, frames)
    return [
        Moments(features, state, opened, episode=episode, frames=episode_frames)
        for episode, episode_frames, features, state, opened in zip(
            episodes, frames, pictures, states, openings, strict=True
        )
    ]


def _pictures(
    episodes: Sequence[Observed], frames: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, ...]]:
    """Of each episode and camera, [k, d]: between two known pictures what lies between both.

    An episode that lacks a camera is as far from all others by it: 0 is as unlike everything.
    """
    of_camera = []
    for camera in range(min(len(e.signals.pictures) for e in episodes)):
        stored_pictures = [e.signals.pictures[camera] for e in episodes]
        interpolated = [
            None if p is None else _interpolated_rows(*p, episode_frames)
            for p, episode_frames in zip(stored_pictures, frames, strict=True)
        ]
        mean = np.concatenate([values for values in interpolated if values is not None]).mean(
            axis=0
        )
        of_camera.append(
            [
                np.zeros((len(episode_frames), len(mean)), np.float32)
                if values is None
                else unit_rows(values - mean)
                for values, episode_frames in zip(interpolated, frames, strict=True)
            ]
        )
    if of_camera:
        return list(zip(*of_camera, strict=True))
    return [() for _ in episodes]


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-6)


def _interpolated_rows(
    known_frames: np.ndarray, values: np.ndarray, frames: np.ndarray
) -> np.ndarray:
    """Rows [k, d] at the frames `frames`, linear between those at the known frames, float32."""
    place = np.interp(frames, known_frames, np.arange(len(known_frames)))
    previous = np.floor(place).astype(np.int64)
    share = (place - previous)[:, None].astype(np.float32)
    return (
        values[previous] * (1 - share)
        + values[np.minimum(previous + 1, len(known_frames) - 1)] * share
    )


def grey_features(pixels: np.ndarray) -> np.ndarray:
    """What small grey pictures are compared by: float32 [k, p], of even contrast, of uint8 [k, ...] with p pixels."""
    luma = pixels.reshape(len(pixels), -1).astype(np.float32)
    return (luma - luma.mean(axis=1, keepdims=True)) / np.maximum(
        luma.std(axis=1, keepdims=True), 1.0
    )


def _states(episodes: Sequence[Observed], frames: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    states = [
        e.signals.state[episode_frames].astype(np.float64)
        for e, episode_frames in zip(episodes, frames, strict=True)
        if e.signals.state is not None
    ]
    if len(states) < len(episodes) or len({values.shape[1] for values in states}) != 1:
        return [None] * len(episodes)
    all_states = np.concatenate(states)
    mean = all_states.mean(axis=0)
    spread = all_states.std(axis=0) + 1e-6
    return [(values - mean) / spread for values in states]


def _openings(
    episodes: Sequence[Observed], frames: Sequence[np.ndarray]
) -> list[np.ndarray | None]:
    counts = {len(e.signals.grippers) for e in episodes}
    if len(counts) != 1 or counts == {0}:
        return [None] * len(episodes)
    openings: list[np.ndarray | None] = []
    for e, episode_frames in zip(episodes, frames, strict=True):
        by_gripper = [g.opening[episode_frames] / OPENING for g in e.signals.grippers]
        openings.append(np.stack(by_gripper, axis=1))
    return openings


# How unlike two moments are


def usual_distances(episodes: Sequence[Seen]) -> tuple[float, float]:
    """How far apart the nearest moments of two episodes usually are: by pictures, by state; 1 where there are none."""
    pairs = list(combinations(episodes, 2))
    nearest: tuple[list[float], list[float]] = ([], [])
    for pair in pairs[:: max(1, -(-len(pairs) // MAX_PAIRS))]:
        for kind, values in zip(_distances_by_kind(*pair)[:2], nearest, strict=True):
            if kind is not None:
                values.append(float(kind.min(axis=1).mean()))
    by_pictures, by_state = (max(median(values), LEAST) if values else 1.0 for values in nearest)
    return by_pictures, by_state


def distances(episode: Seen, reference: Seen, usual_scales: tuple[float, float]) -> np.ndarray:
    """How unlike the moments of an episode and a reference are, float64 [k, m]: 1 is usual where both show the same.

    The mean over pictures, state and grippers, of those that both have.
    """
    kinds = zip(_distances_by_kind(episode, reference), (*usual_scales, 1.0), strict=True)
    return np.mean(
        [kind_distances / scale for kind_distances, scale in kinds if kind_distances is not None],
        axis=0,
    )


def _distances_by_kind(
    a: Seen, b: Seen
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """By kind, [k, m]: cosine distance of pictures, mean square distance of states, distance of grippers."""
    pictures = state = grippers = None
    if a.pictures:
        cosines = [
            own_rows @ other_rows.T
            for own_rows, other_rows in zip(a.pictures, b.pictures, strict=True)
        ]
        # Rounding may find two equal pictures more alike than equal
        pictures = np.maximum(1 - np.stack(cosines).mean(axis=0, dtype=np.float64), 0.0)
    if a.state is not None and b.state is not None:
        # The square of a difference without an array of all differences
        squares = (a.state**2).mean(axis=1)[:, None] + (b.state**2).mean(axis=1)
        state = np.sqrt(np.maximum(squares - 2 * a.state @ b.state.T / a.state.shape[1], 0.0))
    if a.openings is not None and b.openings is not None:
        grippers = np.abs(a.openings[:, None] - b.openings).mean(axis=2)
    return pictures, state, grippers


FOLLOWS = 2  # references: an episode does what the task asks for where it is like so many of them
USUAL_SHARE = 0.99  # of the moments of episodes of a task: one that is farther from the others than these is strange
AT_ONCE = 16  # episodes: what they are likely like takes memory


@dataclass(frozen=True)
class LabelReading:
    """A label as others are labelled by it: unlike the segments of a `Label` it says when each step was over.

    A segment may end before that, where the arm rests. ends: the frame at which each planned step
    was completed; one that is missing was not. shows_end: the episode shows that the last thing was
    let go.
    """

    label: Label
    ends: Mapping[int, int]
    shows_end: bool = False

    @property
    def is_complete(self) -> bool:
        return len(self.ends) == self.label.num_planned

    @property
    def shows_others(self) -> bool:
        """Is it so sure of all its steps that others may be labelled by it?"""
        return bool(self.label.confidence) and self.is_complete and self.shows_end


@dataclass(frozen=True)
class Carried:
    """What references say of an episode, before anybody doubts it; arrays [k], at its moments.

    ends: the frame at which each planned step was completed; a step that is missing was not.
    spread: how far the references are apart, the mean over the episode. doubt: how far the nearest
    one is. strangeness: how far each moment is from the nearest few; 1 is usual. usual: what hardly
    any moment of the task's other episodes exceeds.
    """

    own: Moments
    curve: np.ndarray
    ends: dict[int, int]
    spread: float
    doubt: float
    strangeness: np.ndarray
    usual: float = float("inf")

    @property
    def is_strange(self) -> np.ndarray:
        """At which moments it does something else than the references, bool [k]."""
        return self.strangeness > self.usual

    def earned(self) -> np.ndarray:
        """Progress [n]: nothing is earned at a strange moment."""
        gains = np.diff(self.curve, prepend=0.0)
        return self.own.at_all_frames(
            np.cumsum(np.where(self.is_strange & (gains > 0), 0.0, gains))
        )

    def completed(self) -> dict[int, int]:
        """The ends of steps after which not all is strange."""
        return {
            s: end
            for s, end in self.ends.items()
            if not self.is_strange[self.own.frames >= end].all()
        }


def with_usual_limit[T](
    carried: Mapping[T, Carried], shows_usual: Container[T]
) -> dict[T, Carried]:
    """The same, each with what is usual for the others; an episode that succeeded is never strange.

    shows_usual: the episodes that others are measured by.
    """
    completed_labels = {}
    for key, transferred in carried.items():
        other_strangeness = [
            other_label.strangeness
            for other_key, other_label in carried.items()
            if other_key != key and other_key in shows_usual
        ]
        if other_strangeness and transferred.own.episode.signals.success is not True:
            # Few others do not show all that is usual
            usual_limit = float(np.quantile(np.concatenate(other_strangeness), USUAL_SHARE)) * (
                1 + 1 / len(other_strangeness)
            )
            transferred = replace(transferred, usual=usual_limit)
        completed_labels[key] = transferred
    return completed_labels


def episodes_beside_references(
    episodes: Mapping[int, Moments],
    references: Mapping[int, Sequence[int]],
    reference_moments: Sequence[Moments],
    usual_scales: tuple[float, float],
) -> Iterator[tuple[int, dict[int, Beside]]]:
    """Each episode, by its place, beside some of the references, by theirs; a few episodes at a time."""
    for places in batched(episodes, AT_ONCE):
        pairs = [*chain.from_iterable(product([i], references[i]) for i in places)]
        alignments = alignments_by_distance(
            [distances(episodes[i], reference_moments[r], usual_scales) for i, r in pairs]
        )
        besides: dict[int, dict[int, Beside]] = {i: {} for i in places}
        for (i, r), alignment in zip(pairs, alignments, strict=True):
            besides[i][r] = alignment
        yield from besides.items()


def carried_label(
    moments: Moments,
    references: Sequence[tuple[Moments, LabelReading, Beside]],
    own_said: LabelReading | None = None,
) -> Carried:
    """The mean of what references say of each moment, the nearer ones counting more.

    own_said: what the episode says of itself; it counts as much as the nearest reference.
    """
    besides = [alignment for _, _, alignment in references]
    doubts = np.array([alignment.doubt for alignment in besides])
    weights = reference_weights(doubts)
    reference_curves = np.stack(
        [
            alignment.likely @ reading.label.progress[m.frames]
            for m, reading, alignment in references
        ]
    )

    # A step is over where most of what is said lies behind its end
    ends = {}
    for step in sorted(set(chain.from_iterable(reading.ends for _, reading, _ in references))):
        behind = np.zeros(len(moments))
        for weight, (m, reading, alignment) in zip(weights, references, strict=True):
            if step in reading.ends:
                behind += weight * alignment.likely[
                    :, m.frames >= min(reading.ends[step] - 1, m.frames[-1])
                ].sum(axis=1)
        over = np.flatnonzero(behind >= weights.sum() / 2)
        if over.size:
            ends[step] = int(moments.frames[over[0]])

    if own_said is not None:
        reference_curves = np.vstack([reference_curves, own_said.label.progress[moments.frames]])
        weights = np.r_[weights, 1.0]
    strangeness = np.sort([alignment.apart for alignment in besides], axis=0)[:FOLLOWS].mean(axis=0)
    curve = np.average(reference_curves, axis=0, weights=weights)
    return Carried(
        moments,
        curve,
        ends,
        float(spread(reference_curves, weights).mean()),
        float(doubts.min()),
        strangeness,
    )


LAST_S = 1.0  # of a run: its end
NEAREST_SHARE = 0.25  # of the others: a task may end in several ways
MOMENTS = 120  # of an episode that are looked at


def worst_first(episodes: Sequence[Signals], motion: MotionConfig) -> list[int]:
    """Episodes of one task by episode_index, first those that stay farthest from how the others
    end; by index where nothing of them can be compared. Costs the square of their number."""
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    indices = [e.episode_index for e in in_order]
    if len(moments) < 2 or not moments[0].is_comparable:
        return indices
    far = end_distances(moments)
    return [
        indices[place]
        for place in sorted(range(len(indices)), key=lambda place: (-far[place], place))
    ]


def end_distances(moments: Sequence[Moments]) -> np.ndarray:
    """How near each episode ever comes to the last second of the nearest quarter of the others, float64 [episodes].

    1 is a usual distance.
    """
    usual_scales = usual_distances(moments)
    ends = [_end_of_run(reference) for reference in moments]
    count = max(1, round(NEAREST_SHARE * (len(moments) - 1)))
    far = np.zeros(len(moments))
    for i, run_moments in enumerate(moments):
        end_gaps = [
            distances(run_moments, end, usual_scales).min(axis=0).mean()
            for j, end in enumerate(ends)
            if j != i
        ]
        far[i] = np.mean(sorted(end_gaps)[:count])
    return far


def _end_of_run(moments: Moments) -> Seen:
    """What its last second shows."""
    return moments.part(moments.frames >= moments.frames[-1] - LAST_S * moments.episode.fps)
