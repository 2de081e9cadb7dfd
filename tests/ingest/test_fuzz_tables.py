"""As test_fuzz.py, for formats in containers of their own, and for parts of real datasets."""

from pathlib import Path

import pytest

from tests.kits.fuzz_bases import REAL_BASES
from tests.kits.fuzz_batch import check


@pytest.mark.fuzz
@pytest.mark.parametrize("base", ["rlds", "libero", "aloha", "robotwin", "agibot", "agibot_tars"])
def test_mutants(tmp_path: Path, base: str) -> None:
    check(tmp_path, base, None)


@pytest.mark.fuzz
@pytest.mark.parametrize("base", REAL_BASES)
def test_real_mutants(tmp_path: Path, base: str) -> None:
    check(tmp_path, base, range(0, 24, 8))
