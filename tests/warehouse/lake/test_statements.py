"""What people say: outcomes, also in files; tags and assignments."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.paths import Workspace
from ingest.outcomes import truth
from tests.kits.lake_kit import opened, put_rows
from warehouse.lake import Lake
from warehouse.lake.lists import LISTS
from warehouse.lake.outcomes import StatedOutcome, add_outcomes, read_outcomes
from warehouse.lake.statements import (
    ASSIGNED,
    ConflictError,
    CorrectionError,
    mark,
    rows_of_text,
    take_back,
)

PLACES = [("tiny", 0), ("tiny", 1)]
HAVE = "SELECT episode_index, person FROM current_assignments ORDER BY 1"


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


@pytest.fixture(scope="module")
def four_runs(tmp_path_factory) -> Iterator[Lake]:
    """A dataset with the episodes 0 to 3, the last of which left the source."""
    lake = Lake(Workspace(tmp_path_factory.mktemp("workspace")))
    ids = [{"dataset": "a", "episode_index": k, "source_id": f"runs/{k + 10}.h5"} for k in range(4)]
    facts = [row | {"chunk": 0, "fps": 10.0} for row in ids[:3]]
    put_rows(
        lake,
        datasets=[{"dataset": "a"}],
        recordings=[row | {"recording": row["source_id"]} for row in ids],
        episode_facts=facts,
        episode_content=[
            {
                "dataset": "a",
                "episode_index": k,
                "chunk": 0,
                "content_hash": f"{k % 3:016x}",
            }
            for k in range(4)
        ],
    )
    yield lake
    lake.con.close()


def read(
    lake: Lake, folder: Path, content: str | bytes, name: str = "said.csv"
) -> list[StatedOutcome]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_outcomes(lake, "a", path, "ada")


@pytest.mark.parametrize(
    "content",
    [
        "episode_index,success,note,by\n1,true,,\n2,No,it fell,bob\n",
        "episode,success,comment,author\nruns/11.h5,1,,\n2,0,it fell,bob\n",
        "\ufeffsource_id, success , notes,by\r\nruns/11.h5,yes,,\r\nruns/12.h5,FAILED, it fell ,bob\r\n",
        'dataset,episode_index,source_id,success,note,by\na,1,runs/11.h5,true,,\na,2,runs/12.h5,false,"it fell",bob\n',
        '{"episode": 1, "success": true}\n\n{"episode_index": 2, "success": 0, "note": "it fell", "by": "bob"}\n',
        '[{"dataset": "a", "episode_index": 1, "success": true, "note": null, "author": "ada", "file": "x.csv"},\n'
        ' {"episode": 2, "success": false, "note": "it fell", "author": "bob"}]',
        '{"source_id": "runs/11.h5", "success": "yes"}\n{"episode": 2.0, "success": 0, "note": "it fell", "by": "bob"}',
        # the numbers of another workspace
        f"episode,success,note,by,content_hash\n2,1,,,{1:016x}\n1,0,it fell,bob,{2:016x}\n",
    ],
)
def test_forms(four_runs, tmp_path, content):
    assert read(four_runs, tmp_path, content) == [
        StatedOutcome(1, True, None, "ada"),
        StatedOutcome(2, False, "it fell", "bob"),
    ]


BAD_CSV = """episode_index,success,source_id,dataset,content_hash
0,true,,,
0,false,,,
77,true,,,
x,true,,,
2,maybe,,,
2,,,,
,true,,,
1,true,runs/12.h5,,
,true,runs/99.h5,,
1,true,,b,
-1,true,,,
1,true,,,abc
1,true,,,0000000000000000
"""


@pytest.mark.parametrize("row", ["{},{}\n", '{{"episode": {}, "success": {}}}\n'])
def test_a_half_after_many_whole_numbers_is_no_outcome(row):
    """DuckDB 1.5.5 takes it for 1 (CSV) or 0 (JSON) behind 20,480 whole numbers."""
    rows = 25_000
    header = "" if "success" in row else "episode,success\n"
    text = header + "".join(row.format(k, k % 2) for k in range(rows)) + row.format(rows, 0.5)
    _, values, problems = rows_of_text(text)
    outcomes = [truth(value["success"]) for _, value in values]
    assert outcomes == [k % 2 == 1 for k in range(rows)] + [None]
    assert not problems


def test_every_bad_line_is_named(four_runs, tmp_path):
    with pytest.raises(CorrectionError) as raised:
        read(four_runs, tmp_path, BAD_CSV)
    assert str(raised.value).startswith(f"{tmp_path / 'said.csv'}: nothing was imported: line 3: ")
    problems = dict(
        part.strip().split(": ", 1) for part in str(raised.value).split("imported: ")[1].split("; ")
    )
    assert problems == {
        "line 3": "episode 0 is in line 2 already",
        "line 4": "a has no episode 77",
        "line 5": "episode_index is 'x', which is no episode's number",
        "line 6": "success is 'maybe': say true or false (1, 0, yes, no, success, failure)",
        "line 7": "success is empty or missing: say true or false, or leave the line out",
        "line 8": "names no episode: episode_index, episode, source_id are looked for",
        "line 9": "episode_index (episode 1) and source_id (episode 2) differ",
        "line 10": "a has no episode with source_id 'runs/99.h5'",
        "line 11": "is of dataset 'b', not of a",
        "line 12": "episode_index is '-1', which is no episode's number",
        "line 13": "a holds nothing with content_hash 'abc': leave the column out where the other columns name this "
        "corpus's episodes",
        "line 14": "content_hash '0000000000000000' is of the episodes 0, 3, copies of one another: "
        "give one of them as episode_index",
    }


def test_the_second_who_assigns_is_told_of_the_first(own):
    lake = Lake(own.space)
    nobody = dict.fromkeys(PLACES)
    first = mark(lake, PLACES[:1], ASSIGNED, "ada", author="lead", follows=nobody)
    with pytest.raises(ConflictError, match="lead changed the person of episode 0 of tiny on 20"):
        mark(lake, PLACES, ASSIGNED, "bob", author="other", follows=nobody)
    # then none of them is assigned; whoever has seen it may
    assert lake.rows(HAVE) == [(0, "ada")]
    versions = nobody | {PLACES[0]: first[0]["statement_id"]}
    mark(lake, PLACES, ASSIGNED, "bob", author="other", follows=versions)
    assert lake.rows(HAVE) == [(0, "bob"), (1, "bob")]
    # what says the same is no conflict, and no row
    assert mark(lake, PLACES, ASSIGNED, "bob", author="lead", follows=nobody) == []
    # one who no longer has it cannot be released from it
    assert mark(lake, PLACES, ASSIGNED, "ada", author="lead", is_on=False) == []
    mark(lake, PLACES[:1], ASSIGNED, "bob", author="lead", is_on=False)
    assert lake.rows(HAVE) == [(1, "bob")]
    # whom nobody has any more may be assigned by who has seen that nobody has it
    mark(lake, PLACES[:1], ASSIGNED, "ada", author="other", follows=nobody)
    assert lake.rows(HAVE) == [(0, "ada"), (1, "bob")]
