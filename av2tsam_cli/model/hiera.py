"""Hiera, SAM 2's image encoder (Ryali et al., "Hiera", 2023; Ravi et al., "SAM 2", 2024).

The tensors have the names that transformers' `Sam2HieraDetModel` gives them. That model would serve
as well, but its package takes seconds and 300 MB to import.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.attention import attend
from av2tsam_cli.model.config import Sam2Config
from av2tsam_cli.model.packed import linear_gelu
from av2tsam_cli.model.windows import from_windows, normalise, to_windows

EPS = 1e-6
MLP_RATIO = 4
QUERY_STRIDE = 2
"""How much a stage's first block shrinks the grid, in both directions."""


class Hiera(nn.Module):
    """Patches, then blocks in stages; each stage but the first halves the grid."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        dim, side = config.dim, config.windows[0]
        self.patch_embed = PatchEmbedding(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, side, side))
        self.stage_ends = [total - 1 for total in accumulate(config.stages)]
        self.blocks = nn.ModuleList(_blocks(config))

    def embed(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) to patches with positions, (N, S / 4, S / 4, D), float32."""
        # A convolution's channels come first in memory; the blocks would copy them at every step.
        patches: Tensor = self.patch_embed(images).float().contiguous()
        return patches + self.positions(patches.shape[1], patches.shape[2])

    def positions(self, height: int, width: int) -> Tensor:
        """A coarse grid stretched over the image, and a fine one repeated in every window."""
        coarse, fine = self.pos_embed[0].float(), self.pos_embed_window[0].float()
        down, across = stretching(coarse.shape[1:], (height, width), coarse.device)
        # Products with two small matrices: with `F.interpolate` this took a hundredth of all time.
        stretched = torch.einsum("yi,dij,xj->yxd", down, coarse, across)
        repeats = (height // fine.shape[1], width // fine.shape[2], 1)
        return stretched + fine.permute(1, 2, 0).tile(repeats)


def stretching(
    grid: Sequence[int], to: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What a bicubic interpolation multiplies the columns and the rows of a grid with.

    Args:
        grid: Height h and width w.
        to: Height H and width W of the result.
        device: Where the matrices go.

    Returns:
        (H, h) and (W, w), float32.
    """
    down, across = (
        F.interpolate(torch.eye(n, device=device)[None, None], size=(size, n), mode="bicubic")[0, 0]
        for n, size in zip(grid, to, strict=True)
    )
    return down, across


def _blocks(config: Sam2Config) -> Iterator["HieraBlock"]:
    """All blocks in order. A stage's first block still has the width and window before."""
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
        """Embed images of any floating type in the weights' own."""
        patches: Tensor = self.projection(images.to(self.projection.weight.dtype))
        return patches.permute(0, 2, 3, 1)


class HieraBlock(nn.Module):
    """Attention in windows (0: over the whole image) and a feed-forward; (N, h, w, D)."""

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, shrinks: bool) -> None:
        super().__init__()
        self.shrinks = shrinks
        self.layer_norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = HieraAttention(dim, dim_out, heads=heads, window=window, shrinks=shrinks)
        self.layer_norm2 = nn.LayerNorm(dim_out, eps=EPS)
        self.mlp = FeedForward(dim_out, dim_out * MLP_RATIO)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, h, w, dim) to (N, h', w', dim_out); h' = h / 2 where it shrinks. Float32."""
        normed = normalise(self.layer_norm1, tokens)
        # Where the width changes, the shortcut is the projection of the normed tokens.
        shortcut = tokens if self.proj is None else self.proj(normed).float()
        if self.shrinks:
            shortcut = pool(shortcut)
        tokens = shortcut + self.attn(normed)
        result: Tensor = tokens + self.mlp(normalise(self.layer_norm2, tokens))
        return result


class HieraAttention(nn.Module):
    """Attention in windows; where it shrinks, each query is the largest of four."""

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, shrinks: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shrinks = shrinks
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, h, w, dim) to (N, h', w', dim_out); h' = h / 2 where it shrinks."""
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        of_keys = [self.window] * 2 if self.window else list(tokens.shape[1:3])
        of_queries = of_keys
        if self.shrinks:
            q, of_queries = pool(q), [side // QUERY_STRIDE for side in of_keys]
        sizes = (of_queries, of_keys, of_keys)
        windows = (
            to_windows(part, size, self.heads, fill)
            for part, size, fill in zip((q, k, v), sizes, self.qkv.bias.chunk(3), strict=True)
        )
        attended = from_windows(attend(*windows), of_queries, q.shape[:3])
        result: Tensor = self.proj(attended)
        return result


class FeedForward(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, hidden)
        self.proj_out = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., dim) to the same."""
        result: Tensor = self.proj_out(linear_gelu(self.proj_in, tokens))
        return result


def pool(tokens: Tensor) -> Tensor:
    """The largest of 2 x 2 cells, channel by channel: (B, h, w, D) to (B, h / 2, w / 2, D)."""
    pooled: Tensor = F.max_pool2d(tokens.permute(0, 3, 1, 2), QUERY_STRIDE)
    return pooled.permute(0, 2, 3, 1)
