"""Which run of each task to label next, and what error to expect of the labels of the others: for people."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from annotate.alignment.engine import worst_first
from annotate.motion.observe import Signals
from annotate.transfer import BETWEEN, Suggested, suggestion
from core.errors import UserError
from core.values import grouped, spread
from pipeline.config import DatasetBuild, built
from pipeline.reading import signals_of
from pipeline.stages.transfer import shown_task
from warehouse.lake import Lake
from warehouse.lake.references import joined_tasks, references_of

MOST_RUNS = 40  # of a task that are looked at
MOST_PAIRS = 2 * MOST_RUNS**2  # of a dataset: of each of many tasks fewer runs are
FEWEST_RUNS = 6
MOST_REFERENCES = 10  # of these
MOST_NAMED = 5  # texts, in a sentence
MOST_ASKED = 5  # runs, how they ended
FEW_FOLLOWERS = 2  # runs nearest to a suggested one: fewer are no reason for it
CONTRADICT_AT = (
    0.1  # error of references that are labelled by each other; of real ones it is 0.02 to 0.07
)
# Signs of the review queue against a run itself: one that shows others how it goes is complete and ordinary
NOT_ORDINARY = "unfinished|contradict|odd "
UNLABELLED_ERROR = (
    0.15  # of progress, where no reference shows the runs anything: that of motion, about
)


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

    ask_outcome: runs of which nobody says how they ended, to be asked about before anything is labelled; first those
    that stay farthest from how the others end. runs: how many are usable. references: those of them that are. then: the
    next ones, the best first. expected: by the number of references. measured: the error of the references there are,
    each labelled by the others; None where fewer than two could be. judged_by: what the runs were compared by. caveats:
    what else to know.
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
    ask_outcome: tuple[int, ...] = ()


type Run = dict[
    str, Any
]  # a usable one: its episode_index, chunk, success, doubts, and whether its source has_steps


def suggest(lake: Lake, dataset: str, task: str | None = None) -> list[TaskSuggestion]:
    """The run of each task of a dataset to label next; tasks that gain most come first. Writes nothing.

    task: only that one, by any of its texts. Takes seconds; half a minute for many runs.

    Raises UserError: there is no such dataset or task, or nothing of it is built.
    """
    build = built(lake, dataset)
    same_as = joined_tasks(lake, dataset)
    rows = lake.dicts(
        "SELECT f.task, f.episode_index, f.chunk, f.success, coalesce(len(f.steps), 0) > 0 AS has_steps, "
        "list_filter(coalesce(q.why, []), lambda w: regexp_matches(w, ?)) AS doubts "
        "FROM episode_facts f JOIN episode_content c USING (dataset, episode_index) "
        "JOIN episodes e USING (dataset, episode_index) LEFT JOIN review_queue q USING (dataset, episode_index) "
        "WHERE f.dataset = ? AND e.status = 'ok' ORDER BY f.task, f.episode_index",
        [NOT_ORDINARY, dataset],
    )
    # The usable runs of each task, by the text that stands for it
    of_tasks = grouped((same_as.get(row["task"], row["task"]), row) for row in rows)
    if not of_tasks:
        raise UserError(
            f"no run of {dataset} is built and usable: build it, or see why in status and its findings"
        )
    if task is not None:
        stands = same_as.get(task, task)
        if stands not in of_tasks:
            texts = [repr(text) for text in sorted(filter(None, of_tasks))]
            have = (
                ", ".join(texts[:MOST_NAMED]) + (", ..." if len(texts) > MOST_NAMED else "")
                or "no text"
            )
            raise UserError(f"no usable run of {dataset} has the text {task!r}; they have {have}")
        of_tasks = {stands: of_tasks[stands]}
    max_runs = max(FEWEST_RUNS, min(MOST_RUNS, isqrt(MOST_PAIRS // len(of_tasks))))
    suggestions = [_of_task(lake, build, text, runs, max_runs) for text, runs in of_tasks.items()]
    return sorted(suggestions, key=_gain, reverse=True)


def _gain(suggestion: TaskSuggestion) -> float:
    """How much less the error of all runs together is with one reference more."""
    if suggestion.label_next is None:
        return -1.0
    errors = {expected.references: expected.error for expected in suggestion.expected}
    num = len(suggestion.references)
    current_error = errors.get(num, UNLABELLED_ERROR) if num else UNLABELLED_ERROR
    return (current_error - errors.get(num + 1, current_error)) * (suggestion.runs - num)


def _of_task(
    lake: Lake, build: DatasetBuild, task: str | None, runs: Sequence[Run], max_runs: int
) -> TaskSuggestion:
    dataset = build.name
    labels = references_of(lake, dataset, task)
    references = tuple(labels)
    nothing = TaskSuggestion(dataset, task, len(runs), references, None, "")
    candidates, other_runs = _candidates(runs, references)
    if reason := _why_none(task, runs, references, candidates):
        return replace(nothing, why=reason)

    # A part of many runs, spread evenly; some candidate is among them
    kept_labels = {episode: labels[episode] for episode in spread(references, MOST_REFERENCES)}
    room = max_runs - len(kept_labels)
    num_others = min(len(other_runs), room * len(other_runs) // (len(candidates) + len(other_runs)))
    looked_at = [*spread(candidates, room - num_others), *spread(other_runs, num_others)]
    episodes = signals_of(lake, dataset, {run["episode_index"]: run["chunk"] for run in looked_at})
    reference_task = shown_task(lake, build, episodes, kept_labels)
    all_signals = [
        *(signals for signals, _ in reference_task.references),
        *reference_task.signals,
    ]
    nothing = replace(nothing, ask_outcome=_to_ask(all_signals, runs, build))
    if len(all_signals) < 2:
        return replace(nothing, why="its other runs cannot be read")
    of_task = suggestion(
        all_signals,
        reference_task.references,
        [run["episode_index"] for run in candidates],
        build.stages.transfer,
        build.stages.motion,
    )
    if of_task is None:
        return replace(
            nothing,
            why="its runs have no pictures, state or gripper in common that could be compared",
        )
    return replace(
        nothing,
        label_next=of_task.next_episodes[0].episode_index,
        why=_why(of_task, len(all_signals), len(kept_labels)),
        then=tuple(episode.episode_index for episode in of_task.next_episodes[1:]),
        expected=_expected(of_task, len(references) - len(kept_labels)),
        measured=of_task.measured,
        judged_by=" and ".join(
            filter(None, [", ".join(of_task.judged_by[:-1]), of_task.judged_by[-1]])
        ),
        caveats=_caveats(build, of_task, runs, len(all_signals)),
    )


def _to_ask(
    all_signals: Sequence[Signals], runs: Sequence[Run], build: DatasetBuild
) -> tuple[int, ...]:
    """The runs of which nobody says how they ended, of those that were looked at, the worst first."""
    unknown = {run["episode_index"] for run in runs if run["success"] is None}
    if not unknown:
        return ()
    return tuple(
        episode for episode in worst_first(all_signals, build.stages.motion) if episode in unknown
    )[:MOST_ASKED]


def _why_none(
    task: str | None, runs: Sequence[Run], references: Sequence[int], candidates: Sequence[Run]
) -> str:
    """Why no run of a task is to be labelled next; empty where one is."""
    if len(runs) == 1:
        return "it is the only run of its task; proccorpus say joined_task says which texts mean the same one"
    if task is None:
        return "its runs have no text, so that nobody knows whether they do the same: say it with build --task TEXT"
    if candidates:
        return ""
    if references:
        by_steps = "all other runs have steps"
    else:
        by_steps = "its source brings the steps of all runs"
    return f"{by_steps}: nothing is left to label"


def _candidates(runs: Sequence[Run], references: Collection[int]) -> tuple[list[Run], list[Run]]:
    """Runs that somebody could label, failed and odd ones only where there are no others; and other unlabelled ones."""
    unlabelled = [run for run in runs if run["episode_index"] not in references]
    without_steps = [run for run in unlabelled if not run["has_steps"]]
    candidates = [run for run in without_steps if run["success"] is not False] or without_steps
    candidates = [run for run in candidates if not run["doubts"]] or candidates
    return candidates, [run for run in unlabelled if run not in candidates]


def _expected(of_task: Suggested, num_held_out: int) -> tuple[ExpectedError, ...]:
    """`num_held_out`: references that were not looked at; with fewer than there are nothing is expected then."""
    return tuple(
        ExpectedError(num + num_held_out, error, error * BETWEEN[0], min(1.0, error * BETWEEN[1]))
        for num, error in of_task.expected.items()
        if not num_held_out or num >= MOST_REFERENCES
    )


def _why(of_task: Suggested, num_seen: int, num_references: int) -> str:
    first = of_task.next_episodes[0]
    if not num_references:
        return "it is in the middle of its task: the others are laid beside it with the least doubt"
    if first.nearest_to < FEW_FOLLOWERS:
        return "together with what is labelled it leaves the least doubt about the others"
    return f"{first.nearest_to} of {num_seen - num_references - 1} others are nearer to it than to what is labelled"


def _caveats(
    build: DatasetBuild, of_task: Suggested, runs: Sequence[Run], num_seen: int
) -> tuple[str, ...]:
    doubts = [
        d
        for r in runs
        if r["episode_index"] == of_task.next_episodes[0].episode_index
        for d in r["doubts"]
    ]
    if doubts:
        caveats = [f"a doubt stands against it, as against all others: {'; '.join(doubts)}"]
    else:
        caveats = []
    if num_seen < len(runs):
        caveats.append(f"{num_seen} of its {len(runs)} runs were looked at, spread evenly")
    if of_task.measured is not None and of_task.measured > CONTRADICT_AT:
        caveats.append("its references contradict each other: look whether they are labelled alike")
    if not build.uses_references:
        caveats.append(
            f"{build.name} is built with annotator {build.annotator}: --annotator auto follows references"
        )
    return tuple(caveats)
