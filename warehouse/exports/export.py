"""How every export runs: open what is asked for, write the parts that are not there yet, then the manifest."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import UserError
from warehouse.exports.folder import Exported, ExportFolder
from warehouse.exports.options import Selection
from warehouse.exports.selection import Selected, select
from warehouse.exports.source_reader import SourceReader
from warehouse.lake import Lake


def counted(count: int, text: str) -> list[str]:
    """A note on how many of something there are; none where there are none."""
    return [f"{count} {text}"] if count else []


class Export:
    """One export of a kind. A kind says by its own class what it takes, and what it writes.

    What cannot be exported is refused when it is made, before anything is written.
    """

    folder: ExportFolder

    def __init__(self, kind: str, lake: Lake, selection: Selection, options: Any) -> None:
        self.kind, self.now, self.options = kind, lake, options
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
            return self.folder.exported(again=True)
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
        again = out.exists() and not overwrite
        found = self.identity_in(out) if out.exists() else self.identity
        if found is None:
            raise UserError(f"{out} is there already, and is no export of ours: choose another file")
        if found != self.identity and not overwrite:
            raise UserError(f"{out} holds another export: choose another file, or --overwrite it")
        if not again:
            self.write_file(out)
        episodes, frames, notes = self.counts(out)
        left_out, size = self.selected.left_out, out.stat().st_size
        return Exported(self.kind, str(out), episodes, frames, 1, size, again, left_out, tuple(notes))
