"""The stage demonstrations: a row per usable run, equal for any workers, outdated by measurements and nothing else."""

from pathlib import Path

import pytest

from pipeline.build import run_build
from pipeline.chunk import StageMoment
from tests.kits.made_corpus import Made
from warehouse.lake import Lake

ALL_ROWS = "FROM demonstration_measures ORDER BY episode_index"


@pytest.mark.slow
def test_two_workers_measure_the_same(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    before = lake.rows(ALL_ROWS)
    lake.con.execute("DELETE FROM stage_runs WHERE stage = 'demonstrations'")
    lake.con.execute("DELETE FROM demonstration_measures")
    lake.con.close()
    moments: list[StageMoment] = []
    assert run_build(own.space, [own.build], workers=2, on_moment=moments.append).done
    assert sorted((m.chunk, m.duration_s is None) for m in moments) == [
        (chunk, begins) for chunk in range(3) for begins in (False, True)
    ]
    assert Lake(own.space, read_only=True).rows(ALL_ROWS) == before
