"""The folder of an export: written part by part, whole when its `manifest.json` is there.

While it is written, the folder `manifest.partial` has a file for each part that is finished: its files, and the facts
that the manifest and other parts need of it. An export that broke off keeps those parts and deletes the rest, so it
comes to the bytes of one that ran through. Processes may write different parts side by side.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import sha256_file, write_file
from warehouse.exports.options import KindOptions
from warehouse.exports.selection import FORMAT, Selected
from warehouse.lake import content_key

MANIFEST, PARTIAL = "manifest.json", "manifest.partial"
HEAD = "export.json"  # in PARTIAL: which export this is


@dataclass(frozen=True)
class Exported:
    """What an export is; `again`: it was there already, whole, and nothing was done. `samples`: None where none are."""

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


class ExportFolder:
    """The folder of one export, new or with parts that are finished.

    `manifest`: of an export that is whole, else empty. `made`: parts that this process wrote.
    """

    def __init__(self, root: Path, kind: str, identity: str) -> None:
        self.root, self.kind, self.identity = root, kind, identity
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

    def part(self, name: str, write: Callable[..., Mapping[str, Any] | None], *of: Any) -> dict[str, Any]:
        """The facts of a part (JSON), which `write` makes `of` something where it is not there: its files are those
        that it asks the path of."""
        if name not in self._parts:
            self._names = []
            facts, files = write(*of) or {}, sorted(set(self._names))
            described = [
                {"path": file, "bytes": (self.root / file).stat().st_size, "sha256": sha256_file(self.root / file)}
                for file in files
            ]
            part = {"part": name, "files": described, "facts": facts}
            text = json.dumps(part)
            write_file(self.root / PARTIAL / f"{content_key(name)[:32]}.json", text.encode(), synced=False)
            self._parts[name] = json.loads(text)
            self.made += 1
        return self._parts[name]["facts"]

    def write(self, name: str, data: str) -> None:
        """A part of one text file."""
        self.part(name, lambda: write_file(self.path(name), data.encode()))

    def finish(self, selected: Selected, options: KindOptions, facts: Mapping[str, Any]) -> Exported:
        """Write the manifest; from then on the export is whole. `facts`: more for the manifest, such as notes."""
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
            "files": sorted((f for p in self._parts.values() for f in p["files"]), key=lambda f: f["path"]),
        }
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        write_file(self.root / MANIFEST, text.encode() + b"\n")
        shutil.rmtree(self.root / PARTIAL)
        return self.exported(again=False)

    def exported(self, *, again: bool) -> Exported:
        """What the whole export is, by its manifest."""
        m = self.manifest
        size, left_out, notes = sum(f["bytes"] for f in m["files"]), tuple(m["left_out"]), tuple(m.get("notes", ()))
        counts = m["episodes"], m["frames"], len(m["files"]) + 1  # with the manifest
        return Exported(self.kind, str(self.root), *counts, size, again, left_out, notes, m.get("samples"))

    def open(self, overwrite: bool = False) -> "ExportFolder":
        """Prepare the folder: new, empty, or with the same export, whole or broken off. Raises UserError.

        `overwrite` deletes an export that is there, also the same one when it is whole; a folder with things that are
        no export is never touched.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"{self.root} is a file: an export goes to a folder")
        there = self._there()
        is_same, is_whole = there.get("identity") == self.identity, "files" in there
        if is_same and is_whole and not overwrite:
            for file in there["files"]:
                if not _has(self.root, file):
                    path = self.root / file["path"]
                    raise UserError(f"{path} is missing or has changed since the export: --overwrite makes it anew")
            self.manifest = there
            shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
        elif is_same and not is_whole:
            self._delete_all_but(set(self._read_parts()))
        else:
            self._check_may_go(there, overwrite)
            self._delete_all_but(set())
            head = {"format": FORMAT, "export": self.kind, "identity": self.identity}
            write_file(self.root / PARTIAL / HEAD, json.dumps(head).encode())
        return self

    def join(self) -> "ExportFolder":
        """Take part in an export that `open` began, beside others that write other parts. Raises UserError.

        What a kill left half-written stays, until it is written again or the folder is opened.
        """
        there = self._there()
        if there.get("identity") != self.identity:
            raise UserError(f"{self.root} does not hold the export that this is a part of: begin it again")
        self.manifest = there if "files" in there else {}
        self._read_parts()
        return self

    def _there(self) -> dict[str, Any]:
        """The manifest of a whole export, else the head of one that was begun; empty where there is neither."""
        found = _read(self.root / MANIFEST) or _read(self.root / PARTIAL / HEAD)
        return found if {"export", "identity"} <= found.keys() else {}

    def _check_may_go(self, there: Mapping[str, Any], overwrite: bool) -> None:
        if not there and self.root.exists() and any(self.root.iterdir()):
            raise UserError(f"{self.root} is not empty, and what it holds is no export: choose another folder")
        if there and not overwrite:
            other = there.get("export")
            raise UserError(f"{self.root} holds another export ({other}): choose another folder, or --overwrite it")

    def _read_parts(self) -> list[Path]:
        """Take over the parts that are finished; returns what the folder is to have: their files, and their own."""
        kept = [self.root / PARTIAL / HEAD]
        for path in (self.root / PARTIAL).glob("*.json"):
            part = _read(path)
            if "part" in part and all(_has(self.root, file) for file in part["files"]):
                self._parts[part["part"]] = part
                kept += [path, *(self.root / file["path"] for file in part["files"])]
        return kept

    def _delete_all_but(self, kept: set[Path]) -> None:
        """Delete other files, and folders that are empty then."""
        # backwards, so that a folder comes after what is in it
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_symlink() or not path.is_dir():
                if path not in kept:
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
    return facts if isinstance(facts, dict) else {}
