"""release, takedown and gc on the command line: what they print, and their exit codes."""

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.kits.cli_kit import Result, called
from tests.kits.files import flip_bit
from tests.kits.lake_kit import change
from tests.kits.laptop_kit import GREY_RECIPE
from tests.kits.made_corpus import Made
from warehouse.lake import forget_lakes

Run = Callable[..., Result]


@pytest.fixture
def run(own: Made, capsys) -> Run:
    """A command on a copy of the built corpus."""
    return lambda *words: called(capsys, *words, "--workspace", own.space.root)


@pytest.fixture
def run_released(made_released: Made, tmp_path, capsys) -> tuple[Run, Made]:
    """A command on a copy of the corpus with the release `r1`, and that copy."""
    own = made_released.copy(tmp_path)
    return lambda *words: called(capsys, *words, "--workspace", own.space.root), own


def answer(result: Result) -> Any:
    assert result.code == 0, result
    return result.json


JSON = ("--format", "json")


def test_a_release_from_its_making_to_its_end(run, own):
    refused = run("release", "create", "r1")
    assert refused.code == 2
    created = answer(run("release", "create", "r1", "--allow-licence", "unknown", *JSON))
    assert (created["release"], created["shards"], created["left_out"]) == ("r1", 4, [])
    assert answer(run("show", "releases", *JSON))[0]["shards"] == 4
    sound = answer(run("release", "verify", *JSON))
    assert (sound["failures"], sound["snapshot"]) == ([], created["snapshot"])
    assert answer(run("release", "diff", "r1", "r1", *JSON))["relabelled"] == 0

    target = own.space.root.parent / "published"
    assert answer(run("release", "publish", "r1", "--to", target, *JSON))["sent"] > 4
    verified = answer(run("release", "verify", "--at", target, *JSON))
    assert (verified["release"], verified["snapshot"]) == ("r1", created["snapshot"])

    tar = next((own.space.root / "shards").rglob("*.tar"))
    flip_bit(tar)
    failed_check = run("release", "verify", "r1", *JSON)
    assert failed_check.code == 1
    assert [f["what"] for f in failed_check.json["failures"]] == [str(tar)]
    refused = run("release", "publish", "r1", "--to", target.with_name("other"))
    assert refused.code == 1
    assert tar.name in refused.err
    assert run("release", "delete", "r1", "--yes").code == 0
    assert "No release yet" in run("show", "releases").out
    for min_option in ("--min-confidence", "--min-name-confidence"):
        error_text = run(
            "release", "create", "sure", "--allow-licence", "unknown", min_option, "1"
        ).err
        assert f"build the dataset again with {min_option} 1 to make" in error_text


def test_taking_down_and_collecting(run):
    marks = answer(run("takedown", "tiny", "--episodes", "1-2,4", "--reason", "asked to", *JSON))
    assert [m["episode_index"] for m in marks] == [1, 2, 4]
    created = run("release", "create", "r1", "--allow-licence", "unknown", *JSON)
    assert (created.code, [out["dataset"] for out in created.json["left_out"]]) == (0, ["tiny"])
    assert answer(run("takedown", "tiny", "--undo", *JSON)) == []
    freed = answer(run("gc", "--keep-days", "0", "--dry-run", *JSON))
    assert {f["what"] for f in freed} >= {"lake snapshots", "lake data", "keyframes", "shards"}
    assert "Deleted" in run("gc", "--keep-days", "0", "--yes").out


def test_nothing_is_deleted_without_a_yes(run_released, monkeypatch):
    run, own = run_released
    orphan = own.space.root / "shards" / "orphan.tar"
    orphan.write_bytes(b"x" * 100)
    os.utime(orphan, (0, 0))
    for words in (("gc",), ("release", "delete", "r1")):
        refused = run(*words)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.endswith("Nobody can answer here: give --yes\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for reply, code in (("n", 1), ("y", 0)):
        monkeypatch.setattr("typer.confirm", lambda question, reply=reply, **_: reply == "y")
        assert run("gc").code == code
        assert orphan.exists() == (reply == "n")
        assert run("release", "delete", "r1").code == code
    assert "No release yet" in run("show", "releases").out


def test_a_look_at_what_gc_would_delete_writes_nothing(run, own):
    # It works in a workspace that may only be read: a lock would be a file
    (own.space.root / "shards" / "train" / "old-00000.tar").write_bytes(b"x")
    os.utime(own.space.root / "shards" / "train" / "old-00000.tar", (0, 0))
    for lock in own.space.root.glob(".lock*"):
        lock.unlink()
    forget_lakes()

    def state() -> dict[str, tuple[int, int]]:
        files = (path for path in own.space.root.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    former_state = state()
    would = answer(run("gc", "--dry-run", "--keep-days", 0, *JSON))
    assert {row["what"]: row["files"] for row in would}["shards"] == 1
    assert state() == former_state


@pytest.mark.slow
def test_a_name_is_used_once_and_deleting_says_what_refers_to_it(run_released, tmp_path):
    run, own = run_released
    (tmp_path / "grey.yaml").write_text(GREY_RECIPE)
    [(content,)] = own.rows("SELECT config_hash FROM releases")
    model = answer(run("train", "--recipe", tmp_path / "grey.yaml", "--release", "r1", *JSON))[
        "training_run"
    ]
    assert [m["release_is"] for m in answer(run("show", "models", *JSON))] == ["there"]
    answer(run("eval", "--model", model, "--release", "r1", *JSON))
    export_folder = own.space.root / "exports" / "drawn"
    assert (
        run(
            "export",
            "rabc",
            "--out",
            export_folder,
            "--release",
            "r1",
            "--allow-licence",
            "unknown",
        ).code
        == 0
    )

    refused = run("release", "delete", "r1")
    assert refused.code != 0
    deleted = run("release", "delete", "r1", "--yes")
    assert deleted.code == 0
    for error_text in (refused.err, deleted.err):
        assert (
            f"1 models were trained on it, and cannot be published without it: {model}"
            in error_text
        )
        assert (
            f"models and baselines were scored on it: best constant, clock, {model}" in error_text
        )
        assert "1 exports in exports/ were made of it: drawn" in error_text
    assert [m["release_is"] for m in answer(run("show", "models", *JSON))] == ["deleted"]

    refused_result = run("release", "create", "r1", "--allow-licence", "unknown")
    assert refused_result.code == 2
    assert "there was a release r1 before" in refused_result.err
    second_created = answer(
        run("release", "create", "r1.again", "--allow-licence", "unknown", *JSON)
    )
    assert second_created["content"] == content
    # Also of a name that an earlier version forgot, which models and scores still have
    change(own.space, "DELETE FROM deleted_releases")
    assert (
        "there was a release r1 before"
        in run("release", "create", "r1", "--allow-licence", "unknown").err
    )
