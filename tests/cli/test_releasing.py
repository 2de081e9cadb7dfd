"""release, takedown and gc on the command line: what they print, and their exit codes."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

import cli.main
from tests.kits.made_corpus import Made

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(own: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command on a copy of the built corpus, in this process: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["proccorpus", *map(str, words), "--workspace", str(own.space.root)])
        with pytest.raises(SystemExit) as ended:
            cli.main.main()
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return call


def answer(result: tuple[int, str, str]) -> Any:
    assert result[0] == 0, result
    return json.loads(result[1])


JSON = ("--format", "json")


def test_a_release_from_its_making_to_its_end(run: Run, own: Made):
    code, _, err = run("release", "create", "r1")
    assert code == 2
    assert "nothing is left for a release" in err
    assert "--allow-licence unknown" in err
    made = answer(run("release", "create", "r1", "--allow-licence", "unknown", *JSON))
    assert (made["release"], made["shards"], made["left_out"]) == ("r1", 4, [])
    assert answer(run("release", "list", *JSON))[0]["shards"] == 4
    assert answer(run("release", "verify", *JSON))["failures"] == []
    assert answer(run("release", "diff", "r1", "r1", *JSON))["relabelled"] == 0

    to = own.space.root.parent / "published"
    assert answer(run("release", "publish", "r1", "--to", to, *JSON))["sent"] > 4
    assert answer(run("release", "verify", "--at", to, *JSON))["release"] == "r1"

    tar = next((own.space.root / "shards").rglob("*.tar"))
    data = tar.read_bytes()
    tar.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    code, out, _ = run("release", "verify", "r1", *JSON)
    assert code == 1
    assert [f["what"] for f in json.loads(out)["failures"]] == [str(tar)]
    code, _, err = run("release", "publish", "r1", "--to", to.with_name("other"))
    assert code == 1
    assert err.startswith("error: ")
    assert tar.name in err
    assert run("release", "delete", "r1", "--yes")[0] == 0
    assert "No release yet" in run("release", "list")[1]


def test_taking_down_and_collecting(run: Run):
    marks = answer(run("takedown", "tiny", "--episodes", "1-2,4", "--reason", "asked to", *JSON))
    assert [m["episode_index"] for m in marks] == [1, 2, 4]
    code, _, err = run("release", "create", "r1", "--allow-licence", "unknown")
    assert code == 0
    assert "left out: tiny: 3 shards" in err
    assert answer(run("takedown", "tiny", "--undo", *JSON)) == []
    freed = answer(run("gc", "--keep-days", "0", "--dry-run", *JSON))
    assert {f["what"] for f in freed} >= {"lake snapshots", "lake data", "keyframes", "shards"}
    assert "Deleted" in run("gc", "--keep-days", "0", "--yes")[1]


def test_nothing_is_deleted_without_a_yes(run: Run, own: Made, monkeypatch: pytest.MonkeyPatch):
    answer(run("release", "create", "r1", "--allow-licence", "unknown", *JSON))
    orphan = own.space.root / "shards" / "orphan.tar"
    orphan.write_bytes(b"x" * 100)
    os.utime(orphan, (0, 0))
    for words in (("gc",), ("release", "delete", "r1")):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.endswith("Nobody can answer here: give --yes\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for said, code in (("n", 1), ("y", 0)):
        monkeypatch.setattr("typer.confirm", lambda question, said=said, **_: said == "y")
        assert run("gc")[0] == code
        assert orphan.exists() == (said == "n")
        assert run("release", "delete", "r1")[0] == code
    assert "No release yet" in run("release", "list")[1]
