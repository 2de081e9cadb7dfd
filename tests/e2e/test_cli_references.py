"""References: who vouches for which run, and which texts mean the same task."""

from collections.abc import Callable

import pytest

from tests.kits.cli_kit import Result, assert_one_error_line, ok

pytestmark = pytest.mark.slow

PLATE = "put the cube on the plate"
DRAWER = "open the drawer"
LIST = ("show", "current_references")
NO_REFERENCE = ("--set", "is_reference=false")


def test_add_list_join_and_remove(ask: Callable[..., Result]) -> None:
    assert "No reference yet" in ok(ask(*LIST)).out
    added = ok(ask("say", "reference", "tiny", 2, "--author", "Ann")).out
    assert "Chunks that the next build updates: 3 of tiny." in added
    [listed] = ok(ask(*LIST, "--format", "json")).json
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
    ok(ask("say", "joined_task", "tiny", PLATE, DRAWER))
    assert "Chunks that the next build updates: 3 of tiny." in ok(ask(*LIST)).out
    ok(ask("say", "joined_task", "tiny", PLATE))
    marked = ok(ask("show", "statements", "--where", "kind = 'reference'", "--format", "json")).json
    ok(ask("undo", marked[0]["statement_id"]))
    [vouched] = ok(ask(*LIST, "--format", "json")).json
    assert vouched["origin"] == "correction", "the label that was vouched for stays"
    ok(ask("say", "reference", "tiny", 2, *NO_REFERENCE))
    assert ok(ask(*LIST, "tiny", "--format", "json")).json == []

    for arguments, message in (
        (("reference", "tiny", 2, *NO_REFERENCE), "episode 2 of tiny is no reference"),
        (("reference", "tiny", 9), "the corpus has no episode 9 of 'tiny'"),
        (("joined_task", "tiny", PLATE, "shut the drawer"), f"the nearest is '{DRAWER}'"),
    ):
        refused = ask("say", *arguments)
        assert refused.code == 2
        assert message in assert_one_error_line(refused)


def test_suggest_names_the_run_to_label_next(ask: Callable[..., Result]) -> None:
    [plate, drawer] = ok(ask("show", "suggestions", "tiny", "--format", "json")).json
    assert (plate["task"], drawer["task"]) == (PLATE, DRAWER)
    assert plate["judged_by"] == "pictures, state and grippers"
    assert plate["expected"][0]["references"] == 1

    ok(ask("say", "reference", "tiny", plate["label_next"]))
    [suggestion_after] = ok(ask("show", "suggestions", "tiny", PLATE, "--format", "json")).json
    assert suggestion_after["references"] == [plate["label_next"]]
    assert suggestion_after["label_next"] in plate["then"]
    for arguments, message in (
        (("nix",), "no dataset 'nix'"),
        (("tiny", "sweep"), "has the text 'sweep'"),
    ):
        refused = ask("show", "suggestions", *arguments)
        assert refused.code == 2
        assert message in assert_one_error_line(refused)
