"""What people say of how runs ended: imported from files, counted before the source, taken back; only ever added to.

A row counts from the moment it is saved for whoever reads current_outcomes; the next build writes it into
episode_facts, as `person: FILE`, and makes anew what follows from it, of the chunks concerned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import UserError
from core.tables import TABLES
from warehouse.lake import references
from warehouse.lake.connection import row_by_row
from warehouse.lake.corrections import checked_text, time_after
from warehouse.lake.hashes import content_key
from warehouse.lake.lake import Lake
from warehouse.lake.said import said_of

if TYPE_CHECKING:
    from ingest.outcomes import Outcome


class OutcomeError(UserError, ValueError):
    """Outcomes that cannot be imported or taken back: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class StatedOutcome:
    """A person's statement on the outcome of one episode."""

    episode_index: int
    success: bool
    note: str | None
    author: str


# What counts


def current_outcomes(lake: Lake, dataset: str) -> "dict[int, Outcome]":
    """What people said of a dataset's episodes, as far as it counts."""
    if dataset not in said_of(lake)["outcomes"]:
        return {}
    from ingest.outcomes import BY_PERSON, Outcome  # with numpy, without which `status` is 0.05 s faster

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
    saved = {"import_id": "", "new": 0}

    def new_rows() -> pa.Table:
        standing = {
            row["episode_index"]: row
            for row in lake.dicts("SELECT * FROM current_outcomes WHERE dataset = ?", [dataset])
        }
        new = sum(not _stands(o, file, standing.get(o.episode_index)) for o in outcomes)
        if not new:
            saved["import_id"] = standing[outcomes[0].episode_index]["import_id"]
            return TABLES["outcomes"].empty()
        # All of it, so that taking an earlier import back leaves what this one says
        rows = [o.__dict__ | {"file": file, "undoes": None} for o in outcomes]
        import_id, stamped = _stamped(lake, dataset, rows)
        saved.update(import_id=import_id, new=new)
        return TABLES["outcomes"].rows(stamped)

    lake.append(f"import outcomes of {dataset}", "outcomes", new_rows)
    return str(saved["import_id"]), int(saved["new"])


def _stands(outcome: StatedOutcome, file: str, row: dict[str, Any] | None) -> bool:
    said = (outcome.success, outcome.note, outcome.author, file)
    return row is not None and said == (row["success"], row["note"], row["author"], row["file"])


def undo_import(lake: Lake, import_id: str, *, author: str, note: str = "") -> tuple[str, int]:
    """Take an import back, by rows that say so: what was said before it counts again.

    Returns the dataset, and how many outcomes were taken back. Raises OutcomeError, and CorrectionError for a text.
    """
    author, note = checked_text("author", author, 100), checked_text("comment", note, 2000, empty=True)
    taken_back: list[dict[str, Any]] = []

    def new_rows() -> pa.Table:
        taken_back.extend(lake.dicts("SELECT * FROM outcomes WHERE import_id = ? AND undoes IS NULL", [import_id]))
        if not taken_back:
            raise OutcomeError(f"there is no import {import_id!r}; proccorpus outcomes list --all has them")
        undone = lake.rows("SELECT author, created_at FROM outcomes WHERE undoes = ? LIMIT 1", [import_id])
        if undone:
            who, when = undone[0]
            raise OutcomeError(f"{import_id} was taken back by {who} on {when:%Y-%m-%d %H:%M} UTC")
        said = {"success": None, "note": note or None, "author": author, "file": None, "undoes": import_id}
        rows = [{"episode_index": row["episode_index"]} | said for row in taken_back]
        return TABLES["outcomes"].rows(_stamped(lake, taken_back[0]["dataset"], rows)[1])

    lake.append(f"take back outcomes {import_id}", "outcomes", new_rows)
    return taken_back[0]["dataset"], len(taken_back)


def _stamped(lake: Lake, dataset: str, rows: Sequence[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Rows that came together, with their dataset, time and id.

    The id is a hash of them and of the dataset's newest import, so that the same words said again later differ.
    """
    before = lake.rows(
        "SELECT import_id, created_at FROM outcomes WHERE dataset = ? ORDER BY created_at DESC, 1 LIMIT 1", [dataset]
    )
    follows = before[0][0] if before else ""
    texts = [json.dumps(row, sort_keys=True) for row in rows]
    import_id = content_key(dataset, follows, *sorted(texts))[:16]
    at = time_after(before[0][1] if before else None)
    return import_id, [row | {"dataset": dataset, "import_id": import_id, "created_at": at} for row in rows]


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


def known_outcomes(lake: Lake) -> dict[str, int]:
    """Of each dataset, of how many usable episodes it is known whether they succeeded."""
    return dict(lake.rows("SELECT dataset, count(success) FROM episodes WHERE status = 'ok' GROUP BY 1"))


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
