"""Gathering a listing: what a record's texts, group and success are, and how findings are recorded."""

from pathlib import Path
from typing import Any

import pytest

from ingest.episode import Finding
from ingest.formats.listing import ListingBuilder, texts_among
from ingest.outcomes import Outcome
from ingest.registry import DatasetConfig
from ingest.sources.files import Source


def listing_of(root: Path, **fields: Any) -> ListingBuilder:
    return ListingBuilder(Source(DatasetConfig(name="toy", source=str(root), **fields)))


def test_texts() -> None:
    assert texts_among(["pick ", None, "", 3, "place", "pick"]) == ("pick", "place")


@pytest.mark.parametrize(
    ("content", "found", "reason"),
    [
        ('{"a": 1}', {"a": 1}, None),
        ("[1]", {}, None),
        ("{", {}, "unreadable_data"),
        ("version https://git-lfs", {}, "lfs_pointer"),
    ],
)
def test_an_object_of_a_file_and_what_is_wrong_with_it(
    tmp_path: Path, content: str, found: dict[str, int], reason: str | None
) -> None:
    (tmp_path / "x.json").write_text(content)
    listing = listing_of(tmp_path)
    assert listing.read_object("x.json", 2) == found
    assert [(f.reason, f.severity, f.episode_index, f.file) for f in listing.findings] == (
        [(reason, "warning", 2, "x.json")] if reason else []
    )


def test_why_nothing_is_listed(tmp_path: Path) -> None:
    listing = listing_of(tmp_path)
    listing.lists_nothing("no file")
    assert [(f.reason, f.detail) for f in listing.findings] == [("no_episodes", "no file")]
    listing = listing_of(tmp_path)
    listing.warn("no_task", "none")
    listing.warn("lfs_pointer", "is a git-LFS pointer", file="a.h5")
    listing.lists_nothing("no file")
    assert [(f.reason, f.severity) for f in listing.findings] == [("no_task", "warning"), ("lfs_pointer", "unusable")]


def test_group_and_success_are_what_the_registry_names(tmp_path: Path) -> None:
    listing = listing_of(tmp_path, group_field="session", success_field="ok")
    assert [listing.group(facts, "own") for facts in ({}, {"session": ""}, {"session": 3})] == ["own", "own", "3"]
    stated = [listing.stated_outcome(facts) for facts in ({"ok": 7}, {"ok": False, "success": True}, {"success": 1})]
    assert stated == [None, Outcome(False, "metadata ok"), Outcome(True, "metadata success")]


def test_findings_and_the_registrys_robot(tmp_path: Path) -> None:
    listing = listing_of(tmp_path, robot="ours")
    listing.warn("no_task", "none", 0)
    listing.unusable("no_video", "none", 1, camera="front", file="a.mp4")
    done = listing.listing("video", ["front"], robot="theirs")
    assert (done.robot, done.cameras, done.numbered) == ("ours", ("front",), False)
    assert done.findings == (
        Finding("no_task", "none", "warning", 0),
        Finding("no_video", "none", "unusable", 1, "front", "a.mp4"),
    )
