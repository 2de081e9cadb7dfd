"""Shell completion of names: datasets, releases, label runs and models of the workspace, recipes."""

from collections.abc import Callable
from inspect import Parameter
from pathlib import Path

import typer

from core.paths import DEFAULT_WORKSPACE, Workspace

# What the parameters of commands name; a model that is no name of the workspace has a parameter of another name
KINDS = {
    "dataset": "dataset", "release": "release", "label_run": "label run", "run": "label run", "against": "label run",
    "model": "model", "models": "model", "from_model": "model", "recipe": "recipe", "registered": "registered dataset",
    "first_release": "release", "second_release": "release",
}  # fmt: skip


def complete_by_name(parameter: Parameter) -> None:
    """Give the parameter of a command completion, where its name says what it names."""
    if parameter.name in KINDS and "Path" not in str(parameter.annotation):
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.autocompletion = names_of(KINDS[parameter.name])


def names_of(kind: str) -> Callable[..., list[str]]:
    """A function as Typer asks it: the names of a kind in the workspace of the command that is being typed."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from cli.names import names  # imports the lake, and is asked only when a name is completed

        space = Workspace(Path(ctx.params.get("workspace") or DEFAULT_WORKSPACE).expanduser())
        return [name for name in names(kind, space) if name.startswith(incomplete)]

    return complete
