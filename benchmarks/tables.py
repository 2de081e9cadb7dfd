"""How benchmarks print and keep figures: tables in Markdown, numbers in JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.metrics.score import Score

SLACK = 0.15  # of a goal, by which single runs may miss it: they differ by so much


def is_missed(found: float, goal: float, *, smaller_is_better: bool = False) -> bool:
    """Is a goal missed by more than single runs differ?

    Example: is_missed(0.7, 0.8) is False, is_missed(0.67, 0.8) is True.
    """
    return found > goal * (1 + SLACK) if smaller_is_better else found < goal * (1 - SLACK)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it in Markdown."""
    print(table_text(head, rows))


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def worded(score: tuple[float, float, float]) -> str:
    """A figure with the ends of its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*score)


def score_json(score: Score) -> dict[str, Any]:
    return {
        "value": json_number(score.value),
        "low": json_number(score.low),
        "high": json_number(score.high),
        "n": score.n,
    }


def json_number(value: float | None) -> float | None:
    """To four digits; None where there is none, or it is not a number."""
    return None if value is None or math.isnan(value) else round(float(value), 4)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
