"""Tiny RLDS datasets as TFDS writes them: TFRecord shards of tf.train.Example, and their metadata.

Features of an episode are flat (`steps/observation/image`): lists of bytes, or numbers of all steps
in one array.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np

from ingest.formats.rlds_files import masked
from tests.kits.lerobot_writer import number, picture

Features = dict[str, Any]

# Protobuf


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def feature(values: Any) -> bytes:
    """A Feature: bytes_list of bytes, float_list of floats, int64_list of integers and bools."""
    if isinstance(values, (list, tuple)) and all(isinstance(v, bytes) for v in values):
        return message(1, b"".join(message(1, v) for v in values))
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind == "f":
        return message(2, message(1, array.astype("<f4").tobytes()))
    return message(3, message(1, b"".join(varint(int(v)) for v in array)))


def example(features: Mapping[str, Any]) -> bytes:
    entries = (
        message(1, message(1, key.encode()) + message(2, feature(v))) for key, v in features.items()
    )
    return message(1, b"".join(entries))


def masked_crc(data: bytes) -> int:
    return masked(google_crc32c.value(data))


def record(data: bytes) -> bytes:
    header = struct.pack("<Q", len(data))
    return (
        header + struct.pack("<I", masked_crc(header)) + data + struct.pack("<I", masked_crc(data))
    )


def write_shard(path: Path, episodes: Iterable[Features | bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(e if isinstance(e, bytes) else example(e)) for e in episodes))
    return path


def shard(root: Path, split: str, number: int = 0, count: int = 1, version: str = "1.0.0") -> Path:
    return root / version / f"toy-{split}.tfrecord-{number:05d}-of-{count:05d}"


def write_dataset(
    root: Path,
    splits: Mapping[str, Sequence[Sequence[Features | bytes]]],
    features: Mapping[str, Any] | None = None,
    version: str = "1.0.0",
) -> Path:
    """Episodes by split and shard."""
    (root / version).mkdir(parents=True, exist_ok=True)
    for split, shards in splits.items():
        for k, episodes in enumerate(shards):
            write_shard(shard(root, split, k, len(shards), version), episodes)
    write_info(root / version, {split: list(map(len, shards)) for split, shards in splits.items()})
    (root / version / "features.json").write_text(json.dumps(features or features_json()))
    return root


def write_info(folder: Path, lengths: Mapping[str, Sequence[int]]) -> None:
    template = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": "1",
    }
    # int64 is text in protobuf's JSON
    splits = [
        template | {"name": split, "shardLengths": [*map(str, counts)]}
        for split, counts in lengths.items()
    ]
    info = {"fileFormat": "tfrecord", "name": "toy", "splits": splits, "version": folder.name}
    (folder / "dataset_info.json").write_text(json.dumps(info))


CLASSES = "tensorflow_datasets.core.features"


def dict_of(**features: Any) -> dict[str, Any]:
    return {
        "pythonClassName": f"{CLASSES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def sequence_of(element: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{CLASSES}.dataset_feature.Dataset",
        "sequence": {"feature": element, "length": "-1"},
    }


def image(height: int = 64, width: int = 64) -> dict[str, Any]:
    about = {
        "shape": {"dimensions": [str(height), str(width), "3"]},
        "dtype": "uint8",
        "encodingFormat": "png",
    }
    return {"pythonClassName": f"{CLASSES}.image_feature.Image", "image": about}


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    about = {
        "shape": {"dimensions": [str(n) for n in shape]} if shape else {},
        "dtype": dtype,
        "encoding": encoding,
    }
    return {"pythonClassName": f"{CLASSES}.tensor_feature.Tensor", "tensor": about}


def text() -> dict[str, Any]:
    return {"pythonClassName": f"{CLASSES}.text_feature.Text", "text": {}}


def features_json(
    observation: Mapping[str, Any] | None = None, steps: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The usual ones; arguments replace or add features, None takes one out."""
    observed = {"image": image(), "wrist_image": image(), "state": tensor("float32", 4)} | dict(
        observation or {}
    )
    default_steps = {
        "observation": dict_of(**{k: v for k, v in observed.items() if v}),
        "action": tensor("float32", 3),
        "language_instruction": text(),
        "reward": tensor("float32"),
        "is_first": tensor("bool"),
        "is_last": tensor("bool"),
        "is_terminal": tensor("bool"),
    }
    step_features = {k: v for k, v in (default_steps | dict(steps or {})).items() if v}
    about = dict_of(file_path=text(), episode_id=tensor("int32"))
    return dict_of(steps=sequence_of(dict_of(**step_features)), episode_metadata=about)


def png(content: np.ndarray | int) -> bytes:
    rgb = picture(content) if isinstance(content, int) else content
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def episode(
    serial: int,
    length: int = 6,
    task: str = "pick the cup",
    changes: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Features:
    """Pictures say (camera, episode, frame); state of row k is (episode, k, 0, k mod 2). `changes`
    and `extra`, by path with `__` for `/`, replace or add features; None takes one out."""
    k = np.arange(length)
    state = np.stack([np.full(length, serial), k, 0 * k, k % 2], axis=1).astype(np.float32)
    features = {
        "steps/observation/image": [png(number(0, serial, n)) for n in range(length)],
        "steps/observation/wrist_image": [png(number(1, serial, n)) for n in range(length)],
        "steps/observation/state": state,
        "steps/action": state[:, 1:],
        "steps/language_instruction": [task.encode()] * length,
        "steps/reward": np.zeros(length, np.float32),
        "steps/is_first": k == 0,
        "steps/is_last": k == length - 1,
        "steps/is_terminal": np.zeros(length, bool),
        "episode_metadata/file_path": [b"/raw/run.h5"],
        "episode_metadata/episode_id": [serial],
    }
    features |= {
        key.replace("__", "/"): value for key, value in (dict(changes or {}) | extra).items()
    }
    return {key: value for key, value in features.items() if value is not None}
