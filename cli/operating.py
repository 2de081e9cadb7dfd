"""Workspaces: made, checked, and seen in Dagster's UI, with the Dagster instance that belongs to each."""

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import yaml
from typer import Option

from cli.options import (
    AS_JSON,
    DONE,
    FAILED,
    HostOption,
    NoTokenOption,
    PortOption,
    Result,
    Space,
    TokenFileOption,
    command,
    say,
)
from core.errors import UserError
from core.files import room_in
from core.paths import ROOT, Workspace
from core.web import TOKENS, link_with, listen, token_for
from ingest.episode import Finding
from pipeline.doctor import diagnose
from warehouse.lake import Lake, open_lake
from warehouse.lake.doctor import ERROR
from warehouse.lake.doctor_repair import recover as make_again
from warehouse.lake.doctor_repair import repair as mend
from warehouse.lake.place import create
from warehouse.lake.schema import upgraded


@command("workspace create")
def workspace_create(
    space: Space,
    catalog: Annotated[
        str | None,
        Option(
            help="Catalog in Postgres: postgresql://USER@HOST:PORT/DATABASE; password: PGPASSWORD."
        ),
    ] = None,
    data: Annotated[
        str | None, Option(help="Data: s3://BUCKET/FOLDER, or the absolute path of a folder.")
    ] = None,
) -> None:
    """Create a workspace whose lake several machines write to. A workspace in a local folder needs
    no such step."""
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


@command("doctor")
def doctor(
    space: Space,
    hashes: Annotated[
        bool, Option(help="Read every byte of shards, pictures, rows and replies.")
    ] = False,
    repair: Annotated[
        bool,
        Option(help="Move orphans and damaged files to .removed; mark what must be built again."),
    ] = False,
) -> Result:
    """Check whether a workspace is complete, and say what to do.

    Exits 1 on errors; remains of a crash are warnings. Changes nothing without --repair, which
    deletes nothing. Cannot run during a build.
    """
    troubles = diagnose(space, hashes=hashes)
    repaired = []
    if repair:
        repaired = mend(space, troubles)
        # Looked at again: the exit code is about the workspace as it is now
        troubles = diagnose(space, hashes=hashes)
    return _findings(space, troubles, repaired)


@command("recover")
def recover(space: Space) -> Result:
    """Make a lost or damaged catalog again, with all that people said.

    Begins with the newest backup. Deletes nothing: what it replaces or does not know is moved to
    .removed/. Says what a build makes again. Cannot run during a build.
    """
    repairs = make_again(space)
    repairs += mend(space, diagnose(space))
    return _findings(space, diagnose(space), repairs)


@command("upgrade")
def upgrade(
    space: Space,
    yes: Annotated[
        bool, Option("--yes", "-y", help="Do it; without, only say what would be done.")
    ] = False,
) -> Result:
    """Bring an earlier version's lake to this one's; backs its catalog up first. Cannot run during
    a build."""
    to_do = upgraded(space, dry=not yes)
    return Result(to_do if AS_JSON.get() else None, lines=[to_do["said"]])


def _findings(space: Workspace, troubles: list[Finding], repaired: list[str]) -> Result:
    """What was done, and what is wrong now."""
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
    code = FAILED if errors else DONE
    return Result(findings, empty=f"{space.root} is whole.", whole=whole, code=code)


@command("ui")
def ui(
    space: Space,
    port: PortOption = 3000,
    host: HostOption = "127.0.0.1",
    token_file: TokenFileOption = None,
    no_token: NoTokenOption = False,
) -> int:
    """Open the Dagster UI on a workspace: chunks, backfills, checks and lineage."""
    from assets.lib.events import instance_at, observe
    from assets.webserver import run_ui, ui_access

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

    return run_ui(host, port, home, token or "", on_ready)


def dagster_home(workspace: Workspace) -> Path:
    """The DAGSTER_HOME that belongs to a workspace: the project's own for its ./workspace, else one inside it.

    A team's workspace (its lake is elsewhere) belongs to the deployment whose DAGSTER_HOME is set, if one is.
    Raises UserError.
    """
    deployed = os.environ.get("DAGSTER_HOME")
    if deployed and workspace.settings.exists():
        return Path(deployed)
    if workspace.root == ROOT / "workspace":
        return ROOT
    home = workspace.root / "dagster"
    # Dagster makes an address of its storage's path, in which a question mark begins something else
    if "?" in str(home.absolute()):
        raise UserError(
            f"{workspace.root}: Dagster cannot keep its storage below a '?': give it another path"
        )

    def below(settings: Any) -> Any:
        """Settings with the project's folder for Dagster replaced by this one."""
        if isinstance(settings, dict):
            return {name: below(value) for name, value in settings.items()}
        is_path = isinstance(settings, str) and settings.startswith(".dagster/")
        if is_path:
            return str(home / settings.removeprefix(".dagster/"))
        return settings

    settings = below(yaml.safe_load((ROOT / "dagster.yaml").read_text()))
    with room_in(workspace.root):
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home
