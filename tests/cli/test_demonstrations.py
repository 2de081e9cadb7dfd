"""`proccorpus demonstrations`: what is odd, in words; and where nothing can be compared, that."""

import pytest

from tests.kits.cli_kit import called
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


def test_the_worst_are_listed_with_what_is_odd(own: Made, capsys: pytest.CaptureFixture[str]):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = 'pick'")
    lake.con.execute(
        "UPDATE demonstration_measures SET duration_s = 10, rest_s = 0.4, end_phash = 0"
    )
    lake.con.execute("UPDATE demonstration_measures SET rest_s = 6 WHERE episode_index = 3")
    lake.con.close()
    text = called(capsys, "demonstrations", "tiny", "--limit", 1, "--workspace", own.space.root).out
    assert "stands still for 60 % of its time, others of its task 4 %" in " ".join(text.split())
    assert "of 5 runs differ from the others of their task, 1 shown." in text


def test_runs_that_cannot_be_compared_are_counted(own: Made, capsys: pytest.CaptureFixture[str]):
    output = called(capsys, "demonstrations", "--workspace", own.space.root).out
    assert (
        output
        == "5 runs are of tasks of which fewer than 5 runs show what is usual: they have no score.\n"
    )
