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

from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import shown, source_of
from tests.kits.processes import own_peak_mb
from tests.kits.zarr_writer import BLOSC, CAMERA, write_replay

LENGTHS = [6, 8]
CODECS = {
    "jpegxl": (None, 1),
    "blosc": (BLOSC, 1),
    "blosc-many": (BLOSC, 5),
    "lz4": (numcodecs.LZ4(), 3),
    "zstd": (numcodecs.Zstd(), 3),
    "zlib": (numcodecs.Zlib(), 2),
    "gzip": (numcodecs.GZip(), 2),
    "bz2": (numcodecs.BZ2(), 20),
    "lzma": (numcodecs.LZMA(), 4),
}


def reasons(path: Path, **registry: Any) -> dict[str, str]:
    return {f.reason: f.detail for f in list_episodes(source_of(path, **registry)).findings}


def description(store: Path, name: str, **changed: Any) -> None:
    path = store / name / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_store_itself_several_stores_and_one_inside_a_folder_of_its_archive(tmp_path: Path) -> None:
    write_replay(tmp_path / "many/a.zarr", [6])
    write_replay(tmp_path / "many/b.zarr.zip", [7])
    assert [r.source_id for r in list_episodes(source_of(tmp_path / "many")).records] == ["a.zarr#0", "b.zarr.zip#0"]
    assert [r.source_id for r in list_episodes(source_of(tmp_path / "many/a.zarr")).records] == ["a.zarr#0"]
    assert len(list_episodes(source_of(tmp_path / "many/b.zarr.zip")).records) == 1
    with zipfile.ZipFile(tmp_path / "c.zarr.zip", "w") as archive:
        for path in (p for p in (tmp_path / "many/a.zarr").rglob("*") if p.is_file()):
            archive.write(path, f"a.zarr/{path.relative_to(tmp_path / 'many/a.zarr')}")
    source = source_of(tmp_path / "c.zarr.zip")
    (record,) = list_episodes(source).records
    assert shown(source, record, CAMERA) == [(0, 0, k) for k in range(6)]


def test_what_a_store_does_not_say_is_a_finding(tmp_path: Path) -> None:
    write_replay(tmp_path / "umi.zarr", LENGTHS)
    said = reasons(tmp_path)
    assert "10 fps is assumed" in said["no_frame_rate"]
    assert "no instruction" in said["no_task"]
    assert "no_frame_rate" not in reasons(tmp_path, fps=59.94)
    assert "data/joints" in reasons(tmp_path, keys={"state": ["joints"]})["no_data"]


def test_ends_that_do_not_rise_or_lead_beyond_the_rows(tmp_path: Path) -> None:
    ends = write_replay(tmp_path / "umi.zarr", LENGTHS) / "meta/episode_ends/0"
    ends.write_bytes(np.array([8, 6], np.int64).tobytes())
    assert "8, 6" in reasons(tmp_path)["bad_episode_ends"]
    ends.write_bytes(np.array([6, 99], np.int64).tobytes())
    said = reasons(tmp_path)
    assert "the episodes end at 99" in said["length_differs"]
    assert "no_video" in said


def test_a_store_that_has_changed_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    source = source_of(tmp_path)
    record = list_episodes(source).records[1]
    (store / "meta/episode_ends/0").write_bytes(np.array([7, 14], np.int64).tobytes())
    with pytest.raises(DataError, match="no more rows 6 to 14"):
        read_episode(source, record)


@pytest.mark.parametrize("codec", ["blosc", "lz4"])
def test_a_chunk_that_claims_too_much_takes_no_memory(tmp_path: Path, codec: str) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS, *CODECS[codec])
    chunk = store / "data" / CAMERA / "0.0.0.0"
    data = bytearray(chunk.read_bytes())
    struct.pack_into("<I", data, 4 if codec == "blosc" else 0, 1 << 31)
    chunk.write_bytes(data)
    source = source_of(tmp_path)
    frames = read_episode(source, list_episodes(source).records[0]).frames(CAMERA)
    before = own_peak_mb()
    with pytest.raises(DataError, match=CAMERA):
        list(frames)
    assert own_peak_mb() - before < 500


def test_pictures_that_were_never_written_are_not_made_up(tmp_path: Path) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    (store / "data" / CAMERA / "2.0.0.0").unlink()
    (store / "data/robot0_eef_pos/0.0").unlink()
    source = source_of(tmp_path)
    record = list_episodes(source).records[0]
    with pytest.raises(Exception, match=f"{CAMERA}: a chunk of it was never written"):
        shown(source, record, CAMERA)
    # Of numbers the format itself says what stands for a chunk that is not there
    state = read_episode(source, record).state
    assert state is not None
    assert not state[:, :3].any()


@pytest.mark.parametrize(
    ("changed", "reason", "told"),
    [
        ({"compressor": {"id": "pickle"}}, "unreadable_data", "'pickle'"),
        ({"filters": [{"id": "delta", "dtype": "|u1"}]}, "unknown_codec", "through filters"),
        ({"shape": [-1, 64, 64, 3]}, "unreadable_data", "non-negative"),
        ({"chunks": [2, 64, 64, 3]}, "unknown_codec", "several pictures in one"),
    ],
)
def test_descriptions_that_are_not_read(tmp_path: Path, changed: dict[str, Any], reason: str, told: str) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    description(store, f"data/{CAMERA}", **changed)
    said = reasons(tmp_path)
    assert told in said[reason]
    assert "no_video" in said


def test_zarr_3_and_what_is_no_archive_say_what_to_do(tmp_path: Path) -> None:
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    for path in store.rglob(".z*"):
        path.unlink()
    (store / "meta/episode_ends/zarr.json").write_text("{}")
    assert "zarr_format=2" in reasons(tmp_path)["unreadable_data"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.zarr.zip").write_bytes(b"PK\x03\x04 not at all")
    assert "not a zip file" in reasons(tmp_path / "b")["unreadable_data"]
    (tmp_path / "b/x.zarr.zip").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "lfs_pointer" in reasons(tmp_path / "b")


def test_without_imagecodecs_the_finding_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_replay(tmp_path / "umi.zarr", LENGTHS)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert "imagecodecs" in reasons(tmp_path)["unknown_codec"]
