"""The vision-language models in their transformers classes: loaded, made tiny, adapted, frozen, and divided into parts;
what of each layer is calculated anew for the backward pass, and whether it is compiled.

The class is chosen by what config.json says, never by a path. Nothing is unpickled, no remote code is run.

A tiny one has random weights, about 2 M, and a tokenizer made from the corpus: it trains on two CPU cores in minutes
and exercises every line that a 2B model does.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors import SafetensorError, safe_open
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from transformers import AutoProcessor, PreTrainedTokenizerFast
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import logging
from transformers.utils.peft_utils import check_peft_version

from training.attention import set_layers, text_attention
from training.folder import BACKBONES, CARD, ModelError, backbone_kind
from training.recipe import LoraConfig, TinyConfig, TrainConfig

# peft asks transformers by a name that it has a newer one for
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# As safetensors and torch call them
PRECISIONS = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
ADAPTER_FILE = "adapter_model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint that we have a class for. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(
            f"there is no checkpoint {folder}: give the folder of one that is on this machine"
        )
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config["model_type"]
    except FileNotFoundError as e:
        raise ModelError(f"{folder} is not a checkpoint: it has no config.json") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {e!r}") from e
    if kind not in BACKBONES:
        raise ModelError(
            f"{folder} holds a model of the type {kind!r}; known: {', '.join(BACKBONES)}"
        )
    return config


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The precision of a checkpoint's weights, as their files have it; None where they have several, or none."""
    dtypes = set[str]()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as weights:
            dtypes |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    floats = dtypes & PRECISIONS.keys()
    if len(floats) == 1:
        return PRECISIONS[floats.pop()]
    return None


def load_backbone(folder: Path, attention: str = "sdpa", **options: Any) -> Any:
    """A model in its transformers class, in the precision it is kept in unless `dtype` says another. ModelError."""
    logging.disable_progress_bar()  # one of ours is on the terminal already
    config = read_config(folder)
    # Pickled weights beside safetensors do no harm: they are never opened.
    if _pickles(folder) and not any(folder.glob("*.safetensors")):
        raise ModelError(_pickled(folder))
    try:
        # What was trained in bfloat16 by versions before 0.2 says that it is float32
        if (folder / CARD).exists():
            options = {"dtype": stored_dtype(folder) or "auto"} | options
        backbone = getattr(transformers, BACKBONES[config["model_type"]].model).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=text_attention(attention),
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as e:
        raise ModelError(f"the checkpoint {folder} cannot be loaded: {_short(e)}") from e
    set_layers(backbone, attention)
    return backbone


def empty_backbone(folder: Path, attention: str, dtype: torch.dtype) -> Any:
    """A checkpoint's model whose weights have any value: they are not read, another process gives them. ModelError."""
    backbone = sized_backbone(folder, dtype, text_attention(attention))
    # Memory that nobody writes to takes no room.
    backbone.to_empty(device="cpu")
    backbone.tie_weights()
    backbone.name_or_path = str(folder)
    set_layers(backbone, attention)
    return backbone


def sized_backbone(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """A model without weights, on the device `meta`, sized as a checkpoint's config.json says. Raises ModelError."""
    kind: Any = getattr(transformers, BACKBONES[read_config(folder)["model_type"]].model)
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return kind._from_config(config, dtype=dtype, attn_implementation=attention)


def load_processor(
    folder: Path, min_pixels: int | None = None, max_pixels: int | None = None
) -> Any:
    """The processor of a checkpoint; areas of pictures other than its own may be given. Raises ModelError."""
    try:
        processor: Any = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as e:
        raise ModelError(f"the processor of {folder} cannot be loaded: {_short(e)}") from e
    images = processor.image_processor
    size = {edge: px for edge, px in dict(images.size).items() if px is not None}
    # Areas, whatever they are called
    areas = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    areas = {edge: px for edge, px in areas.items() if px is not None}
    if areas and "height" in size:
        raise ModelError(
            f"{folder} sees pictures of {size['width']} x {size['height']} pixels: leave model.min_pixels and "
            "model.max_pixels out of the recipe"
        )
    images.size = size | areas
    if not hasattr(images, "merge_size"):
        _set_patches(images, read_config(folder))
    return processor


def _set_patches(images: Any, config: dict[str, Any]) -> None:
    """Let an image processor know how its model cuts pictures; it is saved with it."""
    images.patch_size = config["vision_config"]["patch_size"][0]
    images.merge_size = round(1 / config["downsample_ratio"])
    images.temporal_patch_size = 1


def _pickles(folder: Path) -> list[str]:
    return sorted(path.name for path in chain.from_iterable(map(folder.glob, PICKLED)))


def _pickled(folder: Path) -> str:
    return (
        f"{folder} keeps its weights pickled ({_pickles(folder)[0]}), which may run code when they are loaded; "
        "make safetensors of them: proccorpus model convert"
    )


def _short(e: Exception) -> str:
    return " ".join(str(e).split())[:300]


# Adapters


def add_adapter(backbone: Any, config: LoraConfig) -> None:
    """LoRA on linear layers of the language model; all else is frozen. Raises ModelError where none is so named."""
    backbone.add_adapter(adapter_settings(backbone, config))
    # transformers makes adapters in the precision of their base; in bfloat16 most steps round to nothing.
    for parameter in backbone.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def check_adapters_can_be_saved() -> None:
    """transformers loads and trains adapters with any peft, and asks for a version only when one is saved: after the
    training. Raises ModelError."""
    try:
        check_peft_version(MIN_PEFT_VERSION)
    except (ImportError, ValueError) as e:
        raise ModelError(
            f"transformers {transformers.__version__} saves adapters only with peft {MIN_PEFT_VERSION} or newer, and "
            f"{peft.__version__} is installed: install the versions of constraints.txt (docs/dependencies.md)"
        ) from e


def adapter_settings(backbone: Any, config: LoraConfig) -> Any:
    """peft's own form of our settings. Raises ModelError, also where `all-linear` would not be all that there is."""
    modules = ((n, m) for n, m in backbone.named_modules() if "language_model." in n)
    experts = {
        n
        for n, p in backbone.named_parameters()
        if "language_model." in n and ".experts." in n and p.ndim > 2
    }
    if experts and config.targets == "all-linear":
        raise ModelError(
            "lora.targets: all-linear would leave out the experts of this mixture, whose weights are no linear layers; "
            "name the layers to adapt, such as [q_proj, k_proj, v_proj, o_proj] for its attention"
        )
    linear = {n.rpartition(".")[2] for n, m in modules if isinstance(m, nn.Linear)}
    names = linear if config.targets == "all-linear" else set(config.targets)
    if unknown := sorted(names - linear):
        raise ModelError(
            f"lora.targets: no layer {unknown[0]!r}; the language model has {', '.join(sorted(linear))}"
        )
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        # Bound to the language model: layers of the vision tower may bear the same names.
        target_modules=rf".*language_model\..*\.({'|'.join(sorted(map(re.escape, names)))})",
        base_model_name_or_path=str(backbone.name_or_path),
        task_type="CAUSAL_LM",
    )


def has_adapter(backbone: Any) -> bool:
    return bool(getattr(backbone, "peft_config", None))


def load_adapter(backbone: Any, folder: Path) -> None:
    """Put the adapter of a folder on the model that it was made for. Raises ModelError."""
    if not (folder / ADAPTER_FILE).exists():
        raise ModelError(
            _pickled(folder) if _pickles(folder) else f"the adapter {folder} lacks {ADAPTER_FILE}"
        )
    try:
        backbone.load_adapter(str(folder))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as e:
        raise ModelError(f"the adapter {folder} cannot be loaded: {_short(e)}") from e


# Parts


TOWER = re.compile("|".join(sorted({kind.tower for kind in BACKBONES.values()})))
MERGER = re.compile("|".join(sorted({kind.merger for kind in BACKBONES.values()})))


def part(name: str) -> str:
    """Which part a parameter of a ProgressModel is of, by its name: head, merger, vision or language."""
    if name.startswith("head."):
        return "head"
    if MERGER.search(name):
        return "merger"
    return "vision" if TOWER.search(name) else "language"


def rates(config: TrainConfig) -> dict[str, float]:
    """Learning rate by part; 0 is frozen."""
    part_rates = {
        "merger": config.merger_lr,
        "vision": config.vision_lr,
        "head": config.head_lr,
        "language": None,
    }
    return {name: config.lr if rate is None else rate for name, rate in part_rates.items()}


def freeze(model: nn.Module, config: TrainConfig) -> None:
    """Parts with rate 0 learn nothing; what an adapter has frozen stays so."""
    by_part = rates(config)
    for name, parameter in model.named_parameters():
        if not by_part[part(name)]:
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Groups for an optimizer, by part; vectors (norms, biases) do not decay."""
    for name, rate in rates(config).items():
        learning = [p for n, p in model.named_parameters() if p.requires_grad and part(n) == name]
        for decay, is_matrix in ((config.weight_decay, True), (0.0, False)):
            if parameters := [p for p in learning if (p.ndim >= 2) is is_matrix]:
                yield {
                    "params": parameters,
                    "lr": rate,
                    "peak": rate,
                    "part": name,
                    "weight_decay": decay,
                }


SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# The turn format of Qwen chat models
CHAT_TEMPLATE = (Path(__file__).parent / "prompts" / "chat.jinja").read_text()


def make_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE tokenizer with Qwen's special tokens; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
        model_specific_special_tokens=NAMED_TOKENS,
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


# What a tokenizer of InternVL names, and what a processor of it writes around pictures by itself
NAMED_TOKENS = {
    "start_image_token": "<|vision_start|>",
    "end_image_token": "<|vision_end|>",
    "context_image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
UNMARKED = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>")


def make_processor(tokenizer: Any, config: TinyConfig) -> Any:
    kind = BACKBONES[config.family]
    settings: dict[str, Any] = {
        "patch_size": config.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": (2 * config.patch) ** 2, "longest_edge": config.max_px**2},
    }
    options: dict[str, Any] = {"chat_template": CHAT_TEMPLATE}
    if not kind.free_size:
        size = {"height": config.max_px, "width": config.max_px}
        settings |= {"temporal_patch_size": 1, "size": size}
        tokens = (config.max_px // config.patch // 2) ** 2
        options = {"chat_template": UNMARKED, "image_seq_length": tokens}
    return getattr(transformers, kind.processor)(
        image_processor=getattr(transformers, kind.images)(**settings),
        video_processor=getattr(transformers, kind.videos)(**settings),
        tokenizer=tokenizer,
        **options,
    )


def make_backbone(tokenizer: Any, config: TinyConfig, seed: int) -> Any:
    """Random weights, equal for equal seeds."""
    head_dim = config.hidden // config.heads
    rotary = head_dim // 2  # split over time, height and width
    sections = [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3]
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    text: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": config.hidden,
        "intermediate_size": 2 * config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads // 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 500000.0,
            "mrope_section": sections,
        },
    }
    vision = {
        "depth": config.vision_layers,
        "hidden_size": config.vision_hidden,
        "intermediate_size": 2 * config.vision_hidden,
        "num_heads": 4,
        "out_hidden_size": config.hidden,
        "patch_size": config.patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    _of_family(config, text, vision)
    model_class = getattr(transformers, BACKBONES[config.family].model)
    torch.manual_seed(seed)
    return model_class(
        model_class.config_class(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=True,
        )
    ).float()


def _of_family(config: TinyConfig, text: dict[str, Any], vision: dict[str, Any]) -> None:
    """Add what only some families have."""
    head_dim = config.hidden // config.heads
    if config.family == "internvl":
        del text["rope_parameters"]["mrope_section"]
        text["model_type"] = "qwen2"
        vision |= {
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": 4,
            "image_size": config.max_px,
        }
    elif config.family == "qwen2_5_vl":
        # Layers look at windows of 2x2 merged patches, the last one at the whole picture
        vision |= {
            "window_size": 4 * config.patch,
            "fullatt_block_indexes": [config.vision_layers - 1],
        }
    else:
        text["head_dim"] = head_dim
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 16 * 16, "deepstack_visual_indexes": [0]}
    if "qwen3_5" in config.family:
        del vision["deepstack_visual_indexes"]
        text["rope_parameters"]["partial_rotary_factor"] = 1.0
        # Layers with a state and one of attention by turns
        kinds = "linear_attention", "full_attention"
        text |= {
            "layer_types": [kinds[k % 2] for k in range(config.layers)],
            "linear_key_head_dim": head_dim,
            "linear_value_head_dim": head_dim,
            "linear_num_key_heads": config.heads // 2,
            "linear_num_value_heads": config.heads,
        }
    if "moe" in config.family:
        text |= {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": config.hidden,
            "shared_expert_intermediate_size": config.hidden,
        }


# Operators whose results are kept where `matmul` is: multiplications, and attention by any kernel
KEPT = re.compile(r"\.(mm|addmm|bmm|baddbmm|_?convolution)\.|attention|attn")


def layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of the language model and of the vision tower."""
    names: Any = backbone._no_split_modules
    return [m for m in backbone.modules() if type(m).__name__ in names]


def prepare_layers(backbone: nn.Module, train: TrainConfig, cache: Path | None) -> None:
    """Let each layer calculate as the recipe says. In place. `cache`: the folder where compiled layers stay for the
    next run; None: torch's own."""
    if train.compile:
        # PyTorch counts compilations of one function over all models of a process, and a ninth is an error
        torch.compiler.reset()
        if cache is not None:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    kind = backbone_kind(backbone)
    for layer in layers(backbone):
        forward: Any = layer.forward
        # Neither a layer that is called sample by sample is traced whole, nor one whose states are captured
        is_captured = not kind.free_size and "Vision" in type(layer).__name__
        is_whole = not is_captured and not (kind.state and hasattr(layer, kind.state))
        if train.recompute != "none":
            forward = recomputed(forward, train.recompute)
        if train.compile and is_whole:
            # Whole, or an error: a layer in pieces would be as slow as before, and nobody would know.
            forward = torch.compile(forward, fullgraph=True, dynamic=True)
        layer.forward = forward


def recomputed(forward: Any, choice: str) -> Any:
    """`forward`, of which less is kept for the backward pass: `matmul` keeps results of matrices and attention, `all`
    nothing but what it is given."""
    if choice == "all":
        return partial(checkpoint, forward, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, forward, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operator: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    if KEPT.search(str(operator)):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
