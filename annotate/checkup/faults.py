"""What a check of a run's signals finds: the fault, its stretch and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.values import grouped
from ingest.episode import Finding
from ingest.reasons import REASONS

MAX_IN_WORDS = 3  # stretches of one check that a finding names; all of them are in the table


@dataclass(frozen=True)
class RunFault:
    """One row of the table `run_checks`, without dataset and chunk.

    start_frame, end_frame: the stretch, half-open. measured, usual: in `unit`; `usual` is that of
    the other runs of its task, or a limit. other: dataset and episode of another run that it is
    about, such as the one that it is a copy of.
    """

    check_name: str
    episode_index: int
    start_frame: int
    end_frame: int
    detail: str
    measured: float
    usual: float
    unit: str
    camera: str = ""
    signal: str = ""
    other: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.check_name not in REASONS:
            raise ValueError(f"unknown check {self.check_name!r}")


def fault_row(fault: RunFault) -> dict[str, Any]:
    """The fault as columns of the table `run_checks` (without dataset and chunk)."""
    other_dataset, other_episode = fault.other or (None, None)
    fields = {
        name: getattr(fault, name) for name in RunFault.__dataclass_fields__ if name != "other"
    }
    return fields | {"other_dataset": other_dataset, "other_episode": other_episode}


def fault_findings(faults: Sequence[RunFault]) -> list[Finding]:
    """A warning for each check, run and camera that has faults; it names the longest stretches in order of time."""
    groups = grouped(((f.check_name, f.episode_index, f.camera), f) for f in faults)
    return [_finding(group) for group in groups.values()]


def _finding(group: Sequence[RunFault]) -> Finding:
    longest = sorted(group, key=lambda fault: fault.start_frame - fault.end_frame)[:MAX_IN_WORDS]
    details = [fault.detail for fault in sorted(longest, key=lambda fault: fault.start_frame)]
    if len(group) > MAX_IN_WORDS:
        details.append(f"and {len(group) - MAX_IN_WORDS} more")
    first = group[0]
    return Finding(
        first.check_name, "; ".join(details), "warning", first.episode_index, first.camera or None
    )
