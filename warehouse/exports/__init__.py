"""Exports: the corpus in formats that other tools open. EXPORT_KINDS is the one list of them.

The module of a kind is `warehouse.exports.<name>` (with _ for -), imported when it is first used. It has a class of
options and

    export(lake, selection, out, options, *, overwrite) -> Exported

and, where chunks can be written side by side, `begin` (prepare the folder; returns the chunks) and `export_chunk`.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class ExportKind:
    """One format. `name` is what the command line, Dagster's job and the manifest call it.

    `of_samples`: it exports samples, so its options have a field `samples` (SampleOptions). `by_chunk`: its chunks can
    be written side by side; else it is one file, in which frames are counted through the whole.
    """

    name: str
    options_class: str
    about: str
    of_samples: bool = False
    by_chunk: bool = True

    @property
    def module(self) -> Any:
        return import_module(f"warehouse.exports.{self.name.replace('-', '_')}")

    def options(self, **values: Any) -> Any:
        """The kind's options with these values, and defaults for the rest."""
        return getattr(self.module, self.options_class)(**values)


EXPORT_KINDS = {
    kind.name: kind
    for kind in (
        ExportKind(
            "llamafactory",
            "LlamaFactoryOptions",
            "Conversations for LLaMA-Factory: dataset_info.json, one ShareGPT JSON file per split, and pictures.",
            of_samples=True,
        ),
        ExportKind(
            "easyr1",
            "EasyR1Options",
            "Prompts with pictures and right answers for EasyR1 and verl: one Parquet file per split.",
            of_samples=True,
        ),
        ExportKind(
            "datasets",
            "DatasetsOptions",
            "A folder for Hugging Face's load_dataset: samples with their pictures, and labels as tables.",
            of_samples=True,
        ),
        ExportKind(
            "preferences",
            "PreferencesOptions",
            "Pairs of runs of one task, chosen and rejected, with pictures: TRL's preference type, Robometer's fields.",
            by_chunk=False,
        ),
        ExportKind(
            "rerun",
            "RerunOptions",
            "A recording per episode for Rerun's viewer: cameras, segments, progress by every label run, gripper.",
        ),
        ExportKind(
            "lerobot",
            "LerobotOptions",
            "A LeRobot v3.0 dataset: rows and videos of the source, our labels in every form that LeRobot reads.",
        ),
        ExportKind(
            "rabc",
            "RabcOptions",
            "Progress for LeRobot's reward-aligned behaviour cloning, for an existing LeRobot dataset.",
            by_chunk=False,
        ),
        ExportKind(
            "frame-signals",
            "FrameSignalsOptions",
            "Signals per frame for LeRobot (lerobot.frame_signals 1), from labels or a reward model: one Parquet file.",
            by_chunk=False,
        ),
        ExportKind(
            "robo-dopamine",
            "RoboDopamineOptions",
            "Robo-Dopamine's raw runs with their steps, and pairs of states with the progress between them.",
            by_chunk=False,
        ),
        ExportKind(
            "annotations-json",
            "AnnotationsJsonOptions",
            "Labels to edit in LeRobot's dataset visualizer: meta/lerobot_annotations.json.",
            by_chunk=False,
        ),
        ExportKind(
            "robometer",
            "RobometerOptions",
            "Trajectories for Robometer: one row per run and view with its grade, for Hugging Face's load_dataset.",
            by_chunk=False,
        ),
        ExportKind(
            "opensarm",
            "OpensarmOptions",
            "opensarm's data: LeRobot v2 with reward and act_pri, rollouts with progress.npy, people's labels.",
            by_chunk=False,
        ),
    )
}
