"""A person's outcomes in a file: CSV with a header, JSON lines, or a JSON list as `outcomes list --format json` gives.

Read and checked whole, before anything is saved.

Columns: `episode_index` or `episode` (a number), or `source_id`, or several that agree; `success`; `note` and `by`
where there is more to say. A line of another dataset, or about an episode that the corpus lacks, is refused.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from ingest.formats.side_files import parse_json, parse_json_lines
from ingest.outcomes import truth
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome
from warehouse.lake.statements import CorrectionError, checked_text, known_episodes, read_text

INDEX_COLUMNS, ID_COLUMN, SUCCESS = ("episode_index", "episode"), "source_id", "success"
NOTE_COLUMNS, AUTHOR_COLUMNS = ("note", "notes", "comment"), ("by", "author")
MAX_NAMED = 20  # lines, in one message

Line = tuple[int, Mapping[str, Any]]  # its number in the file, and its cells without empty ones


def read_outcomes(lake: Lake, dataset: str, path: Path, author: str) -> list[StatedOutcome]:
    """What a file says of a dataset's episodes. `author`: of lines that name none.

    Raises CorrectionError, which names every line that cannot be used, up to MAX_NAMED; UserError: no such dataset.
    """
    known = known_episodes(lake, dataset)
    by_source_id = {source_id: index for index, source_id in known.items()}
    text = read_text(path)
    called = "entry" if text.lstrip().startswith("[") else "line"
    lines, problems = _json(text) if text.lstrip()[:1] in ("[", "{") else _csv(text)
    outcomes: dict[int, StatedOutcome] = {}
    line_of: dict[int, int] = {}
    for number, cells in lines:
        try:
            if (stated := cells.get("dataset", dataset)) != dataset:
                raise CorrectionError(f"is of dataset {stated!r}, not of {dataset}")
            outcome = _outcome(cells, _episode(cells, dataset, known, by_source_id), author)
        except UserError as e:
            problems[number] = str(e)
            continue
        before = line_of.setdefault(outcome.episode_index, number)
        if before != number:
            problems[number] = f"episode {outcome.episode_index} is in {called} {before} already"
        outcomes[outcome.episode_index] = outcome
    if problems:
        raise CorrectionError(f"{path}: nothing was imported: {_named(problems, called)}")
    if not outcomes:
        raise CorrectionError(f"{path} holds no line with an outcome")
    return list(outcomes.values())


def _named(problems: Mapping[int, str], called: str) -> str:
    named = [f"{called} {number}: {problem}" for number, problem in sorted(problems.items())]
    more = f"; and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return "; ".join(named[:MAX_NAMED]) + more


def _json(text: str) -> tuple[list[Line], dict[int, str]]:
    """The lines of a file, or the entries of a JSON list, and by number what is wrong with others."""
    if not text.lstrip().startswith("["):
        parsed = parse_json_lines(text)
        return _objects(parsed.values, {number: f"is no JSON: {error}" for number, error in parsed.errors})
    try:
        return _objects(list(enumerate(parse_json(text), 1)), {})
    except ValueError as e:
        return [], {1: f"the file is no JSON: {e}"}


def _objects(values: Sequence[tuple[int, Any]], problems: dict[int, str]) -> tuple[list[Line], dict[int, str]]:
    lines: list[Line] = []
    for number, value in values:
        if isinstance(value, dict):
            lines.append((number, {k: v for k, v in value.items() if v not in (None, "")}))
        else:
            problems[number] = 'is no object, such as {"episode": 3, "success": true}'
    return lines, problems


def _csv(text: str) -> tuple[list[Line], dict[int, str]]:
    """A row that takes several lines has the number of its last."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    lines: list[Line] = []
    try:
        for row in reader:
            # A cell beyond the header has no name, and one that a short row lacks is None
            cells = {name.strip(): cell.strip() for name, cell in row.items() if name and isinstance(cell, str)}
            lines.append((reader.line_num, {name: cell for name, cell in cells.items() if cell}))
    except csv.Error as e:
        return lines, {reader.line_num + 1: f"is no CSV from here on: {e}"}
    return lines, {}


def _outcome(cells: Mapping[str, Any], episode: int, author: str) -> StatedOutcome:
    """Raises CorrectionError."""
    if SUCCESS not in cells:
        raise CorrectionError("success is empty or missing: say true or false, or leave the line out")
    success = truth(cells[SUCCESS])
    if success is None:
        raise CorrectionError(f"success is {cells[SUCCESS]!r}: say true or false (1, 0, yes, no, success, failure)")
    note = next((str(cells[name]) for name in NOTE_COLUMNS if name in cells), "")
    by = next((str(cells[name]) for name in AUTHOR_COLUMNS if name in cells), author)
    note = checked_text("note", note, 2000, empty=True) or None
    return StatedOutcome(episode, success, note, checked_text("by", by, 100))


def _episode(cells: Mapping[str, Any], dataset: str, known: Mapping[int, str], by_source_id: Mapping[str, int]) -> int:
    """The episode that a line is about; all columns that name it have to agree. Raises CorrectionError."""
    columns = [column for column in (*INDEX_COLUMNS, ID_COLUMN) if column in cells]
    named = {column: _index(column, cells[column], dataset, known, by_source_id) for column in columns}
    if not named:
        raise CorrectionError(f"names no episode: {', '.join((*INDEX_COLUMNS, ID_COLUMN))} are looked for")
    if len(set(named.values())) > 1:
        raise CorrectionError(
            " and ".join(f"{column} (episode {index})" for column, index in named.items()) + " differ"
        )
    return named[columns[0]]


def _index(column: str, cell: Any, dataset: str, known: Mapping[int, str], by_source_id: Mapping[str, int]) -> int:
    if column != "episode_index" and str(cell) in by_source_id:  # `episode` may have a source_id, too
        return by_source_id[str(cell)]
    if column == ID_COLUMN:
        raise CorrectionError(f"{dataset} has no episode with source_id {str(cell)!r}")
    number = str(cell).removesuffix(".0")
    if isinstance(cell, bool) or not (number.isdecimal() and number.isascii()):
        raise CorrectionError(f"{column} is {cell!r}, which is no episode's number")
    if int(number) not in known:
        raise CorrectionError(f"{dataset} has no episode {number}")
    return int(number)
