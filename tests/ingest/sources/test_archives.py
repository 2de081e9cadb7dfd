"""Tar members: which of them count, reading them in place and unpacked, and archives that are
damaged or hostile."""

import os
import tarfile
from unittest.mock import Mock

import pytest

from ingest.reasons import DataError, Limits
from ingest.sources import files
from ingest.sources.files import extract, index
from ingest.sources.types import SourceError
from tests.kits.lerobot_writer import LFS_POINTER, source_of
from tests.kits.parts import put

BLOCK = 512


def of_type(name: str, kind: bytes, link_target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link_target
    return info


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.type = kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_what_is_left_out(tmp_path):
    escaping = ["../outside.mp4", "a/../../outside.mp4", "/etc/outside.mp4"]
    no_files = [
        of_type("soft.mp4", tarfile.SYMTYPE, "/etc/hostname"),
        of_type("hard.mp4", tarfile.LNKTYPE, "inside.mp4"),
        of_type("device", tarfile.CHRTYPE),
        of_type("pipe", tarfile.FIFOTYPE),
    ]
    members = [(name, b"x") for name in escaping] + [(member, b"") for member in no_files]
    members += [("not utf-8 \udce9.mp4", b"x"), ("inside.mp4", b"here")]
    put(tmp_path, {"a.tar": members})
    escaping += [member.name for member in no_files]
    source = source_of(tmp_path)
    assert list(source.archive("a.tar").members) == ["inside.mp4"]
    assert source.contents.escaping == [f"a.tar!/{n}" for n in [*escaping, "not utf-8 ?.mp4"]]
    for name in escaping:
        with pytest.raises(DataError, match="has no member"):
            source.resolve(f"a.tar!/{name}")


def test_a_pointer_in_an_archive_is_one(tmp_path):
    put(tmp_path, {"a.tar": [("a.h5", LFS_POINTER.encode())]})
    with pytest.raises(DataError, match="is a git-LFS pointer") as e:
        source_of(tmp_path).open("a.tar!/a.h5")
    assert e.value.reason == "lfs_pointer"


def test_unpacked_once_under_a_name_of_ours(tmp_path):
    tar = put(tmp_path, {"a.tar": [("e/x.mp4", b"one"), ("e/x.odd suffix", b"two")]}) / "a.tar"
    cache = tmp_path / "cache"
    path = extract(tar, "e/x.mp4", cache)
    assert (path.parent, path.suffix, len(path.stem), path.read_bytes()) == (
        cache,
        ".mp4",
        64,
        b"one",
    )
    os.utime(path, ns=(0, 0))
    assert extract(tar, "e/x.mp4", cache) == path
    assert path.stat().st_mtime_ns > 0  # what is in use is not the oldest
    assert extract(tar, "e/x.odd suffix", cache).suffix == ""
    assert len(list(cache.iterdir())) == 2  # nothing half done is left
    put(tmp_path, {"a.tar": [("e/x.mp4", b"changed")]})
    assert extract(tar, "e/x.mp4", cache).read_bytes() == b"changed"


def test_the_cache_is_bounded(tmp_path):
    limits = Limits(max_unpacked_bytes=250)
    tar = put(tmp_path, {"a.tar": [(f"{n}.mp4", n.encode() * 100) for n in "abc"]}) / "a.tar"
    paths = []
    for age, name in enumerate("abc"):
        paths.append(extract(tar, f"{name}.mp4", tmp_path / "cache", limits))
        os.utime(paths[-1], ns=(age, age))
    assert [p.exists() for p in paths] == [False, True, True]
    assert extract(tar, "a.mp4", tmp_path / "cache", limits).read_bytes() == b"a" * 100
    assert [p.exists() for p in paths] == [True, False, True]


GOOD = header("good.mp4", 4) + b"data".ljust(BLOCK, b"\0")
END = bytes(2 * BLOCK)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (GOOD, "no header and no end mark"),
        (GOOD + header("x", 3)[:300], "no header and no end mark"),
        (GOOD + b"\xff" * BLOCK + END, "no header and no end mark"),
        (GOOD + header("x.mp4", 9000) + b"cut short", "claims 9000 bytes, more than the file has"),
        (GOOD + header("x.mp4", 1 << 20) + END, "claims 1048576 bytes"),
        (GOOD + header("x.mp4", -1) + END, "negative size"),
        (GOOD + header("x", 1 << 20, tarfile.GNUTYPE_LONGNAME) + END, ""),
        (GOOD + header("x", -1, tarfile.GNUTYPE_LONGNAME) + END, ""),
        (GOOD + header("x", 1 << 20, tarfile.XHDTYPE) + END, ""),
        (GOOD + header("x", 0, tarfile.GNUTYPE_LONGNAME) * 1900 + END, ""),
    ],
)
def test_what_stands_before_the_damage_is_read(tmp_path, data, problem):
    (tmp_path / "a.tar").write_bytes(data)
    archive_index = index(tmp_path / "a.tar")
    assert list(archive_index.members) == ["good.mp4"]
    assert problem in str(archive_index.problem)
    assert "1 files before it can be read" in str(archive_index.problem)
    with source_of(tmp_path).open("a.tar!/good.mp4") as file:
        assert file.read() == b"data"


def test_a_header_that_takes_too_much_memory(tmp_path, monkeypatch):
    """As one does that claims a name of a terabyte."""
    put(tmp_path, {"a.tar": [("x.mp4", b"x")]})
    monkeypatch.setattr(tarfile.TarFile, "next", Mock(side_effect=MemoryError))
    assert str(index(tmp_path / "a.tar").problem) == "MemoryError; 0 files before it can be read"


def test_a_tar_that_shrinks_under_us(tmp_path, monkeypatch):
    tar = put(tmp_path, {"a.tar": [("x.mp4", b"x" * 5000)]}) / "a.tar"
    archive_index = index(tar)
    tar.write_bytes(tar.read_bytes()[:2000])
    monkeypatch.setattr(files, "index", lambda *_: archive_index)
    with pytest.raises(DataError, match="mp4 breaks off"):
        extract(tar, "x.mp4", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_ends_the_build(tmp_path, monkeypatch):
    """A full disk is no fault of the episode's."""
    put(tmp_path, {"a.tar": [("x.mp4", b"x")]})
    (tmp_path / "in the way").write_text("")
    monkeypatch.setattr(files, "scratch", lambda: tmp_path / "in the way")
    with pytest.raises(SourceError, match=r"cannot unpack x.mp4 of a.tar: "):
        source_of(tmp_path).resolve("a.tar!/x.mp4")
