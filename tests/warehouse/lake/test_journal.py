"""The journal of what people said: taken in once by whoever opens the lake to write, whatever was killed in between."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.lake.journal import PeopleJournal
from warehouse.lake.lake import lake_to_read
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.place import LakeError

NOW = datetime(2026, 11, 28, 4, 0, tzinfo=UTC)


def outcome(number: int) -> dict[str, Any]:
    outcome_row = {
        "import_id": f"said{number}",
        "dataset": "tiny",
        "episode_index": number,
        "success": False,
    }
    return outcome_row | {"note": "failed", "author": "ada", "created_at": NOW, "file": "explorer"}


def said(space: Workspace) -> list[str]:
    with closing(lake_to_read(space).con) as con:
        return [
            row[0] for row in con.execute("SELECT import_id FROM outcomes ORDER BY ALL").fetchall()
        ]


@pytest.fixture
def journal(own) -> PeopleJournal:
    journal = PeopleJournal(own.space)
    with journal.held(made=True):
        journal.append({"outcomes": [outcome(0), outcome(1)]})
    return journal


def test_a_kill_between_the_commit_and_the_emptying_leaves_nothing_twice(
    own, journal: PeopleJournal
):
    journal_bytes = journal.path.read_bytes()
    assert said(own.space) == ["said0", "said1"]
    assert journal.size == 0
    journal.path.write_bytes(journal_bytes)
    with journal.held(), closing(Lake(own.space, takes_in=False).con):
        journal.append({"outcomes": [outcome(2)]})
    assert said(own.space) == ["said0", "said1", "said2"]
    lines = [json.loads(line) for line in own.space.people.read_text().splitlines()]
    assert [line["row"]["import_id"] for line in lines if line["table"] == "outcomes"] == [
        "said0",
        "said1",
        "said2",
    ]


def test_a_line_that_a_power_cut_left_half_written_was_never_answered(own, journal: PeopleJournal):
    with journal.path.open("ab") as f:
        f.write(b'{"table": "outcomes", "row": {"import_id": "ne')
    assert said(own.space) == ["said0", "said1"]
    assert journal.size == 0


def test_lines_that_cannot_be_read_are_kept_aside(own, journal: PeopleJournal):
    journal_bytes = journal.path.read_bytes()
    journal.path.write_bytes(b"\x00\x00\n" + journal_bytes)
    assert said(own.space) == ["said0", "said1"]
    [aside] = own.space.removed.glob("journal-*.jsonl")
    assert aside.read_bytes() == b"\x00\x00\n" + journal_bytes


def test_what_is_said_while_it_is_taken_in_waits_for_the_next_time(
    own, journal: PeopleJournal, monkeypatch
):
    lake = Lake(own.space, takes_in=False)
    add = lake._add_waiting

    def add_while_somebody_speaks(waiting) -> None:
        with journal.held():
            journal.append({"outcomes": [outcome(2)]})
        add(waiting)

    monkeypatch.setattr(lake, "_add_waiting", add_while_somebody_speaks)
    with closing(lake.con):
        lake.take_in()
    assert journal.size > 0
    assert said(own.space) == ["said0", "said1", "said2"]


def test_what_others_say_comes_after_what_waits(own, journal: PeopleJournal):
    lake = Lake(own.space, takes_in=False)
    with closing(lake.con):
        add_outcomes(lake, "tiny", "seen.csv", [StatedOutcome(0, True, None, "grace")])
        assert lake.rows("SELECT success, file FROM current_outcomes WHERE episode_index = 0") == [
            (True, "seen.csv")
        ]
        assert lake.rows("SELECT count(*) FROM outcomes") == [(3,)]
    assert journal.size == 0


def test_a_failed_commit_leaves_the_journal_as_it_is(own, journal: PeopleJournal, monkeypatch):
    journal_bytes = journal.path.read_bytes()
    lake = Lake(own.space, takes_in=False)

    def fails(waiting) -> None:
        raise LakeError("the disk fails")

    monkeypatch.setattr(lake, "_add_waiting", fails)
    with closing(lake.con), pytest.raises(LakeError, match="the disk fails"):
        lake.take_in()
    assert journal.path.read_bytes() == journal_bytes
