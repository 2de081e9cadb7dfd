"""A task labelled from a few of its runs: the model is asked about these, and the others are laid beside them.

No run follows one whose label is doubtful: where a second one is, one more is asked about instead.
The answers become one plan with one set of names. The model is asked about each run that failed or
follows badly, and about all runs of a task that has few. What it says of a run stays the label of
that run.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.motion.observe import Signals
from annotate.transfer import Alignment, Reference, annotate, most_telling
from core.domain.label import Label, finished
from core.domain.label_run import MIN_NAME_CONFIDENCE
from core.values import spread

MOST_COMPARED = 60  # runs of a task among which those to ask about are chosen

# By episode_index: labels that are not what the model said of the run, and what those of followers rest on
type TaskLabels = tuple[dict[int, Label], dict[int, Alignment]]
# Asks the model about runs, by their episode_index, and returns its labels; a run without a usable reply has none
type AskRuns = Callable[[Sequence[int]], Awaitable[Mapping[int, Label]]]


def num_asked_runs(runs: Sequence[bool | None], config: VlmConfig) -> int:
    """How many runs of a task stand for all of it, by the runs' outcomes; 0: the model is asked about each run."""
    whole = sum(success is not False for success in runs)
    if config.runs_per_task == "all" or whole <= config.runs_per_task:
        return 0
    return config.runs_per_task


async def label_task(
    episodes: Sequence[Signals],
    ask: AskRuns,
    curve_of: Callable[[int, Label], np.ndarray],
    config: VlmConfig,
    transfer: TransferConfig,
    motion: MotionConfig,
) -> TaskLabels:
    """Label the runs of one task: ask the model about a few, and let the others follow these.

    curve_of: the progress [n] of an episode by a label. Runs are compared in threads: replies come
    in meanwhile.
    """
    count = num_asked_runs([e.success for e in episodes], config)
    whole = [e for e in episodes if e.success is not False]
    order: list[int] = []
    if count and whole[0].task:
        order = await asyncio.to_thread(most_telling, spread(whole, MOST_COMPARED), motion)
    if not order:
        await ask([e.episode_index for e in episodes])
        return {}, {}
    by_index = {e.episode_index: e for e in whole}

    def least_alike(model_labels: Mapping[int, Label], candidates: Sequence[int]) -> list[int]:
        """The candidates, those first of which the answers so far say the least alike."""
        answers = labels_of_usual_plan(_complete_labels(model_labels))
        references = _references(by_index, answers, curve_of)
        return _runs_by_spread([by_index[k] for k in candidates], references, transfer, motion)

    asked_runs, model_labels = await _ask_few(order, count, ask, least_alike)
    followed_runs, reference_labels = _followable_runs(whole, asked_runs, model_labels)
    labels, alignments = await asyncio.to_thread(
        _labels_by_following, followed_runs, reference_labels, curve_of, transfer, motion
    )
    done_runs = {*labels, *asked_runs}
    unlabelled = [e.episode_index for e in episodes if e.episode_index not in done_runs]
    if unlabelled:
        await ask(unlabelled)
    return labels, alignments


async def _ask_few(
    order: Sequence[int],
    count: int,
    ask: AskRuns,
    least_alike: Callable[[Mapping[int, Label], Sequence[int]], list[int]],
) -> tuple[list[int], dict[int, Label]]:
    """Ask about a few runs; returns the runs that the model was asked about, and its labels of them.

    The last one is that which the others say least of. One doubtful run is made up for by the
    others; for each further one one more is asked about, up to twice as many as are wanted.
    """
    asked_runs: list[int] = []
    model_labels: dict[int, Label] = {}
    next_runs = list(order[: max(1, count - 1)])
    while next_runs:
        replies = await ask(next_runs)
        # In the order of the questions: of labels that are equally usual the first one counts
        model_labels |= {k: replies[k] for k in next_runs if k in replies}
        asked_runs += next_runs
        num_next = count - len(asked_runs)
        if num_next <= 0:
            num_missing = max(1, count - 1) - len(_sure_labels(model_labels))
            num_next = min(num_missing, 2 * count - len(asked_runs))
        next_runs = []
        if num_next > 0:
            candidates = [k for k in order if k not in asked_runs]
            by_unlikeness = await asyncio.to_thread(least_alike, model_labels, candidates)
            next_runs = by_unlikeness[:num_next]
    return asked_runs, model_labels


def _followable_runs(
    whole: Sequence[Signals], asked_runs: Sequence[int], model_labels: Mapping[int, Label]
) -> tuple[list[Signals], dict[int, Label]]:
    """The runs that may follow others, with those that they follow, and the labels to follow.

    Doubtful answers count only where there are no sure ones. Where most runs are unfinished, no run
    follows another.
    """
    complete = _complete_labels(model_labels)
    reference_labels = {}
    if 2 * len(complete) > len(asked_runs):
        reference_labels = labels_of_usual_plan(_sure_labels(model_labels) or complete)
    # What the model said of a run stays, be it doubtful: no other run's label takes its place
    runs = [
        e for e in whole if e.episode_index in reference_labels or e.episode_index not in asked_runs
    ]
    return runs, reference_labels


def _runs_by_spread(
    runs: Sequence[Signals],
    references: Sequence[Reference],
    transfer: TransferConfig,
    motion: MotionConfig,
) -> list[int]:
    """The runs, those first of which references say the most different things; as they are without references."""
    followed = annotate(runs, references, transfer, motion) if references else []
    spreads = [run_label.spread if run_label.label else 1.0 for run_label in followed] or [
        0.0
    ] * len(runs)
    return [runs[place].episode_index for place in np.argsort(-np.array(spreads), kind="stable")]


def _references(
    signals: Mapping[int, Signals],
    labels: Mapping[int, Label],
    curve_of: Callable[[int, Label], np.ndarray],
) -> list[Reference]:
    return [
        (signals[k], replace(label, progress=curve_of(k, label))) for k, label in labels.items()
    ]


def _labels_by_following(
    episodes: Sequence[Signals],
    reference_labels: Mapping[int, Label],
    curve_of: Callable[[int, Label], np.ndarray],
    transfer: TransferConfig,
    motion: MotionConfig,
) -> TaskLabels:
    """The labels that are followed, and those of the episodes that follow them well."""
    are_sure = bool(_sure_labels(reference_labels))
    labels = dict(reference_labels)
    alignments = {}
    signals = {e.episode_index: e for e in episodes}
    references = _references(signals, reference_labels, curve_of)
    for index, transferred in zip(
        signals, annotate(episodes, references, transfer, motion), strict=True
    ):
        label = transferred.label
        alignment = transferred.alignment
        if (
            index in reference_labels
            or label is None
            or (label.confidence or 0.0) < MIN_NAME_CONFIDENCE
        ):
            continue
        assert alignment is not None, "a label rests on one"
        similar_names = ", ".join(map(str, np.unique(alignment.episodes)))
        notes = [f"like episodes {similar_names}, which the model was asked about", *label.notes]
        notes += [] if are_sure else ["the model's label of each of these is doubtful"]
        labels[index] = replace(label, notes=notes, needs_review=not are_sure)
        alignments[index] = alignment
    return labels, alignments


def _complete_labels(labels: Mapping[int, Label]) -> dict[int, Label]:
    """The labels in which every planned step is completed."""
    return {k: label for k, label in labels.items() if finished(label.segments, label.num_planned)}


def _sure_labels(labels: Mapping[int, Label]) -> dict[int, Label]:
    """The complete labels without a doubt."""
    return {k: label for k, label in _complete_labels(labels).items() if not label.needs_review}


def labels_of_usual_plan(labels: Mapping[int, Label]) -> dict[int, Label]:
    """Those of the labels that have the usual number of planned steps, each step with the name that it usually has.

    Among equals the first counts.
    """
    counts = Counter(len(label.plan) for label in labels.values())
    same_plan_labels = {
        k: label for k, label in labels.items() if len(label.plan) == counts.most_common(1)[0][0]
    }
    plan = tuple(
        map(_usual_name, zip(*(label.plan for label in same_plan_labels.values()), strict=True))
    )
    return {k: _named_label(label, plan) for k, label in same_plan_labels.items()}


def _named_label(label: Label, plan: tuple[str, ...]) -> Label:
    segments = [s if s.step is None else replace(s, name=plan[s.step]) for s in label.segments]
    return replace(label, plan=plan, segments=segments)


def _usual_name(names: Sequence[str]) -> str:
    return max(
        names,
        key=lambda name: sum(other_name.casefold() == name.casefold() for other_name in names),
    )
