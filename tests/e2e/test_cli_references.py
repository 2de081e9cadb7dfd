"""References: who vouches for which run, and which texts mean the same task."""

import pytest

from tests.kits.cli_kit import assert_one_error_line, digest_of, ok, rows

PLATE = "put the cube on the plate"
DRAWER = "open the drawer"
LIST = ("show", "current_references")
NO_REFERENCE = ("--set", "is_reference=false")


@pytest.mark.slow
def test_add_list_join_and_remove(ask):
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


@pytest.mark.slow
def test_suggest_names_the_run_to_label_next(ask):
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


OUTCOME_LIST = ("show", "current_outcomes")
JSON = ("--format", "json")
OUTCOMES = "SELECT episode_index, success, success_source FROM episodes ORDER BY 1"


@pytest.mark.slow
def test_import_build_and_undo(own, build, ask, away):
    digest_before = digest_of(own.workspace)
    assert ok(ask("show", "outcome_shares", "--format", "json")).json == [
        {"dataset": "tiny", "source": "not known", "episodes": 5, "succeeded": 0, "failed": 0}
    ]
    assert "Nobody said how any run ended." in ok(ask(*OUTCOME_LIST)).out
    outcome_file = away / "seen.csv"
    outcome_file.write_text("episode_index,success\n3,perhaps\n")
    assert "nothing was imported: line 2: success" in assert_one_error_line(
        ask("say", "outcome", "tiny", "--set", f"file={outcome_file}")
    )
    outcome_file.write_text("episode_index,success,note,by\n3,no,it fell,Ann\n0,yes,,Ann\n")
    imported = ok(ask("say", "outcome", "tiny", "--set", f"file={outcome_file}", *JSON)).json
    assert imported | {"import_id": ""} == {
        "dataset": "tiny",
        "import_id": "",
        "outcomes": 2,
        "succeeded": 1,
        "failed": 1,
        "new": 2,
    }
    listed = ok(ask(*OUTCOME_LIST, "tiny", *JSON)).json
    assert [
        (r["episode_index"], r["success"], r["note"], r["author"], r["file"]) for r in listed
    ] == [
        (0, True, None, "Ann", "seen.csv"),
        (3, False, "it fell", "Ann", "seen.csv"),
    ]
    assert "Chunks that the next build updates: 2 of tiny." in ok(ask(*OUTCOME_LIST)).out

    built = ok(build(own.config, own.workspace, "--workers", 1))
    assert "2 of 5 known" in built.out
    assert rows(own.workspace, OUTCOMES) == [
        (0, True, "person: seen.csv"),
        (1, None, None),
        (2, None, None),
        (3, False, "person: seen.csv"),
        (4, None, None),
    ]
    assert "Chunks that" not in ok(ask(*OUTCOME_LIST)).out

    ok(ask("undo", imported["import_id"], "--comment", "looked again"))
    assert "was taken back by" in assert_one_error_line(ask("undo", imported["import_id"]))
    ok(build(own.config, own.workspace, "--workers", 1))
    assert digest_of(own.workspace) | {"outcomes": ""} == digest_before | {"outcomes": ""}
