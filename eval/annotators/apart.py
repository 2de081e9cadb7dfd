"""Where two label runs, or a label run and its reference, are farthest apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eval.annotators.labels import ComparedLabel, EpisodeFacts
from eval.annotators.scoring import cuts_f1
from eval.annotators.truth import NEAR_S, EpisodeTruth

MOST_DIFFERENT = 3  # episodes


@dataclass(frozen=True)
class ComparedWith:
    """What label runs of one dataset are compared with; `runs`: those whose own labels these are."""

    against: str
    truths: Mapping[int, EpisodeTruth]
    runs: frozenset[str] = frozenset()
    without: int = 0  # episodes of the truth that are not in the corpus, or not usable


@dataclass(frozen=True)
class Apart:
    """How far two label runs are apart in one episode, or a label run and its reference."""

    episode_index: int
    progress: float  # mean absolute difference, NaN where one has none
    boundary_f1: float  # of the one's boundaries within 0.5 s of the other's


@dataclass(frozen=True)
class RunsApart:
    """Two label runs of a dataset: where they are farthest apart, the farthest first."""

    dataset: str
    first: str
    second: str
    num_episodes: int  # that both have labelled
    episodes: tuple[Apart, ...]


def as_truth(dataset: str, episode: int, label: ComparedLabel, facts: EpisodeFacts) -> EpisodeTruth:
    """Another label in the place of the truth."""
    return EpisodeTruth(
        dataset=dataset,
        episode_index=episode,
        num_frames=label.num_frames,
        fps=facts.fps,
        success=label.finished,
        boundaries=tuple(label.cuts),
        events=(),
        passes=(label.segments,),
        curve=label.progress,
    )


def where_apart(
    dataset: str,
    labels: Mapping[str, Mapping[int, ComparedLabel]],
    active: set[str],
    reference: ComparedWith,
    episodes: Mapping[int, EpisodeFacts],
) -> list[RunsApart]:
    """The run that counts beside each other one; a run that is alone beside the reference."""
    first, *others = sorted(labels, key=lambda run: run not in active)
    beside: dict[str, Mapping[int, EpisodeTruth]] = {
        run: {e: as_truth(dataset, e, label, episodes[e]) for e, label in labels[run].items()} for run in others
    }
    found = []
    for second, truths in (beside or {reference.against: reference.truths}).items():
        apart = []
        for e in truths.keys() & labels[first].keys():
            label, truth = labels[first][e], truths[e]
            progress = math.nan if label.progress is None else float(np.abs(label.progress - truth.progress()).mean())
            apart.append(Apart(e, progress, cuts_f1(label.cuts, truth.boundaries, NEAR_S * truth.fps)))
        # Labels without progress are told apart by their boundaries alone
        apart.sort(key=lambda a: (0.0 if math.isnan(a.progress) else -a.progress, a.boundary_f1, a.episode_index))
        found.append(RunsApart(dataset, first, second, len(apart), tuple(apart[:MOST_DIFFERENT])))
    return found
