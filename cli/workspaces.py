"""Workspaces: where a corpus is kept."""

import shutil
from typing import Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, WorkspaceOption, say, space_at
from warehouse.lake import Lake
from warehouse.lake.place import create

app = typer.Typer(rich_markup_mode=None)
workspace_app = typer.Typer(help="Where a corpus is kept.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(workspace_app, name="workspace")


@workspace_app.command("create")
def workspace_create(
    catalog: Annotated[
        str | None,
        typer.Option(
            help="Of the lake, in Postgres: postgresql://USER@HOST:PORT/DATABASE; the password as PGPASSWORD."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Of the lake: s3://BUCKET/FOLDER, or a folder by its whole path.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Make a workspace whose lake several machines write to. One of its own folder needs no such step."""
    space = space_at(workspace)
    is_new = not space.root.exists()
    create(space, catalog, data)
    try:
        Lake(space).con.close()
    # A workspace whose lake cannot be opened would stand in the way of the next try
    except BaseException:
        space.settings.unlink()
        if is_new:
            shutil.rmtree(space.root)
        raise
    say(f"{space.root} is a workspace; its lake is at {catalog or space.catalog}, with data at {data or space.data}.")
