"""Datasets spoilt in every way known, those made to harm, and bytes for each parser of ours: none crashes, hangs, fills
the memory, or reaches outside its folder.

The parsers' bytes again: PROCCORPUS_FUZZ_SEED.
"""

import os
import random
from pathlib import Path

import pytest

from tests.kits.fuzz_bases import BASES
from tests.kits.fuzz_batch import built, check_mutants
from tests.kits.hostile_datasets import HOSTILE, write_hostile
from tests.kits.parser_fuzz import PARSERS, run
from tests.kits.spoil import write_outside

pytestmark = pytest.mark.fuzz
SECONDS = 10.0  # for each parser
PARTS = 4  # of the hostile ones, each built in a process


@pytest.mark.parametrize("base", BASES)
def test_mutants(tmp_path: Path, base: str) -> None:
    """Each ends built or quarantined with a reason, or refused where nothing of it can be known any more."""
    check_mutants(tmp_path, base)


@pytest.mark.parametrize("part", range(PARTS))
def test_datasets_made_to_harm(tmp_path: Path, part: int) -> None:
    """Each ends with a finding or one line, within memory and time, and nothing outside is read."""
    write_outside(tmp_path / "outside")
    names = [*HOSTILE][part::PARTS]
    for name in names:
        write_hostile(name, tmp_path / "mutants" / name, tmp_path / "outside")
    for name, outcome in built(tmp_path, names).items():
        assert outcome.kind in ("built", "quarantined", "refused"), (name, outcome)
        assert (list(outcome.faults), bool(outcome.why)) == ([], True), (name, outcome)
        # What was refused is told in one line
        assert outcome.kind != "refused" or "\n" not in "".join(outcome.why).strip(), (name, outcome)


@pytest.mark.parametrize("name", PARSERS)
def test_parsers(tmp_path: Path, name: str) -> None:
    # As `make fuzz` gives and prints it
    seed = int(os.environ.get("PROCCORPUS_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"{name}: seed {seed}")
    assert run(name, tmp_path, SECONDS, seed) > 20
