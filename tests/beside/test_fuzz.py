"""As tests/ingest/test_fuzz.py, for parts of real datasets that may not be committed."""

from pathlib import Path

import pytest

from tests.kits.fuzz_bases import BESIDE_BASES
from tests.kits.fuzz_batch import check


@pytest.mark.fuzz
@pytest.mark.parametrize("base", BESIDE_BASES)
def test_real_mutants(tmp_path: Path, base: str) -> None:
    check(tmp_path, base, range(0, 24, 8))
