"""What a recipe takes of a machine: bytes of a GPU by part, tokens and seconds of a step, and whether it fits.

By arithmetic on the model's sizes; no weights are made. Bytes of state are exact (tested on real steps), those of
activations an estimate for the longest rows that a recipe allows, nine tokens in ten of them of pictures. Seconds are
those of a card at 40 % of its peak (EFFICIENCY), and of its memory's bandwidth where answers are drawn token by token.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from training.backbones import CLASSES, add_adapter, freeze, part, read_config
from training.errors import TrainingError
from training.flops import BANDWIDTH, PEAK, cost
from training.heads import make_head
from training.model import ProgressModel
from training.recipe import Recipe
from training.tiny import make_backbone, make_tokenizer

SIZES = Path(__file__).parent / "sizes"  # config.json of published models, without what says nothing of size
GB = 10**9
RESERVED = 6 * GB  # of a GPU: CUDA's and NCCL's own, one layer gathered whole, what lies in pieces
CACHE = 2 * GB  # for vLLM's keys and values, at least: some ten thousand tokens
MOST_OF_GPU = 0.9  # that vLLM takes
PICTURES = 0.9  # share of tokens
PATCHES = 4  # of a token of a picture
EFFICIENCY = 0.4
STATE = ("weights", "gradients", "optimizer", "copies for exchange", "reference model")  # all that is certain


@dataclass(frozen=True)
class Machine:
    """`gpus` of `memory` bytes each; `card`: one of flops.PEAK."""

    gpus: int
    memory: float
    card: str = "H100"


@dataclass(frozen=True)
class Plan:
    """Of one GPU of the machine: parameters by part of the model, and how many learn; bytes by part, rows and tokens of
    a step of all GPUs, seconds of it."""

    machine: Machine
    parameters: Mapping[str, int]
    learning: int
    bytes: Mapping[str, float]
    rows: int
    tokens: int
    seconds: float
    advice: str

    @property
    def needed(self) -> float:
        return sum(self.bytes.values())

    def wrong(self, certain: bool = False) -> str | None:
        """In a sentence, what does not fit; None where all does. `certain`: by the bytes of state alone."""
        needed = sum(self.bytes.get(name, 0) for name in STATE) + RESERVED if certain else self.needed
        if needed <= self.machine.memory:
            return None
        most = max(self.bytes, key=self.bytes.__getitem__)
        return (
            f"a GPU of {self.machine.memory / GB:.0f} GB does not hold the {needed / GB:.0f} GB that this takes of each of "
            f"{self.machine.gpus}, {self.bytes[most] / GB:.0f} GB of them for {most}: {self.advice}"
        )

    def facts(self) -> dict[str, Any]:
        """For people, in a table."""
        parts = {f"GB of {name}": round(value / GB, 3) for name, value in self.bytes.items() if value}
        counts = {f"parameters of {name}": count for name, count in self.parameters.items()}
        return {
            "machine": f"{self.machine.gpus} x {self.machine.card}, {self.machine.memory / GB:g} GB each",
            **counts,
            "parameters that learn": self.learning,
            **parts,
            "GB in all": round(self.needed / GB, 1),
            "rows a step": self.rows,
            "tokens a step, at most": self.tokens,
            "seconds a step, about": float(f"{self.seconds:.3g}"),
            "fits": self.wrong() or "yes",
        }


class _Sizes:
    """Of a recipe's model, without weights. Raises ModelError, TrainingError."""

    def __init__(self, recipe: Recipe) -> None:
        self.backbone = _empty(recipe)
        self.text, self.vision = self.backbone.config.get_text_config(), self.backbone.config.vision_config
        dtype = getattr(torch, recipe.train.dtype) if recipe.lora else torch.float32
        self.backbone.to(dtype)
        if recipe.lora:
            add_adapter(self.backbone, recipe.lora)
        with torch.device("meta"):
            head = make_head(recipe.head, self.text.hidden_size) if recipe.head else None
        self.model = ProgressModel(self.backbone, head)
        freeze(self.model, recipe.train)

    @cached_property
    def kv(self) -> int:
        """Width of keys, and of values."""
        heads = self.text.num_attention_heads
        return self.text.num_key_value_heads * getattr(self.text, "head_dim", self.text.hidden_size // heads)

    def bytes_of(self, learning: bool) -> float:
        return float(sum(p.nbytes for p in self.model.parameters() if p.requires_grad == learning))

    def layer(self, config: Any, tokens: float) -> float:
        """Bytes that one layer keeps for its backward pass of so many tokens, in bfloat16 but for the norms' inputs."""
        h = config.hidden_size
        return tokens * (2 * (6 * h + 3 * config.intermediate_size) + 8 * h)


def _empty(recipe: Recipe) -> Any:
    """The model that a recipe begins with, on no device."""
    import transformers

    if recipe.model.tiny:
        tokenizer = make_tokenizer(["a"], recipe.model.tiny.vocabulary)
        with torch.device("meta"):
            return make_backbone(tokenizer, recipe.model.tiny, 0)
    if recipe.model.path:
        read_config(recipe.model.path)  # raises ModelError
        sizes = recipe.model.path
    else:
        sizes = next((f for f in sorted(SIZES.glob("*.json")) if f.stem in recipe.model.base), None)
    if sizes is None:
        raise TrainingError(f"the size of the model of recipe {recipe.name} is not known: say --model PATH")
    config: Any = transformers.AutoConfig.from_pretrained(sizes, local_files_only=True)
    with torch.device("meta"):
        return getattr(transformers, CLASSES[config.model_type])._from_config(config)


def plan(recipe: Recipe, machine: Machine) -> Plan:
    """Raises TrainingError for a recipe that takes no such arithmetic, and for a card that is not known; ModelError."""
    if recipe.model.laptop:
        raise TrainingError("--plan: a laptop model trains on a CPU, in a few hundred MB")
    if machine.card not in PEAK:
        raise TrainingError(f"--card: {machine.card!r} is not known: {', '.join(PEAK)}")
    sizes, train, grpo = _Sizes(recipe), recipe.train, recipe.grpo
    divided = train.distributed == "fsdp" and machine.gpus > 1
    shards, half = machine.gpus if divided else 1, train.dtype == "bfloat16"
    learning, frozen = sizes.bytes_of(True), sizes.bytes_of(False)
    of_row = recipe.data.sequence_length + (grpo.max_completion if grpo else 0)
    tokens = train.batch * of_row
    patches = PATCHES * PICTURES * train.batch * recipe.data.sequence_length
    parameters = Counter[str]()
    for name, parameter in sizes.model.named_parameters():
        parameters[part(name)] += parameter.numel()
    whole = sum(parameters.values())
    needs = {
        "weights": (learning + frozen) / shards,
        "gradients": learning / shards,
        "optimizer": 2 * learning / shards,
        "copies for exchange": learning if machine.gpus > 1 and not divided else 0,
        "reference model": 4 * whole / shards if grpo and grpo.kl_coef and not recipe.lora else 0,
        "bfloat16 copies": learning / 2 if half and not divided else 0,
        "activations": _activations(sizes, recipe, tokens, patches, half, divided),
    }
    if grpo:
        needs["logits"] = 8.0 * train.batch * grpo.max_completion * sizes.text.vocab_size
    else:
        needs["logits"] = 10 * (1 - PICTURES) / 2 * tokens * sizes.text.vocab_size * bool(train.text_weight)
    if grpo and grpo.rollouts != "transformers":
        # It sleeps while there is learning: what counts is what it has beyond what is not there meanwhile
        there = sum(needs[name] for name in ("gradients", "bfloat16 copies", "activations", "logits"))
        needs["vLLM beyond these"] = max(0.0, 2 * whole + CACHE - there)
    needs["CUDA and pieces"] = RESERVED
    step = train.accumulation * machine.gpus
    seconds = _learning_seconds(sizes, recipe, machine, of_row, patches)
    seconds += _drawing_seconds(sizes, recipe, machine, whole) if grpo else 0
    count = sum(p.numel() for p in sizes.model.parameters() if p.requires_grad)
    return Plan(machine, parameters, count, needs, train.batch * step, tokens * step, seconds, _advice(recipe, divided))


def _activations(sizes: _Sizes, recipe: Recipe, tokens: float, patches: float, half: bool, divided: bool) -> float:
    """What is kept for the backward pass: of each layer its input, and all of the one that is calculated anew; or all of
    each. Nothing of a tower before which nothing learns."""
    sees = any(p.requires_grad for p in sizes.backbone.model.visual.parameters())
    text, vision = sizes.layer(sizes.text, tokens), sizes.layer(sizes.vision, patches) * sees
    layers, depth, wide = sizes.text.num_hidden_layers, sizes.vision.depth, 1 if half else 2
    if not recipe.train.gradient_checkpointing:
        return wide * (layers * text + depth * vision)
    # Autocast leaves what goes from layer to layer of the text as its embeddings are
    kept = 2 if half and (divided or recipe.lora) else 4
    inputs = tokens * sizes.text.hidden_size * layers * kept
    return inputs + wide * (2 * patches * sizes.vision.hidden_size * depth * sees + max(text, vision))


def _learning_seconds(sizes: _Sizes, recipe: Recipe, machine: Machine, of_row: int, patches: float) -> float:
    found, train = cost(sizes.backbone), recipe.train
    flops = train.batch * (found.language * of_row + found.language_attention * of_row**2)
    flops += found.vision * patches + found.output * (1 - PICTURES) / 2 * train.batch * of_row
    passes = (4 if train.gradient_checkpointing else 3) + (2 if recipe.grpo else 0)  # and both other probabilities
    return train.accumulation * flops * passes / 3 / (EFFICIENCY * PEAK[machine.card])


def _drawing_seconds(sizes: _Sizes, recipe: Recipe, machine: Machine, whole: int) -> float:
    """Each token reads all weights, and the keys and values of all answers that are drawn at once."""
    assert recipe.grpo is not None
    answers, longest = recipe.train.batch * recipe.train.accumulation, recipe.grpo.max_completion
    of_token = 4 * sizes.kv * sizes.text.num_hidden_layers  # bytes of keys and values
    reads = longest * (2 * whole + answers * of_token * (recipe.data.sequence_length + longest / 2))
    prompts = answers * 2 * whole * recipe.data.sequence_length / (EFFICIENCY * PEAK[machine.card])
    return reads / BANDWIDTH[machine.card] + prompts


def _advice(recipe: Recipe, divided: bool) -> str:
    train = recipe.train
    ways = {
        "take more GPUs" if train.distributed == "fsdp" else "more GPUs with train.distributed: fsdp": not recipe.lora,
        f"lower train.batch (now {train.batch}) and raise train.accumulation": train.batch > 1,
        "set train.gradient_checkpointing": not train.gradient_checkpointing,
        f"lower data.sequence_length (now {recipe.data.sequence_length})": True,
    }
    return ", or ".join(way for way, helps in ways.items() if helps)


def check_start(recipe: Recipe, world: int) -> None:
    """Raises TrainingError where the state of a run cannot fit in the GPUs that are here."""
    if torch.cuda.is_available():
        card = next((name for name in PEAK if name in torch.cuda.get_device_name(0)), "H100")
        machine = Machine(world, torch.cuda.get_device_properties(0).total_memory, card)
        if wrong := plan(recipe, machine).wrong(certain=True):
            raise TrainingError(wrong)


def vllm_share(gpu: int, learning: int, frozen: int, processes: int, reference: bool) -> float:
    """Share of a GPU of so many bytes that vLLM can have while it generates, the training's state beside it.

    `learning`, `frozen`: weights that learn, in float32 with Adam's two moments (12 bytes), and those that do not (2
    bytes), divided among `processes`; `reference`: a second model in float32 (4 bytes) that the distance is measured
    from. Gradients and activations are not there then, and vLLM sleeps while they are. Raises TrainingError where
    vLLM's own weights (bfloat16) and a small cache do not fit.

    Example: 3.75 G weights on 4 GPUs of 80 GB: 16 bytes x 3.75 G / 4 are 15 GB; 80 - 15 - 6 are 59, a share of 0.73.
    """
    state = (12 * learning + 2 * frozen + (4 * (learning + frozen) if reference else 0)) / processes
    share = min(MOST_OF_GPU, (gpu - state - RESERVED) / gpu)
    needed = 2 * (learning + frozen) + CACHE
    if share * gpu < needed:
        raise TrainingError(
            f"a GPU of {gpu / GB:.0f} GB has no room for vLLM: {state / GB:.0f} GB are the training's, "
            f"{needed / GB:.0f} GB it needs itself: take more GPUs with train.distributed: fsdp"
        )
    return int(100 * share) / 100
