"""What people say of how runs ended: imported from files, counted before the source, taken back; only ever added to.

A row counts from the moment it is saved for whoever reads current_outcomes; the next build writes it into
episode_facts, as `person: FILE`, and makes anew what follows from it, of the chunks concerned.

A file is CSV with a header, JSON lines, or a JSON list as `show current_outcomes --format json` gives. It is read and
checked whole, before anything is saved. Columns: `episode_index` or `episode` (a number), or `source_id`, or several
that agree; `success`; `note` and `by` where there is more to say. `content_hash` (16 hex or more), as that list gives
it, names an episode before all of these: the numbers may be another workspace's. A line of another dataset, or about an
episode that the corpus lacks, is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from ingest.outcomes import BY_PERSON, Outcome, truth
from warehouse.lake import references
from warehouse.lake.connection import LakeConnection
from warehouse.lake.corrections import episodes_by_content
from warehouse.lake.lake import Lake
from warehouse.lake.statements import (
    ConflictError,
    CorrectionError,
    Home,
    Known,
    Row,
    checked_text,
    known_episodes,
    newest_row,
    read_text,
    rows_of_text,
    say,
)

NAMING_COLUMNS = ("episode_index", "episode", "source_id")
CONTENT = "content_hash"
HEX = 16  # of a content hash, as lists show it
SUCCESS = "success"
OUTCOME = "outcome"  # the kind of statement
BY_CLICK = "explorer"  # as the file of what was said in the explorer
BY_COMMAND = "command line"
MAX_NAMED = 20  # lines, in one message


@dataclass(frozen=True)
class StatedOutcome:
    """A person's statement on the outcome of one episode."""

    episode_index: int
    success: bool
    note: str | None
    author: str


# What counts


def outcomes_by_recording(lake: Lake, recordings: Collection[str]) -> dict[str, Outcome]:
    """What people said of how some recordings ended, as far as it counts."""
    if not lake.datasets_in(OUTCOME):
        return {}
    rows = lake.rows(
        "SELECT recording, (value->>'success')::BOOLEAN, value->>'file' FROM standing_statements "
        "WHERE kind = 'outcome' AND list_contains(?, recording)",
        [sorted(recordings)],
    )
    return {recording: Outcome(success, BY_PERSON + file) for recording, success, file in rows}


def chunks_to_build(lake: Lake) -> dict[str, int]:
    """Chunks of each dataset that the next build makes anew because of what people said."""
    chunks = {dataset: set(of_dataset) for dataset, of_dataset in references.pending(lake).items()}
    for kind in (OUTCOME, "correction", "takedown"):
        # Where nobody ever said anything nothing waits: each view joins a good part of the lake
        if lake.datasets_in(kind):
            for dataset, chunk in lake.rows(f"SELECT DISTINCT dataset, chunk FROM pending_{kind}s"):
                chunks.setdefault(dataset, set()).add(chunk)
    return {dataset: len(of_dataset) for dataset, of_dataset in sorted(chunks.items())}


# Saving


def add_outcomes(
    lake: Lake, dataset: str, file: str, outcomes: Sequence[StatedOutcome]
) -> tuple[str, int]:
    """Save what a file says of some episodes, each once; returns the import's id, and how many say
    something new.

    A file that only says again what the same people said in a file of its name is not saved again:
    the id is that of the import that said it.
    """
    standing: dict[int, dict[str, Any]] = {}
    statements = [asdict(o) | {"dataset": dataset, "file": file} for o in outcomes]

    def is_new(row: dict[str, Any]) -> bool:
        former_row = standing.get(row["episode_index"], {})
        return any(
            row[column] != former_row.get(column)
            for column in ("success", "note", "author", "file")
        )

    def rows() -> list[dict[str, Any]]:
        current = lake.dicts("SELECT * FROM current_outcomes WHERE dataset = ?", [dataset])
        standing.update({row["episode_index"]: row for row in current})
        # All of it, so that taking an earlier import back leaves what this one says
        if not any(map(is_new, statements)):
            return []
        return [row | {"comment": row["note"]} for row in statements]

    saved = say(lake, OUTCOME, rows)
    if saved:
        import_id = saved[0]["batch"]
    else:
        import_id = standing[outcomes[0].episode_index]["import_id"]
    return import_id, sum(map(is_new, statements))


def say_outcome(
    lake: LakeConnection,
    dataset: str,
    episode_index: int,
    success: bool,
    note: str,
    *,
    author: str,
    follows: str | None,
    recording: str | None = None,
    batch: str | None = None,
    known: Mapping[Home, Known] | None = None,
) -> str:
    """Save what a person who looks at one run says of its end, as an import of its own, or (batch) together with what
    was said of its label; returns its id.

    `follows`: the import that the author has seen in force, `recording`: the one that they looked at (None: what has
    the number now). Raises ConflictError: there is another one; CorrectionError: a text that cannot be saved.
    """
    outcome = {
        "dataset": dataset,
        "episode_index": episode_index,
        "recording": recording,
        "batch": batch,
        "success": success,
        "comment": checked_text("note", note, 2000),
        "file": BY_CLICK,
        "author": checked_text("author", author, 100),
        "follows": follows,
    }

    def complete(row: dict[str, Any], _: Row | None) -> dict[str, Any]:
        in_force = standing(lake, dataset, episode_index, known)
        if follows != (in_force and in_force["import_id"]):
            last_author = in_force["author"] if in_force else "somebody"
            raise ConflictError(
                f"{last_author} has said how episode {episode_index} of {dataset} ended: reload it and look"
            )
        return row

    return say(lake, OUTCOME, lambda: [outcome], known, complete=complete)[0]["batch"]


def standing(
    lake: LakeConnection,
    dataset: str,
    episode_index: int,
    known: Mapping[Home, Known] | None = None,
) -> dict[str, Any] | None:
    """What people said of how a run ended, as far as it counts; `import_id` takes it back."""
    row = newest_row(lake, OUTCOME, (dataset, episode_index), known, standing=True)
    return row and row | {"import_id": row["batch"], "note": row["comment"]}


def is_with_label(row: Mapping[str, Any]) -> bool:
    """Was an outcome in force said together with a label, of the moment of the failure?"""
    return row["file"] == BY_CLICK and row["batch"] != row["statement_id"]


# For people


def question(dataset: str, unfinished: int, episodes: int) -> str | None:
    """What its owner is asked of a dataset; None where there is nothing to ask.

    Example: question("cups", 12, 50) is "cups: 12 of 50 runs look unfinished: look at them".
    """
    if not unfinished:
        return None
    verb, them = ("looks", "it") if unfinished == 1 else ("look", "them")
    return f"{dataset}: {unfinished} of {episodes} runs {verb} unfinished: look at {them}"


def assumption(dataset: str, assumed: int, episodes: int) -> str | None:
    """How many outcomes of a dataset are assumed; None where none is.

    Example: assumption("cups", 12, 50) is "cups: nobody says how 12 of 50 runs ended: their labels assume success".
    """
    if not assumed:
        return None
    label = "its label assumes" if assumed == 1 else "their labels assume"
    return f"{dataset}: nobody says how {assumed} of {episodes} runs ended: {label} success"


def read_outcomes(lake: Lake, dataset: str, path: Path, author: str) -> list[StatedOutcome]:
    """What a file says of a dataset's episodes. `author`: of lines that name none.

    Raises CorrectionError, which names every line that cannot be used, up to MAX_NAMED; UserError:
    no such dataset.
    """
    source_id_by_index = known_episodes(lake, dataset)
    by_source_id = {source_id: index for index, source_id in source_id_by_index.items()}
    contents = episodes_by_content(lake, dataset)
    by_content = {content[:HEX]: numbers for content, numbers in contents.items()}
    called, values, problems = rows_of_text(read_text(path))
    outcomes: dict[int, StatedOutcome] = {}
    line_of: dict[int, int] = {}
    for number, value in values:
        try:
            cells = _cells(value, dataset)
            episode = _episode(cells, dataset, source_id_by_index, by_source_id, by_content)
            outcome = _outcome(cells, episode, author)
            if (former_line := line_of.setdefault(outcome.episode_index, number)) != number:
                raise CorrectionError(
                    f"episode {outcome.episode_index} is in {called} {former_line} already"
                )
            outcomes[outcome.episode_index] = outcome
        except UserError as e:
            problems[number] = str(e)
    if problems:
        problem_texts = [
            f"{called} {number}: {problem}" for number, problem in sorted(problems.items())
        ]
        num_more = len(problem_texts) - MAX_NAMED
        if num_more > 0:
            problem_texts = [*problem_texts[:MAX_NAMED], f"and {num_more} more"]
        raise CorrectionError(f"{path}: nothing was imported: {'; '.join(problem_texts)}")
    if not outcomes:
        raise CorrectionError(f"{path} holds no line with an outcome")
    return list(outcomes.values())


def _cells(value: Any, dataset: str) -> dict[str, Any]:
    """A line without empty cells. Raises CorrectionError."""
    if not isinstance(value, dict):
        raise CorrectionError('is no object, such as {"episode": 3, "success": true}')
    cells = {name: cell for name, cell in value.items() if cell not in (None, "")}
    if (stated_dataset := cells.get("dataset", dataset)) != dataset:
        raise CorrectionError(f"is of dataset {stated_dataset!r}, not of {dataset}")
    return cells


def _outcome(cells: Mapping[str, Any], episode: int, author: str) -> StatedOutcome:
    """Raises CorrectionError."""
    if SUCCESS not in cells:
        raise CorrectionError(
            "success is empty or missing: say true or false, or leave the line out"
        )
    success = truth(cells[SUCCESS])
    if success is None:
        raise CorrectionError(
            f"success is {cells[SUCCESS]!r}: say true or false (1, 0, yes, no, success, failure)"
        )
    note = next((str(cells[name]) for name in ("note", "notes", "comment") if name in cells), "")
    outcome_author = next((str(cells[name]) for name in ("by", "author") if name in cells), author)
    note = checked_text("note", note, 2000, empty=True) or None
    return StatedOutcome(episode, success, note, checked_text("by", outcome_author, 100))


def _episode(
    cells: Mapping[str, Any],
    dataset: str,
    source_id_by_index: Mapping[int, str],
    by_source_id: Mapping[str, int],
    by_content: Mapping[str, set[int]],
) -> int:
    """The episode that a line is about: that of its contents, else the one that all columns which name it agree on.
    Raises CorrectionError."""
    if CONTENT in cells:
        return _of_contents(cells, dataset, by_content)
    columns = [column for column in NAMING_COLUMNS if column in cells]
    index_by_column = {
        column: _index(column, cells[column], dataset, source_id_by_index, by_source_id)
        for column in columns
    }
    if not index_by_column:
        raise CorrectionError(f"names no episode: {', '.join(NAMING_COLUMNS)} are looked for")
    if len(set(index_by_column.values())) > 1:
        raise CorrectionError(
            " and ".join(f"{name} (episode {index})" for name, index in index_by_column.items())
            + " differ"
        )
    return index_by_column[columns[0]]


def _of_contents(cells: Mapping[str, Any], dataset: str, by_content: Mapping[str, set[int]]) -> int:
    """The episode that holds a line's contents; of copies the one whose number the line has. Raises CorrectionError."""
    stated = str(cells[CONTENT])[:HEX]
    numbers = {str(number): number for number in sorted(by_content.get(stated, ()))}
    if not numbers:
        raise CorrectionError(
            f"{dataset} holds nothing with {CONTENT} {stated!r}: leave the column out where the other columns name "
            "this corpus's episodes"
        )
    number = str(cells.get("episode_index"))
    if len(numbers) > 1 and number not in numbers:
        raise CorrectionError(
            f"{CONTENT} {stated!r} is of the episodes {', '.join(numbers)}, copies of one another: give one of them as "
            "episode_index"
        )
    return numbers.get(number, min(numbers.values()))


def _index(
    column: str,
    cell: Any,
    dataset: str,
    source_id_by_index: Mapping[int, str],
    by_source_id: Mapping[str, int],
) -> int:
    # `episode` may have a source_id, too
    if column != "episode_index" and str(cell) in by_source_id:
        return by_source_id[str(cell)]
    if column == "source_id":
        raise CorrectionError(f"{dataset} has no episode with source_id {str(cell)!r}")
    number = str(cell).removesuffix(".0")
    if isinstance(cell, bool) or not (number.isdecimal() and number.isascii()):
        raise CorrectionError(f"{column} is {cell!r}, which is no episode's number")
    if int(number) not in source_id_by_index:
        raise CorrectionError(f"{dataset} has no episode {number}")
    return int(number)
