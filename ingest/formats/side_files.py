"""Small files of metadata beside the data: JSON, JSON lines, CSV. Sizes are bounded."""

import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ingest.reasons import DataError, guarded
from ingest.sources.files import Source, once
from ingest.sources.types import refuse_pointer


class TextFile(NamedTuple):
    """Where a writer keeps the texts of an episode that has none itself: at `place`, by the groups of `data`, which is
    the path of its data; under some `keys`, or as the whole content. `source`: where that is written.
    """

    writer: str
    source: str
    data: str
    place: str
    keys: tuple[str, ...] = ()


# The first that is there counts
TEXT_FILES = (
    TextFile(
        "RDT-1B",
        "github.com/thu-ml/RoboticsDiffusionTransformer, data/hdf5_vla_dataset.py",
        r"(.*/)?[^/]+",
        r"\1expanded_instruction.json",
        ("instruction", "simplified_instruction", "expanded_instruction"),
    ),
    TextFile(
        "RoboTwin",
        "github.com/RoboTwin-Platform/RoboTwin @3399fdf7",
        r"(.*/)?data/(episode[0-9]+)\.hdf5",
        r"\1instructions/\2.json",
        ("seen", "unseen"),
    ),
    TextFile(
        "Robo-Dopamine",
        "its published episodes: beside the folder of an episode, or in it",
        r"(.*/)?[^/]+/[^/]+",
        r"\1task_instruction.json",
    ),
    TextFile("Robo-Dopamine", "as above", r"(.*/)?[^/]+", r"\1task_instruction.json"),
)
NAMED_BY_MODEL = re.compile(r"(?<=expanded_instruction)[^/]*(?=\.json$)")  # that wrote RDT's texts

Numbered = list[tuple[int, Any]]  # values of a file, each with its number from 1


def read_bytes(source: Source, uri: str, times: int = 1) -> bytes:
    """A file of metadata. Raises DataError when it cannot be read, or is larger than so many times the limit."""
    # The largest known, AgiBot's task files, have some 20 MB
    source.config.limits.check("max_file_bytes", source.files[uri].size, f"{uri}: bytes", times)
    with guarded(uri, OSError):
        data = source.resolve(uri).read_bytes()
    refuse_pointer(data, f"{uri} is a git-LFS pointer")
    return data


def read_text(source: Source, uri: str, errors: str = "strict") -> str:
    """A UTF-8 file, `errors` as for decode. Raises DataError when it cannot be read or is too large for metadata."""
    try:
        # Some editors put a byte order mark first, which is no part of the text
        return read_bytes(source, uri).decode("utf-8-sig", errors)
    except UnicodeDecodeError as e:
        raise DataError(f"{uri} is not UTF-8: {e.reason} at byte {e.start}") from e


def parse_json(text: str | bytes, strict: bool = True) -> Any:
    """Raises ValueError, also for what is nested too deeply or holds half a character, which no table can keep.

    `strict`: no line breaks and such within a text.
    """
    try:
        value = json.loads(text, strict=strict)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    # Only an escape, or bytes, which json decodes more freely, can give half a character
    if isinstance(text, bytes) or "\\u" in text:
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # UnicodeEncodeError for half of a surrogate pair
    return value


def read_json(source: Source, uri: str) -> Any:
    """Raises DataError."""
    text = read_text(source, uri)
    if not text:
        raise DataError(f"{uri} has 0 bytes")
    try:
        return parse_json(text)
    except ValueError as e:
        raise DataError(f"{uri} is not JSON: {e}") from e


def parse_json_lines(text: str, strict: bool = True) -> tuple[Numbered, list[tuple[int, str]]]:
    """Values of a file of JSON lines, and the errors of other lines, each with the number of its
    line from 1.

    Empty lines are left out; `strict` as for parse_json.
    """
    values = Numbered()
    errors = list[tuple[int, str]]()
    # Not splitlines(): a text may hold a line separator that JSON does not escape
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values.append((number, parse_json(line, strict)))
        except ValueError as e:
            errors.append((number, str(e)))
    return values, errors


def read_table(source: Source, uri: str) -> tuple[Numbered, list[str]]:
    """Rows of a .csv, .jsonl or .json (a list of objects) file, without empty cells, by their numbers from 1; and what
    is wrong with others. Raises DataError when nothing of it can be read."""
    suffix = uri.lower().rpartition(".")[2]
    if suffix == "csv":
        rows, errors = parse_csv(read_text(source, uri))
        problems = [f"row {len(rows) + 1} is not CSV: {error}" for _, error in errors]
        return Numbered(enumerate((row for _, row in rows), 1)), problems
    # Both forms of JSON give values with the numbers of their rows, whose types are then checked
    numbered: Iterable[tuple[int, Any]]
    problems: list[str] = []
    if suffix == "jsonl":
        numbered, errors = parse_json_lines(read_text(source, uri))
        problems += [f"line {number} is not JSON: {error}" for number, error in errors]
    else:
        content = read_json(source, uri)
        if not isinstance(content, list):
            raise DataError(f"{uri} is not a list of episodes")
        numbered = enumerate(content, 1)
    rows = []
    for number, row in numbered:
        if isinstance(row, dict):
            rows.append(
                (number, {name: cell for name, cell in row.items() if cell not in (None, "")})
            )
        else:
            problems.append(f"row {number} is not an object")
    return rows, problems


def parse_csv(text: str) -> tuple[Numbered, list[tuple[int, str]]]:
    """Rows of CSV with a header, without empty cells, each with the number of its last line; and the error behind which
    nothing can be read, with its line."""
    rows = Numbered()
    # strict: an open quote would swallow the rest of the file; a field is limited to 128 Ki characters by the module
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for row in reader:
            # A cell beyond the header has no name, and one that a short row lacks is None
            cells = {name.strip(): cell.strip() for name, cell in row.items() if name and cell}
            filled = {name: cell for name, cell in cells.items() if cell}
            rows.append((reader.line_num, filled))
    except csv.Error as e:
        return rows, [(reader.line_num + 1, str(e))]
    return rows, []


def text_file_of(source: Source, uri: str) -> tuple[str, TextFile] | None:
    """The file with the texts of an episode, by the path of its data, and whose convention it is; None for none."""
    for form in TEXT_FILES:
        match = re.fullmatch(form.data, uri)
        text_uri = match and _json_by_place(source).get(match.expand(form.place))
        if text_uri:
            return text_uri, form
    return None


@once
def _json_by_place(source: Source) -> dict[str, str]:
    """Files of JSON, by where texts would lie."""
    json_uris = (uri for uri in reversed(source.files) if uri.endswith(".json"))
    return {NAMED_BY_MODEL.sub("", uri): uri for uri in json_uris}
