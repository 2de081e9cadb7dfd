"""The checkup of a chunk's runs, and the faults among them.

All measures are in three lists, by what each looks at.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched, chain

from annotate.checkup.comparer import Measurement, faults
from annotate.checkup.comparisons import (
    Group,
    clipped_action,
    compared_runs,
    contradicted_outcomes,
    dead_dimensions,
    differing_texts,
    idle_ends,
    late_rows,
    moved_cameras,
    offsets,
    opposite_signs,
    other_units,
    still_gripper,
)
from annotate.checkup.copies import copies, exact_copies
from annotate.checkup.signals import RunSignals
from annotate.checkup.single_runs import (
    black_stretches,
    frozen_stretches,
    jumps,
    missing_frames,
    picture_jumps,
    stale_statistics,
    stuck_stretches,
)
from annotate.checkup.summary import RunSummary, summarize
from ingest.episode import Finding

# Of one run by itself
OF_RUNS: tuple[Callable[[RunSignals], Iterator[Measurement]], ...] = (
    black_stretches,
    frozen_stretches,
    picture_jumps,
    jumps,
    stuck_stretches,
    missing_frames,
    stale_statistics,
)
# Of one run beside the others of its task, or of any
OF_GROUPS: tuple[Callable[[RunSummary, Group], Iterator[Measurement]], ...] = (
    still_gripper,
    clipped_action,
    dead_dimensions,
    other_units,
    offsets,
    idle_ends,
)
# Of all runs together
OF_BLOCKS: tuple[Callable[[Sequence[RunSummary]], Iterator[Measurement]], ...] = (
    late_rows,
    moved_cameras,
    differing_texts,
    contradicted_outcomes,
    opposite_signs,
)
COMPARED = 500  # runs at a time, in order of their numbers; as many as a chunk has


@dataclass
class Checkup:
    """Gathers the faults of a dataset's runs, a run at a time, and what comparisons need of each."""

    dataset: str
    runs: dict[int, tuple[RunSummary, list[Finding]]] = field(default_factory=dict)

    def add(self, run: RunSignals) -> None:
        measurements = chain.from_iterable(measure(run) for measure in OF_RUNS)
        self.runs[run.episode_index] = summarize(run), [*faults(measurements)]

    def without(self, episodes: Collection[int]) -> "Checkup":
        """What was gathered of all other runs."""
        runs = {episode: run for episode, run in self.runs.items() if episode not in episodes}
        return replace(self, runs=runs)

    def faults(self) -> list[Finding]:
        """All faults, in order of runs and frames."""
        runs = [self.runs[episode][0] for episode in sorted(self.runs)]
        all_faults = [*chain.from_iterable(faults for _, faults in self.runs.values())]
        copied = {fault.episode_index: fault for fault in faults(exact_copies(self.dataset, runs))}
        # Runs are compared within blocks, so that time and memory grow with their number, not with its square
        for block in batched(runs, COMPARED):
            all_faults += faults(chain.from_iterable(measure(block) for measure in OF_BLOCKS))
            for run, group in compared_runs(block):
                all_faults += faults(chain.from_iterable(m(run, group) for m in OF_GROUPS))
            copied |= {fault.episode_index: fault for fault in faults(copies(self.dataset, block))}
        all_faults += copied.values()
        # What two measures show of one stretch is said once, by the first of them
        by_place = {_place(fault): fault for fault in reversed(all_faults)}
        return [by_place[place] for place in sorted(by_place)]


def _place(fault: Finding) -> tuple[int | None, int, str, str, str]:
    """What a fault is about, for order: episode, first frame, code, camera and signal."""
    return fault.episode_index, fault.start_frame, fault.reason, fault.camera or "", fault.signal
