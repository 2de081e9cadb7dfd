"""Shards: equal bytes for equal content, readable by webdataset and by the loader here, honest about damage."""

import hashlib
import io
import multiprocessing
import random
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webdataset.compat import WebDataset

from core.paths import Workspace
from tests.kits.patience import PATIENCE_S
from tests.kits.shard_kit import CAMERA, JPEGS, episode, pack, shown, write
from warehouse.shards.check import check_shard
from warehouse.shards.loader import Loader
from warehouse.shards.shard import (
    EntryContent,
    ShardError,
    camera_name,
    index_path,
    named_picture,
    picture_name,
    picture_places,
    read_entries,
    read_entry,
    read_index,
    read_sample,
    read_samples,
    shards_stage,
)


def packed(*episodes: EntryContent) -> bytes:
    file = io.BytesIO()
    pack(file, episodes)
    return file.getvalue()


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


def test_equal_content_gives_equal_bytes_in_any_order():
    episodes = [episode(i, noise=500) for i in range(6)]
    first = packed(*episodes)
    assert packed(*(episode(i, noise=500) for i in (3, 5, 0, 1, 4, 2))) == first
    reordered = replace(episode(0), pictures=dict(reversed(episode(0).pictures.items())))
    assert packed(reordered) == packed(episode(0))
    # Other bytes need another name of each shard
    assert hashlib.sha256(first).hexdigest()[:16] == "a07d3ca8e574d27a"


def test_a_sample_without_its_picture_cannot_be_written():
    e = episode(0)
    without = {k: v for k, v in e.pictures.items() if "000002" not in k}
    with pytest.raises(
        ShardError,
        match=rf"sim-000000: sample sim0\.1 .* shows {CAMERA}\.000002\.jpg, which is not",
    ):
        packed(replace(e, pictures=without))
    with pytest.raises(ShardError, match="shows no picture"):
        packed(replace(e, samples=[{**e.samples[0], "pictures": []}]))
    with pytest.raises(
        ShardError, match="sim-000000 comes after sim-000000: entries are written in order"
    ):
        packed(e, e)


def stage(
    workspace: Workspace,
    episodes: list[tuple[str, EntryContent]],
    target: int = 1 << 30,
    **stage_options: Any,
):
    return shards_stage(workspace, "sim", 4, iter(episodes), target, **stage_options)


def test_an_episode_that_cannot_be_written_leaves_nothing(workspace):
    with pytest.raises(ShardError):
        stage(workspace, [("train", episode(0)), ("train", replace(episode(1), pictures={}))])
    assert not [p for p in (workspace.root / "shards").rglob("*") if p.is_file()]


ODD_CAMERAS = (
    "observation.images.Top",
    "arm/left",
    "camera/front.rgb",
    "__wrist",
    "100%",
    "Größe",
    "top",
    "top.rgb",
)


def entry_of_cameras(
    index: int, cameras: Sequence[str], name_of_camera: Callable[[str], str]
) -> EntryContent:
    """Sample k shows the frame k by camera k, then that of the next episode."""
    rows: list[dict[str, Any]] = []
    pictures: dict[str, bytes] = {}
    for k, camera in enumerate(cameras):
        pictures[f"{name_of_camera(camera)}.{k:06d}.jpg"] = JPEGS[20 * k]
        pictures[f"e{index + 1:06d}.{name_of_camera(camera)}.{k:06d}.jpg"] = JPEGS[20 * k + 10]
        both = [shown(index, k, camera=camera), shown(index + 1, k, camera=camera)]
        facts = {
            "family": "procvqa_c",
            "episode_index": index,
            "question": "<image> <image>",
            "num_tokens": 1,
        }
        rows.append({"sample_id": f"{index}.{camera}", "pictures": both, **facts})
    return EntryContent("sim", index, rows, pictures)


def test_plain_webdataset_reads_whatever_a_camera_is_called(tmp_path):
    tar = write(tmp_path, [entry_of_cameras(index, ODD_CAMERAS, camera_name) for index in (0, 1)])
    read: Any = WebDataset([str(tar)], shardshuffle=False).decode("rgb8")
    entries = list(read)
    assert [entry["__key__"] for entry in entries] == ["sim-000000", "sim-000001"]
    for entry in entries:
        assert len(entry["samples.json"]) == len(ODD_CAMERAS)
        for k, sample in enumerate(entry["samples.json"]):
            pictures = [entry[name] for name in sample["pictures"]]
            assert [round(float(picture.mean())) for picture in pictures] == [20 * k, 20 * k + 10]
    # The loader gives the same pictures
    pictures_by_id = {s.row["sample_id"]: s.pictures for s in Loader([tar])}
    assert pictures_by_id["1.arm/left"] == (JPEGS[20], JPEGS[30])


def test_a_name_says_which_camera_it_is():
    names = [camera_name(camera) for camera in ODD_CAMERAS]
    assert len({name.lower() for name in names}) == len(names)
    assert names[:4] == [
        "observation.images.%54op",
        "arm%2fleft",
        "camera%2ffront.rgb",
        "%5f_wrist",
    ]
    for camera in (CAMERA, "front", "cam_high", "größe", "e000007x", "a b"):
        assert camera_name(camera) == camera, "the name of a plain camera is what it was"
    for camera in (*ODD_CAMERAS, CAMERA):
        for number, edit in ((7, ""), (8, "occluded-5b9525f6")):
            picture = {"episode_index": number, "camera": camera, "frame_index": 12, "edit": edit}
            assert named_picture(7, picture_name(7, picture)) == picture
    assert named_picture(7, "samples.json") is None


def test_shards_from_before_cameras_had_other_names_are_read(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("warehouse.shards.shard.camera_name", lambda camera: camera)
        tar = write(tmp_path, [entry_of_cameras(0, ODD_CAMERAS, lambda camera: camera)])
    with tarfile.open(tar) as opened:
        assert "sim-000000.arm/left.000001.jpg" in opened.getnames()
    assert check_shard(tar, read_index(tar).sha256, tar.stat().st_size) == []
    for k, sample in enumerate(read_samples([tar])):
        assert sample.pictures == (JPEGS[20 * k], JPEGS[20 * k + 10])
        for number, name in enumerate(sample.row["pictures"]):
            assert named_picture(0, name) == shown(number, k, "", ODD_CAMERAS[k])


@pytest.mark.parametrize("dataset", ["sim", "a-dataset-of-a-very-long-name-" * 4, "größe"])
def test_entries_are_read_as_tarfile_reads_them(tmp_path, dataset):
    """Also where names do not fit into a header of a tar."""
    path = write(tmp_path, [episode(i, dataset=dataset, noise=300) for i in range(4)], "x.tar")
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    entries = list(read_entries(path))
    assert [read_entry(path, e) for e in read_index(path).entries] == entries
    assert sorted(chain.from_iterable(pictures.values() for _, pictures in entries)) == sorted(
        b for name, b in members.items() if name.endswith(".jpg")
    )
    samples = [(s.row["sample_id"], s.pictures) for s in read_samples([path])]
    assert len(samples) == 12
    for entry, (_, pictures) in zip(read_index(path).entries, entries, strict=True):
        _, places = picture_places(path, entry)
        assert {
            n: path.read_bytes()[offset : offset + size] for n, (offset, size) in places.items()
        } == pictures
    pictures = list(episode(3, noise=300).pictures.values())
    assert samples[-1] == (f"{dataset}3.2", (pictures[2], pictures[3]))
    assert len(list(read_samples([path], frozenset({"procvqa_a"})))) == 4


def test_a_sample_is_read_by_its_location(workspace):
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
    x = locations[0]
    y = locations[-1]
    with pytest.raises(
        ShardError,
        match=f"sample {y['sample_id']} is not at byte {x['offset']} of shard {tar.name}",
    ):
        read_sample(tar, x["offset"], y["sample_id"])
    with pytest.raises(ShardError, match=r"the index of shard no\.tar cannot be read"):
        read_sample(tar.with_name("no.tar"), 0, "s")


def test_shards_in_a_bucket(s3, workspace, monkeypatch):
    shard_episodes = [("train", episode(i)) for i in range(8)]
    local_rows = stage(workspace, shard_episodes, target=60_000)["shards"].to_pylist()
    tables = stage(workspace, shard_episodes, target=60_000, store="s3://corpora/corpus")
    rows = tables["shards"].to_pylist()
    assert [r | {"store": None} for r in rows] == local_rows
    assert {r["store"] for r in rows} == {"s3://corpora/corpus"}
    paths = [workspace.shard(r["split"], r["shard"], r["store"]) for r in rows]
    for path, row in zip(paths, rows, strict=True):
        stored = s3.get_object(Bucket="corpora", Key=f"corpus/train/{row['shard']}")["Body"].read()
        assert stored == workspace.shard("train", row["shard"]).read_bytes()
        assert check_shard(path, row["sha256"], row["bytes"]) == []
    x = tables["sample_location"].to_pylist()[-1]
    assert read_sample(paths[-1], x["offset"], x["sample_id"]).row["sample_id"] == x["sample_id"]

    local = [workspace.shard("train", r["shard"]) for r in local_rows]
    ranges_read: list[int] = []
    first: Any = paths[0]
    fetch = first.fs.cat_file

    def counted(path: str, start: int, end: int) -> bytes:
        ranges_read.append(end - start)
        return fetch(path, start=start, end=end)

    monkeypatch.setattr(first.fs, "cat_file", counted)
    for ahead in (0, 5):
        assert [s.row for s in Loader(paths, ahead=ahead)] == [s.row for s in Loader(local)]
    entries = chain.from_iterable(read_index(path).entries for path in local)
    sizes = [entry.size for entry in entries]
    # Each entry by one request, of just its bytes, in each pass
    assert sorted(ranges_read) == sorted(2 * sizes)

    # As torch's DataLoader makes its workers; here is a connection already
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    worker = fork.Process(target=lambda: theirs.send([s.row for s in Loader(paths, ahead=2)]))
    worker.start()
    assert ours.poll(PATIENCE_S)
    assert ours.recv() == [s.row for s in Loader(local)]
    worker.join()

    s3.put_object(Bucket="corpora", Key=f"corpus/train/{rows[0]['shard']}", Body=b"short")
    assert check_shard(paths[0], rows[0]["sha256"], rows[0]["bytes"])[0].startswith(
        "has 5 bytes instead of"
    )
    paths[0].unlink()
    assert check_shard(paths[0], rows[0]["sha256"], rows[0]["bytes"]) == ["is not there"]
    with pytest.raises(ShardError, match=rows[0]["shard"]):
        list(Loader(paths))


def test_a_tar_cut_anywhere_is_an_error(tmp_path):
    path = write(tmp_path, [episode(i) for i in range(3)], "cut.tar")
    whole = path.read_bytes()
    end = sum(e.size for e in read_index(path).entries)  # from here on there are only zeros
    assert not any(whole[end:])
    for size in range(0, end - 511, 256):
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"cut\.tar"):
            list(read_entries(path))
        with pytest.raises(ShardError, match=r"cut\.tar"):
            list(Loader([path]))
    path.write_bytes(whole[:end])
    assert len(list(read_entries(path))) == 3


@pytest.mark.parametrize("where", ["first header", "second entry", "json", "all"])
def test_a_damaged_tar_is_an_error(tmp_path, where):
    path = write(tmp_path, [episode(i) for i in range(3)], "bad.tar")
    data = bytearray(path.read_bytes())
    second = read_index(path).entries[1].offset
    offsets = {"first header": 20, "second entry": second + 20, "json": data.rfind(b'"family"')}
    if where == "all":
        data = bytearray(b"not a tar" * 9500)
    else:
        data[offsets[where]] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"bad\.tar"):
        list(read_entries(path))
    with pytest.raises(ShardError, match=r"bad\.tar"):
        list(Loader([path]))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("sound"), [episode(i) for i in range(3)])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_an_index_is_found(sound: Path, tmp_path, place: float, bit: int):
    """Or it says the same still: a blank that became another."""
    index_before = read_index(sound)
    text = bytearray(index_path(sound).read_bytes())
    text[int(place * len(text))] ^= 1 << bit
    path = tmp_path / sound.name
    path.write_bytes(sound.read_bytes())
    index_path(path).write_bytes(text)
    failures = check_shard(path, index_before.sha256, index_before.size)
    try:
        same = read_index(path) == index_before
    except ShardError:
        same = False
    assert bool(failures) != same


def test_a_file_with_random_bytes_flipped_never_gives_wrong_rows(tmp_path, sound):
    """What the loader cannot see without a hash is inside of pictures and texts."""
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
