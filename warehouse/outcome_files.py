"""A person's outcomes in a file: CSV with a header, JSON lines, or a JSON list as `outcomes list --format json` gives.

Read and checked whole, before anything is saved.

Columns: `episode_index` or `episode` (a number), or `source_id`, or several that agree; `success`; `note` and `by`
where there is more to say. A line of another dataset, or about an episode that the corpus lacks, is refused.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.formats.side_files import parse_json, parse_json_lines
from ingest.outcomes import truth
from warehouse.lake import Lake
from warehouse.lake.corrections import CorrectionError, checked_text
from warehouse.lake.outcomes import OutcomeError, StatedOutcome

INDEX_COLUMNS, ID_COLUMN, SUCCESS = ("episode_index", "episode"), "source_id", "success"
NOTE_COLUMNS, AUTHOR_COLUMNS = ("note", "notes", "comment"), ("by", "author")
MAX_BYTES = 1 << 28
MAX_NAMED = 20  # lines, in one message

Line = tuple[int, Mapping[str, Any]]  # its number in the file, and its cells without empty ones


@dataclass
class Read:
    """The lines of a file, and what is wrong with others by their number; of a JSON list its entries."""

    lines: list[Line] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    called: str = "line"

    def add(self, number: int, value: Any) -> None:
        """Add a JSON value."""
        if isinstance(value, dict):
            self.lines.append((number, {k: v for k, v in value.items() if v not in (None, "")}))
        else:
            self.problems[number] = 'is no object, such as {"episode": 3, "success": true}'


class LineError(ValueError):
    """What is wrong with one line."""


@dataclass(frozen=True)
class Episodes:
    """What a dataset's episodes go by."""

    dataset: str
    indices: frozenset[int]
    by_source_id: Mapping[str, int]


def read_outcomes(lake: Lake, dataset: str, path: Path, author: str) -> list[StatedOutcome]:
    """What a file says of a dataset's episodes. `author`: of lines that name none.

    Raises OutcomeError, which names every line that cannot be used, up to MAX_NAMED.
    """
    episodes = _episodes(lake, dataset)
    read = _read(_text(path))
    problems = dict(read.problems)
    outcomes: dict[int, StatedOutcome] = {}
    line_of: dict[int, int] = {}
    for number, cells in read.lines:
        try:
            outcome = _outcome(cells, episodes, author)
        except (LineError, CorrectionError) as e:
            problems[number] = str(e)
            continue
        before = line_of.setdefault(outcome.episode_index, number)
        if before != number:
            problems[number] = f"episode {outcome.episode_index} is in {read.called} {before} already"
        outcomes[outcome.episode_index] = outcome
    if problems:
        raise OutcomeError(f"{path}: nothing was imported: {_named(problems, read.called)}")
    if not outcomes:
        raise OutcomeError(f"{path} holds no line with an outcome")
    return list(outcomes.values())


def _named(problems: Mapping[int, str], called: str) -> str:
    named = [f"{called} {number}: {problem}" for number, problem in sorted(problems.items())]
    more = f"; and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return "; ".join(named[:MAX_NAMED]) + more


def _episodes(lake: Lake, dataset: str) -> Episodes:
    """Every episode that the dataset ever had: one that left the source keeps its number. Raises OutcomeError."""
    datasets = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    if dataset not in datasets:
        there = ", ".join(datasets) or "none yet: build it first"
        raise OutcomeError(f"the corpus has no dataset {dataset!r}; it has {there}")
    rows = lake.rows(
        "SELECT episode_index, source_id FROM episode_ids WHERE dataset = $1 UNION "
        "SELECT episode_index, source_id FROM episode_facts WHERE dataset = $1",
        [dataset],
    )
    return Episodes(dataset, frozenset(index for index, _ in rows), {source_id: index for index, source_id in rows})


def _text(path: Path) -> str:
    """Raises OutcomeError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OutcomeError(f"{path} has more than {MAX_BYTES >> 20} MB")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise OutcomeError(f"{path} is no UTF-8 text: {e.reason} at byte {e.start}") from e
    except OSError as e:
        raise OutcomeError(f"cannot read {path}: {e.strerror}") from e


def _read(text: str) -> Read:
    """The lines of a file, in the form that it begins with."""
    begin = text.lstrip()[:1]
    if begin == "[":
        return _json_list(text)
    return _json_lines(text) if begin == "{" else _csv(text)


def _json_list(text: str) -> Read:
    read = Read(called="entry")
    try:
        entries = parse_json(text)
    except ValueError as e:
        read.problems[1] = f"the file is no JSON: {e}"
        return read
    for number, value in enumerate(entries, 1):
        read.add(number, value)
    return read


def _json_lines(text: str) -> Read:
    parsed = parse_json_lines(text)
    read = Read(problems={number: f"is no JSON: {error}" for number, error in parsed.errors})
    for number, value in parsed.values:
        read.add(number, value)
    return read


def _csv(text: str) -> Read:
    """A row that takes several lines has the number of its last."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    read = Read()
    try:
        for row in reader:
            # A cell beyond the header has no name, and one that a short row lacks is None
            cells = {name.strip(): cell.strip() for name, cell in row.items() if name and isinstance(cell, str)}
            read.lines.append((reader.line_num, {name: cell for name, cell in cells.items() if cell}))
    except csv.Error as e:
        read.problems[reader.line_num + 1] = f"is no CSV from here on: {e}"
    return read


def _outcome(cells: Mapping[str, Any], episodes: Episodes, author: str) -> StatedOutcome:
    """Raises LineError, and CorrectionError for a text that cannot be kept."""
    stated_dataset = cells.get("dataset", episodes.dataset)
    if stated_dataset != episodes.dataset:
        raise LineError(f"is of dataset {stated_dataset!r}, not of {episodes.dataset}")
    episode = _episode(cells, episodes)
    if SUCCESS not in cells:
        raise LineError("success is empty or missing: say true or false, or leave the line out")
    success = truth(cells[SUCCESS])
    if success is None:
        raise LineError(f"success is {cells[SUCCESS]!r}: say true or false (1, 0, yes, no, success, failure)")
    note = next((str(cells[name]) for name in NOTE_COLUMNS if name in cells), "")
    by = next((str(cells[name]) for name in AUTHOR_COLUMNS if name in cells), author)
    return StatedOutcome(
        episode, success, checked_text("note", note, 2000, empty=True) or None, checked_text("by", by, 100)
    )


def _episode(cells: Mapping[str, Any], episodes: Episodes) -> int:
    """The episode that a line is about; all columns that name it have to agree. Raises LineError."""
    named: dict[str, int] = {}
    for column in INDEX_COLUMNS:
        if column in cells:
            named[column] = _index(column, cells[column], episodes)
    if ID_COLUMN in cells:
        source_id = str(cells[ID_COLUMN])
        if source_id not in episodes.by_source_id:
            raise LineError(f"{episodes.dataset} has no episode with source_id {source_id!r}")
        named[ID_COLUMN] = episodes.by_source_id[source_id]
    if not named:
        raise LineError(f"names no episode: {', '.join((*INDEX_COLUMNS, ID_COLUMN))} are looked for")
    if len(set(named.values())) > 1:
        what = " and ".join(f"{column} (episode {index})" for column, index in named.items())
        raise LineError(f"{what} differ")
    return next(iter(named.values()))


def _index(column: str, cell: Any, episodes: Episodes) -> int:
    """An index as JSON or CSV has it; also a source_id, under the name `episode`. Raises LineError."""
    if column == "episode" and isinstance(cell, str) and cell in episodes.by_source_id:
        return episodes.by_source_id[cell]
    text = str(cell)
    is_number = not isinstance(cell, bool) and text.removesuffix(".0").isdecimal() and text.isascii()
    if not is_number:
        raise LineError(f"{column} is {cell!r}, which is no episode's number")
    index = int(text.removesuffix(".0"))
    if index not in episodes.indices:
        raise LineError(f"{episodes.dataset} has no episode {index}")
    return index
