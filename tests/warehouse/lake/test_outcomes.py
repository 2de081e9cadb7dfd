"""What people say of how runs ended: which of it counts, and taking it back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.status import status_rows
from core.paths import Workspace
from core.tables import TABLES
from ingest.outcomes import Outcome
from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.lake.corrections import CorrectionError
from warehouse.lake.outcomes import (
    OutcomeError,
    StatedOutcome,
    add_outcomes,
    current_outcomes,
    known_outcomes,
    listed,
    outcome_stamp,
    question,
    shares,
    undo_import,
)


def saying(success: bool, *episodes: int, author: str = "ada", note: str | None = None) -> list[StatedOutcome]:
    return [StatedOutcome(episode, success, note, author) for episode in episodes]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(Workspace(tmp_path))
    yield lake
    lake.con.close()


def test_the_newest_counts_until_it_is_taken_back(lake: Lake):
    assert outcome_stamp(lake, "a") == ""
    first, new = add_outcomes(lake, "a", "one.csv", saying(True, 0, 1))
    assert new == 2
    once = outcome_stamp(lake, "a")
    second, new = add_outcomes(lake, "a", "two.csv", saying(False, 1, 2, note="fell"))
    assert new == 2
    assert current_outcomes(lake, "a") == {
        0: Outcome(True, "person: one.csv"),
        1: Outcome(False, "person: two.csv"),
        2: Outcome(False, "person: two.csv"),
    }
    assert current_outcomes(lake, "b") == {}
    assert outcome_stamp(lake, "a") not in (once, "")

    assert undo_import(lake, second, author="bob", note=" mistaken ") == ("a", 2)
    assert outcome_stamp(lake, "a") == once
    assert undo_import(lake, first, author="bob") == ("a", 2)
    assert outcome_stamp(lake, "a") == ""
    with pytest.raises(OutcomeError, match=f"{first} was taken back by bob on"):
        undo_import(lake, first, author="ada")

    # Said again, it counts again
    again, new = add_outcomes(lake, "a", "one.csv", saying(True, 0, 1))
    assert (again != first, new, outcome_stamp(lake, "a")) == (True, 2, once)
    rows = listed(lake, "a", everything=True)
    assert [(r["episode_index"], r["success"], r["undoes"], r["counts"]) for r in rows] == [
        (0, True, None, False),
        (0, None, first, False),
        (0, True, None, True),
        (1, True, None, False),
        (1, False, None, False),
        (1, None, second, False),
        (1, None, first, False),
        (1, True, None, True),
        (2, False, None, False),
        (2, None, second, False),
    ]
    assert [r["note"] for r in rows if r["undoes"] == second] == ["mistaken"] * 2


def test_what_was_said_is_not_saved_again(lake: Lake):
    first, _ = add_outcomes(lake, "a", "one.csv", saying(True, 0, 1))
    assert add_outcomes(lake, "a", "one.csv", saying(True, 1)) == (first, 0)
    assert len(listed(lake, everything=True)) == 2
    # With anything new all is saved: taking the first back leaves what the second says
    _, new = add_outcomes(lake, "a", "one.csv", [*saying(True, 0), *saying(False, 1)])
    assert new == 1
    undo_import(lake, first, author="ada")
    assert [o.success for _, o in sorted(current_outcomes(lake, "a").items())] == [True, False]


def test_a_clock_that_is_behind_does_not_lose_the_newest(lake: Lake):
    add_outcomes(lake, "a", "one.csv", saying(True, 0))
    lake.con.execute("UPDATE outcomes SET created_at = ?", [datetime.now(UTC) + timedelta(days=1)])
    add_outcomes(lake, "a", "two.csv", saying(False, 0))
    assert current_outcomes(lake, "a")[0].success is False


def test_what_cannot_be_taken_back(lake: Lake):
    first, _ = add_outcomes(lake, "a", "one.csv", saying(True, 0))
    with pytest.raises(OutcomeError, match="there is no import 'x'"):
        undo_import(lake, "x", author="ada")
    with pytest.raises(CorrectionError, match="author is empty"):
        undo_import(lake, first, author=" ")
    undo_import(lake, first, author="ada")
    (undo,) = [r["import_id"] for r in listed(lake, everything=True) if r["undoes"]]
    with pytest.raises(OutcomeError, match="there is no import"):
        undo_import(lake, undo, author="ada")


def test_shares_are_of_usable_episodes(lake: Lake):
    """Unknown stays unknown, and is shown."""
    facts = [
        {"dataset": "a", "episode_index": k, "chunk": 0, "fps": 10.0, "success": success, "success_source": source}
        for k, (success, source) in enumerate(
            [(True, "column next.success"), (False, "column next.success"), (True, "person: a.csv"), (None, None)]
        )
    ]
    facts.append(facts[0] | {"episode_index": 9})
    lost = {"dataset": "a", "episode_index": 9, "stage": "episodes", "reason": "no_data", "severity": "unusable"}
    lake.upsert("facts", episode_facts=TABLES["episode_facts"].rows(facts), findings=TABLES["findings"].rows([lost]))
    lake.upsert("dataset", datasets=TABLES["datasets"].rows([{"dataset": "a"}]))
    assert known_outcomes(lake) == {"a": 3}
    assert lake.rows("SELECT ok, outcomes_known FROM coverage") == [(4, 3)]
    assert [tuple(row.values()) for row in shares(lake)] == [
        ("a", "column next.success", 2, 1, 1),
        ("a", "person: a.csv", 1, 1, 0),
        ("a", "not known", 1, 0, 0),
    ]


def test_an_owner_is_asked_only_where_something_looks_unfinished():
    assert question("cups", 12, 50) == "cups: 12 of 50 runs look unfinished: look at them"
    assert question("cups", 1, 50) == "cups: 1 of 50 runs looks unfinished: look at it"
    assert question("cups", 0, 50) is None


def assumed_outcomes(lake: Lake) -> dict[str, tuple[int, int]]:
    return {row["dataset"]: (row["assumed_complete"], row["look_unfinished"]) for row in status_rows(lake)}


def test_what_is_assumed_and_what_looks_unfinished_is_counted_of_usable_runs(made: Made, tmp_path: Path):
    lake = Lake(made.copy(tmp_path).space)
    lake.con.execute("UPDATE label_quality SET end_by = 'assumed', end_progress = 1, p_failure = NULL")
    assert assumed_outcomes(lake) == {"tiny": (5, 0)}
    lake.con.execute("UPDATE label_quality SET p_failure = 0.5 WHERE episode_index = 0")
    lake.con.execute("UPDATE label_quality SET p_failure = 0.49 WHERE episode_index = 1")
    lake.con.execute("UPDATE label_quality SET end_by = 'label', end_progress = 0.7 WHERE episode_index = 2")
    lake.con.execute("UPDATE label_quality SET end_by = 'source', end_progress = 0.7 WHERE episode_index = 3")
    assert assumed_outcomes(lake) == {"tiny": (3, 2)}
    unusable = {"dataset": "tiny", "episode_index": 0, "stage": "episodes", "reason": "known_bad"}
    findings = TABLES["findings"].rows([unusable | {"severity": "unusable"}])
    lake.upsert("one is left out", findings=findings)
    assert assumed_outcomes(lake) == {"tiny": (2, 1)}
    lake.con.close()
