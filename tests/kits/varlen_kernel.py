"""torch's kernel `varlen_attn`, which there is none of on a CPU, answered by SDPA, block by
block."""

from itertools import pairwise

import torch


def varlen_by_sdpa(q, k, v, begin, *_, scale: float, window_size: tuple[int, int]) -> torch.Tensor:
    """Of states [tokens, heads, width], whose blocks begin at `begin`."""
    blocks = [
        [s[a:b].transpose(0, 1)[None] for s in (q, k, v)] for a, b in pairwise(begin.tolist())
    ]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return torch.cat(
        [sdpa(*b, is_causal=window_size[1] == 0, scale=scale)[0].transpose(0, 1) for b in blocks]
    )
