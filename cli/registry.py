"""The registry of datasets, and datasets with other names or none."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from cli.lakes import lake_at
from cli.options import (
    At,
    DatasetArgument,
    Here,
    YesOption,
    confirm,
    counted,
    say,
    say_next,
    space_at,
)
from cli.output import show
from core.errors import UserError
from core.names import did_you_mean
from core.paths import Workspace
from ingest.registry import (
    BUILT_IN,
    facts,
    load_registry,
    overview,
    readable,
)
from warehouse.lake import renaming
from warehouse.lake.references import stored_builds
from warehouse.lake.sql import open_for_users

app = typer.Typer()
datasets_app = typer.Typer(
    help="Show the registry of datasets; rename or remove one.", invoke_without_command=True
)
app.add_typer(datasets_app, name="datasets")
RegistryOption = Annotated[
    list[Path] | None, Option(help="Also read this folder of your own YAML files.")
]
NewNameArgument = Annotated[str, Argument(help="Its new name.")]


@datasets_app.callback()
def datasets(ctx: typer.Context, registry: RegistryOption = None, common: At = At()) -> None:
    """List the datasets of the registry and of the workspace."""
    # This also runs ahead of a subcommand, such as `datasets show`, which then speaks alone
    if ctx.invoked_subcommand:
        return
    rows = overview(
        load_registry([BUILT_IN, *(registry or [])]), _datasets_built(space_at(common.workspace))
    )
    show(rows, common.format, hidden=["source"])  # too wide: datasets show has it


@datasets_app.command("show")
def datasets_show(
    registered: Annotated[str, Argument(metavar="NAME")],
    registry: RegistryOption = None,
    common: At = At(),
) -> None:
    """Show all that is known about one dataset: sizes, licence, cameras by role, gripper, traps."""
    built = _datasets_built(space_at(common.workspace))
    entries = load_registry([BUILT_IN, *(registry or [])])
    # A dataset may be known to the registry, or built here from a source that the registry does not have
    if registered not in entries and registered not in built:
        hint = (
            did_you_mean(registered, sorted({*entries, *built}))
            or "; proccorpus datasets lists them"
        )
        raise UserError(f"unknown dataset {registered!r}{hint}")
    dataset = facts(entries.get(registered), built.get(registered))
    show(readable(dataset), common.format, whole=dataset)


@datasets_app.command("rename")
def datasets_rename(
    dataset: DatasetArgument, name: NewNameArgument, yes: YesOption = False, common: Here = Here()
) -> None:
    """Give a dataset another name. What people said goes with it; the next build makes its labels and shards anew.

    Also takes what people said of a dataset that was removed (arm.1) to a name that a build gives its source again.
    """
    lake = lake_at(common.workspace)
    holdings = renaming.holdings(lake, dataset)
    if holdings.imported:
        confirm(f"{holdings.sentence}. Rename it?", yes=yes)
    renaming.rename(lake, dataset, name)
    say(f"{dataset} is {name} now, with {counted(holdings.words, 'word')} of people.")
    if name in stored_builds(lake):
        say_next({"make its labels and shards anew": f"build --dataset {name}"}, common.workspace)
    else:
        say(f"It counts again when its source is built with --name {name}.")


@datasets_app.command("remove")
def datasets_remove(
    dataset: DatasetArgument, yes: YesOption = False, common: Here = Here()
) -> None:
    """Take a dataset out of the corpus. What people said of it is kept, under a name of its own.

    Releases stay what they are. gc deletes files that nothing uses any more. The source is not touched.
    """
    lake = lake_at(common.workspace)
    confirm(f"{renaming.holdings(lake, dataset).sentence}. Remove it from the corpus?", yes=yes)
    kept_as = renaming.remove(lake, dataset)
    say(f"{dataset} is removed." + (f" What people said is kept as {kept_as}." if kept_as else ""))
    if kept_as:
        say_next(
            {"take up what people said again": f"datasets rename {kept_as} {dataset}"},
            common.workspace,
        )


def _datasets_built(space: Workspace) -> dict[str, dict]:
    """Rows of the lake's table `datasets` by name; none without a workspace."""
    if not space.exists():
        return {}
    rows = open_for_users(space).execute("SELECT * FROM datasets").to_arrow_table().to_pylist()
    return {r["dataset"]: r for r in rows}
