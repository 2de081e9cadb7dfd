"""The doctor of a workspace."""

from typing import Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, FAILED, FormatOption, WorkspaceOption, say, space_at
from cli.output import print_json, show

app = typer.Typer()


@app.command()
def doctor(
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Read every byte of shards, pictures, rows and replies.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete orphans and damaged files; mark what must be built again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Check whether a workspace is complete, and say what to do.

    Exits 1 on errors; remains of a crash are warnings. Changes nothing without --repair. A repair never deletes
    listed, intact files. Cannot run during a build.
    """
    from pipeline.doctor import diagnose
    from warehouse.lake.doctor import ERROR
    from warehouse.lake.doctor_repair import repair as mend

    space = space_at(workspace)
    troubles, repaired = diagnose(space, hashes=hashes), []
    # While the catalog cannot be opened, nothing is known of what it lists, and nothing may be deleted
    can_be_repaired = not any(trouble.what == "catalog" for trouble in troubles)
    if repair and can_be_repaired:
        repaired = mend(space, troubles)
        # Looked at again: the exit code is about the workspace as it is now
        troubles = diagnose(space, hashes=hashes)
    errors = sum(trouble.severity == ERROR for trouble in troubles)
    findings = [trouble.facts() for trouble in troubles]
    if json or format == "json":
        print_json({"errors": errors, "findings": findings, "repaired": repaired})
    else:
        for line in repaired:
            say(line)
        show(findings, "table", empty=f"{space.root} is whole.")
    if errors:
        raise typer.Exit(FAILED)
