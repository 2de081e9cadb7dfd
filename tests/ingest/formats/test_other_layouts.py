"""Layouts that are not read, beside those that are: a finding names each, and sends nobody for what is not lacking."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np

from ingest.episode import Finding
from ingest.source import list_episodes
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import RATE, edit_info, picture, source_of, write_v3, write_video


def found(root: Path) -> Finding:
    """The one finding of the kind; `no_video` and `no_episodes`, with remedies that do not help, are none of them."""
    listing = list_episodes(source_of(root))
    [finding] = [f for f in listing.findings if f.reason == "other_layout"]
    assert not any(f.reason == "no_episodes" for f in listing.findings)
    return finding


def test_records_of_tfds_that_are_no_tfrecord(tmp_path: Path) -> None:
    rlds.write_dataset(tmp_path, {"train": [[rlds.episode(0)], [rlds.episode(1)]]})
    for shard in tmp_path.rglob("*.tfrecord*"):
        shard.rename(shard.with_name(shard.name.replace(".tfrecord", ".array_record")))
    info = next(tmp_path.rglob("dataset_info.json"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "array_record"}))
    finding = found(tmp_path)
    assert finding.severity == "unusable"
    assert finding.detail.startswith("its 2 shards are not TFRecord files (first: ")
    assert "array_record-00000-of-00002" in finding.detail


def test_lerobot_in_lance_tables(tmp_path: Path) -> None:
    write_v3(tmp_path, [6, 7], {})
    edit_info(tmp_path, storage_format="lance")
    for file in (tmp_path / "data").rglob("*.parquet"):
        file.unlink()
    (tmp_path / "train.lance/data").mkdir(parents=True)
    (tmp_path / "train.lance/data/0.lance").write_bytes(b"LANC")
    finding = found(tmp_path)
    assert (finding.severity, finding.file) == ("unusable", "meta/info.json")
    assert (
        finding.detail
        == "rows and pictures lie in Lance tables (train.lance; storage_format: lance)"
    )


def test_hdf5_beside_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "observations/7"
    folder.mkdir(parents=True)
    with h5py.File(tmp_path / "aligned_joints.h5", "w") as file:
        file["state/joint/position"] = np.zeros((6, 14))
    for k in range(3):
        (folder / f"head_{k}.jpg").write_bytes(b"\xff\xd8")
    [record] = list_episodes(source_of(tmp_path)).records
    assert [(v.camera, v.uri) for v in record.videos] == [
        ("observations/7/head", "observations/7/head")
    ]


def write_robodm(path: Path, codec: Any) -> Path:
    """Two streams that are named as it names them; of `rawvideo` packets hold anything."""
    path.parent.mkdir()
    with av.open(str(path), "w", format="matroska") as out:
        streams: list[Any] = [out.add_stream(codec, rate=RATE) for _ in range(2)]
        for stream, name in zip(streams, ("action", "camera"), strict=True):
            stream.width = 64
            stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.metadata["FEATURE_NAME"] = name
        for k, stream in product(range(6), streams):
            packets = [av.Packet(b"any bytes")]
            if codec == "rawvideo":
                packets[0].pts = packets[0].dts = k
                packets[0].stream = stream
            else:
                packets = stream.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24"))
            out.mux(packets)
        for stream in streams:
            out.mux(stream.encode() if codec != "rawvideo" else [])
    return path.parent


def test_trajectories_of_robodm(tmp_path: Path) -> None:
    finding = found(write_robodm(tmp_path / "pickled/run.mkv", "rawvideo"))
    assert (finding.severity, finding.episode_index) == ("unusable", 0)
    assert finding.detail.startswith(
        "a trajectory of Robo-DM with the streams action, camera: its pictures are pickled"
    )
    finding = found(write_robodm(tmp_path / "encoded/run.mkv", "libx264"))
    assert (finding.severity, finding.episode_index) == ("warning", 0)
    # A plain film of the kind has none
    write_video(tmp_path / "plain/run.mkv", range(6))
    assert not any(
        f.reason == "other_layout" for f in list_episodes(source_of(tmp_path / "plain")).findings
    )
