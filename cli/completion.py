"""Shell completion of names: datasets, releases, label runs and models of the workspace, recipes."""

import re
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path

import typer

from core.errors import UserError
from core.paths import DEFAULT_WORKSPACE, ROOT, Workspace

# What the parameters of commands name; a model that is no name of the workspace has a parameter of another name
KINDS = {
    "dataset": "dataset",
    "release": "release",
    "label_run": "label run",
    "run": "label run",
    "against": "label run",
    "model": "model",
    "models": "model",
    "from_model": "model",
    "recipe": "recipe",
    "registered": "registered dataset",
    "first_release": "release",
    "second_release": "release",
}
# Where the names of kinds are: in files of ours, and in the lake
FILES = {"registered dataset": "ingest/datasets/*.yaml", "recipe": "training/recipes/*.yaml"}
QUERIES = {
    "dataset": "SELECT dataset FROM datasets",
    "registered dataset": "SELECT dataset FROM datasets",
    "release": "SELECT name FROM releases",
    "label run": "SELECT label_run FROM label_runs",
}
# What shells take as one plain word: one of them evaluates what it is offered
PLAIN = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)


def complete_by_name(parameter: Parameter) -> None:
    """Give the parameter of a command completion, where its name says what it names."""
    if parameter.name in KINDS and "Path" not in str(parameter.annotation):
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.autocompletion = names_of(KINDS[parameter.name])


def names_of(kind: str) -> Callable[..., list[str]]:
    """A function as Typer asks it: the names of a kind in the workspace of the command that is
    being typed."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        space = Workspace(Path(ctx.params.get("workspace") or DEFAULT_WORKSPACE).expanduser())
        return [name for name in names(kind, space) if name.startswith(incomplete)]

    return complete


def names(kind: str, space: Workspace) -> list[str]:
    """The names of a kind, in order; none where there is no workspace, or it cannot be read: the
    commands say why."""
    listed = [path.stem for path in ROOT.glob(FILES[kind])] if kind in FILES else []
    if kind == "model":
        listed = [path.parent.name for path in (space.root / "models").glob("*/card.json")]
    if kind in QUERIES:
        listed += _in_lake(QUERIES[kind], space)
    return sorted({name for name in listed if PLAIN.fullmatch(name)})


def _in_lake(sql: str, space: Workspace) -> list[str]:
    # Only where a name is completed: every command imports this module
    import duckdb

    from warehouse.lake import Lake

    try:
        return Lake(space, read_only=True).column(sql)
    except (duckdb.Error, UserError):
        return []
