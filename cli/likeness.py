"""Search by likeness on the command line."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, say, space_at
from cli.output import print_json, show

if TYPE_CHECKING:
    from warehouse.lake.likeness import Asked

app = typer.Typer()


@app.command()
def like(
    dataset: Annotated[str, typer.Argument(help="The dataset's name, from status.")],
    episode: Annotated[int, typer.Argument(help="The run's episode_index.")],
    frame: Annotated[int | None, typer.Option("--frame", help="Find frames like this one; default: find runs.")] = None,
    camera: Annotated[
        str | None, typer.Option("--camera", help="Camera to compare; default: the preferred one.")
    ] = None,
    among: Annotated[str | None, typer.Option("--dataset", help="Only runs of this dataset.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Maximum number of results.")] = 20,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the runs that are most similar to one run, or with --frame the frames most similar to one frame."""
    from warehouse.lake import Lake
    from warehouse.lake.likeness import frames_like, runs_like

    con = Lake(space_at(workspace), read_only=True).con
    if frame is None:
        asked, similar = runs_like(con, dataset, episode, camera, among, most)
    else:
        asked, similar = frames_like(con, dataset, episode, frame, camera, among, most)
    rows = [asdict(row) for row in similar]
    if format == "json":
        print_json({"asked": asdict(asked), "similar": rows})
        return
    _say_what_is_compared(asked, frame)
    show(rows, "table", empty="The encoder has looked at no other run.")


def _say_what_is_compared(asked: "Asked", frame: int | None) -> None:
    say(f"{asked.dataset} episode {asked.episode_index} by {asked.camera}, as {asked.encoder} sees it.")
    if asked.frame_index != frame:
        say(f"The encoder did not look at frame {frame}: compared is the nearest that it did, {asked.frame_index}.")
    for dataset, encoders in asked.not_compared.items():
        say(f"Not compared: {dataset}, which {encoders} has looked at.")
