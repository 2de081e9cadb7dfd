"""Servers: the explorer, and the vision-language model that annotates."""

import os
import time
import webbrowser
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError
from typer import Argument, Option

from annotate.config import VlmConfig
from annotate.model_client.responses import ResponseStore
from annotate.model_client.server import Server, ServerConfig, ServerOptions
from annotate.vlm.prompts import prompt_version
from cli.lakes import ReadLake
from cli.options import (
    HostOption,
    NoTokenOption,
    PortOption,
    Result,
    Rows,
    Space,
    TokenFileOption,
    YesOption,
    command,
    confirm,
    note,
    say,
)
from cli.output import progress
from core.errors import UserError, validation_message
from core.names import whoami
from core.paths import Workspace
from core.web import (
    TOKENS,
    access_for,
    link_with,
    listen,
    serve,
    token_for,
    write_private,
)
from explorer.app import create_app
from explorer.site import Options
from pipeline.labelled import label_curves
from pipeline.model_probe import probe
from pipeline.suggesting import suggest
from pipeline.vlm_chunk import cache_rows
from warehouse.lake import Lake
from warehouse.lake.lake import lake_to_read
from warehouse.lake.sql import release_state


@command("explore")
def explore(
    space: Space,
    host: HostOption = "127.0.0.1",
    port: PortOption = 7680,
    no_open: Annotated[bool, Option(help="Do not open a browser.")] = False,
    release: Annotated[str | None, Option(help="Show the corpus as a release froze it.")] = None,
    snapshot: Annotated[
        int | None, Option(min=0, help="Show the corpus at this lake snapshot.")
    ] = None,
    dagster_url: Annotated[
        str | None, Option(help="Address of the Dagster UI, for links to its runs.")
    ] = None,
    token_file: TokenFileOption = None,
    no_token: NoTokenOption = False,
    user_header: Annotated[
        str | None, Option(help="Header in which a reverse proxy names the user.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, Option(help="Address or network of that proxy; repeatable.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, Option(help="Another host name of this explorer; repeatable.")
    ] = None,
) -> None:
    """Browse the corpus and correct labels: episodes, comparisons, SQL, scores. Ctrl-C ends it."""
    if release and snapshot is not None:
        raise UserError("--release and --snapshot exclude each other")
    if dagster_url and not dagster_url.startswith(("http://", "https://")):
        raise UserError(f"--dagster-url {dagster_url}: an address begins with http:// or https://")
    # A proxy that names its users stands in for the token
    is_named = user_header and not (token_file or no_token or os.environ.get(TOKENS["explore"]))
    if is_named:
        token, shown_token = (None, None)
    else:
        token, shown_token = token_for("explore", space, token_file, none=no_token)
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
    lake_to_read(space).con.close()
    asked = {"suggest": partial(_suggestions, space), "label_curves": partial(label_curves, space)}
    options = Options(snapshot, release, dagster_url, access, **asked)
    listener = listen(host, port)
    opening = space.root / "explorer" / "open.html"

    def announce(url: str) -> None:
        say(f"{space.root} is at {link_with(url, shown_token)} (Ctrl-C ends it)")
        if not no_open:
            _open(link_with(url, access.token), opening)

    serve(create_app(space, options), listener, announce)
    opening.unlink(missing_ok=True)
    say("stopped")


def _open(link: str, page: Path) -> None:
    """Open a browser at a file that leads to the link: arguments of programs can be read by every
    user."""
    with suppress(OSError):  # a workspace that may only be read
        page.parent.mkdir(exist_ok=True)
        page.unlink(missing_ok=True)
        write_private(
            page, f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(link)}">'
        )
        webbrowser.open(page.as_uri())


def _suggestions(space: Workspace, dataset: str) -> list[dict[str, Any]]:
    """Which run of each task of a dataset to label next. Raises UserError."""
    lake = Lake(space, read_only=True)
    with closing(lake.con):
        return [asdict(suggestion) for suggestion in suggest(lake, dataset)]


@command("vlm cache")
def vlm_cache(
    lake: ReadLake,
    prune_older: Annotated[
        float | None,
        Option(
            "--prune-older-than", min=0, help="Delete replies that are older than this many days."
        ),
    ] = None,
    prune_versions: Annotated[
        bool,
        Option("--prune-other-prompts", help="Delete replies to other versions of the prompts."),
    ] = False,
    yes: YesOption = False,
) -> Result:
    """List the cached replies of models, by model, prompts and stage. The options delete replies first.

    Deleting changes no label; only a new build of it would ask the model again.
    """
    store = ResponseStore(lake.workspace.responses)
    if prune_older is not None or prune_versions:
        # Replies to today's prompts stay; this version asks for none of the others again
        present = {prompt_version(several_views=many_views) for many_views in (False, True)}
        if prune_versions:
            keep = {k for k, r in store.replies() if r.prompt_version in present}
        else:
            keep = None
        limit = None if prune_older is None else datetime.now(UTC) - timedelta(days=prune_older)
        confirm("Delete replies, which would have to be asked for and paid again?", yes=yes)
        note(f"{store.prune(keep, limit)} replies deleted.")
    return Result(cache_rows(store), empty="No reply is kept.")


@command("vlm check")
def vlm_check(
    endpoint: Annotated[
        str,
        Argument(help="Address of an OpenAI-compatible server: its base, as http://HOST:PORT/v1."),
    ],
    model: Annotated[str, Option(help="Name of the model at the server.")] = VlmConfig().model,
    api_key_env: Annotated[
        str | None, Option(help="Environment variable that holds the key.")
    ] = None,
) -> Rows:
    """Ask a server one small question about one small picture: which fields it takes, and what it
    answers."""
    try:
        config = VlmConfig(endpoints=(endpoint,), model=model, api_key_env=api_key_env)
    except ValidationError as e:
        raise UserError(validation_message(e)) from e
    return [probe(config)]


@command("vlm serve")
def vlm_serve(
    served_model: Annotated[
        str | None, Option("--model", help="Name on the hub, or a folder.")
    ] = None,
    *,
    options: ServerOptions,
) -> None:
    """Run vLLM with the flags that annotation needs, until Ctrl-C; prints the endpoints when they
    are ready."""
    config = ServerConfig(model=served_model or VlmConfig().model, **options.model_dump())
    try:
        with (
            progress() as report,
            Server(config, lambda line: report("vLLM", detail=line)) as server,
        ):
            for endpoint, log in zip(server.endpoints, server.logs, strict=True):
                say(f"{config.name} is ready at {endpoint}, log: {log}")
            # Until Ctrl-C; a server that dies ends this, too, with its error
            while True:
                server.check()
                time.sleep(1)
    except KeyboardInterrupt:
        note("stopped")
