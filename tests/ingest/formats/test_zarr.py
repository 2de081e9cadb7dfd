"""Zarr replay buffers: written by the library zarr, read by ours, and stores that are broken or claim too much."""

import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import LFS_POINTER, source_of
from tests.kits.told import New, Told, golden
from tests.kits.zarr_writer import BLOSC, CAMERA, write_replay

LENGTHS = [6, 8]


@golden
def test_stores(new: New) -> Told:
    root = new()
    write_replay(root / "a.zarr", [6])
    write_replay(root / "b.zarr.zip", [7])
    yield "several", source_of(root)
    yield "one itself", source_of(root / "a.zarr")
    yield "an archive itself", source_of(root / "b.zarr.zip")
    with zipfile.ZipFile(root / "c.zarr.zip", "w") as archive:
        for path in (p for p in (root / "a.zarr").rglob("*") if p.is_file()):
            archive.write(path, f"a.zarr/{path.relative_to(root / 'a.zarr')}")
    yield "inside a folder of its archive", source_of(root / "c.zarr.zip")
    root = new()
    write_replay(root / "umi.zarr", LENGTHS)
    yield "what one does not say is a finding", source_of(root)
    yield "the registry says the rate", source_of(root, fps=59.94)
    yield "the registry's state is not there", source_of(root, keys={"state": ["joints"]})
    for codec in (
        numcodecs.LZ4(),
        numcodecs.Zstd(),
        numcodecs.Zlib(),
        numcodecs.GZip(),
        numcodecs.BZ2(),
    ):
        write_replay((root := new()) / "umi.zarr", [6], codec, 4)
        yield f"packed by {codec.codec_id}", source_of(root)
    write_replay((root := new()) / "umi.zarr", [6], numcodecs.LZMA(), 4)
    yield "packed by lzma", source_of(root)


@golden
def test_broken_stores(new: New) -> Told:
    def store() -> Path:
        return write_replay(new() / "umi.zarr", LENGTHS)

    for values in ([8, 6], [6, 99]):
        (path := store() / "meta/episode_ends/0").write_bytes(np.array(values, np.int64).tobytes())
        yield f"ends {values}", source_of(path.parents[3])
    path = store()
    (path / "data" / CAMERA / "2.0.0.0").unlink()
    (path / "data/robot0_eef_pos/0.0").unlink()
    yield (
        "what was never written: no picture is made up, and of numbers the format says what it is",
        source_of(path.parent),
    )
    changes: tuple[dict[str, Any], ...] = (
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "delta", "dtype": "|u1"}]},
        {"shape": [-1, 64, 64, 3]},
        {"chunks": [2, 64, 64, 3]},
    )
    for changed in changes:
        described = (path := store()) / "data" / CAMERA / ".zarray"
        described.write_text(json.dumps(json.loads(described.read_text()) | changed))
        yield f"a camera with {changed}", source_of(path.parent)
    path = store()
    for described in path.rglob(".z*"):
        described.unlink()
    (path / "meta/episode_ends/zarr.json").write_text("{}")
    yield "Zarr 3", source_of(path.parent)
    for title, content in (
        ("no archive", b"PK\x03\x04 not at all"),
        ("a pointer", LFS_POINTER.encode()),
    ):
        (root := new()).joinpath("x.zarr.zip").write_bytes(content)
        yield title, source_of(root)


def test_a_store_that_has_changed_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    source = source_of(tmp_path)
    record = list_episodes(source).records[1]
    (store / "meta/episode_ends/0").write_bytes(np.array([7, 14], np.int64).tobytes())
    with pytest.raises(DataError, match="no more rows 6 to 14"):
        read_episode(source, record)


@pytest.mark.parametrize(("codec", "at"), [(BLOSC, 4), (numcodecs.LZ4(), 0)])
def test_a_chunk_that_claims_more_than_its_array_is_not_read(
    tmp_path: Path, codec: Any, at: int
) -> None:
    chunk = write_replay(tmp_path / "umi.zarr", LENGTHS, codec, 3) / "data" / CAMERA / "0.0.0.0"
    data = bytearray(chunk.read_bytes())
    struct.pack_into("<I", data, at, 1 << 20)
    chunk.write_bytes(data)
    source = source_of(tmp_path)
    frames = read_episode(source, list_episodes(source).records[0]).frames(CAMERA)
    with pytest.raises(DataError, match=CAMERA):
        list(frames)


def test_a_chunk_that_is_cut_off_never_comes_to_its_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blosc by itself reads as many bytes as a header says."""

    class StandIn(numcodecs.Blosc):
        def decode(self, buf: Any, out: Any = None) -> Any:
            raise AssertionError("it was asked to decode")

    chunk = write_replay(tmp_path / "umi.zarr", LENGTHS, BLOSC, 3) / "data" / CAMERA / "0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    source = source_of(tmp_path)
    record = list_episodes(source).records[0]
    data = read_episode(source, record)
    monkeypatch.setattr(numcodecs, "Blosc", StandIn)
    with pytest.raises(DataError, match="a chunk of it is cut off"):
        list(data.frames(CAMERA))


def test_without_imagecodecs_the_finding_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_replay(tmp_path / "umi.zarr", LENGTHS)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    details = {f.reason: f.detail for f in list_episodes(source_of(tmp_path)).findings}
    assert "imagecodecs" in details["unknown_codec"]


@pytest.mark.parametrize("name", ["umi.zarr", "umi.zarr.zip"])
def test_a_description_over_the_limit_is_not_read(tmp_path: Path, name: str) -> None:
    write_replay(tmp_path / name, [6])
    assert list_episodes(source_of(tmp_path)).records[0].num_rows == 6
    listing = list_episodes(source_of(tmp_path, limits={"max_header_bytes": 1}))
    assert [finding.reason for finding in listing.findings] == ["over_limit"]
    assert "limits.max_header_bytes" in listing.findings[0].detail


def test_texts_over_the_limit_are_not_read(tmp_path: Path) -> None:
    """A description may claim any number of texts of any length that are all the fill value, in no bytes."""
    path = write_replay(tmp_path / "umi.zarr", [6, 8])
    zarr.open_group(path, mode="a", zarr_format=2).create_array(
        "meta/task", shape=(2,), dtype="S16", chunks=(2,)
    )
    source = source_of(tmp_path)
    assert not any("limits." in finding.detail for finding in list_episodes(source).findings)
    details = [
        finding.detail
        for finding in list_episodes(source_of(tmp_path, limits={"max_bytes": 8})).findings
    ]
    assert any("task" in detail and "limits.max_bytes" in detail for detail in details), details
