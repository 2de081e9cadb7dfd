"""People's corrections of labels: what there is, to files and back, undone."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    FAILED,
    FormatOption,
    WorkspaceOption,
    episode_list,
    lake_at,
    lake_to_read,
    say,
    whoami,
)
from cli.output import show, show_facts
from core.errors import UserError
from core.files import write_file
from warehouse.lake import Lake
from warehouse.lake.corrections import REVIEW, add_rows, listed, newest_row, pending, take_back
from warehouse.lake.labels import active_labels_of

app = typer.Typer()
corrections_app = typer.Typer(
    help="List, export and import corrections of labels by people.",
    no_args_is_help=True,
)
app.add_typer(corrections_app, name="corrections")

FormOption = Annotated[
    Literal["jsonl", "label-studio"], typer.Option("--form", help="JSON lines, or Label Studio's tasks.")
]
ImportFormOption = Annotated[
    Literal["jsonl", "label-studio", "opensarm"],
    typer.Option("--form", help="JSON lines, Label Studio's tasks, or results of opensarm's labelling tool."),
]
AuthorOption = Annotated[str | None, typer.Option("--author", help="Your name; default: your user name.")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")]


@corrections_app.command("list")
def corrections_list(
    dataset: DatasetOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every row, also replaced and withdrawn ones.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List corrections in force or waiting for review, and how many of them the next build will apply."""
    lake = lake_to_read(workspace)
    show(listed(lake, dataset, everything=everything), format, empty="Nobody corrected anything.")
    waiting = pending(lake)
    if waiting and format == "table":
        chunks = ", ".join(f"{n} of {name}" for name, n in sorted(waiting.items()))
        say(f"Chunks that the next build updates: {chunks}.")


@corrections_app.command("export")
def corrections_export(
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    form: FormOption = "jsonl",
    dataset: DatasetOption = None,
    episodes: Annotated[
        str | None,
        typer.Option("--episodes", help="label-studio: add these episodes of --dataset as tasks to correct."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write corrections to a file: every row as JSON lines, or those in force as tasks for Label Studio."""
    from warehouse.exports.corrections import labelling_config, to_lines, to_tasks

    chosen = episode_list(episodes)
    if chosen and (dataset is None or form == "jsonl"):
        raise UserError("--episodes needs --dataset and --form label-studio")
    lake = lake_to_read(workspace)
    # JSON lines keep the whole history; Label Studio gets only what counts now
    if form == "jsonl":
        rows = _rows(lake, "*", "corrections", dataset)
        write_file(out, to_lines(rows).encode())
        say(f"{len(rows)} rows in {out}")
        return

    # Label Studio: tasks of the corrections that count and of the chosen episodes, and the interface to label them
    rows = _rows(lake, "* EXCLUDE chunk", "current_corrections", dataset)
    labels = _labels(lake, dataset, chosen) if dataset and chosen else []
    tasks = to_tasks(lake, rows, labels)
    write_file(out, json.dumps(tasks, indent=1, ensure_ascii=False).encode())
    interface = out.with_suffix(".xml")
    write_file(interface, labelling_config(tasks).encode())
    say(f"{len(tasks)} tasks in {out}, the labelling interface in {interface}")
    # What waits for review is not accepted, so no task shows it
    num_waiting = sum(row["status"] == REVIEW for row in rows)
    if num_waiting:
        print(f"left out: {num_waiting} corrections that wait for review", file=sys.stderr)


def _rows(lake: Lake, columns: str, table: str, dataset: str | None) -> list[dict]:
    """Corrections of a dataset, or of all, oldest first."""
    where, values = ("WHERE dataset = ?", [dataset]) if dataset else ("", [])
    return lake.dicts(f"SELECT {columns} FROM {table} {where} ORDER BY created_at, correction_id", values)


def _labels(lake: Lake, dataset: str, episodes: tuple[int, ...]) -> list[dict]:
    """The active labels of some episodes: what Label Studio shows to begin with."""
    labels = active_labels_of(lake.con, dataset, episodes)
    plans = lake.rows(
        "SELECT episode_index, plan FROM episode_labels JOIN active_runs USING (dataset, episode_index, label_run) "
        "WHERE dataset = ? AND list_contains(?, episode_index) ORDER BY episode_index",
        [dataset, list(episodes)],
    )
    return [
        {
            "dataset": dataset,
            "episode_index": episode,
            "label_run": labels[episode].label_run,
            "plan": plan,
            "segments": [asdict(segment) for segment in labels[episode].segments],
        }
        for episode, plan in plans
        if episode in labels
    ]


@corrections_app.command("import")
def corrections_import(
    path: Annotated[Path, typer.Argument(help="A file from corrections export, or another in the same form.")],
    form: ImportFormOption = "jsonl",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="opensarm: dataset of lines that do not name one.")
    ] = None,
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Add corrections from a file. Names each line that cannot be used, and then exits 1."""
    from warehouse.exports.corrections import from_lines, from_tasks, read_file
    from warehouse.exports.opensarm_corrections import from_opensarm

    if dataset is not None and form != "opensarm":
        raise UserError("--dataset needs --form opensarm: other forms name the dataset themselves")
    text = read_file(path)
    lake = lake_at(workspace)
    if form == "opensarm":
        read = from_opensarm(lake, path, author or whoami(), dataset)
    else:
        reading = from_lines if form == "jsonl" else from_tasks
        read = reading(lake, text, author or whoami())
    # What can be used is saved even where other rows are refused; the exit code tells of those
    new = add_rows(lake, read.rows)
    for why in read.refused:
        print(f"left out: {why}", file=sys.stderr)
    for what in read.waiting:
        print(f"for review: {what}", file=sys.stderr)
    facts = {"new": new, "known": len(read.rows) - new, "for_review": len(read.waiting), "refused": len(read.refused)}
    show_facts(facts, format)
    if read.refused:
        raise typer.Exit(FAILED)


@corrections_app.command("undo")
def corrections_undo(
    correction: Annotated[str, typer.Argument(help="Its correction_id, from corrections list.")],
    author: AuthorOption = None,
    comment: Annotated[str, typer.Option("--comment", help="Reason.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Take back a correction or a rejection, by adding a row; the previous one is in force again."""
    lake = lake_at(workspace)
    place = lake.rows("SELECT dataset, episode_index FROM corrections WHERE correction_id = ?", [correction])
    newest = newest_row(lake, *place[0]) if place else None
    row = take_back(
        lake,
        correction,
        author=author or whoami(),
        comment=comment,
        follows=newest["correction_id"] if newest else None,
    )
    say(f"{row['correction_id']} takes {correction} back; the next build makes its chunk anew")
