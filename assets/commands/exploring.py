"""The explorer: the corpus in a browser."""

from typing import Annotated

import typer

from assets.commands.options import DEFAULT_WORKSPACE, UsageError, VerboseOption, WorkspaceOption, say, space_at

app = typer.Typer(rich_markup_mode=None)


@app.command()
def explore(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 7680,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    release: Annotated[str | None, typer.Option("--release", help="Show the corpus as a release froze it.")] = None,
    snapshot: Annotated[int | None, typer.Option("--snapshot", min=0, help="Show it at a lake snapshot.")] = None,
    dagster_url: Annotated[
        str | None, typer.Option("--dagster-url", help="Address of the Dagster UI, to link to its runs.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Look at the corpus in a browser: episodes with their labels, comparisons, SQL, releases, scores. Ctrl-C ends it."""
    from warehouse.explorer.app import Options, create_app
    from warehouse.explorer.server import serve
    from warehouse.sql import release_snapshot

    space = space_at(workspace)
    if release and snapshot is not None:
        raise UsageError("--release and --snapshot exclude each other")
    if dagster_url and not dagster_url.startswith(("http://", "https://")):
        raise UsageError(f"--dagster-url {dagster_url}: an address begins with http:// or https://")
    options = Options(release_snapshot(space, release) if release else snapshot, release, dagster_url)
    try:
        serve(
            create_app(space, options),
            host,
            port,
            lambda url: say(f"{space.root} is at {url} (Ctrl-C ends it)"),
            not no_open,
        )
    except KeyboardInterrupt:  # which the server, after it has closed, passes on
        say("stopped")
