"""Datasets of videos and tables, spoilt in every way known: none crashes, hangs, or reaches outside its folder.

`fuzz_batch.py` says how to look at one of them alone.
"""

from pathlib import Path

import pytest

from tests.kits.fuzz_batch import check


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "base",
    [
        *("lerobot_v2", "lerobot_v3", "lerobot_pictures", "lerobot_steps", "lerobot_labels"),
        *("robo_dopamine", "video", "table30", "rh20t", "zarr"),
    ],
)
def test_mutants(tmp_path: Path, base: str) -> None:
    """Each ends built or quarantined with a reason, or refused where nothing of it can be known any more."""
    check(tmp_path, base, None)
