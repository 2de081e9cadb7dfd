"""What all that people say of episodes has in common: rows that are only ever added to, their texts, ids and times."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import UserError
from core.tables import TABLES
from warehouse.lake.connection import LakeConnection
from warehouse.lake.hashes import content_key
from warehouse.lake.publishing import LakeWriter

TABLES_ASKED = ("corrections", "reference_marks", "outcomes")  # before what joins all that people said
MAX_FILE_BYTES = 1 << 30


class CorrectionError(UserError, ValueError):
    """What a person says and cannot be saved, or read: what is wrong with it, in a sentence."""


def said_of(lake: LakeConnection) -> Mapping[str, frozenset[str]]:
    """By table of people's statements the datasets that it has rows of: a quick look."""

    def look() -> dict[str, frozenset[str]]:
        rows = lake.rows(" UNION ALL ".join(f"SELECT DISTINCT '{t}', dataset FROM {t}" for t in TABLES_ASKED))
        return {table: frozenset(dataset for name, dataset in rows if name == table) for table in TABLES_ASKED}

    return lake.once("said", look)


def say(
    lake: LakeWriter, table: str, where: str, values: list[Any], make: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Add the rows that `make` gives, while nobody else can write; returns them with their time and common id.

    The id is a hash of the rows and of the newest of those that fit `where`, so that the same words said again later
    differ; the time is later than theirs.
    """
    name, rows = TABLES[table].key[0], list[dict[str, Any]]()

    def new_rows() -> pa.Table:
        made = make()
        newest = lake.rows(
            f"SELECT {name}, created_at FROM {table} WHERE {where} ORDER BY created_at DESC, 1 DESC LIMIT 1", values
        )
        follows, at = newest[0] if newest else ("", None)
        row_id = content_key(follows, *sorted(json.dumps(row, sort_keys=True) for row in made))[:16]
        rows.extend(row | {name: row_id, "created_at": time_after(at)} for row in made)
        return TABLES[table].rows(rows)

    lake.append(f"add to {table}", table, new_rows)
    return rows


def checked_text(what: str, text: str, most: int, *, empty: bool = False) -> str:
    """Text of a person, stripped. Raises CorrectionError: it is empty, too long, or not all of it can be written."""
    text = text.strip()
    if not text and not empty:
        raise CorrectionError(f"{what} is empty")
    if len(text) > most:
        raise CorrectionError(f"{what} is longer than {most} characters")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text):
        raise CorrectionError(f"{what} holds control characters or broken ones")
    return text


def time_after(newest: datetime | None) -> datetime:
    """The time of what a person says now: later than the newest row also where this machine's clock is behind.

    The order of rows says which one counts.
    """
    now = datetime.now(UTC)
    return max(now, newest + timedelta(microseconds=1)) if newest else now


def known_episodes(lake: LakeConnection, dataset: str) -> dict[int, str]:
    """The source_id of every episode that a dataset ever had: one that left the source keeps its number.

    Raises UserError: there is no such dataset.
    """
    datasets = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    if dataset not in datasets:
        raise UserError(f"the corpus has no dataset {dataset!r}; it has {', '.join(datasets) or 'none yet: build it'}")
    return dict(
        lake.rows(
            "SELECT episode_index, source_id FROM episode_ids WHERE dataset = $1 UNION "
            "SELECT episode_index, source_id FROM episode_facts WHERE dataset = $1",
            [dataset],
        )
    )


def read_text(path: Path) -> str:
    """A file of statements. Raises CorrectionError for what cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CorrectionError(f"{path} has more than {MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise CorrectionError(f"{path} is no UTF-8 text: {e.reason} at byte {e.start}") from e
    except OSError as e:
        raise CorrectionError(f"cannot read {path}: {e.strerror}") from e
