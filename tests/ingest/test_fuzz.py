"""Datasets of videos and tables, spoilt in every way known: none crashes, hangs, or reaches outside its folder.

`fuzz_batch.py` says how to look at one of them alone.
"""

from pathlib import Path

import pytest

from tests.kits.fuzz_bases import BASES, write_base
from tests.kits.fuzz_batch import check, watched
from tests.kits.mutations import BY_PATH, applicable


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


def test_number_of_mutants(tmp_path: Path) -> None:
    """Each mutation there is, of each dataset that it can be done to."""
    numbers, done = [], set()
    for base in BASES:
        write_base(base, tmp_path / base)
        known = applicable(tmp_path / base)
        numbers.append(len(known))
        done |= {mutation for _, mutation in known}
    assert sum(numbers) >= 320
    assert done == {mutation for mutations in BY_PATH.values() for mutation in mutations}


def test_watching(tmp_path: Path) -> None:
    """The tests above can fail: to open a file or to list a folder is seen."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below/secret").write_text("x")
    with watched(tmp_path) as events:
        list((tmp_path / "below").iterdir())
        (tmp_path / "below/secret").read_text()
    assert any("below/secret 0x20" in e for e in events)
    assert any(e.endswith("below 0x40000020") for e in events)
