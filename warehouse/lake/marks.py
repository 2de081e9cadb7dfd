"""Tags that people put on episodes, and who is to look at them: rows that are only ever added to.

The newest row of an episode and a tag says whether the tag is on, the newest assignment of an episode who has it
(the views current_tags and current_assignments).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from core.tables import TABLES
from warehouse.lake.corrections import ConflictError, CorrectionError, checked_text, time_after
from warehouse.lake.hashes import content_key
from warehouse.lake.lake import Lake

TAG, ASSIGNED = "tag", "assigned"
MOST_EPISODES = 1000  # marked at once
Kind = Literal["tag", "assigned"]
Place = tuple[str, int]  # dataset, episode_index


def mark(
    lake: Lake,
    places: Sequence[Place],
    kind: Kind,
    value: str,
    *,
    author: str,
    is_on: bool = True,
    follows: Mapping[Place, str | None] | None = None,
) -> list[dict[str, Any]]:
    """Put a tag on episodes or take it off, or assign them to a person or to nobody any more; returns the new rows.

    Where it is so already, no row is added. follows: of each episode the assignment that the author has seen.

    Tags of two people never conflict: each is put on and taken off by itself. Raises ConflictError when somebody else
    has assigned an episode meanwhile, and CorrectionError for episodes or texts that cannot be; then nothing is marked.
    """
    author, value = checked_text("author", author, 100), checked_text(kind, value, 100)
    places = list(dict.fromkeys(places))
    if not 0 < len(places) <= MOST_EPISODES:
        raise CorrectionError(f"{len(places)} episodes: 1 to {MOST_EPISODES} can be marked at once")
    rows: list[dict[str, Any]] = []

    def new_rows() -> pa.Table:
        _check_places(lake, places)
        newest = _newest(lake, places, kind, value)
        for place in places:
            before = newest.get(place)
            if kind == ASSIGNED and follows is not None:
                _check_follows(place, before, follows.get(place), value, is_on)
            if _says(before, value) != is_on:
                rows.append(_row(place, kind, value, is_on, author, before))
        return TABLES["episode_marks"].rows(rows)

    lake.append(f"{kind} {value}", "episode_marks", new_rows)
    return rows


def _check_places(lake: Lake, places: list[Place]) -> None:
    found = lake.rows(
        "SELECT dataset, episode_index FROM episode_facts "
        "WHERE list_contains(?, dataset || ' ' || episode_index) AND list_contains(?, dataset)",
        [[_key(p) for p in places], sorted({dataset for dataset, _ in places})],
    )
    missing = sorted({*places} - {*found})
    if missing:
        dataset, episode_index = missing[0]
        raise CorrectionError(f"the corpus has no episode {episode_index} of {dataset!r}")


def _newest(lake: Lake, places: list[Place], kind: Kind, value: str) -> dict[Place, dict[str, Any]]:
    """The newest row of each episode: of the same tag, or any assignment."""
    rows = lake.dicts(
        "SELECT * FROM episode_marks WHERE kind = ? AND (kind = 'assigned' OR value = ?) "
        "AND list_contains(?, dataset || ' ' || episode_index) "
        "QUALIFY row_number() OVER (PARTITION BY dataset, episode_index ORDER BY created_at DESC, mark_id DESC) = 1",
        [kind, value, [_key(p) for p in places]],
    )
    return {(row["dataset"], row["episode_index"]): row for row in rows}


def _check_follows(place: Place, before: dict[str, Any] | None, seen: str | None, value: str, is_on: bool) -> None:
    """Nobody's assignment is replaced unseen; one that says the same already is no conflict."""
    if before is None or before["mark_id"] == seen or _says(before, value) == is_on:
        return
    dataset, episode_index = place
    when = before["created_at"].strftime("%Y-%m-%d %H:%M:%S UTC")
    what = f"assigned to {before['value']}" if before["is_on"] else "assigned to nobody any more"
    raise ConflictError(
        f"episode {episode_index} of {dataset} was {what} by {before['author']} on {when}: reload and look again"
    )


def _says(row: dict[str, Any] | None, value: str) -> bool:
    """Does a row say that the tag is on, or that this person has the episode?"""
    return row is not None and row["is_on"] and row["value"] == value


def _row(
    place: Place, kind: Kind, value: str, is_on: bool, author: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    dataset, episode_index = place
    row: dict[str, Any] = {
        "dataset": dataset,
        "episode_index": episode_index,
        "kind": kind,
        "value": value,
        "is_on": is_on,
        "follows": before["mark_id"] if before else None,
        "author": author,
    }
    mark_id = content_key(json.dumps(list(row.values())))[:16]
    return row | {"mark_id": mark_id, "created_at": time_after(before["created_at"] if before else None)}


def _key(place: Place) -> str:
    return f"{place[0]} {place[1]}"
