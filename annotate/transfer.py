"""The `transfer` annotator: a person labels one episode of a task or a few, and the others are laid beside those.

Each episode is laid beside its references by soft alignment. Its progress is the mean of what they
say of each of its moments, the nearer ones counting more; a step is over where most of what is said
lies behind its end. No reference is refused: one that is unlike an episode makes its label less
sure.

Which episode to label next: all are laid beside each other, and the share of its moving time is the
clock of each. What all others carry over to an episode is its clock by the task. The next one is
the one that, together with the references there are, leaves least: how far the clock that the
nearest reference carries over is from that by the task, and how unlike both are. Where two
references or more are labelled already, each is labelled by the others, and the error measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.alignment.engine import (
    Beside,
    Carried,
    LabelReading,
    Moments,
    carried_label,
    distances,
    episodes_beside_references,
    task_moments,
    usual_distances,
    with_usual_limit,
)
from annotate.config import MotionConfig, TransferConfig
from annotate.motion.annotator import SPREAD, agreed_ends, finished_curve, label_of
from annotate.motion.observe import Signals, observe, split_at_idle
from annotate.motion.structure import segments_by_ends
from core.domain.label import Label
from core.values import spread

# Most confidence of a label by pictures alone, where nobody says how the run ended
BY_PICTURES = 0.5
FIRST = slice(1)  # of the moments of an episode

# An episode whose label a person vouches for, and that label, with progress
type Reference = tuple[Signals, Label]


def _label_reading(label: Label) -> LabelReading:
    ends = {s.step: s.end_frame for s in label.segments if s.step is not None and s.completed}
    return LabelReading(label, ends)


@dataclass(frozen=True)
class Alignment:
    """Which frame of which reference each compared frame of an episode is like; arrays [k].

    frames: int64, of the episode. episodes, reference_frames: int64, the likeliest reference and
    its frame. distances: float32; 1 is usual between frames that show the same moment of two
    episodes. follows: bool; False: the episode does something that the references do not show.
    """

    frames: np.ndarray
    episodes: np.ndarray
    reference_frames: np.ndarray
    distances: np.ndarray
    follows: np.ndarray


@dataclass(frozen=True)
class Transferred:
    """What one episode is like. `label` and `alignment` None: there is nothing to compare it by; `why_none` says it.

    spread: of progress, 0..1: how far its references are apart in what they say of it.
    """

    label: Label | None
    alignment: Alignment | None
    why_none: str | None = None
    spread: float = 0.0


def annotate(
    episodes: Sequence[Signals],
    references: Sequence[Reference],
    config: TransferConfig,
    motion: MotionConfig,
) -> list[Transferred]:
    """Label episodes of one task by its references; in the order of the episodes.

    An episode that is a reference itself is laid beside the other ones. Labels do not depend on the
    order of either.
    """
    if not episodes:
        return []
    references = sorted(references, key=lambda reference: reference[0].episode_index)
    order = sorted(range(len(episodes)), key=lambda i: episodes[i].episode_index)
    in_order = [episodes[i] for i in order]
    reference_signals = [signals for signals, _ in references]
    all_observed = [observe(signals, motion) for signals in [*in_order, *reference_signals]]
    moments = task_moments(all_observed)
    episode_moments = dict(enumerate(moments[: len(order)]))
    reference_moments = moments[len(order) :]
    if not moments[0].is_comparable:
        return [Transferred(None, None, "nothing shows what is done in it") for _ in episodes]

    # Each episode beside the references that begin most like it
    different = {m.episode.signals.episode_index: m for m in moments}
    usual_scales = usual_distances(list(different.values()))
    nearest_references = {
        place: _nearest_references(m, reference_moments, usual_scales, config.max_references)
        for place, m in episode_moments.items()
    }
    compared = {place: m for place, m in episode_moments.items() if nearest_references[place]}
    carried = {}
    alignments = {}
    plans = {}
    for place, besides in episodes_beside_references(
        compared, nearest_references, reference_moments, usual_scales
    ):
        carried[place], plans[place] = _carried_with_plan(
            episode_moments[place], besides, references, reference_moments
        )
        alignments[place] = _likeliest_frames(
            episode_moments[place], [(reference_moments[r], b) for r, b in besides.items()]
        )

    carried = with_usual_limit(carried, carried)
    transferred = {}
    for place, i in enumerate(order):
        if place not in carried:
            transferred[i] = Transferred(None, None, "its task has no other reference")
            continue
        alignment = Alignment(
            episode_moments[place].frames, *alignments[place], follows=~carried[place].is_strange
        )
        transferred[i] = Transferred(
            _transferred_label(carried[place], plans[place]),
            alignment,
            spread=carried[place].spread,
        )
    return [transferred[i] for i in range(len(episodes))]


def _carried_with_plan(
    moments: Moments,
    besides: Mapping[int, Beside],
    references: Sequence[Reference],
    reference_moments: Sequence[Moments],
) -> tuple[Carried, tuple[str, ...]]:
    """What references say of an episode, and its planned steps: those of the nearest one, by all that have the same."""
    _, nearest_label = references[min(besides, key=lambda r: (besides[r].doubt, r))]
    plan = nearest_label.plan
    readings = [
        (reference_moments[r], _label_reading(references[r][1]), b) for r, b in besides.items()
    ]
    same_plan = [
        (reference, reading, alignment)
        for reference, reading, alignment in readings
        if reading.label.plan == plan
    ]
    carried = carried_label(moments, readings)
    if len(same_plan) < len(readings):
        carried = replace(carried, ends=carried_label(moments, same_plan).ends)
    return carried, plan


def _nearest_references(
    moments: Moments,
    reference_moments: Sequence[Moments],
    usual_scales: tuple[float, float],
    max_references: int,
) -> list[int]:
    """The references whose first moment is most like that of an episode, itself left out; by their places."""
    index = moments.episode.signals.episode_index
    candidates = [
        r for r, m in enumerate(reference_moments) if m.episode.signals.episode_index != index
    ]
    if len(candidates) > max_references:
        first = {
            r: distances(moments.part(FIRST), reference_moments[r].part(FIRST), usual_scales)[0, 0]
            for r in candidates
        }
        candidates.sort(key=lambda r: (first[r], r))
    return sorted(candidates[:max_references])


def _transferred_label(carried: Carried, plan: tuple[str, ...]) -> Label:
    episode = carried.own.episode
    signals = carried.own.episode.signals
    curve = finished_curve(carried.earned(), signals.success)
    ends = agreed_ends(carried.completed(), len(plan), curve, episode)

    strange = float(carried.is_strange.mean())
    agreement = max(0.0, 1 - carried.spread / SPREAD)
    confidence = agreement * (1 - strange) * min(1.0, 1 / max(carried.doubt, 1e-6))
    # Pictures alone do not tell a thing that was lost from one that was placed
    shows_arm = carried.own.state is not None or carried.own.openings is not None
    if not shows_arm and signals.success is None:
        confidence = min(confidence, BY_PICTURES)
    segments = split_at_idle(segments_by_ends(episode, plan, ends), episode.idle, episode.fps)
    notes = [f"unlike its references in {strange:.0%} of its time"] if strange else []
    return label_of(episode, segments, plan, curve, confidence, notes)


def _likeliest_frames(
    moments: Moments, alignments: Sequence[tuple[Moments, Beside]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each moment of an episode the nearest reference, its likeliest frame, and how far that is."""
    differences = np.stack([b.apart for _, b in alignments])
    frames = np.stack([m.frames[b.likely.argmax(axis=1)] for m, b in alignments])
    episodes = np.array([m.episode.signals.episode_index for m, _ in alignments])
    nearest = differences.argmin(axis=0)
    moment_numbers = np.arange(len(moments))
    return (
        episodes[nearest],
        frames[nearest, moment_numbers],
        differences[nearest, moment_numbers].astype(np.float32),
    )


MOMENTS = 120  # of an episode: it is looked at as often as gives so many
AT_REFERENCES = (1, 2, 3, 5)  # how many references errors are expected, and shown, at
BETWEEN = (0.5, 2.5)  # times the expected error: of 5 sets of references 4 have one between
SHOW_USUAL = 10  # episodes beside the references, which show what is usual for the task


@dataclass(frozen=True)
class NextEpisode:
    """An episode to label next; nearest_to: how many of the others would follow it rather than another reference."""

    episode_index: int
    nearest_to: int


@dataclass(frozen=True)
class Suggested:
    """next_episodes: the best first. expected: the error of progress of the others, by the number of references.

    measured: the error of references, each labelled by the others; None where fewer than two could
    be. judged_by: kinds of signals that episodes were compared by: pictures, state, grippers.
    """

    next_episodes: tuple[NextEpisode, ...]
    expected: Mapping[int, float]
    measured: float | None
    judged_by: tuple[str, ...]


def suggestion(
    episodes: Sequence[Signals],
    references: Sequence[Reference],
    candidates: Collection[int],
    config: TransferConfig,
    motion: MotionConfig,
) -> Suggested | None:
    """Which `candidates`, by their episode_index, to label next; None where nothing of the episodes can be compared.

    episodes: two or more of one task, with those that are references. Costs the square of their
    number.
    """
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    indices = [e.episode_index for e in in_order]
    reference_indices = {signals.episode_index for signals, _ in references}
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    if not moments[0].is_comparable:
        return None
    label_errors = _clock_errors(moments)

    # The references there are, then those to come
    places = [
        place
        for place, index in enumerate(indices)
        if index in candidates and index not in reference_indices
    ]
    max_references = max(*AT_REFERENCES, len(reference_indices) + 1)
    order = _labelling_order(
        label_errors, [indices.index(index) for index in sorted(reference_indices)], places
    )[:max_references]

    expected = {
        n: _expected_error(label_errors, order[:n])
        for n in range(1, min(len(order), len(indices) - 1) + 1)
    }
    next_episodes = [
        NextEpisode(indices[place], _num_followers(label_errors, order[:n], place))
        for n, place in enumerate(order, 1)
        if n > len(reference_indices)
    ]
    measured = left_out_errors(in_order, references, config, motion)
    kinds = {
        "pictures": moments[0].pictures,
        "state": moments[0].state is not None,
        "grippers": moments[0].openings is not None,
    }
    judged_by = tuple(kind for kind, is_there in kinds.items() if is_there)
    return Suggested(
        tuple(next_episodes),
        expected,
        float(np.mean(list(measured.values()))) if measured else None,
        judged_by,
    )


def most_telling(episodes: Sequence[Signals], motion: MotionConfig) -> list[int]:
    """Episodes of one task by episode_index, those first that together leave the least open of the others.

    Empty where nothing of them can be compared.
    """
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    if not moments[0].is_comparable:
        return []
    return [
        in_order[place].episode_index
        for place in _labelling_order(_clock_errors(moments), [], range(len(in_order)))
    ]


def _labelling_order(
    label_errors: np.ndarray, first: Sequence[int], places: Sequence[int]
) -> list[int]:
    """`first`, then the places, each time the one that together with those before leaves the least."""
    order = [*first]
    remaining = [*places]
    while remaining:
        order.append(
            min(
                remaining,
                key=lambda place: (label_errors[:, [*order, place]].min(axis=1).sum(), place),
            )
        )
        remaining.remove(order[-1])
    return order


def _clock_errors(moments: Sequence[Moments]) -> np.ndarray:
    """What each reference (column) leaves open of each episode (row): error of the clock; 0 beside itself.

    A reference that is twice as unlike as usual leaves twice as much.
    """
    num = len(moments)
    other_runs = {i: [*range(i), *range(i + 1, num)] for i in range(num)}
    clocks = [m.episode.moving_share[m.frames] for m in moments]
    label_errors = np.zeros((num, num))
    for i, besides in episodes_beside_references(
        dict(enumerate(moments)), other_runs, moments, usual_distances(moments)
    ):
        carried = {r: alignment.likely @ clocks[r] for r, alignment in besides.items()}
        by_task = np.mean([clocks[i], *carried.values()], axis=0)
        for r, clock in carried.items():
            label_errors[i, r] = float(np.abs(clock - by_task).mean()) * max(1.0, besides[r].doubt)
    return label_errors


def _expected_error(label_errors: np.ndarray, references: Sequence[int]) -> float:
    """The mean error of the episodes that are no references."""
    unlabelled = [i for i in range(len(label_errors)) if i not in references]
    return float(label_errors[np.ix_(unlabelled, list(references))].min(axis=1).mean())


def _num_followers(label_errors: np.ndarray, references: Sequence[int], place: int) -> int:
    """How many others are nearest to one of the references."""
    unlabelled = [i for i in range(len(label_errors)) if i not in references]
    return sum(min(references, key=lambda r: label_errors[i, r]) == place for i in unlabelled)


def left_out_errors(
    episodes: Sequence[Signals],
    references: Sequence[Reference],
    config: TransferConfig,
    motion: MotionConfig,
) -> dict[int, float]:
    """The error of progress of each reference that is labelled by the other ones, by its episode_index.

    episodes: of the task; some of them show what is usual for it.
    """
    if len(references) < 2:
        return {}
    reference_indices = {signals.episode_index for signals, _ in references}
    sample_episodes = spread(
        [e for e in episodes if e.episode_index not in reference_indices], SHOW_USUAL
    )
    labelled = annotate(
        [*(signals for signals, _ in references), *sample_episodes], references, config, motion
    )
    errors = {}
    for (signals, reference_label), transferred in zip(references, labelled, strict=False):
        label = transferred.label
        if label is not None:
            errors[signals.episode_index] = float(
                np.abs(reference_label.progress - label.progress).mean()
            )
    return errors
