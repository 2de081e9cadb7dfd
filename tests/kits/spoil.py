"""One way to spoil data: by bytes, by the tree of files, and by what a file holds, whichever format
it has.

Each choice comes from a `random.Random`: a seeded one, so that a base's name and a number say all
of a spoilt dataset, or hypothesis' own, which finds the smallest example.
"""

import copy
import io
import json
import os
import pickle
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.reasons import DataError
from tests.kits import parts
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import LFS_POINTER

SPARSE_BYTES = (1 << 28) + (
    1 << 20
)  # that a file pretends to have: more than limits.max_file_bytes
DEEP = "\u2603deep"  # stands for lists in lists, so many that a reader that calls itself runs out of stack
NESTED = ("[" * 3_000 + "]" * 3_000, '{"a":' * 900 + "1" + "}" * 900, "[" + "0," * 100_000 + "0]")
TEXTS = (
    "", "0", "NaN", "1e999", "{", "a\0b", "\ud800", "\u202egpj.exe", "x" * 70_000, "line\nbreak", "ünïcødé ☃ 数据",
    "'; DROP TABLE episodes; --", "-rf", "{0.__class__}", "{episode_index:999d}",
    "{video_key.__init__.__globals__}", "%s" * 99, DEEP,
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 0.5, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, 1e-320, float("nan"),
    float("inf"), [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": [None]}},
)  # fmt: skip
NAMES = (
    "ünïcødé ☃ 数据",
    "two  words ",
    "line\nbreak",
    "\u202egpj.exe",
    "%00",
    "n" * 240,
    "-rf",
    "\udcff\udcfe",
)
COLUMN_WAYS = ("null", "missing", "of another kind", "huge")
HUGE = 10**12
MANY = 100_000  # more than limits.max_text lets pass
TYPES = (
    pa.uint64(), pa.float16(), pa.bool_(), pa.large_string(), pa.binary(), pa.null(), pa.date32(), pa.timestamp("ns"),
    pa.decimal128(38, 3), pa.duration("us"), pa.list_(pa.string()), pa.dictionary(pa.int32(), pa.string()),
)  # fmt: skip

# Bytes, and values


def spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some are others, missing, or there twice; most often the first and the last, where headers
    are."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        n = len(content)
        size = rng.choice([0, 1, 4, 12, 200])
        bit = 1 << rng.randrange(8)
        offset = rng.choice(
            [rng.randrange(n + 1), min(n, rng.randrange(40)), max(0, n - 1 - rng.randrange(600))]
        )
        old = content[offset : offset + size]
        replacements = (
            bytes(size),
            rng.randbytes(size),
            b"",
            old * 2,
            bytes(b ^ bit for b in old),
            b"\xff" * 8,
        )
        content[offset : offset + size] = rng.choice(
            [*replacements, rng.randbytes(9) + old, b"\x7f" + b"\xff" * 7]
        )
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.randrange(20) == 0 else content)


def places(
    node: Any, path_parts: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
    """(container, key, column) of everything in a tree of dicts and lists; a column has the keys
    that lead there, and of each item of a list the same."""
    for key in (
        list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    ):
        column = (*path_parts, key if isinstance(node, dict) else "*")
        yield node, key, column
        yield from places(node[key], column)


def spoilt_column(tree: Any, column: tuple[Any, ...], way: str) -> Any:
    """A copy of the tree in which all of a column is null, missing, of another kind, or huge."""
    new = copy.deepcopy(tree)
    for node, key, _ in [place for place in places(new) if place[2] == column][::-1]:
        match way, node[key]:
            case "missing", _:
                del node[key]
            case "null", _:
                node[key] = None
            case "huge", str(text):
                node[key] = (text or "A") * (MANY // max(1, len(text)))
            case "huge", list(items):
                node[key] = items * (MANY // 10 // max(1, len(items)))
            case "huge", dict(members):
                node[key] = members | dict.fromkeys(map(str, range(MANY // 100)))
            case "of another kind", np.ndarray(ndim=1 | 2 | 3) as rows:
                node[key] = [b"x"] * len(rows)
            case _, bool() | int() | float():
                node[key] = HUGE if way == "huge" else "x"
            case _:
                node[key] = 7
    return new


def edited(tree: Any, rng: random.Random, outside_folder: Path) -> Any:
    """A copy of the tree with one to three of its places, or columns, changed."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not (known_places := list(places(root))):
            break
        # Each place is as likely as all places near the root, where formats have what matters
        container, key, column = rng.choice(rng.choice([known_places, known_places[:12]]))
        match rng.choice(["wild", "wild", "wild", "delete", "twice", "rename", "order", "column"]):
            case "column":
                root = spoilt_column(root, column, rng.choice(COLUMN_WAYS))
            case "delete":
                del container[key]
            case "twice" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case "rename" if isinstance(container, dict):
                container[rng.choice([*TEXTS, *container])] = container.pop(key)
            case "order" if isinstance(container, list):
                container.reverse()
            case _:
                container[key] = wild(container[key], rng, outside_folder)
    if root:
        return root[0]
    return None


def wild(value: Any, rng: random.Random, outside_folder: Path) -> Any:
    """What no reader expects in a value's place, most often of the value's own kind."""
    texts = [
        *TEXTS,
        str(outside_folder / "secret.mp4"),
        "../../outside/secret.mp4",
        "data/../../../outside/secret.mp4",
    ]
    if isinstance(value, np.ndarray) and rng.random() < 0.8:
        return wild_numpy(value, rng, outside_folder)
    if isinstance(value, bytes) and rng.random() < 0.8:
        return rng.choice(
            [spoilt_bytes(value, rng), b"", b"\xff\xfe\0", b"\x89PNG\r\n\x1a\n" * 9, b"x" * 70_000]
        )
    if isinstance(value, str) and rng.random() < 0.6:
        return rng.choice(texts)
    # What is drawn is not to be changed by the next edit
    return copy.deepcopy(rng.choice([*VALUES, *texts, rng.randint(-3, 40), value]))


def wild_numpy(a: np.ndarray, rng: random.Random, outside_folder: Path) -> Any:
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
        h5py.ExternalLink(str(outside_folder / "secret.h5"), "/numbers"),
    ])  # fmt: skip


# What a file holds, by what reads it and what writes it again; what it cannot hold raises one of UNWRITABLE


def recoded(text: str, rng: random.Random) -> bytes:
    """A text with lists in lists where it says so, in UTF-8, or, seldom, as no reader expects
    it."""
    text = text.replace(json.dumps(DEEP), rng.choice(NESTED))
    encodings = [
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("e", "é").encode("latin-1", "replace"),
    ]
    encodings += [
        text.replace(old, new).encode() for old, new in (("e", "\0"), ("\n", "\r"), ("\n", ""))
    ]
    if rng.randrange(12) == 0:
        return rng.choice(encodings)
    return text.encode()


def parquet(tree: Any, rng: random.Random, data: bytes) -> bytes:
    """All columns have as many rows as the first one, in the type that they had if they can; one in
    another."""
    schema = pq.read_schema(io.BytesIO(data))
    columns = {
        name: cells if isinstance(cells, list) and cells else [cells]
        for name, cells in tree.items()
    }
    rows = len(next(iter(columns.values()))) * rng.choice([1, 1, 1, 1, 2, 0])
    arrays = {}
    changed_column = rng.choice([None, None, *columns])
    for name, cells in columns.items():
        values = [cells[k % len(cells)] for k in range(rows)]
        try:
            arrays[name] = pa.array(values, schema.field(name).type)
        except UNWRITABLE:
            arrays[name] = pa.array(values)
        if name == changed_column:
            arrays[name] = arrays[name].cast(rng.choice(TYPES))
    pq.write_table(pa.table(arrays), out := io.BytesIO())
    return out.getvalue()


def records(tree: Any, rng: random.Random, _: bytes) -> bytes:
    """Checksums are right, also of messages whose bytes are spoilt."""
    messages = [m if isinstance(m, bytes) else rlds.example(m) for m in tree]
    return parts.records(spoilt_bytes(m, rng) if rng.randrange(10) == 0 else m for m in messages)


def lines(tree: Any, *_: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in (tree if isinstance(tree, list) else [tree]))


def table(tree: Any, *_: Any) -> str:
    return parts.csv_text(tree).encode("utf-8", "replace").decode()


# What spoilt trees need another writer for
WRITERS: dict[str, Callable[..., str | bytes]] = {
    "*.jsonl": lines, "*.csv": table, "*.parquet": parquet, "*.tfrecord*": records
}  # fmt: skip
UNWRITABLE = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, OSError, StopIteration,
    pa.ArrowException, DataError,
)  # fmt: skip


AS_IT_IS: Any = SimpleNamespace(
    choice=lambda found: found[0], randrange=lambda n: 1
)  # in an rng's place


def formats(name: str) -> list[tuple[Callable[[bytes], Any], Callable[..., bytes]]]:
    def written(pattern: str, tree: Any, rng: random.Random, data: bytes) -> bytes:
        if pattern in WRITERS:
            content = WRITERS[pattern](tree, rng, data)
        else:
            content = parts.FORMATS[pattern][1](tree)
        if isinstance(content, str):
            return recoded(content, rng)
        return content

    return [
        (read, partial(written, pattern))
        for pattern, (read, _) in parts.FORMATS.items()
        if fnmatch(name, pattern) and pattern != "*.tar"
    ]


def spoilt_content(name: str, data: bytes, rng: random.Random, outside_folder: Path) -> bytes:
    """A file's bytes with other content in the same format; by its bytes where it has none that is
    known."""
    for read, write in formats(name) * 50:  # drawn again where it cannot be written
        with suppress(*UNWRITABLE):
            if (changed := write(edited(read(data), rng, outside_folder), rng, data)) != data:
                return changed
    return spoilt_bytes(data, rng)


def spoilt_columns(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes with each column in turn null, missing and of another kind, beside what was
    done."""
    for read, write in formats(name):
        tree = [read(data)]
        for column, way in product(
            dict.fromkeys(column for *_, column in places(tree)), COLUMN_WAYS
        ):
            with suppress(*UNWRITABLE):
                yield f"{column} {way}", write(spoilt_column(tree, column, way)[0], AS_IT_IS, data)


TREE = ("gone", "duplicated", "renamed", "folder", "fifo", "linked")
WAYS = ("bytes", "bytes", "swapped", "sparse", *TREE, *["content"] * 12)


def mutate(root: Path, outside_folder: Path, base: str, number: int) -> dict[str, str]:
    """Spoil a fresh copy of a base in one to three ways, number `number` of WAYS first; what was
    done by way.

    `outside_folder` is a folder beside the dataset that nobody may read or write.
    """
    rng = random.Random(f"{base} {number}")
    changes_by_way = dict[str, str]()
    for way in [WAYS[number], *rng.choices(WAYS, k=rng.choice([0, 0, 1, 2]))]:
        # Links out, FIFOs and huge files are not to be read again here
        all_files = [p for p in sorted(root.rglob("*")) if not p.is_symlink() and p.is_file()]
        paths = [
            p
            for p in all_files
            if p.stat().st_size < SPARSE_BYTES and (way != "content" or formats(p.name))
        ]
        if paths:  # another way may have taken the last one away
            kind = rng.choice(
                sorted({re.sub(r"\d+", "", p.suffix or p.name) for p in paths})
            )  # each is as likely
            path = rng.choice([p for p in paths if re.sub(r"\d+", "", p.suffix or p.name) == kind])
            changes_by_way[way] = f"{changes_by_way.get(way, '')} {path.relative_to(root)}".strip()
            changes_by_way[way] += spoilt(path, way, paths, root, outside_folder, rng)
    assert changes_by_way
    return changes_by_way


def spoilt(
    path: Path, way: str, paths: list[Path], root: Path, outside_folder: Path, rng: random.Random
) -> str:
    """Change one of some files, where it lies or what it is; where a link leads to."""
    match way:
        case "sparse" if path.suffix != ".mkv":  # which FFmpeg searches to its end
            os.truncate(path, SPARSE_BYTES)
        case "swapped":
            path.write_bytes(rng.choice([rng.choice(paths).read_bytes(), LFS_POINTER.encode()]))
        case "content":
            path.write_bytes(spoilt_content(path.name, path.read_bytes(), rng, outside_folder))
        case "duplicated":  # beside itself under a name as others have it, or under a wild one
            name = re.sub(r"\d+", lambda m: str(int(m[0][-3:]) + 1).zfill(len(m[0])), path.name)
            if name == path.name or rng.random() < 0.4:
                name = f"{rng.choice(NAMES)[:200]}{path.suffix}"
            shutil.copyfile(path, path.with_name(name))
        case "renamed":  # the file, or a folder above it
            path = root / rng.choice([path, *path.relative_to(root).parents][:-1])
            path.rename(path.with_name(rng.choice(NAMES) + rng.choice([path.suffix, ""])))
        case "linked":  # out, alone or with its folder; to itself, or to a device
            path = path.parent if path.parent != root and rng.random() < 0.25 else path
            secret = path.rename(
                outside_folder / f"{root.name} {rng.randrange(10**9)}{path.suffix}"
            )
            ways = [str(secret), os.path.relpath(secret, path.parent)]
            ways += (
                []
                if secret.is_dir()
                else [path.name, os.path.relpath(root, path.parent), ".", "/dev/null"]
            )
            path.symlink_to(target := rng.choice(ways))
            return f" to {target}"
        case "gone" | "folder" | "fifo":
            path.unlink()
            if way != "gone":
                {"folder": Path.mkdir, "fifo": os.mkfifo}[way](
                    path
                )  # nobody writes into it: it would be waited for
        case _:
            path.write_bytes(spoilt_bytes(path.read_bytes(), rng))
    return ""


def write_outside(folder: Path) -> None:
    """Files that a dataset must never make anybody read, by the names that it says; links lead to
    what was its own."""
    files = {"secret.mp4": range(6), "secret.json": {}, "secret.h5": {"numbers": np.zeros((6, 7))}}
    parts.put(folder, files)
