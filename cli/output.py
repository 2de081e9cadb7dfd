"""Results for people and for scripts: tables, JSON, CSV, Parquet."""

import json
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.tables import table_text, width_here
from core.values import encode, plain, python_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse.lake import Lake

STATUS_COLUMNS = (
    "dataset",
    "episodes",
    "ok",
    "quarantined",
    "frames",
    "labelled_frames",
    "labels",
    "samples",
    "shards",
)
SHOWN_OF_COMMIT = 12  # characters; --format json has all
UNFINISHED_AT = "proccorpus explore, page Review, Look unfinished"


def status_rows(lake: "Lake") -> list[dict]:
    """Per dataset: episodes; frames, labels and known outcomes of usable ones, how many are assumed complete and how
    many look unfinished; samples, shards; chunks that people made stale; the commit of a hub's dataset that was read;
    what an encoder has looked at.
    """
    with lake.reading():
        return lake.once("status", partial(_status_rows, lake))


def _status_rows(lake: "Lake") -> list[dict]:
    # imports pydantic, DuckDB: this module is every command's
    from warehouse.lake.embedded import embedded_pictures
    from warehouse.lake.outcomes import chunks_to_build, known_outcomes, knows_assumed

    # Asked once: the view looks at every table
    of_ends = ("outcomes_known", "assumed_complete", "look_unfinished")
    has_ends = knows_assumed(lake)
    asked = [*of_ends] if has_ends else [f"0 AS {name}" for name in of_ends]
    rows = lake.dicts(f"SELECT {', '.join([*STATUS_COLUMNS, *asked])} FROM coverage ORDER BY dataset")
    known = {} if has_ends else known_outcomes(lake)
    stale, embedded = chunks_to_build(lake), embedded_pictures(lake)
    revisions = dict(lake.rows("SELECT dataset, source_revision FROM datasets"))
    for row in rows:
        dataset = row["dataset"]
        ends = {name: row.pop(name) for name in of_ends}
        row |= ends | ({} if has_ends else {"outcomes_known": known.get(dataset, 0)})
        row["stale_chunks"] = stale.get(dataset, 0)
        row["revision"] = revisions.get(dataset)
        row["embeddings"] = embedded.get(dataset)
    return rows


def show_status(rows: list[dict]) -> None:
    """Rows of status_rows as people read them: commits shortened; these and embeddings only where there are any; then
    what is asked.
    """
    from warehouse.lake.outcomes import question

    shown = [_with_share(row) for row in rows]
    are_pinned, has_embeddings = any(row["revision"] for row in rows), any(row["embeddings"] for row in rows)
    for row in shown:
        revision = row.pop("revision")
        if are_pinned:
            row["revision"] = (revision or "")[:SHOWN_OF_COMMIT]
        if not has_embeddings:
            del row["embeddings"]
    show(shown, "table")
    asked = [question(row["dataset"], row["look_unfinished"], row["ok"]) for row in rows]
    for text in filter(None, asked):
        print(f"{text}: {UNFINISHED_AT}")


def show_references(lake: "Lake", names: Collection[str]) -> None:
    """How many runs of each of the named datasets are labelled like which references."""
    from warehouse.lake.references import sentences

    for name, text in sentences(lake).items():
        if name in names:
            print(f"{name}: {text}")


def _with_share(row: dict) -> dict:
    """The row with its outcomes in one column of words."""
    share = share_known(row["outcomes_known"], row["ok"])
    if row["assumed_complete"]:
        share += f", {row['assumed_complete']} assumed complete"
    words = {"outcomes" if name == "outcomes_known" else name: value for name, value in row.items()}
    words["outcomes"] = share
    return {name: value for name, value in words.items() if name not in ("assumed_complete", "look_unfinished")}


def share_known(known: int, episodes: int) -> str:
    """The number of usable episodes with a known outcome."""
    return f"{known} of {episodes} known"


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def show(rows: list[dict], style: str, *, empty: str = "No rows.") -> None:
    """Rows as a table, with units, or as JSON when `style` says so."""
    if style == "json":
        print_json(rows)
        return
    if not rows:
        print(empty)
        return
    with_units = [{name: _with_unit(name, value) for name, value in row.items()} for row in rows]
    print(table_text(with_units, list(rows[0]), width_here()))


def _with_unit(name: str, value: Any) -> Any:
    if name != "bytes" or not isinstance(value, int):
        return value
    from explorer.filters import size  # which brings numpy: only where there are bytes

    return size(value)


def show_facts(facts: dict, style: str) -> None:
    """One result: as a table of one row, or as a JSON object when `style` says so."""
    if style == "json":
        print_json(facts)
    else:
        show([facts], "table")


def write_result(table: "pa.Table", style: str, out: Path | None) -> bool:
    """A query's result to a file or to standard output; False for Parquet on a terminal, which nobody wants."""
    if style == "table" and out is None:
        # As they are: a query's numbers are what its author asked for
        rows = plain(python_rows(table))
        print(table_text(rows, table.schema.names, width_here()) if rows else "No rows.")
        return True
    data = encode(table, style)
    if out:
        out.write_bytes(data)
    elif style == "parquet" and sys.stdout.isatty():
        return False
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return True
