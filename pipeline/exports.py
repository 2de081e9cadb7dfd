"""One export as it was asked for: written in one go, or, by the job `export`, chunk by chunk where its kind can be."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warehouse.exports import EXPORT_KINDS, ExportKind
from warehouse.exports.common import Exported, ExportError
from warehouse.exports.options import Selection
from warehouse.lake import Lake


def export_kind(name: str) -> ExportKind:
    """Raises ExportError for a name that no kind has."""
    if name not in EXPORT_KINDS:
        raise ExportError(f"there is no export {name!r}; known: {', '.join(EXPORT_KINDS)}")
    return EXPORT_KINDS[name]


@dataclass(frozen=True)
class ExportRequest:
    """`options` are of the kind's own class (`kind.options(...)`)."""

    kind: ExportKind
    out: Path
    selection: Selection
    options: Any
    overwrite: bool = False


def plain_request(
    kind: str, out: Path, selection: Selection, options: Any = (), overwrite: bool = False
) -> ExportRequest:
    """A request with some of a kind's options. Raises ExportError."""
    chosen = export_kind(kind)
    return ExportRequest(chosen, out, selection, chosen.read_options(options), overwrite)


def write(lake: Lake, request: ExportRequest) -> Exported:
    """The whole export in one go. Raises what the kind's `export` raises."""
    export = request.kind.module.export
    return export(lake, request.selection, request.out, request.options, overwrite=request.overwrite)


def begin(lake: Lake, request: ExportRequest) -> list[tuple[str, int]]:
    """Prepare the folder; returns the chunks to write, none where `finish` does it all. Raises ExportError."""
    if not request.kind.by_chunk:
        return []
    return request.kind.module.begin(lake, request.selection, request.out, request.options, request.overwrite)


def write_chunk(lake: Lake, request: ExportRequest, dataset: str, chunk: int) -> int:
    """Write what a chunk lacks, beside processes that write others; returns how many parts that were."""
    export_chunk = request.kind.module.export_chunk
    return export_chunk(lake, request.selection, request.out, request.options, (dataset, chunk))


def finish(lake: Lake, request: ExportRequest) -> Exported:
    """Write what is still missing, and the manifest."""
    # `begin` emptied the folder of what is written by chunk: to overwrite it now would delete the chunks
    overwrite = request.overwrite and not request.kind.by_chunk
    return write(lake, replace(request, overwrite=overwrite))
