"""What people say of how runs ended: imported from files, counted before the source, taken back; only ever added to.

A row counts from the moment it is saved for whoever reads current_outcomes; the next build writes it into
episode_facts, as `person: FILE`, and makes anew what follows from it, of the chunks concerned.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ingest.outcomes import BY_PERSON, Outcome
from warehouse.lake import references
from warehouse.lake.connection import row_by_row
from warehouse.lake.hashes import content_key
from warehouse.lake.lake import Lake
from warehouse.lake.statements import CorrectionError, checked_text, said_of, say


@dataclass(frozen=True)
class StatedOutcome:
    """A person's statement on the outcome of one episode."""

    episode_index: int
    success: bool
    note: str | None
    author: str


# What counts


def current_outcomes(lake: Lake, dataset: str) -> dict[int, Outcome]:
    """What people said of a dataset's episodes, as far as it counts."""
    if dataset not in said_of(lake)["outcomes"]:
        return {}

    sql = f"SELECT episode_index, success, file FROM current_outcomes WHERE {row_by_row('dataset')}"
    rows = lake.rows(sql, [dataset])
    return {episode: Outcome(success, BY_PERSON + file) for episode, success, file in rows}


def outcome_stamp(lake: Lake, dataset: str) -> str:
    """What a dataset's plan depends on, beside its source; empty where no person's outcome counts."""
    outcomes = current_outcomes(lake, dataset)
    parts = [f"{episode} {outcome.success} {outcome.source}" for episode, outcome in sorted(outcomes.items())]
    return content_key("outcomes", *parts) if parts else ""


def chunks_to_build(lake: Lake) -> dict[str, int]:
    """Chunks of each dataset that the next build makes anew because of what people said."""
    chunks = {dataset: set(of_dataset) for dataset, of_dataset in references.pending(lake).items()}
    for view, table in (("pending_outcomes", "outcomes"), ("pending_corrections", "corrections")):
        # Where nobody ever said anything nothing waits: each view joins a good part of the lake
        if said_of(lake)[table]:
            for dataset, chunk in lake.rows(f"SELECT DISTINCT dataset, chunk FROM {view}"):
                chunks.setdefault(dataset, set()).add(chunk)
    return {dataset: len(of_dataset) for dataset, of_dataset in sorted(chunks.items())}


# Saving


def add_outcomes(lake: Lake, dataset: str, file: str, outcomes: Sequence[StatedOutcome]) -> tuple[str, int]:
    """Save what a file says of some episodes, each once; returns the import's id, and how many say something new.

    A file that only says again what the same people said in a file of its name is not saved again: the id is that of
    the import that said it.
    """
    again, new = "", 0

    def rows() -> list[dict[str, Any]]:
        nonlocal again, new
        current = lake.dicts("SELECT * FROM current_outcomes WHERE dataset = ?", [dataset])
        standing = {row["episode_index"]: row for row in current}
        said = [asdict(o) | {"dataset": dataset, "file": file, "undoes": None} for o in outcomes]
        compared = ("success", "note", "author", "file")
        new = sum(any(row[k] != standing.get(row["episode_index"], {}).get(k) for k in compared) for row in said)
        if not new:
            again = standing[outcomes[0].episode_index]["import_id"]
        # All of it, so that taking an earlier import back leaves what this one says
        return said if new else []

    saved = say(lake, "outcomes", "dataset = ?", [dataset], rows)
    return (saved[0]["import_id"] if saved else again), new


def undo_import(lake: Lake, import_id: str, *, author: str, note: str = "") -> tuple[str, int]:
    """Take an import back, by rows that say so: what was said before it counts again.

    Returns the dataset, and how many outcomes were taken back. Raises CorrectionError.
    """
    author, note = checked_text("author", author, 100), checked_text("comment", note, 2000, empty=True)
    taken_back = lake.dicts("SELECT * FROM outcomes WHERE import_id = ? AND undoes IS NULL", [import_id])
    if not taken_back:
        raise CorrectionError(f"there is no import {import_id!r}; proccorpus outcomes list --all has them")
    dataset = taken_back[0]["dataset"]

    def rows() -> list[dict[str, Any]]:
        for who, when in lake.rows("SELECT author, created_at FROM outcomes WHERE undoes = ? LIMIT 1", [import_id]):
            raise CorrectionError(f"{import_id} was taken back by {who} on {when:%Y-%m-%d %H:%M} UTC")
        said = {"dataset": dataset, "success": None, "note": note or None, "author": author, "file": None}
        return [{"episode_index": row["episode_index"], "undoes": import_id} | said for row in taken_back]

    return dataset, len(say(lake, "outcomes", "dataset = ?", [dataset], rows))


# For people


def listed(lake: Lake, dataset: str | None = None, *, everything: bool = False) -> list[dict[str, Any]]:
    """What counts of each episode, or every row ever saved, by episode and time."""
    where, values = ("WHERE dataset = ?", [dataset]) if dataset else ("", [])
    columns = "dataset, episode_index, success, note, author, created_at, file, import_id"
    if not everything:
        return lake.dicts(f"SELECT {columns} FROM current_outcomes {where} ORDER BY 1, 2", values)
    return lake.dicts(
        f"SELECT {columns}, undoes, (FROM current_outcomes c SELECT count(*) > 0 WHERE c.import_id = o.import_id AND "
        f"c.episode_index = o.episode_index) AS counts FROM outcomes o {where} ORDER BY 1, 2, created_at, import_id",
        values,
    )


def question(dataset: str, unfinished: int, episodes: int) -> str | None:
    """What its owner is asked of a dataset; None where there is nothing to ask.

    Example: question("cups", 12, 50) is "cups: 12 of 50 runs look unfinished: look at them".
    """
    if not unfinished:
        return None
    look, them = ("looks", "it") if unfinished == 1 else ("look", "them")
    return f"{dataset}: {unfinished} of {episodes} runs {look} unfinished: look at {them}"


def shares(lake: Lake) -> list[dict[str, Any]]:
    """Per dataset and what says so: how many usable episodes succeeded and failed; and those of which nothing says."""
    return lake.dicts(
        "SELECT dataset, coalesce(success_source, 'not known') AS source, count(*) AS episodes, "
        "count(*) FILTER (success) AS succeeded, count(*) FILTER (NOT success) AS failed FROM episodes "
        "WHERE status = 'ok' GROUP BY dataset, success_source ORDER BY dataset, success_source NULLS LAST"
    )
