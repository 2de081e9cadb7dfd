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
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import LFS_POINTER, write_video

SPARSE_BYTES = 1 << 36  # what a file pretends to have
HUGE = 10**12
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
        files = [p for p in paths if fnmatch(p.name, pattern) and p.stat().st_size < SPARSE_BYTES]
        kind = self.rng.choice(sorted({p.suffix for p in files}))
        return self.rng.choice([p for p in files if p.suffix == kind])

    def secret(self, suffix: str) -> Path:
        """The file outside that a file would best be mistaken for."""
        found = self.outside / f"secret{suffix}"
        return found if found.exists() else self.outside / "secret.json"


Mutation = Callable[[Site, Path], str]


# Bytes of any file


def spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some of them are others, missing, or there twice; the first and the last ones, where headers are, most often."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        n = len(found)
        at = rng.choice([rng.randrange(n + 1), min(n, rng.randrange(40)), max(0, n - 1 - rng.randrange(600))])
        size = rng.choice([1, 4, 12, 200])
        match rng.choice(["bit", "set", "large", "zeros", "insert", "delete", "twice", "cut"]):
            case "bit" if at < n:
                found[at] ^= 1 << rng.randrange(8)
            case "set":
                found[at : at + size] = rng.randbytes(size)
            case "large":
                found[at : at + 8] = rng.choice([b"\xff" * 8, b"\xff" * 4 + bytes(4), b"\x7f" + b"\xff" * 7])
            case "zeros":
                found[at : at + size] = bytes(size)
            case "insert":
                found[at:at] = rng.randbytes(size)
            case "delete":
                del found[at : at + size]
            case "twice":
                found[at:at] = found[at : at + size]
            case "cut" if rng.randrange(4) == 0:
                del found[at:]
    return bytes(found)


def some_bytes(site: Site, path: Path) -> str:
    path.write_bytes(spoilt_bytes(path.read_bytes(), site.rng))
    return "other bytes"


def swapped(site: Site, path: Path) -> str:
    other = site.file("*")
    path.write_bytes(site.rng.choice([other.read_bytes(), LFS_POINTER.encode()]))
    return f"is {other.name}, or a pointer"


def sparse(site: Site, path: Path) -> str:
    if path.suffix == ".mkv":  # which FFmpeg searches to its end, until it runs out of time
        return some_bytes(site, path)
    os.truncate(path, SPARSE_BYTES)
    site.spoilt.add(path)
    return "64 GB that take no room"


# The tree of files


def deleted(site: Site, path: Path) -> str:
    path.unlink()
    return "is gone"


def duplicated(site: Site, path: Path) -> str:
    """Beside itself under a name as others have it, or under a wild one."""
    number = re.sub(r"\d+", lambda m: str(int(m[0][-3:]) + 1).zfill(len(m[0])), path.name)
    wild = f"{site.rng.choice(NAMES)[:200]}{path.suffix}"
    copied = path.with_name(number if number != path.name and site.rng.random() < 0.6 else wild)
    shutil.copyfile(path, copied)
    return f"also as {copied.name[:40]!r}"


def renamed(site: Site, path: Path) -> str:
    """The file, or a folder above it."""
    above = [path, *path.relative_to(site.root).parents][:-1]
    path = site.root / site.rng.choice(above)
    name = site.rng.choice(NAMES) + site.rng.choice([path.suffix, ""])
    path.rename(path.with_name(name))
    return f"{path.name} to {name[:40]!r}"


def made_folder(site: Site, path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "is a folder"


def fifo(site: Site, path: Path) -> str:
    """Nobody writes into it: it would be waited for."""
    path.unlink()
    os.mkfifo(path)
    return "is a FIFO"


def linked(site: Site, path: Path) -> str:
    """Itself or its folder leads out, to itself, or to what never ends."""
    secret = site.secret(path.suffix)
    if path.parent != site.root and site.rng.random() < 0.25:
        path = path.parent
        shutil.rmtree(path)
        secret = site.outside
    else:
        path.unlink()
    ways = [str(secret), os.path.relpath(secret, path.parent), path.name, os.path.relpath(site.root, path.parent)]
    target = site.rng.choice([*ways, ".", "/dev/zero"])
    path.symlink_to(target)
    return f"a link to {target}"


BYTES: tuple[Mutation, ...] = (some_bytes, some_bytes, swapped, sparse)
TREE: tuple[Mutation, ...] = (deleted, duplicated, renamed, made_folder, fifo, linked)


# What a file holds


@dataclass(frozen=True)
class Claim:
    """Rows of an HDF5 dataset that were never stored, or packed so well that a small file holds them."""

    rows: int
    packed: bool


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
    """The tree with one to three of its places changed; it is changed in place."""
    root = [tree]
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
                name = rng.choice([*TEXTS, rng.choice(list(container))])
                container[name] = container.pop(key)
            case "order" if isinstance(container, list):
                container.reverse() if rng.random() < 0.5 else container.extend(list(container))
            case _:
                container[key] = wild(container[key], rng, outside)
    return root[0] if root else None


def wild(value: Any, rng: random.Random, outside: Path) -> Any:
    """What no reader expects in a value's place, most often of the value's own kind."""
    secret = outside / "secret.mp4"
    texts = [*TEXTS, str(secret), f"../../outside/{secret.name}", f"data/../../../outside/{secret.name}"]
    if isinstance(value, np.ndarray | pa.Array) and rng.random() < 0.8:
        return wild_numpy(value, rng, outside) if isinstance(value, np.ndarray) else wild_arrow(len(value), rng, texts)
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
    if a.dtype.kind in "fiu" and a.size and rng.random() < 0.4:
        with np.errstate(all="ignore"):
            values = a.astype("f8" if a.ndim < 4 else a.dtype).reshape(a.shape or (1,))
            values[rng.randrange(len(values))] = rng.choice([np.nan, 1e308, -1]) if a.ndim < 4 else 255
        return values
    hostile = np.array([Hostile(outside / "unpickled")], dtype=object)
    return rng.choice([
        a[:-1] if a.ndim else a, a[::-1] if a.ndim else a, a[..., None], a.T, np.zeros((0, 3)), np.float64(7),
        np.zeros(rows, "S5"), np.zeros((rows, 2), [("a", "f8"), ("b", "S2")]), np.zeros((rows, 3), "c16"),
        np.zeros((rows, 2, 2, 2, 2)), np.zeros((rows, 7), ">u2"), np.zeros(rows, bool), np.zeros((rows, 2), "<M8[ns]"),
        hostile, pickle.dumps(hostile), "text", b"\xff\xfe", h5py.Empty("f4"), Claim(1 << 24, False),
        Claim(HUGE, False), Claim(1 << 13, True), h5py.SoftLink("/"),
        h5py.ExternalLink(str(outside / "secret.h5"), "/numbers"),
        h5py.VirtualSource(str(outside / "secret.h5"), "numbers", (6, 7)),
    ])  # fmt: skip


STEP = pa.struct([("name", pa.string()), ("start_frame", pa.int64()), ("timestamp", pa.float32())])
TYPES = (
    pa.int64(), pa.int32(), pa.uint64(), pa.float64(), pa.float16(), pa.bool_(), pa.string(), pa.large_string(),
    pa.binary(), pa.null(), pa.date32(), pa.timestamp("ns"), pa.decimal128(38, 3), pa.duration("us"),
    pa.list_(pa.int64()), pa.list_(pa.string()), pa.list_(pa.float32(), 3), pa.list_(pa.list_(pa.string())),
    pa.list_(STEP), STEP, pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
)  # fmt: skip


def wild_arrow(rows: int, rng: random.Random, texts: list[str]) -> pa.Array:
    """Values of some type, as far as Python's can be that; null where not."""
    kind, drawn = rng.choice(TYPES), []
    for _ in range(rng.choice([1, 1, 4])):
        value = rng.choice([*VALUES, *texts, rng.randint(-3, 40), [0.0] * rng.randrange(5), b"\xff"])
        path = {"bytes": None, "path": rng.choice(texts)}
        value = path if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else value
        try:
            drawn.append(pa.array([value], kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            drawn.append(pa.nulls(1, kind))
    return pa.concat_arrays(drawn).take(pa.array([k % len(drawn) for k in range(rows)], pa.int64()))


def json_text(tree: Any, rng: random.Random) -> str:
    return json.dumps(tree).replace(json.dumps(DEEP), rng.choice(NESTED))


def recoded(text: str, rng: random.Random) -> bytes:
    """A text in UTF-8, or, seldom, as no reader expects it."""
    odd = [text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.replace("e", "é").encode("latin-1", "replace")]
    odd += [text.replace("e", "\0").encode(), text.replace("\n", "\r").encode(), text.replace("\n", "").encode()]
    return rng.choice(odd) if rng.randrange(12) == 0 else text.encode()


def write_lines(tree: Any, _: bytes, rng: random.Random) -> bytes:
    rows = tree if isinstance(tree, list) else [tree]
    return recoded("".join(json_text(row, rng) + "\n" for row in rows), rng)


def write_csv(tree: Any, _: bytes, rng: random.Random) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(row if isinstance(row, list) else [row] for row in tree)
    return recoded(out.getvalue().encode("utf-8", "replace").decode(), rng)


def read_parquet(data: bytes) -> Any:
    table = pq.read_table(pa.BufferReader(data))
    return [[name, column.combine_chunks()] for name, column in zip(table.column_names, table.columns, strict=True)]


def write_parquet(tree: Any, _: bytes, rng: random.Random) -> bytes:
    """All columns have as many rows as the first one; rows are moved, there twice, or gone, too."""
    columns = [(n, c if isinstance(c, pa.Array) else pa.array([c])) for n, c in tree]
    n = len(columns[0][1]) if columns else 0
    rows = rng.choice([list(range(n))] * 4 + [[*range(n)] * 2, [], list(range(n))[::-1], [0][:n]])
    taken = [c.take(pa.array([k % len(c) for k in rows] if len(c) else [], pa.int64())) for _, c in columns]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(taken, [name for name, _ in columns]), sink)
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
    with h5py.File(stored, "r+") as file:
        for name in before.keys() - tree.keys():
            path, at, key = name.rpartition("@")
            node = file[path or "/"].attrs if at else file
            del node[key]
        for name, value in tree.items():
            path, at, key = name.rpartition("@")
            if name in before and pickle.dumps(value) == pickle.dumps(before[name]):
                continue
            if at:
                file[path or "/"].attrs[key] = value
                continue
            if name in before:
                del file[name]
            match value:
                case Claim(rows, True):
                    file.create_dataset(name, data=np.zeros((rows, 4096), "u1"), chunks=(4096, 4096), compression=1)
                case Claim(rows, False):
                    file.create_dataset(name, (rows, 7), "f4", chunks=(1000, 7))
                case h5py.VirtualSource():
                    layout = h5py.VirtualLayout((6, 7), np.float64)
                    layout[...] = value
                    file.create_virtual_dataset(name, layout)
                case _:
                    file[name] = value
    return stored.getvalue()


def read_records(data: bytes) -> list[Any]:
    """Features of each record by name: bytes, or numbers in one array."""

    def values(v: tfrecord.Values) -> Any:
        spans = tfrecord.byte_spans(data, v) if v.kind == "bytes" else ()
        return [data[a:b] for a, b in spans] if v.kind == "bytes" else tfrecord.numbers(data, v)

    found = [tfrecord.example(data, record) for record in tfrecord.records(data)]
    return [{name: values(v) for name, v in features.items()} for features in found]


def write_records(tree: Any, _: bytes, rng: random.Random) -> bytes:
    """Checksums are right, also of messages whose bytes are spoilt, and of a length that is not so."""
    messages = [m if isinstance(m, bytes) else rlds.example(m) for m in tree]
    messages = [spoilt_bytes(m, rng) if rng.randrange(10) == 0 else m for m in messages]
    out = b"".join(map(rlds.record, messages))
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
        data = member["data"]
        out += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def read_zip(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(tree: Any, _: bytes, __: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return out.getvalue()


def write_npy(tree: Any, _: bytes, __: random.Random) -> bytes:
    out = io.BytesIO()
    np.save(out, tree, allow_pickle=True)
    return tree if isinstance(tree, bytes) else out.getvalue()


type Read = Callable[[bytes], Any]
type Write = Callable[[Any, bytes, random.Random], bytes]
JSON: tuple[Read, Write] = json.loads, lambda tree, _, rng: recoded(json_text(tree, rng), rng)
FORMATS: dict[str, tuple[Read, Write]] = {
    "*.json": JSON,
    ".z*": JSON,
    "*.jsonl": (lambda data: [json.loads(line) for line in data.splitlines() if line.strip()], write_lines),
    "*.csv": (lambda data: list(csv.reader(io.StringIO(data.decode()))), write_csv),
    "*.parquet": (read_parquet, write_parquet),
    "*.h*5": (read_hdf5, write_hdf5),
    "*.tfrecord*": (read_records, write_records),
    "*.tar": (read_tar, write_tar),
    "*.zip": (read_zip, write_zip),
    "*.npy": (lambda data: np.load(io.BytesIO(data)), write_npy),
}
# What a format cannot hold is drawn again
UNWRITABLE = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, OSError)
TRIES = 50


def spoilt_content(name: str, data: bytes, rng: random.Random, outside: Path) -> bytes:
    """A file's bytes with other content in the same format; by its bytes where it has none that is known."""
    read, write = next((f for pattern, f in FORMATS.items() if fnmatch(name, pattern)), (None, None))
    if not read or not write:
        return spoilt_bytes(data, rng)
    for _ in range(TRIES):
        try:
            changed = write(edited(read(data), rng, outside), data, rng)
        except (*UNWRITABLE, pa.ArrowException, UnicodeError, tarfile.TarError, zipfile.BadZipFile):
            continue
        if changed != data:
            return changed
    return spoilt_bytes(data, rng)


def content(site: Site, path: Path) -> str:
    path.write_bytes(spoilt_content(path.name, path.read_bytes(), site.rng, site.outside))
    return "other content"


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
        said = f"{path.relative_to(root)}: {mutation(site, path)}"
        done[mutation.__name__] = "; ".join(filter(None, [done.get(mutation.__name__), said]))
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
    table = pa.table({"episode_index": [0] * 6, "timestamp": [0.1 * k for k in range(6)]})
    pq.write_table(table, folder / "secret.parquet")
    (folder / "secret.json").write_text('{"task": "secret"}')
    (folder / "secret.jsonl").write_text('{"task": "secret"}\n')
    (folder / "secret.csv").write_text("file,task\nsecret.mp4,secret\n")
    np.save(folder / "secret.npy", np.zeros((6, 7)))
    with h5py.File(folder / "secret.h5", "w") as file:
        file["pictures"], file["numbers"] = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 7))
    shutil.copyfile(folder / "secret.h5", folder / "secret.hdf5")
    with tarfile.open(folder / "secret.tar", "w") as archive:
        archive.add(folder / "secret.mp4", "secret.mp4")
