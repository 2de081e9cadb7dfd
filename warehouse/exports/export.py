"""How every export runs: open what is asked for, write the parts that are not there yet, then the manifest.

An export is whole when its `manifest.json` is there. While it is written, the folder `manifest.partial` has a file for
each part that is finished: its files, and the facts that the manifest and other parts need of it. An export that broke
off keeps those parts and deletes the rest, so it comes to the bytes of one that ran through. Processes may write
different parts side by side.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.errors import UserError
from core.files import sha256_file, write_file
from warehouse.exports.options import FILE_BYTES, KindSettings, Selection
from warehouse.exports.selection import FORMAT, ExportedEpisode, Selected, counted, select
from warehouse.lake import Lake, content_key
from warehouse.releases.contents import hub_licence

MANIFEST = "manifest.json"
PARTIAL = "manifest.partial"
HEAD = "export.json"  # in PARTIAL: which export this is
PLACE = "/path/to"  # the export's folder, in lines that use it
OURS = "proccorpus"  # a file says under it, in JSON or beside its columns, which export it is

ChunkKey = tuple[str, int]  # dataset, chunk
Write = Callable[[Any], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Exported:
    """What an export is; `again`: it was there already, whole, and nothing was done. `samples`: None where none are.

    `use`: lines that say how others use it, with commands.
    """

    kind: str
    out: str
    episodes: int
    frames: int
    files: int
    bytes: int
    again: bool
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    samples: int | None = None
    use: tuple[str, ...] = ()


class ExportFolder:
    """The folder of one export, new or with parts that are finished.

    `manifest`: of an export that is whole, else empty. `made`: parts that this process wrote.
    """

    def __init__(self, root: Path, kind: str, identity: str) -> None:
        self.root = root
        self.kind = kind
        self.identity = identity
        self.manifest: dict[str, Any] = {}
        self.made = 0
        self._parts: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []  # of the part that is being written

    def path(self, name: str) -> Path:
        """Where a file of the part that is being written goes; its folder is made."""
        self._names.append(name)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def part(
        self, name: str, write: Callable[..., Mapping[str, Any] | None], *arguments: Any
    ) -> dict[str, Any]:
        """The facts of a part (JSON). One that is not there is made by `write`, which is given `arguments`; its files
        are those that `write` asks the path of."""
        if name not in self._parts:
            self._names = []
            facts = write(*arguments) or {}
            files = [self._described(file) for file in sorted(set(self._names))]
            part = {"part": name, "files": files, "facts": facts}
            text = json.dumps(part)
            state = self.root / PARTIAL / f"{content_key(name)[:32]}.json"
            write_file(state, text.encode(), synced=False)
            self._parts[name] = json.loads(text)
            self.made += 1
        return self._parts[name]["facts"]

    def _described(self, name: str) -> dict[str, Any]:
        path = self.root / name
        return {"path": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}

    def write(self, name: str, data: str) -> None:
        """A part of one text file."""
        self.part(name, lambda: write_file(self.path(name), data.encode()))

    def write_json(self, name: str, value: Any, indent: int = 2) -> None:
        """A part of one JSON file."""
        self.write(name, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Any]) -> None:
        """A part of one file of JSON lines."""
        self.write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def finish(
        self, selected: Selected, options: KindSettings, facts: Mapping[str, Any]
    ) -> Exported:
        """Write the manifest; from then on the export is whole. `facts`: more for the manifest, such as notes."""
        files = chain.from_iterable(part["files"] for part in self._parts.values())
        # Sorted: the parts may have been finished in any order, and the manifest has to have equal bytes
        self.manifest = {
            "format": FORMAT,
            "export": self.kind,
            "identity": self.identity,
            "options": options.stated(),
            **selected.facts(),
            "episodes": len(selected.episodes),
            "frames": sum(e.num_frames for e in selected.episodes),
            **facts,
            "files": sorted(files, key=lambda f: f["path"]),
        }
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        write_file(self.root / MANIFEST, text.encode() + b"\n")
        shutil.rmtree(self.root / PARTIAL)
        return self.exported(is_repeated=False)

    def exported(self, *, is_repeated: bool) -> Exported:
        """What the whole export is, by its manifest."""
        m = self.manifest
        return Exported(
            kind=self.kind,
            out=str(self.root),
            episodes=m["episodes"],
            frames=m["frames"],
            files=len(m["files"]) + 1,  # with the manifest
            bytes=sum(f["bytes"] for f in m["files"]),
            again=is_repeated,
            left_out=tuple(m["left_out"]),
            notes=tuple(m.get("notes", ())),
            samples=m.get("samples"),
            use=tuple(line.replace(PLACE, str(self.root)) for line in m.get("use", ())),
        )

    def open(self, overwrite: bool = False) -> "ExportFolder":
        """Prepare the folder: new, empty, or with the same export, whole or broken off. Raises UserError.

        `overwrite` deletes an export that is there, also the same one when it is whole; a folder with things that are
        no export is never touched.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"{self.root} is a file: an export goes to a folder")
        stored = self._stored()
        is_whole = "files" in stored
        is_same = stored.get("identity") == self.identity
        if is_same and is_whole and not overwrite:
            for file in stored["files"]:
                if not _has(self.root, file):
                    path = self.root / file["path"]
                    raise UserError(
                        f"{path} is missing or has changed since the export: --overwrite makes it anew"
                    )
            self.manifest = stored
            shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
            return self
        if not stored and self.root.exists() and any(self.root.iterdir()):
            raise UserError(
                f"{self.root} is not empty, and what it holds is no export: choose another folder"
            )
        if stored and not is_same and not overwrite:
            raise UserError(
                f"{self.root} holds another export ({stored['export']}): choose another folder, or --overwrite it"
            )
        self._delete_all_but({*self._read_parts()} if is_same and not is_whole else set())
        head = {"format": FORMAT, "export": self.kind, "identity": self.identity}
        write_file(self.root / PARTIAL / HEAD, json.dumps(head).encode())
        return self

    def join(self) -> "ExportFolder":
        """Take part in an export that `open` began, beside others that write other parts. Raises
        UserError.

        What a kill left half-written stays, until it is written again or the folder is opened.
        """
        stored = self._stored()
        if stored.get("identity") != self.identity:
            raise UserError(
                f"{self.root} does not hold the export that this is a part of: begin it again"
            )
        self.manifest = stored if "files" in stored else {}
        self._read_parts()
        return self

    def _stored(self) -> dict[str, Any]:
        """The manifest of a whole export, else the head of one that was begun; empty where there is neither."""
        stored = _read(self.root / MANIFEST) or _read(self.root / PARTIAL / HEAD)
        return stored if {"export", "identity"} <= stored.keys() else {}

    def _read_parts(self) -> list[Path]:
        """Take over the parts that are finished; returns what the folder is to have: their files,
        and their own."""
        read_files = [self.root / PARTIAL / HEAD]
        for path in (self.root / PARTIAL).glob("*.json"):
            part = _read(path)
            if "part" in part and all(_has(self.root, file) for file in part["files"]):
                self._parts[part["part"]] = part
                read_files += [path, *(self.root / file["path"] for file in part["files"])]
        return read_files

    def _delete_all_but(self, kept_paths: set[Path]) -> None:
        """Delete other files, and folders that are empty then."""
        # backwards, so that a folder comes after what is in it
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_symlink() or not path.is_dir():
                if path not in kept_paths:
                    path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()


def _has(root: Path, file: Mapping[str, Any]) -> bool:
    path = root / file["path"]
    return path.is_file() and path.stat().st_size == file["bytes"]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if isinstance(facts, dict):
        return facts
    return {}


class Export:
    """One export of a kind: what is selected, and the one iterator over it. A kind says by its own class what it takes,
    and what it writes.

    What cannot be exported is refused when it is made, before anything is written. `only_labelled`: episodes without a
    label are left out unless they are named.
    """

    folder: ExportFolder
    only_labelled: ClassVar[bool] = False

    def __init__(self, kind: str, lake: Lake, selection: Selection, options: Any) -> None:
        self.kind = kind
        self.now = lake
        self.options = options
        self.selected = self.select(lake, selection)

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = select(lake, selection)
        return selected.labelled() if self.only_labelled else selected

    @property
    def lake(self) -> Lake:
        """As the selection's snapshot has it; `now` is the lake as it is by now."""
        return self.selected.lake

    @property
    def identity(self) -> str:
        """What the bytes depend on."""
        return self.selected.identity(self.kind, self.options)

    def episodes(self) -> Iterator[ExportedEpisode]:
        """Every selected episode in order; its label, rows and pictures are read when they are asked for."""
        return self.selected.exported(self.selected.episodes)

    def labelled(self) -> Iterator[ExportedEpisode]:
        return (x for x in self.episodes() if x.label is not None)

    def notes(self, labelled: int | None = None) -> list[str]:
        """Which labels and episodes are left out, in sentences. `labelled`: episodes that were written, where only
        those with a label are; raises UserError where none has one."""
        number = len(self.selected.episodes)
        if labelled == 0:
            raise UserError(
                f"nothing to export: none of the {number} episodes selected has a label"
            )
        notes = self.selected.label_notes()
        without = 0 if labelled is None else number - labelled
        return notes + counted(without, "episodes without a label are left out")

    def chunk_parts(self) -> Iterator[tuple[ChunkKey, str, Write, Any]]:
        """The parts that may be written side by side: their (dataset, chunk), name, what writes them, and what of; none
        where frames are counted through the whole."""
        return iter(())

    def write_rest(self) -> Mapping[str, Any]:
        """The other parts; returns more facts for the manifest, such as `notes`."""
        raise NotImplementedError

    def _write_parts(self, chunk: ChunkKey | None = None) -> None:
        """Those of a chunk; None: of all."""
        for of_chunk, name, write, argument in self.chunk_parts():
            if chunk in (None, of_chunk):
                self.folder.part(name, write, argument)

    def export(self, out: Path, overwrite: bool = False) -> Exported:
        """Write all that is not there yet. Raises UserError."""
        self.folder = ExportFolder(out, self.kind, self.identity).open(overwrite)
        if self.folder.manifest:
            return self.folder.exported(is_repeated=True)
        self._write_parts()
        return self.folder.finish(self.selected, self.options, self.write_rest())

    def chunks(self) -> list[ChunkKey]:
        return sorted({chunk for chunk, *_ in self.chunk_parts()})

    def begin(self, out: Path, overwrite: bool = False) -> list[ChunkKey]:
        """Prepare the folder; returns the chunks that `export_chunk` may write, in any order."""
        chunks = self.chunks()
        if chunks:
            ExportFolder(out, self.kind, self.identity).open(overwrite)
        return chunks

    def export_chunk(self, out: Path, chunk: ChunkKey) -> int:
        """Write one chunk's parts, beside processes that write others; returns how many were missing."""
        self.folder = ExportFolder(out, self.kind, self.identity).join()
        if not self.folder.manifest:
            self._write_parts(chunk)
        return self.folder.made

    def finish(self, out: Path, overwrite: bool = False) -> Exported:
        """Write what `begin` and `export_chunk` left. `begin` emptied the folder of what is written by chunk: to
        overwrite it now would delete the chunks."""
        return self.export(out, overwrite and not self.chunks())


class FileExport(Export):
    """An export that is one file, which says itself what it was made of."""

    example = ""  # a name for such a file

    def identity_in(self, out: Path) -> str | None:
        """Of the export in a file; None where it has none."""
        raise NotImplementedError

    def write_file(self, out: Path) -> None:
        raise NotImplementedError

    def counts(self, out: Path) -> tuple[int, int, list[str]]:
        """(episodes, frames, notes) of the file."""
        raise NotImplementedError

    def export(self, out: Path, overwrite: bool = False) -> Exported:
        """Raises UserError for a folder, and for another file, which may hold a person's work, unless it is an export
        that `overwrite` replaces."""
        if out.is_dir():
            raise UserError(f"{out} is a folder: give a file, such as {out / self.example}")
        is_repeated = out.exists() and not overwrite
        stored_identity = self.identity_in(out) if out.exists() else self.identity
        if stored_identity is None:
            raise UserError(
                f"{out} is there already, and is no export of ours: choose another file"
            )
        if stored_identity != self.identity and not overwrite:
            raise UserError(f"{out} holds another export: choose another file, or --overwrite it")
        if not is_repeated:
            self.write_file(out)
        episodes, frames, notes = self.counts(out)
        return Exported(
            kind=self.kind,
            out=str(out),
            episodes=episodes,
            frames=frames,
            files=1,
            bytes=out.stat().st_size,
            again=is_repeated,
            left_out=self.selected.left_out,
            notes=tuple(notes),
        )


README = "README.md"
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GROUP_BYTES = 32 << 20  # of distinct pictures, in a row group
GROUP_ROWS = 1000
SHOWN_BYTES = 128 << 20  # of pictures as often as they are shown: what a row group takes in memory
# The dictionary is never given up for plain pages
WRITTEN: dict[str, Any] = {
    "compression": "zstd",
    "dictionary_pagesize_limit": 1 << 30,
    "write_statistics": False,
}


# By name the type of a column, and its value as a function of what a row is of
Columns = dict[str, tuple[pa.DataType, Callable[[Any], Any]]]


def schema_of(columns: Columns) -> pa.Schema:
    return pa.schema([(name, type_) for name, (type_, _) in columns.items()])


def row_of(columns: Columns, item: Any) -> dict[str, Any]:
    return {name: value(item) for name, (_, value) in columns.items()}


def _feature(type: pa.DataType) -> Any:
    if type == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(type):
        return {f.name: _feature(f.type) for f in type}
    if pa.types.is_list(type):
        item = _feature(type.value_type)
        # `Sequence` is read by old and new versions; but of a struct it would make a struct of lists
        if "_type" in item:
            return {"_type": "Sequence", "feature": item}
        return [item]
    name = {pa.float32(): "float32", pa.float64(): "float64"}.get(type, str(type))
    return {"_type": "Value", "dtype": name}


def write_rows(
    folder: ExportFolder,
    stem: str,
    columns: Columns,
    groups: Iterable[Sequence[Any]],
    *,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write a row for each item, given an episode's at a time, to `<stem>-000.parquet` and so on.

    Equal rows, equal bytes. In memory: a row group, which ends with the episode that fills it, or after GROUP_ROWS
    rows, or where it shows SHOWN_BYTES.
    """
    plain_schema = schema_of(columns)
    # What `datasets` calls features
    features = {field.name: _feature(field.type) for field in plain_schema}
    about = json.dumps({"info": {"features": features}})
    schema = plain_schema.with_metadata({"huggingface": about})
    of_item = partial(row_of, columns)
    row_groups = _row_groups([*map(of_item, group)] for group in groups)
    for number, group in enumerate(row_groups):
        path = folder.path(f"{stem}-{number:03d}.parquet")
        with path.open("wb") as file, pq.ParquetWriter(file, schema, **WRITTEN) as writer:
            # Once the file is large enough the next row group begins another
            while group:
                writer.write_table(
                    pa.Table.from_pylist(group, schema=schema), row_group_size=len(group)
                )
                group = next(row_groups, []) if file.tell() < file_bytes else []


def _row_groups(groups: Iterable[list[dict]]) -> Iterator[list[dict]]:
    """The rows of some episodes, cut into row groups."""
    rows: list[dict] = []
    distinct: dict[bytes, int] = {}
    shown_bytes = 0
    for group in groups:
        for row in group:
            rows.append(row)
            pictures = [picture["bytes"] for picture in row.get("images") or ()]
            # A picture counts once for the bytes of the file, but each time for the memory that rows take
            distinct |= {picture: len(picture) for picture in pictures}
            shown_bytes += sum(map(len, pictures))
            is_filled = row is group[-1] and sum(distinct.values()) >= GROUP_BYTES
            # A group may end inside an episode only to keep the memory it takes in bounds
            if is_filled or len(rows) >= GROUP_ROWS or shown_bytes >= SHOWN_BYTES:
                yield rows
                rows = []
                distinct = {}
                shown_bytes = 0
    if rows:
        yield rows


# Cards


def card_head(
    selected: Selected, files: Mapping[str, Mapping[str, str]], pretty_name: str | None = None
) -> str:
    """The head of a card, where `load_dataset` and the hub look. `files`: of each configuration, the first of which is
    the default, the pattern of the files of each split."""
    licence, names = hub_licence([selected.licences.get(dataset) for dataset in selected.datasets])
    configs: list[dict[str, Any]] = []
    for name, of_splits in files.items():
        default = {} if configs else {"default": True}
        data_files = [{"split": split, "path": path} for split, path in of_splits.items()]
        configs.append({"config_name": name, **default, "data_files": data_files})
    head = {
        "license": licence,
        "license_name": names,
        "pretty_name": pretty_name,
        "task_categories": ["robotics"],
        "configs": configs,
    }
    head_fields = {name: value for name, value in head.items() if value is not None}
    return f"---\n{yaml.safe_dump(head_fields, sort_keys=False).rstrip()}\n---\n"
