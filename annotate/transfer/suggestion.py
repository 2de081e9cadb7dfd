"""Which episodes of a task to label next, so that the others can be labelled like them.

1. All episodes are laid beside each other. The share of its moving time is the clock of each; what all others carry
   over to an episode is its clock by the task.
2. The next episode is the one that, together with the references there are, leaves least: how far the clock that the
   nearest reference carries over is from that by the task, and how unlike both are.

Where two references or more are labelled already, each is labelled by the others, too, and the error measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annotate.alignment.engine import Moments, laid, task_moments, usual_distances
from annotate.config import MotionConfig, TransferConfig
from annotate.motion.observe import Signals, observe
from annotate.transfer.annotator import Reference, annotate
from core.values import spread

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
