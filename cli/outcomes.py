"""Did runs succeed? What is known of it and from where, and what people say: imported from files, taken back."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, lake_at, lake_to_read, say, whoami
from cli.output import show, show_facts
from warehouse.lake import Lake
from warehouse.lake.outcomes import add_outcomes, chunks_to_build, listed, shares, undo_import

app = typer.Typer()
outcomes_app = typer.Typer(
    help="List and import outcomes: which runs succeeded.",
    invoke_without_command=True,
)
app.add_typer(outcomes_app, name="outcomes")

AuthorOption = Annotated[str | None, typer.Option("--author", help="Your name; default: your user name.")]


@outcomes_app.callback()
def outcomes(
    ctx: typer.Context, workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table"
) -> None:
    """Per dataset and what says so: how many runs succeeded and failed, and of how many nothing is known."""
    # This also runs ahead of a subcommand, such as `outcomes list`, which then speaks alone
    if ctx.invoked_subcommand:
        return
    lake = lake_to_read(workspace)
    show(shares(lake), format, empty="No episode is listed yet.")
    if format == "table":
        _say_what_waits(lake)


def _say_what_waits(lake: Lake) -> None:
    waiting = chunks_to_build(lake)
    if waiting:
        chunks = ", ".join(f"{n} of {name}" for name, n in sorted(waiting.items()))
        say(f"Chunks that the next build updates: {chunks}.")


@outcomes_app.command("list")
def outcomes_list(
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every row, also replaced and withdrawn ones.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the outcomes that people stated, with author and time, and how many of them the next build will apply."""
    lake = lake_to_read(workspace)
    show(listed(lake, dataset, everything=everything), format, empty="Nobody said how any run ended.")
    if format == "table":
        _say_what_waits(lake)


@outcomes_app.command("import")
def outcomes_import(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, JSON lines or a JSON list.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset of the episodes in the file.")],
    author: AuthorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Import which runs succeeded: columns episode, episode_index or source_id; success; optional note and by.

    A file overrules the source and earlier files. A file with a bad line is refused as a whole.
    """
    from warehouse.outcome_files import read_outcomes

    lake = lake_at(workspace)
    read = read_outcomes(lake, dataset, path, author or whoami())
    import_id, new = add_outcomes(lake, dataset, path.name, read)
    succeeded = sum(outcome.success for outcome in read)
    facts = {
        "dataset": dataset,
        "import_id": import_id,
        "outcomes": len(read),
        "succeeded": succeeded,
        "failed": len(read) - succeeded,
        "new": new,
    }
    show_facts(facts, format)
    if format == "table":
        _say_what_waits(lake)


@outcomes_app.command("undo")
def outcomes_undo(
    import_id: Annotated[str, typer.Argument(help="Its import_id, from outcomes list.")],
    author: AuthorOption = None,
    comment: Annotated[str, typer.Option("--comment", help="Reason.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Take back an import, by adding rows; earlier outcomes, or the source's, are in force again."""
    lake = lake_at(workspace)
    dataset, count = undo_import(lake, import_id, author=author or whoami(), note=comment)
    say(f"{count} outcomes of {dataset} are taken back; the next build makes their chunks anew")
