"""Names that a shell completes: of the workspace, of recipes."""

import re
from collections.abc import Callable
from functools import partial

import duckdb

from core.errors import UserError
from core.paths import ROOT, Workspace
from warehouse.lake import Lake

REGISTRY = ROOT / "ingest" / "datasets"
RECIPES = ROOT / "training" / "recipes"
# What shells take as one plain word: one of them evaluates what it is offered
PLAIN = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)


def names(kind: str, space: Workspace) -> list[str]:
    """The names of a kind, in order; none where there is no workspace, or it cannot be read: the commands say why."""
    return sorted({name for name in KINDS[kind](space) if PLAIN.fullmatch(name)})


def _in_lake(sql: str, space: Workspace) -> list[str]:
    try:
        return Lake(space, read_only=True).column(sql)
    except (duckdb.Error, UserError):
        return []


KINDS: dict[str, Callable[[Workspace], list[str]]] = {
    "dataset": partial(_in_lake, "SELECT dataset FROM datasets"),
    "release": partial(_in_lake, "SELECT name FROM releases"),
    "label run": partial(_in_lake, "SELECT label_run FROM label_runs"),
    "registered dataset": lambda space: (
        [p.stem for p in REGISTRY.glob("*.yaml")] + KINDS["dataset"](space)
    ),
    "recipe": lambda space: [path.stem for path in RECIPES.glob("*.yaml")],
    "model": lambda space: [
        path.parent.name for path in (space.root / "models").glob("*/card.json")
    ],
}
