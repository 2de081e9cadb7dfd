"""Which runs were demonstrated unlike the others of their task."""

from typing import Annotated

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, say, space_at
from cli.output import show
from core.errors import UserError

app = typer.Typer()


@app.command()
def demonstrations(
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of runs.")] = 20,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the runs that differ most from others of their task, and how they differ. Drops no run."""
    from core.demonstration_quality import FEWEST
    from warehouse.lake import Lake

    lake = Lake(space_at(workspace), read_only=True)
    if not lake.has("demonstration_quality"):
        raise UserError("this corpus was built before demonstrations were measured: run proccorpus build")
    here = "($1 IS NULL OR dataset = $1)"
    if dataset and not lake.rows("SELECT 1 FROM datasets WHERE dataset = ?", [dataset]):
        raise UserError(f"there is no dataset {dataset!r} in this corpus; proccorpus status lists them")
    rows = lake.dicts(
        f"SELECT dataset, episode_index, score, why, task FROM demonstration_quality WHERE {here} "
        "AND score IS NOT NULL AND len(why) > 0 ORDER BY score, dataset, episode_index",
        [dataset],
    )
    if format == "json":
        show(rows[:limit], format)
        return
    num, alone = lake.rows(
        f"SELECT count(score), count(*) - count(score) FROM demonstration_quality WHERE {here}", [dataset]
    )[0]
    if num:
        shown = [row | {"why": "; ".join(row["why"])} for row in rows[:limit]]
        show(shown, format, empty="No run is unlike the others of its task.")
        say(f"{len(rows)} of {num} runs differ from the others of their task, {len(shown)} shown.")
    if alone:
        say(f"{alone} runs are of tasks of which fewer than {FEWEST} runs show what is usual: they have no score.")
    if not num and not alone:
        say("No run is measured yet: run proccorpus build.")
