"""Questions to the corpus: tables, the registry, what is quarantined, what is like what, what differs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from cli.lakes import lake_at, lake_to_read
from cli.options import (
    At,
    DatasetArgument,
    EpisodeArgument,
    Here,
    YesOption,
    confirm,
    counted,
    say,
    say_next,
    space_at,
)
from cli.output import show
from cli.terminal import note
from core.demonstration_quality import FEWEST
from core.errors import UserError
from core.names import did_you_mean
from core.paths import Workspace
from ingest.reasons import reason_of
from ingest.registry import BUILT_IN, facts, load_registry, overview, readable
from warehouse.lake import digest as lake_digest
from warehouse.lake import renaming
from warehouse.lake.references import stored_builds
from warehouse.lake.schema import columns
from warehouse.lake.schema import relations as all_relations
from warehouse.lake.similarity import most_similar
from warehouse.lake.sql import open_for_users

OPEN_FAULTS_SQL = (
    "SELECT c.* RENAME (check_name AS reason) FROM checks c JOIN episodes e USING (dataset, episode_index) "
    "WHERE NOT c.is_accepted AND e.status = 'ok'"
)
MAX_ROWS = 100  # of a query's result, in a table for people
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


@app.command()
def quarantine(
    by: Annotated[
        Literal["episode", "reason"],
        Option(help="One row per episode; or per reason, with its count and remedy."),
    ] = "episode",
    checks: Annotated[
        bool,
        Option(
            help="Instead, list usable episodes with faults that checks found; without accepted ones."
        ),
    ] = False,
    common: At = At(),
) -> None:
    """List episodes and datasets that cannot be used, with the reason."""
    lake = lake_to_read(common.workspace)
    source = "quarantine"
    columns = "dataset, episode_index, camera, reason, detail, file"
    empty = "Nothing is quarantined."
    if checks:
        source = f"({OPEN_FAULTS_SQL})"
        empty = "No check found a fault that is not accepted."
        columns = "dataset, episode_index, camera, reason, detail, start_s, end_s"
    if by == "reason":
        rows = lake.dicts(
            "SELECT dataset, reason, count(DISTINCT episode_index) AS episodes, "
            "min(episode_index) AS first_episode, "
            "arg_min(detail, (episode_index IS NULL, episode_index, camera)) AS first_detail "
            f"FROM {source} GROUP BY ALL ORDER BY episodes DESC, 1, 2"
        )
        show(
            [row | {"remedy": reason_of(row["reason"]).remedy} for row in rows],
            common.format,
            empty=empty,
        )
        return
    rows = lake.dicts(
        f"SELECT {columns} FROM {source} ORDER BY ALL"
        + ("" if common.format == "json" else f" LIMIT {MAX_ROWS}")
    )
    show(rows, common.format, empty=empty)
    if common.format == "table" and len(rows) == MAX_ROWS:
        ((num,),) = lake.rows(f"SELECT count(*) FROM {source}")
        if num > MAX_ROWS:
            advice = "--by reason counts them, --format json for all"
            note(f"({num} rows, the first {MAX_ROWS} shown; {advice})")


@app.command()
def digest(common: At = At()) -> None:
    """Print one hash per content table. Equal inputs, configuration and seed give equal hashes."""
    hashes = lake_digest(lake_to_read(common.workspace))
    show([{"table": k, "hash": v} for k, v in hashes.items()], common.format, whole=hashes)


@app.command()
def schema(
    relations: Annotated[
        list[str] | None,
        Argument(metavar="[NAMES]...", help="Tables or views to describe; default: list all."),
    ] = None,
    common: At = At(),
) -> None:
    """List tables and views; with names, describe their columns. Shows units, and values of your corpus."""
    space = space_at(common.workspace)
    # Examples come out of the corpus; without one the schema is described all the same
    con = open_for_users(space) if relations and space.exists() else None
    show(
        [vars(d) for d in columns(relations, con)] if relations else all_relations(), common.format
    )


@app.command()
def demonstrations(
    dataset: Annotated[str | None, Argument(help="Only this dataset.")] = None,
    limit: Annotated[int, Option(min=1, help="Maximum number of runs.")] = 20,
    common: At = At(),
) -> None:
    """List the runs that differ most from others of their task, and how. Drops no run."""
    lake = lake_to_read(common.workspace)
    condition = "($1 IS NULL OR dataset = $1)"
    names = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    if dataset and dataset not in names:
        hint = did_you_mean(dataset, names) or "; proccorpus status lists them"
        raise UserError(f"there is no dataset {dataset!r} in this corpus{hint}")
    rows = lake.dicts(
        f"SELECT dataset, episode_index, score, why, task FROM demonstration_quality WHERE {condition} "
        "AND score IS NOT NULL AND len(why) > 0 ORDER BY score, dataset, episode_index",
        [dataset],
    )
    num, alone = lake.rows(
        f"SELECT count(score), count(*) - count(score) FROM demonstration_quality WHERE {condition}",
        [dataset],
    )[0]
    if num or common.format == "json":
        visible_rows = [row | {"why": "; ".join(row["why"])} for row in rows[:limit]]
        show(
            visible_rows,
            common.format,
            empty="No run is unlike the others of its task.",
            whole=rows[:limit],
        )
        say(
            f"{len(rows)} of {num} runs differ from the others of their task, {len(visible_rows)} shown."
        )
    if alone:
        say(
            f"{alone} runs are of tasks of which fewer than {FEWEST} runs show what is usual: they have no score."
        )
    if not num and not alone:
        say("No run is measured yet: run proccorpus build.")


@app.command()
def like(
    dataset: DatasetArgument,
    episode: EpisodeArgument,
    frame: Annotated[
        int | None, Option(help="Find frames like this one; default: find runs.")
    ] = None,
    camera: Annotated[
        str | None, Option(help="Camera to compare; default: the preferred one.")
    ] = None,
    among: Annotated[str | None, Option("--dataset", help="Only runs of this dataset.")] = None,
    most: Annotated[int, Option(min=1, help="Maximum number of results.")] = 20,
    common: At = At(),
) -> None:
    """List the runs most similar to one run, or the frames most similar to one frame."""
    con = lake_to_read(common.workspace).con
    query_frame, rows = most_similar(con, dataset, episode, frame, camera, among, most)
    say(
        f"{query_frame.dataset} episode {query_frame.episode_index} by {query_frame.camera}, as "
        f"{query_frame.encoder} sees it."
    )
    if query_frame.frame_index != frame:
        say(
            f"The encoder did not look at frame {frame}: compared is the nearest that it did, "
            f"{query_frame.frame_index}."
        )
    for name, encoders in query_frame.not_compared.items():
        say(f"Not compared: {name}, which {encoders} has looked at.")
    empty = "The encoder has looked at no other run."
    show(rows, common.format, empty=empty, whole={"asked": asdict(query_frame), "similar": rows})
