"""Tables as wide as the terminal: long texts go on in a second line, columns without room are left out and counted.

A table of one row that does not fit becomes a record, a column a line; so does every row with -x.
"""

import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.terminal import AS_RECORDS, Colour, painted, shown

PIPE_WIDTH = 200  # characters of a table's lines in a file or a pipe, which have no width of their own
GAP = "   "  # between columns
NARROWEST = 16  # characters to which a column of long texts is narrowed before others are left out
# What a cell says by itself, wherever it stands
COLOURS: dict[str, Colour] = {
    "unusable": "red",
    "error": "red",
    "failed": "red",
    "blocking": "red",
    "warning": "yellow",
    "stale": "yellow",
    "ok": "green",
    "up to date": "green",
}


@dataclass(frozen=True)
class Column:
    """One column as it is printed: its name, the text of each cell, how wide, and whether it holds numbers."""

    name: str
    cells: list[str]
    is_number: bool
    width: int

    @property
    def least(self) -> int:
        """How narrow it may become: numbers are never cut, nor is a part of a name."""
        name = max(map(_width, _parts(self.name, NARROWEST)))
        return max(name, max(map(_width, self.cells)) if self.is_number else min(self.width, NARROWEST))


def width_here() -> int:
    """Characters of a line of standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def table_text(rows: Sequence[dict[str, Any]], columns: Sequence[str], width: int) -> str:
    """Rows as lines of at most `width` characters, with a line on columns that were left out; `columns`: their order.

    As records where -x asked for them, and where it is one row that does not fit.
    """
    made = [_column(name, [row[name] for row in rows]) for name in columns]
    fitting, left_out = _fitted(made, width)
    if AS_RECORDS.get() or (len(rows) == 1 and left_out):
        return _records(made, len(rows), width)
    lines = _lines(fitting, len(rows))
    if left_out:
        lines.append(painted(_told(left_out, len(made)), "dim"))
    return "\n".join(lines)


def _column(name: str, values: list[Any]) -> Column:
    cells = [_cell(value) for value in values]
    width = max(_width(line) for text in (name, *cells) for line in text.split("\n"))
    return Column(name, cells, any(_is_number(value) for value in values), width)


def _fitted(columns: list[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns, narrowed, that have room side by side, from the left; and those that have none."""
    kept = list(columns)
    while len(kept) > 1 and sum(c.least for c in kept) + len(GAP) * (len(kept) - 1) > width:
        # Nothing is lost by a column without values
        empty = [i for i, c in enumerate(kept) if not any(c.cells)]
        kept.pop(empty[-1] if empty else -1)
    widths = [c.width for c in kept]
    # The widest gives way first, so that short texts stay in one line
    spare = width - len(GAP) * (len(kept) - 1)
    while sum(widths) > spare:
        over = [i for i, c in enumerate(kept) if widths[i] > c.least]
        if not over:
            break
        widest = max(over, key=lambda i: widths[i])
        widths[widest] -= 1
    narrowed = [Column(c.name, c.cells, c.is_number, w) for c, w in zip(kept, widths, strict=True)]
    names = {c.name for c in kept}
    return narrowed, [c for c in columns if c.name not in names]


def _told(left_out: Sequence[Column], of: int) -> str:
    names = ", ".join(c.name for c in left_out[:4]) + (", ..." if len(left_out) > 4 else "")
    one = len(left_out) == 1
    return f"({len(left_out)} of {of} columns {'has' if one else 'have'} no room: {names}; -x shows rows as records)"


def _lines(columns: Sequence[Column], num_rows: int) -> list[str]:
    head = _row([wrapped(c.name, c.width) for c in columns], columns, head=True)
    rule = painted("─" * (sum(c.width for c in columns) + len(GAP) * (len(columns) - 1)), "dim")
    body = [line for i in range(num_rows) for line in _row([wrapped(c.cells[i], c.width) for c in columns], columns)]
    return [*head, rule, *body]


def _row(cells: list[list[str]], columns: Sequence[Column], *, head: bool = False) -> list[str]:
    """The lines of one row, whose cells have several lines each."""
    lines = []
    for n in range(max(map(len, cells))):
        parts = []
        for cell, column in zip(cells, columns, strict=True):
            text = cell[n] if n < len(cell) else ""
            blank = " " * (column.width - _width(text))
            colour = "bold" if head else COLOURS.get(text)
            # Numbers stand at the right, so that their digits line up
            parts.append(blank + painted(text, colour) if column.is_number else painted(text, colour) + blank)
        lines.append(GAP.join(parts).rstrip())
    return lines


def _records(columns: Sequence[Column], num_rows: int, width: int) -> str:
    names = max(_width(c.name) for c in columns)
    room = max(width - names - len(GAP), NARROWEST)
    lines = []
    for i in range(num_rows):
        # Which of several it is
        if num_rows > 1:
            lines.append(painted(f"── {i + 1} ".ljust(min(width, names + 24), "─"), "dim"))
        for c in columns:
            first, *rest = wrapped(c.cells[i], room)
            lines.append((painted(c.name.ljust(names), "bold") + GAP + painted(first, COLOURS.get(first))).rstrip())
            lines += [" " * (names + len(GAP)) + line for line in rest]
    return "\n".join(lines)


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` characters, cut between words, else behind a sign such as / or _."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\s*\S+", paragraph):
            if not line:
                word = word.lstrip()
            if _width(line + word) <= width:
                line += word
                continue
            word = word.lstrip()
            if line and _width(word) <= width:
                lines.append(line)
                line = word
                continue
            # Longer than a line: in parts, of which the first stands behind what is there
            line += " " if line else ""
            for part in _parts(word, width):
                if line and _width(line + part) > width:
                    lines.append(line.rstrip())
                    line = ""
                line += part
        lines.append(line)
    return lines


def _parts(word: str, width: int) -> list[str]:
    """A word in pieces that end with a sign at which a path or a name may be cut; what has none is cut anywhere."""
    pieces = []
    for piece in re.findall(r"[^/_,;:=.-]*[/_,;:=.-]|[^/_,;:=.-]+", word):
        while _width(piece) > width:
            cut = width
            while _width(piece[:cut]) > width:
                cut -= 1
            pieces.append(piece[: max(cut, 1)])
            piece = piece[max(cut, 1) :]
        pieces.append(piece)
    return pieces


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value)).replace("\t", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _width(text: str) -> int:
    """Places that a text takes on a terminal: two for wide characters, none for marks above others."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
