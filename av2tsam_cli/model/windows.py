"""Cutting a grid of tokens into attention windows, as both SAMs do."""

import torch.nn.functional as F
from torch import Tensor


def to_windows(tokens: Tensor, side: int) -> Tensor:
    """(N, h, w, D), padded with zeros on the right and below, to (N windows, side, side, D)."""
    batch, height, width, dim = tokens.shape
    down, right = -height % side, -width % side
    padded = F.pad(tokens, (0, 0, 0, right, 0, down)) if down or right else tokens
    rows, columns = padded.shape[1] // side, padded.shape[2] // side
    windows = padded.reshape(batch, rows, side, columns, side, dim)
    return windows.transpose(2, 3).flatten(0, 2)


def from_windows(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Undo `to_windows`: (N windows, side, side, D) to (N, height, width, D)."""
    side = windows.shape[1]
    rows, columns = -(-height // side), -(-width // side)
    grid = windows.reshape(batch, rows, columns, side, side, -1).transpose(2, 3)
    return grid.reshape(batch, rows * side, columns * side, -1)[:, :height, :width]
