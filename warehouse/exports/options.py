"""What exports are asked for: which episodes, and the options of each kind; EXPORT_KINDS is the one list of kinds.

Each model is the one place where its options are declared: the command, Dagster's configuration, the reference page and
Python's interface follow from it. A field's name outside is its validation alias where it has one, such as `dataset`
for `datasets`. A field without a description is none of the command's options.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from core.errors import UserError, install_hint
from core.settings import read_settings
from warehouse.lake import Lake

Weighting = Literal["combined", "awr", "segments", "top-half", "rabc"]
FILE_BYTES = 500 << 20  # of a Parquet file; the next row group begins another


def _option(default: Any, description: str, name: str | None = None, **limits: Any) -> Any:
    """A field that is an option of the command, under `name` where it is called otherwise there."""
    return Field(default=default, description=description, validation_alias=name, **limits)


class KindSettings(BaseModel):
    """`added_later`: fields that earlier versions had not."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )
    added_later: ClassVar = frozenset(
        {"without", "only_complete", "plain", "fps", "without_stretches", "label_run", "cameras"}
    )

    def stated(self) -> dict[str, Any]:
        """As manifests state them, those of samples together; those that were added later
        only where they are given, so that exports of before stay the same."""
        fields = type(self).model_fields
        unused = {
            name
            for name in self.added_later & fields.keys()
            if getattr(self, name) == fields[name].default
        }
        values = self.model_dump(exclude=unused)
        if "families" in fields:
            return {"samples": {name: values.pop(name) for name in SAMPLES}, **values}
        return values


class Selection(KindSettings):
    """Which episodes; each condition narrows. Empty means all.

    `where`: a condition over the columns of EPISODES_SQL, or a whole query that gives (dataset, episode_index).
    `allow`: licences that are not open and yet in order, as for releases. `min_confidence` and `min_name_confidence`:
    which labels are sure enough (core.domain.label_run); None: as the samples of their dataset were made. `without`:
    names of checks, whose runs with faults that nobody accepted are left out. `cameras`: no others are shown.
    """

    release: str | None = _option(None, "Export this release; default: the corpus as it is now.")
    datasets: tuple[str, ...] = _option((), "Only this dataset; repeatable.", "dataset")
    episodes: tuple[int, ...] | None = _option(
        None, "Only these episodes of one dataset, such as 0,1,5-9."
    )
    splits: tuple[str, ...] = _option(
        (), "Only this split: train, val, test_id, ...; repeatable.", "split"
    )
    where: str | None = _option(
        None, "SQL condition such as 'success', or a query for dataset, episode_index."
    )
    without: tuple[str, ...] = _option(
        (),
        "Leave out runs with a fault that this check found, such as camera_frozen, but accepted ones; repeatable.",
    )
    allow: tuple[str, ...] = _option(
        (), "Include datasets with this licence, such as unknown; repeatable.", "allow_licence"
    )
    min_confidence: float | None = _option(
        None, "Leave out labels with a lower confidence.", ge=0, le=1
    )
    min_name_confidence: float | None = _option(
        None, "Leave out the step names of labels with a lower confidence.", ge=0, le=1
    )
    label_run: str | None = _option(
        None, "Export the labels of this label run, as they are, not the active ones."
    )
    cameras: tuple[str, ...] = _option((), "Show this camera alone; repeatable.", "camera")


class ExportSettings(KindSettings):
    """All settings; a kind takes those that its line in KINDS names.

    `forms`: samples of families that have none are not touched by it. `profile`: drawn
    from a release's train split with `seed` (warehouse.shards.progresslm). `rewards`:
    the eval_run of a model's rewards, in the place of labels; `model` is its name.
    """

    families: tuple[str, ...] = _option((), "Only samples of this family; repeatable.", "family")
    forms: tuple[Literal["think", "no_think"], ...] = _option(
        (), "Only ProgressLM samples of this form: think or no_think; repeatable.", "form"
    )
    profile: str | None = _option(
        None, "Draw this training set from --release: progresslm_sft or progresslm_rl."
    )
    seed: int = _option(0, "Another number draws other samples or pairs.", ge=0)
    per_run: int = _option(50, "Maximum pairs of a kind, or of states, per run.", ge=0)
    file_bytes: int = FILE_BYTES
    pictures_per_s: float | None = _option(
        None, "Maximum pictures per second; default: all; 0: none.", ge=0
    )
    max_px: int = _option(
        640, "Maximum longer side of pictures; larger ones are scaled down.", ge=16
    )
    quality: int = Field(default=85, ge=1, le=100)  # of JPEGs
    flavour: Literal["task", "subtask"] = _option(
        "task", "Text of a frame's task: the instruction, or the step's name."
    )
    codec: Literal["h264", "av1"] = _option("h264", "Codec for pictures that must be encoded.")
    only_complete: bool = _option(
        False, "Leave out episodes without SARM stages: unfinished, a step done twice, ..."
    )
    chunk_sizes: tuple[Annotated[int, Field(ge=1)], ...] = _option(
        (16, 32, 50, 100), "Action chunk to suggest a kappa for; repeatable.", "chunk_size"
    )
    blur: Literal["faces"] | None = _option(
        None, "Blur these in all pictures, which are then encoded again."
    )
    plain: bool = _option(
        False, "Leave out the columns language_*, which other tools may not read."
    )
    fps: float | None = _option(
        None, "Stamp rows at this rate, up to a tenth from theirs; default: their rate.", gt=0
    )
    rewards: str | None = None
    model: str | None = None
    weighting: Weighting = _option(
        "combined",
        "awr: exponential in the gain; segments: 0 where one fails or stands still; top-half; rabc; combined: awr, and "
        "0 in such segments and in failed runs.",
        "kind",
    )
    chunk_size: int = _option(
        50, "Frames in an action chunk of the policy, over which a frame gains.", ge=1
    )
    in_dataset: bool = _option(False, "Write a LeRobot dataset with a column sample_weight, too.")
    without_stretches: tuple[str, ...] = _option(
        (),
        "Keep runs with a fault that this check found, but weigh its frames 0, but accepted ones; repeatable.",
    )
    horizon: int | None = _option(
        None, "Add advantages of action chunks of so many frames.", "advantage", ge=1
    )
    positive_share: float = _option(
        0.3, "Share of a task's frames marked positive (RECAP).", ge=0, le=1
    )


SAMPLES = ("families", "forms", "profile", "seed")
SIZES = {"chunk_sizes": Field(default=(16, 32, 50, 100))}  # of a kind that does not ask for them
LEROBOT = ("flavour", "codec", "only_complete", "blur", "plain", "fps")
WEIGHTS = ("weighting", "chunk_size", "in_dataset", "without_stretches")


def _options(*names: str, **own: Any) -> Any:
    """What a kind takes of ExportSettings; `own`: settings that it has otherwise, as fields."""
    declared = ExportSettings.model_fields
    fields = {name: declared[name] for name in names} | own
    types: dict[str, Any] = {
        name: (declared[name].annotation, field) for name, field in fields.items()
    }
    return create_model("Options", __base__=KindSettings, **types)


@dataclass(frozen=True)
class ExportKind:
    """One format. `name`: what the command line, Dagster's job and the manifest call it;
    `about`: what it is; `options`: the model of its settings; `writer`: what opens it,
    by its import path below warehouse.exports, since it needs packages that not
    everybody has. `is_file`: the export is one file, and no folder."""

    name: str
    about: str
    options: Any
    writer: str
    is_file: bool = False

    def read_options(self, values: Mapping[str, Any]) -> Any:
        """The kind's options with these values, and defaults for the rest. Raises UserError."""
        return read_settings(self.options, self.name, values)

    def open(self, lake: Lake, selection: Selection, options: Any = None) -> Any:
        """What is to be written, as an `export.Export`. Raises UserError."""
        try:
            writer = pkgutil.resolve_name(f"warehouse.exports.{self.writer}")
        except ModuleNotFoundError as e:
            raise UserError(
                f"this export needs the package {e.name}: {install_hint('exports')}"
            ) from e
        return writer(self.name, lake, selection, options or self.options())

    def export(
        self,
        lake: Lake,
        selection: Selection,
        out: Path,
        options: Any = None,
        *,
        overwrite: bool = False,
    ) -> Any:
        """Write the export to `out`, as far as it is not there; returns an `export.Exported`. Raises UserError."""
        return self.open(lake, selection, options).export(out, overwrite)


def export_kind(name: str) -> ExportKind:
    """Raises UserError for a name that no kind has."""
    if name not in EXPORT_KINDS:
        raise UserError(f"there is no export {name!r}; known: {', '.join(EXPORT_KINDS)}")
    return EXPORT_KINDS[name]


KINDS = (
    ExportKind(
        "llamafactory",
        "Conversations for LLaMA-Factory: dataset_info.json, one ShareGPT JSON file per split, and pictures.",
        _options(*SAMPLES),
        "sample_kinds:LlamaFactoryExport",
    ),
    ExportKind(
        "easyr1",
        "Prompts with pictures and right answers for EasyR1 and verl: one Parquet file per split.",
        _options(*SAMPLES, "file_bytes"),
        "sample_kinds:EasyR1Export",
    ),
    ExportKind(
        "datasets",
        "A folder for Hugging Face's load_dataset: samples with their pictures, and labels as tables.",
        _options(*SAMPLES, "file_bytes"),
        "sample_kinds:DatasetsExport",
    ),
    ExportKind(
        "preferences",
        "Pairs of runs of one task, chosen and rejected, with pictures: TRL's preference type, Robometer's fields.",
        _options("seed", per_run=_option(4, "Maximum pairs of each kind per run.", ge=1)),
        "sample_kinds:PreferencesExport",
    ),
    ExportKind(
        "rerun",
        "A recording per episode for Rerun's viewer: cameras, segments, progress by every label run, gripper.",
        _options("pictures_per_s", "max_px", "quality"),
        "rerun:RerunExport",
    ),
    ExportKind(
        "lerobot",
        "A LeRobot v3.0 dataset: rows and videos of the source, our labels in every form that LeRobot reads.",
        _options(*LEROBOT, **SIZES),
        "lerobot:LerobotExport",
    ),
    ExportKind(
        "weights",
        "Weights per frame for cloning a policy: a table, and a file that LeRobot reads to them.",
        _options(*LEROBOT, *WEIGHTS, **SIZES),
        "weights:weights_export",
    ),
    ExportKind(
        "rabc",
        "Progress for LeRobot's reward-aligned behaviour cloning, for an existing LeRobot dataset.",
        _options("rewards", "model", "chunk_sizes"),
        "rabc:RabcExport",
    ),
    ExportKind(
        "frame-signals",
        "Signals per frame for LeRobot (lerobot.frame_signals 1), from labels or a reward model: one Parquet file.",
        _options("rewards", "model", "horizon", "positive_share"),
        "sidecars:FrameSignalsExport",
        is_file=True,
    ),
    ExportKind(
        "robo-dopamine",
        "Robo-Dopamine's raw runs with their steps, and pairs of states with the progress between them.",
        _options("per_run", "seed"),
        "reward_data:RoboDopamineExport",
    ),
    ExportKind(
        "annotations-json",
        "Labels to edit in LeRobot's dataset visualizer: meta/lerobot_annotations.json.",
        _options(),
        "sidecars:AnnotationsJsonExport",
        is_file=True,
    ),
    ExportKind(
        "robometer",
        "Trajectories for Robometer: one row per run and view with its grade, for Hugging Face's load_dataset.",
        _options(),
        "reward_data:RobometerExport",
    ),
    ExportKind(
        "opensarm",
        "opensarm's data: LeRobot v2 with reward and act_pri, rollouts with progress.npy, people's labels.",
        _options(),
        "reward_data:OpensarmExport",
    ),
)
EXPORT_KINDS = {kind.name: kind for kind in KINDS}
