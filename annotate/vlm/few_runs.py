"""A task labelled from a few of its runs: the model is asked about these, and the others are laid beside them.

No run follows one whose label is doubtful: where a second one is, one more is asked about instead. The answers become
one plan with one set of names. The model is asked about each run that failed or follows badly, and about all runs of a
task that has few. What it says of a run stays the label of that run.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.motion.observe import Signals
from annotate.transfer import Alignment, Reference, annotate, most_telling
from core.domain.label import Label, Labelled, finished
from core.domain.label_run import MIN_NAME_CONFIDENCE
from core.values import spread

MOST_COMPARED = 60  # runs of a task among which those to ask about are chosen

# By episode_index: labels that are not what the model said of the run, and what those of followers rest on
type TaskLabels = tuple[dict[int, Label], dict[int, Alignment]]


def asked_about(runs: Sequence[bool | None], config: VlmConfig) -> int:
    """How many runs of a task stand for all of it, by the runs' outcomes; 0: the model is asked about each run."""
    whole = sum(success is not False for success in runs)
    if config.runs_per_task == "all" or whole <= config.runs_per_task:
        return 0
    return config.runs_per_task


def label_task(
    episodes: Sequence[Signals],
    model_labels: Mapping[int, Label],
    curve_of: Callable[[int, Label], np.ndarray],
    config: VlmConfig,
    transfer: TransferConfig,
    motion: MotionConfig,
) -> Generator[dict[int, VlmConfig], None, TaskLabels]:
    """Label the runs of one task; yields, by episode_index, the runs to ask about next, each with its settings.

    model_labels: the answers so far, which the caller adds to before it goes on; a run may lack one. curve_of: the
    progress [n]
    of an episode by a label.
    """
    count = asked_about([e.success for e in episodes], config)
    whole = [e for e in episodes if e.success is not False]
    if count and whole[0].task:
        order = most_telling(spread(whole, MOST_COMPARED), motion)
    else:
        order = []
    if not order:
        yield {e.episode_index: config for e in episodes}
        return {}, {}
    by_index = {e.episode_index: e for e in whole}

    def least_alike(asked_runs: Sequence[int]) -> list[int]:
        """The runs to ask about that are left, those first of which the answers so far say the least alike."""
        answers = one_plan({k: model_labels[k] for k in _complete(asked_runs, model_labels)})
        references = _references(by_index, answers, curve_of)
        return _by_spread(
            [by_index[k] for k in order if k not in asked_runs], references, transfer, motion
        )

    asked_runs, sure_runs = yield from _ask_few(order, count, model_labels, config, least_alike)

    # Doubtful answers count only where there are no sure ones. Where most runs are unfinished, no run follows another
    complete = _complete(asked_runs, model_labels)
    if 2 * len(complete) > len(asked_runs):
        reference_labels = one_plan({k: model_labels[k] for k in sure_runs or complete})
    else:
        reference_labels = {}
    # What the model said of a run stays, be it doubtful: no other run's label takes its place
    followed_runs = [
        e for e in whole if e.episode_index in reference_labels or e.episode_index not in asked_runs
    ]
    labels, alignments = _followed(
        followed_runs, reference_labels, curve_of, transfer, motion, are_sure=bool(sure_runs)
    )
    yield {
        e.episode_index: config for e in episodes if e.episode_index not in {*labels, *asked_runs}
    }
    return labels, alignments


def _ask_few(
    order: Sequence[int],
    count: int,
    model_labels: Mapping[int, Label],
    config: VlmConfig,
    least_alike: Callable[[Sequence[int]], list[int]],
) -> Generator[dict[int, VlmConfig], None, tuple[list[int], list[int]]]:
    """The runs that the model was asked about, and the sure ones among them: complete, and without a doubt.

    The last one is that which the others say least of. One doubtful run is made up for by the others; for each further
    one one more is asked about, up to twice as many as are wanted.
    """
    asked_runs: list[int] = []
    sure_runs: list[int] = []
    next_runs = list(order[: max(1, count - 1)])
    while next_runs:
        yield dict.fromkeys(next_runs, config)
        asked_runs += next_runs
        sure_runs = [
            k for k in _complete(asked_runs, model_labels) if not model_labels[k].needs_review
        ]
        num_remaining = min(max(1, count - 1) - len(sure_runs), 2 * count - len(asked_runs))
        num_remaining = num_remaining if len(asked_runs) >= count else count - len(asked_runs)
        next_runs = least_alike(asked_runs)[:num_remaining] if num_remaining > 0 else []
    return asked_runs, sure_runs


def _by_spread(
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
        Labelled(signals[k], replace(label, progress=curve_of(k, label)))
        for k, label in labels.items()
    ]


def _followed(
    episodes: Sequence[Signals],
    reference_labels: Mapping[int, Label],
    curve_of: Callable[[int, Label], np.ndarray],
    transfer: TransferConfig,
    motion: MotionConfig,
    *,
    are_sure: bool,
) -> TaskLabels:
    """The labels that are shown, and those of the episodes that follow them well."""
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


def in_rounds(
    tasks: Sequence[Generator[dict[int, VlmConfig], None, TaskLabels]], labelled: TaskLabels
) -> Iterator[dict[int, VlmConfig]]:
    """The questions of several tasks (`label_task`) side by side, maybe none; `labelled` gets the labels of each."""
    waiting = [*tasks]
    while waiting:
        round_requests: dict[int, VlmConfig] = {}
        for task in list(waiting):
            try:
                round_requests |= next(task)
            except StopIteration as end:
                labelled[0].update(end.value[0])
                labelled[1].update(end.value[1])
                waiting.remove(task)
        yield round_requests


def _complete(asked_runs: Sequence[int], model_labels: Mapping[int, Label]) -> list[int]:
    """The runs whose answer has every planned step completed."""
    return [
        k
        for k in asked_runs
        if k in model_labels and finished(model_labels[k].segments, model_labels[k].num_planned)
    ]


def one_plan(labels: Mapping[int, Label]) -> dict[int, Label]:
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
    return {k: _with_names(label, plan) for k, label in same_plan_labels.items()}


def _with_names(label: Label, plan: tuple[str, ...]) -> Label:
    segments = [s if s.step is None else replace(s, name=plan[s.step]) for s in label.segments]
    return replace(label, plan=plan, segments=segments)


def _usual_name(names: Sequence[str]) -> str:
    return max(
        names,
        key=lambda name: sum(other_name.casefold() == name.casefold() for other_name in names),
    )
