"""The stage demonstrations: a row per usable run, equal for any workers, outdated by measurements and nothing else."""

from pathlib import Path

import pytest

from pipeline.build import run_build
from pipeline.chunk import Moment
from pipeline.plan import CURRENT, MISSING, plan
from pipeline.stages import stage_specs
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, write_rows
from warehouse.lake import Lake

ALL_ROWS = "FROM demonstration_measures ORDER BY episode_index"


def test_every_usable_run_is_measured(made: Made):
    rows = made.rows("SELECT episode_index, chunk, duration_s, camera FROM demonstration_measures ORDER BY 1")
    frames = made.rows("SELECT episode_index, num_frames / fps FROM episodes ORDER BY 1")
    assert [(e, e // 2, d) for e, d in frames] == [row[:3] for row in rows]
    assert len(rows) == len(LENGTHS)
    ends = made.rows(
        "SELECT m.episode_index FROM demonstration_measures m JOIN episode_content c USING (dataset, episode_index)"
        " JOIN frames f ON f.dataset = m.dataset AND f.episode_index = m.episode_index"
        " AND f.frame_index = c.num_frames - 1 AND f.camera = m.camera AND f.phash = m.end_phash ORDER BY 1"
    )
    assert [e for (e,) in ends] == list(range(len(LENGTHS)))


def test_an_older_lake_gets_it_without_decoding(made: Made, tmp_path: Path):
    """Of a lake built before there was this stage, nothing but this stage is missing."""
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    before = lake.rows(ALL_ROWS)
    lake.con.execute("DELETE FROM stage_runs WHERE stage = 'demonstrations'")
    lake.con.execute("DELETE FROM demonstration_measures")
    fingerprint = own.build.source(own.space.sources).fingerprint()
    steps = plan(lake, {"tiny": stage_specs(own.build)}, {"tiny": fingerprint})
    missing = {(step.stage.name, step.chunk) for step in steps if step.status == MISSING}
    assert missing == {("demonstrations", chunk) for chunk in range(3)}
    assert {step.status for step in steps} == {CURRENT, MISSING}
    lake.con.close()
    moments: list[Moment] = []
    planned: list[tuple[str, int | None]] = []
    report = run_build(
        own.space, [own.build], workers=1, on_moment=moments.append,
        on_steps=lambda steps: planned.extend((step.stage.name, step.chunk) for step in steps),
    )  # fmt: skip
    assert {r.run.stage for r in report.done} == {"demonstrations"}
    assert planned == [("demonstrations", chunk) for chunk in range(3)]
    assert [(m.chunk, m.stage, m.duration_s is None) for m in moments] == [
        (chunk, "demonstrations", begins) for chunk in range(3) for begins in (True, False)
    ]
    assert Lake(own.space, read_only=True).rows(ALL_ROWS) == before


def test_a_changed_run_concerns_its_chunk_alone(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    write_rows(own.source, 4, LENGTHS[4], scale=3.0)
    report = run_build(own.space, [own.build], workers=1)
    assert [r.run.chunk for r in report.done if r.run.stage == "demonstrations"] == [2]


@pytest.mark.slow
def test_two_workers_measure_the_same(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    before = lake.rows(ALL_ROWS)
    lake.con.execute("DELETE FROM stage_runs WHERE stage = 'demonstrations'")
    lake.con.execute("DELETE FROM demonstration_measures")
    lake.con.close()
    moments: list[Moment] = []
    assert run_build(own.space, [own.build], workers=2, on_moment=moments.append).done
    assert sorted((m.chunk, m.duration_s is None) for m in moments) == [
        (chunk, begins) for chunk in range(3) for begins in (False, True)
    ]
    assert Lake(own.space, read_only=True).rows(ALL_ROWS) == before
