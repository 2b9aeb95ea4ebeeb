"""Building blocks that the transformer encoders share: windows, norms, gradient checkpointing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
