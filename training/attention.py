"""Attention: what a recipe may name, and how packed samples and pictures are kept apart by each.

Samples of a batch that is packed, and pictures always, lie in one row, and `bounds` (cumulative lengths) say where each
begins. Flash kernels take these. For the others:

  sdpa    a function of ours, which transformers calls by name: one call of SDPA for all blocks of one length; no mask,
          and nothing outside the blocks is calculated. In a layer that is compiled it is an operator of its own, which
          asks for the blocks' lengths and calculates attention anew in the backward pass
  varlen  torch's own flash kernel for all blocks at once: on a GPU, in half precision
  eager   transformers' own: a dense mask (text), picture by picture

Layers that carry a state along the row are called with a padded row for each sample, whatever the attention: those of
transformers do not look at where places begin anew, and refuse bounds without a kernel of another package.
"""

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from itertools import chain, repeat
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.utils.rnn import pad_sequence, unpad_sequence
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from core.errors import FailedError
from training.folder import backbone_kind
from training.pixels import whole_pictures
from training.recipe import FLASH

# What transformers calls for these, for text and for pictures: all pictures are given in one call only where "flash" is
# in the name.
OURS = {"sdpa": ("blocks", "flash_blocks"), "varlen": ("varlen", "flash_varlen")}


def chosen(name: str, dtype: str) -> str:
    """What `auto` is on this machine for a training in `dtype`: a flash kernel that is installed, else torch's own;
    sdpa where none can run. Another name as it is."""
    if name != "auto":
        return name
    newest = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0
    if newest < 8 or dtype != "bfloat16":
        return "sdpa"
    if newest == 9 and is_flash_attn_3_available():
        return "flash_attention_3"
    if is_flash_attn_2_available():
        return "flash_attention_2"
    return "varlen"


def set_attention(backbone: Any, name: str) -> None:
    """Let a model that is loaded use an attention. Raises ValueError or ImportError where it cannot."""
    backbone.set_attn_implementation(text_attention(name))
    set_layers(backbone, name)


def text_attention(name: str) -> str:
    """What transformers is given to load a model; `set_layers` comes after."""
    _register()
    return OURS.get(name, (name,))[0]


def set_layers(backbone: Any, name: str) -> None:
    """The vision tower's attention, which is not asked for when a model is loaded: transformers would look for a flash
    kernel of our name. And layers with a state, which see one sample at a time."""
    kind = backbone_kind(backbone)
    tower = getattr(backbone.model, kind.tower)
    tower.config._attn_implementation = OURS.get(name, (name,))[-1]
    for layer_name, layer in backbone.named_modules():
        has_state = kind.state and layer_name.endswith(kind.state)
        if has_state and not isinstance(layer.forward, partial):
            layer.forward = partial(_each_alone, layer.forward)


def _each_alone(
    forward: Any, hidden_states: torch.Tensor, *, cu_seq_lens_q: Any = None, **options: Any
) -> torch.Tensor:
    """A layer with a state on states [b, t, h]: where bounds of samples are given, on a padded row for each."""
    if cu_seq_lens_q is None:
        return forward(hidden_states, **options)
    lengths = torch.tensor(_lengths(cu_seq_lens_q))
    samples = list(hidden_states[0].split(lengths.tolist()))
    outputs = forward(pad_sequence(samples, batch_first=True))
    return torch.cat(unpad_sequence(outputs, lengths, batch_first=True)).unsqueeze(0)


# What a model is given beside its inputs


def image_features(backbone: Any, pixels: torch.Tensor, grids: torch.Tensor) -> Any:
    """The vision tower on pictures of patch grids [n, 3] (t, h, w), as transformers'
    `mm_encoder_outputs` wants them.

    Places of patches are put together from those of each size: transformers makes them anew for
    each picture, and asks the device how many there are.
    """
    kind = backbone_kind(backbone)
    tower = getattr(backbone.model, kind.tower)
    shapes = grids.tolist()
    if not kind.free_size:
        merge = round(1 / backbone.config.downsample_ratio)
        pictures = whole_pictures(pixels, shapes, merge)
        return backbone.model.get_image_features(pictures, return_dict=True)
    places = torch.cat([_places(*shape, tower.config.spatial_merge_size) for shape in shapes]).to(
        grids.device
    )
    block_sizes = chain.from_iterable(repeat(h * w, t) for t, h, w in shapes)
    bounds = _bounds(list(block_sizes), grids.device)
    if hasattr(tower, "pos_embed"):
        positions_and_windows = _interpolated(tower, shapes, grids.device)
    else:
        positions_and_windows = _windows(tower, grids)
    return backbone.model.get_image_features(
        pixels, grids, return_dict=True, position_ids=places, cu_seqlens=bounds, max_seqlen=max(_LENGTHS[bounds]),
        **positions_and_windows,
    )  # fmt: skip


def _interpolated(
    tower: Any, shapes: Sequence[Sequence[int]], device: torch.device
) -> dict[str, torch.Tensor]:
    """From which entries of Qwen3-VL's table each patch's position is mixed, and how much of each."""
    settings = (
        tower.num_grid_per_side,
        tower.config.spatial_merge_size,
        tower.interpolation_mode,
        tower.interpolation_align_corners,
    )
    of_each = [_taps(*shape, *settings) for shape in shapes]
    indices, weights = (
        torch.cat(parts).to(device, non_blocking=True) for parts in zip(*of_each, strict=True)
    )
    return {"interp_indices": indices, "interp_weights": weights}


def _windows(tower: Any, grids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The windows that Qwen2.5-VL's layers look at, counted where the pictures' sizes are known."""
    order, ends = get_vision_window_index(
        grids.cpu(),
        tower.spatial_merge_size,
        tower.window_size,
        tower.patch_size,
    )
    lengths = ends.diff().tolist()
    return {
        "window_index": order.to(grids.device),
        "cu_window_seqlens": _bounds(lengths, grids.device),
        "max_window_seqlen": max(lengths),
    }


# What is remembered is made outside of inference mode: training could not use it otherwise.
@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _places(t: int, h: int, w: int, merge: int) -> torch.Tensor:
    return get_vision_position_ids(torch.tensor([[t, h, w]]), merge)


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _taps(
    t: int, h: int, w: int, side: int, merge: int, mode: str, align_corners: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return get_vision_interpolation_indices_and_weights(
        torch.tensor([[t, h, w]]), side, mode, align_corners, spatial_merge_size=merge
    )


def packed_inputs(
    backbone: Any, position_ids: torch.Tensor, lengths: Sequence[int]
) -> dict[str, Any]:
    """Inputs that keep samples of `lengths` apart which were packed into rows with places [4, b, t]
    (text, then time, height, width). Raises FailedError for several rows where it is done by
    bounds."""
    name = backbone.config.get_text_config()._attn_implementation
    kind = backbone_kind(backbone)
    by_mask = name not in {text for text, _ in OURS.values()} and not FLASH.fullmatch(name)
    if not kind.free_size:
        places = position_ids[0]
    elif by_mask:
        # A mask is made of the text's places, where they begin anew.
        places = position_ids
    else:
        places = position_ids[1:]
    if by_mask and not kind.state:
        return {"position_ids": places}
    rows, tokens = position_ids.shape[1:]
    if rows != 1 or sum(lengths) != tokens:
        raise FailedError(
            f"attention by {name} takes packed samples in one row without padding, and was given {rows} rows of "
            f"{tokens} tokens for samples of {sum(lengths)}: samples of a row would see each other"
        )
    bounds = _bounds(lengths, position_ids.device)
    longest = max(lengths)
    return {
        "position_ids": places,
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
    by_kernel: bool, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    # Queries and keys come out of norms in float32 where the weights are kept in it; kernels take one precision.
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    states = query.to(dtype), key.to(dtype), value.to(dtype)
    bounds = options.pop("cu_seq_lens_q", None)
    if bounds is None:
        return sdpa_attention_forward(module, *states, attention_mask, **options)
    # Each key serves several queries
    shared = query.shape[1] // key.shape[1]
    causal = module.is_causal if options.get("is_causal") is None else options["is_causal"]
    if by_kernel:
        # The kernel is documented for as many keys as queries.
        longest = options["max_length_q"]
        q, k, v = (
            s[0].repeat_interleave(n, 0).transpose(0, 1)
            for s, n in zip(states, (1, shared, shared), strict=True)
        )
        window = (-1, 0 if causal else -1)
        output: Any = varlen_attn(
            q, k, v, bounds, bounds, longest, longest, scale=options["scaling"], window_size=window
        )
        return output.unsqueeze(0), None
    if torch.compiler.is_compiling():
        query, key, value = states
        keys = key.repeat_interleave(shared, 1)
        values = value.repeat_interleave(shared, 1)
        return attention_in_blocks(query, keys, values, bounds, causal, options["scaling"]), None

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, query, key, value, None, **options)[0]

    return by_blocks(attend, states, _lengths(bounds)), None


def _lengths(bounds: torch.Tensor) -> tuple[int, ...]:
    if bounds not in _LENGTHS:
        _LENGTHS[bounds] = tuple(bounds.diff().tolist())
    return _LENGTHS[bounds]


def by_blocks(
    attend: Any, states: Sequence[torch.Tensor], lengths: tuple[int, ...]
) -> torch.Tensor:
    """Attention [1, t, h, d] within blocks of `lengths` of states [1, h, t, d]: `attend` is called once for each
    length, with [n, h, length, d], and gives [n, length, h, d]."""
    groups, order = _grouped(lengths, states[0].device)
    outputs = [attend(*_by_block(states, places)).flatten(0, 1) for places in groups]
    return torch.cat(outputs).index_select(0, order).unsqueeze(0)


def _by_block(states: Sequence[torch.Tensor], places: torch.Tensor) -> list[torch.Tensor]:
    """States [1, h, t, d] by blocks [n, h, length, d], whose tokens are at `places` [n, length]."""
    return [state[0][:, places].transpose(0, 1) for state in states]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _grouped(
    lengths: tuple[int, ...], device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """For each length the places [n, length] of its blocks' tokens; and where each token is among all of these."""
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    groups = [
        starts[sizes == length, None] + torch.arange(length) for length in sizes.unique().tolist()
    ]
    return [g.to(device) for g in groups], torch.cat([g.flatten() for g in groups]).argsort().to(
        device
    )


# The same as an operator: a layer that is compiled is traced whole around it


@torch.library.custom_op("proccorpus::attention_in_blocks", mutates_args=())
def attention_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Attention [1, t, h, d] of states [1, h, t, d], as many keys as queries, within the blocks that `bounds` [n + 1]
    say."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=causal, scale=scale
        )
        return output.transpose(1, 2)

    return by_blocks(attend, (query, key, value), _lengths(bounds))


@torch.library.custom_op("proccorpus::attention_in_blocks_backward", mutates_args=())
def attention_in_blocks_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    causal: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the three states [1, h, t, d], of that of what came out [1, t, h, d]. Each block's square of weights
    is held, which kernels avoid."""
    states = query, key, value, gradient.transpose(1, 2)
    groups, order = _grouped(_lengths(bounds), query.device)
    of_groups = [_gradients(_by_block(states, places), causal, scale) for places in groups]
    query_parts, key_parts, value_parts = zip(*of_groups, strict=True)
    return (
        _in_order(query_parts, order),
        _in_order(key_parts, order),
        _in_order(value_parts, order),
    )


def _in_order(parts: Sequence[torch.Tensor], order: torch.Tensor) -> torch.Tensor:
    """Blocks [n, h, length, d] of all lengths as one state [1, h, t, d]."""
    tokens = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return tokens.index_select(0, order).transpose(0, 1)[None].contiguous()


def _gradients(states: Sequence[torch.Tensor], causal: bool, scale: float) -> list[torch.Tensor]:
    """Of queries, keys and values [n, h, t, d], by the gradient of what came out, which is the last of `states`."""
    query, key, value, gradient = (s.float() for s in states)
    scores = scale * query @ key.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    weights = scores.softmax(-1)
    of_weights = gradient @ value.transpose(-1, -2)
    of_scores = scale * weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
    gradients = (
        of_scores @ key,
        of_scores.transpose(-1, -2) @ query,
        weights.transpose(-1, -2) @ gradient,
    )
    return [part.to(states[0].dtype) for part in gradients]


@attention_in_blocks.register_fake
def _shape(query: torch.Tensor, *others: Any) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3])


@attention_in_blocks_backward.register_fake
def _shapes(gradient: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
    return tuple(state.new_empty(state.shape) for state in others[:3])


def _keep(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    *states, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*states)


def _back(ctx: Any, gradient: torch.Tensor) -> tuple:
    gradients = attention_in_blocks_backward(gradient, *ctx.saved_tensors, ctx.causal, ctx.scale)
    return *gradients, None, None, None


attention_in_blocks.register_autograd(_back, setup_context=_keep)
