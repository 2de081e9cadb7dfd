"""A dataset's files: listed once, known again when unchanged, and never reached outside its folder."""

import os
from pathlib import Path

import pytest

from ingest.formats import LEROBOT
from ingest.registry import DatasetConfig
from ingest.source import format_of, list_episodes
from ingest.sources.files import cache_folder
from ingest.sources.types import SourceError
from tests.kits.lerobot_writer import source_of, write_v2, write_video


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.json", "a/b/c.parquet", ".hidden", ".git/config", "a/.DS_Store"):
        touch(tmp_path / name, name)
    source = source_of(tmp_path)
    assert {uri: s.size for uri, s in source.files.items()} == {"b.mp4": 5, "a/z.json": 8, "a/b/c.parquet": 13}
    assert source.by_name == {"b.mp4": ["b.mp4"], "z.json": ["a/z.json"], "c.parquet": ["a/b/c.parquet"]}


def test_folders(tmp_path: Path) -> None:
    touch(tmp_path / "a/b/c.json")
    touch(tmp_path / ".git/config")
    (tmp_path / "empty").mkdir()
    assert source_of(tmp_path).folders == {"a", "a/b", "empty"}


@pytest.mark.parametrize(
    ("revision", "folder"), [(None, "current"), ("v1.0", "v1%2E0"), ("..", "%2E%2E"), ("../a", "%2E%2E%2Fa")]
)
def test_cache_folder(revision: str | None, folder: str) -> None:
    config = DatasetConfig(name="toy", source="hf://someone/toy", revision=revision)
    assert cache_folder(Path("sources"), config) == Path("sources/toy") / folder


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "beside.mp4")
    source = source_of(touch(tmp_path / "a.mp4"))
    assert list(source.files) == ["a.mp4"]
    assert source.resolve("a.mp4") == tmp_path / "a.mp4"


def test_links(tmp_path: Path) -> None:
    """A link counts where it stays inside the folder."""
    root, outside = tmp_path / "root", touch(tmp_path / "outside/secret.mp4")
    touch(root / "real.mp4")
    (root / "inside.mp4").symlink_to("real.mp4")
    (root / "file_outside.mp4").symlink_to(outside)
    (root / "folder_outside").symlink_to(outside.parent)
    (root / "leads_nowhere.mp4").symlink_to("none.mp4")
    source = source_of(root)
    assert list(source.files) == ["inside.mp4", "real.mp4"]
    for uri in ("file_outside.mp4", "folder_outside/secret.mp4"):
        with pytest.raises(SourceError, match=f"{uri} lies outside the dataset's folder"):
            source.resolve(uri)


@pytest.mark.parametrize("uri", ["../outside.mp4", "a/../../outside.mp4", "/etc/hostname"])
def test_paths_out_of_the_folder(tmp_path: Path, uri: str) -> None:
    touch(tmp_path / "outside.mp4")
    touch(tmp_path / "root/a/b.mp4")
    with pytest.raises(SourceError, match="lies outside the dataset's folder"):
        source_of(tmp_path / "root").resolve(uri)


def test_a_neighbour_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    touch(tmp_path / "root_2/a.mp4")
    touch(tmp_path / "root/a.mp4")
    with pytest.raises(SourceError):
        source_of(tmp_path / "root").resolve("../root_2/a.mp4")


def test_fingerprint(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a.mp4", "one"), touch(tmp_path / "b.mp4", "two")

    def now() -> str:
        return source_of(tmp_path).fingerprint()

    seen = [now()]
    assert now() == seen[0]
    first.write_text("six")  # of the same size: only the time tells
    os.utime(first, ns=(0, 1))
    seen.append(now())
    second.write_text("longer")
    os.utime(second, ns=(0, 1))
    seen.append(now())
    second.rename(tmp_path / "c.mp4")
    seen.append(now())
    touch(tmp_path / "d.mp4")
    seen.append(now())
    (tmp_path / "d.mp4").unlink()
    first.unlink()
    seen.append(now())
    assert len(set(seen)) == 6


def test_stamp(tmp_path: Path) -> None:
    """An episode's stamp is of its own files and rows, and not of the time they were copied at."""
    touch(tmp_path / "a.mp4", "one")
    touch(tmp_path / "b.mp4", "two")
    stamp = source_of(tmp_path).stamp(["a.mp4"], 10)
    os.utime(tmp_path / "a.mp4", ns=(0, 1))
    touch(tmp_path / "b.mp4", "longer")
    assert source_of(tmp_path).stamp(["a.mp4", "a.mp4"], 10) == stamp
    assert source_of(tmp_path).stamp(["a.mp4"], 11) != stamp
    touch(tmp_path / "a.mp4", "four")
    assert source_of(tmp_path).stamp(["a.mp4"], 10) != stamp


# Which format


def test_format_by_looking(tmp_path: Path) -> None:
    assert format_of(source_of(write_v2(tmp_path / "a", [6]))) == LEROBOT
    write_video(tmp_path / "b/run.mp4", [1, 2])
    assert format_of(source_of(tmp_path / "b")).name == "video"
    assert format_of(source_of(tmp_path / "b/run.mp4")).name == "video"


@pytest.mark.parametrize(
    "file", ["meta/readme.txt", "data/chunk-000/x.bin", "videos/chunk-000/x.bin", "videos/cam/chunk-000/x.bin"]
)
def test_a_ruined_lerobot_folder_is_one_still(tmp_path: Path, file: str) -> None:
    touch(tmp_path / file)
    assert format_of(source_of(tmp_path)) == LEROBOT


def test_sources_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "text/readme.txt")
    touch(tmp_path / "text/data/values.csv")
    write_video(tmp_path / "video/run.mp4", [1, 2])
    for name, fields, why in (
        ("none", {}, "no such file or folder: .*none"),
        ("none", {"format": "lerobot"}, "no such file or folder: .*none"),
        ("empty", {}, "empty folder: nothing to read"),
        ("empty", {"format": "lerobot"}, "empty folder: nothing to read"),
        ("text", {}, r"in no format that is read here \(rlds, .*, lerobot, .*, video\)"),
        ("text/readme.txt", {}, "in no format that is read here"),
        ("video", {"format": "lerobot"}, "is not in the format lerobot: its files look like video"),
    ):
        with pytest.raises(SourceError, match=why) as error:
            format_of(source_of(tmp_path / name, **fields))
        assert "\n" not in str(error.value)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """No table could keep them: left out, with what is below them, and said."""
    write_video(tmp_path / "a.mp4", range(6))
    (tmp_path / "a.json").write_text('{"task": "t"}')
    at = os.fsencode(tmp_path)
    os.mkdir(at + b"/\xff")
    for name in (b"/b\xfe.mp4", b"/\xff/c.mp4"):
        with open(at + name, "wb") as file:
            file.write(b"x")
    source = source_of(tmp_path)
    assert (list(source.files), source.folders) == (["a.json", "a.mp4"], set())
    assert [(f.reason, f.severity, f.file) for f in list_episodes(source).findings] == [
        ("bad_name", "warning", "b\ufffd.mp4"),
        ("bad_name", "warning", "\ufffd"),
    ]
