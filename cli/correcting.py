"""What people say of episodes: corrections of labels, references, outcomes; to files and back, and taken back.

And of recordings: where each is now, what happened to them, and which one an episode is.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from annotate.transfer import AT_REFERENCES
from cli.lakes import lake_at, lake_to_read
from cli.options import (
    At,
    AuthorOption,
    CommentOption,
    DatasetArgument,
    DatasetOption,
    EpisodeArgument,
    EpisodesOption,
    Here,
    HistoryOption,
    episode_list,
    say,
    say_stale,
    warn,
)
from cli.output import progress, show, show_facts
from cli.terminal import FAILED
from core.errors import UserError
from core.files import write_file
from core.names import whoami
from pipeline.suggesting import TaskSuggestion, suggest
from warehouse.exports.corrections import (
    from_lines,
    from_opensarm,
    from_tasks,
    labelling_config,
    to_lines,
    to_tasks,
)
from warehouse.lake import Lake, acceptances, corrections, outcomes, recordings, references
from warehouse.lake.statements import read_text
from warehouse.lake.stored import labels_of

app = typer.Typer()
corrections_app = typer.Typer(
    help="List, export and import corrections of labels by people.", no_args_is_help=True
)
references_app = typer.Typer(
    help="List and choose references: runs that others are labelled like.", no_args_is_help=True
)
outcomes_app = typer.Typer(
    help="List and import outcomes: which runs succeeded.", invoke_without_command=True
)
app.add_typer(corrections_app, name="corrections")
app.add_typer(references_app, name="references")
recordings_app = typer.Typer(
    help="Show where recordings are now, and decide which one an episode is.", no_args_is_help=True
)
app.add_typer(outcomes_app, name="outcomes")
app.add_typer(recordings_app, name="recordings")


@corrections_app.command("list")
def corrections_list(
    dataset: DatasetOption = None, everything: HistoryOption = False, common: At = At()
) -> None:
    """List corrections in force or waiting for review, and how many of them the next build will apply."""
    lake = lake_to_read(common.workspace)
    show(
        corrections.listed(lake, dataset, everything=everything),
        common.format,
        empty="Nobody corrected anything.",
    )
    say_stale(outcomes.chunks_to_build(lake))


@corrections_app.command("export")
def corrections_export(
    out: Annotated[Path, Option(help="File to write.")],
    form: Annotated[
        Literal["jsonl", "label-studio"], Option(help="JSON lines, or Label Studio's tasks.")
    ] = "jsonl",
    dataset: DatasetOption = None,
    episodes: Annotated[
        str | None,
        Option(help="label-studio: add these episodes of --dataset as tasks to correct."),
    ] = None,
    common: Here = Here(),
) -> None:
    """Write corrections to a file: every row as JSON lines, or those in force as tasks for Label Studio."""
    chosen = episode_list(episodes)
    if chosen and (dataset is None or form == "jsonl"):
        raise UserError("--episodes needs --dataset and --form label-studio")
    lake = lake_to_read(common.workspace)
    # JSON lines keep the whole history; Label Studio gets only what counts now
    if form == "jsonl":
        source = "corrections"
    else:
        source = "(SELECT * EXCLUDE chunk FROM current_corrections)"
    sql = f"FROM {source} WHERE dataset = coalesce(?, dataset) ORDER BY created_at, correction_id"
    rows = lake.dicts(sql, [dataset])
    if form == "jsonl":
        write_file(out, to_lines(rows).encode())
        say(f"{len(rows)} rows in {out}")
        return

    # Label Studio: tasks of the corrections that count and of the chosen episodes, and the interface to label them
    tasks = to_tasks(
        lake, rows, _active_labels(lake, dataset, chosen) if dataset and chosen else []
    )
    write_file(out, json.dumps(tasks, indent=1, ensure_ascii=False).encode())
    interface = out.with_suffix(".xml")
    write_file(interface, labelling_config(tasks).encode())
    say(f"{len(tasks)} tasks in {out}, the labelling interface in {interface}")
    # What waits for review is not accepted, so no task shows it
    if num_waiting := sum(row["status"] == corrections.REVIEW for row in rows):
        warn([f"{num_waiting} corrections that wait for review"], "left out")


def _active_labels(lake: Lake, dataset: str, episodes: tuple[int, ...]) -> list[dict]:
    """The active labels of some episodes: what Label Studio shows to begin with."""
    labels = labels_of(lake.con, dataset, episodes=episodes, whole=True)
    return [
        {
            "dataset": dataset,
            "episode_index": episode_index,
            "label_run": label.label_run,
            "plan": [*label.plan],
            "segments": list(map(asdict, label.segments)),
        }
        for episode_index, label in labels.items()
    ]


@corrections_app.command("import")
def corrections_import(
    path: Annotated[
        Path, Argument(help="A file from corrections export, or another in the same form.")
    ],
    form: Annotated[
        Literal["jsonl", "label-studio", "opensarm"],
        Option(help="JSON lines, Label Studio's tasks, or results of opensarm's labelling tool."),
    ] = "jsonl",
    dataset: Annotated[
        str | None, Option(help="opensarm: dataset of lines that do not name one.")
    ] = None,
    author: AuthorOption = None,
    common: At = At(),
) -> None:
    """Add corrections from a file. Names each line that cannot be used, and then exits 1."""
    if dataset is not None and form != "opensarm":
        raise UserError("--dataset needs --form opensarm: other forms name the dataset themselves")
    text = read_text(path)
    lake = lake_at(common.workspace)
    signed_by = author or whoami()
    if form == "opensarm":
        read = from_opensarm(lake, path, signed_by, dataset)
    else:
        read = (from_lines if form == "jsonl" else from_tasks)(lake, text, signed_by)
    # What can be used is saved even where other rows are refused; the exit code tells of those
    with progress() as report:
        report("corrections", 0, len(read.rows))
        new = corrections.add_rows(
            lake, read.rows, lambda done: report("corrections", done, len(read.rows))
        )
    warn(read.refused, "left out")
    warn(read.waiting, "for review")
    facts = {
        "new": new,
        "known": len(read.rows) - new,
        "for_review": len(read.waiting),
        "refused": len(read.refused),
    }
    show_facts(facts, common.format)
    if read.refused:
        raise typer.Exit(FAILED)


@corrections_app.command("undo")
def corrections_undo(
    correction: Annotated[str, Argument(help="Its correction_id, from corrections list.")],
    author: AuthorOption = None,
    comment: CommentOption = "",
    common: Here = Here(),
) -> None:
    """Take back a correction or a rejection, by adding a row; the previous one is in force again."""
    lake = lake_at(common.workspace)
    place = lake.rows(
        "SELECT dataset, episode_index FROM current_corrections WHERE correction_id = ?",
        [correction],
    )
    follows = corrections.newest_id(lake, *place[0]) if place else None
    row = corrections.take_back(
        lake, correction, author=author or whoami(), comment=comment, follows=follows
    )
    say(f"{row['correction_id']} takes {correction} back; the next build makes its chunk anew")


@references_app.command("list")
def references_list(dataset: DatasetOption = None, common: At = At()) -> None:
    """List every reference: its task, origin and author, and how many runs are labelled like it."""
    lake = lake_to_read(common.workspace)
    empty = "No reference yet: set the steps of one run in proccorpus explore, or vouch for a label: references add."
    show(references.listed(lake, dataset), common.format, empty=empty)
    _say_to_label(lake, dataset)


def _say_to_label(lake: Lake, dataset: str | None) -> None:
    pending = references.pending(lake).items()
    say_stale(
        {name: len(chunks) for name, chunks in pending if dataset in (None, name)}, "labels anew"
    )


@references_app.command("suggest")
def references_suggest(
    dataset: DatasetArgument,
    task: Annotated[
        str | None, Option(metavar="TEXT", help="Only the task with this text.")
    ] = None,
    common: At = At(),
) -> None:
    """Suggest which run of each task to label next, with the expected error of the other runs' progress."""
    suggestions = suggest(lake_to_read(common.workspace), dataset, task)
    show(
        [_suggestion_row(s) for s in suggestions],
        common.format,
        whole=[asdict(s) for s in suggestions],
    )
    # In words: which run and why, what it was judged by, what to know
    _say_to_ask(suggestions)
    for suggestion in suggestions:
        if suggestion.label_next is not None:
            _say_suggestion(suggestion)
    for reason, tasks in Counter(s.why for s in suggestions if s.label_next is None).items():
        say(f"{tasks} {'task has' if tasks == 1 else 'tasks have'} no run to label next: {reason}")


def _say_to_ask(suggestions: Sequence[TaskSuggestion]) -> None:
    for s in suggestions:
        if s.ask_outcome:
            runs = ", ".join(map(str, s.ask_outcome))
            say(
                f"{s.task or 'runs without a text'}: first say how episodes {runs} ended (least like other ends first)"
            )
            say("  labels assume success until you do: proccorpus outcomes import FILE")


def _say_suggestion(s: TaskSuggestion) -> None:
    next_runs = f"; then {', '.join(map(str, s.then))}" if s.then else ""
    say(f"{s.task or 'runs without a text'}: label episode {s.label_next}{next_runs}")
    say(f"  {s.why}; judged by {s.judged_by}")
    if s.measured is not None:
        say(f"  its references, each labelled by the others: error of progress {s.measured:.3f}")
    for caveat in s.caveats:
        say(f"  {caveat}")


def _suggestion_row(suggestion: TaskSuggestion) -> dict[str, Any]:
    errors = {
        expected.references: f"about {expected.error:.3f}" for expected in suggestion.expected
    }
    row: dict[str, Any] = {
        "task": suggestion.task,
        "runs": suggestion.runs,
        "references": ", ".join(map(str, suggestion.references)),
        "label_next": suggestion.label_next,
    }
    return row | {f"error_at_{num}": errors.get(num, "") for num in AT_REFERENCES}


@references_app.command("add")
def references_add(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    label_run: Annotated[
        str | None, Option(help="Vouch for this run's label; default: the active one.")
    ] = None,
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Vouch for a run's label: the next build labels the other runs of its task like it."""
    lake = lake_at(common.workspace)
    row = references.add(lake, dataset, episode, author=author or whoami(), label_run=label_run)
    say(f"episode {episode} of {dataset} is a reference, by its label {row['label_run']}")
    _say_to_label(lake, dataset)


@references_app.command("remove")
def references_remove(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Remove a reference; the run's own label stays as it is."""
    lake = lake_at(common.workspace)
    references.remove(lake, dataset, episode, author=author or whoami())
    say(f"episode {episode} of {dataset} is no reference any more; its own label counts as before")
    _say_to_label(lake, dataset)


@references_app.command("join")
def references_join(
    dataset: DatasetArgument,
    first: Annotated[str, Argument(metavar="TEXT", help="The exact text of a task.")],
    second: Annotated[str, Argument(metavar="TEXT", help="Another text that means the same task.")],
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Join two texts that mean the same task: runs of either are labelled like references of both."""
    lake = lake_at(common.workspace)
    task = references.join_tasks(lake, dataset, first, second, author=author or whoami())
    say(f"{dataset}: one task by now, listed as {task!r}")
    _say_to_label(lake, dataset)


@references_app.command("part")
def references_part(
    dataset: DatasetArgument,
    text: Annotated[str, Argument(metavar="TEXT", help="A text that was joined to another.")],
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Make a joined text a task of its own again."""
    lake = lake_at(common.workspace)
    references.part_task(lake, dataset, text, author=author or whoami())
    say(f"{dataset}: {text!r} is a task of its own again")
    _say_to_label(lake, dataset)


@app.command()
def accept(
    dataset: DatasetArgument,
    check: Annotated[str, Argument(help="The check's name, such as camera_frozen.")],
    episodes: EpisodesOption = None,
    why: Annotated[str | None, Option(help="Reason; who looks for the fault reads it.")] = None,
    by: Annotated[str | None, Option("--by", help="Your name; default: your user name.")] = None,
    undo: Annotated[bool, Option(help="Take it back: tell the faults again.")] = False,
    common: At = At(),
) -> None:
    """Accept a known oddity: the faults that a check found, in some runs or in all of a dataset. It is not told again.

    What is accepted follows the recordings, whatever their numbers are later. Nothing is left out or built anew by it.
    """
    selected = episode_list(episodes)
    author = by or whoami()
    if not undo and not (why or "").strip():
        raise UserError("accept needs --why TEXT: who looks for the fault reads it")
    lake = lake_at(common.workspace)
    if undo:
        acceptances.take_back(lake, dataset, check, selected, why=why or "", author=author)
    else:
        acceptances.accept(lake, dataset, check, selected, why=why or "", author=author)
    show(
        acceptances.listed(lake, dataset), common.format, empty=f"Nothing is accepted in {dataset}."
    )


@outcomes_app.callback()
def outcomes_shares(ctx: typer.Context, common: At = At()) -> None:
    """Per dataset and what says so: how many runs succeeded and failed, and of how many nothing is known."""
    # This also runs ahead of a subcommand, such as `outcomes list`, which then speaks alone
    if ctx.invoked_subcommand:
        return
    lake = lake_to_read(common.workspace)
    show(outcomes.shares(lake), common.format, empty="No episode is listed yet.")
    say_stale(outcomes.chunks_to_build(lake))


@outcomes_app.command("list")
def outcomes_list(
    dataset: DatasetOption = None, everything: HistoryOption = False, common: At = At()
) -> None:
    """List the outcomes that people stated, with author and time, and how many of them the next build will apply."""
    lake = lake_to_read(common.workspace)
    show(
        outcomes.listed(lake, dataset, everything=everything),
        common.format,
        empty="Nobody said how any run ended.",
    )
    say_stale(outcomes.chunks_to_build(lake))


@outcomes_app.command("import")
def outcomes_import(
    path: Annotated[
        Path, Argument(metavar="FILE", help="CSV with a header, JSON lines or a JSON list.")
    ],
    dataset: Annotated[str, Option(help="Dataset of the episodes in the file.")],
    author: AuthorOption = None,
    common: At = At(),
) -> None:
    """Import which runs succeeded: columns episode, episode_index or source_id; success; optional note and by.

    A file overrules the source and earlier files. A file with a bad line is refused as a whole.
    """
    lake = lake_at(common.workspace)
    read = outcomes.read_outcomes(lake, dataset, path, author or whoami())
    import_id, new = outcomes.add_outcomes(lake, dataset, path.name, read)
    succeeded = sum(outcome.success for outcome in read)
    facts = {
        "dataset": dataset,
        "import_id": import_id,
        "outcomes": len(read),
        "succeeded": succeeded,
    }
    show_facts(facts | {"failed": len(read) - succeeded, "new": new}, common.format)
    say_stale(outcomes.chunks_to_build(lake))


@outcomes_app.command("undo")
def outcomes_undo(
    import_id: Annotated[str, Argument(help="Its import_id, from outcomes list.")],
    author: AuthorOption = None,
    comment: CommentOption = "",
    common: Here = Here(),
) -> None:
    """Take back an import, by adding rows; earlier outcomes, or the source's, are in force again."""
    lake = lake_at(common.workspace)
    dataset, count = outcomes.undo_import(lake, import_id, author=author or whoami(), note=comment)
    say(f"{count} outcomes of {dataset} are taken back; the next build makes their chunks anew")


@recordings_app.command("list")
def recordings_list(dataset: DatasetArgument, common: At = At()) -> None:
    """List the recordings of a dataset: the number and name of each now, or when it left the source."""
    show(
        recordings.listed(lake_to_read(common.workspace), dataset),
        common.format,
        empty=f"{dataset} has no recordings yet.",
    )


@recordings_app.command("changes")
def recordings_changes(dataset: DatasetArgument, common: At = At()) -> None:
    """List what happened to recordings, the newest first: which moved, left, came back, or were recorded anew."""
    rows = recordings.changes(lake_to_read(common.workspace), dataset)
    show(rows, common.format, empty=f"Every recording of {dataset} is where it was first.")


@recordings_app.command("review")
def recordings_review(
    dataset: Annotated[
        str | None, Argument(help="The dataset's name in the corpus; default: all.")
    ] = None,
    common: At = At(),
) -> None:
    """List what people said of recordings that an episode only resembles, and why it does.

    It is not in force until a person decides: recordings same, or recordings other.
    """
    rows = recordings.in_review(lake_to_read(common.workspace), dataset)
    show(rows, common.format, empty="Nothing waits: it is clear what everything was said of.")


@recordings_app.command("same")
def recordings_same(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Say that an episode is the recording that it resembles: all that was said of it is in force."""
    former = recordings.decide(
        lake_at(common.workspace), dataset, episode, is_same=True, author=author or whoami()
    )
    say(
        f"episode {episode} of {dataset} is recording {former}; the next build applies what was said of it"
    )


@recordings_app.command("other")
def recordings_other(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    author: AuthorOption = None,
    common: Here = Here(),
) -> None:
    """Say that an episode is not the recording that it resembles: nothing that was said of that one concerns it."""
    former = recordings.decide(
        lake_at(common.workspace), dataset, episode, is_same=False, author=author or whoami()
    )
    say(f"episode {episode} of {dataset} is another recording than {former}; build {dataset} again")
