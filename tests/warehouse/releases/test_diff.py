"""What differs between releases and between label runs."""

import pytest

from tests.kits.tiny_lerobot import FPS
from warehouse.lake import Lake
from warehouse.releases import create_release
from warehouse.releases.contents import ReleaseError
from warehouse.releases.diff import boundary_moves, diff_releases, diff_runs

ANY = ("unknown",)


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
    assert boundary_moves(a, b) == moves


def relabel(lake: Lake) -> int:
    """Move one boundary of an episode by two frames, and its progress by 0.1 on half of the frames."""
    sql = "SELECT episode_index, segment_index FROM segments WHERE segment_index = 1 AND episode_index IN (1, 2, 3)"
    episode, segment = lake.rows(sql)[0]
    here = f"WHERE episode_index = {episode}"
    lake.con.execute(f"UPDATE segments SET start_frame = start_frame + 2 {here} AND segment_index = {segment}")
    lake.con.execute(f"UPDATE segments SET end_frame = end_frame + 2 {here} AND segment_index = {segment - 1}")
    by = "if(progress < 0.5, 0.1, -0.1)"
    lake.con.execute(f"UPDATE progress SET progress = progress + {by} {here} AND frame_index % 2 = 1")
    return episode


def test_two_releases(corpus: Lake):
    create_release(corpus, "a", allow=ANY)
    assert diff_releases(corpus, "a", "a").datasets[0] | {"dataset": "tiny"} == {
        "dataset": "tiny",
        "in_both": 5,
        "added": 0,
        "removed": 0,
        "relabelled": 0,
        "mean_shift_s": None,
        "max_shift_s": None,
        "progress_difference": None,
    }
    boundaries = dict(corpus.rows("SELECT episode_index, count(*) - 1 FROM segments GROUP BY 1"))
    episode = relabel(corpus)
    gone = next(r[0] for r in corpus.rows("SELECT episode_index FROM splits WHERE split = 'val'"))
    corpus.con.execute("DELETE FROM shards WHERE split = 'val'")
    create_release(corpus, "b", allow=ANY)

    found = diff_releases(corpus, "a", "b")
    assert (found.added, found.removed) == ([], [("tiny", gone)])
    (change,) = found.relabelled
    assert (change.dataset, change.episode_index) == ("tiny", episode)
    n = boundaries[episode]
    assert (change.boundaries_a, change.boundaries_b) == (n, n)
    assert change.max_shift_s == pytest.approx(2 / FPS)
    assert change.mean_shift_s == pytest.approx(2 / FPS / n)
    assert change.progress_difference == pytest.approx(0.05, abs=1e-6)
    back = diff_releases(corpus, "b", "a")
    assert (back.added, back.removed) == ([("tiny", gone)], [])
    assert found.facts()["worst"][0]["episode_index"] == episode
    assert diff_releases(corpus, "a", "b").facts() == found.facts(), "nothing is left attached"


def test_two_label_runs(corpus: Lake):
    run = corpus.rows("SELECT label_run FROM label_runs")[0][0]
    for table in ("label_runs", "episode_labels", "segments", "progress"):
        corpus.con.execute(f"INSERT INTO {table} SELECT * REPLACE ('other' AS label_run) FROM {table}")
    corpus.con.execute("DELETE FROM episode_labels WHERE label_run = 'other' AND episode_index = 0")
    corpus.con.execute("UPDATE progress SET progress = 0 WHERE label_run = 'other' AND episode_index = 2")
    found = diff_runs(corpus, run[:6], "oth")
    assert found.removed == [("tiny", 0)]
    assert {c.run_b for c in found.relabelled} == {"other"}
    assert found.worst[0].episode_index == 2
    assert {c.episode_index: c.progress_difference for c in found.relabelled}[1] == 0
    with pytest.raises(ReleaseError, match="there is no label run 'zz'"):
        diff_runs(corpus, run, "zz")
