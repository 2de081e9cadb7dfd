"""What commands of the documentation print: as the page shows it, else what each command has to say.

Figures depend on the corpus, which is smaller in tests: numbers, ids, models' names and paths are masked before what is
shown and what is printed are compared. All else, such as columns, words and names, is equal.
"""

import re
from itertools import pairwise
from pathlib import Path

from tests.kits.pages_kit import words


class OutputError(AssertionError):
    """A command ran, and printed something else than the page says."""


# Answers that say that there was nothing to show
NOTHING = re.compile(
    r"^(No rows\.|No \w+ yet.*|Nobody said .*|Neither holds an episode\.)$", re.MULTILINE
)
MASKS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"^[─\s]*$", ""),  # rules and empty lines
    (r"\b(tiny_cpu|laptop)-\w+-[0-9a-f]{8}\b", "MODEL"),
    (r"(?<![\w.])(?=[0-9a-f]*\d)(?=[0-9]*[a-f])[0-9a-f]{12,64}\b", "ID"),
    (r"(?<![\w.])-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?\b", "#"),
    (r"# (B|kB|MB|GB)\b", "# BYTES"),
)


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from corpus to corpus, and without how they are set."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def check_shown(shown_text: str, out: str, err: str) -> None:
    """Raises OutputError where a page shows other output than was printed; `...` stands for anything.

    Of what went to standard error (notes, progress) a page may show some lines, or all with `...` for a part.
    """
    expected = _tight(masked(shown_text))
    notes = masked(err)
    shown_notes = [note for note in notes if _tight([note]) in expected]
    pattern = ".*?".join(re.escape(part.strip()) for part in expected.split("..."))
    printed_texts = [_tight([*lines, *masked(out)]) for lines in (shown_notes, notes)]
    if not any(re.fullmatch(pattern, text) for text in printed_texts):
        raise OutputError(f"the page shows\n{expected}\nand it printed\n{printed_texts[-1]}")


def _tight(lines: list[str]) -> str:
    """As one line, without the spaces that JSON may have."""
    return re.sub(r"\s*([{}\[\],:])\s*", r"\1", " ".join(lines))


def check_lines(shown_text: str, printed: str) -> None:
    """Raises OutputError where a line that a page shows, among others, was not printed.

    A line begins one that was printed, or is a row of a table with the columns that the page's head of it names.
    """
    printed_rows = _cells(printed)
    missing = []
    head: list[str] = []  # of the printed table that the page shows now
    columns: list[str] = []
    for row in _cells(shown_text):
        if printed_head := _head_with(row, printed_rows):
            head = printed_head
            columns = row
        elif not _is_printed(row, printed_rows, head, columns):
            missing.append(row)
    if missing:
        printed_text = "\n".join(masked(printed))
        raise OutputError(f"the page shows {missing}, and it printed\n{printed_text}")


def _cells(text: str) -> list[list[str]]:
    """The lines of an output, masked, as cells with two spaces or more between them."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def _head_with(columns: list[str], printed_rows: list[list[str]]) -> list[str]:
    """The printed line that has these columns' names, in this order."""
    is_head = len(columns) > 1 and all(re.fullmatch(r"[a-z_]+", name) for name in columns)
    if is_head:
        for row in printed_rows:
            if [cell for cell in row if cell in columns] == columns:
                return row
    return []


def _is_printed(
    row: list[str], printed_rows: list[list[str]], head: list[str], columns: list[str]
) -> bool:
    """Does a line begin one that was printed, or is it one of the table's rows, as its columns have it?"""
    places = [head.index(name) for name in columns]
    for printed_row in printed_rows:
        if " ".join([*printed_row, ""]).startswith(" ".join([*row, ""])):
            return True
        if len(printed_row) == len(head) and [printed_row[k] for k in places] == row:
            return True
    return False


def check_said(arguments: list[str], printed: str, folder: Path) -> None:
    """Raises OutputError where a command whose output no page shows said, or wrote, nothing."""
    written = []
    if out := next((v for n, v in pairwise(arguments) if n == "--out"), None):
        place = folder / out
        written = [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
    has_text = bool(printed.strip()) and not NOTHING.search(printed)
    if not (has_text or written) or not all(p.is_file() and p.stat().st_size for p in written):
        raise OutputError(f"{' '.join(arguments)} said, and wrote {written}:\n{printed}")


def console_parts(text: str) -> list[tuple[str, str]]:
    """(command, output shown below it) of a console block."""
    parts: list[tuple[str, str]] = []
    for line in text.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            parts.append((line[2:].strip(), ""))
        else:
            command, shown_lines = parts[-1]
            parts[-1] = (command, shown_lines + line)
    assert all(words(command) for command, _ in parts)
    return parts
