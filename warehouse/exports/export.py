"""How every export runs: open what is asked for, write the parts that are not there yet, then the manifest.

An export is whole when its `manifest.json` is there. While it is written, the folder `manifest.partial` has a file for
each part that is finished: its files, and the facts that the manifest and other parts need of it. An export that broke
off keeps those parts and deletes the rest, so it comes to the bytes of one that ran through. Processes may write
different parts side by side.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from core.domain.episode import Episode
from core.domain.label import Label
from core.errors import UserError
from core.files import sha256_file, write_file
from warehouse.exports.options import KindOptions, Selection
from warehouse.exports.selection import FORMAT, Selected, SourceReader, each_label, select
from warehouse.lake import Lake, content_key

MANIFEST = "manifest.json"
PARTIAL = "manifest.partial"
HEAD = "export.json"  # in PARTIAL: which export this is
PLACE = "/path/to"  # the export's folder, in lines that use it


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
            described = [
                {
                    "path": file,
                    "bytes": (self.root / file).stat().st_size,
                    "sha256": sha256_file(self.root / file),
                }
                for file in sorted(set(self._names))
            ]
            part = {"part": name, "files": described, "facts": facts}
            text = json.dumps(part)
            write_file(
                self.root / PARTIAL / f"{content_key(name)[:32]}.json", text.encode(), synced=False
            )
            self._parts[name] = json.loads(text)
            self.made += 1
        return self._parts[name]["facts"]

    def write(self, name: str, data: str) -> None:
        """A part of one text file."""
        self.part(name, lambda: write_file(self.path(name), data.encode()))

    def finish(
        self, selected: Selected, options: KindOptions, facts: Mapping[str, Any]
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
        stored_manifest = self._there()
        is_same = stored_manifest.get("identity") == self.identity
        is_whole = "files" in stored_manifest
        if is_same and is_whole and not overwrite:
            for file in stored_manifest["files"]:
                if not _has(self.root, file):
                    path = self.root / file["path"]
                    raise UserError(
                        f"{path} is missing or has changed since the export: --overwrite makes it anew"
                    )
            self.manifest = stored_manifest
            shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
        elif is_same and not is_whole:
            self._delete_all_but(set(self._read_parts()))
        else:
            self._check_may_go(stored_manifest, overwrite)
            self._delete_all_but(set())
            head = {"format": FORMAT, "export": self.kind, "identity": self.identity}
            write_file(self.root / PARTIAL / HEAD, json.dumps(head).encode())
        return self

    def join(self) -> "ExportFolder":
        """Take part in an export that `open` began, beside others that write other parts. Raises
        UserError.

        What a kill left half-written stays, until it is written again or the folder is opened.
        """
        stored_manifest = self._there()
        if stored_manifest.get("identity") != self.identity:
            raise UserError(
                f"{self.root} does not hold the export that this is a part of: begin it again"
            )
        self.manifest = stored_manifest if "files" in stored_manifest else {}
        self._read_parts()
        return self

    def _there(self) -> dict[str, Any]:
        """The manifest of a whole export, else the head of one that was begun; empty where there is neither."""
        stored_manifest = _read(self.root / MANIFEST) or _read(self.root / PARTIAL / HEAD)
        if {"export", "identity"} <= stored_manifest.keys():
            return stored_manifest
        return {}

    def _check_may_go(self, stored_manifest: Mapping[str, Any], overwrite: bool) -> None:
        if not stored_manifest and self.root.exists() and any(self.root.iterdir()):
            raise UserError(
                f"{self.root} is not empty, and what it holds is no export: choose another folder"
            )
        if stored_manifest and not overwrite:
            other_export = stored_manifest.get("export")
            raise UserError(
                f"{self.root} holds another export ({other_export}): choose another folder, or --overwrite it"
            )

    def _read_parts(self) -> list[Path]:
        """Take over the parts that are finished; returns what the folder is to have: their files, and their own."""
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


def counted(count: int, text: str) -> list[str]:
    """A note on how many of something there are; none where there are none."""
    if count:
        return [f"{count} {text}"]
    return []


class Export:
    """One export of a kind. A kind says by its own class what it takes, and what it writes.

    What cannot be exported is refused when it is made, before anything is written.
    """

    folder: ExportFolder

    def __init__(self, kind: str, lake: Lake, selection: Selection, options: Any) -> None:
        self.kind = kind
        self.now = lake
        self.options = options
        self.selected = self.select(lake, selection)

    def select(self, lake: Lake, selection: Selection) -> Selected:
        return select(lake, selection)

    @property
    def lake(self) -> Lake:
        """As the selection's snapshot has it; `now` is the lake as it is by now."""
        return self.selected.lake

    @cached_property
    def readers(self) -> dict[str, SourceReader]:
        """By dataset."""
        return {dataset: SourceReader(self.selected, dataset) for dataset in self.selected.datasets}

    @property
    def identity(self) -> str:
        """What the bytes depend on."""
        return self.selected.identity(self.kind, self.options)

    def chunks(self) -> list[tuple[str, int]]:
        """The (dataset, chunk) that may be written side by side; none where frames are counted through the whole."""
        return []

    def write_chunk(self, chunk: tuple[str, int]) -> None:
        """The parts that belong to a chunk alone."""

    def write_rest(self) -> Mapping[str, Any]:
        """The other parts; returns more facts for the manifest, such as `notes`."""
        raise NotImplementedError

    def export(self, out: Path, overwrite: bool = False) -> Exported:
        """Write all that is not there yet. Raises UserError."""
        self.folder = ExportFolder(out, self.kind, self.identity).open(overwrite)
        if self.folder.manifest:
            return self.folder.exported(is_repeated=True)
        for chunk in self.chunks():
            self.write_chunk(chunk)
        return self.folder.finish(self.selected, self.options, self.write_rest())

    def begin(self, out: Path, overwrite: bool = False) -> list[tuple[str, int]]:
        """Prepare the folder; returns the chunks that `export_chunk` may write, in any order."""
        chunks = self.chunks()
        if chunks:
            ExportFolder(out, self.kind, self.identity).open(overwrite)
        return chunks

    def export_chunk(self, out: Path, chunk: tuple[str, int]) -> int:
        """Write one chunk's parts, beside processes that write others; returns how many were missing."""
        self.folder = ExportFolder(out, self.kind, self.identity).join()
        if not self.folder.manifest:
            self.write_chunk(chunk)
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


class LabelExport(Export):
    """An export of the active labels, or of those of the label run that the options name."""

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        if self.options.label_run is not None:
            rows = selected.lake.rows(
                "SELECT l.label_run, count(*) FROM episode_labels l JOIN selected USING (dataset, episode_index) "
                "GROUP BY 1 ORDER BY 1"
            )
            if self.options.label_run not in dict(rows):
                available_runs = (
                    ", ".join(f"{name} ({count} episodes)" for name, count in rows) or "no labels"
                )
                raise UserError(
                    f"no episode selected has a label of the run {self.options.label_run!r}; there is {available_runs}"
                )
        return selected

    def labels(self) -> Iterator[tuple[Episode, Label | None]]:
        return each_label(self.selected, self.options.label_run)

    def labelled(self) -> Iterator[tuple[Episode, Label]]:
        yield from ((e, label) for e, label in self.labels() if label is not None)

    def no_labels(self) -> UserError:
        number = len(self.selected.episodes)
        return UserError(f"nothing to export: none of the {number} episodes selected has a label")

    def notes(self, labelled: int | None = None) -> list[str]:
        """Which labels and episodes are left out, in sentences. `labelled`: episodes that were written, where only
        those with a label are; raises UserError where none has one."""
        if labelled == 0:
            raise self.no_labels()
        notes = self.selected.label_notes() if self.options.label_run is None else []
        without = 0 if labelled is None else len(self.selected.episodes) - labelled
        return notes + counted(without, "episodes without a label are left out")
