"""Publishing to a folder, a bucket and the hub, all of them here or on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import FailedError
from tests.kits.hub_server import Hub, hub_of
from warehouse.lake import Lake
from warehouse.releases import places
from warehouse.releases.contents import ReleaseError
from warehouse.releases.croissant import croissant
from warehouse.releases.places import item_of
from warehouse.releases.publish import publish, verify_published
from warehouse.releases.release import create_release, delete_release

ANY = ("unknown",)


def test_a_folder_holds_all_that_the_manifest_names(released, tmp_path):
    lake, release = released
    planned = publish(lake, release, str(tmp_path / "out"), dry_run=True)
    assert not (tmp_path / "out").exists()
    result = publish(lake, release, str(tmp_path / "out"))
    assert result == planned
    assert result.sent == result.files - 1 == 2 * len(release.shard_list) + 8
    root = tmp_path / "out"
    manifest = json.loads((root / "manifest.json").read_text())
    assert {f["path"] for f in manifest["files"]} | {"manifest.json"} == {
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()
    }
    assert manifest["config_hash"] == release.config_hash
    for shard in release.shard_list:
        assert (root / shard.address).read_bytes() == shard.path(lake.workspace).read_bytes()
    assert (root / "README.md").read_text().startswith("---\nlicense: unknown\n")
    for name in ("segments", "progress", "samples"):
        rows = lake.rows(f"SELECT count(*) FROM {name}")[0][0]
        assert pq.read_metadata(root / "labels" / f"{name}.parquet").num_rows == rows
    columns = pq.read_schema(root / "labels/samples.parquet").names
    assert {"sample_id", "shard", "progress"} < set(columns)
    assert not {"question", "answer"} & set(columns)
    assert verify_published(str(root)) == (manifest, [])

    second_publish = publish(lake, release, str(root))
    assert (second_publish.sent, second_publish.sent_bytes) == (0, 0)
    tar = root / release.shard_list[0].address
    tar.write_bytes(tar.read_bytes()[:-1])
    (root / "README.md").write_text((root / "README.md").read_text().replace("Release", "release"))
    wrong = {Path(f.file or "").name: f.detail for f in verify_published(str(root))[1]}
    assert set(wrong) == {tar.name, "README.md"}
    assert "cut off" in wrong[tar.name]
    assert publish(lake, release, str(root)).sent == 1, (
        "of another size; what has its size is taken for what was sent"
    )


def test_its_croissant_file_is_valid_and_gives_the_tables(released, tmp_path):
    lake, release = released
    publish(lake, release, str(tmp_path / "out"))
    path = tmp_path / "out/croissant.json"
    dataset = mlcroissant.Dataset(jsonld=path)
    issues = dataset.metadata.issues
    assert not issues.errors
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    hashes = {f["path"]: f["sha256"] for f in manifest["files"]}
    distribution: list[Any] = dataset.metadata.distribution
    files = {file.content_url: file.sha256 for file in distribution}
    assert files == {path: hashes[path] for path in files}
    assert {shard.address for shard in release.shard_list} < files.keys()
    for name in ("episodes", "segments", "progress", "label_runs"):
        table = pq.read_table(tmp_path / f"out/labels/{name}.parquet")
        for row, ours in zip(dataset.records(name), table.to_pylist(), strict=True):
            theirs = {key.partition("/")[2]: value for key, value in row.items()}
            assert theirs == {column: _as_croissant(ours[column]) for column in theirs}


def test_outcomes_come_back_from_croissant_as_written(tmp_path):
    """Its library takes "no" for true."""
    written = {
        "success": [True, False, None],
        "num_frames": [12, None, 7],
        "length_s": [0.1, None, 2.0],
        "task": ["no", None, ""],
    }
    (tmp_path / "labels").mkdir()
    pq.write_table(pa.table(written), tmp_path / "labels/episodes.parquet")
    item = item_of(tmp_path / "labels/episodes.parquet", "labels/episodes.parquet")
    (tmp_path / "croissant.json").write_text(croissant("r1", "mit", [item]))
    rows = list(mlcroissant.Dataset(jsonld=tmp_path / "croissant.json").records("episodes"))
    for column, values in written.items():
        theirs = [row[f"episodes/{column}"] for row in rows]
        assert theirs == [_as_croissant(value) for value in values]
        assert [*map(type, theirs)] == [type(_as_croissant(value)) for value in values]


def _as_croissant(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def test_it_goes_on_where_it_broke_off(released, tmp_path, monkeypatch):
    lake, release = released
    sent: list[str] = []

    def break_off(item: places.OutgoingFile) -> None:
        sent.append(item.path)
        if len(sent) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(lake, release, str(tmp_path), on_file=break_off)
    with pytest.raises(ReleaseError, match="holds no whole release"):
        verify_published(str(tmp_path))
    second_publish = publish(
        lake, release, str(tmp_path), on_file=lambda item: sent.append(item.path)
    )
    assert second_publish.sent == second_publish.files - 1 - 5
    assert len(sent) == len(set(sent))
    assert verify_published(str(tmp_path))[1] == []


def test_what_is_damaged_or_another_release_is_not_sent(released, tmp_path):
    lake, release = released
    publish(lake, release, str(tmp_path / "out"))
    other_release = create_release(lake, "r2", allow=ANY)
    with pytest.raises(ReleaseError, match=r"holds something else \(release r1"):
        publish(lake, other_release, str(tmp_path / "out"))
    tar = release.shard_list[0].path(lake.workspace)
    tar.write_bytes(b"x" + tar.read_bytes()[1:])
    with pytest.raises(FailedError, match=f"{tar.name} is not what was recorded"):
        publish(lake, release, str(tmp_path / "new"))
    tar.unlink()
    with pytest.raises(ReleaseError, match=f"{tar.name} is missing"):
        publish(lake, release, str(tmp_path / "new"))
    (tmp_path / "file").write_text("")
    delete_release(lake, "r2")
    for place, reason in (
        ("hf://owner/name", "names no dataset repository"),
        ("ftp://x/y", "published to"),
    ):
        with pytest.raises(ReleaseError, match=reason):
            publish(lake, release, place)


def test_a_bucket_and_shards_that_lie_in_one(own, s3, tmp_path):
    from warehouse.lake.gc import collect

    lake = Lake(own.space)
    store = "s3://corpora/store"
    for split, shard in lake.rows("SELECT split, shard FROM shards"):
        tar = own.space.shard(split, shard)
        for path in (tar, tar.with_suffix(".index.json")):
            s3.upload_file(str(path), "corpora", f"store/{split}/{path.name}")
            path.unlink()
    for key in (
        "store/train/tiny-00000-train-000000000000.tar",
        "store/train/notes.txt",
        "store/other/tiny-1.tar",
    ):
        s3.put_object(Bucket="corpora", Key=key, Body=b"x")
    lake.con.execute("UPDATE shards SET store = ?", [store])
    release = create_release(lake, "r1", allow=ANY)
    result = publish(lake, release, "s3://corpora/published/r1")
    assert result.sent == result.files - 1
    assert publish(lake, release, "s3://corpora/published/r1").sent == 0
    assert verify_published("s3://corpora/published/r1")[1] == []
    broken = release.shard_list[0]
    s3.put_object(Bucket="corpora", Key=f"published/r1/{broken.address}", Body=b"")
    assert [Path(f.file or "").name for f in verify_published("s3://corpora/published/r1")[1]] == [
        broken.shard
    ]

    freed = {f.what: f.files for f in collect(lake, 0, grace_s=-5)}
    assert freed["shards"] == 1
    keys_left = {
        o["Key"] for o in s3.list_objects_v2(Bucket="corpora", Prefix="store/")["Contents"]
    }
    assert {"store/train/notes.txt", "store/other/tiny-1.tar"} < keys_left
    assert len(keys_left) == 2 * len(release.shard_list) + 2
    with pytest.raises(FailedError, match=r"cannot .* s3://nobody/x"):
        publish(lake, release, "s3://nobody/x")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_of("robots/tiny") as repository:
        yield repository


def test_a_commit_to_the_hub_has_so_many_bytes(released, hub, monkeypatch):
    monkeypatch.setattr(places, "COMMIT_BYTES", 1)
    hub.fail_at_commit = 3
    with pytest.raises(FailedError, match="run again to go on"):
        publish(*released, "hf://datasets/robots/tiny")
    assert len(hub.files) == 2, "the journal, and a file"


def test_a_repository_of_the_hub(released, hub, monkeypatch):
    lake, release = released
    monkeypatch.setattr(places, "COMMIT_FILES", 6)
    target = "hf://datasets/robots/tiny"
    hub.fail_at_commit = 3
    with pytest.raises(FailedError, match=r"not now.*run again to go on"):
        publish(lake, release, target)
    assert len(hub.files) == 1 + 6, "with the journal"
    assert "manifest.json" not in hub.files
    result = publish(lake, release, target)
    assert result.sent == result.files - 1 - 6
    assert len(hub.uploads) == len(set(hub.uploads)), "no large file was sent twice"
    manifest = json.loads(hub.files["manifest.json"])
    assert {f["path"] for f in manifest["files"]} | {"manifest.json"} == set(hub.files)
    for shard in release.shard_list:
        assert hub.files[shard.address] == shard.path(lake.workspace).read_bytes()
    assert publish(lake, release, target).sent == 0
    assert verify_published(target)[1] == []
    hub.files[release.shard_list[0].address] += b"x"
    assert [Path(f.file or "").name for f in verify_published(target)[1]] == [
        release.shard_list[0].shard
    ]
