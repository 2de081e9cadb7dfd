"""Small shards for tests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from warehouse.shards.shard import Entry, EntryContent, Index, TarWriter, index_path

CAMERA = "observation.images.front"


def jpeg(value: int, size: int = 24) -> bytes:
    ok, data = cv2.imencode(".jpg", np.full((size, size, 3), value % 256, np.uint8))
    assert ok
    return data.tobytes()


JPEGS = [jpeg(value) for value in range(256)]


def shown(episode: int, frame: int, edit: str | None = None, camera: str = CAMERA) -> dict:
    return {"camera": camera, "episode_index": episode, "frame_index": frame, "edit": edit}


def episode(
    index: int,
    samples: int = 3,
    dataset: str = "sim",
    noise: int = 0,
    families: Sequence[str] = ("procvqa_a", "procvqa_c", "procvqa_c"),
    tokens: Sequence[int] = (),
) -> EntryContent:
    """Sample k shows frames k and k + 1; by `noise` entries differ in length."""
    rows = [
        {
            "sample_id": f"{dataset}{index}.{k}",
            "family": families[k % len(families)],
            "episode_index": index,
            "pictures": [shown(index, k), shown(index, k + 1)],
            "question": "<image> <image> ¿qué?",
            "num_tokens": tokens[k % len(tokens)] if tokens else 10 + k,
        }
        for k in range(samples)
    ]
    names = [f"{CAMERA}.{k:06d}.jpg" for k in range(samples + 1)]
    pictures = {
        n: JPEGS[(10 * index + k) % 256] + b"\1" * (noise * (k + index))
        for k, n in enumerate(names)
    }
    return EntryContent(dataset, index, rows, pictures)


def pack(file: IO[bytes], episodes: Iterable[EntryContent]) -> tuple[str, list[Entry]]:
    """Write a tar of some episodes, in order of key; its sha256 and entries. Raises ShardError."""
    writer = TarWriter(file)
    for e in sorted(episodes, key=lambda e: e.key):
        writer.add(e)
    return writer.close(), writer.entries


def write(folder: Path, episodes: Iterable[EntryContent], name: str = "") -> Path:
    """A tar with its index; by default it is called as the stage calls it."""
    episode_list = list(episodes)
    dataset = episode_list[0].dataset
    path = folder / "new"
    with path.open("wb") as f:
        sha256, entries = pack(f, episode_list)
    name = name or f"{dataset}-00000-train-{sha256[:12]}.tar"
    tar = path.rename(folder / name)
    size = tar.stat().st_size
    index_path(tar).write_bytes(
        Index(name, dataset, 0, "train", sha256, size, tuple(entries)).text().encode()
    )
    return tar
