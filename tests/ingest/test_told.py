"""Tests against what is written down (tests/kits/told.py) fail for anything that is lacking on either side."""

import json
import re
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits import told
from tests.kits.told import check

SAID = {"part": {"a title": ["a line"], "without lines": []}}


@pytest.fixture
def written(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("GOLDEN", raising=False)
    monkeypatch.setattr(told, "GOLDEN", tmp_path)
    (path := tmp_path / "some.json").write_text(json.dumps(SAID))
    return path


def test_what_differs_is_told(written):
    check("some", "part", SAID["part"], ["part", "other"])
    lacking = {title: lines for title, lines in SAID["part"].items() if lines}
    for part, texts, parts in (
        ("part", {}, ["part"]),
        ("part", lacking, ["part"]),
        ("part", SAID["part"] | {"more": []}, ["part"]),
        ("part", SAID["part"] | {"a title": ["another line"]}, ["part"]),
        ("other", SAID["part"], ["part", "other"]),
        ("other", {}, ["part", "other"]),
        ("part", SAID["part"], ["other"]),
    ):
        with pytest.raises(AssertionError):
            check("some", part, texts, parts)
    assert json.loads(written.read_text()) == SAID


def test_what_is_written_anew_fails_once(written, monkeypatch):
    """Parts that no test is for go."""
    monkeypatch.setenv("GOLDEN", "anew")
    for _ in range(2):
        with pytest.raises(AssertionError):
            check("some", "other", {"a title": []}, ["other"])
        assert json.loads(written.read_text()) == {"other": {"a title": []}}
        written.write_text(json.dumps(SAID))
    check("some", "part", SAID["part"], ["part"])


def test_each_file_has_its_tests():
    modules = [
        path for path in (ROOT / "tests/ingest").rglob("test_*.py") if path != Path(__file__)
    ]
    users = {
        p.stem.removeprefix("test_")
        for p in modules
        if re.search(r"^@golden|  check\(\"", p.read_text(), re.M)
    }
    assert {path.stem for path in (ROOT / "tests/data/told").iterdir()} == users
