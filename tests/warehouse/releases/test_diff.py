"""What differs between releases and between label runs."""

import duckdb
import pytest

from warehouse.lake import Lake
from warehouse.releases.contents import ReleaseError
from warehouse.releases.diff import MOVES, diff_runs


@pytest.mark.parametrize(
    ("a", "b", "moves"),
    [
        ([], [], []),
        ([10, 20], [12, 20], [2, 0]),
        ([10, 20], [22, 30], [12, 10]),  # in order of time, not to the nearest
        ([10], [8, 30], [2, 2, 20]),
        ([10], [], []),
    ],
)
def test_boundaries_that_belong_together(a: list[int], b: list[int], moves: list[int]):
    sql = f"SELECT {MOVES} FROM (SELECT $1::INTEGER[] AS at_a, $2::INTEGER[] AS at_b)"
    assert duckdb.execute(sql, [a, b]).fetchall() == [(moves,)]


def test_two_label_runs(corpus: Lake):
    run = corpus.rows("SELECT label_run FROM label_runs")[0][0]
    for table in ("label_runs", "episode_labels", "segments", "progress"):
        corpus.con.execute(
            f"INSERT INTO {table} SELECT * REPLACE ('other' AS label_run) FROM {table}"
        )
    corpus.con.execute("DELETE FROM episode_labels WHERE label_run = 'other' AND episode_index = 0")
    corpus.con.execute(
        "UPDATE progress SET progress = 0 WHERE label_run = 'other' AND episode_index = 2"
    )
    run_diff = diff_runs(corpus, run[:6], "oth")
    assert run_diff.removed == [("tiny", 0)]
    assert {c["run_b"] for c in run_diff.relabelled} == {"other"}
    assert run_diff.worst[0]["episode_index"] == 2
    assert {c["episode_index"]: c["progress_difference"] for c in run_diff.relabelled}[1] == 0
    with pytest.raises(ReleaseError, match="there is no label run 'zz'"):
        diff_runs(corpus, run, "zz")
