"""Exports: the corpus in formats that other tools open. EXPORT_KINDS is the one list of them.

The module of a kind is `warehouse.exports.<name>` (with _ for -), imported when it is first used. It has

    export(lake, selection, out, options, *, overwrite) -> Exported

and, where chunks can be written side by side, `begin` (prepare the folder; returns the chunks) and `export_chunk`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from core.errors import UserError
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
)


@dataclass(frozen=True)
class ExportKind:
    """One format. `name` is what the command line, Dagster's job and the manifest call it.

    `by_chunk`: its chunks can be written side by side; else frames are counted through the whole. `is_file`: it is one
    file, and no folder.
    """

    name: str
    options: type[KindOptions]
    about: str
    by_chunk: bool = False
    is_file: bool = False

    @property
    def of_samples(self) -> bool:
        return issubclass(self.options, SampleOptions)

    def read_options(self, values: Mapping[str, Any]) -> Any:
        """The kind's options with these values, and defaults for the rest. Raises UserError."""
        try:
            return self.options.model_validate(dict(values))
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
            raise UserError(f"{first['loc'][0]}: {message}, and not {first['input']!r}") from e

    @property
    def module(self) -> Any:
        return import_module(f"warehouse.exports.{self.name.replace('-', '_')}")


EXPORT_KINDS = {
    kind.name: kind
    for kind in (
        ExportKind(
            "llamafactory",
            SampleOptions,
            "Conversations for LLaMA-Factory: dataset_info.json, one ShareGPT JSON file per split, and pictures.",
            by_chunk=True,
        ),
        ExportKind(
            "easyr1",
            SampleFileOptions,
            "Prompts with pictures and right answers for EasyR1 and verl: one Parquet file per split.",
            by_chunk=True,
        ),
        ExportKind(
            "datasets",
            SampleFileOptions,
            "A folder for Hugging Face's load_dataset: samples with their pictures, and labels as tables.",
            by_chunk=True,
        ),
        ExportKind(
            "preferences",
            PreferencesOptions,
            "Pairs of runs of one task, chosen and rejected, with pictures: TRL's preference type, Robometer's fields.",
        ),
        ExportKind(
            "rerun",
            RerunOptions,
            "A recording per episode for Rerun's viewer: cameras, segments, progress by every label run, gripper.",
            by_chunk=True,
        ),
        ExportKind(
            "lerobot",
            LerobotOptions,
            "A LeRobot v3.0 dataset: rows and videos of the source, our labels in every form that LeRobot reads.",
            by_chunk=True,
        ),
        ExportKind(
            "rabc",
            RabcOptions,
            "Progress for LeRobot's reward-aligned behaviour cloning, for an existing LeRobot dataset.",
        ),
        ExportKind(
            "frame-signals",
            FrameSignalsOptions,
            "Signals per frame for LeRobot (lerobot.frame_signals 1), from labels or a reward model: one Parquet file.",
            is_file=True,
        ),
        ExportKind(
            "robo-dopamine",
            RoboDopamineOptions,
            "Robo-Dopamine's raw runs with their steps, and pairs of states with the progress between them.",
        ),
        ExportKind(
            "annotations-json",
            LabelOptions,
            "Labels to edit in LeRobot's dataset visualizer: meta/lerobot_annotations.json.",
            is_file=True,
        ),
        ExportKind(
            "robometer",
            LabelOptions,
            "Trajectories for Robometer: one row per run and view with its grade, for Hugging Face's load_dataset.",
        ),
        ExportKind(
            "opensarm",
            LabelOptions,
            "opensarm's data: LeRobot v2 with reward and act_pri, rollouts with progress.npy, people's labels.",
        ),
    )
}
