"""What a recipe takes of a machine: bytes of a GPU by part, tokens and seconds of a step, and whether it fits.

By arithmetic on the model's sizes. Bytes of state are exact, those of activations an estimate for the longest rows that
a recipe allows, by how much of a layer is calculated anew (train.recompute). Seconds are those of multiplications at
70 % of a card's peak and of what all else moves through its memory at 80 % of its bandwidth, and a quarter more;
answers are drawn at the memory's bandwidth.

FLOPs of a step, recomputation not counted:
  2 P n                    forward, for each linear layer of P weights applied to n tokens (or patches)
  4 L d sum(t^2) c         forward, attention of L layers of width d over sequences of t; c = 1/2 where it is causal
and the backward pass as much again for the gradient of what comes in, and as much again for that of the weights; the
first is needed where anything trained lies before, the second where the weights are trained themselves. What layers
with a state multiply beside their weights, some hundredths, is left out.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from annotate.embeddings import missing_download
from annotate.embeddings.encoders import load_encoder
from training.backbones import (
    add_adapter,
    freeze,
    make_backbone,
    make_tokenizer,
    part,
    sized_backbone,
)
from training.folder import TrainingError, is_laptop
from training.laptop.model import LaptopModel, embed, load_laptop
from training.model import ProgressModel, make_head
from training.recipe import OF_LAPTOPS, Recipe
from training.transform import IGNORE, Batch

# Dense bfloat16, FLOP/s, as the makers state
PEAK = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
    "B200": 2250e12,
}
# Bytes of memory, 1/s
BANDWIDTH = {
    "H200": 4.8e12,
    "H100": 3.35e12,
    "A100": 2e12,
    "L40S": 8.6e11,
    "L4": 3e11,
    "4090": 1e12,
    "B200": 8e12,
}


@dataclass(frozen=True)
class Flops:
    """FLOPs of training on what is given, one token or patch each, by part of the model."""

    language: float
    output: float  # the layer that gives logits: on answer tokens alone
    vision: float
    language_attention: float  # by the square of a sequence's length
    vision_attention: float

    def of(self, batch: Batch) -> float:
        """FLOPs of a step on a batch, forward and backward; padding is not counted."""
        # Packed or not, attention costs by the square of each item's own length, not of the row's.
        lengths = batch["item_mask" if "item_mask" in batch else "attention_mask"].sum(-1)
        flops = self.language * float(lengths.sum()) + self.language_attention * float(
            (lengths.double() ** 2).sum()
        )
        flops += self.output * float((batch["labels"] != IGNORE).sum())
        if "image_grid_thw" in batch:
            patches = batch["image_grid_thw"].prod(-1).double()
            flops += self.vision * float(patches.sum()) + self.vision_attention * float(
                (patches**2).sum()
            )
        return flops


def cost(backbone: Any) -> Flops:
    """Of a model as it is frozen now: the parameters that learn say what of the backward pass there is."""
    text = backbone.config.get_text_config()
    vision = backbone.config.vision_config
    heads = text.num_attention_heads * getattr(
        text, "head_dim", text.hidden_size // text.num_attention_heads
    )
    out = backbone.lm_head.weight
    in_model = _multiplied(backbone.model)
    # Gradients pass through all that lies after a part that learns; the vision tower comes first.
    learning = {part(name) for name, p in in_model.items() if p.requires_grad}
    in_tower = not learning.isdisjoint(("vision", "merger"))
    anywhere = bool(learning)
    merged = _squares_side(backbone.config) ** 2
    flops = Counter[str]()
    for name, p in in_model.items():
        place = part(name)
        # Nothing before the pixels learns.
        has_gradient = anywhere if place == "language" else in_tower and "patch_embed" not in name
        count = 2 * p.numel() * (1 + has_gradient + p.requires_grad)
        flops[place] += count / merged if place == "merger" else count  # type: ignore[assignment]
    kinds: list[str] = getattr(text, "layer_types", None) or []
    attentive = text.num_hidden_layers - kinds.count("linear_attention")
    return Flops(
        language=flops["language"],
        output=2 * out.numel() * (1 + anywhere + out.requires_grad),
        vision=flops["vision"] + flops["merger"],
        language_attention=4 * attentive * heads * 0.5 * (1 + 2 * anywhere),
        vision_attention=4 * _depth(vision) * vision.hidden_size * (1 + 2 * in_tower),
    )


def _multiplied(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that each token or patch is multiplied by. Tables that are looked up in are none."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        f".{name}": p for name, p in model.named_parameters() if p.ndim >= 2 and id(p) not in tables
    }


def _depth(vision: Any) -> int:
    return getattr(vision, "depth", None) or vision.num_hidden_layers


def _squares_side(config: Any) -> int:
    """Patches along a side of the square that becomes one token."""
    if hasattr(config, "downsample_ratio"):
        return round(1 / config.downsample_ratio)
    return config.vision_config.spatial_merge_size


def card_here() -> str | None:
    """The name in PEAK of this machine's GPU; None where there is none, or one that is not known."""
    # The full name has more in it: NVIDIA H100 80GB HBM3.
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return next((card for card in PEAK if card in name), None)


SIZES = Path(__file__).parent / "sizes"  # of published models, by name: a folder with a config.json
GB = 10**9
RESERVED = 6 * GB  # of a GPU: CUDA's and NCCL's own, one layer gathered whole, what lies in pieces
CACHE = 2 * GB  # for vLLM's keys and values, at least: some ten thousand tokens
MOST_OF_GPU = 0.9  # that vLLM takes
PICTURES = 0.9  # share of tokens
PATCHES = 4  # of each of these tokens
ANSWERS = 0.05  # share of tokens with a loss
EFFICIENCY = 0.4  # of a card's peak, where a prompt is read
OF_PEAK, OF_BANDWIDTH, SLOWER = 0.7, 0.8, 1.25  # the last is what an H200 took over this
# Of a layer and a token, in its inputs of all multiplications (_unit), by train.compile and train.recompute; of text
# and of pictures: bytes kept until the backward pass, and bytes that pass through memory beside multiplications
KEPT_UNITS = {
    (False, "none"): (1.67, 1.13), (False, "matmul"): (0.63, 0.5),
    (True, "none"): (1.08, 0.91), (True, "matmul"): (0.63, 0.5),
}  # fmt: skip
MOVED_UNITS = {
    (False, "none"): (24.4, 10.7), (False, "matmul"): (32.1, 15.0), (False, "all"): (32.1, 15.0),
    (True, "none"): (4.5, 3.5), (True, "matmul"): (6.5, 5.0), (True, "all"): (6.5, 5.0),
}  # fmt: skip
OUTSIDE_UNITS = 20  # of text, outside of layers
OF_WEIGHT = 12  # bytes of a micro-batch for each weight that learns
CERTAIN = (
    "weights",
    "gradients",
    "optimizer",
    "copies for exchange",
    "reference model",
    "CUDA and pieces",
)


class Machine(NamedTuple):
    """`gpus` of `memory` bytes each; `card`: one of PEAK."""

    gpus: int
    memory: float
    card: str = "H100"

    @classmethod
    def named(cls, text: str) -> "Machine":
        """Of 8x80 or 8x80xH100: GPUs, GB of each, and card. Raises TrainingError."""
        match = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)(?:x(\w+))?", text)
        card = match[3] or "H100" if match else ""
        if not match or card not in PEAK or not int(match[1]) * float(match[2]):
            raise TrainingError(
                f"{text!r} is no machine: 8x80xH100 are eight of 80 GB; known: {', '.join(PEAK)}"
            )
        return cls(int(match[1]), float(match[2]) * GB, card)


class Choice(NamedTuple):
    """What a step takes by how much is calculated anew: bytes of a GPU, seconds."""

    bytes: float
    seconds: float


class Plan(NamedTuple):
    """parameters by part of the model, and how many learn; bytes of a GPU by part; rows, tokens (at most) and
    seconds of a step of all GPUs; and what each choice of train.recompute would take."""

    machine: Machine
    parameters: Mapping[str, int]
    learning: int
    bytes: Mapping[str, float]
    rows: int
    tokens: int
    seconds: float
    less: str  # what to lower or set
    choices: Mapping[str, Choice] = MappingProxyType({})

    def fastest(self) -> str | None:
        """The choice of train.recompute that fits and takes the least time."""
        fitting = [
            name for name, choice in self.choices.items() if choice.bytes <= self.machine.memory
        ]
        return min(fitting, key=lambda name: self.choices[name].seconds, default=None)

    def wrong(self, names: tuple[str, ...] = ()) -> str | None:
        """What does not fit, in a sentence, of all parts or of some; None where it does."""
        parts = {k: v for k, v in self.bytes.items() if k in names or not names}
        needed = sum(parts.values())
        largest = max(parts, key=parts.__getitem__)
        if needed <= self.machine.memory:
            return None
        return (
            f"{needed / GB:.0f} GB are needed of each of {self.machine.gpus} GPUs with {self.machine.memory / GB:.0f}, "
            f"{parts[largest] / GB:.0f} of them for {largest}: {self.less}"
        )

    def vllm_share(self) -> float:
        """Of a GPU's memory, what vLLM can have while it generates, the training's state beside it: gradients and
        activations are not there then, and vLLM sleeps while they are. Raises TrainingError where its own weights
        (bfloat16) and a small cache do not fit."""
        state = sum(self.bytes[k] for k in ("weights", "optimizer", "reference model"))
        gpu = self.machine.memory
        share = min(MOST_OF_GPU, (gpu - state - RESERVED) / gpu)
        needed = 2 * sum(self.parameters.values()) + CACHE
        if share * gpu < needed:
            raise TrainingError(
                f"a GPU of {gpu / GB:.0f} GB has no room for vLLM: {state / GB:.0f} GB are the training's, "
                f"{needed / GB:.0f} GB it needs itself: take more GPUs with train.distributed: fsdp"
            )
        return int(100 * share) / 100

    def facts(self) -> dict[str, Any]:
        """For people, in a table."""
        return {
            "machine": f"{self.machine.gpus} x {self.machine.card}, {self.machine.memory / GB:g} GB each",
            **{f"parameters of {name}": count for name, count in self.parameters.items()},
            "parameters that learn": self.learning,
            **{
                f"GB of {name}": round(value / GB, 3) for name, value in self.bytes.items() if value
            },
            "GB in all": round(sum(self.bytes.values()) / GB, 1),
            "rows a step": self.rows,
            "tokens a step, at most": self.tokens,
            "seconds a step, about": float(f"{self.seconds:.3g}"),
            **{
                f"with train.recompute {name}": f"{choice.bytes / GB:.1f} GB, {choice.seconds:.3g} s"
                for name, choice in self.choices.items()
            },
            "train.recompute, fastest here": self.fastest() or "none fits",
            "fits": self.wrong() or "yes",
        }


def plan_on(recipe: Recipe, machine: str | None) -> Plan:
    """On a machine as `Machine.named` takes it, else on the one that the recipe names."""
    own_machine = f"{recipe.machine.gpus}x{recipe.machine.memory_gb:g}"
    return plan(recipe, Machine.named(machine or own_machine))


def plan(recipe: Recipe, machine: Machine) -> Plan:
    """Raises TrainingError for a model whose size is not known, ModelError for a checkpoint that cannot be read."""
    model = _model(recipe)
    recompute_choices = ("none", "all") if recipe.kind == "grpo" else ("none", "matmul", "all")
    plans = {
        name: _planned(model, _recomputed(recipe, name), machine) for name in recompute_choices
    }
    choices = {
        name: Choice(sum(choice_plan.bytes.values()), choice_plan.seconds)
        for name, choice_plan in plans.items()
    }
    return plans[recipe.train.recompute]._replace(choices=choices, less=less(recipe))


def _recomputed(recipe: Recipe, choice: str) -> Recipe:
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"recompute": choice})}
    )


def _planned(model: ProgressModel, recipe: Recipe, machine: Machine) -> Plan:
    train = recipe.train
    text = model.backbone.config.get_text_config()
    vision = model.backbone.config.vision_config
    answer = recipe.grpo.max_completion if recipe.grpo else 0
    batch_tokens = train.batch * recipe.data.longest
    tokens = batch_tokens + train.batch * answer
    patches = PATCHES * PICTURES * batch_tokens
    answers = train.batch * answer or ANSWERS * tokens * bool(train.text_weight)
    parameters = Counter[str]()
    learns = Counter[str]()
    for name, parameter in model.named_parameters():
        parameters[part(name)] += parameter.numel()
        learns[part(name)] += parameter.numel() * parameter.requires_grad
    whole = sum(parameters.values())
    count = sum(learns.values())
    sees = learns["vision"] + learns["merger"] > 0
    needs = _state(whole, count, recipe, machine) | {
        "activations of text": _kept(text, text.num_hidden_layers, tokens, train, 0),
        "activations of pictures": _kept(vision, _depth(vision), patches, train, 1) * sees,
        "logits": 8.0 * answers * text.vocab_size,
    }
    passes = cost(model.backbone)
    steps = train.accumulation * machine.gpus
    flops = (
        passes.language * tokens
        + passes.language_attention * tokens**2 / train.batch
        + passes.output * answers
    )
    traffic = (
        _moved(text, text.num_hidden_layers, tokens, train, 0)
        + OUTSIDE_UNITS * _unit(text, train) * tokens
    )
    traffic += (
        _moved(vision, _depth(vision), patches, train, 1) * (1 if sees else 1 / 3)
        + OF_WEIGHT * count
    )
    seconds = _seconds(recipe, machine, flops + passes.vision * patches, traffic, text, whole)
    return Plan(machine, parameters, count, needs, train.batch * steps, tokens * steps, seconds, "")


def _state(whole: int, count: int, recipe: Recipe, machine: Machine) -> dict[str, float]:
    """Bytes that are there whatever the batch, of `whole` parameters, of which `count` learn."""
    divided = recipe.train.distributed == "fsdp" and machine.gpus > 1
    half = recipe.train.dtype == "bfloat16"
    num_shards = machine.gpus if divided else 1
    learning = 4.0 * count
    refers = recipe.grpo and recipe.grpo.kl_coef and not recipe.lora
    frozen = (whole - count) * (4 - 2 * (half and recipe.lora is not None))
    return {
        "weights": (learning + frozen) / num_shards,
        "gradients": learning / num_shards,
        "optimizer": 2 * learning / num_shards,
        "copies for exchange": learning * (machine.gpus > num_shards),
        "reference model": 4 * whole / num_shards * bool(refers),
        "CUDA and pieces": RESERVED,
        "bfloat16 copies": learning / 2 * (half and not divided),
    }


def _seconds(
    recipe: Recipe, machine: Machine, flops: float, traffic: float, text: Any, whole: int
) -> float:
    """Of a step, of micro-batches of so many FLOPs and bytes that pass through memory; each token that is drawn reads
    all weights, and keys and values of all answers drawn at once."""
    train = recipe.train
    grpo = recipe.grpo
    prompt_tokens = recipe.data.sequence_length
    # With the old and the start's model
    passes = (4 if train.recompute == "all" else 3) + (2 if grpo else 0)
    speed = EFFICIENCY * PEAK[machine.card]
    bandwidth = BANDWIDTH[machine.card]
    products = flops * passes / 3 / (OF_PEAK * PEAK[machine.card])
    learning = SLOWER * train.accumulation * (products + traffic / (OF_BANDWIDTH * bandwidth))
    if not grpo:
        return learning
    drawn = train.batch * train.accumulation
    width = getattr(text, "head_dim", 128)
    of_token = 4 * text.num_key_value_heads * width * text.num_hidden_layers
    reads = grpo.max_completion * (
        2 * whole + drawn * of_token * (prompt_tokens + grpo.max_completion / 2)
    )
    return learning + reads / BANDWIDTH[machine.card] + drawn * 2 * whole * prompt_tokens / speed


def less(recipe: Recipe) -> str:
    """Which of a recipe's settings lower the need of memory."""
    return (
        f"lower train.batch (now {recipe.train.batch}) and raise train.accumulation, lower data.sequence_length (now "
        f"{recipe.data.sequence_length}) or model.max_pixels, set train.recompute, or take more GPUs with "
        "train.distributed: fsdp"
    )


def _unit(sizes: Any, train: Any) -> float:
    """Bytes of a token in a layer, as it goes into each multiplication once: what others are told in."""
    wide = 1 if train.dtype == "bfloat16" else 2
    return wide * (
        2 * (6 * sizes.hidden_size + 3 * sizes.intermediate_size) + 8 * sizes.hidden_size
    )


def _kept(sizes: Any, layers: int, tokens: float, train: Any, unit: int) -> float:
    """Bytes for the backward pass of a tower, of text (0) or pictures (1): each layer's input, and all of one layer,
    calculated anew; or more of each."""
    layer = _unit(sizes, train) * tokens
    wide = 1 if train.dtype == "bfloat16" else 2
    if train.recompute == "all":
        return 2 * wide * tokens * sizes.hidden_size * layers + layer
    return layers * layer * KEPT_UNITS[train.compile, train.recompute][unit]


def _moved(sizes: Any, layers: int, tokens: float, train: Any, unit: int) -> float:
    """Bytes that pass through memory in a tower, beside multiplications."""
    return layers * tokens * _unit(sizes, train) * MOVED_UNITS[train.compile, train.recompute][unit]


def _model(recipe: Recipe) -> ProgressModel:
    """The model that a recipe begins with, frozen and adapted as it says, on no device."""
    tiny = recipe.model.tiny
    dtype = getattr(torch, recipe.train.dtype) if recipe.lora else torch.float32
    size_folders = (
        folder for folder in sorted(SIZES.iterdir()) if folder.name in recipe.model.base
    )
    sizes: Any = recipe.model.path or next(size_folders, None)
    if not (tiny or sizes):
        raise TrainingError(
            f"recipe {recipe.name} does not say how large its model is: --model PATH does, of a checkpoint"
        )
    with torch.device("meta"):
        words = make_tokenizer(["a"], tiny.vocabulary) if tiny else None
        if tiny:
            backbone = make_backbone(words, tiny, 0).to(dtype)
        else:
            backbone = sized_backbone(sizes, dtype)
        if recipe.head:
            head = make_head(recipe.head, backbone.config.get_text_config().hidden_size)
        else:
            head = None
    if recipe.lora:
        add_adapter(backbone, recipe.lora)
    model = ProgressModel(backbone, head)
    freeze(model, recipe.train)
    return model


def of_this_machine(recipe: Recipe, world: int) -> Plan | None:
    """On `world` GPUs as they are here; None where there is none. Raises TrainingError where the state cannot fit."""
    if not torch.cuda.is_available() or recipe.model.laptop:
        return None
    memory = torch.cuda.get_device_properties(0).total_memory
    machine_plan = plan(recipe, Machine(world, memory, card_here() or "H100"))
    if wrong := machine_plan.wrong(CERTAIN):
        raise TrainingError(wrong)
    return machine_plan


KB = 10**3
MB = 10**6
BYTES_OF_NUMBER = 2  # of an embedding that training keeps
STATE = 16  # bytes of a parameter that learns: weight, gradient and two of the optimizer
NOT_KNOWN = "not known: --model PATH says it, of a checkpoint"


def plan_facts(recipe: Recipe, machine: str | None) -> tuple[dict[str, Any], bool]:
    """For people, in a table; and does the recipe fit the machine, as far as is known? Raises what `plan_on` and
    `load_encoder` raise."""
    if machine is not None:
        Machine.named(machine)  # a wrong one is refused whatever the recipe
    path = recipe.model.path
    begins_with_laptop = path is not None and is_laptop(path)
    if recipe.model.laptop or recipe.name == OF_LAPTOPS or begins_with_laptop:
        return _of_laptop(recipe), True
    if not _has_size(recipe):
        return _of_recipe(recipe), True
    machine_plan = plan_on(recipe, machine)
    return machine_plan.facts(), machine_plan.wrong() is None


def _has_size(recipe: Recipe) -> bool:
    if recipe.model.tiny or recipe.model.path:
        return True
    return any(folder.name in recipe.model.base for folder in SIZES.iterdir())


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    train = recipe.train
    return {
        "parameters": NOT_KNOWN,
        "rows a step of one GPU": train.batch * train.accumulation,
        "tokens a step of one GPU, at most": train.batch
        * train.accumulation
        * recipe.data.sequence_length,
        "steps": train.steps or f"by train.epochs ({train.epochs}), of the release's rows",
        "fits": NOT_KNOWN,
    }


def _of_laptop(recipe: Recipe) -> dict[str, Any]:
    model, why_not = _laptop_model(recipe)
    sizes: dict[str, Any] = {"parameters": why_not}
    if model is not None:
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        sizes = {
            "encoder, which does not learn": model.config.encoder,
            "parameters that learn": learning,
            "MB of weights, gradients and optimizer": round(STATE * learning / MB, 1),
            "kB kept of each picture": round(
                BYTES_OF_NUMBER * model.width * model.config.views / KB, 1
            ),
        }
    steps = {"windows a step": recipe.train.batch, "steps": recipe.train.steps}
    return (
        {"machine": "a CPU; a GPU where there is one"}
        | sizes
        | steps
        | {"fits": "yes: laptop models are small"}
    )


def _laptop_model(recipe: Recipe) -> tuple[LaptopModel | None, str]:
    """The model that a recipe begins with, or why it cannot be known here."""
    if recipe.model.path is not None:
        return load_laptop(recipe.model.path)[0], ""
    config = recipe.model.laptop
    if config is None:
        return None, NOT_KNOWN
    if missing := missing_download(config.embeddings):
        return None, f"not known here: {missing}"
    black = np.zeros((64, 64, 3), np.uint8)
    width = embed(load_encoder(config.embeddings), [black]).shape[1]
    return LaptopModel(config, width, config.most_frames), ""
