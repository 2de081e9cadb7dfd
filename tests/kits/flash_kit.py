"""Flash kernels on a CPU: transformers' entry points, answered by SDPA sequence by sequence."""

import inspect
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """[t, h, d] of one sequence."""
    q, k, v = (s.transpose(0, 1).unsqueeze(0) for s in (query, key, value))
    made = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
    return made[0].transpose(0, 1)


def flash_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    ends = cu_seqlens_q.tolist()
    assert cu_seqlens_q.dtype == torch.int32
    assert ends == cu_seqlens_k.tolist()
    assert ends[-1] == len(q)
    assert max_seqlen_q == max_seqlen_k == max(b - a for a, b in pairwise(ends))
    return torch.cat([_attend(q[a:b], k[a:b], v[a:b], causal, softmax_scale) for a, b in pairwise(ends)])


def flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, softmax_scale: float, causal: bool = False
) -> torch.Tensor:
    return torch.stack([_attend(*states, causal, softmax_scale) for states in zip(q, k, v, strict=True)])


def emulate_flash(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`calls` counts calls of the kernel for sequences of any length."""
    import transformers
    from transformers import modeling_flash_attention_utils as flash_utils
    from transformers import modeling_utils
    from transformers.integrations.flash_attention import flash_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask

    seen = SimpleNamespace(calls=0)

    def counted(*args: Any, **more: Any) -> torch.Tensor:
        seen.calls += 1
        return flash_varlen(*args, **more)

    def load(name: str, *more: Any, **options: Any) -> tuple:
        modeling_utils.ALL_ATTENTION_FUNCTIONS._global_mapping.setdefault(name, flash_attention_forward)
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping.setdefault(name, flash_attention_mask)
        return flash, counted, None, flash_utils._pad_input, flash_utils._unpad_input

    counted.__signature__ = inspect.signature(flash_varlen)  # type: ignore[attr-defined]
    monkeypatch.setattr(flash_utils, "_lazy_imports", load)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)
    monkeypatch.setattr(transformers.PreTrainedModel, "_flash_attn_can_dispatch", lambda *args, **more: True)
    return seen
