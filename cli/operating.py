"""Workspaces: made, checked, and seen in Dagster's UI."""

import os
import shutil
from contextlib import closing
from typing import Annotated

import typer
from typer import Option

from assets.lib.home import dagster_home
from cli.options import (
    At,
    Here,
    HostOption,
    NoTokenOption,
    PortOption,
    TokenFileOption,
    say,
    space_at,
)
from cli.output import print_json, show
from cli.terminal import FAILED
from core.paths import Workspace
from core.web import TOKENS, link_with, listen, token_for
from ingest.episode import Finding
from pipeline.doctor import diagnose
from warehouse.lake import Lake, open_lake
from warehouse.lake.doctor import ERROR
from warehouse.lake.doctor_repair import recover as make_again
from warehouse.lake.doctor_repair import repair as mend
from warehouse.lake.place import create
from warehouse.lake.schema import upgraded

app = typer.Typer()
workspace_app = typer.Typer(help="Create a workspace for several machines.", no_args_is_help=True)
app.add_typer(workspace_app, name="workspace")


@workspace_app.command("create")
def workspace_create(
    catalog: Annotated[
        str | None,
        Option(
            help="Catalog in Postgres: postgresql://USER@HOST:PORT/DATABASE; password: PGPASSWORD."
        ),
    ] = None,
    data: Annotated[
        str | None, Option(help="Data: s3://BUCKET/FOLDER, or the absolute path of a folder.")
    ] = None,
    common: Here = Here(),
) -> None:
    """Create a workspace whose lake several machines write to. A workspace in a local folder needs
    no such step."""
    space = space_at(common.workspace)
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
    say(
        f"{space.root} is a workspace; its lake is at {catalog or space.catalog}, with data at {data or space.data}."
    )


@app.command()
def doctor(
    hashes: Annotated[
        bool, Option(help="Read every byte of shards, pictures, rows and replies.")
    ] = False,
    repair: Annotated[
        bool,
        Option(help="Move orphans and damaged files to .removed; mark what must be built again."),
    ] = False,
    common: At = At(),
) -> None:
    """Check whether a workspace is complete, and say what to do.

    Exits 1 on errors; remains of a crash are warnings. Changes nothing without --repair, which
    deletes nothing. Cannot run during a build.
    """
    space = space_at(common.workspace)
    troubles = diagnose(space, hashes=hashes)
    repaired = []
    if repair:
        repaired = mend(space, troubles)
        # Looked at again: the exit code is about the workspace as it is now
        troubles = diagnose(space, hashes=hashes)
    _show_findings(space, troubles, repaired, common.format)


@app.command()
def recover(common: At = At()) -> None:
    """Make a lost or damaged catalog again, with all that people said.

    Begins with the newest backup. Deletes nothing: what it replaces or does not know is moved to
    .removed/. Says what a build makes again. Cannot run during a build.
    """
    space = space_at(common.workspace)
    repairs = make_again(space)
    repairs += mend(space, diagnose(space))
    _show_findings(space, diagnose(space), repairs, common.format)


@app.command()
def upgrade(
    yes: Annotated[
        bool, Option("--yes", "-y", help="Do it; without, only say what would be done.")
    ] = False,
    common: At = At(),
) -> None:
    """Bring an earlier version's lake to this one's; backs its catalog up first. Cannot run during
    a build."""
    to_do = upgraded(space_at(common.workspace), dry=not yes)
    print_json(to_do) if common.format == "json" else say(to_do["said"])


def _show_findings(
    space: Workspace, troubles: list[Finding], repaired: list[str], style: str
) -> None:
    """What was done, and what is wrong now. Raises typer.Exit: errors."""
    errors = sum(trouble.severity == ERROR for trouble in troubles)
    findings = [
        {
            "severity": trouble.severity,
            "what": trouble.reason,
            "where": trouble.file,
            "detail": trouble.detail,
            "remedy": trouble.remedy,
        }
        for trouble in troubles
    ]
    for line in repaired:
        say(line)
    whole = {"errors": errors, "findings": findings, "repaired": repaired}
    show(findings, style, empty=f"{space.root} is whole.", whole=whole)
    if errors:
        raise typer.Exit(FAILED)


@app.command()
def ui(
    common: Here = Here(),
    port: PortOption = 3000,
    host: HostOption = "127.0.0.1",
    token_file: TokenFileOption = None,
    no_token: NoTokenOption = False,
) -> None:
    """Open the Dagster UI on a workspace: chunks, backfills, checks and lineage."""
    from assets.lib.observed import instance_at, observe
    from assets.webserver import run_ui, ui_access

    space = space_at(common.workspace)
    # Whoever can reach it can start jobs
    token, shown_token = token_for("ui", space, token_file, none=no_token)
    ui_access(host, os.environ | {TOKENS["ui"]: token or ""})
    # A port that is in use is told before anything is started
    with closing(listen(host, port)) as listener:
        port = listener.getsockname()[1]
    # What was built by the command line, or on another machine, is there when the page opens
    home = dagster_home(space)
    if space.exists():
        with instance_at(home, space) as instance:
            observe(instance, open_lake(space))
    os.environ |= {"DAGSTER_HOME": str(home), "PROCCORPUS_WORKSPACE": str(space.root)}
    address = link_with(f"http://{host}:{port}", shown_token)
    say("Dagster starts, which takes some 20 s; its address stands here once it answers ...")

    def on_ready() -> None:
        say(f"Dagster UI of {space.root}: {address} (Ctrl-C ends it)")

    raise typer.Exit(run_ui(host, port, home, token or "", on_ready))
