"""Addresses of folders below a source, and what a source is called by its address."""

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
