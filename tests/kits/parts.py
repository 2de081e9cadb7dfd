"""One writer of a dataset's files: a tree of parts in the format that the file's name says, read
and changed as well.

A tree is what JSON holds; rows of lines and of CSV; columns of Parquet; arrays of HDF5 by path, and
attributes by `path@name`; one array; members of a tar by name; messages of TFRecords; pictures of a
video, or the numbers in them.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.formats import rlds_files
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import edit_parquet, write_video


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    table = csv.DictWriter(out := io.StringIO(), dict.fromkeys(chain.from_iterable(rows)))
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()


def hdf5_tree(data: bytes) -> dict[str, Any]:
    with h5py.File(io.BytesIO(data)) as file:
        nodes: dict[str, Any] = {"/": file}
        file.visititems(nodes.__setitem__)
        arrays = {path: node[()] for path, node in nodes.items() if isinstance(node, h5py.Dataset)}
        for path, node in nodes.items():
            arrays |= {f"{path}@{name}": node.attrs[name] for name in node.attrs}
        return arrays


def put_hdf5(file: h5py.File, parts: Mapping[str, Any]) -> None:
    """Links are as h5py has them; a dict gives options of a dataset; None takes a part out."""
    for key, value in parts.items():
        path, is_attribute, name = key.partition("@")
        if is_attribute and value is not None:
            (file[path] if path in file else file.create_group(path)).attrs[name] = value
        if is_attribute:
            continue
        if path in file or file.get(path, getlink=True):
            del file[path]
        if isinstance(value, dict):
            file.create_dataset(path, **value)
        elif isinstance(value, h5py.VirtualLayout):
            file.create_virtual_dataset(path, value)
        elif value is not None:
            file[path] = value


def hdf5(tree: Mapping[str, Any]) -> bytes:
    with h5py.File(out := io.BytesIO(), "w") as file:
        put_hdf5(file, tree)
    return out.getvalue()


def parquet(columns: Mapping[str, Any]) -> bytes:
    pq.write_table(pa.table(dict(columns)), out := io.BytesIO())
    return out.getvalue()


def records_tree(data: bytes) -> list[dict[str, Any]]:
    def values(v: rlds_files.Values) -> Any:
        if v.kind == "bytes":
            return [data[a:b] for a, b in rlds_files.byte_spans(data, v)]
        return rlds_files.numbers(data, v)

    read = [rlds_files.example(data, record) for record in rlds_files.records(data)]
    return [{name: values(v) for name, v in features.items()} for features in read]


def records(messages: Iterable[bytes | Mapping[str, Any]]) -> bytes:
    return b"".join(rlds.record(m if isinstance(m, bytes) else rlds.example(m)) for m in messages)


def npy_tree(data: bytes) -> Any:
    array = np.load(io.BytesIO(data), allow_pickle=True)
    return array.tolist() if array.dtype == object else array  # what was pickled


def npy(value: Any) -> bytes:
    np.save(out := io.BytesIO(), value, allow_pickle=True)
    if isinstance(value, bytes):
        return value
    return out.getvalue()


def tar_tree(data: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            content = archive.extractfile(info)
            if content is not None:
                members[info.name] = content.read()
    return members


def tar(members: Mapping[str, bytes] | Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    """Contents by name; or pairs, of which a name may stand there twice, or be no file's."""
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in pairs:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


type Read = Callable[[bytes], Any]
type Write = Callable[[Any], str | bytes]
JSON: tuple[Read, Write] = (json.loads, json.dumps)
FORMATS: dict[str, tuple[Read, Write]] = {
    "*.json": JSON,
    ".z*": JSON,
    "*.jsonl": (
        lambda data: [json.loads(line) for line in data.splitlines() if line.strip()],
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    ),
    "*.h*5": (hdf5_tree, hdf5),
    "*.csv": (lambda data: list(csv.DictReader(io.StringIO(data.decode()))), csv_text),
    "*.parquet": (
        lambda data: pq.read_table(io.BytesIO(data)).to_pydict(),
        parquet,
    ),
    "*.tfrecord*": (records_tree, records),
    "*.npy": (npy_tree, npy),
    "*.tar": (tar_tree, tar),
}


def format_of(name: str) -> tuple[Read, Write]:
    """What reads and writes files of a name."""
    return next(pair for pattern, pair in FORMATS.items() if fnmatch(name, pattern))


def put(root: Path, files: Mapping[str, Any], fps: int = 10) -> Path:
    """Write files by their path below a folder; bytes and texts as they are."""
    for name, tree in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".mp4", ".mkv"):
            write_video(path, tree, fps=fps)
            continue
        if isinstance(tree, Mapping) and fnmatch(path.name, "*.h*5"):
            with h5py.File(path, "w") as file:
                put_hdf5(file, tree)
            continue
        content = tree
        if not isinstance(tree, str | bytes):
            content = format_of(path.name)[1](tree)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
    return root


def change(path: Path, parts: Mapping[str, Any] | Callable[[Any], Any]) -> None:
    """Put parts into a file: into each row where it has rows. Or what a function makes of its
    tree."""
    if fnmatch(path.name, "*.h*5") and isinstance(parts, Mapping):
        with h5py.File(path, "r+") as file:  # what is not a value stays, such as a link
            put_hdf5(file, parts)
    elif path.suffix == ".parquet" and isinstance(parts, Mapping):
        edit_parquet(path, **parts)  # so do the types of other columns
    else:
        tree = format_of(path.name)[0](path.read_bytes())
        if not isinstance(parts, Mapping):
            tree = parts(tree)
        elif isinstance(tree, list):
            tree = [row | parts for row in tree]
        else:
            tree = tree | parts
        put(path.parent, {path.name: tree})
