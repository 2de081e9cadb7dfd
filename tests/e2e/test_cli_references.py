"""`proccorpus references`: who vouches for which run, and which texts mean the same task."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.kits.cli_kit import Result, assert_one_error_line, ok

pytestmark = pytest.mark.slow

PLATE = "put the cube on the plate"
DRAWER = "open the drawer"


def test_add_list_join_and_remove(ask: Callable[..., Result]) -> None:
    ask = partial(ask, "references")
    assert "No reference yet" in ok(ask("list")).out
    added = ok(ask("add", "tiny", 2, "--author", "Ann")).out
    assert added.startswith("episode 2 of tiny is a reference, by its label ")
    assert "Chunks that the next build labels anew: 2 of tiny." in added
    [listed] = ok(ask("list", "--format", "json")).json
    assert listed | {"created_at": ""} == {
        "dataset": "tiny",
        "task": PLATE,
        "episode_index": 2,
        "origin": "mark",
        "author": "Ann",
        "created_at": "",
        "built": True,
        "followed_by": 0,
    }
    assert f"listed as '{DRAWER}'" in ok(ask("join", "tiny", PLATE, DRAWER)).out
    assert "Chunks that the next build labels anew: 3 of tiny." in ok(ask("list")).out
    ok(ask("part", "tiny", PLATE))
    ok(ask("remove", "tiny", 2))
    assert ok(ask("list", "--dataset", "tiny", "--format", "json")).json == []

    for arguments, message in (
        (("remove", "tiny", 2), "episode 2 of tiny is no reference"),
        (("add", "tiny", 9), "the corpus has no episode 9 of 'tiny'"),
        (("join", "tiny", PLATE, "shut the drawer"), f"the nearest is '{DRAWER}'"),
    ):
        refused = ask(*arguments)
        assert refused.code == 2
        assert message in assert_one_error_line(refused)


def test_suggest_names_the_run_to_label_next(ask: Callable[..., Result]) -> None:
    output = ok(ask("references", "suggest", "tiny")).out
    assert "error_at_1" in output
    [plate, drawer] = ok(ask("references", "suggest", "tiny", "--format", "json")).json
    assert (plate["task"], drawer["task"]) == (PLATE, DRAWER)
    assert f"{PLATE}: label episode {plate['label_next']}; then " in output
    assert "judged by pictures, state and grippers" in output

    ok(ask("references", "add", "tiny", plate["label_next"]))
    [suggestion_after] = ok(
        ask("references", "suggest", "tiny", "--task", PLATE, "--format", "json")
    ).json
    assert suggestion_after["references"] == [plate["label_next"]]
    assert suggestion_after["label_next"] in plate["then"]
    for arguments, message in (
        (("nix",), "no dataset 'nix'"),
        (("tiny", "--task", "sweep"), "has the text 'sweep'"),
    ):
        refused = ask("references", "suggest", *arguments)
        assert refused.code == 2
        assert message in assert_one_error_line(refused)
