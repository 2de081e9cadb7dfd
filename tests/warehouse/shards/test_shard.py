"""Shards: equal bytes for equal content, readable by webdataset and by the loader here, honest about damage."""

import io
import json
import multiprocessing
import os
import random
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.shard_kit import CAMERA, JPEGS, episode, sha256_of, shown, write
from warehouse.shards import (
    Index,
    ShardEpisode,
    ShardError,
    check_shard,
    index_path,
    pack,
    picture_name,
    read_entries,
    read_entry,
    read_index,
    read_sample,
    read_samples,
    shards_stage,
)
from warehouse.shards.loader import Loader

GNU = tarfile.GNU_FORMAT


def packed(*episodes: ShardEpisode) -> bytes:
    file = io.BytesIO()
    pack(file, episodes)
    return file.getvalue()


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


# Writing


def test_equal_content_gives_equal_bytes_in_any_order():
    episodes = [episode(i, noise=500) for i in range(6)]
    first = packed(*episodes)
    assert packed(*(episode(i, noise=500) for i in (3, 5, 0, 1, 4, 2))) == first
    reordered = replace(episode(0), pictures=dict(reversed(episode(0).pictures.items())))
    assert packed(reordered) == packed(episode(0))
    assert packed(*episodes[:5]) != first


@pytest.mark.parametrize("camera", [CAMERA, "kamera-größe", "c" * 76, "c" * 77, "c" * 300])
def test_it_is_the_tar_that_tarfile_writes(camera: str):
    """Names of 100 and 101 bytes among them, and of more."""
    e = episode(0)
    pictures = {name.replace(CAMERA, camera): jpeg for name, jpeg in e.pictures.items()}
    samples = [{**row, "pictures": [{**p, "camera": camera} for p in row["pictures"]]} for row in e.samples]
    tar = packed(replace(e, pictures=pictures, samples=samples))
    expected = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as found, tarfile.open(fileobj=expected, mode="w", format=GNU) as again:
        for member in found:
            info = tarfile.TarInfo(member.name)
            info.size = member.size
            again.addfile(info, found.extractfile(member))
    assert tar == expected.getvalue()


def test_what_a_tar_holds(tmp_path: Path):
    tar = write(tmp_path, [episode(7), episode(12)])
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
        assert [m.name for m in members] == [
            *(f"sim-000007.{CAMERA}.{k:06d}.jpg" for k in range(4)),
            "sim-000007.samples.json",
            *(f"sim-000012.{CAMERA}.{k:06d}.jpg" for k in range(4)),
            "sim-000012.samples.json",
        ]
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
        handle = opened.extractfile(members[4])
        assert handle is not None
        rows = json.load(handle)
    given_rows = episode(7).samples
    assert [r["pictures"] for r in rows] == [[f"{CAMERA}.{f:06d}.jpg" for f in (k, k + 1)] for k in range(3)]
    assert [r | {"pictures": g["pictures"]} for r, g in zip(rows, given_rows, strict=True)] == list(given_rows)
    first, second = read_index(tar).entries
    assert (first.key, first.offset, first.size) == ("sim-000007", 0, members[5].offset)
    assert (second.key, second.offset) == ("sim-000012", members[5].offset)
    assert first.sample_id == ("sim7.0", "sim7.1", "sim7.2")
    assert first.family == ("procvqa_a", "procvqa_c", "procvqa_c")
    assert first.num_tokens == (10, 11, 12)


def test_a_foreign_or_edited_picture_lies_in_the_entry_that_shows_it():
    row = {"sample_id": "s", "family": "f", "num_tokens": 1}
    row["pictures"] = [shown(9, 3), shown(2, 3), shown(2, 3, "flip")]
    called = [picture_name(2, p) for p in row["pictures"]]
    assert called == [f"e000009.{CAMERA}.000003.jpg", f"{CAMERA}.000003.jpg", f"{CAMERA}.000003.flip.jpg"]
    tar = packed(ShardEpisode("sim", 2, [row], dict(zip(called, JPEGS, strict=False))))
    assert names(tar) == [*sorted(f"sim-000002.{n}" for n in called), "sim-000002.samples.json"]


def test_a_picture_that_no_sample_shows_is_left_out():
    e = episode(0)
    assert packed(replace(e, pictures={**e.pictures, "spare.000000.jpg": b"x"})) == packed(e)


def test_a_sample_without_its_picture_cannot_be_written():
    e = episode(0)
    without = {k: v for k, v in e.pictures.items() if "000002" not in k}
    with pytest.raises(ShardError, match=rf"sim-000000: sample sim0\.1 .* shows {CAMERA}\.000002\.jpg, which is not"):
        packed(replace(e, pictures=without))
    with pytest.raises(ShardError, match="shows no picture"):
        packed(replace(e, samples=[{**e.samples[0], "pictures": []}]))
    with pytest.raises(ShardError, match="sim-000000 comes after sim-000000: entries are written in order"):
        packed(e, e)


def stage(workspace: Workspace, episodes: list[tuple[str, ShardEpisode]], target: int = 1 << 30, **where: Any):
    return shards_stage(workspace, "sim", 4, iter(episodes), target, **where)


def test_the_stage_writes_and_records_a_tar_for_each_split(workspace: Workspace):
    given_ = [("train", episode(0, noise=3000)), ("val", episode(1)), ("train", episode(2, noise=3000))]
    tables = stage(workspace, given_)
    for name, table in tables.items():
        assert table.schema == TABLES[name].schema
    train, val = tables["shards"].to_pylist()
    assert (train["split"], train["episodes"], train["samples"]) == ("train", 2, 6)
    assert (val["split"], val["episodes"], val["samples"]) == ("val", 1, 3)
    for row in (train, val):
        path = workspace.shard(row["split"], row["shard"])
        assert (row["sha256"], row["bytes"], row["store"]) == (sha256_of(path), path.stat().st_size, None)
        assert row["shard"] == f"sim-00004-{row['split']}-{row['sha256'][:12]}.tar"
        index = read_index(path)
        facts = (index.shard, index.dataset, index.chunk, index.split, index.sha256, index.size, index.samples)
        assert facts == tuple(row[k] for k in ("shard", "dataset", "chunk", "split", "sha256", "bytes", "samples"))
        locations = [x for x in tables["sample_location"].to_pylist() if x["shard"] == row["shard"]]
        expected = [(i, e.offset) for e in index.entries for i in e.sample_id]
        assert [(x["sample_id"], x["offset"]) for x in locations] == expected
        assert check_shard(path, row["sha256"], row["bytes"]) == []
    files = {p: p.read_bytes() for p in (workspace.root / "shards").rglob("*") if p.is_file()}
    assert len(files) == 4  # nothing but tars and indexes
    again = stage(workspace, [given_[1], given_[0], given_[2]])  # splits finish in another order
    assert again["shards"].equals(tables["shards"])
    assert {p: p.read_bytes() for p in (workspace.root / "shards").rglob("*") if p.is_file()} == files


def test_tars_are_closed_at_the_target_size(workspace: Workspace):
    splits = ["train", "val", "train"] * 10
    given_ = [(split, episode(i, noise=50)) for i, split in enumerate(splits)]
    whole = stage(workspace, given_)
    parts = stage(workspace, given_, target=40_000)
    count = {s: sum(r["split"] == s for r in parts["shards"].to_pylist()) for s in ("train", "val")}
    assert min(count.values()) > 2
    for row in parts["shards"].to_pylist():
        path = workspace.shard(row["split"], row["shard"])
        last = read_index(path).entries[-1]
        assert last.offset < 40_000  # it was open when the last entry came
        assert check_shard(path, row["sha256"], row["bytes"]) == []

    def entries(tables: dict) -> dict[str, list[tuple[str, list[str]]]]:
        found: dict[str, list[tuple[str, list[str]]]] = {}
        for row in tables["shards"].to_pylist():
            index = read_index(workspace.shard(row["split"], row["shard"]))
            found.setdefault(row["split"], []).extend((e.key, list(e.sample_id)) for e in index.entries)
        return {split: sorted(some) for split, some in found.items()}

    assert entries(parts) == entries(whole)
    # episodes of a split stay in order, however those of others fall between them
    apart = stage(workspace, sorted(given_, key=lambda x: x[0]), target=40_000)
    by_name = [t["shards"].sort_by("shard") for t in (apart, parts)]
    assert by_name[0].equals(by_name[1])


def test_a_shard_that_is_there_already_becomes_young(workspace: Workspace):
    """Or a sweep could take it before the stage has recorded it."""
    stage(workspace, [("train", episode(0))])
    (path,) = workspace.root.rglob("*.tar")
    for p in (path, index_path(path)):
        os.utime(p, (1, 1))
    stage(workspace, [("train", episode(0))])
    assert min(path.stat().st_mtime, index_path(path).stat().st_mtime) > 1e9


def test_a_half_written_shard_is_written_anew(workspace: Workspace):
    tables = stage(workspace, [("train", episode(0))])
    (row,) = tables["shards"].to_pylist()
    path = workspace.shard("train", row["shard"])
    for spoil in (index_path(path).unlink, lambda: path.write_bytes(b"half")):
        spoil()
        stage(workspace, [("train", episode(0))])
        assert check_shard(path, row["sha256"], row["bytes"]) == []


def test_no_episodes_no_tar(workspace: Workspace):
    assert all(t.num_rows == 0 for t in stage(workspace, []).values())


def test_an_episode_that_cannot_be_written_leaves_nothing(workspace: Workspace):
    with pytest.raises(ShardError):
        stage(workspace, [("train", episode(0)), ("train", replace(episode(1), pictures={}))])
    assert not [p for p in (workspace.root / "shards").rglob("*") if p.is_file()]


# Reading


def test_plain_webdataset_reads_it(tmp_path: Path):
    from webdataset import WebDataset

    path = write(tmp_path, [episode(3), episode(4)])
    entries = list(WebDataset(str(path), shardshuffle=False).decode("pil"))
    assert [e["__key__"] for e in entries] == ["sim-000003", "sim-000004"]
    for index, e in zip((3, 4), entries, strict=True):
        assert [r["sample_id"] for r in e["samples.json"]] == [r["sample_id"] for r in episode(index).samples]
        for row in e["samples.json"]:
            for name in row["pictures"]:
                picture = np.asarray(e[name])
                assert picture.shape == (24, 24, 3)
                assert abs(int(picture[12, 12, 0]) - (10 * index + int(name.split(".")[-2]))) <= 2


@pytest.mark.parametrize("dataset", ["sim", "a-dataset-of-a-very-long-name-" * 4, "größe"])
def test_an_entry_is_read_as_the_stream_is(tmp_path: Path, dataset: str):
    """Also where names do not fit into a header of a tar."""
    path = write(tmp_path, [episode(i, dataset=dataset, noise=300) for i in range(4)], "x.tar")
    streamed = list(read_entries(path))
    entries = read_index(path).entries
    assert [read_entry(path, e) for e in entries] == streamed
    assert next(read_entries(path, entries[2].offset)) == streamed[2]
    samples = [(s.row["sample_id"], s.pictures) for s in read_samples([path])]
    assert len(samples) == 12
    pictures = list(episode(3, noise=300).pictures.values())
    assert samples[-1] == (f"{dataset}3.2", (pictures[2], pictures[3]))
    assert len(list(read_samples([path], frozenset({"procvqa_a"})))) == 4


def test_a_sample_is_read_by_its_location(workspace: Workspace):
    episodes = [episode(i, noise=900) for i in range(12)]
    tables = stage(workspace, [("train", e) for e in episodes])
    size = tables["shards"]["bytes"][0].as_py()
    locations = tables["sample_location"].to_pylist()
    assert len({x["offset"] for x in locations}) == 12
    assert max(x["offset"] for x in locations) > size / 2
    tar = workspace.shard("train", locations[0]["shard"])
    for x in locations:
        sample = read_sample(tar, x["offset"], x["sample_id"])
        e = episodes[sample.row["episode_index"]]
        assert sample.row["sample_id"] == x["sample_id"]
        assert sample.pictures == tuple(e.pictures[n] for n in sample.row["pictures"])
    x, y = locations[0], locations[-1]
    with pytest.raises(ShardError, match=f"sample {y['sample_id']} is not at byte {x['offset']} of shard {tar.name}"):
        read_sample(tar, x["offset"], y["sample_id"])
    with pytest.raises(ShardError, match=r"shard no\.tar cannot be read"):
        read_sample(tar.with_name("no.tar"), 0, "s")


# Buckets


def test_shards_in_a_bucket(s3: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    given_ = [("train", episode(i)) for i in range(8)]
    here = stage(workspace, given_, target=60_000)["shards"].to_pylist()
    tables = stage(workspace, given_, target=60_000, store="s3://corpora/corpus")
    rows = tables["shards"].to_pylist()
    assert [r | {"store": None} for r in rows] == here
    assert {r["store"] for r in rows} == {"s3://corpora/corpus"}
    paths = [workspace.shard(r["split"], r["shard"], r["store"]) for r in rows]
    for path, row in zip(paths, rows, strict=True):
        stored = s3.get_object(Bucket="corpora", Key=f"corpus/train/{row['shard']}")["Body"].read()
        assert stored == workspace.shard("train", row["shard"]).read_bytes()
        assert check_shard(path, row["sha256"], row["bytes"]) == []
    x = tables["sample_location"].to_pylist()[-1]
    assert read_sample(paths[-1], x["offset"], x["sample_id"]).row["sample_id"] == x["sample_id"]

    local = [workspace.shard("train", r["shard"]) for r in here]
    asked: list[int] = []
    first: Any = paths[0]
    fetch = first.fs.cat_file

    def counted(path: str, start: int, end: int) -> bytes:
        asked.append(end - start)
        return fetch(path, start=start, end=end)

    monkeypatch.setattr(first.fs, "cat_file", counted)
    for ahead in (0, 5):
        assert [s.row for s in Loader(paths, ahead=ahead)] == [s.row for s in Loader(local)]
    sizes = [e.size for p in local for e in read_index(p).entries]
    assert sorted(asked) == sorted(2 * sizes)  # each entry by one request, of just its bytes, in each pass

    fork = multiprocessing.get_context("fork")  # as torch's DataLoader makes its workers; here is a connection already
    ours, theirs = fork.Pipe()
    worker = fork.Process(target=lambda: theirs.send([s.row for s in Loader(paths, ahead=2)]))
    worker.start()
    assert ours.poll(30)
    assert ours.recv() == [s.row for s in Loader(local)]
    worker.join()

    s3.put_object(Bucket="corpora", Key=f"corpus/train/{rows[0]['shard']}", Body=b"short")
    assert check_shard(paths[0], rows[0]["sha256"], rows[0]["bytes"])[0].startswith("has 5 bytes instead of")
    paths[0].unlink()
    assert check_shard(paths[0], rows[0]["sha256"], rows[0]["bytes"]) == ["is not there"]
    with pytest.raises(ShardError, match=rows[0]["shard"]):
        list(Loader(paths))


# Damage


def test_a_tar_cut_anywhere_is_an_error(tmp_path: Path):
    path = write(tmp_path, [episode(i) for i in range(3)], "cut.tar")
    whole = path.read_bytes()
    end = sum(e.size for e in read_index(path).entries)  # from here on there are only zeros
    assert not any(whole[end:])
    for size in [*range(0, end, 256), end - 1, end]:
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"cut\.tar"):
            list(read_entries(path))
        if size <= end - 512:
            with pytest.raises(ShardError, match=r"cut\.tar"):
                list(Loader([path]))
    path.write_bytes(whole[: end + 512])
    assert len(list(read_entries(path))) == 3


@pytest.mark.parametrize("where", ["first header", "second entry", "json", "all"])
def test_a_damaged_tar_is_an_error(tmp_path: Path, where: str):
    path = write(tmp_path, [episode(i) for i in range(3)], "bad.tar")
    data = bytearray(path.read_bytes())
    second = read_index(path).entries[1].offset
    at = {"first header": 20, "second entry": second + 20, "json": data.rfind(b'"family"')}
    if where == "all":
        data = bytearray(b"not a tar" * 9500)
    else:
        data[at[where]] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"bad\.tar"):
        list(read_entries(path))
    with pytest.raises(ShardError, match=r"bad\.tar"):
        list(Loader([path]))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound"), [episode(i) for i in range(3)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(sound: Path, tmp_path: Path, place: float, bit: int):
    index = read_index(sound)
    data = bytearray(sound.read_bytes())
    assert check_shard(sound, index.sha256, index.size) == []
    data[int(place * len(data))] ^= 1 << bit
    path = tmp_path / sound.name
    path.write_bytes(data)
    index_path(path).write_bytes(index_path(sound).read_bytes())
    (wrong,) = check_shard(path, index.sha256, index.size)
    assert wrong.startswith("is damaged: its sha256 is ")
    path.unlink()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_an_index_is_found(sound: Path, tmp_path: Path, place: float, bit: int):
    """Or it says the same still: a blank that became another."""
    before = read_index(sound)
    text = bytearray(index_path(sound).read_bytes())
    text[int(place * len(text))] ^= 1 << bit
    path = tmp_path / sound.name
    path.write_bytes(sound.read_bytes())
    index_path(path).write_bytes(text)
    found = check_shard(path, before.sha256, before.size)
    try:
        same = read_index(path) == before
    except ShardError:
        same = False
    assert bool(found) != same


def test_a_file_with_random_bytes_flipped_never_gives_wrong_rows(tmp_path: Path, sound: Path):
    """What the loader cannot see without a hash is inside of pictures and texts; never which sample is which."""
    path = tmp_path / sound.name
    index_path(path).write_bytes(index_path(sound).read_bytes())
    rng = random.Random(0)
    for _ in range(40):
        data = bytearray(sound.read_bytes())
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with suppress(ShardError):
            assert len({s.row["sample_id"] for s in Loader([path])}) == 9


def test_what_is_wrong_with_a_shard_is_said(tmp_path: Path):
    tar = write(tmp_path, [episode(0), episode(1)])
    other = write(tmp_path, [episode(2), episode(3)])
    index = read_index(tar)

    def wrong() -> list[str]:
        return check_shard(tar, index.sha256, index.size)

    def with_index(changed: Index) -> list[str]:
        index_path(tar).write_bytes(changed.text().encode())
        return wrong()

    assert wrong() == []
    first, second = index.entries
    assert with_index(read_index(other)) == ["has the index of another tar"]
    assert with_index(replace(index, split="val")) == ["has the index of another tar"]
    assert with_index(replace(index, entries=(first,))) == ["has more or fewer entries than its index says"]
    for changed in (replace(second, num_tokens=(10, 11, 13)), replace(second, sample_id=("a", "b", "c"))):
        says = with_index(replace(index, entries=(first, changed)))
        assert len(says) == 1
        assert "other samples in sim-000001 than its index says" in says[0]
    (moved,) = with_index(replace(index, entries=(first, replace(second, offset=second.offset + 512))))
    assert f"cannot be read at byte {second.offset + 512}" in moved
    index_path(tar).unlink()
    assert wrong()[0].startswith(f"the index of shard {tar.name} cannot be read")
    assert with_index(index) == []
    tar.write_bytes(tar.read_bytes()[:-512])
    assert wrong() == [f"has {index.size - 512} bytes instead of {index.size}: cut off, or not the same file"]
    tar.unlink()
    assert wrong() == ["is not there"]
