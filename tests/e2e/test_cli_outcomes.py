"""Outcomes: what a person says of how runs ended, from a file to the labels and back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kits.cli_kit import Built, Result, assert_one_error_line, digest_of, ok, rows

pytestmark = pytest.mark.slow

LIST = ("show", "current_outcomes")
JSON = ("--format", "json")
OUTCOMES = "SELECT episode_index, success, success_source FROM episodes ORDER BY 1"


def test_import_build_and_undo(
    own: Built, build: Callable[..., Result], ask: Callable[..., Result], away: Path
) -> None:
    digest_before = digest_of(own.workspace)
    assert ok(ask("show", "outcome_shares", "--format", "json")).json == [
        {"dataset": "tiny", "source": "not known", "episodes": 5, "succeeded": 0, "failed": 0}
    ]
    assert "Nobody said how any run ended." in ok(ask(*LIST)).out
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
    listed = ok(ask(*LIST, "tiny", *JSON)).json
    assert [
        (r["episode_index"], r["success"], r["note"], r["author"], r["file"]) for r in listed
    ] == [
        (0, True, None, "Ann", "seen.csv"),
        (3, False, "it fell", "Ann", "seen.csv"),
    ]
    assert "Chunks that the next build updates: 2 of tiny." in ok(ask(*LIST)).out

    built = ok(build(own.config, own.workspace, "--workers", 1))
    assert "2 of 5 known" in built.out
    assert rows(own.workspace, OUTCOMES) == [
        (0, True, "person: seen.csv"),
        (1, None, None),
        (2, None, None),
        (3, False, "person: seen.csv"),
        (4, None, None),
    ]
    assert "Chunks that" not in ok(ask(*LIST)).out

    ok(ask("undo", imported["import_id"], "--comment", "looked again"))
    assert "was taken back by" in assert_one_error_line(ask("undo", imported["import_id"]))
    ok(build(own.config, own.workspace, "--workers", 1))
    assert digest_of(own.workspace) | {"outcomes": ""} == digest_before | {"outcomes": ""}
