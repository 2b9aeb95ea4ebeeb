"""Attention, computed in the way that is fastest on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.model.cpu import cpu_capabilities, has_fast_bf16

CHUNK_LOGITS = 1 << 21
"""Attention logits per chunk: 4 MiB in bfloat16, so that they stay in the CPU's cache."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Compute softmax(scale q kT) v.

    PyTorch's fused kernel is used, except in bfloat16 on CPUs with instructions for it.

    Args:
        q: Queries, (B, heads, L, c).
        k: Keys, (B, heads, S, c).
        v: Values, (B, heads, S, d), d at most c.
        visible: False for keys to ignore, (B, 1, 1, S); None to use all keys.
        scale: Factor of the logits; None for 1 / sqrt(c).

    Returns:
        (B, heads, L, d).
    """
    if visible is None and _chunks_are_faster(q):
        return attend_in_chunks(q, k, v, scale=scale)
    padding = q.shape[-1] - v.shape[-1]
    if padding:  # fused kernels require equal widths
        v = F.pad(v, (0, padding))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    return attended[..., : v.shape[-1] - padding]


def _chunks_are_faster(q: Tensor) -> bool:
    """PyTorch's fused CPU kernel multiplies bfloat16 no faster than float32; `matmul` does."""
    return (
        q.dtype == torch.bfloat16
        and q.device.type == "cpu"
        and not torch.is_grad_enabled()
        and has_fast_bf16(cpu_capabilities())
    )


def attend_in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """Compute `attend` by matrix products, at most `chunk_logits` logits at a time."""
    batch, factor = q.shape[:2], q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (tokens.flatten(0, 1) for tokens in (q * factor, k, v))
    count, queries, keys = *q.shape[:2], k.shape[1]
    heads, rows = max(1, chunk_logits // (queries * keys)), max(1, chunk_logits // keys)
    attended = v.new_empty(count, queries, v.shape[-1])
    for first in range(0, count, heads):
        chunk = slice(first, first + heads)
        transposed = k[chunk].transpose(1, 2)
        for row in range(0, queries, rows):
            part = chunk, slice(row, row + rows)
            attended[part] = (q[part] @ transposed).softmax(dim=-1) @ v[chunk]
    return attended.reshape(*batch, queries, -1)
