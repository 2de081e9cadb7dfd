"""One way to spoil data: by bytes, by the tree of files, and by what a file holds, whichever format it has.

Each choice comes from a `random.Random`: a seeded one, so that a base's name and a number say all of a spoilt dataset,
or hypothesis' own, which finds the smallest example. What a file holds is read as a tree of dicts, lists and values,
one to three of its places are changed, and it is written again (`FORMATS`).
"""

import copy
import csv
import io
import json
import os
import pickle
import random
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.formats import tfrecord
from ingest.reasons import DataError
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import LFS_POINTER, write_video

SPARSE_BYTES = 1 << 36  # what a file pretends to have
DEEP = "\u2603deep"  # stands for lists in lists, so many that a reader that calls itself runs out of stack
NESTED = ("[" * 100_000 + "]" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "[" + "0," * 100_000 + "0]")
TEXTS = (
    "", "0", "NaN", "1e999", "{", "a\0b", "\ud800", "\u202egpj.exe", "x" * 70_000, "line\nbreak", "ünïcødé ☃ 数据",
    "'; DROP TABLE episodes; --", "-rf", "{0.__class__}", "{episode_index:999999999d}",
    "{video_key.__init__.__globals__}", "%s" * 99, DEEP,
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 0.5, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, 1e-320, float("nan"),
    float("inf"), [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": [None]}},
)  # fmt: skip
NAMES = ("ünïcødé ☃ 数据", "two  words ", "line\nbreak", "\u202egpj.exe", "%00", "n" * 240, "-rf", "\udcff\udcfe")
TYPES = (
    pa.uint64(), pa.float16(), pa.bool_(), pa.large_string(), pa.binary(), pa.null(), pa.date32(), pa.timestamp("ns"),
    pa.decimal128(38, 3), pa.duration("us"), pa.list_(pa.string()), pa.dictionary(pa.int32(), pa.string()),
)  # fmt: skip


@dataclass
class Site:
    """A dataset that is being spoilt, and a folder beside it that nobody may read or write."""

    root: Path
    outside: Path
    rng: random.Random
    spoilt: set[Path] = field(default_factory=set)  # not to be read again here: links out, FIFOs, huge files

    def file(self, pattern: str) -> Path:
        """One that is whole, each kind being as likely; raises IndexError when there is none."""
        paths = (p for p in sorted(self.root.rglob("*")) if p not in self.spoilt and not p.is_symlink() and p.is_file())
        files = [p for p in paths if fnmatch(p.name, pattern)]
        kind = self.rng.choice(sorted({p.suffix for p in files}))
        return self.rng.choice([p for p in files if p.suffix == kind])


Mutation = Callable[[Site, Path], object]


# Bytes of any file


def spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some of them are others, missing, or there twice; the first and the last ones, where headers are, most often."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        n, size, bit = len(found), rng.choice([0, 1, 4, 12, 200]), 1 << rng.randrange(8)
        at = rng.choice([rng.randrange(n + 1), min(n, rng.randrange(40)), max(0, n - 1 - rng.randrange(600))])
        old = found[at : at + size]
        others = bytes(size), rng.randbytes(size), b"", old * 2, bytes(b ^ bit for b in old), b"\xff" * 8
        found[at : at + size] = rng.choice([*others, rng.randbytes(9) + old, b"\x7f" + b"\xff" * 7])
    return bytes(found[: rng.randrange(len(found) + 1)] if rng.randrange(20) == 0 else found)


def some_bytes(site: Site, path: Path) -> None:
    path.write_bytes(spoilt_bytes(path.read_bytes(), site.rng))


def swapped(site: Site, path: Path) -> None:
    path.write_bytes(site.rng.choice([site.file("*").read_bytes(), LFS_POINTER.encode()]))


def sparse(site: Site, path: Path) -> None:
    """64 GB that take no room."""
    if path.suffix == ".mkv":  # which FFmpeg searches to its end, until it runs out of time
        some_bytes(site, path)
        return
    os.truncate(path, SPARSE_BYTES)
    site.spoilt.add(path)


# The tree of files


def deleted(_: Site, path: Path) -> None:
    path.unlink()


def duplicated(site: Site, path: Path) -> None:
    """Beside itself under a name as others have it, or under a wild one."""
    number = re.sub(r"\d+", lambda m: str(int(m[0][-3:]) + 1).zfill(len(m[0])), path.name)
    wild = f"{site.rng.choice(NAMES)[:200]}{path.suffix}"
    shutil.copyfile(path, path.with_name(number if number != path.name and site.rng.random() < 0.6 else wild))


def renamed(site: Site, path: Path) -> None:
    """The file, or a folder above it."""
    path = site.root / site.rng.choice([path, *path.relative_to(site.root).parents][:-1])
    path.rename(path.with_name(site.rng.choice(NAMES) + site.rng.choice([path.suffix, ""])))


def made_folder(_: Site, path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(_: Site, path: Path) -> None:
    """Nobody writes into it: it would be waited for."""
    path.unlink()
    os.mkfifo(path)


def linked(site: Site, path: Path) -> str:
    """Itself or its folder leads out, to itself, or to what never ends."""
    secret = site.outside / f"secret{path.suffix}"
    secret = secret if secret.exists() else site.outside / "secret.json"
    if path.parent != site.root and site.rng.random() < 0.25:
        path, secret = path.parent, site.outside
        shutil.rmtree(path)
    else:
        path.unlink()
    ways = [str(secret), os.path.relpath(secret, path.parent), path.name, os.path.relpath(site.root, path.parent)]
    path.symlink_to(target := site.rng.choice([*ways, ".", "/dev/zero"]))
    return target


BYTES: tuple[Mutation, ...] = (some_bytes, some_bytes, swapped, sparse)
TREE: tuple[Mutation, ...] = (deleted, duplicated, renamed, made_folder, fifo, linked)


# What a file holds


class Hostile:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


def edited(tree: Any, rng: random.Random, outside: Path) -> Any:
    """A copy of the tree with one to three of its places changed."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        known = list(places(root))
        if not known:
            break
        # Each place is as likely as all places near the root, where formats have what matters
        container, key = rng.choice(rng.choice([known, known[:12]]))
        match rng.choice(["wild", "wild", "wild", "delete", "twice", "rename", "order"]):
            case "delete":
                del container[key]
            case "twice" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case "rename" if isinstance(container, dict):
                container[rng.choice([*TEXTS, *container])] = container.pop(key)
            case "order" if isinstance(container, list):
                container.reverse()
            case _:
                container[key] = wild(container[key], rng, outside)
    return root[0] if root else None


def wild(value: Any, rng: random.Random, outside: Path) -> Any:
    """What no reader expects in a value's place, most often of the value's own kind."""
    secret = outside / "secret.mp4"
    texts = [*TEXTS, str(secret), f"../../outside/{secret.name}", f"data/../../../outside/{secret.name}"]
    if isinstance(value, np.ndarray) and rng.random() < 0.8:
        return wild_numpy(value, rng, outside)
    if isinstance(value, bytes) and rng.random() < 0.8:
        return rng.choice([spoilt_bytes(value, rng), b"", b"\xff\xfe\0", b"\x89PNG\r\n\x1a\n" * 9, b"x" * 70_000])
    if isinstance(value, dict) and "linkname" in value and rng.random() < 0.5:
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
        return value | {"type": rng.choice(kinds), "linkname": rng.choice(texts), "data": b""}
    if isinstance(value, str) and rng.random() < 0.6:
        return rng.choice(texts)
    # What is drawn is not to be changed by the next edit
    return copy.deepcopy(rng.choice([*VALUES, *texts, rng.randint(-3, 40), value]))


def wild_numpy(a: np.ndarray, rng: random.Random, outside: Path) -> Any:
    rows = len(a) if a.ndim else 1
    if a.dtype.kind in "fiu" and a.size and a.ndim < 4 and rng.random() < 0.4:
        values = a.astype("f8").reshape(a.shape or (1,))
        values[rng.randrange(len(values))] = rng.choice([np.nan, 1e308, -1])
        return values
    hostile = np.array([Hostile(outside / "unpickled")], dtype=object)
    return rng.choice([
        a[:-1] if a.ndim else a, a[::-1] if a.ndim else a, a[..., None], a.T, np.zeros((0, 3)), np.float64(7),
        np.zeros(rows, "S5"), np.zeros((rows, 2), [("a", "f8"), ("b", "S2")]), np.zeros((rows, 3), "c16"),
        np.zeros((rows, 2, 2, 2, 2)), np.zeros((rows, 7), ">u2"), np.zeros(rows, bool), np.zeros((rows, 2), "<M8[ns]"),
        hostile, pickle.dumps(hostile), "text", b"\xff\xfe", h5py.Empty("f4"), h5py.SoftLink("/"),
        h5py.ExternalLink(str(outside / "secret.h5"), "/numbers"),
        h5py.VirtualSource(str(outside / "secret.h5"), "numbers", (6, 7)),
    ])  # fmt: skip


def json_text(tree: Any, rng: random.Random) -> str:
    return json.dumps(tree).replace(json.dumps(DEEP), rng.choice(NESTED))


def recoded(text: str, rng: random.Random) -> bytes:
    """A text in UTF-8, or, seldom, as no reader expects it."""
    odd = [text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.replace("e", "é").encode("latin-1", "replace")]
    odd += [text.replace("e", "\0").encode(), text.replace("\n", "\r").encode(), text.replace("\n", "").encode()]
    return rng.choice(odd) if rng.randrange(12) == 0 else text.encode()


def write_lines(tree: Any, _: bytes, rng: random.Random) -> bytes:
    return recoded("".join(json_text(row, rng) + "\n" for row in (tree if isinstance(tree, list) else [tree])), rng)


def write_csv(tree: Any, _: bytes, rng: random.Random) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(row if isinstance(row, list) else [row] for row in tree)
    return recoded(out.getvalue().encode("utf-8", "replace").decode(), rng)


def write_parquet(tree: Any, data: bytes, rng: random.Random) -> bytes:
    """All columns have as many rows as the first one, in the type that they had where they still can."""
    kinds = {f.name: f.type for f in pq.read_schema(pa.BufferReader(data))}
    columns = {name: cells if isinstance(cells, list) and cells else [cells] for name, cells in tree.items()}
    rows = len(next(iter(columns.values()))) * rng.choice([1, 1, 1, 1, 2, 0])
    arrays, odd = {}, rng.choice([*columns, None, None])
    for name, cells in columns.items():
        values = [cells[k % len(cells)] for k in range(rows)]
        try:
            arrays[name] = pa.array(values, kinds.get(name))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays[name] = pa.array(values)
        arrays[name] = arrays[name].cast(rng.choice(TYPES)) if name == odd else arrays[name]
    pq.write_table(pa.table(arrays), sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes()


def read_hdf5(data: bytes) -> dict[str, Any]:
    """Datasets by path; attributes by the path of what has them, @ and their name."""
    found: dict[str, Any] = {}

    def read(name: str, node: Any) -> None:
        found.update({f"{name}@{key}": value for key, value in node.attrs.items()})
        if isinstance(node, h5py.Dataset):
            found[name] = node[()]

    with h5py.File(io.BytesIO(data)) as file:
        read("", file)
        file.visititems(read)
    return found


def write_hdf5(tree: Any, data: bytes, _: random.Random) -> bytes:
    """What is the same stays as it is stored."""
    before, stored = read_hdf5(data), io.BytesIO(data)
    same = {n for n in before if n in tree and pickle.dumps(tree[n]) == pickle.dumps(before[n])}
    with h5py.File(stored, "r+") as file:
        for name in before.keys() | tree.keys() - same:
            path, at, key = name.rpartition("@")
            node: Any = file[path or "/"].attrs if at else file
            if name in before and name not in same:
                del node[key]
            if name in same or name not in tree:
                continue
            if isinstance(tree[name], h5py.VirtualSource):
                layout = h5py.VirtualLayout((6, 7), np.float64)
                layout[...] = tree[name]
                file.create_virtual_dataset(name, layout)
            else:
                node[key] = tree[name]
    return stored.getvalue()


def read_records(data: bytes) -> list[Any]:
    """Features of each record by name: bytes, or numbers in one array."""

    def values(v: tfrecord.Values) -> Any:
        return [data[a:b] for a, b in tfrecord.byte_spans(data, v)] if v.kind == "bytes" else tfrecord.numbers(data, v)

    found = [tfrecord.example(data, record) for record in tfrecord.records(data)]
    return [{name: values(v) for name, v in features.items()} for features in found]


def write_records(tree: Any, _: bytes, rng: random.Random) -> bytes:
    """Checksums are right, also of messages whose bytes are spoilt, and of a length that is not so."""
    messages = [m if isinstance(m, bytes) else rlds.example(m) for m in tree]
    out = b"".join(rlds.record(spoilt_bytes(m, rng) if rng.randrange(10) == 0 else m) for m in messages)
    if rng.randrange(10) == 0:
        length = rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(out)]).to_bytes(8, "little")
        out = length + rlds.masked_crc(length).to_bytes(4, "little") + out[12:]
    return out


def read_tar(data: bytes) -> list[Any]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            {"name": m.name, "type": m.type, "linkname": m.linkname, "size": m.size}
            | {"data": archive.extractfile(m).read() if m.isreg() else b""}  # type: ignore[union-attr]
            for m in archive
        ]


def write_tar(tree: Any, _: bytes, __: random.Random) -> bytes:
    """Headers say what the tree says, whatever size the content has."""
    out = b""
    for member in tree:
        info = tarfile.TarInfo(member["name"])
        info.type, info.linkname, info.size = member["type"], member["linkname"], member["size"]
        out += info.tobuf(tarfile.GNU_FORMAT) + member["data"] + bytes(-len(member["data"]) % 512)
    return out + bytes(1024)


def read_zip(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(tree: Any, _: bytes, __: random.Random) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return out.getvalue()


def write_npy(tree: Any, _: bytes, __: random.Random) -> bytes:
    np.save(out := io.BytesIO(), tree, allow_pickle=True)
    return tree if isinstance(tree, bytes) else out.getvalue()


type Read = Callable[[bytes], Any]
type Write = Callable[[Any, bytes, random.Random], bytes]
JSON: tuple[Read, Write] = json.loads, lambda tree, _, rng: recoded(json_text(tree, rng), rng)
FORMATS: dict[str, tuple[Read, Write]] = {
    "*.json": JSON,
    ".z*": JSON,
    "*.jsonl": (lambda data: [json.loads(line) for line in data.splitlines() if line.strip()], write_lines),
    "*.csv": (lambda data: list(csv.reader(io.StringIO(data.decode()))), write_csv),
    "*.parquet": (lambda data: pq.read_table(pa.BufferReader(data)).to_pydict(), write_parquet),
    "*.h*5": (read_hdf5, write_hdf5),
    "*.tfrecord*": (read_records, write_records),
    "*.tar": (read_tar, write_tar),
    "*.zip": (read_zip, write_zip),
    "*.npy": (lambda data: np.load(io.BytesIO(data)), write_npy),
}
# What a format cannot hold is drawn again
UNWRITABLE = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, OSError, StopIteration,
    pa.ArrowException, tarfile.TarError, zipfile.BadZipFile, DataError,
)  # fmt: skip
TRIES = 50


def spoilt_content(name: str, data: bytes, rng: random.Random, outside: Path) -> bytes:
    """A file's bytes with other content in the same format; by its bytes where it has none that is known."""
    read, write = next((f for pattern, f in FORMATS.items() if fnmatch(name, pattern)), (None, None))
    for _ in range(TRIES if read and write else 0):
        try:
            changed = write(edited(read(data), rng, outside), data, rng)  # pyright: ignore[reportOptionalCall]
        except UNWRITABLE:
            continue
        if changed != data:
            return changed
    return spoilt_bytes(data, rng)


def content(site: Site, path: Path) -> None:
    path.write_bytes(spoilt_content(path.name, path.read_bytes(), site.rng, site.outside))


# Datasets


def applicable(root: Path) -> list[tuple[str, Mutation]]:
    """(pattern of names, mutation) of what is tried on a dataset: six times its content, by format."""
    names = [p.name for p in root.rglob("*") if p.is_file()]
    held = [pattern for pattern in FORMATS if any(fnmatch(name, pattern) for name in names)]
    return [("*", m) for m in (*BYTES, *TREE)] + [(pattern, content) for pattern in held for _ in range(6)]


def mutate(root: Path, outside: Path, base: str, number: int) -> dict[str, str]:
    """Spoil a fresh copy of a base in one to three ways; what was done by the mutation's name.

    The first is number `number` of those that apply, so that as many numbers as there are try each of them.
    """
    rng, known = random.Random(f"{base} {number}"), applicable(root)
    site, done = Site(root, outside, rng), {}
    for pattern, mutation in [known[number % len(known)], *rng.choices(known, k=rng.choice([0, 0, 1, 2]))]:
        try:
            path = site.file(pattern)
        except IndexError:
            continue  # another mutation has taken the last one away
        said = f"{path.relative_to(root)} {mutation(site, path) or ''}"
        done[mutation.__name__] = f"{done.get(mutation.__name__, '')} {said}".strip()
    assert done
    return done


def write_outside(folder: Path) -> None:
    """Files that a dataset must never make anybody read: each of its kind, and usable."""
    folder.mkdir()
    write_video(folder / "secret.mp4", range(6))
    for copied in ("chunk-000", "videos", "cam_1"):
        (folder / copied).mkdir()
        shutil.copyfile(folder / "secret.mp4", folder / copied / "episode_000000.mp4")
    (folder / "secret.png").write_bytes(rlds.png(1))
    pq.write_table(pa.table({"episode_index": [0] * 6, "timestamp": np.arange(6) / 10}), folder / "secret.parquet")
    for suffix, text in {
        "json": "{}",
        "jsonl": '{"task": "secret"}\n',
        "csv": "file,task\nsecret.mp4,secret\n",
    }.items():
        (folder / f"secret.{suffix}").write_text(text)
    np.save(folder / "secret.npy", np.zeros((6, 7)))
    for suffix in ("h5", "hdf5"):
        with h5py.File(folder / f"secret.{suffix}", "w") as file:
            file["pictures"], file["numbers"] = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 7))
    with tarfile.open(folder / "secret.tar", "w") as archive:
        archive.add(folder / "secret.mp4", "secret.mp4")
