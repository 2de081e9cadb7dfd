"""A longer catalog: what reads no other dataset's rows works though their files are not there."""

from pathlib import Path

import pytest

from benchmarks import lake_growth, synthetic


def test_a_lake_with_five_times_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synthetic, "CHUNK", 12)
    monkeypatch.setattr(synthetic, "DATASETS", 2)
    monkeypatch.setattr(synthetic, "episodes_of_each", lambda scale: 12)
    monkeypatch.setattr(lake_growth, "TURNS", 1)
    found = lake_growth.grown(tmp_path, [1, 5])
    less, more = found
    assert 2 * less < more < 5 * less, "files of no partition are listed once"
    assert [len(of) for of in found.values()] == [4, 4]
    assert all(cpu_s > 0 for of in found.values() for cpu_s in of.values())
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]
