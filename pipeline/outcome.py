"""The outcome of a step of the second half: release, reward model, evaluation, leaderboard."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.figures import picture_kind

FactValue = bool | int | float | str


@dataclass(frozen=True)
class Outcome:
    """What one step made or found; `version` changes exactly when what it stands for does."""

    asset: str
    version: str
    made: bool
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)
    picture: bytes = b""
    files: tuple[Path, ...] = ()
    table: tuple[Mapping[str, str], ...] = ()


def picture_markdown(image: bytes, title: str) -> str:
    """A picture within Markdown, as Dagster shows it."""
    return f"![{title}](data:image/{picture_kind(image)};base64,{base64.b64encode(image).decode()})"


def outcome_facts(outcome: Outcome) -> dict[str, tuple[str, FactValue]]:
    """What a materialisation shows, as (kind of Dagster's metadata, value): numbers, a table, a picture, files."""
    kinds = {int: "int", float: "float"}
    facts: dict[str, tuple[str, FactValue]] = {}
    for name, value in outcome.numbers.items():
        facts[name] = (kinds.get(type(value), "text"), value)
    facts["made_now"] = ("bool", outcome.made)
    if outcome.picture:
        facts["picture"] = ("md", picture_markdown(outcome.picture, outcome.asset))
    if outcome.table:
        facts["table"] = ("md", _markdown_table(outcome.table))
    for path in outcome.files:
        facts[f"file {path.name}"] = ("path", str(path))
    return facts


def _markdown_table(rows: tuple[Mapping[str, str], ...]) -> str:
    head = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    lines = [f"| {' | '.join(row.values())} |" for row in rows]
    return "\n".join(head + lines)
