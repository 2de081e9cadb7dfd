"""Known oddities that people accepted: faults of a check that are not told again, of some runs or of a whole dataset.

Rows are only ever added; the view current_acceptances has those in force. What is accepted of a run follows its
recording, as all that people say does.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from core.errors import UserError
from core.names import did_you_mean
from core.values import grouped
from ingest.reasons import REASONS, reason_of
from warehouse.lake.connection import LakeConnection
from warehouse.lake.statements import Home, Row, checked_text, known_episodes, say

MAX_WHY = 2000  # characters


def accept(
    lake: LakeConnection,
    dataset: str,
    check: str,
    episodes: Collection[int] | None,
    *,
    why: str,
    author: str,
    recordings: Mapping[Home, str] | None = None,
) -> list[dict[str, Any]]:
    """Accept the faults that a check found in some runs, by their present numbers, or (None) in all
    of a dataset's.

    recordings: what the author has seen in its place. Returns the new rows; none where the same was
    accepted with the same words before. Raises
    UserError: there is no such dataset, or the check found nothing there; CorrectionError: a text
    that cannot be saved.
    """
    author = checked_text("author", author, 100)
    why = checked_text("why", why, MAX_WHY)
    faulty_episodes = _runs_with(lake, dataset, check)
    for episode in sorted(set(episodes or ()) - faulty_episodes):
        other_episodes = (
            ", ".join(str(number) for number in sorted(faulty_episodes - {None}, key=str))
            or "none: leave --episodes out"
        )
        raise UserError(
            f"{check} found nothing in episode {episode} of {dataset}; it did in {other_episodes}"
        )
    return _say(
        lake,
        dataset,
        check,
        sorted(set(episodes)) if episodes is not None else [None],
        True,
        why,
        author,
        recordings,
    )


def take_back(
    lake: LakeConnection,
    dataset: str,
    check: str,
    episodes: Collection[int] | None,
    *,
    why: str = "",
    author: str,
    recordings: Mapping[Home, str] | None = None,
) -> list[dict[str, Any]]:
    """Tell faults again that were accepted: those of some runs, or (None) all that was accepted of
    the check.

    Returns the new rows. Raises UserError: nothing of that was accepted.
    """
    author = checked_text("author", author, 100)
    why = checked_text("why", why, MAX_WHY, empty=True)
    known_episodes(lake, dataset)
    accepted = {row["episode_index"] for row in listed(lake, dataset) if row["check_name"] == check}
    requested_episodes = accepted if episodes is None else set(episodes)
    if not accepted or requested_episodes - accepted:
        if None in accepted:
            obstacle = f"{check} is accepted for all of {dataset}: leave --episodes out"
        elif accepted:
            obstacle = f"accepted are its faults in {', '.join(sorted(map(str, accepted)))}"
        else:
            obstacle = f"nothing of {check} is accepted in {dataset}"
        raise UserError(f"there is nothing to take back: {obstacle}")
    return _say(
        lake, dataset, check, sorted(requested_episodes, key=str), False, why, author, recordings
    )


def listed(lake: LakeConnection, dataset: str | None = None) -> list[dict[str, Any]]:
    """What is accepted now, of one dataset or of all, by present numbers; episode_index None: all of the dataset."""
    return lake.dicts(
        "SELECT dataset, check_name, episode_index, why, author, created_at FROM current_acceptances "
        "WHERE dataset = coalesce(?, dataset) ORDER BY dataset, check_name, episode_index NULLS FIRST",
        [dataset],
    )


def open_faults(
    lake: LakeConnection, datasets: Collection[str] | None = None
) -> dict[str, dict[str, int]]:
    """By dataset and check how many usable runs have faults that nobody accepted, the commonest check first."""
    rows = lake.rows(
        "SELECT dataset, check_name, count(DISTINCT episode_index) AS runs FROM checks JOIN episodes e "
        "USING (dataset, episode_index) WHERE NOT is_accepted AND e.status = 'ok' GROUP BY ALL ORDER BY 1, 3 DESC, 2"
    )
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
    for check in checks:
        check_known(check)
    rows = lake.rows(
        "SELECT dataset, episode_index, list_sort(list(DISTINCT reason)) FROM open_warnings "
        "WHERE list_contains(?, reason) AND episode_index IS NOT NULL GROUP BY ALL ORDER BY 1, 2",
        [list(checks)],
    )
    return {(dataset, episode): run_checks for dataset, episode, run_checks in rows}


def stretches_with(
    lake: LakeConnection, checks: Collection[str]
) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """By run (dataset, episode_index) the half-open stretches of frames in which any of some checks found what nobody
    accepted. Raises UserError: there is no such check."""
    for check in checks:
        check_known(check)
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


def check_known(check: str) -> None:
    """Raises UserError: no check has this name."""
    if check not in REASONS:
        hint = did_you_mean(check, sorted(REASONS)) or "; docs/quarantine.md lists them"
        raise UserError(f"there is no check {check!r}{hint}")


def _runs_with(lake: LakeConnection, dataset: str, check: str) -> set[int | None]:
    """The runs in which a check found something that leaves them usable; None among them: the dataset as a whole."""
    known_episodes(lake, dataset)
    check_known(check)
    rows = lake.rows(
        "SELECT reason, severity, episode_index FROM findings WHERE dataset = ?", [dataset]
    )
    faulty_episodes = {
        episode for reason, severity, episode in rows if (reason, severity) == (check, "warning")
    }
    if faulty_episodes:
        return faulty_episodes
    if any(reason == check for reason, _, _ in rows):
        raise UserError(f"{check} makes runs of {dataset} unusable: {reason_of(check).remedy}")
    other_checks = ", ".join(
        sorted({reason for reason, severity, _ in rows if severity == "warning"})
    )
    raise UserError(
        f"{check} found nothing in {dataset}; there is {other_checks or 'no warning at all'}"
    )


def _say(
    lake: LakeConnection,
    dataset: str,
    check: str,
    episodes: Collection[int | None],
    is_accepted: bool,
    reason: str,
    author: str,
    recordings: Mapping[Home, str] | None,
) -> list[dict[str, Any]]:
    """Add a row for each run, or for the dataset (None), but where the newest says so already."""

    statement = {"is_accepted": is_accepted, "comment": reason, "author": author}
    rows = [
        {
            "dataset": dataset,
            "episode_index": episode,
            "recording": (recordings or {}).get((dataset, episode)),
            "subject": check,
            **statement,
        }
        for episode in episodes
    ]

    def complete(row: dict[str, Any], former: Row | None) -> dict[str, Any] | None:
        return None if former and statement.items() <= former.items() else row

    return say(lake, "acceptance", lambda: rows, complete=complete)
