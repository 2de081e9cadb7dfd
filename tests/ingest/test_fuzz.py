"""Datasets spoilt in every way known, those made to harm, and bytes for each parser of ours: none crashes, hangs, fills
the memory, or reaches outside its folder.

The parsers' bytes again: PROCCORPUS_FUZZ_SEED.
"""

import os
import random
from pathlib import Path

import pytest

from tests.kits.fuzz_bases import BASES, REAL_BASES
from tests.kits.fuzz_batch import PEAK_MB, Batch, check, run_batch
from tests.kits.hostile_datasets import HOSTILE, write_hostile
from tests.kits.parser_fuzz import PARSERS, run
from tests.kits.spoil import write_outside

pytestmark = pytest.mark.fuzz
SECONDS = 10.0  # for each parser
PARTS = 4  # of the hostile ones, each built in a process


@pytest.mark.parametrize("base", BASES)
def test_mutants(tmp_path: Path, base: str) -> None:
    """Each ends built or quarantined with a reason, or refused where nothing of it can be known any more."""
    check(tmp_path, base, None)


@pytest.mark.parametrize("base", REAL_BASES)
def test_real_mutants(tmp_path: Path, base: str) -> None:
    check(tmp_path, base, range(0, 24, 8))


@pytest.mark.parametrize("part", range(PARTS))
def test_datasets_made_to_harm(tmp_path: Path, part: int) -> None:
    """Each ends with a finding or one line, within memory and time, and nothing outside is read."""
    batch = Batch(tmp_path)
    write_outside(batch.outside)
    for name in [*HOSTILE][part::PARTS]:
        root = tmp_path / "mutants" / name
        write_hostile(name, root, batch.outside)
        batch.mutants[name] = root, {}
    outcomes, peak_mb = run_batch(batch)
    assert peak_mb < PEAK_MB, f"{peak_mb} MB"
    assert outcomes.keys() == batch.mutants.keys()
    for name, outcome in outcomes.items():
        assert outcome.kind in ("built", "quarantined", "refused"), (name, outcome)
        assert outcome.faults == (), (name, outcome)
        assert outcome.why, (name, outcome)
        # What was refused is told in one line
        assert outcome.kind != "refused" or "\n" not in "".join(outcome.why).strip(), (name, outcome)


@pytest.mark.parametrize("name", PARSERS)
def test_parsers(tmp_path: Path, name: str) -> None:
    # As `make fuzz` gives and prints it
    seed = int(os.environ.get("PROCCORPUS_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"{name}: seed {seed}")
    assert run(name, tmp_path, SECONDS, seed) > 20
