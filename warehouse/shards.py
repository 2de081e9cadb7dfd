"""Shards: WebDataset tars, one entry per episode, written once and read by `webdataset` or by the loader here.

An entry has the key <dataset>-<episode>, its pictures as <camera>.<frame>.jpg and its samples as samples.json, so a
picture that twenty samples share is stored once. A tar's name holds its content's hash; equal content, equal bytes.
"""

import hashlib
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from warehouse.tables import TABLES
from warehouse.workspace import Workspace, write_file

CODE_VERSION = "shards-2"
MIN_BUFFER = 64  # episodes in the shuffle buffer


class ShardError(Exception):
    """A shard that cannot be written or read."""


@dataclass(frozen=True)
class ShardEpisode:
    """One entry: samples (rows of the table samples) and the JPEG bytes of every picture they show."""

    dataset: str
    episode_index: int
    samples: Sequence[Mapping]
    pictures: Mapping[tuple[str, int], bytes]  # (camera, frame_index)

    @property
    def key(self) -> str:
        return f"{self.dataset}-{self.episode_index:06d}"


@dataclass(frozen=True)
class Packed:
    tar: bytes
    offsets: dict[str, int]  # entry key -> byte where it begins


def picture_name(camera: str, frame_index: int) -> str:
    return f"{camera}.{frame_index:06d}.jpg"


def pack(episodes: Sequence[ShardEpisode]) -> Packed:
    """A tar of the episodes, in order of key, byte-identical for equal content.

    Written with tarfile rather than webdataset's TarWriter: the same tar, without importing PyTorch in every worker.
    """
    stream = io.BytesIO()
    offsets = {}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for e in sorted(episodes, key=lambda e: e.key):
            offsets[e.key] = stream.tell()
            members = {picture_name(c, f): e.pictures[c, f] for c, f in sorted(e.pictures)}
            samples = json.dumps([dict(s) for s in e.samples], sort_keys=True, ensure_ascii=False)
            members["samples.json"] = samples.encode()
            for name, data in members.items():
                info = tarfile.TarInfo(f"{e.key}.{name}")  # time 0, no owner
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return Packed(stream.getvalue(), offsets)


def shards_stage(
    workspace: Workspace, dataset: str, chunk: int, by_split: Mapping[str, Sequence[ShardEpisode]]
) -> dict[str, pa.Table]:
    """Write one tar per split of a chunk, with an index beside it, and return the rows that record them."""
    shards, locations = [], []
    for split, episodes in sorted(by_split.items()):
        packed = pack(episodes)
        sha256 = hashlib.sha256(packed.tar).hexdigest()
        name = f"{dataset}-{chunk:05d}-{split}-{sha256[:12]}.tar"
        path = workspace.shard(split, name)
        if path.exists():
            path.touch()  # young again, so that no sweep takes it before it is recorded
        else:
            write_file(path.with_suffix(".index.json"), json.dumps(packed.offsets, indent=0).encode())
            write_file(path, packed.tar)
        where = {"dataset": dataset, "chunk": chunk, "shard": name}
        count = sum(len(e.samples) for e in episodes)
        shards.append(
            where
            | {"split": split, "episodes": len(episodes), "samples": count, "bytes": len(packed.tar), "sha256": sha256}
        )
        locations += [
            where | {"sample_id": s["sample_id"], "offset": packed.offsets[e.key]} for e in episodes for s in e.samples
        ]
    return {
        "shards": TABLES["shards"].rows(shards),
        "sample_location": TABLES["sample_location"].rows(locations),
    }


# Reading


@dataclass(frozen=True)
class Sample:
    """One question with its pictures as JPEG bytes, in the order of the question's <image> marks."""

    row: Mapping
    pictures: tuple[bytes, ...]


def read_entries(path: Path, offset: int = 0) -> Iterator[tuple[list[dict], dict[str, bytes]]]:
    """(samples, pictures by name) of each episode of a tar, streaming from a byte offset. Raises ShardError."""
    try:
        with path.open("rb") as f:
            f.seek(offset)
            key, pictures = "", {}
            with tarfile.open(fileobj=f, mode="r|") as tar:
                for member in tar:
                    handle = tar.extractfile(member)
                    entry, _, name = member.name.partition(".")
                    if handle is None:
                        continue
                    if entry != key:
                        key, pictures = entry, {}
                    if name == "samples.json":
                        yield json.loads(handle.read()), pictures
                    else:
                        pictures[name] = handle.read()
                # tarfile takes a file that ends, or turns to rubbish, between two members for complete
                f.seek(offset + tar.offset)
                if f.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise ShardError(f"shard {path.name} is cut off or damaged at byte {offset + tar.offset}")
    except (OSError, tarfile.TarError, ValueError) as e:
        raise ShardError(f"shard {path.name} cannot be read: {e}") from e


def expand(row: dict, pictures: Mapping[str, bytes]) -> Sample:
    names = [picture_name(row["camera"], f) for f in row["frames"]]
    missing = [n for n in names if n not in pictures]
    if missing:
        raise ShardError(f"sample {row['sample_id']} shows {missing[0]}, which its shard does not hold")
    return Sample(row, tuple(pictures[n] for n in names))


def load_samples(
    paths: Sequence[Path],
    *,
    seed: int = 0,
    per_visit: int | None = None,
    buffer: int = MIN_BUFFER,
    families: frozenset[str] | None = None,
) -> Iterator[Sample]:
    """Samples of some shards in shuffled order, one pass over each shard.

    `buffer` episodes are held open and the next sample comes from one of them at random, so a batch seldom has two of
    one episode; `per_visit` limits how many samples of an episode a pass gives (drawn at random), None gives all.
    """
    rng = np.random.default_rng(seed)
    order = [paths[i] for i in rng.permutation(len(paths))]
    entries = ((rows, pictures) for path in order for rows, pictures in read_entries(path))
    held: list[list[Sample]] = []
    for rows, pictures in entries:
        chosen = [r for r in rows if families is None or r["family"] in families]
        picked = rng.permutation(len(chosen))[:per_visit]
        if len(picked):
            held.append([expand(chosen[i], pictures) for i in picked])
        if len(held) >= buffer:
            yield from _draw(held, rng, down_to=buffer - 1)
    yield from _draw(held, rng, down_to=0)


def _draw(held: list[list[Sample]], rng: np.random.Generator, down_to: int) -> Iterator[Sample]:
    """Single samples of random held episodes, until only `down_to` episodes are left."""
    while len(held) > down_to:
        i = int(rng.integers(len(held)))
        yield held[i].pop()
        if not held[i]:
            held[i] = held[-1]
            held.pop()


def read_sample(workspace: Workspace, split: str, shard: str, offset: int, sample_id: str) -> Sample:
    """One sample by its location in the lake; reads one entry. Raises ShardError."""
    for rows, pictures in read_entries(workspace.shard(split, shard), offset):
        for row in rows:
            if row["sample_id"] == sample_id:
                return expand(row, pictures)
        break
    raise ShardError(f"sample {sample_id} is not at byte {offset} of shard {shard}")


def groups_by_split(episodes: Sequence[tuple[str, ShardEpisode]]) -> dict[str, list[ShardEpisode]]:
    by_split: dict[str, list[ShardEpisode]] = defaultdict(list)
    for split, episode in episodes:
        by_split[split].append(episode)
    return by_split
