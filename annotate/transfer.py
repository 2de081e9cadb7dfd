"""The `transfer` annotator: a person labels one episode of a task or a few, and the others are laid beside those.

Each episode is laid beside its references by soft alignment. Its progress is the mean of what they say of each of its
moments, the nearer ones counting more; a step is over where most of what is said lies behind its end. No reference is
refused: one that is unlike an episode makes its label less sure.

Which episode to label next: all are laid beside each other, and the share of its moving time is the clock of each. What
all others carry over to an episode is its clock by the task. The next one is the one that, together with the references
there are, leaves least: how far the clock that the nearest reference carries over is from that by the task, and how
unlike both are. Where two references or more are labelled already, each is labelled by the others, and the error
measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.alignment.engine import (
    Beside,
    Carried,
    LabelReading,
    Moments,
    Seen,
    carry_over,
    distances,
    laid,
    task_moments,
    usual_distances,
    with_usual,
)
from annotate.config import MotionConfig, TransferConfig
from annotate.motion.annotator import SPREAD, agreed_ends, finished_curve, label_of
from annotate.motion.observe import Signals, observe, split_at_idle
from annotate.motion.structure import segments_to
from annotate.segments import EpisodeLabel, Segment
from core.values import spread

CODE_VERSION = "transfer-4"
BY_PICTURES = 0.5  # most confidence of a label by pictures alone, where nobody says how the run ended


@dataclass(frozen=True)
class Reference:
    """An episode whose label a person vouches for: segments that tile it, its planned steps, its progress [n]."""

    signals: Signals
    segments: Sequence[Segment]
    plan: tuple[str, ...]
    curve: np.ndarray

    @property
    def said(self) -> LabelReading:
        return LabelReading(
            self.curve, {s.step: s.end_frame for s in self.segments if s.step is not None and s.completed}
        )


@dataclass(frozen=True)
class Alignment:
    """Which frame of which reference each compared frame of an episode is like; arrays [k].

    frames: int64, of the episode. episodes, reference_frames: int64, the likeliest reference and its frame.
    distances: float32; 1 is usual between frames that show the same moment of two episodes.
    follows: bool; False: the episode does something that the references do not show.
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

    label: EpisodeLabel | None
    alignment: Alignment | None
    why_none: str | None = None
    spread: float = 0.0


def annotate(
    episodes: Sequence[Signals], references: Sequence[Reference], config: TransferConfig, motion: MotionConfig
) -> list[Transferred]:
    """Label episodes of one task by its references; in the order of the episodes.

    An episode that is a reference itself is laid beside the other ones. Labels do not depend on the order of either.
    """
    if not episodes:
        return []
    references = sorted(references, key=lambda r: r.signals.episode_index)
    order = sorted(range(len(episodes)), key=lambda i: episodes[i].episode_index)
    every = [observe(s, motion) for s in [*(episodes[i] for i in order), *(r.signals for r in references)]]
    moments = task_moments(every)
    own, shown = dict(enumerate(moments[: len(order)])), moments[len(order) :]
    if not moments[0].is_comparable:
        return [Transferred(None, None, "nothing shows what is done in it") for _ in episodes]

    # Each episode beside the references that begin most like it
    different = {m.episode.signals.episode_index: m for m in moments}
    usual = usual_distances(list(different.values()))
    beside = {place: _nearest(m, shown, usual, config.max_references) for place, m in own.items()}
    compared = {place: m for place, m in own.items() if beside[place]}
    carried, alignments, plans = {}, {}, {}
    for place, besides in laid(compared, beside, shown, usual):
        carried[place], plans[place] = _carried(own[place], besides, references, shown)
        alignments[place] = _likeliest(own[place], [(shown[r], b) for r, b in besides.items()])

    carried = with_usual(carried, carried)
    found = {}
    for place, i in enumerate(order):
        if place not in carried:
            found[i] = Transferred(None, None, "its task has no other reference")
            continue
        alignment = Alignment(own[place].frames, *alignments[place], follows=~carried[place].is_strange)
        found[i] = Transferred(_label(carried[place], plans[place]), alignment, spread=carried[place].spread)
    return [found[i] for i in range(len(episodes))]


def _carried(
    own: Moments, besides: Mapping[int, Beside], references: Sequence[Reference], shown: Sequence[Moments]
) -> tuple[Carried, tuple[str, ...]]:
    """What references say of an episode, and its planned steps: those of the nearest one, by all that have the same."""
    plan = references[min(besides, key=lambda r: (besides[r].doubt, r))].plan
    of_all = [(shown[r], references[r].said, b) for r, b in besides.items()]
    alike = [(shown[r], references[r].said, b) for r, b in besides.items() if references[r].plan == plan]
    carried = carry_over(own, of_all)
    if len(alike) < len(of_all):
        carried = replace(carried, ends=carry_over(own, alike).ends)
    return carried, plan


def _nearest(own: Moments, shown: Sequence[Moments], usual: tuple[float, float], most: int) -> list[int]:
    """The references whose first moment is most like that of an episode, itself left out; by their places."""
    index = own.episode.signals.episode_index
    others = [r for r, m in enumerate(shown) if m.episode.signals.episode_index != index]
    if len(others) > most:
        first = {r: distances(_first(own), _first(shown[r]), usual)[0, 0] for r in others}
        others.sort(key=lambda r: (first[r], r))
    return sorted(others[:most])


def _first(moments: Moments) -> Seen:
    pictures = tuple(seen[:1] for seen in moments.pictures)
    return Seen(pictures, *(None if values is None else values[:1] for values in (moments.state, moments.openings)))


def _label(carried: Carried, plan: tuple[str, ...]) -> EpisodeLabel:
    episode, signals = carried.own.episode, carried.own.episode.signals
    curve = finished_curve(carried.earned(), signals.success)
    ends = agreed_ends(carried.completed(), len(plan), curve, episode)

    strange = float(carried.is_strange.mean())
    agreement = max(0.0, 1 - carried.spread / SPREAD)
    confidence = agreement * (1 - strange) * min(1.0, 1 / max(carried.doubt, 1e-6))
    # Pictures alone do not tell a thing that was lost from one that was placed
    shows_arm = carried.own.state is not None or carried.own.openings is not None
    if not shows_arm and signals.success is None:
        confidence = min(confidence, BY_PICTURES)
    segments = split_at_idle(segments_to(episode, plan, ends), episode.idle, episode.fps)
    notes = [f"unlike its references in {strange:.0%} of its time"] if strange else []
    return label_of(episode, segments, plan, curve, confidence, notes)


def _likeliest(own: Moments, beside: Sequence[tuple[Moments, Beside]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each moment of an episode the nearest reference, its likeliest frame, and how far that is."""
    apart = np.stack([b.apart for _, b in beside])
    frames = np.stack([m.frames[b.likely.argmax(axis=1)] for m, b in beside])
    episodes = np.array([m.episode.signals.episode_index for m, _ in beside])
    which, at = apart.argmin(axis=0), np.arange(len(own))
    return episodes[which], frames[which, at], apart[which, at].astype(np.float32)


MOMENTS = 120  # of an episode: it is looked at as often as gives so many
AT_REFERENCES = (1, 2, 3, 5)  # how many references errors are expected at
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

    measured: the error of references, each labelled by the others; None where fewer than two could be. judged_by: kinds
    of signals that episodes were compared by: pictures, state, grippers.
    """

    next_episodes: tuple[NextEpisode, ...]
    expected: Mapping[int, float]
    measured: float | None
    judged_by: tuple[str, ...]


def suggested(
    episodes: Sequence[Signals],
    references: Sequence[Reference],
    candidates: Collection[int],
    config: TransferConfig,
    motion: MotionConfig,
) -> Suggested | None:
    """Which `candidates`, by their episode_index, to label next; None where nothing of the episodes can be compared.

    episodes: two or more of one task, with those that are references. Costs the square of their number.
    """
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    indices = [e.episode_index for e in in_order]
    shown = {reference.signals.episode_index for reference in references}
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    if not moments[0].is_comparable:
        return None
    left = _left(moments)

    # The references there are, then those to come
    places = [place for place, index in enumerate(indices) if index in candidates and index not in shown]
    most = max(*AT_REFERENCES, len(shown) + 1)
    order = _in_order(left, [indices.index(index) for index in sorted(shown)], places)[:most]

    expected = {n: _expected(left, order[:n]) for n in range(1, min(len(order), len(indices) - 1) + 1)}
    following = [
        NextEpisode(indices[place], _followers(left, order[:n], place))
        for n, place in enumerate(order, 1)
        if n > len(shown)
    ]
    measured = left_out_errors(in_order, references, config, motion)
    kinds = {
        "pictures": moments[0].pictures,
        "state": moments[0].state is not None,
        "grippers": moments[0].openings is not None,
    }
    judged_by = tuple(kind for kind, is_there in kinds.items() if is_there)
    return Suggested(
        tuple(following), expected, float(np.mean(list(measured.values()))) if measured else None, judged_by
    )


def most_telling(episodes: Sequence[Signals], motion: MotionConfig) -> list[int]:
    """Episodes of one task by episode_index, those first that together leave the least open of the others.

    Empty where nothing of them can be compared.
    """
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    if not moments[0].is_comparable:
        return []
    return [in_order[place].episode_index for place in _in_order(_left(moments), [], range(len(in_order)))]


def _in_order(left: np.ndarray, first: Sequence[int], places: Sequence[int]) -> list[int]:
    """`first`, then the places, each time the one that together with those before leaves the least."""
    order, others = [*first], [*places]
    while others:
        order.append(min(others, key=lambda place: (left[:, [*order, place]].min(axis=1).sum(), place)))
        others.remove(order[-1])
    return order


def _left(moments: Sequence[Moments]) -> np.ndarray:
    """What each reference (column) leaves open of each episode (row): error of the clock; 0 beside itself.

    A reference that is twice as unlike as usual leaves twice as much.
    """
    num = len(moments)
    others = {i: [r for r in range(num) if r != i] for i in range(num)}
    clocks = [m.episode.moving_share[m.frames] for m in moments]
    left = np.zeros((num, num))
    for i, besides in laid(dict(enumerate(moments)), others, moments, usual_distances(moments)):
        carried = {r: beside.likely @ clocks[r] for r, beside in besides.items()}
        by_task = np.mean([clocks[i], *carried.values()], axis=0)
        for r, clock in carried.items():
            left[i, r] = float(np.abs(clock - by_task).mean()) * max(1.0, besides[r].doubt)
    return left


def _expected(left: np.ndarray, references: Sequence[int]) -> float:
    """The mean error of the episodes that are no references."""
    others = [i for i in range(len(left)) if i not in references]
    return float(left[np.ix_(others, list(references))].min(axis=1).mean())


def _followers(left: np.ndarray, references: Sequence[int], place: int) -> int:
    """How many others are nearest to one of the references."""
    others = [i for i in range(len(left)) if i not in references]
    return sum(min(references, key=lambda r: left[i, r]) == place for i in others)


def left_out_errors(
    episodes: Sequence[Signals], references: Sequence[Reference], config: TransferConfig, motion: MotionConfig
) -> dict[int, float]:
    """The error of progress of each reference that is labelled by the other ones, by its episode_index.

    episodes: of the task; some of them show what is usual for it.
    """
    if len(references) < 2:
        return {}
    own = {reference.signals.episode_index for reference in references}
    others = spread([e for e in episodes if e.episode_index not in own], SHOW_USUAL)
    labelled = annotate([*(r.signals for r in references), *others], references, config, motion)
    errors = {}
    for reference, transferred in zip(references, labelled, strict=False):
        label = transferred.label
        if label is not None and label.curve is not None:
            errors[reference.signals.episode_index] = float(np.abs(reference.curve - label.curve).mean())
    return errors
