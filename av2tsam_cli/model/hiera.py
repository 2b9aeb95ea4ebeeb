"""Hiera, SAM 2's image encoder (Ryali et al., "Hiera", 2023; Ravi et al., "SAM 2", 2024).

Tensors are named as in transformers' `Sam2HieraDetModel`, which is not used because importing it
takes seconds and 300 MB.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.blocks import attend, from_windows, normalise, to_windows
from av2tsam_cli.model.config import Sam2Config
from av2tsam_cli.model.cpu import linear_gelu

EPS = 1e-6
MLP_RATIO = 4
QUERY_STRIDE = 2
"""Factor by which the first block of a stage shrinks the grid, in both directions."""


class Hiera(nn.Module):
    """Patches, then blocks in stages; each stage except the first halves the grid."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        dim, side = config.dim, config.windows[0]
        self.patch_embed = PatchEmbedding(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, side, side))
        self.stage_ends = [total - 1 for total in accumulate(config.stages)]
        self.blocks = nn.ModuleList(_blocks(config))

    def embed(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) to patches with positions, (N, S / 4, S / 4, D), float32."""
        # Convolutions return channels-first memory, which every block would have to copy.
        patches: Tensor = self.patch_embed(images).float().contiguous()
        return patches + self.positions(patches.shape[1], patches.shape[2])

    def positions(self, height: int, width: int) -> Tensor:
        """Return a coarse grid, interpolated to the image, plus a fine grid tiled over windows."""
        coarse, fine = self.pos_embed[0].float(), self.pos_embed_window[0].float()
        down, across = interpolation_matrices(coarse.shape[1:], (height, width), coarse.device)
        # Two small matrix products; `F.interpolate` here took 1 % of the encoder's time.
        stretched = torch.einsum("yi,dij,xj->yxd", down, coarse, across)
        repeats = (height // fine.shape[1], width // fine.shape[2], 1)
        return stretched + fine.permute(1, 2, 0).tile(repeats)


def interpolation_matrices(
    grid: Sequence[int], to: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return bicubic interpolation as two matrices, for the columns and the rows of a grid.

    Args:
        grid: Height h and width w.
        to: Height H and width W of the result.
        device: Device of the matrices.

    Returns:
        (H, h) and (W, w), float32.
    """
    down, across = (
        F.interpolate(torch.eye(n, device=device)[None, None], size=(size, n), mode="bicubic")[0, 0]
        for n, size in zip(grid, to, strict=True)
    )
    return down, across


def _blocks(config: Sam2Config) -> Iterator["HieraBlock"]:
    """Yield all blocks. The first block of a stage has the previous stage's width and window."""
    number = 0
    for stage, count in enumerate(config.stages):
        for first in (True, *[False] * (count - 1)):
            shrinks = first and stage > 0
            window = config.windows[stage - 1 if shrinks else stage]
            yield HieraBlock(
                config.block_dims[number],
                config.stage_dims[stage],
                heads=config.heads * 2**stage,
                window=0 if number in config.global_blocks else window,
                shrinks=shrinks,
            )
            number += 1


class PatchEmbedding(nn.Module):
    """Overlapping patches: images (N, 3, S, S) to (N, S / 4, S / 4, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images of any floating dtype in the dtype of the weights."""
        patches: Tensor = self.projection(images.to(self.projection.weight.dtype))
        return patches.permute(0, 2, 3, 1)


class HieraBlock(nn.Module):
    """Attention in windows (0: global) and an MLP; (N, h, w, D)."""

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, shrinks: bool) -> None:
        super().__init__()
        self.shrinks = shrinks
        self.layer_norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = HieraAttention(dim, dim_out, heads=heads, window=window, shrinks=shrinks)
        self.layer_norm2 = nn.LayerNorm(dim_out, eps=EPS)
        self.mlp = HieraMlp(dim_out, dim_out * MLP_RATIO)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, h, w, dim) to (N, h', w', dim_out); h' = h / 2 if it shrinks. Float32."""
        normed = normalise(self.layer_norm1, tokens)
        # If the width changes, the shortcut is the projection of the normed tokens.
        shortcut = tokens if self.proj is None else self.proj(normed).float()
        if self.shrinks:
            shortcut = pool(shortcut)
        tokens = shortcut + self.attn(normed)
        result: Tensor = tokens + self.mlp(normalise(self.layer_norm2, tokens))
        return result


class HieraAttention(nn.Module):
    """Attention in windows; a shrinking block max-pools its queries."""

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, shrinks: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shrinks = shrinks
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, h, w, dim) to (N, h', w', dim_out); h' = h / 2 if it shrinks."""
        key_size = [self.window] * 2 if self.window else list(tokens.shape[1:3])
        whole = all(n % size == 0 for n, size in zip(tokens.shape[1:3], key_size, strict=True))
        if tokens.device.type == "cuda" and whole and not self.shrinks:
            return self.in_whole_windows(tokens, key_size)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        query_size = key_size
        if self.shrinks:
            q, query_size = pool(q), [side // QUERY_STRIDE for side in key_size]
        sizes = (query_size, key_size, key_size)
        windows = (
            to_windows(part, size, self.heads, fill)
            for part, size, fill in zip((q, k, v), sizes, self.qkv.bias.chunk(3), strict=True)
        )
        attended = from_windows(attend(*windows), query_size, q.shape[:3])
        result: Tensor = self.proj(attended)
        return result

    def in_whole_windows(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Compute `forward` of a block that does not shrink, for a grid of whole windows.

        Tokens are moved into windows before the projection, and not queries, keys and values after
        it: GPUs compute faster than they copy, and their kernels need no contiguous heads.
        """
        batch, height, width, _ = tokens.shape
        rows, columns = height // size[0], width // size[1]
        cells = tokens.reshape(batch, rows, size[0], columns, size[1], -1).transpose(2, 3)
        windows = cells.reshape(batch * rows * columns, size[0] * size[1], -1)
        parts = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended: Tensor = self.proj(attend(*parts).transpose(1, 2).flatten(2))
        cells = attended.reshape(batch, rows, columns, size[0], size[1], -1).transpose(2, 3)
        return cells.reshape(batch, height, width, -1)


class HieraMlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, hidden)
        self.proj_out = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., dim) to the same shape."""
        result: Tensor = self.proj_out(linear_gelu(self.proj_in, tokens))
        return result


def pool(tokens: Tensor) -> Tensor:
    """Max-pool 2 x 2 cells: (B, h, w, D) to (B, h / 2, w / 2, D)."""
    pooled: Tensor = F.max_pool2d(tokens.permute(0, 3, 1, 2), QUERY_STRIDE)
    return pooled.permute(0, 2, 3, 1)
