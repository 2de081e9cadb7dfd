"""Datasets made to harm: each ends with a finding or one line, within memory and time, and reads nothing outside.

Every twelfth of them by `make fuzz`; all of them by `make fuzz HOSTILE=all`.
"""

import os
from pathlib import Path

import pytest

from tests.kits.fuzz_batch import PEAK_MB, Batch, Outcome, run_batch
from tests.kits.hostile_datasets import HOSTILE, write_hostile
from tests.kits.spoil import write_outside

NAMES = list(HOSTILE)
# Odd, but whole: there is nothing to find fault with
WHOLE = {"v2_info_names", "v2_info_totals", "v2_numbers", "video_notes_deep"}


def built(folder: Path, names: list[str]) -> dict[str, Outcome]:
    """Build all in one process, which ends itself where it says nothing for too long (SILENCE_S)."""
    batch = Batch(folder)
    write_outside(batch.outside)
    for name in names:
        root = folder / "mutants" / name
        write_hostile(name, root, batch.outside)
        batch.mutants[name] = root, {}
    outcomes, peak_mb = run_batch(batch)
    assert peak_mb < PEAK_MB, f"{peak_mb} MB"
    assert outcomes.keys() == set(names)
    for name, outcome in outcomes.items():
        assert outcome.kind in ("built", "quarantined", "refused"), (name, outcome)
        assert outcome.faults == (), (name, outcome)
        assert outcome.why or name in WHOLE, (name, outcome)
        # What was refused is told in one line
        assert outcome.kind != "refused" or "\n" not in "".join(outcome.why).strip(), (name, outcome)
    return outcomes


@pytest.mark.fuzz
def test_some(tmp_path: Path) -> None:
    assert len(NAMES) >= 100
    built(tmp_path, NAMES[::12])


@pytest.mark.fuzz
@pytest.mark.skipif(not os.environ.get("PROCCORPUS_HOSTILE"), reason="make fuzz HOSTILE=all")
@pytest.mark.parametrize("part", range(6))
def test_all(tmp_path: Path, part: int) -> None:
    built(tmp_path, NAMES[part::6])
