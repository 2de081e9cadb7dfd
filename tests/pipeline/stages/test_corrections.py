"""What a build makes of what people said, and of parts of a source, and of which chunks."""

from itertools import chain
from typing import Any

import pytest

from ingest.episode import Listing, SourcePart
from ingest.episodes import storable
from ingest.reasons import Limits
from tests.kits.lake_kit import STEPS, history, opened, say
from tests.kits.tiny_lerobot import write_video
from warehouse.lake import Lake, corrections, digest
from warehouse.lake.corrections import ConflictError, CorrectionError
from warehouse.lake.outcomes import StatedOutcome, add_outcomes, chunks_to_build
from warehouse.lake.statements import take_back, take_down, undo_takedown

EPISODE = 2  # in chunk 1


def active(lake: Lake, episode: int = EPISODE) -> list[tuple]:
    return lake.rows(
        "SELECT name, start_frame, end_frame, completed FROM active_segments WHERE episode_index = ? "
        "ORDER BY segment_index",
        [episode],
    )


PENDING = "SELECT episode_index, what FROM pending_corrections"
REDONE = [("corrections", 1), ("progress", 1), ("samples", 1), ("shards", 1)]


def test_a_rejected_label_is_not_used(own, corpus):
    run = corpus.rows("SELECT label_run FROM active_runs WHERE episode_index = 2")[0][0]
    row = corrections.reject_label(
        corpus, "tiny", EPISODE, run, author="ada", follows=None, comment="the robot is idle"
    )
    assert chunks_to_build(corpus) == {"tiny": 1}
    assert own.rebuild() == REDONE
    assert active(corpus) == []
    assert corpus.rows("SELECT count(*) FROM samples WHERE episode_index = 2") == [(0,)]
    rejected = "SELECT episode_index, stage, severity, detail FROM findings WHERE reason = 'label_rejected'"
    assert corpus.rows(rejected) == [
        (2, "corrections", "warning", f"label {run}: the robot is idle")
    ]
    assert chunks_to_build(corpus) == {}
    take_back(corpus, row["correction_id"], author="ada", follows=row["correction_id"])
    assert corpus.rows(PENDING) == [(EPISODE, "taken back")]
    assert own.rebuild() == REDONE
    assert active(corpus) != []
    assert corpus.rows(PENDING) == []


def test_a_correction_of_an_episode_that_is_taken_down_waits_for_nothing(undivided):
    with opened(undivided.space) as lake:
        say(lake)
        assert lake.rows(PENDING) == [(EPISODE, "corrected")]
        take_down(lake, "tiny", [EPISODE], "somebody asked")
        undivided.rebuild()
        assert lake.rows(PENDING) == []


@pytest.mark.parametrize("episodes", [[EPISODE], None])
def test_a_takedown_said_or_taken_back_waits_for_a_build(own, corpus, episodes):
    waiting = {"tiny": 3 if episodes is None else 1}
    take_down(corpus, "tiny", episodes, "somebody asked")
    assert chunks_to_build(corpus) == waiting
    own.rebuild()
    assert chunks_to_build(corpus) == {}
    undo_takedown(corpus, "tiny", episodes)
    assert chunks_to_build(corpus) == waiting
    own.rebuild()
    assert chunks_to_build(corpus) == {}


def test_the_second_of_two_people_is_told(corpus):
    say(corpus, author="ada")
    with pytest.raises(
        ConflictError,
        match=r"^ada saved a correction of episode 2 of tiny on 20\d\d-.* UTC: reload",
    ):
        say(corpus, author="grace", follows=None)
    with pytest.raises(ConflictError, match="ingested anew"):
        say(corpus, author="grace", base_content_hash="0" * 64)
    assert len(history(corpus, "tiny", EPISODE)) == 1


REFUSED: list[tuple[dict[str, Any] | list[dict[str, Any]], str]] = [
    ([], "segments: Tuple should have at least 1 item"),
    ([STEPS[0]], "segments end at frame 11, the episode has 30"),
    ([STEPS[0], STEPS[1] | {"start_frame": 10}], "expected from 11: an overlap"),
    ([STEPS[0], STEPS[1] | {"start_frame": 12}], "expected from 11: a gap"),
    ([STEPS[0], STEPS[1] | {"end_frame": 31}], "covers frames 11-31, the episode has 30"),
    ([STEPS[0], STEPS[1] | {"end_frame": 11}], "it is empty"),
    ([STEPS[0], STEPS[1] | {"name": "  "}], "segments.1.name: it is empty"),
    (
        [STEPS[0], STEPS[1] | {"name": "x" * 201}],
        "segments.1.name: it is longer than 200 characters",
    ),
    ([STEPS[0], STEPS[1] | {"name": "a\x1b[8mb"}], "segments.1.name: it holds control characters"),
    (
        [STEPS[0], STEPS[1] | {"kind": "pause"}],
        "segments.1.kind: Input should be 'step', 'idle' or 'done'",
    ),
    (
        [STEPS[0], STEPS[1] | {"step": 7}],
        "no segment attempts step 0, and there is no plan that names it: give plan",
    ),
    (
        [STEPS[0], STEPS[1] | {"start_frame": -1}],
        "segments.1.start_frame: Input should be greater than or equal to 0",
    ),
    ([STEPS[0], STEPS[1] | {"start_frame": 11.5}], "segments.1.start_frame: it is no whole number"),
    ([STEPS[0], STEPS[1] | {"script": "x"}], "segments.1.script: Extra inputs are not permitted"),
    ([{"name": "Rest", "start_frame": 0, "end_frame": 30, "kind": "idle"}], "has no step left"),
    ({"final_progress": 0.5}, "mark the step that failed"),
    ({"catastrophic_frame": 12}, "so nothing was lost"),
    ({"catastrophic_frame": 0}, "greater than or equal to 1"),
    ({"final_progress": float("nan")}, "finite number"),
    ({"episode": 99}, "the corpus has no episode 99 of 'tiny'"),
    ({"author": " "}, "author is empty"),
    ({"author": "a" * 101}, "author is longer than 100"),
    ({"comment": "a\x00b"}, "comment holds control characters"),
    ({"author": "\u202ebob"}, "author holds control characters"),
]


def test_what_is_no_label_is_refused_in_a_line(corpus):
    for bad_value, message in REFUSED:
        with pytest.raises(CorrectionError) as e:
            say(corpus, **(bad_value if isinstance(bad_value, dict) else {"segments": bad_value}))
        assert message in str(e.value)
        assert "\n" not in str(e.value)
    assert history(corpus, "tiny", EPISODE) == []


@pytest.mark.slow
def test_the_same_said_in_another_order_makes_the_same_corpus(made, tmp_path):
    """Rows brought from elsewhere, and built at once or the last of them before the others."""
    first = made.copy(tmp_path / "a")
    second = made.copy(tmp_path / "b")
    lake = Lake(first.space)
    say(lake)
    say(lake, [STEPS[0] | {"end_frame": 20}, STEPS[1] | {"start_frame": 20}], author="grace")
    say(lake, [{"name": "Open", "start_frame": 0, "end_frame": 24}], episode=0)
    rows = list(chain.from_iterable(history(lake, "tiny", e) for e in (EPISODE, 0)))
    ended = [StatedOutcome(episode, False, None, "ada") for episode in (0, 4)]
    add_outcomes(lake, "tiny", "seen.csv", ended)
    first.rebuild()
    second_lake = Lake(second.space)
    add_outcomes(second_lake, "tiny", "seen.csv", ended[::-1])
    last, *former_rows = reversed(rows)
    for brought in ([last], former_rows):
        assert corrections.add_rows(second_lake, brought) == len(brought)
        second.rebuild()
    assert corrections.add_rows(second_lake, rows) == 0
    assert digest(lake) == digest(second_lake)


OUTCOME = "SELECT success, success_source FROM episodes WHERE episode_index = ?"


def test_outcomes_outlast_a_changed_source(undivided):
    with opened(undivided.space) as lake:
        add_outcomes(lake, "tiny", "seen.csv", [StatedOutcome(EPISODE, False, None, "ada")])
        undivided.rebuild()
        write_video(undivided.source, EPISODE, 31)
        assert ("frames", 0) in undivided.rebuild()
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
