"""Training recipes: validated YAML files, in training/recipes or anywhere. Imports no torch.

A file may name another recipe that it is `like`: its own fields take the place of that one's, section by section.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.errors import UserError
from core.yaml_text import parse_yaml
from training.folder import is_laptop
from training.laptop.config import MAX_PX, LaptopConfig

BUILT_IN = Path(__file__).parent / "recipes"
ATTENTIONS = ("auto", "sdpa", "varlen", "eager")
# Kernels of an installed package, or of the hub's trusted collection
FLASH = re.compile(r"flash_attention_[234]|kernels-community/[\w.-]*flash[\w.-]*(@[\w.-]+)?")
LAPTOP_TRAINS_BY = frozenset(
    {"steps", "batch", "lr", "schedule", "warmup", "weight_decay", "beta2", "clip", "seed"}
)
OF_LAPTOPS = "laptop_oneshot"  # adapts a laptop model
# No picture is given to a model larger than this, whatever its processor would do with it
WIDEST_PX = 4096


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TinyConfig(Section):
    """Sizes of a tiny model with random weights."""

    family: Literal[
        "qwen3_vl", "qwen2_5_vl", "qwen3_5", "internvl", "qwen3_vl_moe", "qwen3_5_moe"
    ] = "qwen3_vl"
    vocabulary: int = Field(default=800, ge=300)
    hidden: int = Field(default=160, ge=32)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    vision_hidden: int = Field(default=128, ge=32)
    vision_layers: int = Field(default=4, ge=1)
    patch: int = Field(default=16, ge=8)
    max_px: int = Field(
        default=128, ge=32, description="longer side of a picture as the model sees it"
    )


class ModelConfig(Section):
    """The model to train: a tiny model from random weights, a laptop model, or a checkpoint on this machine."""

    tiny: TinyConfig | None = None
    laptop: LaptopConfig | None = None
    path: Path | None = Field(
        default=None, description="folder of a checkpoint; --model can name it, too"
    )
    base: str = Field(
        default="", description="checkpoint that the recipe is made for; for people to read"
    )
    min_pixels: int | None = Field(
        default=None, ge=1, description="smallest area of a picture; absent: its own"
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description="largest area of a picture; absent: its own"
    )
    max_vision_tokens: int | None = Field(
        default=None, ge=1, description="most vision tokens of a sample"
    )
    attention: str = Field(
        default="auto", description=f"{', '.join(ATTENTIONS)}, or a kernel (docs/gpu-cluster.md)"
    )

    @model_validator(mode="after")
    def one_of_two(self) -> Self:
        if sum(map(bool, (self.tiny, self.laptop, self.path))) > 1:
            raise ValueError("one of tiny, laptop and path, not several")
        return self

    @field_validator("attention")
    @classmethod
    def known_attention(cls, name: str) -> str:
        if name not in ATTENTIONS and not FLASH.fullmatch(name):
            known_names = f"{', '.join(ATTENTIONS)}, flash_attention_2, flash_attention_3"
            raise ValueError(
                f"unknown attention {name!r}; known: {known_names}, or a flash kernel kernels-community/NAME"
            )
        return name

    @property
    def max_px(self) -> int:
        """Longer side of the pictures that the processor is given."""
        if self.laptop:
            return MAX_PX
        if self.tiny:
            return self.tiny.max_px
        return WIDEST_PX


class MachineConfig(Section):
    """What a recipe is made for: `proccorpus train --plan` says whether it fits."""

    gpus: int = Field(default=1, ge=1, description="of all machines together; a process each")
    memory_gb: float = Field(default=80, gt=0, description="of each, in 10^9 bytes")


class HeadConfig(Section):
    """The progress head and its loss."""

    pooling: Literal["prompt", "published"] = Field(
        default="prompt",
        description="prompt: pool vision and question tokens; published: pool all tokens, as ProcVLM does",
    )
    weight: float = Field(
        default=1.0, ge=0, description="weight of the progress loss relative to the cross entropy"
    )
    done_weight: float = Field(
        default=0.1, ge=0, description="weight of the loss on the end state; 0: no such output"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    noise: float = Field(
        default=0.0, ge=0, description="standard deviation added to the pooled state in training"
    )

    @property
    def has_done(self) -> bool:
        """Does the head say, beside progress, how probably the end state is reached?"""
        return self.done_weight > 0 and self.pooling == "prompt"


class LoraConfig(Section):
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear",
        description="names of linear layers of the language model, or all of them",
    )


class NegativesConfig(Section):
    """Samples changed in training, so that counting pictures is not enough for a model. Test splits are never used.

    Each rate is the share of samples that are so changed; what is left is as it was recorded. Samples of other families
    than ProcVQA's c stay as they are.
    """

    rewound: float = Field(
        default=0.0, ge=0, le=1, description="plays forward, then backward: progress falls"
    )
    stood_still: float = Field(
        default=0.0, ge=0, le=1, description="shows one moment again and again: progress stays"
    )
    other_task: float = Field(
        default=0.0, ge=0, le=1, description="has the instruction of another task: progress 0"
    )
    other_speed: float = Field(
        default=0.0, ge=0, le=1, description="has pictures 0.5 to 2 times as far apart"
    )

    @property
    def total(self) -> float:
        """Share of samples that are changed in any way."""
        return sum(getattr(self, kind) for kind in KINDS)

    @model_validator(mode="after")
    def _some_is_left(self) -> Self:
        if self.total > 1:
            raise ValueError(f"the rates are {self.total:g} together: at most 1")
        return self


# Kinds of changed samples
KINDS = tuple(NegativesConfig.model_fields)
OTHER_TASK = "other_task"  # the instruction is changed, and progress is 0
AS_RECORDED = "as_recorded"


class DataConfig(Section):
    families: dict[str, float] = Field(
        default={"procvqa_c": 1.0},
        description="mean number of times that a sample of each family is shown per epoch",
    )
    dataset_rates: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="factor for each dataset, multiplied by its family's number; unnamed datasets: 1",
    )
    per_visit: int | None = Field(
        default=None, ge=1, description="most samples of an episode per epoch; absent: all"
    )
    think: bool | None = Field(
        default=None, description="ProgressLM: only samples with reasons, or only without"
    )
    jsonl: tuple[Path, ...] = Field(
        default=(), description="files of rows instead of the release's shards"
    )
    validation_jsonl: tuple[Path, ...] = Field(
        default=(), description="files of held-out rows, if jsonl names files"
    )
    image_root: Path | None = Field(
        default=None, description="folder of the pictures that the rows name"
    )
    sequence_length: int = Field(
        default=8192, ge=16, description="tokens of a packed row; the most of a sample"
    )
    longer_length: int | None = Field(
        default=None,
        ge=16,
        description="takes the place of sequence_length in the run's second stage; absent: none",
    )
    longer_from: float = Field(
        default=0.5, gt=0, lt=1, description="share of the run after which that stage begins"
    )
    max_pictures: int | None = Field(
        default=None, ge=1, description="samples with more pictures are left out"
    )
    packing: bool = False
    window: int | None = Field(
        default=None, ge=1, description="samples sorted or packed together; absent: a batch"
    )
    augment: bool = Field(default=False, description="vary colours and position of the pictures")
    workers: int = Field(
        default=0, ge=0, description="processes that prepare batches; 0: in the training process"
    )
    cache_mb: int = Field(
        default=256, ge=0, description="MB of decoded pictures to keep in memory, for small corpora"
    )
    negatives: NegativesConfig = Field(
        default=NegativesConfig(), description="samples that are made of others"
    )

    @property
    def longest(self) -> int:
        """Most tokens of a row in any stage."""
        return max(self.sequence_length, self.longer_length or 0)

    @model_validator(mode="after")
    def rates_have_shards(self) -> Self:
        if self.jsonl and (self.dataset_rates or self.per_visit):
            raise ValueError(
                "dataset_rates and per_visit are for shards: rows of data.jsonl name no dataset or episode"
            )
        return self


class TrainConfig(Section):
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(
        ge=1, description="samples per batch on each device; with data.packing: packed rows"
    )
    accumulation: int = Field(default=1, ge=1, description="batches per optimiser step")
    lr: float = Field(
        ge=0, description="learning rate of the language model, or of its adapter; 0 freezes it"
    )
    merger_lr: float | None = Field(
        default=None, ge=0, description="rate of what maps vision to language; absent: lr"
    )
    vision_lr: float | None = Field(
        default=None, ge=0, description="learning rate of the vision tower; absent: lr"
    )
    head_lr: float | None = Field(
        default=None, gt=0, description="learning rate of the progress head; absent: lr"
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run in which rates rise from 0"
    )
    weight_decay: float = Field(default=0.0, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    text_weight: float = Field(
        default=1.0, ge=0, description="weight of the cross entropy on the answer"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"
    recompute: Literal["none", "matmul", "all"] = Field(
        default="none",
        description="what of a layer is calculated anew in the backward pass, to save memory: nothing; all but "
        "results of matrices and attention; everything",
    )
    compile: bool = Field(
        default=False, description="compile each layer: fewer passes over memory, slower to start"
    )
    distributed: Literal["none", "fsdp"] = Field(
        default="none",
        description="several processes: each holds the whole model (none), or a part (fsdp)",
    )
    evaluate_every: int = Field(
        default=0, ge=0, description="steps between evaluations on held-out episodes; 0: none"
    )
    evaluate_episodes: int = Field(
        default=32, ge=1, description="number of these episodes, spread over the split val"
    )
    save_every: int | None = Field(
        default=None, ge=1, description="steps between checkpoints to resume from"
    )
    keep: int = Field(default=2, ge=1, description="number of these checkpoints to keep")
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def older_name(cls, fields: Any) -> Any:
        """`gradient_checkpointing`, as recipes before 0.3 have it, is `recompute: all`."""
        if isinstance(fields, dict) and "gradient_checkpointing" in fields:
            fields = {"recompute": "all" if fields["gradient_checkpointing"] else "none"} | fields
            del fields["gradient_checkpointing"]
        return fields

    @model_validator(mode="after")
    def one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps")
        return self


class GrpoConfig(Section):
    """Group-relative policy optimisation on ProgressLM's format; `train.batch` counts completions of a device."""

    profile: Literal["progresslm_rl", "progresslm_sft"] = Field(
        default="progresslm_rl",
        description="training set whose prompts the release gives, if data.jsonl names no files",
    )
    reward: Literal["mended", "published"] = "mended"
    generations: int = Field(
        default=4, ge=2, description="completions per prompt; they are compared as one group"
    )
    temperature: float = Field(default=0.6, gt=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_completion: int = Field(default=8192, ge=1, description="most tokens of a completion")
    kl_coef: float = Field(
        default=0.01, ge=0, description="weight of the distance from the starting model"
    )
    rollouts: Literal["auto", "vllm", "transformers"] = Field(
        default="auto",
        description="software that generates; auto: vLLM, if it is installed and there is a GPU",
    )
    clip_low: float = Field(
        default=0.2, gt=0, lt=1, description="ratios below 1 - clip_low have no gradient"
    )
    clip_high: float = Field(
        default=0.3, gt=0, description="ratios above 1 + clip_high have no gradient"
    )
    dual_clip: float | None = Field(
        default=3.0, gt=1, description="largest ratio of an answer worse than its group"
    )
    validate_every: int | None = Field(
        default=None, ge=1, description="steps between rewards on held-out prompts"
    )
    validation_prompts: int = Field(
        default=64, ge=1, description="number of held-out prompts, with one answer each"
    )


class Recipe(Section):
    """A training run, but for its data's release."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    kind: Literal["sft", "grpo"] = "sft"
    model: ModelConfig
    head: HeadConfig | None = None
    lora: LoraConfig | None = None
    machine: MachineConfig = MachineConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig
    grpo: GrpoConfig | None = None

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        if self.model.laptop:
            contradictions = self._laptop_contradictions()
        else:
            contradictions = chain(self._of_kind(), self._of_data())
        if wrong := next((message for is_so, message in contradictions if is_so), None):
            raise ValueError(wrong)
        return self

    def _of_kind(self) -> Iterator[tuple[object, str]]:
        """What sections may ask for that others do not allow: is it so, and what is said of it."""
        model = self.model
        train = self.train
        is_grpo = self.kind == "grpo"
        yield is_grpo != (self.grpo is not None), "kind: grpo and the section grpo go together"
        yield is_grpo and self.head, "head: grpo rewards words, it cannot train a head"
        yield (
            is_grpo and train.evaluate_every,
            "train.evaluate_every is for sft: grpo takes grpo.validate_every",
        )
        learns = is_grpo or train.text_weight or (self.head and self.head.weight)
        yield (
            not learns,
            "nothing to learn: train.text_weight is 0 and there is no head, or its weight is 0",
        )
        yield (
            self.lora and (train.merger_lr or train.vision_lr),
            "lora trains the adapter and the head alone: leave out train.merger_lr and vision_lr",
        )
        yield (
            is_grpo and (train.recompute == "matmul" or train.compile),
            "train.recompute: matmul and train.compile are for sft: TRL prepares the layers of grpo",
        )
        half_alone = model.attention == "varlen" or FLASH.fullmatch(model.attention)
        yield (
            half_alone and train.dtype != "bfloat16",
            f"model.attention: {model.attention} calculates in train.dtype: bfloat16 only",
        )

    def _of_data(self) -> Iterator[tuple[object, str]]:
        """The same of the data."""
        data = self.data
        is_grpo = self.kind == "grpo"
        negatives = self.data.negatives.total
        for field in ("dataset_rates", "families", "per_visit", "longer_length"):
            yield (
                is_grpo and field in data.model_fields_set,
                f"data.{field}: grpo draws its prompts by grpo.profile, or reads data.jsonl",
            )
        interval = self.grpo.validate_every if self.grpo else self.train.evaluate_every
        key = "grpo.validate_every" if self.grpo else "train.evaluate_every"
        yield (
            interval and bool(data.jsonl) != bool(data.validation_jsonl),
            f"data.validation_jsonl: with {key} it names files where data.jsonl does, and only so",
        )
        yield (
            negatives and is_grpo,
            "data.negatives: for sft; grpo is asked about what the release holds",
        )
        yield (
            negatives and data.jsonl,
            "data.negatives: rows of data.jsonl name no instruction and no frames",
        )
        yield (
            negatives and "procvqa_c" not in data.families,
            "data.negatives: they are made of procvqa_c, which data.families does not name",
        )

    def _laptop_contradictions(self) -> Iterator[tuple[object, str]]:
        """What a laptop model would not look at."""
        yield (
            self.kind != "sft" or self.head or self.lora,
            "model.laptop has heads of its own: leave out head and lora; kind is sft",
        )
        for field in _changed(self.model, {"laptop", "base"}):
            yield True, f"model.{field}: not for a laptop model: leave it out"
        for field in _changed(self.data, {"negatives"}):
            yield (
                True,
                f"data.{field}: a laptop model reads what shards show of whole runs: leave it out",
            )
        for field in _changed(self.train, LAPTOP_TRAINS_BY):
            yield (
                True,
                f"train.{field}: not for a laptop model, which has {', '.join(sorted(LAPTOP_TRAINS_BY))}",
            )


def _changed(section: Section, but: Collection[str]) -> list[str]:
    """The fields of a section, without some, that are not at their defaults."""
    fields = {name: field for name, field in type(section).model_fields.items() if name not in but}
    return sorted(name for name, field in fields.items() if getattr(section, name) != field.default)


def load_recipe(name_or_path: str, model: Path | None = None, begins: bool = True) -> Recipe:
    """A built-in recipe by name, or a YAML file, and after a colon a variant that it has; `model`
    is the checkpoint to begin with, without which there is none where it `begins`. Raises
    UserError."""
    try:
        data = recipe_fields(name_or_path)
        # A checkpoint that is given takes the place of whatever the recipe begins with, a tiny model too.
        if model is not None:
            data = data | {"model": data.get("model", {}) | {"tiny": None, "path": model.resolve()}}
        recipe = Recipe(**data)
    except ValidationError as e:
        raise UserError(
            f"{recipe_file(name_or_path)[0]}: {'; '.join(map(_field_error, e.errors()))}"
        ) from e
    except (ValueError, TypeError, AttributeError) as e:
        reason = " ".join(str(e).split())
        raise UserError(
            f"{recipe_file(name_or_path)[0]} is not a YAML mapping of recipe fields: {reason}"
        ) from e
    # Not the schema's task: a built-in recipe names no checkpoint, and is right once --model gives one.
    if (
        begins
        and recipe.model.tiny is None
        and recipe.model.laptop is None
        and recipe.model.path is None
    ):
        base = f", a folder with {recipe.model.base}" if recipe.model.base else ""
        raise UserError(f"recipe {recipe.name} begins with a checkpoint: say --model PATH{base}")
    return recipe


def recipe_fields(
    name_or_path: str, folder: Path = Path(), heirs: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """What a recipe's file says, on top of the recipe that it is `like`, and its variant on top of that. `heirs`: the
    files that are like it. Raises UserError, ValueError."""
    path, variant = recipe_file(name_or_path, folder)
    file = path.resolve()
    if file in heirs:
        raise ValueError(f"it is like itself, by {' and '.join(p.name for p in heirs)}")
    try:
        file_fields: dict[str, Any] = parse_yaml(path.read_text())
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    variants: dict[str, Any] = file_fields.pop("variants", {})
    fields = _over(
        recipe_fields(file_fields.pop("like"), path.parent, (*heirs, file))
        if "like" in file_fields
        else {},
        file_fields,
    )
    if variant and variant not in variants:
        raise UserError(
            f"{path} has no variant {variant!r}; it has: {', '.join(variants) or 'none'}"
        )
    if variant:
        return _over(fields, {"name": f"{fields.get('name')}_{variant}"} | variants[variant])
    return fields


def _over(fields: dict[str, Any], new_fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of `new_fields` in place of others, section by section."""
    for name, value in new_fields.items():
        is_section = isinstance(value, dict) and isinstance(fields.get(name), dict)
        fields = fields | {name: {**fields[name], **value} if is_section else value}
    return fields


def adapting_recipe(model: Path) -> str:
    """The name of the built-in recipe that adapts a checkpoint of this kind to one episode."""
    if is_laptop(model):
        return OF_LAPTOPS
    return "procvlm_oneshot_lora"


def recipe_file(name_or_path: str, folder: Path = Path()) -> tuple[Path, str]:
    """The file of a built-in recipe and the variant that its name asks for; or the YAML file itself, seen from a
    folder. Raises UserError."""
    if name_or_path.endswith((".yaml", ".yml")):
        return folder / name_or_path, ""
    name, _, variant = name_or_path.partition(":")
    path = BUILT_IN / f"{name}.yaml"
    if not path.exists():
        recipe_names = ", ".join(sorted(p.stem for p in BUILT_IN.glob("*.yaml")))
        raise UserError(f"unknown recipe {name!r}; known: {recipe_names}, or a path to a YAML file")
    return path, variant


def _field_error(error: Any) -> str:
    """One error of pydantic's for people: the field, what is wrong, and what was probably meant."""
    field = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        if field:
            return f"{field}: {message[:1].lower() + message[1:]}"
        return message
    return f"{field}: no such field; {_meant(field)}"


def _meant(field_path: str) -> str:
    """Of an unknown field, which is a slip of spelling or stands in the wrong section: both are looked for."""
    section, _, key = field_path.rpartition(".")
    field_parts = [field.rpartition(".") for field in _fields(Recipe)]
    elsewhere = ["".join(parts) for parts in field_parts if parts[2] == key]
    siblings = [name for outer, _, name in field_parts if outer == section]
    if near := elsewhere or get_close_matches(key, siblings, n=1, cutoff=0.5):
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(siblings)}"


def _fields(section: type[BaseModel], outer: str = "") -> Iterator[str]:
    """The dotted names of all fields of a section and of the sections in it."""
    yield from (f"{outer}{name}" for name in section.model_fields)
    for name, field in section.model_fields.items():
        for kind in getattr(field.annotation, "__args__", None) or (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind, f"{outer}{name}.")
