"""What people say of how runs ended: which of it counts, and taking it back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from core.paths import Workspace
from tests.kits.lake_kit import opened, put_rows
from warehouse.lake import Lake
from warehouse.lake.lists import LISTS
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.statements import take_back


def saying(
    success: bool, *episodes: int, author: str = "ada", note: str | None = None
) -> list[StatedOutcome]:
    return [StatedOutcome(episode, success, note, author) for episode in episodes]


def successes(lake: Lake) -> list[bool]:
    return lake.column(
        "SELECT success FROM current_outcomes WHERE dataset = 'a' ORDER BY episode_index"
    )


@pytest.fixture
def lake(tmp_path) -> Iterator[Lake]:
    with opened(Workspace(tmp_path)) as lake:
        yield lake


def test_what_was_said_is_not_saved_again(lake):
    first, _ = add_outcomes(lake, "a", "one.csv", saying(True, 0, 1))
    assert add_outcomes(lake, "a", "one.csv", saying(True, 1)) == (first, 0)
    assert len(lake.rows(LISTS["outcomes"].sql)) == 2
    # With anything new all is saved: taking the first back leaves what the second says
    _, new = add_outcomes(lake, "a", "one.csv", [*saying(True, 0), *saying(False, 1)])
    assert new == 1
    take_back(lake, first, author="ada")
    assert successes(lake) == [True, False]


def test_a_clock_that_is_behind_does_not_lose_the_newest(lake):
    add_outcomes(lake, "a", "one.csv", saying(True, 0))
    lake.con.execute(
        "UPDATE words.main.statements SET created_at = ?", [datetime.now(UTC) + timedelta(days=1)]
    )
    add_outcomes(lake, "a", "two.csv", saying(False, 0))
    assert successes(lake) == [False]


def test_shares_are_of_usable_episodes(lake):
    """Unknown stays unknown, and is shown."""
    flag = "column next.success"
    ends = [(True, flag), (False, flag), (True, "person: a.csv"), (None, None), (True, flag)]
    common = {"dataset": "a", "chunk": 0, "fps": 10.0}
    facts = [
        common | {"episode_index": k, "success": success, "success_source": source}
        for k, (success, source) in enumerate(ends)
    ]
    unusable = {"episode_index": 4, "stage": "episodes", "reason": "no_data"}
    finding = unusable | {"dataset": "a", "severity": "unusable"}
    put_rows(lake, episode_facts=facts, findings=[finding])
    put_rows(lake, datasets=[{"dataset": "a"}])
    assert lake.rows("SELECT ok, outcomes_known FROM coverage") == [(4, 3)]
    assert [tuple(row.values()) for row in lake.dicts(LISTS["outcome_shares"].sql)] == [
        ("a", "column next.success", 2, 1, 1),
        ("a", "person: a.csv", 1, 1, 0),
        ("a", "not known", 1, 0, 0),
    ]
