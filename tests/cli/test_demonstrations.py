"""`proccorpus demonstrations`: what is odd, in words; and where nothing can be compared, that."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import make_app
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


def printed(space: Path, *options: str) -> str:
    done = CliRunner().invoke(
        make_app("demonstrations"), ["demonstrations", *options, "--workspace", str(space)], catch_exceptions=False
    )
    return done.output


@pytest.fixture
def own(made: Made, tmp_path: Path) -> Made:
    return made.copy(tmp_path)


def test_the_worst_are_listed_with_what_is_odd(own: Made):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = 'pick'")
    lake.con.execute("UPDATE demonstration_measures SET duration_s = 10, rest_s = 0.4, end_phash = 0")
    lake.con.execute("UPDATE demonstration_measures SET rest_s = 6 WHERE episode_index = 3")
    lake.con.close()
    text = printed(own.space.root, "tiny", "--limit", "1")
    assert "stands still for 60 % of its time, others of its task 4 %" in " ".join(text.split())
    assert "of 5 runs differ from the others of their task, 1 shown." in text


def test_runs_that_cannot_be_compared_are_counted(own: Made):
    assert printed(own.space.root) == (
        "5 runs are of tasks of which fewer than 5 runs show what is usual: they have no score.\n"
    )
