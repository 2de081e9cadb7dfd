"""Keyframes are on the disk when the block that stores them ends, and what cannot be written is said."""

import hashlib
from pathlib import Path

import pytest

import pipeline.keyframes as keyframes
from core.paths import Workspace
from pipeline.keyframes import WRITERS, KeyframeWriter


def name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def store(folder: Path, pictures: list[bytes], error: Exception | None = None) -> None:
    with KeyframeWriter(Workspace(folder)) as writer:
        for picture in pictures:
            writer.store(name(picture), picture)
        if error:
            raise error


def test_all_are_there_at_the_end_and_each_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    space = Workspace(tmp_path)
    pictures = [b"%d" % k * 100 for k in range(40 * WRITERS)]
    with KeyframeWriter(space) as first:
        first.store(name(pictures[0]), pictures[0])
    written: list[Path] = []
    write = keyframes.write_file
    monkeypatch.setattr(keyframes, "write_file", lambda path, data: (written.append(path), write(path, data)))
    with KeyframeWriter(space) as writer:
        for picture in [*pictures, *pictures]:
            writer.store(name(picture), picture)
    assert {p.name for p in (tmp_path / "keyframes").rglob("*.*")} == {f"{name(p)}.jpg" for p in pictures}
    assert all(space.keyframe(name(p)).read_bytes() == p for p in pictures)
    assert len(written) == len(set(written)) == len(pictures) - 1
    assert writer.new_bytes == sum(map(len, pictures[1:]))


@pytest.mark.parametrize("count", [1, 20 * WRITERS])
def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int):
    def write(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keyframes, "write_file", write)
    with pytest.raises(OSError, match="No space left"):
        store(tmp_path, [b"%d" % k for k in range(count)])


def test_what_the_block_raises_is_what_is_raised(tmp_path: Path):
    with pytest.raises(ValueError, match="spoilt"):
        store(tmp_path, [b"a"], ValueError("spoilt"))
