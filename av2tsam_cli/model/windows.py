"""What the image encoders of both SAMs do alike: cut a grid into attention windows, and norms."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def to_windows(tokens: Tensor, size: Sequence[int], heads: int, fill: Tensor) -> Tensor:
    """Cut a grid of queries, keys or values into windows, head by head.

    Both SAMs pad what goes into the projection to whole windows with zeros; what comes out there is
    the projection's bias. Padding with that afterwards is the same and projects fewer tokens.

    Args:
        tokens: (N, h, w, heads * c).
        size: Height and width of a window; the whole grid's for attention over all of it.
        heads: Attention heads.
        fill: What stands in cells beyond the grid, right and below, (heads * c,).

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
    """Put windows together again.

    Args:
        windows: (N windows, heads, height * width, c).
        size: Height and width of a window.
        grid: N, h and w; what lies beyond is dropped.

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
    """Layer norm of float32 tokens, in the type of the weights.

    What runs past the blocks, from sum to sum, stays in float32 whatever the weights are: to round
    it at every block costs more accuracy than all products in bfloat16 together.
    """
    shape, eps = norm.normalized_shape, norm.eps
    normed = F.layer_norm(tokens, shape, norm.weight.float(), norm.bias.float(), eps)
    return normed.to(norm.weight.dtype)
