"""Looking at sources, datasets and the corpus; SQL; the Dagster UI."""

import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    FAILED,
    DataFormatOption,
    FormatOption,
    RevisionOption,
    WorkspaceOption,
    check_data_format,
    check_source,
    counted,
    say,
    say_next,
    space_at,
)
from cli.output import (
    pairs_text,
    print_json,
    share_known,
    show,
    width_here,
    write_result,
)
from cli.terminal import painted, shown
from core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from cli.sql_shell import Show
    from core.paths import Workspace
    from warehouse.sql_process import LakeState, SqlProcess

MAX_TASKS = 5  # of a dataset, in a table for people
MAX_ROWS = 100  # of a query's result, in a table for people
app = typer.Typer()


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A folder, a video file, or an address such as hf://owner/name.")],
    full: Annotated[bool, typer.Option("--full", help="Decode all episodes, not only a sample.")] = False,
    revision: RevisionOption = None,
    data_format: DataFormatOption = None,
    format: FormatOption = "table",
) -> None:
    """Show what a dataset holds, what is wrong with it, and how to repair it. Decodes a sample.

    Exits 1 on bad findings. For a folder with several datasets: prints one line on each, from its metadata.
    """
    from pipeline.inspection import inspect_source

    check_source(path, revision)
    check_data_format(data_format)
    result = inspect_source(path, revision, format=data_format, full=full)
    if format == "json":
        print_json(result)
    elif "datasets" in result:
        _show_datasets(result)
    else:
        _show_dataset(result)
    if any(f["severity"] == "unusable" for f in result["findings"]):
        raise typer.Exit(FAILED)


def _outcomes(result: dict) -> str:
    """How many outcomes are known, what says so, and what could say it and was never set."""
    known, episodes = result["success_known"], result["usable_so_far"]
    parts = [share_known(known, episodes)]
    if known < episodes:
        parts[0] += f", labels take the other {episodes - known} as complete unless motion shows otherwise"
    for row in result["outcomes"]:
        parts.append(f"{row['source']}: {row['succeeded']} succeeded, {row['failed']} failed")
    if result["never_set"]:
        parts.append(f"never set in any row: {', '.join(result['never_set'])}")
    return "; ".join(parts)


def _show_datasets(result: "dict[str, Any]") -> None:
    """The datasets of a folder, a line each, and how to go on."""
    from ingest.sources.addresses import address_below
    from pipeline.inspection import in_short

    rows = result["datasets"]
    say(f"{result['path']} holds {len(rows)} datasets (looked at: {result['looked_at']}).")
    columns = ("folder", "format", "episodes", "usable_so_far")
    show([{column: row[column] for column in columns} | {"what is wrong": in_short(row)} for row in rows], "table")
    if result["beside"]:
        say(f"In none of them: {len(result['beside'])} files, such as {result['beside'][0]}.")
    one = shlex.quote(address_below(result["path"], rows[0]["folder"]))
    all_of_them = f"build --source {shlex.quote(result['path'])}"
    say_next({"one of them in full": f"inspect {one}", "each under its own name": all_of_them}, DEFAULT_WORKSPACE)


def _show_dataset(result: "dict[str, Any]") -> None:
    """What it is in a line, how much of it is usable, its facts, lists as tables, what is wrong, and how to go on."""
    from annotate.signal_report import columns, lag_columns, rests_on_enough
    from ingest.signals.gripper import signal_from_row
    from pipeline.inspection import grouped

    findings = grouped(result["findings"])
    parts = (result["path"], result["format"], result["robot"] or "", counted(result["episodes"], "episode"))
    say("   ".join(painted(part, "bold") if i == 0 else part for i, part in enumerate(parts) if part))
    say(_verdict(result))
    say("")
    say(pairs_text(_facts(result), width_here()))
    say("")
    show(result["camera_details"], "table", empty="No cameras.")
    say("")
    show([columns(signal_from_row(row)) for row in result["signals"]], "table", empty=_no_gripper(result))
    say("")
    lags = [lag_columns(row) for row in result["signal_lags"] if rests_on_enough(row)]
    show(lags, "table", empty="Too few episodes were decoded to tell how far signals are behind the pictures.")
    say("")
    for finding in findings:
        say(_finding_text(finding))
    if not findings:
        say(painted("No findings.", "green"))
    _say_next_of_dataset(result)


def _verdict(result: "dict[str, Any]") -> str:
    """How many episodes are usable, and of the others why not and what helps."""
    usable, episodes = result["usable_so_far"], result["episodes"]
    lost: dict[str, set[int | None]] = {}
    for finding in result["findings"]:
        if finding["severity"] == "unusable":
            lost.setdefault(finding["reason"], set()).add(finding["episode_index"])
    remedies = {finding["reason"]: finding["remedy"] for finding in result["findings"]}
    whys = [
        f"{'the source as a whole' if None in of else len(of)}: {reason} → {remedies[reason]}"
        for reason, of in sorted(lost.items(), key=lambda item: -len(item[1]))
    ]
    colour = "green" if usable == episodes and usable else "yellow" if usable else "red"
    head = painted(f"{usable} of {counted(episodes, 'episode')} usable", colour)
    return f"{head}: {'; '.join(whys)}" if whys else f"{head}, as far as was looked."


def _facts(result: "dict[str, Any]") -> dict[str, str]:
    """The facts of a dataset that are no list, in words and with units; what is not known is left out."""
    fps, rows = result["fps"], result["rows"]
    length = ""
    if result["shortest"] is not None:
        length = f"{result['shortest']} to {result['longest']} frames"
        if fps:
            length += f" ({result['shortest'] / fps:.1f} to {result['longest'] / fps:.1f} s at {fps:g} frames/s)"
        length += f"; {counted(rows, 'row')} in all"
    steps = f"{counted(result['steps_known'], 'episode')} bring steps of their own: {result['steps_from']}"
    facts = {
        "commit": result["revision"],
        "length": length,
        "tasks": _first_tasks(result["tasks"]),
        "outcomes": _outcomes(result),
        "steps": steps if result["steps_known"] else None,
        "looked at": f"{counted(result['decoded_frames'], 'frame')} decoded; {result['looked_at']}",
    }
    return {name: value for name, value in facts.items() if value}


def _finding_text(finding: "dict[str, Any]") -> str:
    """One kind of finding: a sign, how often, what, where it is first; in a second line what to do."""
    sign = "✗" if finding["severity"] == "unusable" else "!"
    camera = f"camera {finding['camera']}: " if finding["camera"] else ""
    where = ", ".join(filter(None, (finding["first"], finding["file"])))
    first = f" (first: {where})" if where and finding["count"] > 1 else f" ({where})" if where else ""
    times = f"{finding['count']} x " if finding["count"] > 1 else ""
    what = f"{times}{finding['check']}   {camera}{shown(finding['detail'] or '')}{first}"
    return pairs_text({sign: f"{what}\n→ {finding['remedy']}"}, width_here())


def _say_next_of_dataset(result: "dict[str, Any]") -> None:
    say("")
    if result["usable_so_far"]:
        say_next({"build it": f"build --source {shlex.quote(result['path'])}"}, DEFAULT_WORKSPACE)
    else:
        say("Next: mend what makes it unusable, and inspect it again.")


def _no_gripper(result: "dict[str, Any]") -> str:
    """Why no gripper is shown: a finding says where it was looked for, or there was nothing to look at."""
    was_looked_for = any(finding["reason"] == "no_gripper" for finding in result["findings"])
    return "No gripper and no hand" + ("." if was_looked_for else ": there are no rows of state or action.")


def _first_tasks(tasks: list[str]) -> str:
    text = "; ".join(tasks[:MAX_TASKS])
    return f"{text} ..." if len(tasks) > MAX_TASKS else text


datasets_app = typer.Typer(help="Show the registry of datasets.", invoke_without_command=True)
app.add_typer(datasets_app, name="datasets")


RegistryOption = Annotated[
    list[Path] | None, typer.Option("--registry", help="Also read this folder of your own YAML files.")
]


@datasets_app.callback()
def datasets(
    ctx: typer.Context,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the datasets of the registry and of the workspace."""
    # This also runs ahead of a subcommand, such as `datasets show`, which then speaks alone
    if ctx.invoked_subcommand:
        return
    from ingest.catalogue import overview
    from ingest.registry import BUILT_IN, load_registry

    rows = overview(load_registry([BUILT_IN, *(registry or [])]), _datasets_built(space_at(workspace)))
    if format == "table":
        rows = [{k: v for k, v in r.items() if k != "source"} for r in rows]  # too wide: datasets show has it
    show(rows, format)


@datasets_app.command("show")
def datasets_show(
    registered: Annotated[str, typer.Argument(metavar="NAME")],
    registry: RegistryOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Show all that is known about one dataset: sizes, licence, cameras by role, gripper, traps."""
    from core.names import did_you_mean
    from ingest.catalogue import facts, readable
    from ingest.registry import BUILT_IN, load_registry

    built = _datasets_built(space_at(workspace))
    entries = load_registry([BUILT_IN, *(registry or [])])
    # A dataset may be known to the registry, or built here from a source that the registry does not have
    if registered not in entries and registered not in built:
        hint = did_you_mean(registered, sorted({*entries, *built})) or "; proccorpus datasets lists them"
        raise UserError(f"unknown dataset {registered!r}{hint}")
    dataset = facts(entries.get(registered), built.get(registered))
    if format == "json":
        print_json(dataset)
    else:
        show(readable(dataset), "table")


def _datasets_built(space: "Workspace") -> dict[str, dict]:
    """Rows of the lake's table `datasets` by name; none without a workspace."""
    from warehouse.lake.sql import open_for_users

    if not space.exists():
        return {}
    rows = open_for_users(space).execute("SELECT * FROM datasets").to_arrow_table().to_pylist()
    return {r["dataset"]: r for r in rows}


@app.command()
def quarantine(
    by: Annotated[
        Literal["episode", "reason"],
        typer.Option("--by", help="One row per episode; or per reason, with its count and remedy."),
    ] = "episode",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List episodes and datasets that cannot be used, with the reason."""
    from ingest.reasons import REASONS
    from warehouse.lake import Lake

    lake = Lake(space_at(workspace), read_only=True)
    empty = "Nothing is quarantined."
    if by == "reason":
        rows = lake.dicts(
            "SELECT dataset, reason, count(DISTINCT episode_index) AS episodes, min(episode_index) AS first_episode, "
            "arg_min(detail, episode_index) AS first_detail FROM quarantine GROUP BY ALL ORDER BY episodes DESC, 1, 2"
        )
        show([row | {"remedy": REASONS[row["reason"]].remedy} for row in rows], format, empty=empty)
        return
    sql = "SELECT dataset, episode_index, camera, reason, detail, file FROM quarantine ORDER BY 1, 2"
    if format == "json":
        show(lake.dicts(sql), format)
        return
    ((num,),) = lake.rows("SELECT count(*) FROM quarantine")
    show(lake.dicts(f"{sql} LIMIT {MAX_ROWS}"), format, empty=empty)
    if num > MAX_ROWS:
        print(
            f"({num} rows, the first {MAX_ROWS} shown; --by reason counts them, --format json for all)", file=sys.stderr
        )


@app.command()
def digest(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """Print one hash per content table; equal inputs, configuration and seed give equal hashes."""
    from warehouse.lake import Lake
    from warehouse.lake import digest as lake_digest

    hashes = lake_digest(Lake(space_at(workspace), read_only=True))
    if format == "json":
        print_json(hashes)
    else:
        show([{"table": k, "hash": v} for k, v in hashes.items()], "table")


@app.command()
def schema(
    relations: Annotated[
        list[str] | None, typer.Argument(metavar="[NAMES]...", help="Tables or views to describe; default: list all.")
    ] = None,
    format: FormatOption = "table",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """List tables and views; with names, describe their columns, with units and values of your corpus."""
    from warehouse.lake import schema as described
    from warehouse.lake.sql import open_for_users

    space = space_at(workspace)
    # Examples come out of the corpus; without one the schema is described all the same
    con = open_for_users(space) if relations and space.exists() else None
    show([vars(d) for d in described.columns(relations, con)] if relations else described.relations(), format)


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; default: read standard input, or open a shell.")
    ] = None,
    format: Annotated[Literal["table", "json", "csv", "parquet"], typer.Option("--format")] = "table",
    release: Annotated[str | None, typer.Option("--release", help="Read the corpus as a release froze it.")] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Read the corpus at this lake snapshot.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="Maximum number of rows; tables show 100 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; needed for parquet on a terminal.")] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.001, help="Maximum seconds per query.")] = 600,
    memory: Annotated[str, typer.Option("--memory", help="Maximum memory of a query.")] = "4GB",
    attach: Annotated[
        bool, typer.Option("--attach", help="Print the commands that open the corpus in DuckDB itself.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Run a read-only SQL query on the corpus; without a query, open a shell."""
    space = space_at(workspace)
    if release and snapshot is not None:
        raise UserError("--release and --snapshot exclude each other")
    if attach:
        from warehouse.lake.sql import attach_lines, release_state

        print(attach_lines(space, release_state(space, release)[1] if release else snapshot))
        return
    # Before a question is waited for
    if not space.exists():
        raise UserError(space.absence)
    # Before anything begins a thread here: the process of the queries is a copy of this one then
    from warehouse.sql_process import LakeState, SqlProcess

    at = LakeState(str(space.root), snapshot, release)
    with SqlProcess(memory) as process:
        # On a terminal without a question: a shell. What is piped in is one question
        if query is None and sys.stdin.isatty():
            _shell(process, at, time_limit, lambda table, style: _show_result(table, style, limit))
            return
        table = process.query(at, sys.stdin.read() if query is None else query, time_limit)
    if not _show_result(table, format, limit, out):
        raise UserError("Parquet is not for a terminal: add --out FILE")


def _shell(process: "SqlProcess", at: "LakeState", time_s: float, show: "Show") -> None:
    """The interactive shell on a state of the lake."""
    from cli.sql_shell import shell
    from core.paths import Workspace
    from warehouse.lake.schema import Described, columns
    from warehouse.lake.sql import open_for_users, release_state

    space = Workspace(Path(at.workspace))

    def described(names: list[str]) -> list[Described]:
        snapshot = release_state(space, at.release)[1] if at.release else at.snapshot
        return columns(names, open_for_users(space, snapshot))

    state = "now" if at.snapshot is None else f"snapshot {at.snapshot}"
    title = f"{space.root} ({at.release or state})"
    shell(lambda text: process.query(at, text, time_s), described, title, show)


def _show_result(table: "pa.Table", format: str, limit: int | None, out: Path | None = None) -> bool:
    """Write a query's rows: of a table for people the first 100, unless `limit` says otherwise."""
    if limit is None and format == "table":
        limit = MAX_ROWS
    part = table if limit is None else table.slice(0, limit)
    written = write_result(part, format, out)
    if format == "table" and table.num_rows > part.num_rows:
        print(f"({table.num_rows} rows, the first {limit} shown; --limit N, or --format csv for all)", file=sys.stderr)
    return written


@app.command()
def ui(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 3000,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; other machines need a token, which is created."),
    ] = "127.0.0.1",
) -> None:
    """Open the Dagster UI on a workspace: materialise chunks, backfill, see checks and lineage."""
    from assets.lib.report import dagster_home, mirror
    from assets.webserver import TOKEN, run_ui, ui_access
    from core.web import is_loopback

    space = space_at(workspace)
    address = f"http://{host}:{port}"
    # Whoever can reach it can start jobs: others than this machine show a token
    if not is_loopback(host) and not os.environ.get(TOKEN):
        os.environ[TOKEN] = secrets.token_urlsafe(24)
        address += f"/?token={os.environ[TOKEN]}"
    ui_access(host, os.environ)
    # What was built by the command line, or on another machine, is there when the page opens
    say("Telling Dagster what was built here that it does not know ...")
    mirror(space)
    home = dagster_home(space)
    os.environ |= {"DAGSTER_HOME": str(home), "PROCCORPUS_WORKSPACE": str(space.root)}
    say(f"Dagster UI of {space.root}: {address} (Ctrl-C ends it)")
    raise typer.Exit(run_ui(host, port, home))
