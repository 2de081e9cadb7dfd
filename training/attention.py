"""Attention: what a recipe may name, and how packed samples and pictures are kept apart by each.

Samples of a batch that is packed, and pictures always, lie in one row, and `bounds` (cumulative lengths) say where each
begins. Flash kernels take these. For the others there are functions of ours, which transformers calls by name:

  sdpa            one call of SDPA for all blocks of one length; no mask, and nothing outside the blocks is calculated
  varlen          torch's own flash kernel on a GPU in half precision, else as sdpa
  flex_attention  compiled, with a mask of blocks (text); pictures as with sdpa
  eager           transformers' own: a dense mask (text), picture by picture
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from core.errors import FailedError
from training.recipe import FLASH

# By the recipe's name: what transformers calls for text and for pictures. All pictures are given in one call only where
# "flash" is in the name.
OURS = {
    "sdpa": ("blocks", "flash_blocks"),
    "varlen": ("varlen", "flash_varlen"),
    "flex_attention": ("flex", "flash_blocks"),
}
Bounds = torch.Tensor  # int32 [n + 1]
States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # queries, keys, values


def set_attention(backbone: Any, name: str) -> None:
    """Let a model that is loaded use the attention of a recipe. Raises ValueError or ImportError where it cannot."""
    backbone.set_attn_implementation(text_attention(name))
    set_vision(backbone, name)


def text_attention(name: str) -> str:
    """What transformers is given to load a model; `set_vision` comes after."""
    _register()
    return OURS[name][0] if name in OURS else name


def set_vision(backbone: Any, name: str) -> None:
    """Not asked for when a model is loaded: transformers would look for a flash kernel of our name."""
    backbone.model.visual.config._attn_implementation = OURS[name][1] if name in OURS else name


# What a model is given beside its inputs


def image_features(backbone: Any, pixels: torch.Tensor, grids: torch.Tensor) -> Any:
    """The vision tower on pictures of patch grids [n, 3] (t, h, w), as transformers' `mm_encoder_outputs` wants them.

    Places of patches are put together from those of each size: transformers makes them anew for each picture.
    """
    vision = backbone.model.visual.config
    shapes, device = [tuple(g) for g in grids.tolist()], grids.device
    merge = vision.spatial_merge_size
    more: dict[str, Any] = {"position_ids": torch.cat([_places(s, merge) for s in shapes]).to(device)}
    if getattr(vision, "window_size", None):
        index, lengths, at = [], [], 0
        for shape in shapes:
            own, sizes = _windows(shape, merge, vision.window_size, vision.patch_size)
            index.append(own + at)
            lengths += sizes
            at += len(own)
        more["window_index"] = torch.cat(index).to(device)
        more["cu_window_seqlens"] = _bounds(lengths, device)
        more["max_window_seqlen"] = max(lengths)
    frames = [h * w for t, h, w in shapes for _ in range(t)]
    more |= {"cu_seqlens": _bounds(frames, device), "max_seqlen": max(frames)}
    return backbone.model.get_image_features(pixels, grids, return_dict=True, **more)


# What is remembered is made outside of inference mode: training could not use it otherwise.
@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _places(shape: tuple[int, int, int], merge: int) -> torch.Tensor:
    from transformers.vision_utils import get_vision_position_ids

    return get_vision_position_ids(torch.tensor([shape]), merge)


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _windows(shape: tuple[int, int, int], merge: int, window: int, patch: int) -> tuple[torch.Tensor, list[int]]:
    """Merged patches of a picture by window, and the patches of each window (Qwen2.5-VL)."""
    from transformers.vision_utils import get_vision_window_index

    index, bounds = get_vision_window_index(torch.tensor([shape]), merge, window, patch)
    return index, bounds.diff().tolist()


def packed_inputs(backbone: Any, position_ids: torch.Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """Inputs that keep samples of `lengths` apart which were packed into rows with places [4, b, t] (text, then time,
    height, width). Raises FailedError for several rows where it is done by bounds."""
    name = backbone.config.get_text_config()._attn_implementation
    # A mask is made of the text's places, where they begin anew.
    if name not in {text for text, _ in OURS.values() if text != "flex"} and not FLASH.fullmatch(name):
        return {"position_ids": position_ids}
    rows, tokens = position_ids.shape[1:]
    if rows != 1 or sum(lengths) != tokens:
        raise FailedError(
            f"attention by {name} takes packed samples in one row without padding, and was given {rows} rows of "
            f"{tokens} tokens for samples of {sum(lengths)}: samples of a row would see each other"
        )
    bounds, longest = _bounds(lengths, position_ids.device), max(lengths)
    return {
        "position_ids": position_ids[1:],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _bounds(lengths: Sequence[int], device: torch.device) -> Bounds:
    """Remembered with their lengths, so that no layer has to ask the device."""
    bounds = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32).to(device, non_blocking=True)
    _LENGTHS[bounds] = tuple(lengths)
    return bounds


_LENGTHS: Any = WeakTensorKeyDictionary()


def _lengths(bounds: Bounds) -> tuple[int, ...]:
    if bounds not in _LENGTHS:
        _LENGTHS[bounds] = tuple(bounds.diff().tolist())
    return _LENGTHS[bounds]


# What transformers calls


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flex_attention_mask, sdpa_mask

    for name, function in (("blocks", _blocks), ("varlen", _varlen)):
        AttentionInterface.register(name, function)
        AttentionInterface.register(f"flash_{name}", function)
        AttentionMaskInterface.register(name, sdpa_mask)
    AttentionInterface.register("flex", _flex)
    AttentionMaskInterface.register("flex", flex_attention_mask)


def _blocks(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    states = _one_dtype(query, key, value)
    bounds = more.pop("cu_seq_lens_q", None)
    if bounds is None:
        return sdpa_attention_forward(module, *states, attention_mask, **more)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, query, key, value, None, **more)[0]

    return by_blocks(attend, states, _lengths(bounds)), None


def _varlen(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    states, bounds = _one_dtype(query, key, value), more.get("cu_seq_lens_q")
    if bounds is None or not has_varlen(states[0]):
        return _blocks(module, *states, attention_mask, **more)
    causal = more.get("is_causal")
    if causal is None:
        causal = module.is_causal
    return by_kernel(states, bounds, more["max_length_q"], more["scaling"], causal), None


def _flex(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, Any]:
    from transformers.integrations.flex_attention import flex_attention_forward

    if query.device.type == "cpu" and query.requires_grad:
        raise FailedError("model.attention: torch trains with flex_attention on a GPU only; take sdpa")
    return flex_attention_forward(module, *_one_dtype(query, key, value), attention_mask, **more)


def _one_dtype(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> States:
    """Queries and keys come out of norms in float32 where the weights are kept in it; kernels take one precision."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)


def by_blocks(attend: Any, states: Sequence[torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    """Attention [1, t, h, d] within blocks of `lengths` of states [1, h, t, d]: `attend` is called once for each
    length, with [n, h, length, d], and gives [n, length, h, d]."""
    groups, order, back = _grouped(lengths, states[0].device)
    if order is not None:
        states = [s.index_select(2, order) for s in states]
    made, at = [], 0
    for length, count in groups:
        parts = [s[0].narrow(1, at, length * count).unflatten(1, (count, length)).transpose(0, 1) for s in states]
        made.append(attend(*parts).flatten(0, 1))
        at += length * count
    whole = made[0] if len(made) == 1 else torch.cat(made)
    return (whole if back is None else whole.index_select(0, back)).unsqueeze(0)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _grouped(
    lengths: tuple[int, ...], device: torch.device
) -> tuple[list[tuple[int, int]], torch.Tensor | None, torch.Tensor | None]:
    """(length, how many) of the blocks by length; the order of tokens that brings equal ones together, and the way
    back, None where they are already."""
    sizes = torch.tensor(lengths)
    kinds, counts = sizes.unique(return_counts=True)
    groups = list(zip(kinds.tolist(), counts.tolist(), strict=True))
    blocks = sizes.argsort(stable=True)
    if torch.equal(blocks, torch.arange(len(sizes))):
        return groups, None, None
    tokens = torch.arange(int(sizes.sum())).split(list(lengths))
    order = torch.cat([tokens[k] for k in blocks.tolist()])
    return groups, order.to(device), order.argsort().to(device)


def has_varlen(states: torch.Tensor) -> bool:
    return states.is_cuda and states.dtype in (torch.float16, torch.bfloat16)


def by_kernel(
    states: Sequence[torch.Tensor], bounds: Bounds, longest: int, scale: float, is_causal: bool
) -> torch.Tensor:
    """Attention [1, t, h, d] within blocks of states [1, h, t, d], by torch's kernel for blocks of any length."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (s[0].transpose(0, 1) for s in states)
    # Each key serves several queries; the kernel is documented for as many of each.
    shared = query.shape[1] // key.shape[1]
    key, value = (s.repeat_interleave(shared, 1) if shared > 1 else s for s in (key, value))
    window = (-1, 0) if is_causal else (-1, -1)
    made: Any = varlen_attn(query, key, value, bounds, bounds, longest, longest, scale=scale, window_size=window)
    return made.unsqueeze(0)
