"""What a check of a run's signals finds: a finding with its stretch and what was measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.values import grouped
from ingest.episode import Finding

MAX_IN_WORDS = 3  # stretches of one check that a finding names; all of them are in the table
COLUMNS = ("episode_index", "signal", "start_frame", "end_frame", "measured", "usual", "unit")


def run_fault(
    check: str,
    episode_index: int,
    start_frame: int,
    end_frame: int,
    detail: str,
    measured: float,
    usual: float,
    unit: str,
    camera: str | None = None,
    signal: str = "",
    other: tuple[str, int] | None = None,
) -> Finding:
    """A finding about a stretch of a usable run."""
    return Finding(
        check,
        detail,
        "warning",
        episode_index,
        camera,
        None,
        signal,
        start_frame,
        end_frame,
        measured,
        usual,
        unit,
        other,
    )


def fault_row(fault: Finding) -> dict[str, Any]:
    """The fault as columns of the table `run_checks` (without dataset and chunk)."""
    other_dataset, other_episode = fault.other or (None, None)
    return {name: getattr(fault, name) for name in COLUMNS} | {
        "check_name": fault.reason,
        "detail": fault.detail,
        "camera": fault.camera or "",
        "other_dataset": other_dataset,
        "other_episode": other_episode,
    }


def joined_faults(faults: Sequence[Finding]) -> list[Finding]:
    """A warning for each check, run and camera that has faults; it names the longest stretches in order of time."""
    groups = grouped(((f.reason, f.episode_index, f.camera), f) for f in faults)
    return [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Finding]) -> Finding:
    longest = sorted(group, key=lambda fault: fault.start_frame - fault.end_frame)[:MAX_IN_WORDS]
    details = [fault.detail for fault in sorted(longest, key=lambda fault: fault.start_frame)]
    if len(group) > MAX_IN_WORDS:
        details.append(f"and {len(group) - MAX_IN_WORDS} more")
    return replace(group[0], detail="; ".join(details))
