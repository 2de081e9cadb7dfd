"""Known oddities that people accepted: faults of a check that are not told again, of some runs or of a whole dataset.

Rows are only ever added; the view current_acceptances has those in force. What is accepted of a run follows its
recording, as all that people say does.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from typing import Any

from core.errors import UserError
from core.names import did_you_mean
from core.paths import Workspace
from core.values import grouped
from ingest.reasons import REASONS, reason_of
from warehouse.lake.connection import OF_USABLE, LakeConnection
from warehouse.lake.lake import lake_to_read
from warehouse.lake.statements import Home, checked_text, known_episodes, say, unless_said

MAX_WHY = 2000  # characters
# Warnings by run and code: the findings, and copies of another chunk's runs, which the view checks alone has
WARNINGS = """
(SELECT dataset, episode_index, reason FROM findings WHERE severity = 'warning'
 UNION SELECT dataset, episode_index, check_name FROM checks WHERE check_name = 'copy')"""
OPEN_WARNINGS = """
(SELECT dataset, episode_index, reason FROM open_warnings
 UNION SELECT dataset, episode_index, check_name FROM checks WHERE check_name = 'copy' AND NOT is_accepted)"""


def accept(
    lake: LakeConnection,
    dataset: str,
    check: str,
    episodes: Collection[int] | None,
    *,
    why: str,
    author: str,
    is_accepted: bool = True,
    recordings: Mapping[Home, str] | None = None,
) -> list[dict[str, Any]]:
    """Accept the faults that a check found in some runs, by their present numbers, or (None) in all of a dataset's;
    not is_accepted: tell them again (None: all that was accepted of the check).

    recordings: what the author has seen in its place. Returns the new rows; none where the same was said with the same
    words before. Raises UserError: there is no such dataset, the check found nothing there, or nothing of that was
    accepted; CorrectionError: a text that cannot be saved.
    """
    words = {
        "dataset": dataset,
        "subject": check,
        "is_accepted": is_accepted,
        "author": checked_text("author", author, 100),
        "comment": checked_text("why", why, MAX_WHY, empty=not is_accepted),
    }
    known_episodes(lake, dataset)
    chosen = (_faulty if is_accepted else _accepted)(lake, dataset, check, episodes)
    rows = [
        {**words, "episode_index": number, "recording": (recordings or {}).get((dataset, number))}
        for number in sorted(chosen, key=str)
    ]
    return say(lake, "acceptance", lambda: rows, complete=unless_said)


def _accepted(
    lake: LakeConnection, dataset: str, check: str, episodes: Collection[int] | None
) -> Collection[int | None]:
    """Of which runs, or the dataset (None), a check's faults are told again. Raises UserError."""
    accepted = {row["episode_index"] for row in listed(lake, dataset) if row["check_name"] == check}
    chosen = accepted if episodes is None else {*episodes}
    if accepted and chosen <= accepted:
        return chosen
    if None in accepted:
        obstacle = f"{check} is accepted for all of {dataset}: leave --episodes out"
    elif accepted:
        obstacle = f"accepted are its faults in {', '.join(sorted(map(str, accepted)))}"
    else:
        obstacle = f"nothing of {check} is accepted in {dataset}"
    raise UserError(f"there is nothing to take back: {obstacle}")


def listed(lake: LakeConnection, dataset: str | None = None) -> list[dict[str, Any]]:
    """What is accepted now, of one dataset or of all, by present numbers; episode_index None: all of the dataset."""
    return lake.dicts(
        "SELECT dataset, check_name, episode_index, why, author, created_at FROM current_acceptances "
        "WHERE dataset = coalesce(?, dataset) ORDER BY dataset, check_name, episode_index NULLS FIRST",
        [dataset],
    )


def accepted_by_source(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    """What is accepted now by the source of its dataset, for who looks at a source without a workspace.

    Raises LakeError: the lake cannot be read.
    """
    lake = lake_to_read(workspace)
    with closing(lake.con):
        sql = "SELECT dataset, config ->> '$.dataset.source' FROM build_configs"
        sources = dict(lake.rows(sql))
        return grouped((sources.get(row["dataset"], ""), row) for row in listed(lake))


def open_faults(
    lake: LakeConnection, datasets: Collection[str] | None = None
) -> dict[str, dict[str, int]]:
    """By dataset and check how many usable runs have faults that nobody accepted, the commonest check first."""
    sql = (
        "SELECT dataset, check_name, count(DISTINCT episode_index) AS runs FROM checks SEMI JOIN episode_facts "
        f"USING (dataset, episode_index) {OF_USABLE} WHERE NOT is_accepted GROUP BY ALL ORDER BY 1, 3 DESC, 2"
    )
    rows = lake.once("open faults", lambda: lake.rows(sql))
    return counts_by_dataset(row for row in rows if datasets is None or row[0] in datasets)


def counts_by_dataset(rows: Iterable[tuple]) -> dict[str, dict[str, int]]:
    """By dataset and check the count of rows (dataset, check, count), in their order."""
    checks = grouped((dataset, (check, count)) for dataset, check, count in rows)
    return {dataset: dict(counts) for dataset, counts in checks.items()}


def runs_with(lake: LakeConnection, checks: Collection[str]) -> dict[tuple[str, int], list[str]]:
    """Runs (dataset, episode_index) in which any of some checks found what nobody accepted, with
    the names of those.

    Raises UserError: there is no such check.
    """
    _check_known(*checks)
    rows = lake.rows(
        f"SELECT dataset, episode_index, list_sort(list(DISTINCT reason)) FROM {OPEN_WARNINGS} "
        "WHERE list_contains(?, reason) AND episode_index IS NOT NULL GROUP BY ALL ORDER BY 1, 2",
        [list(checks)],
    )
    return {(dataset, episode): run_checks for dataset, episode, run_checks in rows}


def stretches_with(
    lake: LakeConnection, checks: Collection[str]
) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """By run (dataset, episode_index) the half-open stretches of frames in which any of some checks found what nobody
    accepted. Raises UserError: there is no such check."""
    _check_known(*checks)
    rows = lake.rows(
        "SELECT DISTINCT dataset, episode_index, start_frame, end_frame FROM checks "
        "WHERE list_contains(?, check_name) AND NOT is_accepted ORDER BY ALL",
        [list(checks)],
    )
    return grouped(((dataset, episode), (start, end)) for dataset, episode, start, end in rows)


def in_words(counts: dict[str, int]) -> str:
    """Example: "camera_black in 1 run, camera_frozen in 2 runs"."""
    return ", ".join(
        f"{check} in {runs} {'run' if runs == 1 else 'runs'}" for check, runs in counts.items()
    )


def _check_known(*checks: str) -> None:
    """Raises UserError: no check has one of these names."""
    for check in sorted({*checks} - REASONS.keys()):
        hint = did_you_mean(check, sorted(REASONS)) or "; docs/quarantine.md lists them"
        raise UserError(f"there is no check {check!r}{hint}")


def _faulty(
    lake: LakeConnection, dataset: str, check: str, episodes: Collection[int] | None
) -> Collection[int | None]:
    """Of which runs, or the dataset (None), a check's faults are accepted. Raises UserError: it found nothing there
    that leaves runs usable."""
    _check_known(check)
    sql = f"SELECT episode_index FROM {WARNINGS} WHERE dataset = ? AND reason = ?"
    faulty = set(lake.column(sql, [dataset, check]))
    sql = "SELECT 1 FROM findings WHERE dataset = ? AND reason = ? LIMIT 1"
    if not faulty and lake.rows(sql, [dataset, check]):
        raise UserError(f"{check} makes runs of {dataset} unusable: {reason_of(check).remedy}")
    if not faulty:
        sql = f"SELECT DISTINCT reason FROM {WARNINGS} WHERE dataset = ? ORDER BY 1"
        warnings = ", ".join(lake.column(sql, [dataset])) or "no warning at all"
        raise UserError(f"{check} found nothing in {dataset}; there is {warnings}")
    if episodes is None:
        return {None}
    for episode in sorted({*episodes} - faulty):
        numbers = ", ".join(sorted(map(str, faulty - {None}))) or "none: leave --episodes out"
        raise UserError(
            f"{check} found nothing in episode {episode} of {dataset}; it did in {numbers}"
        )
    return {*episodes}
