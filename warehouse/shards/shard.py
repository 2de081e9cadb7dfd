"""Shards: WebDataset tars, one entry per episode, written once and read by `webdataset` or by
warehouse.shards.loader.

An entry has the key <dataset>-<episode>, its pictures as <camera>.<frame>.jpg (see camera_name) and
its samples as samples.json, so a picture that twenty samples share is stored once; a picture of
another episode, which a sample compares with, lies in the entry that shows it. A tar's name holds
its content's hash; equal content, equal bytes. Beside each tar lies its index: where entries begin,
and which samples they hold.
"""

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path, PosixPath
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import unquote

import pyarrow as pa

from core.errors import FailedError
from core.files import write_file, write_from
from core.paths import Workspace
from core.tables import TABLES

SAMPLES = "samples.json"
PICTURE_NAME = re.compile(
    r"(?:e(?P<other>\d{6,})\.)?(?P<camera>.+)\.(?P<frame>\d{6,})(?:\.(?P<edit>[^.]+))?\.jpg"
)


class ShardError(FailedError):
    """A shard that cannot be written or read."""


@dataclass(frozen=True)
class EntryContent:
    """What an entry is to hold: an episode's samples (rows of the table samples), and by its name
    the JPEG bytes of every picture that they show, also of those of other episodes."""

    dataset: str
    episode_index: int
    samples: Sequence[Mapping]
    pictures: Mapping[str, bytes]

    @property
    def key(self) -> str:
        return f"{self.dataset}-{self.episode_index:06d}"


def picture_name(entry: int, picture: Mapping) -> str:
    """The name of a picture in an episode's entry; `picture` as in the column samples.pictures."""
    if picture["episode_index"] == entry:
        episode_prefix = ""
    else:
        episode_prefix = f"e{picture['episode_index']:06d}."
    edit = f".{picture['edit']}" if picture["edit"] else ""
    return (
        f"{episode_prefix}{camera_name(picture['camera'])}.{picture['frame_index']:06d}{edit}.jpg"
    )


def named_picture(entry: int, name: str) -> dict[str, Any] | None:
    """What a picture of an episode's entry shows, as in the column samples.pictures; None: this
    names no picture.

    Shards of before `camera_name` have cameras as they are called: "Top" and "%54op" both name the
    camera Top.
    """
    match = PICTURE_NAME.fullmatch(name)
    if match is None:
        return None
    other_episode, written, frame, edit = match.groups()
    camera = unquote(written)
    if camera_name(camera) != written:
        camera = written
    episode_index = entry if other_episode is None else int(other_episode)
    return {
        "episode_index": episode_index,
        "camera": camera,
        "frame_index": int(frame),
        "edit": edit or "",
    }


@cache
def camera_name(camera: str) -> str:
    """A camera as files in shards name it, so that webdataset gives the name back: it makes
    suffixes lower-case, takes what is before a slash for the key, and decodes nothing that begins
    with two underscores.

    Each byte of such characters, and of `%`, is written as `%` and two digits. Example: "arm/Left"
    is "arm%2f%4ceft".
    """
    escaped = "".join(_escaped(c) if c in "%/" or c.lower() != c else c for c in camera)
    if escaped.startswith("__"):
        return _escaped("_") + escaped[1:]
    return escaped


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode())


@dataclass(frozen=True)
class Entry:
    """Where an episode lies in a tar, `size` bytes from `offset` on, and what samples it has (parallel lists)."""

    key: str
    offset: int
    size: int
    sample_id: tuple[str, ...]
    family: tuple[str, ...]
    num_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """The contents of a tar, without reading it."""

    shard: str
    dataset: str
    chunk: int
    split: str
    sha256: str
    size: int
    entries: tuple[Entry, ...]

    def text(self) -> str:
        """As JSON, one entry a line."""
        facts = asdict(self)
        entries = ",\n".join(json.dumps(entry) for entry in facts.pop("entries"))
        return f'{json.dumps(facts)[:-1]}, "entries": [\n{entries}]}}\n'


def shard_name(dataset: str, chunk: int, split: str, sha256: str) -> str:
    return f"{dataset}-{chunk:05d}-{split}-{sha256[:12]}.tar"


def index_path(tar: Path) -> Path:
    return tar.with_suffix(".index.json")


def read_index(tar: Path) -> Index:
    """The index beside a tar. Raises ShardError."""
    try:
        facts = json.loads(index_path(tar).read_bytes())
        entries = facts.pop("entries")
        for entry in entries:
            entry |= {name: tuple(entry[name]) for name in _LISTS}
        return Index(**facts, entries=tuple(Entry(**entry) for entry in entries))
    except (*_failures(tar), TypeError, KeyError) as e:
        raise ShardError(f"the index of shard {tar.name} cannot be read: {e}") from e


_LISTS = ("sample_id", "family", "num_tokens")  # the fields of Entry that have a value per sample


def lists_of(rows: Sequence[Mapping]) -> dict[str, Any]:
    """What the index holds of an entry's samples."""
    return {name: tuple(map(itemgetter(name), rows)) for name in _LISTS}


# Writing


class TarWriter:
    """One tar, byte-identical for equal entries; they come in order of their keys.

    The tar that webdataset's TarWriter and tarfile write, without importing PyTorch in every
    worker, and without the copies that tarfile makes of each member.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.entries: list[Entry] = []

    def add(self, e: EntryContent) -> None:
        """Raises ShardError when a sample shows a picture that is not given, or out of order; nothing is written."""
        # The order of keys is part of what makes equal content equal bytes
        if self.entries and e.key <= self.entries[-1].key:
            raise ShardError(
                f"{e.key} comes after {self.entries[-1].key}: entries are written in order"
            )
        rows = [_sample_row(e, sample) for sample in e.samples]
        shown_pictures = set(chain.from_iterable(row["pictures"] for row in rows))

        # Pictures first: who streams the tar has them when the samples that show them come
        offset = self.size
        for name in sorted(shown_pictures):
            self._member(f"{e.key}.{name}", e.pictures[name])
        self._member(
            f"{e.key}.{SAMPLES}", json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()
        )

        self.entries.append(Entry(e.key, offset, self.size - offset, **lists_of(e.samples)))

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # time 0, no owner
        info.size = len(data)
        header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
        self._write(header + data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> str:
        """The sha256 of the whole tar."""
        # Two empty blocks, then as many as make whole records
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.size + end) % tarfile.RECORDSIZE))
        return self._hash.hexdigest()


def _sample_row(e: EntryContent, sample: Mapping) -> dict:
    """A sample with the names of its pictures in place of where they come from. Raises ShardError."""
    names = [picture_name(e.episode_index, picture) for picture in sample["pictures"]]
    missing = [name for name in names if name not in e.pictures]
    if missing or not names:
        problem = f"shows {missing[0]}, which is not there" if missing else "shows no picture"
        raise ShardError(f"{e.key}: sample {sample['sample_id']} ({sample['family']}) {problem}")
    return {**sample, "pictures": names}


def shards_stage(
    workspace: Workspace,
    dataset: str,
    chunk: int,
    episodes: Iterable[tuple[str, EntryContent]],
    target_bytes: int,
    store: str | None = None,
) -> dict[str, pa.Table]:
    """Write the episodes (with their splits, in order) of a chunk and return the rows that record
    them.

    A tar is closed once it has `target_bytes`, so a chunk gives at least one per split; no more
    than an open tar per split stands on disk beside the finished ones, and one episode in memory.
    `store`: see Workspace.shard.
    """
    indexes: list[Index] = []
    growing: dict[str, tuple[IO[bytes], TarWriter]] = {}

    def finish(split: str) -> None:
        file, writer = growing.pop(split)
        sha256 = writer.close()
        name = shard_name(dataset, chunk, split, sha256)
        index = Index(name, dataset, chunk, split, sha256, writer.size, tuple(writer.entries))
        _keep(workspace.shard(split, name, store), file, index)
        file.close()
        indexes.append(index)

    folder = workspace.root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    # Each split grows a tar of its own, in a file without a name: what is not finished leaves nothing behind
    with ExitStack() as files:
        for split, episode in episodes:
            if split not in growing:
                file = files.enter_context(TemporaryFile(dir=folder))
                growing[split] = (file, TarWriter(file))
            growing[split][1].add(episode)
            if growing[split][1].size >= target_bytes:
                finish(split)
        for split in sorted(growing):
            finish(split)
    # The rows: what each tar holds, and where each sample lies
    shards = []
    locations = []
    for index in indexes:
        key = {"dataset": index.dataset, "chunk": index.chunk, "shard": index.shard}
        of_tar = {
            "split": index.split,
            "bytes": index.size,
            "sha256": index.sha256,
            "store": store,
            "episodes": len(index.entries),
            "samples": sum(len(entry.sample_id) for entry in index.entries),
        }
        shards.append(key | of_tar)
        for entry in index.entries:
            locations += [
                key | {"sample_id": sample_id, "offset": entry.offset}
                for sample_id in entry.sample_id
            ]
    return {
        "shards": TABLES["shards"].rows(shards),
        "sample_location": TABLES["sample_location"].rows(locations),
    }


def _keep(path: Path, file: IO[bytes], index: Index) -> None:
    """Put a finished tar where it belongs, its index first; nothing is written where the same one lies already."""
    if path.exists() and index_path(path).exists() and path.stat().st_size == index.size:
        if isinstance(path, PosixPath):
            path.touch()  # young again, so that no sweep takes it before it is recorded
            index_path(path).touch()
        return
    # The index first: a tar that is there has one
    write_file(index_path(path), index.text().encode())
    file.seek(0)
    write_from(path, file)


# Reading


def _failures(path: Path) -> tuple[type[Exception], ...]:
    """What reading a file may raise; clients of buckets have families of errors of their own."""
    if isinstance(path, PosixPath):
        return (OSError, ValueError, tarfile.TarError)
    return (Exception,)


@dataclass(frozen=True)
class Sample:
    """One question with its pictures as JPEG bytes, in the order of the question's <image> marks.

    `entry`: the pictures of its episode's entry by name, where it was read by a Loader; as far as
    samples show them.
    """

    row: Mapping
    pictures: tuple[bytes, ...]
    entry: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)


def read_entries(path: Path) -> Iterator[tuple[list[dict], dict[str, bytes]]]:
    """(samples, pictures by name) of each episode of a tar, in its order. Raises ShardError."""
    return (read_entry(path, entry) for entry in read_index(path).entries)


def read_entry(path: Path, entry: Entry) -> tuple[list[dict], dict[str, bytes]]:
    """(samples, pictures by name) of one episode, by its place in the index: one read. Raises ShardError."""
    rows, data, places = _read(path, entry)
    return rows, {name: data[place] for name, place in places.items()}


def picture_places(path: Path, entry: Entry) -> tuple[list[dict], dict[str, tuple[int, int]]]:
    """(samples, byte in the tar and size of each picture by name) of one episode. Raises ShardError."""
    rows, _, places = _read(path, entry)
    return rows, {
        name: (entry.offset + place.start, place.stop - place.start)
        for name, place in places.items()
    }


@lru_cache(maxsize=256)
def _by_offset(tar: Path) -> dict[int, Entry]:
    return {entry.offset: entry for entry in read_index(tar).entries}


def entry_at(tar: Path, offset: int) -> Entry:
    """The entry at a byte, as the lake records it. Raises ShardError."""
    if offset not in (entry_by_offset := _by_offset(tar)):
        raise ShardError(
            f"shard {tar.name} has no entry at byte {offset}, where the lake says there is one"
        )
    return entry_by_offset[offset]


def _read(path: Path, entry: Entry) -> tuple[list[dict], bytes, dict[str, slice]]:
    """Samples of one episode, its bytes, and where in these each picture is."""
    try:
        data = read_range(path, entry.offset, entry.size)
        if len(data) != entry.size:
            raise ValueError("cut off")
        places = dict(_members(data, entry.key))
        rows = json.loads(data[places.pop(SAMPLES)])
        ids = tuple(r["sample_id"] for r in rows)
    except (KeyError, TypeError) as e:
        raise ShardError(
            f"shard {path.name} holds no samples of {entry.key} at byte {entry.offset}"
        ) from e
    except _failures(path) as e:
        raise ShardError(f"shard {path.name} cannot be read at byte {entry.offset}: {e}") from e
    # Bytes may be readable and still be of another state than the index was made of
    if ids != entry.sample_id:
        raise ShardError(
            f"shard {path.name} holds other samples in {entry.key} than its index says"
        )
    return rows, data, places


def _members(data: bytes, key: str) -> Iterator[tuple[str, slice]]:
    """Name, without the key, and place of each member of an entry, quicker than tarfile. Raises ValueError."""
    offset = 0
    long_name = None
    while offset < len(data):
        # A tar is blocks of 512 bytes: a header, then the body in whole blocks
        head = data[offset : offset + tarfile.BLOCKSIZE]
        # Its checksum counts its own eight bytes as spaces
        if sum(head) - sum(head[148:156]) + 8 * ord(" ") != int(head[148:154], 8):
            raise ValueError(f"damaged {offset} bytes further on")
        start = offset + tarfile.BLOCKSIZE
        size = int(head[124:135], 8)
        body = slice(start, start + size)
        if body.stop > len(data):
            raise ValueError("cut off")

        # A name of more than 100 bytes is the body of a member of its own, before the one that it names
        if head[156:157] == tarfile.GNUTYPE_LONGNAME:
            long_name = data[body]
        else:
            full_name = (long_name or head[:100]).rstrip(b"\0").decode()
            member_key, _, name = full_name.partition(".")
            if member_key != key:
                raise ValueError(f"{member_key} lies there instead of {key}")
            yield name, body
            long_name = None

        blocks = -(-size // tarfile.BLOCKSIZE)  # bodies are padded to whole blocks
        offset = start + blocks * tarfile.BLOCKSIZE
    if offset != len(data):
        raise ValueError("cut off within the padding of its last file")


def read_range(path: Path, offset: int, size: int) -> bytes:
    # One request for these bytes; an open file of a bucket reads 50 MB ahead
    if not isinstance(path, PosixPath):
        bucket: Any = path
        return bucket.fs.cat_file(bucket.path, start=offset, end=offset + size)
    with path.open("rb") as f:
        f.seek(offset)
        return f.read(size)


def shown[P](row: Mapping, pictures: Mapping[str, P]) -> tuple[P, ...]:
    """Those of an entry's pictures that a sample shows, in its order. Raises ShardError."""
    missing = [name for name in row["pictures"] if name not in pictures]
    if missing:
        raise ShardError(
            f"sample {row['sample_id']} shows {missing[0]}, which its shard does not hold"
        )
    return tuple(pictures[name] for name in row["pictures"])


def expand(row: dict, pictures: Mapping[str, bytes]) -> Sample:
    """A sample of an entry with its pictures. Raises ShardError."""
    return Sample(row, shown(row, pictures))


def read_samples(paths: Sequence[Path], families: frozenset[str] | None = None) -> Iterator[Sample]:
    """Every sample of some shards, as they lie. Raises ShardError."""
    for path in paths:
        for rows, pictures in read_entries(path):
            for row in rows:
                if families is None or row["family"] in families:
                    yield expand(row, pictures)


def samples_at(tar: Path, offset: int, sample_ids: Collection[str]) -> list[Sample]:
    """Some samples of the entry at a byte, as the lake records it; reads one entry. Raises ShardError."""
    rows, pictures = read_entry(tar, entry_at(tar, offset))
    samples = [expand(row, pictures) for row in rows if row["sample_id"] in sample_ids]
    if missing := set(sample_ids) - {sample.row["sample_id"] for sample in samples}:
        raise ShardError(f"sample {min(missing)} is not at byte {offset} of shard {tar.name}")
    return samples


def read_sample(tar: Path, offset: int, sample_id: str) -> Sample:
    """One sample by its location in the lake; reads one entry. Raises ShardError."""
    [sample] = samples_at(tar, offset, [sample_id])
    return sample


def cut_shard(
    workspace: Workspace, tar: Path, episodes: Collection[int], store: str | None
) -> dict[str, pa.Table]:
    """Write a tar like `tar` without some episodes; returns the rows that record it, none where
    nothing is left.

    Equal content has equal bytes: it is the tar of a build that never saw those episodes. `store`:
    where both lie, see Workspace.shard. Raises ShardError.
    """
    index = read_index(tar)
    entries = ((index.split, entry) for entry in _kept_entries(tar, index, episodes))
    return shards_stage(workspace, index.dataset, index.chunk, entries, sys.maxsize, store)


def _kept_entries(tar: Path, index: Index, episodes: Collection[int]) -> Iterator[EntryContent]:
    for entry in index.entries:
        number = int(entry.key.rpartition("-")[2])
        if number in episodes:
            continue
        rows, pictures = read_entry(tar, entry)
        samples = [_as_stored(tar, number, row) for row in rows]
        kept_samples = [sample for sample in samples if not _shows(sample, episodes)]
        if kept_samples:
            yield EntryContent(index.dataset, number, kept_samples, pictures)


def _as_stored(tar: Path, episode: int, row: Mapping) -> dict:
    """A sample of an entry with its pictures as the table `samples` names them. Raises ShardError."""
    pictures = [named_picture(episode, name) for name in row["pictures"]]
    if None in pictures:
        raise ShardError(f"shard {tar.name}: sample {row['sample_id']} shows what names no picture")
    return {**row, "pictures": pictures}


def _shows(sample: Mapping, episodes: Collection[int]) -> bool:
    return any(picture["episode_index"] in episodes for picture in sample["pictures"])
