"""Exports: the corpus in formats that other tools open. EXPORT_KINDS is the one list of them.

The module of a kind is `warehouse.exports.<name>` (with _ for -), imported when it is first used; it has a class that
says what the kind takes and writes (warehouse.exports.export). Its options are in warehouse.exports.options.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import UserError, install_hint, validation_message
from warehouse.exports.options import (
    FrameSignalsOptions,
    KindOptions,
    LabelOptions,
    LerobotOptions,
    PreferencesOptions,
    RabcOptions,
    RerunOptions,
    RoboDopamineOptions,
    SampleFileOptions,
    SampleOptions,
    Selection,
)
from warehouse.lake import Lake


@dataclass(frozen=True)
class ExportKind:
    """One format. `name` is what the command line, Dagster's job and the manifest call it.

    `written_by`: a class of the kind's module. `is_file`: the export is one file, and no folder.
    """

    name: str
    written_by: str
    options: type[KindOptions]
    about: str
    is_file: bool = False

    def read_options(self, values: Mapping[str, Any]) -> Any:
        """The kind's options with these values, and defaults for the rest. Raises UserError."""
        try:
            return self.options.model_validate(dict(values))
        except ValidationError as e:
            raise UserError(validation_message(e)) from e

    def open(self, lake: Lake, selection: Selection, options: KindOptions | None = None) -> Any:
        """What is to be written, as an `export.Export`. Raises UserError."""
        try:
            module = import_module(f"warehouse.exports.{self.name.replace('-', '_')}")
        except ModuleNotFoundError as e:
            raise UserError(f"this export needs the package {e.name}: {install_hint('exports')}") from e
        return getattr(module, self.written_by)(self.name, lake, selection, options or self.options())

    def export(
        self,
        lake: Lake,
        selection: Selection,
        out: Path,
        options: KindOptions | None = None,
        *,
        overwrite: bool = False,
    ) -> Any:
        """Write the export to `out`, as far as it is not there; returns a `folder.Exported`. Raises UserError."""
        return self.open(lake, selection, options).export(out, overwrite)


def export_kind(name: str) -> ExportKind:
    """Raises UserError for a name that no kind has."""
    if name not in EXPORT_KINDS:
        raise UserError(f"there is no export {name!r}; known: {', '.join(EXPORT_KINDS)}")
    return EXPORT_KINDS[name]


EXPORT_KINDS = {
    kind.name: kind
    for kind in (
        ExportKind(
            "llamafactory",
            "LlamaFactoryExport",
            SampleOptions,
            "Conversations for LLaMA-Factory: dataset_info.json, one ShareGPT JSON file per split, and pictures.",
        ),
        ExportKind(
            "easyr1",
            "EasyR1Export",
            SampleFileOptions,
            "Prompts with pictures and right answers for EasyR1 and verl: one Parquet file per split.",
        ),
        ExportKind(
            "datasets",
            "DatasetsExport",
            SampleFileOptions,
            "A folder for Hugging Face's load_dataset: samples with their pictures, and labels as tables.",
        ),
        ExportKind(
            "preferences",
            "PreferencesExport",
            PreferencesOptions,
            "Pairs of runs of one task, chosen and rejected, with pictures: TRL's preference type, Robometer's fields.",
        ),
        ExportKind(
            "rerun",
            "RerunExport",
            RerunOptions,
            "A recording per episode for Rerun's viewer: cameras, segments, progress by every label run, gripper.",
        ),
        ExportKind(
            "lerobot",
            "LerobotExport",
            LerobotOptions,
            "A LeRobot v3.0 dataset: rows and videos of the source, our labels in every form that LeRobot reads.",
        ),
        ExportKind(
            "rabc",
            "RabcExport",
            RabcOptions,
            "Progress for LeRobot's reward-aligned behaviour cloning, for an existing LeRobot dataset.",
        ),
        ExportKind(
            "frame-signals",
            "FrameSignalsExport",
            FrameSignalsOptions,
            "Signals per frame for LeRobot (lerobot.frame_signals 1), from labels or a reward model: one Parquet file.",
            is_file=True,
        ),
        ExportKind(
            "robo-dopamine",
            "RoboDopamineExport",
            RoboDopamineOptions,
            "Robo-Dopamine's raw runs with their steps, and pairs of states with the progress between them.",
        ),
        ExportKind(
            "annotations-json",
            "AnnotationsJsonExport",
            LabelOptions,
            "Labels to edit in LeRobot's dataset visualizer: meta/lerobot_annotations.json.",
            is_file=True,
        ),
        ExportKind(
            "robometer",
            "RobometerExport",
            LabelOptions,
            "Trajectories for Robometer: one row per run and view with its grade, for Hugging Face's load_dataset.",
        ),
        ExportKind(
            "opensarm",
            "OpensarmExport",
            LabelOptions,
            "opensarm's data: LeRobot v2 with reward and act_pri, rollouts with progress.npy, people's labels.",
        ),
    )
}
