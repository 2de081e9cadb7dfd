"""Labels that take a run for complete though nobody says so are marked in exports, and a build asks to show a run."""

from pathlib import Path

import pyarrow.parquet as pq

from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.lake.references import advice


def test_weights_and_metadata_say_whose_outcome_is_assumed(made_lake: Lake, tmp_path: Path):
    chosen = Selection(allow=("unknown",))
    exported = EXPORT_KINDS["rabc"].export(
        made_lake, chosen, tmp_path / "rabc", EXPORT_KINDS["rabc"].options()
    )
    assert (
        "tiny: 5 of 5 labels take for complete what nobody says the outcome of (outcome_assumed)"
        in exported.notes
    )
    weights = pq.read_table(tmp_path / "rabc/sarm_progress.parquet")
    assert set(weights["outcome_assumed"].to_pylist()) == {True}
    EXPORT_KINDS["lerobot"].export(made_lake, chosen, tmp_path / "lerobot")
    episodes = pq.read_table(sorted((tmp_path / "lerobot/meta/episodes").rglob("*.parquet")))
    assert episodes["outcome_assumed"].to_pylist() == [True] * 5
    assert made_lake.rows("SELECT count(*) FILTER (outcome_assumed) FROM active_outcomes") == [(5,)]


def test_tasks_that_nobody_has_shown_are_counted(made_lake: Lake):
    texts = [text for dataset, text in advice(made_lake) if dataset == "tiny"]
    assert texts[0].startswith("show one run of each of its 2 tasks: about two minutes")
