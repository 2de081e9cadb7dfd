"""Workspaces: where a corpus is kept."""

import shutil
from typing import Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, WorkspaceOption, say, space_at
from warehouse.lake import Lake
from warehouse.lake.place import create

app = typer.Typer()
workspace_app = typer.Typer(help="Create a workspace for several machines.", no_args_is_help=True)
app.add_typer(workspace_app, name="workspace")


@workspace_app.command("create")
def workspace_create(
    catalog: Annotated[
        str | None,
        typer.Option(
            help="Catalog of the lake in Postgres: postgresql://USER@HOST:PORT/DATABASE; the password in PGPASSWORD."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data of the lake: s3://BUCKET/FOLDER, or the absolute path of a folder.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Create a workspace whose lake several machines write to. A workspace in a local folder needs no such step."""
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
