"""The registry of datasets, and datasets with other names or none."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.lakes import WriteLake
from cli.options import (
    DatasetArgument,
    Result,
    Space,
    YesOption,
    command,
    confirm,
    counted,
    say,
    say_next,
)
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

RegistryOption = Annotated[
    list[Path] | None, Option(help="Also read this folder of your own YAML files.")
]
NewNameArgument = Annotated[str, Argument(help="Its new name.")]


@command("datasets")
def datasets(space: Space, registry: RegistryOption = None) -> Result:
    """List the datasets of the registry and of the workspace."""
    rows = overview(load_registry([BUILT_IN, *(registry or [])]), _datasets_built(space))
    return Result(rows, hidden=["source"])  # too wide: datasets show has it


@command("datasets show")
def datasets_show(
    space: Space,
    registered: Annotated[str, Argument(metavar="NAME")],
    registry: RegistryOption = None,
) -> Result:
    """Show all that is known about one dataset: sizes, licence, cameras by role, gripper, traps."""
    built = _datasets_built(space)
    entries = load_registry([BUILT_IN, *(registry or [])])
    # A dataset may be known to the registry, or built here from a source that the registry does not have
    if registered not in entries and registered not in built:
        hint = (
            did_you_mean(registered, sorted({*entries, *built}))
            or "; proccorpus datasets lists them"
        )
        raise UserError(f"unknown dataset {registered!r}{hint}")
    dataset = facts(entries.get(registered), built.get(registered))
    return Result(readable(dataset), whole=dataset)


@command("datasets rename")
def datasets_rename(
    lake: WriteLake, dataset: DatasetArgument, name: NewNameArgument, yes: YesOption = False
) -> None:
    """Give a dataset another name. What people said goes with it; the next build makes its labels
    and shards anew.

    Also takes what people said of a dataset that was removed (arm.1) to a name that a build gives
    its source again.
    """
    holdings = renaming.holdings(lake, dataset)
    if holdings.imported:
        confirm(f"{holdings.sentence}. Rename it?", yes=yes)
    renaming.rename(lake, dataset, name)
    say(f"{dataset} is {name} now, with {counted(holdings.words, 'word')} of people.")
    if name in stored_builds(lake):
        say_next({"make its labels and shards anew": f"build --dataset {name}"})
    else:
        say(f"It counts again when its source is built with --name {name}.")


@command("datasets remove")
def datasets_remove(lake: WriteLake, dataset: DatasetArgument, yes: YesOption = False) -> None:
    """Take a dataset out of the corpus. What people said of it is kept, under a name of its own.

    Releases stay what they are. gc deletes files that nothing uses any more. The source is not touched.
    """
    confirm(f"{renaming.holdings(lake, dataset).sentence}. Remove it from the corpus?", yes=yes)
    kept_as = renaming.remove(lake, dataset)
    say(f"{dataset} is removed." + (f" What people said is kept as {kept_as}." if kept_as else ""))
    if kept_as:
        say_next({"take up what people said again": f"datasets rename {kept_as} {dataset}"})


def _datasets_built(space: Workspace) -> dict[str, dict]:
    """Rows of the lake's table `datasets` by name; none without a workspace."""
    if not space.exists():
        return {}
    rows = open_for_users(space).execute("SELECT * FROM datasets").to_arrow_table().to_pylist()
    return {r["dataset"]: r for r in rows}
