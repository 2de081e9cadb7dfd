"""Outcomes that people give, and parts of a source: what a build makes of them, of which chunks, and nothing else."""

from ingest.episode import Listing, SourcePart
from ingest.episodes import storable
from ingest.reasons import Limits
from tests.kits.tiny_lerobot import write_video
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes

EPISODE = 2  # in chunk 1
OUTCOME = "SELECT success, success_source FROM episodes WHERE episode_index = ?"


def test_outcomes_outlast_a_changed_source(own):
    lake = Lake(own.space)
    add_outcomes(lake, "tiny", "seen.csv", [StatedOutcome(EPISODE, False, None, "ada")])
    own.rebuild()
    write_video(own.source, EPISODE, 31)
    assert ("frames", 1) in own.rebuild()
    assert lake.rows(OUTCOME, [EPISODE]) == [(False, "person: seen.csv")]


PARTS = "SELECT kind, name, status, num_times FROM source_parts WHERE kind = 'file' ORDER BY ALL"


def test_a_file_that_nothing_reads_is_in_the_lake_and_stales_no_label(own):
    parts_before = own.rows(PARTS)
    (own.source / "quux_readings.bin").write_bytes(b"x")
    assert own.rebuild() == [("episodes", None)]
    assert {*own.rows(PARTS)} - {*parts_before} == {("file", "quux_readings.bin", "unknown", 1)}
    findings_query = (
        "SELECT stage, severity, file FROM findings WHERE reason = 'part_not_used' AND detail LIKE "
        "'%quux%'"
    )
    assert own.rows(findings_query) == [("episodes", "warning", "quux_readings.bin")]
    # Gone again, its row goes
    (own.source / "quux_readings.bin").unlink()
    assert own.rebuild() == [("episodes", None)]
    assert own.rows(PARTS) == parts_before


def test_names_of_parts_that_no_table_can_keep_are_shown_otherwise():
    parts = tuple(
        SourcePart("column", name, "unknown", "", "odd")
        for name in ("a\0b", "a\0c", "x" * 30 + "1", "x" * 90)
    )
    listing = Listing("toy", 10.0, None, (), (), (), parts=parts)
    kept_parts = storable(listing, Limits(max_text=20)).parts
    assert [(part.name, part.num_times) for part in kept_parts] == [
        ("a\ufffdb", 1),
        ("a\ufffdc", 1),
        ("x" * 20, 2),
    ]
