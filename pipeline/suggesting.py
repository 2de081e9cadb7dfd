"""Which run of each task to label next, and what error to expect of the labels of the others: for people."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from math import isqrt
from typing import Any

import numpy as np

from annotate.transfer import SeenRun
from annotate.transfer.suggestion import BETWEEN, Suggested, suggested
from core.errors import UserError
from pipeline.build import stored_build
from pipeline.config import DatasetBuild
from pipeline.reading import EpisodeSignals, chunk_signals
from pipeline.transferring import LabelledRun, ShownTask, labelled_runs, shown_task
from warehouse.lake import Lake
from warehouse.lake.references import joined_tasks, references_of

MOST_RUNS = 40  # of a task that are looked at
MOST_PAIRS = 2 * MOST_RUNS**2  # of a dataset: of each of many tasks fewer runs are
FEWEST_RUNS = 6
MOST_REFERENCES = 10  # of these
MOST_NAMED = 5  # texts, in a sentence
FEW_FOLLOWERS = 2  # runs nearest to a suggested one: fewer are no reason for it
CONTRADICT_AT = 0.1  # error of references that are labelled by each other; of real ones it is 0.02 to 0.07
UNLABELLED_ERROR = 0.15  # of progress, where no reference shows the runs anything: that of motion, about


class SuggestionError(UserError, ValueError):
    """Nothing that a run could be suggested of: where, and what to do."""


@dataclass(frozen=True)
class ExpectedError:
    """The mean error of progress, 0..1, to expect of the other runs with so many references; likely `low` to `high`."""

    references: int
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskSuggestion:
    """The run of a task to label next, by its episode_index; None where there is none: `why` says so, for people.

    runs: how many are usable. references: those of them that are. then: the next ones, the best first.
    expected: by the number of references. measured: the error of the references there are, each labelled by the
    others; None where fewer than two could be. judged_by: what the runs were compared by. caveats: what else to know.
    """

    dataset: str
    task: str | None
    runs: int
    references: tuple[int, ...]
    label_next: int | None
    why: str
    then: tuple[int, ...] = ()
    expected: tuple[ExpectedError, ...] = ()
    measured: float | None = None
    judged_by: str = ""
    caveats: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Run:
    """A usable run; has_steps: its source brings them."""

    episode_index: int
    chunk: int
    success: bool | None
    has_steps: bool


def suggest(lake: Lake, dataset: str, task: str | None = None) -> list[TaskSuggestion]:
    """The run of each task of a dataset to label next; tasks that gain most come first. Writes nothing.

    task: only that one, by any of its texts. Takes seconds; half a minute for many runs.

    Raises SuggestionError: there is no such dataset or task, or nothing of it is built.
    """
    build = stored_build(lake, dataset)
    of_tasks = _runs_of_tasks(lake, dataset)
    if build is None or not of_tasks:
        raise SuggestionError(_why_nothing(lake, dataset))
    if task is not None:
        stands = joined_tasks(lake, dataset).get(task, task)
        if stands not in of_tasks:
            texts = [repr(text) for text in sorted(filter(None, of_tasks))]
            have = ", ".join(texts[:MOST_NAMED]) + (", ..." if len(texts) > MOST_NAMED else "") or "no text"
            raise SuggestionError(f"no usable run of {dataset} has the text {task!r}; they have {have}")
        of_tasks = {stands: of_tasks[stands]}
    most = max(FEWEST_RUNS, min(MOST_RUNS, isqrt(MOST_PAIRS // len(of_tasks))))
    suggestions = [_of_task(lake, build, text, runs, most) for text, runs in of_tasks.items()]
    return sorted(suggestions, key=_gain, reverse=True)


def _runs_of_tasks(lake: Lake, dataset: str) -> dict[str | None, list[_Run]]:
    """The usable runs of each task, by the text that stands for it."""
    same_as = joined_tasks(lake, dataset)
    rows = lake.rows(
        "SELECT f.task, f.episode_index, f.chunk, f.success, coalesce(len(f.steps), 0) > 0 FROM episode_facts f "
        "JOIN episode_content c USING (dataset, episode_index) JOIN episodes e USING (dataset, episode_index) "
        "WHERE f.dataset = ? AND e.status = 'ok' "
        "ORDER BY f.task, f.episode_index",
        [dataset],
    )
    of_tasks: dict[str | None, list[_Run]] = {}
    for text, *facts in rows:
        of_tasks.setdefault(same_as.get(text, text), []).append(_Run(*facts))
    return of_tasks


def _why_nothing(lake: Lake, dataset: str) -> str:
    names = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    if dataset not in names:
        return f"the corpus has no dataset {dataset!r}; it has {', '.join(names) or 'none yet'}"
    return f"no run of {dataset} is built and usable: build it, or see why in proccorpus status and its findings"


def _gain(suggestion: TaskSuggestion) -> float:
    """How much less the error of all runs together is with one reference more."""
    if suggestion.label_next is None:
        return -1.0
    errors = {expected.references: expected.error for expected in suggestion.expected}
    num = len(suggestion.references)
    now = errors.get(num, UNLABELLED_ERROR) if num else UNLABELLED_ERROR
    return (now - errors.get(num + 1, now)) * (suggestion.runs - num)


# One task


def _of_task(lake: Lake, build: DatasetBuild, task: str | None, runs: Sequence[_Run], most: int) -> TaskSuggestion:
    dataset = build.name
    labelled = _labelled(lake, dataset, task)
    references = tuple(one.signals.episode_index for one in labelled)
    nothing = TaskSuggestion(dataset, task, len(runs), references, None, "")
    candidates = _candidates(runs, references)
    if why := _why_none(runs, references, candidates):
        return replace(nothing, why=why)

    # A part of many runs, spread evenly
    kept = _evenly(labelled, MOST_REFERENCES)
    episodes = _signals(lake, dataset, _chosen(runs, references, candidates, most - len(kept)))
    shown = shown_task(lake, dataset, episodes, kept)
    sees_pictures = any(run.pictures for run in shown.runs)
    shown = _with_hashes(shown, [one.signals for one in kept])
    seen = [*(reference.run for reference in shown.references), *shown.runs]
    if len(seen) < 2:
        return replace(nothing, why="its other runs cannot be read")
    of_task = suggested(seen, shown.references, candidates, build.stages.transfer, build.stages.motion)
    if of_task is None:
        return replace(nothing, why="its runs have no pictures, state or gripper in common that could be compared")
    return replace(
        nothing,
        label_next=of_task.next_runs[0].episode_index,
        why=_why(of_task, len(seen), len(kept)),
        then=tuple(run.episode_index for run in of_task.next_runs[1:]),
        expected=_expected(of_task, len(references) - len(kept)),
        measured=of_task.measured,
        judged_by=_listed([WORDS[kind, sees_pictures] for kind in of_task.judged_by]),
        caveats=_caveats(build, of_task, len(runs), len(seen), sees_pictures=sees_pictures),
    )


def _why_none(runs: Sequence[_Run], references: Collection[int], candidates: Collection[int]) -> str:
    """Why no run of a task is to be labelled next; empty where one is."""
    if len(runs) == 1:
        return "it is the only run of its task; proccorpus references join says which texts mean the same one"
    if candidates:
        return ""
    by_steps = "all other runs have steps" if references else "its source brings the steps of all runs"
    return f"{by_steps}: nothing is left to label"


def _labelled(lake: Lake, dataset: str, task: str | None) -> list[LabelledRun]:
    """The references of a task; a lake of an earlier version has none."""
    if not lake.has("current_references"):
        return []
    return labelled_runs(lake, dataset, references_of(lake, dataset, task))


def _candidates(runs: Sequence[_Run], references: Collection[int]) -> list[int]:
    """The runs that somebody could label; those that the source calls failed only where there are no others."""
    unlabelled = [run for run in runs if run.episode_index not in references and not run.has_steps]
    finished = [run for run in unlabelled if run.success is not False]
    return [run.episode_index for run in finished or unlabelled]


def _chosen(runs: Sequence[_Run], references: Collection[int], candidates: Collection[int], most: int) -> list[_Run]:
    """Runs to look at that are no references, spread evenly; some candidate is among them."""
    own = [run for run in runs if run.episode_index in candidates]
    others = [run for run in runs if run.episode_index not in candidates and run.episode_index not in references]
    num_others = min(len(others), most * len(others) // (len(own) + len(others)))
    chosen = [*_evenly(own, most - num_others), *_evenly(others, num_others)]
    return sorted(chosen, key=lambda run: run.episode_index)


def _evenly[T](things: Sequence[T], most: int) -> list[T]:
    """Up to so many of them, spread evenly."""
    places = np.linspace(0, len(things) - 1, min(len(things), max(most, 0))).round().astype(int)
    return [things[k] for k in places]


def _signals(lake: Lake, dataset: str, runs: Sequence[_Run]) -> list[EpisodeSignals]:
    signals: list[EpisodeSignals] = []
    for chunk in sorted({run.chunk for run in runs}):
        signals += chunk_signals(lake, dataset, chunk, [run.episode_index for run in runs if run.chunk == chunk])
    return signals


def _with_hashes(shown: ShownTask, of_references: Sequence[EpisodeSignals]) -> ShownTask:
    """Runs without embeddings and state are compared by the hashes of the pictures of the one camera that took all."""
    signals = [*shown.episodes, *of_references]
    if any(run.pictures for run in shown.runs) or all(own.state is not None for own in signals):
        return shown
    if len({own.camera for own in signals}) > 1:
        return shown
    runs = [_hashed(run, own) for run, own in zip(shown.runs, shown.episodes, strict=True)]
    references = [
        replace(reference, run=_hashed(reference.run, own))
        for reference, own in zip(shown.references, of_references, strict=True)
    ]
    return ShownTask(shown.episodes, runs, references)


def _hashed(run: SeenRun, signals: EpisodeSignals) -> SeenRun:
    """The run with the bits of each frame's perceptual hash, -1 or 1, in place of what an encoder saw."""
    bits = np.unpackbits(signals.phash.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return SeenRun(run.signals, np.arange(len(bits)), (2 * bits.astype(np.float32) - 1,))


# In words

WORDS = {
    ("pictures", True): "pictures",
    ("pictures", False): "hashes of pictures",
    **{(kind, seen): kind for kind in ("state", "grippers") for seen in (True, False)},
}


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _why(of_task: Suggested, num_seen: int, num_references: int) -> str:
    first = of_task.next_runs[0]
    if not num_references:
        return "it is in the middle of its task: the others are laid beside it with the least doubt"
    if first.nearest_to < FEW_FOLLOWERS:
        return "together with what is labelled it leaves the least doubt about the others"
    return f"{first.nearest_to} of {num_seen - num_references - 1} others are nearer to it than to what is labelled"


def _expected(of_task: Suggested, left_out: int) -> tuple[ExpectedError, ...]:
    """`left_out`: references that were not looked at; with fewer than there are nothing is expected then."""
    return tuple(
        ExpectedError(num + left_out, error, error * BETWEEN[0], min(1.0, error * BETWEEN[1]))
        for num, error in of_task.expected.items()
        if not left_out or num >= MOST_REFERENCES
    )


def _caveats(
    build: DatasetBuild, of_task: Suggested, num_runs: int, num_seen: int, *, sees_pictures: bool
) -> tuple[str, ...]:
    caveats = []
    if num_seen < num_runs:
        caveats.append(f"{num_seen} of its {num_runs} runs were looked at, spread evenly")
    if not sees_pictures:
        when = "is there once the task has a reference and is built again" if not build.lacks_encoder else "is lacking"
        caveats.append(f"no encoder has looked at its pictures: what one sees {when}")
    if of_task.measured is not None and of_task.measured > CONTRADICT_AT:
        caveats.append("its references contradict each other: look whether they are labelled alike")
    if not build.uses_references:
        caveats.append(f"{build.name} is built with annotator {build.annotator}: --annotator auto follows references")
    return tuple(caveats)
