"""Hashes of what people said of a dataset, and what passes found of it: the plan of its listing depends on them."""

from ingest.outcomes import BY_PERSON
from warehouse.lake.connection import LakeConnection, row_by_row
from warehouse.lake.outcomes import OUTCOMES_IN_FORCE
from warehouse.lake.publication import content_key
from warehouse.lake.recordings import LISTING
from warehouse.lake.statements import said_of

OUTCOMES = (
    f"SELECT episode_index, success, file FROM ({OUTCOMES_IN_FORCE}) WHERE {row_by_row('dataset')}"
)
CHANGES = (
    "SELECT recording || ' ' || what || ' ' || created_at FROM recording_changes "
    "WHERE dataset = ? AND found_by <> ? ORDER BY 1"
)


def listing_stamps(lake: LakeConnection, dataset: str) -> list[str]:
    """What a dataset's listing depends on, beside its source; nothing where nobody said anything.

    By the numbers that the episodes had when it was said: those do not change when recordings move.
    """
    stamps = []
    taken_down = lake.column("SELECT episode_index FROM takedowns WHERE dataset = ?", [dataset])
    if taken_down:
        episodes = "all" if None in taken_down else str(sorted(taken_down))
        stamps.append(content_key("taken down", episodes))
    if dataset in said_of(lake)["outcomes"]:
        outcomes = [
            f"{episode} {success} {BY_PERSON}{file}"
            for episode, success, file in sorted(lake.rows(OUTCOMES, [dataset]))
        ]
        if outcomes:
            stamps.append(content_key("outcomes", *outcomes))
    # What later passes and people found of its recordings
    changes = lake.column(CHANGES, [dataset, LISTING])
    if changes:
        stamps.append(content_key("recordings", *changes))
    return stamps
