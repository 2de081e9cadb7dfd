"""Tags that people put on episodes, and who is to look at them: rows that are only ever added to.

The newest row of an episode and a tag says whether the tag is on, the newest assignment of an episode who has it
(the views current_tags and current_assignments).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from core.tables import TABLES
from warehouse.lake.corrections import ConflictError
from warehouse.lake.hashes import content_key
from warehouse.lake.lake import Lake
from warehouse.lake.statements import CorrectionError, checked_text, time_after

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
        newest = _newest(lake, places, kind, value)
        for place in places:
            before = newest[place]
            if bool(before["is_on"] and before["value"] == value) != is_on:
                # Nobody's assignment is replaced unseen
                if kind == ASSIGNED and follows is not None and before["mark_id"] not in (None, follows.get(place)):
                    raise ConflictError(_conflict(place, before))
                rows.append(_row(place, kind, value, is_on, author, before))
        return TABLES["episode_marks"].rows(rows)

    lake.append(f"{kind} {value}", "episode_marks", new_rows)
    return rows


def _newest(lake: Lake, places: Sequence[Place], kind: Kind, value: str) -> dict[Place, dict[str, Any]]:
    """The newest row of each episode, of the same tag, or any assignment; without one, of nulls. Raises CorrectionError
    for an episode that is not there."""
    keys = [f"{dataset} {episode_index}" for dataset, episode_index in places]
    newest = (
        "SELECT * FROM episode_marks WHERE kind = $2 AND (kind = 'assigned' OR value = $3) QUALIFY row_number() OVER "
        "(PARTITION BY dataset, episode_index ORDER BY created_at DESC, mark_id DESC) = 1"
    )
    rows = lake.dicts(
        f"SELECT f.dataset, f.episode_index, m.* EXCLUDE (dataset, episode_index) FROM episode_facts f "
        f"LEFT JOIN ({newest}) m USING (dataset, episode_index) WHERE list_contains($1, f.dataset || ' ' || "
        "f.episode_index) AND list_contains($4, f.dataset)",
        [keys, kind, value, sorted({dataset for dataset, _ in places})],
    )
    found = {(row["dataset"], row["episode_index"]): row for row in rows}
    for dataset, episode_index in sorted({*places} - {*found}):
        raise CorrectionError(f"the corpus has no episode {episode_index} of {dataset!r}")
    return found


def _row(place: Place, kind: Kind, value: str, is_on: bool, author: str, before: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": place[0], "episode_index": place[1], "kind": kind, "value": value}
    row |= {"is_on": is_on, "follows": before["mark_id"], "author": author}
    mark_id = content_key(json.dumps(list(row.values())))[:16]
    return row | {"mark_id": mark_id, "created_at": time_after(before["created_at"])}


def _conflict(place: Place, before: Mapping[str, Any]) -> str:
    dataset, episode_index = place
    when = before["created_at"].strftime("%Y-%m-%d %H:%M:%S UTC")
    what = f"assigned to {before['value']}" if before["is_on"] else "assigned to nobody any more"
    return f"episode {episode_index} of {dataset} was {what} by {before['author']} on {when}: reload and look again"
