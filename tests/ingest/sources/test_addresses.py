"""Addresses of folders below a source, and what a source is called by its address."""

from pathlib import Path

import pytest

from ingest.sources.addresses import address_below, last_name


@pytest.mark.parametrize(
    ("source", "folder", "below"),
    [
        ("hf://owner/name", "a/b", "hf://owner/name/a/b"),
        ("s3://bucket/set/", "a", "s3://bucket/set/a"),
        ("https://host/sets/", "a b", "https://host/sets/a%20b/"),
        ("/data", "a/b", "/data/a/b"),
        ("hf://owner/name", "", "hf://owner/name"),
    ],
)
def test_a_folder_below(source: str, folder: str, below: str) -> None:
    assert address_below(source, folder) == below
    assert last_name(below) == (folder or source).rpartition("/")[2]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.v2").mkdir()
    (tmp_path / "run.1.mp4").touch()
    assert last_name(str(tmp_path / "set.v2")) == "set.v2"
    assert last_name(str(tmp_path / "run.1.mp4")) == "run.1"
    monkeypatch.chdir(tmp_path / "set.v2")
    assert last_name(".") == "set.v2"
    assert last_name("https://host/a%20b.mp4") == "a b"
