"""The parsers that are ours against hypothesis, some seconds each; `parser_fuzz.py` says how to go on for longer."""

import os
import random
from pathlib import Path

import pytest

from tests.kits.parser_fuzz import PARSERS, run

SECONDS = 10.0


@pytest.mark.fuzz
@pytest.mark.parametrize("name", PARSERS)
def test_parsers(tmp_path: Path, name: str) -> None:
    # As `make fuzz` gives and prints it
    seed = int(os.environ.get("PROCCORPUS_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"{name}: seed {seed}")
    assert run(name, tmp_path, SECONDS, seed) > 20
