"""Exports as the job `export` makes them: begun once, a step per chunk where the format allows it, then made whole."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from warehouse.exports.common import Exported, ExportError, Selection
from warehouse.exports.samples import SampleOptions
from warehouse.lake import Lake

SAMPLES = {"llamafactory": "LlamaFactoryOptions", "easyr1": "EasyR1Options", "datasets": "DatasetsOptions"}
OTHERS = {"rerun": "RerunOptions", "lerobot": "LerobotOptions", "rabc": "RabcOptions"}
WHOLE = ("rabc",)  # one file, in which frames are counted through the whole: written in one go


@dataclass(frozen=True)
class ExportRequest:
    kind: str
    out: Path
    selection: Selection
    samples: SampleOptions
    overwrite: bool = False

    @property
    def module(self) -> Any:
        if self.kind not in {**SAMPLES, **OTHERS}:
            raise ExportError(f"there is no export {self.kind!r}; known: {', '.join((*SAMPLES, *OTHERS))}")
        return import_module(f"warehouse.exports.{self.kind}")

    @property
    def options(self) -> Any:
        made: Callable[..., Any] = getattr(self.module, {**SAMPLES, **OTHERS}[self.kind])
        return made(self.samples) if self.kind in SAMPLES else made()


def begin(lake: Lake, request: ExportRequest) -> list[tuple[str, int]]:
    """Prepare the folder; returns the chunks to write, none where `finish` does it all. Raises ExportError."""
    module = request.module
    if request.kind in WHOLE:
        return []
    return module.begin(lake, request.selection, request.out, request.options, request.overwrite)


def write_chunk(lake: Lake, request: ExportRequest, dataset: str, chunk: int) -> int:
    """Write what a chunk lacks, beside processes that write others; returns how many parts that were."""
    return request.module.export_chunk(lake, request.selection, request.out, request.options, (dataset, chunk))


def finish(lake: Lake, request: ExportRequest) -> Exported:
    """Write what is still missing, and the manifest."""
    overwrite = request.overwrite and request.kind in WHOLE  # the others were emptied when they began
    return request.module.export(lake, request.selection, request.out, request.options, overwrite=overwrite)
