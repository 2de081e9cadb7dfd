"""Attention: what a recipe may name, and how packed samples and pictures are kept apart by each.

Samples of a batch that is packed, and pictures always, lie in one row, and `bounds` (cumulative lengths) say where each
begins. Flash kernels take these. For the others:

  sdpa    a function of ours, which transformers calls by name: one call of SDPA for all blocks of one length; no mask,
          and nothing outside the blocks is calculated
  varlen  torch's own flash kernel for all blocks at once: on a GPU, in half precision
  eager   transformers' own: a dense mask (text), picture by picture
"""

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available
from transformers.vision_utils import get_vision_position_ids

from core.errors import FailedError
from training.recipe import FLASH

# What transformers calls for these, for text and for pictures: all pictures are given in one call only where "flash" is
# in the name.
OURS = {"sdpa": ("blocks", "flash_blocks"), "varlen": ("varlen", "flash_varlen")}


def chosen(name: str, dtype: str) -> str:
    """What `auto` is on this machine for a training in `dtype`: a flash kernel that is installed, else torch's own;
    sdpa where none can run. Another name as it is."""
    newest = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0
    if name != "auto" or newest < 8 or dtype != "bfloat16":
        return "sdpa" if name == "auto" else name
    if newest == 9 and is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else "varlen"


def set_attention(backbone: Any, name: str) -> None:
    """Let a model that is loaded use an attention. Raises ValueError or ImportError where it cannot."""
    backbone.set_attn_implementation(text_attention(name))
    set_vision(backbone, name)


def text_attention(name: str) -> str:
    """What transformers is given to load a model; `set_vision` comes after."""
    _register()
    return OURS.get(name, (name,))[0]


def set_vision(backbone: Any, name: str) -> None:
    """Not asked for when a model is loaded: transformers would look for a flash kernel of our name."""
    backbone.model.visual.config._attn_implementation = OURS.get(name, (name,))[-1]


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
    if name not in {text for text, _ in OURS.values()} and not FLASH.fullmatch(name):
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


def _bounds(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """int32 [n + 1]; remembered with their lengths, so that no layer has to ask the device."""
    bounds = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32).to(device, non_blocking=True)
    _LENGTHS[bounds] = tuple(lengths)
    return bounds


_LENGTHS: Any = WeakTensorKeyDictionary()


# What transformers calls


@cache
def _register() -> None:
    for of_text, of_pictures in OURS.values():
        for name in (of_text, of_pictures):
            AttentionInterface.register(name, partial(_blocks, by_kernel="varlen" in name))
        AttentionMaskInterface.register(of_text, sdpa_mask)


def _blocks(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    by_kernel: bool, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    # Queries and keys come out of norms in float32 where the weights are kept in it; kernels take one precision.
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    states = query.to(dtype), key.to(dtype), value.to(dtype)
    bounds = more.pop("cu_seq_lens_q", None)
    if bounds is None:
        return sdpa_attention_forward(module, *states, attention_mask, **more)
    if by_kernel:
        # Each key serves several queries; the kernel is documented for as many of each.
        shared, longest = query.shape[1] // key.shape[1], more["max_length_q"]
        q, k, v = (
            s[0].repeat_interleave(n, 0).transpose(0, 1) for s, n in zip(states, (1, shared, shared), strict=True)
        )
        causal = module.is_causal if more.get("is_causal") is None else more["is_causal"]
        window = (-1, 0 if causal else -1)
        made: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=more["scaling"], window_size=window)
        return made.unsqueeze(0), None

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, query, key, value, None, **more)[0]

    if bounds not in _LENGTHS:
        _LENGTHS[bounds] = tuple(bounds.diff().tolist())
    return by_blocks(attend, states, _LENGTHS[bounds]), None


def by_blocks(attend: Any, states: Sequence[torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    """Attention [1, t, h, d] within blocks of `lengths` of states [1, h, t, d]: `attend` is called once for each
    length, with [n, h, length, d], and gives [n, length, h, d]."""
    groups, back = _grouped(lengths, states[0].device)
    made = [attend(*(s[0][:, places].transpose(0, 1) for s in states)).flatten(0, 1) for places in groups]
    return torch.cat(made).index_select(0, back).unsqueeze(0)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _grouped(lengths: tuple[int, ...], device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
    """For each length the places [n, length] of its blocks' tokens; and where each token is among all of these."""
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    groups = [starts[sizes == length, None] + torch.arange(length) for length in sizes.unique().tolist()]
    return [g.to(device) for g in groups], torch.cat([g.flatten() for g in groups]).argsort().to(device)
