"""`--help` of every command, and what asking for it costs."""

from pathlib import Path

from tests.kits.cli_kit import proccorpus


def test_an_option_that_is_none_is_told_with_the_nearest_one(away: Path) -> None:
    result = proccorpus("build", "--sorce", "x", cwd=away)
    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == "error: No such option: --sorce. Did you mean --source? proccorpus build --help says more\n"
    )
