"""Recordings: where each is now, what happened to them, and which one an episode is."""

from typing import Annotated

import typer
from typer import Argument

from cli.lakes import lake_at, lake_to_read
from cli.options import At, AuthorOption, DatasetArgument, EpisodeArgument, Here, say
from cli.output import show
from core.names import whoami
from warehouse.lake import recordings

app = typer.Typer()
recordings_app = typer.Typer(
    help="Show where recordings are now, and decide which one an episode is.", no_args_is_help=True
)
app.add_typer(recordings_app, name="recordings")


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
