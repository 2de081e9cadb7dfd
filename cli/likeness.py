"""Search by likeness on the command line."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, say, space_at
from cli.output import print_json, show

if TYPE_CHECKING:
    from warehouse.lake.likeness import Asked

app = typer.Typer(rich_markup_mode=None)


@app.command()
def like(
    dataset: Annotated[str, typer.Argument(help="Its name, as status lists it.")],
    episode: Annotated[int, typer.Argument(help="Its episode_index.")],
    frame: Annotated[int | None, typer.Option("--frame", help="Frames like this one; default: runs like it.")] = None,
    camera: Annotated[str | None, typer.Option("--camera", help="That shows it; default: the preferred one.")] = None,
    among: Annotated[str | None, typer.Option("--dataset", help="Only runs of this dataset.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many.")] = 20,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Runs like one run, or with --frame frames like one frame, by what an encoder saw; the most similar first."""
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
