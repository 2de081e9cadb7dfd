"""Taking data down: episodes that must not be used or given on any more, and what follows from it.

A mark in the lake, at once: releases leave the data out, and the plan sees what was made of it as stale. The next build
makes its chunks without it, and gc then deletes the bytes that no kept release names.
"""

from collections.abc import Collection
from datetime import UTC, datetime

from core.errors import UserError
from core.tables import TABLES
from warehouse.lake import Lake, content_key
from warehouse.lake.statements import known_episodes


def takedown_marks(lake: Lake, dataset: str | None = None) -> list[dict]:
    """Every mark, of one dataset or of all: dataset, episode_index (None: all of it), reason, created_at."""
    of = "dataset = coalesce(?, dataset)"
    return lake.dicts(f"SELECT * FROM takedowns WHERE {of} ORDER BY dataset, episode_index NULLS FIRST", [dataset])


def taken_down(lake: Lake) -> dict[str, frozenset[int] | None]:
    """Episodes taken down of each dataset that has some; None: all of them."""
    rows = lake.rows("SELECT dataset, list(episode_index), bool_or(episode_index IS NULL) FROM takedowns GROUP BY 1")
    return {dataset: None if whole else frozenset(episodes) for dataset, episodes, whole in rows}


def takedown_stamp(lake: Lake, dataset: str) -> str:
    """What a dataset's plan depends on, beside its source; empty where nothing is taken down."""
    down = taken_down(lake)
    if dataset not in down:
        return ""
    episodes = down[dataset]
    return content_key("taken down", "all" if episodes is None else str(sorted(episodes)))


def take_down(lake: Lake, dataset: str, episodes: Collection[int] | None, reason: str) -> list[dict]:
    """Mark episodes (None: the whole dataset) as not to be used; returns the marks. Raises UserError."""
    if unknown := sorted(set(episodes or ()) - known_episodes(lake, dataset).keys()):
        raise UserError(f"{dataset} has no episode {unknown[0]}; proccorpus sql lists them in the view episodes")
    if not reason.strip():
        raise UserError("give a --reason: the quarantine shows it to people who miss the data")
    marked = [None] if episodes is None else sorted(set(episodes))
    rest = {"reason": reason.strip(), "created_at": datetime.now(UTC)}
    marks = [{"dataset": dataset, "episode_index": episode, **rest} for episode in marked]
    lake.upsert(f"take down {dataset}", takedowns=TABLES["takedowns"].rows(marks))
    return marks


def undo(lake: Lake, dataset: str, episodes: Collection[int] | None) -> int:
    """Take marks back: those of some episodes, or all of the dataset's; returns how many. Raises UserError."""
    where, values = "dataset = ?", [dataset]
    if episodes is not None:
        where, values = f"{where} AND list_contains(?, episode_index)", [dataset, sorted(set(episodes))]
    count = lake.remove(f"undo takedown of {dataset}", where, values, "takedowns")
    if not count:
        named = ", ".join(map(str, sorted(taken_down(lake).get(dataset) or ())))
        there = f"taken down are its episodes {named}" if named else "proccorpus sql 'FROM takedowns' lists what is"
        raise UserError(f"nothing of that is taken down of {dataset}: {there}")
    return count
