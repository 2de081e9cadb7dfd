"""Tags and assignments: what counts, what is said twice, two people at once, and what is refused."""

import pytest

from warehouse.lake import Lake
from warehouse.lake.corrections import ConflictError
from warehouse.lake.statements import ASSIGNED, mark

PLACES = [("tiny", 0), ("tiny", 1)]
HAVE = "SELECT episode_index, person FROM current_assignments ORDER BY 1"


def test_the_second_who_assigns_is_told_of_the_first(own):
    lake = Lake(own.space)
    nobody = dict.fromkeys(PLACES)
    first = mark(lake, PLACES[:1], ASSIGNED, "ada", author="lead", follows=nobody)
    with pytest.raises(ConflictError, match="lead changed the person of episode 0 of tiny on 20"):
        mark(lake, PLACES, ASSIGNED, "bob", author="other", follows=nobody)
    # then none of them is assigned; whoever has seen it may
    assert lake.rows(HAVE) == [(0, "ada")]
    seen = nobody | {PLACES[0]: first[0]["statement_id"]}
    mark(lake, PLACES, ASSIGNED, "bob", author="other", follows=seen)
    assert lake.rows(HAVE) == [(0, "bob"), (1, "bob")]
    # what says the same is no conflict, and no row
    assert mark(lake, PLACES, ASSIGNED, "bob", author="lead", follows=nobody) == []
    # one who no longer has it cannot be released from it
    assert mark(lake, PLACES, ASSIGNED, "ada", author="lead", is_on=False) == []
    mark(lake, PLACES[:1], ASSIGNED, "bob", author="lead", is_on=False)
    assert lake.rows(HAVE) == [(1, "bob")]
