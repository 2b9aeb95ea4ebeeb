"""Attention, as fast as the device does it."""

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_AT_ONCE = 1 << 21
"""Attention logits that are made together: 4 MiB in bfloat16, so that they stay in the cache."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Weigh the values by softmax(scale q kT).

    Args:
        q: Queries, (B, heads, L, c).
        k: Keys, (B, heads, S, c).
        v: Values, (B, heads, S, d), d at most c.
        visible: False for keys to ignore, (B, 1, 1, S); None: all count.
        scale: None: 1 / sqrt(c).

    Returns:
        (B, heads, L, d).
    """
    by_products = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if by_products and visible is None and not torch.is_grad_enabled():
        return _attend_in_pieces(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    missing = q.shape[-1] - v.shape[-1]
    if missing:  # fused kernels want one width
        v = F.pad(v, (0, missing))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    return attended[..., : v.shape[-1] - missing]


def _attend_in_pieces(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The same by matrix products, a cacheful of logits at a time.

    PyTorch's fused attention multiplies bfloat16 on a CPU no faster than float32; matrix products
    go several times as fast.
    """
    batch = q.shape[:2]
    q, k, v = (tokens.flatten(0, 1) for tokens in ((q * scale), k, v))
    count, queries, keys = *q.shape[:2], k.shape[1]
    heads, rows = max(1, LOGITS_AT_ONCE // (queries * keys)), max(1, LOGITS_AT_ONCE // keys)
    attended = v.new_empty(count, queries, v.shape[-1])
    for first in range(0, count, heads):
        these = slice(first, first + heads)
        transposed = k[these].transpose(1, 2)
        for row in range(0, queries, rows):
            part = these, slice(row, row + rows)
            attended[part] = (q[part] @ transposed).softmax(dim=-1) @ v[these]
    return attended.reshape(*batch, queries, -1)
