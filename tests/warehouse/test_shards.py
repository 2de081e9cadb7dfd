"""Shards: equal bytes for equal content, readable by webdataset and by the loader here, honest about damage."""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from warehouse.shards import (
    Sample,
    ShardEpisode,
    ShardError,
    groups_by_split,
    load_samples,
    pack,
    read_entries,
    read_sample,
    shards_stage,
)
from warehouse.tables import TABLES
from warehouse.workspace import Workspace

CAMERA = "observation.images.front"


def jpeg(value: int, size: int = 24) -> bytes:
    ok, data = cv2.imencode(".jpg", np.full((size, size, 3), value % 256, np.uint8))
    assert ok
    return data.tobytes()


def episode(index: int, samples: int = 3, dataset: str = "sim", noise: int = 0) -> ShardEpisode:
    """Sample k shows frames k and k + 1; `noise` adds bytes to each picture, so that entries differ in length."""
    rows = [
        {
            "sample_id": f"{dataset}{index}.{k}",
            "family": "procvqa_a" if k == 0 else "procvqa_c",
            "camera": CAMERA,
            "frames": [k, k + 1],
            "episode_index": index,
            "question": "<image> <image> ¿qué?",
        }
        for k in range(samples)
    ]
    pictures = {(CAMERA, k): jpeg(10 * index + k) + b"\1" * (noise * (k + index)) for k in range(samples + 1)}
    return ShardEpisode(dataset, index, rows, pictures)


def write(folder: Path, episodes: Iterable[ShardEpisode], name: str = "x.tar") -> Path:
    path = folder / name
    path.write_bytes(pack(list(episodes)).tar)
    return path


# Writing


def test_equal_content_gives_equal_bytes_in_any_order():
    episodes = [episode(i, noise=500) for i in range(6)]
    first = pack(episodes)
    again = pack([episode(i, noise=500) for i in (3, 5, 0, 1, 4, 2)])
    assert again.tar == first.tar
    assert again.offsets == first.offsets
    reordered = ShardEpisode("sim", 0, episode(0).samples, dict(reversed(episode(0).pictures.items())))
    assert pack([reordered]).tar == pack([episode(0)]).tar
    assert pack(episodes[:5]).tar != first.tar


def test_what_a_tar_holds():
    packed = pack([episode(7), episode(12)])
    with tarfile.open(fileobj=io.BytesIO(packed.tar)) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            *(f"sim-000007.{CAMERA}.{k:06d}.jpg" for k in range(4)),
            "sim-000007.samples.json",
            *(f"sim-000012.{CAMERA}.{k:06d}.jpg" for k in range(4)),
            "sim-000012.samples.json",
        ]
        assert {m.mtime for m in members} == {0}
        assert packed.offsets == {"sim-000007": members[0].offset, "sim-000012": members[5].offset}
        handle = tar.extractfile(members[4])
        assert handle is not None
        assert json.load(handle) == list(episode(7).samples)


def test_the_stage_writes_and_records_a_tar_for_each_split(workspace: Workspace):
    splits = {"val": [episode(1)], "train": [episode(2, noise=3000), episode(0, noise=3000)]}
    tables = shards_stage(workspace, "sim", 4, splits)
    for name, table in tables.items():
        assert table.schema == TABLES[name].schema
    train, val = tables["shards"].to_pylist()
    assert (train["split"], train["episodes"], train["samples"]) == ("train", 2, 6)
    assert (val["split"], val["episodes"], val["samples"]) == ("val", 1, 3)
    for row in (train, val):
        path = workspace.shard(row["split"], row["shard"])
        data = path.read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["bytes"] == len(data)
        assert row["shard"] == f"sim-00004-{row['split']}-{row['sha256'][:12]}.tar"
        index = json.loads(path.with_suffix(".index.json").read_text())
        locations = [x for x in tables["sample_location"].to_pylist() if x["shard"] == row["shard"]]
        assert {x["offset"] for x in locations} == set(index.values())
        assert len(locations) == row["samples"]
    before = {p: p.read_bytes() for p in workspace.root.rglob("*.tar")}
    assert shards_stage(workspace, "sim", 4, {k: v[::-1] for k, v in splits.items()})["shards"].equals(tables["shards"])
    assert {p: p.read_bytes() for p in workspace.root.rglob("*.tar")} == before


def test_a_shard_that_is_there_already_becomes_young(workspace: Workspace):
    """Or a sweep could take it before the stage has recorded it."""
    shards_stage(workspace, "sim", 0, {"train": [episode(0)]})
    (path,) = workspace.root.rglob("*.tar")
    os.utime(path, (1, 1))
    shards_stage(workspace, "sim", 0, {"train": [episode(0)]})
    assert path.stat().st_mtime > 1e9


def test_no_episodes_no_tar(workspace: Workspace):
    assert all(t.num_rows == 0 for t in shards_stage(workspace, "sim", 0, {}).values())
    assert groups_by_split([("val", episode(1)), ("train", episode(2)), ("val", episode(3))]).keys() == {"val", "train"}


# Reading


def test_plain_webdataset_reads_it(tmp_path: Path):
    from webdataset import WebDataset

    path = write(tmp_path, [episode(3), episode(4)])
    entries = list(WebDataset(str(path), shardshuffle=False).decode("pil"))
    assert [e["__key__"] for e in entries] == ["sim-000003", "sim-000004"]
    for index, e in zip((3, 4), entries, strict=True):
        assert e["samples.json"] == list(episode(index).samples)
        for k in range(4):
            picture = np.asarray(e[f"{CAMERA}.{k:06d}.jpg"])
            assert picture.shape == (24, 24, 3)
            assert abs(int(picture[12, 12, 0]) - (10 * index + k)) <= 2


def test_the_loader_gives_each_sample_once_with_its_pictures(tmp_path: Path):
    paths = [write(tmp_path, [episode(i) for i in range(s * 30, s * 30 + 30)], f"{s}.tar") for s in range(3)]
    for seed in (0, 1):
        samples = list(load_samples(paths, seed=seed, buffer=64))
        assert Counter(s.row["sample_id"] for s in samples) == {f"sim{i}.{k}": 1 for i in range(90) for k in range(3)}
        for s in samples:
            index, k = s.row["episode_index"], s.row["frames"][0]
            assert s.pictures == (jpeg(10 * index + k), jpeg(10 * index + k + 1))
    orders = [[s.row["sample_id"] for s in load_samples(paths, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_the_loader_can_take_some_families_or_a_few_of_an_episode(tmp_path: Path):
    path = write(tmp_path, [episode(i, samples=6) for i in range(20)])
    only = list(load_samples([path], families=frozenset({"procvqa_a"})))
    assert sorted(s.row["sample_id"] for s in only) == sorted(f"sim{i}.0" for i in range(20))
    few = list(load_samples([path], per_visit=2))
    assert set(Counter(s.row["episode_index"] for s in few).values()) == {2}
    assert len({s.row["sample_id"] for s in few}) == 40
    assert {s.row["frames"][0] for s in few} == set(range(6))  # drawn, not the first ones


def same_episode_share(samples: Iterable[Sample], batch: int = 16) -> float:
    """Share of pairs within a batch that are of one episode."""
    indices = [s.row["episode_index"] for s in samples]
    batches = [indices[i : i + batch] for i in range(0, len(indices) - batch + 1, batch)]
    pairs = [a == b for b_ in batches for a, b in combinations(b_, 2)]
    return sum(pairs) / len(pairs)


def test_a_batch_seldom_holds_two_samples_of_one_episode(tmp_path: Path):
    paths = [write(tmp_path, [episode(i, samples=12) for i in range(s, 300, 3)], f"{s}.tar") for s in range(3)]
    # 64 episodes held: 1 pair in 64; 12 samples in a row would be 1 pair in 2, and 2 in a row 8 pairs of 120
    assert same_episode_share(load_samples(paths)) < 0.025
    assert same_episode_share(load_samples(paths, per_visit=2)) < 0.012
    assert same_episode_share(load_samples(paths, buffer=1)) > 0.5
    assert 0.05 < same_episode_share(load_samples(paths, buffer=1, per_visit=2)) < 0.08


def test_a_sample_is_read_by_its_location(workspace: Workspace):
    episodes = [episode(i, noise=900) for i in range(12)]
    tables = shards_stage(workspace, "sim", 0, {"train": episodes})
    size = tables["shards"]["bytes"][0].as_py()
    locations = tables["sample_location"].to_pylist()
    assert len({x["offset"] for x in locations}) == 12
    assert max(x["offset"] for x in locations) > size / 2
    for x in locations:
        sample = read_sample(workspace, "train", x["shard"], x["offset"], x["sample_id"])
        e = episodes[sample.row["episode_index"]]
        assert sample.row["sample_id"] == x["sample_id"]
        assert sample.pictures == tuple(e.pictures[CAMERA, f] for f in sample.row["frames"])
    x, y = locations[0], locations[-1]
    with pytest.raises(ShardError, match=f"sample {y['sample_id']} is not at byte {x['offset']}"):
        read_sample(workspace, "train", x["shard"], x["offset"], y["sample_id"])
    with pytest.raises(ShardError, match=r"shard no\.tar cannot be read"):
        read_sample(workspace, "train", "no.tar", 0, "s")


# Damage


def test_a_tar_cut_anywhere_is_an_error(tmp_path: Path):
    packed = pack([episode(i) for i in range(3)])
    with tarfile.open(fileobj=io.BytesIO(packed.tar)) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512  # from here on there are only zeros
    path = tmp_path / "cut.tar"
    for size in [*range(0, end, 256), end - 1, end]:
        path.write_bytes(packed.tar[:size])
        with pytest.raises(ShardError, match=r"cut\.tar"):
            list(read_entries(path))
        with pytest.raises(ShardError):
            list(load_samples([path]))
    path.write_bytes(packed.tar[: end + 512])
    assert len(list(read_entries(path))) == 3


@pytest.mark.parametrize("where", ["first header", "second entry", "json", "all"])
def test_a_damaged_tar_is_an_error(tmp_path: Path, where: str):
    packed = pack([episode(i) for i in range(3)])
    data = bytearray(packed.tar)
    at = {"first header": 20, "second entry": packed.offsets["sim-000001"] + 20, "json": data.rfind(b'"frames"')}
    if where == "all":
        data = bytearray(b"not a tar" * 500)
    else:
        data[at[where]] ^= 0x5A
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"bad\.tar"):
        list(read_entries(path))


def test_a_picture_that_is_missing_is_an_error(tmp_path: Path):
    whole = episode(0)
    pictures = {k: v for k, v in whole.pictures.items() if k != (CAMERA, 2)}
    path = write(tmp_path, [ShardEpisode("sim", 0, whole.samples, pictures)])
    with pytest.raises(
        ShardError, match=rf"sample sim0\.\d shows {CAMERA}\.000002\.jpg, which its shard does not hold"
    ):
        list(load_samples([path]))
