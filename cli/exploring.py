"""The explorer: the corpus in a browser."""

import secrets
import webbrowser
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DEFAULT_WORKSPACE, WorkspaceOption, say, space_at, whoami
from core.errors import UserError

if TYPE_CHECKING:
    from core.paths import Workspace

app = typer.Typer()


@app.command()
def explore(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any free one.")] = 7680,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    release: Annotated[str | None, typer.Option("--release", help="Show the corpus as a release froze it.")] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Show the corpus at this lake snapshot.")
    ] = None,
    dagster_url: Annotated[
        str | None, typer.Option("--dagster-url", help="Address of the Dagster UI, for links to its runs.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="PROCCORPUS_EXPLORE_TOKEN",
            help="Token that visitors must show; created if --host is not this machine.",
        ),
    ] = None,
    user_header: Annotated[
        str | None, typer.Option("--user-header", help="Header in which a reverse proxy names the user.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option("--trusted-proxy", help="Address or network of that proxy; repeatable.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Another host name of this explorer; repeatable.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Browse the corpus and correct labels: episodes, comparisons, SQL, scores. Ctrl-C ends it."""
    from core.web import access_for, is_loopback, listen, serve
    from explorer.app import create_app
    from explorer.site import Options
    from warehouse.lake.sql import release_state

    space = space_at(workspace)
    if release and snapshot is not None:
        raise UserError("--release and --snapshot exclude each other")
    if dagster_url and not dagster_url.startswith(("http://", "https://")):
        raise UserError(f"--dagster-url {dagster_url}: an address begins with http:// or https://")
    # Others than this machine need a token, or a proxy that names them
    if not is_loopback(host) and not token and not user_header:
        token = secrets.token_urlsafe(24)
    access = access_for(
        host,
        token=token,
        user_header=user_header,
        proxies=tuple(trusted_proxy or ()),
        hosts=tuple(allow_host or ()),
        author=whoami(),
    )
    if release:
        release, snapshot = release_state(space, release)
    options = Options(snapshot, release, dagster_url, access, lambda dataset: _suggestions(space, dataset))
    listener = listen(host, port)

    def announce(url: str) -> None:
        url += f"/?token={access.token}" if access.token else ""
        say(f"{space.root} is at {url} (Ctrl-C ends it)")
        if not no_open:
            webbrowser.open(url)

    serve(create_app(space, options), listener, announce)
    say("stopped")


def _suggestions(space: "Workspace", dataset: str) -> list[dict[str, Any]]:
    """Which run of each task of a dataset to label next. Raises SuggestionError."""
    from pipeline.suggesting import suggest
    from warehouse.lake import Lake

    lake = Lake(space, read_only=True)
    try:
        return [suggestion.as_json() for suggestion in suggest(lake, dataset)]
    finally:
        lake.con.close()
