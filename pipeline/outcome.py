"""The outcome of a step of the second half: release, reward model, evaluation, leaderboard."""

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.figures import picture_kind
from warehouse.releases.release import markdown_table

FactValue = bool | int | float | str


@dataclass(frozen=True)
class StepOutcome:
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


def identifier(text: str) -> str:
    """A name of a number as a key: letters, digits and single underscores."""
    return re.sub(r"[^0-9a-zA-Z]+", "_", text).strip("_")


def number_fact(value: float | str) -> tuple[str, FactValue]:
    """(kind of Dagster's metadata, value); of numbers with a point four digits that count, as people read them."""
    if not isinstance(value, float):
        return ("int" if isinstance(value, int) else "text"), value
    if value == 0 or not math.isfinite(value):
        return "float", value
    return "float", round(value, max(0, 3 - math.floor(math.log10(abs(value)))))


def outcome_facts(outcome: StepOutcome) -> dict[str, tuple[str, FactValue]]:
    """What a materialisation shows, as (kind of Dagster's metadata, value): numbers, a table, a picture, files."""
    facts = {identifier(name): number_fact(value) for name, value in outcome.numbers.items()}
    facts["made_now"] = ("bool", outcome.made)
    if outcome.picture:
        facts["picture"] = ("md", picture_markdown(outcome.picture, outcome.asset))
    if outcome.table:
        facts["table"] = (
            "md",
            markdown_table(outcome.table[0], (row.values() for row in outcome.table)),
        )
    for path in outcome.files:
        facts[identifier(f"file {path.name}")] = ("path", str(path))
    return facts
