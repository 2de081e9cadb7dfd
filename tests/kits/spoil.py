"""One way to spoil data: by bytes, by the tree of files, and by what a file holds, whichever format it has.

Each choice comes from a `random.Random`: a seeded one, so that a base's name and a number say all of a spoilt dataset,
or hypothesis' own, which finds the smallest example.
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
from collections.abc import Callable, Iterator
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

# Bytes, and values


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


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a tree of dicts and lists."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


def edited(tree: Any, rng: random.Random, outside: Path) -> Any:
    """A copy of the tree with one to three of its places changed."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not (known := list(places(root))):
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
    texts = [*TEXTS, str(outside / "secret.mp4"), "../../outside/secret.mp4", "data/../../../outside/secret.mp4"]
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
    pickled = np.array([{"a": 1}], dtype=object)
    return rng.choice([
        a[:-1] if a.ndim else a, a[::-1] if a.ndim else a, a[..., None], a.T, np.zeros((0, 3)), np.float64(7),
        np.zeros(rows, "S5"), np.zeros((rows, 2), [("a", "f8"), ("b", "S2")]), np.zeros((rows, 3), "c16"),
        np.zeros((rows, 2, 2, 2, 2)), np.zeros((rows, 7), ">u2"), np.zeros(rows, bool), np.zeros((rows, 2), "<M8[ns]"),
        pickled, pickle.dumps(pickled), "text", b"\xff\xfe", h5py.Empty("f4"), h5py.SoftLink("/"),
        h5py.ExternalLink(str(outside / "secret.h5"), "/numbers"),
        h5py.VirtualSource(str(outside / "secret.h5"), "numbers", (6, 7)),
    ])  # fmt: skip


# What a file holds: the same format with other content. What it cannot hold raises one of UNWRITABLE


def json_text(tree: Any, rng: random.Random) -> str:
    return json.dumps(tree).replace(json.dumps(DEEP), rng.choice(NESTED))


def recoded(text: str, rng: random.Random) -> bytes:
    """A text in UTF-8, or, seldom, as no reader expects it."""
    odd = [text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.replace("e", "é").encode("latin-1", "replace")]
    odd += [text.replace("e", "\0").encode(), text.replace("\n", "\r").encode(), text.replace("\n", "").encode()]
    return rng.choice(odd) if rng.randrange(12) == 0 else text.encode()


def other_json(data: bytes, rng: random.Random, outside: Path) -> bytes:
    return recoded(json_text(edited(json.loads(data), rng, outside), rng), rng)


def other_lines(data: bytes, rng: random.Random, outside: Path) -> bytes:
    rows = edited([json.loads(line) for line in data.splitlines() if line.strip()], rng, outside)
    return recoded("".join(json_text(row, rng) + "\n" for row in (rows if isinstance(rows, list) else [rows])), rng)


def other_csv(data: bytes, rng: random.Random, outside: Path) -> bytes:
    rows = edited(list(csv.reader(io.StringIO(data.decode()))), rng, outside)
    csv.writer(out := io.StringIO()).writerows(row if isinstance(row, list) else [row] for row in rows)
    return recoded(out.getvalue().encode("utf-8", "replace").decode(), rng)


def other_parquet(data: bytes, rng: random.Random, outside: Path) -> bytes:
    """All columns have as many rows as the first one, in the type that they had where they still can."""
    table = pq.read_table(pa.BufferReader(data))
    tree = edited(table.to_pydict(), rng, outside)
    columns = {name: cells if isinstance(cells, list) and cells else [cells] for name, cells in tree.items()}
    rows = len(next(iter(columns.values()))) * rng.choice([1, 1, 1, 1, 2, 0])
    arrays, odd = {}, rng.choice([*columns, None, None])
    for name, cells in columns.items():
        values = [cells[k % len(cells)] for k in range(rows)]
        try:
            arrays[name] = pa.array(values, table.schema.field(name).type)
        except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError):
            arrays[name] = pa.array(values)
        arrays[name] = arrays[name].cast(rng.choice(TYPES)) if name == odd else arrays[name]
    pq.write_table(pa.table(arrays), sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes()


def other_hdf5(data: bytes, rng: random.Random, outside: Path) -> bytes:
    """One to three datasets or attributes are others, gone, or under another name."""
    with h5py.File(stored := io.BytesIO(data), "r+") as file:
        known: list[tuple[Any, str]] = [(file.attrs, key) for key in file.attrs]

        def look(name: str, node: Any) -> None:
            known.extend((node.attrs, key) for key in node.attrs)
            known.extend([(file, name)] if isinstance(node, h5py.Dataset) else [])

        file.visititems(look)
        for container, key in rng.sample(known, min(len(known), rng.choice([1, 1, 2, 3]))):
            value = container[key][()] if container is file else container[key]
            del container[key]
            if (way := rng.randrange(6)) == 0:
                continue
            other = wild(value, rng, outside) if way > 1 else value
            if isinstance(other, h5py.VirtualSource):
                layout = h5py.VirtualLayout((6, 7), np.float64)
                layout[...] = other
                file.create_virtual_dataset(key, layout)
            else:
                container[key if way > 1 else rng.choice(TEXTS)] = other
    return stored.getvalue()


def other_records(data: bytes, rng: random.Random, outside: Path) -> bytes:
    """Checksums are right, also of messages whose bytes are spoilt, and of a length that is not so."""

    def values(v: tfrecord.Values) -> Any:
        return [data[a:b] for a, b in tfrecord.byte_spans(data, v)] if v.kind == "bytes" else tfrecord.numbers(data, v)

    read = [tfrecord.example(data, record) for record in tfrecord.records(data)]
    tree = edited([{name: values(v) for name, v in features.items()} for features in read], rng, outside)
    messages = [m if isinstance(m, bytes) else rlds.example(m) for m in tree]
    out = b"".join(rlds.record(spoilt_bytes(m, rng) if rng.randrange(10) == 0 else m) for m in messages)
    if rng.randrange(10) == 0:
        length = rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(out)]).to_bytes(8, "little")
        out = length + rlds.masked_crc(length).to_bytes(4, "little") + out[12:]
    return out


def other_tar(data: bytes, rng: random.Random, outside: Path) -> bytes:
    """Headers say what the tree says, whatever size the content has."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        tree = [
            {n: getattr(m, n) for n in ("name", "type", "linkname", "size")}
            | {"data": archive.extractfile(m).read() if m.isreg() else b""}  # type: ignore[union-attr]
            for m in archive
        ]
    out = b""
    for member in edited(tree, rng, outside):
        info = tarfile.TarInfo(member["name"])
        info.type, info.linkname, info.size = member["type"], member["linkname"], member["size"]
        out += info.tobuf(tarfile.GNU_FORMAT) + member["data"] + bytes(-len(member["data"]) % 512)
    return out + bytes(1024)


def other_npy(data: bytes, rng: random.Random, outside: Path) -> bytes:
    value = edited(np.load(io.BytesIO(data)), rng, outside)
    np.save(out := io.BytesIO(), value, allow_pickle=True)
    return value if isinstance(value, bytes) else out.getvalue()


FORMATS: dict[str, Callable[[bytes, random.Random, Path], bytes]] = {
    "*.json": other_json, ".z*": other_json, "*.jsonl": other_lines, "*.csv": other_csv, "*.parquet": other_parquet,
    "*.h*5": other_hdf5, "*.tfrecord*": other_records, "*.tar": other_tar, "*.npy": other_npy,
}  # fmt: skip
UNWRITABLE = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, OSError, StopIteration,
    pa.ArrowException, tarfile.TarError, DataError,
)  # fmt: skip


def spoilt_content(name: str, data: bytes, rng: random.Random, outside: Path) -> bytes:
    """A file's bytes with other content in the same format; by its bytes where it has none that is known."""
    other = next((f for pattern, f in FORMATS.items() if fnmatch(name, pattern)), None)
    for _ in range(50 if other else 0):
        try:
            changed = other(data, rng, outside)  # pyright: ignore[reportOptionalCall]
        except UNWRITABLE:
            continue  # drawn again
        if changed != data:
            return changed
    return spoilt_bytes(data, rng)


# Datasets

TREE = ("gone", "duplicated", "renamed", "folder", "fifo", "linked")


def applicable(root: Path) -> list[tuple[str, str]]:
    """(pattern of names, way) of what is tried on a dataset: six times its content, by format."""
    names = [p.name for p in root.rglob("*") if p.is_file()]
    held = [pattern for pattern in FORMATS if any(fnmatch(name, pattern) for name in names)]
    ways = ("bytes", "bytes", "swapped", "sparse", *TREE)
    return [("*", way) for way in ways] + [(pattern, "content") for pattern in held for _ in range(6)]


def mutate(root: Path, outside: Path, base: str, number: int) -> dict[str, str]:
    """Spoil a fresh copy of a base in one to three ways; what was done by way.

    The first is number `number` of those that apply, so that as many numbers as there are try each of them.
    `outside` is a folder beside the dataset that nobody may read or write.
    """
    rng, known = random.Random(f"{base} {number}"), applicable(root)
    done: dict[str, str] = {}
    lost: set[Path] = set()  # links out, FIFOs, huge files: not to be read again here
    for pattern, way in [known[number % len(known)], *rng.choices(known, k=rng.choice([0, 0, 1, 2]))]:
        every = (p for p in sorted(root.rglob("*")) if p not in lost and not p.is_symlink() and p.is_file())
        if not (paths := [p for p in every if fnmatch(p.name, pattern)]):
            continue  # another way has taken the last one away
        kind = rng.choice(sorted({p.suffix for p in paths}))  # each is as likely
        path = rng.choice([p for p in paths if p.suffix == kind])
        done[way] = f"{done.get(way, '')} {path.relative_to(root)}".strip()
        if way == "sparse" and kind != ".mkv":  # which FFmpeg searches to its end, until it runs out of time
            os.truncate(path, SPARSE_BYTES)
            lost.add(path)
        elif way in TREE:
            done[way] += spoil_tree(path, way, root, outside, rng)
        elif way == "swapped":
            path.write_bytes(rng.choice([rng.choice(paths).read_bytes(), LFS_POINTER.encode()]))
        elif way == "content":
            path.write_bytes(spoilt_content(path.name, path.read_bytes(), rng, outside))
        else:
            path.write_bytes(spoilt_bytes(path.read_bytes(), rng))
    assert done
    return done


def spoil_tree(path: Path, way: str, root: Path, outside: Path, rng: random.Random) -> str:
    """Change where a file lies and what it is; where a link leads to."""
    if way == "duplicated":  # beside itself under a name as others have it, or under a wild one
        number = re.sub(r"\d+", lambda m: str(int(m[0][-3:]) + 1).zfill(len(m[0])), path.name)
        name = f"{rng.choice(NAMES)[:200]}{path.suffix}"
        shutil.copyfile(path, path.with_name(number if number != path.name and rng.random() < 0.6 else name))
    elif way == "renamed":  # the file, or a folder above it
        path = root / rng.choice([path, *path.relative_to(root).parents][:-1])
        path.rename(path.with_name(rng.choice(NAMES) + rng.choice([path.suffix, ""])))
    elif way == "linked" and path.parent != root and rng.random() < 0.25:
        shutil.rmtree(path.parent)
        path.parent.symlink_to(outside)
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "fifo":  # nobody writes into it: it would be waited for
            os.mkfifo(path)
        elif way == "linked":  # out, to itself, or to what never ends
            secret = next(p for p in (outside / f"secret{path.suffix}", outside / "secret.json") if p.exists())
            ways = [str(secret), os.path.relpath(secret, path.parent), path.name, os.path.relpath(root, path.parent)]
            path.symlink_to(target := rng.choice([*ways, ".", "/dev/zero"]))
            return f" to {target}"
    return ""


def write_outside(folder: Path) -> None:
    """Files that a dataset must never make anybody read: each of its kind, and usable."""
    folder.mkdir()
    for place in ("secret.mp4", *(f"{f}/episode_000000.mp4" for f in ("chunk-000", "videos", "cam_1"))):
        write_video(folder / place, range(6))
    (folder / "secret.png").write_bytes(rlds.png(1))
    pq.write_table(pa.table({"episode_index": [0] * 6, "timestamp": np.arange(6) / 10}), folder / "secret.parquet")
    (folder / "secret.json").write_text("{}")
    (folder / "secret.jsonl").write_text('{"task": "secret"}\n')
    (folder / "secret.csv").write_text("file,task\nsecret.mp4,secret\n")
    np.save(folder / "secret.npy", np.zeros((6, 7)))
    for suffix in ("h5", "hdf5"):
        with h5py.File(folder / f"secret.{suffix}", "w") as file:
            file["pictures"], file["numbers"] = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 7))
    with tarfile.open(folder / "secret.tar", "w") as archive:
        archive.add(folder / "secret.mp4", "secret.mp4")
