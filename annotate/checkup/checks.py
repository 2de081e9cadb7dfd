"""The checkup of a chunk's runs: all checks in one list, each by itself; those that look at a run, then comparisons."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from annotate.checkup.cameras import black_stretches, frozen_stretches
from annotate.checkup.faults import RunFault
from annotate.checkup.signals import RunSignals

RUN_CHECKS: tuple[Callable[[RunSignals], Iterator[RunFault]], ...] = (black_stretches, frozen_stretches)


@dataclass
class Checkup:
    """Gathers the faults of runs, a run at a time, and what comparisons need of each."""

    own: dict[int, list[RunFault]] = field(default_factory=dict)

    def add(self, run: RunSignals) -> None:
        faults = [fault for check in RUN_CHECKS for fault in check(run)]
        self.own[run.episode_index] = faults

    def without(self, episodes: Collection[int]) -> "Checkup":
        """What was gathered of all other runs."""
        return replace(self, own={episode: faults for episode, faults in self.own.items() if episode not in episodes})

    def faults(self) -> list[RunFault]:
        """All faults, in order of runs and frames."""
        faults = [fault for faults in self.own.values() for fault in faults]
        return sorted(faults, key=lambda f: (f.episode_index, f.start_frame, f.check_name, f.camera, f.signal))
