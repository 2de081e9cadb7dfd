"""A dataset's files: listed once, known again when unchanged, and never reached outside its folder."""

import os
from pathlib import Path

import pytest

from ingest.source import format_of, list_episodes
from ingest.sources.types import SourceError, address_below, last_name
from tests.kits.lerobot_writer import source_of, write_video


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_links(tmp_path):
    """A link counts where it stays inside the folder."""
    root = tmp_path / "root"
    outside_file = touch(tmp_path / "outside/secret.mp4")
    touch(root / "real.mp4")
    (root / "inside.mp4").symlink_to("real.mp4")
    (root / "file_outside.mp4").symlink_to(outside_file)
    (root / "folder_outside").symlink_to(outside_file.parent)
    (root / "leads_nowhere.mp4").symlink_to("none.mp4")
    source = source_of(root)
    assert list(source.files) == ["inside.mp4", "real.mp4"]
    for uri in ("file_outside.mp4", "folder_outside/secret.mp4"):
        with pytest.raises(SourceError, match=f"{uri} lies outside the dataset's folder"):
            source.resolve(uri)


def test_a_neighbour_with_a_longer_name_is_outside(tmp_path):
    touch(tmp_path / "root_2/a.mp4")
    touch(tmp_path / "root/a.mp4")
    with pytest.raises(SourceError):
        source_of(tmp_path / "root").resolve("../root_2/a.mp4")


def test_sources_that_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "text/readme.txt")
    touch(tmp_path / "text/data/values.csv")
    write_video(tmp_path / "video/run.mp4", [1, 2])
    for name, fields, reason in (
        ("none", {}, "no such file or folder: .*none"),
        ("none", {"format": "lerobot"}, "no such file or folder: .*none"),
        ("empty", {}, "empty folder: nothing to read"),
        ("empty", {"format": "lerobot"}, "empty folder: nothing to read"),
        ("text", {}, r"in no format that is read here \(rlds, .*, lerobot, .*, video\)"),
        ("text/readme.txt", {}, "in no format that is read here"),
        ("video", {"format": "lerobot"}, "is not in the format lerobot: its files look like video"),
    ):
        with pytest.raises(SourceError, match=reason) as error:
            format_of(source_of(tmp_path / name, **fields))
        assert "\n" not in str(error.value)


def test_names_that_are_not_text(tmp_path):
    write_video(tmp_path / "a.mp4", range(6))
    (tmp_path / "a.json").write_text('{"task": "t"}')
    root_bytes = os.fsencode(tmp_path)
    os.mkdir(root_bytes + b"/\xff")
    for name in (b"/b\xfe.mp4", b"/\xff/c.mp4"):
        with open(root_bytes + name, "wb") as file:
            file.write(b"x")
    source = source_of(tmp_path)
    assert (list(source.files), source.contents.folders) == (["a.json", "a.mp4"], set())
    assert [(f.reason, f.severity, f.file) for f in list_episodes(source).findings] == [
        ("path_escape", "warning", "b\ufffd.mp4"),
        ("path_escape", "warning", "\ufffd"),
    ]


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
def test_a_folder_below(source, folder, below):
    assert address_below(source, folder) == below
    assert last_name(below) == (folder or source).rpartition("/")[2]
