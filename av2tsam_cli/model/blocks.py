"""Building blocks of the transformer encoders: attention, windows, norms, checkpointing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from av2tsam_cli.model.cpu import cpu_capabilities, has_fast_bf16

CHUNK_LOGITS = 1 << 21
"""Attention logits per chunk: 4 MiB in bfloat16, so that they stay in the CPU's cache."""

TRAINING_LOGITS = 1 << 26
"""Most attention logits of a layer that are kept for the backward pass: 128 MiB in bfloat16."""


def run_block(block: Callable[..., Tensor], *args: Any, checkpointing: bool) -> Tensor:
    """Run an encoder block, with gradient checkpointing if asked and if gradients are recorded.

    Frozen blocks need it too if gradients pass through them. No block uses random numbers, so the
    random state need not be restored for the second forward pass.
    """
    if not checkpointing or not torch.is_grad_enabled():
        return block(*args)
    output: Tensor = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)
    return output


def to_windows(tokens: Tensor, size: Sequence[int], heads: int, fill: Tensor) -> Tensor:
    """Cut a grid of queries, keys or values into windows, head by head.

    Both SAMs pad the input of the projection with zeros to whole windows, so the output there is
    the projection's bias. Padding the output with the bias is equivalent and projects fewer tokens.

    Args:
        tokens: (N, h, w, heads * c).
        size: Height and width of a window; those of the grid for global attention.
        heads: Attention heads.
        fill: Value of the padding cells to the right and below, (heads * c,).

    Returns:
        (N windows, heads, height * width, c), contiguous.
    """
    batch, height, width, _ = tokens.shape
    rows, columns = -(-height // size[0]), -(-width // size[1])
    if (rows * size[0], columns * size[1]) != (height, width):
        padded = tokens.new_empty(batch, rows * size[0], columns * size[1], tokens.shape[-1])
        padded[:, :height, :width] = tokens
        padded[:, height:], padded[:, :height, width:] = fill, fill
        tokens = padded
    cells = tokens.reshape(batch, rows, size[0], columns, size[1], heads, -1)
    return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(0, 2).flatten(2, 3).contiguous()


def from_windows(windows: Tensor, size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Join windows to a grid again; the inverse of `to_windows`.

    Args:
        windows: (N windows, heads, height * width, c).
        size: Height and width of a window.
        grid: N, h and w; padding cells are dropped.

    Returns:
        (N, h, w, heads * c).
    """
    batch, height, width = grid
    rows, columns = -(-height // size[0]), -(-width // size[1])
    cells = windows.reshape(batch, rows, columns, windows.shape[1], *size, -1)
    joined = cells.permute(0, 1, 4, 2, 5, 3, 6).reshape(
        batch, rows * size[0], columns * size[1], -1
    )
    return joined[:, :height, :width]


def normalise(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    """Apply a layer norm to float32 tokens; the result has the dtype of the weights.

    The residual stream stays in float32 for every precision: rounding it at every block costs more
    accuracy than all bfloat16 products together.
    """
    shape, eps = norm.normalized_shape, norm.eps
    normed = F.layer_norm(tokens, shape, norm.weight.float(), norm.bias.float(), eps)
    return normed.to(norm.weight.dtype)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Compute softmax(scale q kT) v.

    PyTorch's fused kernel is used, except in bfloat16 on CPUs with instructions for it, and there
    in training only for small networks: the products keep all logits for the backward pass.

    Args:
        q: Queries, (B, heads, L, c).
        k: Keys, (B, heads, S, c).
        v: Values, (B, heads, S, d), d at most c.
        visible: False for keys to ignore, (B, 1, 1, S); None to use all keys.
        scale: Factor of the logits; None for 1 / sqrt(c).

    Returns:
        (B, heads, L, d).
    """
    if visible is None and _products_are_faster(q):
        if not torch.is_grad_enabled():
            return attend_in_chunks(q, k, v, scale=scale)
        if q.shape[:3].numel() * k.shape[2] <= TRAINING_LOGITS:
            factor = q.shape[-1] ** -0.5 if scale is None else scale
            return ((q * factor) @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    padding = q.shape[-1] - v.shape[-1]
    if padding:  # fused kernels require equal widths
        v = F.pad(v, (0, padding))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    return attended[..., : v.shape[-1] - padding]


def _products_are_faster(q: Tensor) -> bool:
    """PyTorch's fused CPU kernel multiplies bfloat16 no faster than float32; `matmul` does."""
    return (
        q.dtype == torch.bfloat16 and q.device.type == "cpu" and has_fast_bf16(cpu_capabilities())
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
