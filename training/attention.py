"""Attention: what a recipe may name, and how packed samples and pictures are kept apart by each.

Samples of a batch that is packed, and pictures always, lie in one row, and `bounds` (cumulative lengths) say where each
begins. Flash kernels take these. For the others:

  sdpa   a function of ours, which transformers calls by name: one call of SDPA for all blocks of one length; no mask,
         and nothing outside the blocks is calculated
  eager  transformers' own: a dense mask (text), picture by picture
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.vision_utils import get_vision_position_ids

from core.errors import FailedError
from training.recipe import FLASH

# What transformers calls for `sdpa`, for text and for pictures: all pictures are given in one call only where "flash"
# is in the name.
BLOCKS, FLASH_BLOCKS = "blocks", "flash_blocks"
Bounds = torch.Tensor  # int32 [n + 1]


def set_attention(backbone: Any, name: str) -> None:
    """Let a model that is loaded use the attention of a recipe. Raises ValueError or ImportError where it cannot."""
    backbone.set_attn_implementation(text_attention(name))
    set_vision(backbone, name)


def text_attention(name: str) -> str:
    """What transformers is given to load a model; `set_vision` comes after."""
    _register()
    return BLOCKS if name == "sdpa" else name


def set_vision(backbone: Any, name: str) -> None:
    """Not asked for when a model is loaded: transformers would look for a flash kernel of our name."""
    backbone.model.visual.config._attn_implementation = FLASH_BLOCKS if name == "sdpa" else name


# What a model is given beside its inputs


def image_features(backbone: Any, pixels: torch.Tensor, grids: torch.Tensor) -> Any:
    """The vision tower on pictures of patch grids [n, 3] (t, h, w), as transformers' `mm_encoder_outputs` wants them.

    Places of patches are put together from those of each size: transformers makes them anew for each picture.
    """
    merge, shapes = backbone.model.visual.config.spatial_merge_size, grids.tolist()
    places = torch.cat([_places(*shape, merge) for shape in shapes]).to(grids.device)
    bounds = _bounds([h * w for t, h, w in shapes for _ in range(t)], grids.device)
    return backbone.model.get_image_features(
        pixels, grids, return_dict=True, position_ids=places, cu_seqlens=bounds, max_seqlen=max(_LENGTHS[bounds])
    )


# What is remembered is made outside of inference mode: training could not use it otherwise.
@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _places(t: int, h: int, w: int, merge: int) -> torch.Tensor:
    return get_vision_position_ids(torch.tensor([[t, h, w]]), merge)


def packed_inputs(backbone: Any, position_ids: torch.Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """Inputs that keep samples of `lengths` apart which were packed into rows with places [4, b, t] (text, then time,
    height, width). Raises FailedError for several rows where it is done by bounds."""
    name = backbone.config.get_text_config()._attn_implementation
    # A mask is made of the text's places, where they begin anew.
    if name != BLOCKS and not FLASH.fullmatch(name):
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


# What transformers calls


@cache
def _register() -> None:
    for name in (BLOCKS, FLASH_BLOCKS):
        AttentionInterface.register(name, _blocks)
    AttentionMaskInterface.register(BLOCKS, sdpa_mask)


def _blocks(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    # Queries and keys come out of norms in float32 where the weights are kept in it; kernels take one precision.
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    states = query.to(dtype), key.to(dtype), value.to(dtype)
    bounds = more.pop("cu_seq_lens_q", None)
    if bounds is None:
        return sdpa_attention_forward(module, *states, attention_mask, **more)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, query, key, value, None, **more)[0]

    if bounds not in _LENGTHS:
        _LENGTHS[bounds] = tuple(bounds.diff().tolist())
    return by_blocks(attend, states, _LENGTHS[bounds]), None


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
