"""References: runs whose label people vouch for, and which the other runs of their task are labelled like."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, lake_at, lake_to_read, say, whoami
from cli.output import show
from warehouse.lake import Lake
from warehouse.lake import references as stored

if TYPE_CHECKING:
    from pipeline.suggesting import TaskSuggestion

AT_REFERENCES = (1, 2, 3, 5)  # that errors are shown at

app = typer.Typer()
references_app = typer.Typer(
    help="List and choose references: runs that others of their task are labelled like.",
    no_args_is_help=True,
)
app.add_typer(references_app, name="references")

AuthorOption = Annotated[str | None, typer.Option("--author", help="Your name; default: your user name.")]
DatasetArgument = Annotated[str, typer.Argument(help="The dataset's name, from status.")]
EpisodeArgument = Annotated[int, typer.Argument(help="The run's episode_index.")]


@references_app.command("list")
def references_list(
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List every reference: its task, origin and author, and how many runs are labelled like it."""
    lake = lake_to_read(workspace)
    empty = "No reference yet: set the steps of one run in proccorpus explore, or vouch for a label: references add."
    show(stored.listed(lake, dataset), format, empty=empty)
    if format == "table":
        _say_what_waits(lake, dataset)


def _say_what_waits(lake: Lake, dataset: str | None = None) -> None:
    waiting = {name: chunks for name, chunks in stored.pending(lake).items() if dataset in (None, name)}
    if waiting:
        chunks = ", ".join(f"{len(chunks)} of {name}" for name, chunks in waiting.items())
        say(f"Chunks that the next build labels anew: {chunks}.")


@references_app.command("suggest")
def references_suggest(
    dataset: DatasetArgument,
    task: Annotated[str | None, typer.Option("--task", metavar="TEXT", help="Only the task with this text.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Suggest which run of each task to label next, with the expected error of the other runs' progress."""
    from pipeline.suggesting import suggest

    suggestions = suggest(lake_to_read(workspace), dataset, task)
    if format == "json":
        show([suggestion.as_json() for suggestion in suggestions], format)
        return
    show([_suggestion_row(suggestion) for suggestion in suggestions], format)
    without: dict[str, int] = {}
    for suggestion in suggestions:
        if suggestion.label_next is None:
            without[suggestion.why] = without.get(suggestion.why, 0) + 1
        else:
            _say_why(suggestion)
    for why, tasks in without.items():
        say(f"{tasks} {'task has' if tasks == 1 else 'tasks have'} no run to label next: {why}")


def _suggestion_row(suggestion: "TaskSuggestion") -> dict[str, Any]:
    errors = {expected.references: expected.error for expected in suggestion.expected}
    row: dict[str, Any] = {
        "task": suggestion.task,
        "runs": suggestion.runs,
        "references": ", ".join(map(str, suggestion.references)),
        "label_next": suggestion.label_next,
    }
    return row | {f"error_at_{num}": f"about {errors[num]:.3f}" if num in errors else "" for num in AT_REFERENCES}


def _say_why(suggestion: "TaskSuggestion") -> None:
    """In words: which run and why, what it was judged by, what to know."""
    then = f"; then {', '.join(map(str, suggestion.then))}" if suggestion.then else ""
    say(f"{suggestion.task or 'runs without a text'}: label episode {suggestion.label_next}{then}")
    say(f"  {suggestion.why}; judged by {suggestion.judged_by}")
    if suggestion.measured is not None:
        say(f"  its references, each labelled by the others: error of progress {suggestion.measured:.3f}")
    for caveat in suggestion.caveats:
        say(f"  {caveat}")


@references_app.command("add")
def references_add(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    label_run: Annotated[
        str | None, typer.Option("--label-run", help="Vouch for this label run's label; default: the active label.")
    ] = None,
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Vouch for a run's label: the next build labels the other runs of its task like it."""
    lake = lake_at(workspace)
    row = stored.add(lake, dataset, episode, author=author or whoami(), label_run=label_run)
    say(f"episode {episode} of {dataset} is a reference, by its label {row['label_run']}")
    _say_what_waits(lake, dataset)


@references_app.command("remove")
def references_remove(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Remove a reference; the run's own label stays as it is."""
    lake = lake_at(workspace)
    stored.remove(lake, dataset, episode, author=author or whoami())
    say(f"episode {episode} of {dataset} is no reference any more; its own label counts as before")
    _say_what_waits(lake, dataset)


@references_app.command("join")
def references_join(
    dataset: DatasetArgument,
    first: Annotated[str, typer.Argument(metavar="TEXT", help="The exact text of a task.")],
    second: Annotated[str, typer.Argument(metavar="TEXT", help="Another text that means the same task.")],
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Join two texts that mean the same task: runs of either are labelled like references of both."""
    lake = lake_at(workspace)
    task = stored.join_tasks(lake, dataset, first, second, author=author or whoami())
    say(f"{dataset}: one task by now, listed as {task!r}")
    _say_what_waits(lake, dataset)


@references_app.command("part")
def references_part(
    dataset: DatasetArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text that was joined to another.")],
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Make a joined text a task of its own again."""
    lake = lake_at(workspace)
    stored.part_task(lake, dataset, text, author=author or whoami())
    say(f"{dataset}: {text!r} is a task of its own again")
    _say_what_waits(lake, dataset)
