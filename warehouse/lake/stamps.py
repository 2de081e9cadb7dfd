"""Hashes of what people said of a dataset, and what passes found of it: the plan of its listing depends on them."""

from ingest.outcomes import BY_PERSON
from warehouse.lake.connection import LakeConnection, row_by_row
from warehouse.lake.outcomes import OUTCOMES_IN_FORCE
from warehouse.lake.publication import content_key
from warehouse.lake.recordings import LISTING
from warehouse.lake.statements import said_of


def listing_stamps(lake: LakeConnection, dataset: str) -> list[str]:
    """What a dataset's listing depends on, beside its source; nothing where nobody said anything.

    By the numbers that the episodes had when it was said: those do not change when recordings move.
    """
    stamps = (
        _takedown_stamp(lake, dataset),
        _outcome_stamp(lake, dataset),
        _recordings_stamp(lake, dataset),
    )
    return [stamp for stamp in stamps if stamp]


def _takedown_stamp(lake: LakeConnection, dataset: str) -> str:
    sql = "SELECT episode_index FROM takedowns WHERE dataset = ?"
    episodes = lake.column(sql, [dataset])
    if not episodes:
        return ""
    return content_key("taken down", "all" if None in episodes else str(sorted(episodes)))


def _outcome_stamp(lake: LakeConnection, dataset: str) -> str:
    """Of the outcomes of people that count."""
    if dataset not in said_of(lake)["outcomes"]:
        return ""
    sql = f"SELECT episode_index, success, file FROM ({OUTCOMES_IN_FORCE}) WHERE {row_by_row('dataset')}"
    parts = [
        f"{episode} {success} {BY_PERSON}{file}"
        for episode, success, file in sorted(lake.rows(sql, [dataset]))
    ]
    if parts:
        return content_key("outcomes", *parts)
    return ""


def _recordings_stamp(lake: LakeConnection, dataset: str) -> str:
    """Of what later passes and people found of recordings."""
    sql = (
        "SELECT recording || ' ' || what || ' ' || created_at FROM recording_changes "
        "WHERE dataset = ? AND found_by <> ? ORDER BY 1"
    )
    recording_keys = lake.column(sql, [dataset, LISTING])
    if recording_keys:
        return content_key("recordings", *recording_keys)
    return ""
