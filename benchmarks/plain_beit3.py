"""Our plain re-implementation of BEiT-3's encoder, computed step by step as torchscale does it.

torchscale itself cannot be installed beside the other packages (it pins timm 0.6.13), so this
module stands in for it in `peers.py`. Nothing is fused: tokens are split into vision and text in
front of every layer and concatenated after it, attention is two batched matrix products around a
float32 softmax, and GELU is a pass of its own. Tensor names and results equal those of
`av2tsam_cli.model.beit3`; no code is shared with it.

Shapes: N = images, T = vision tokens + text tokens, D = width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.config import Beit3Config

UNUSED_POSITIONS = 2
"""Leading rows of both position tables that are never read, as in fairseq."""


class Multiway(nn.Module):
    """One layer for the vision tokens (A) and one for the text tokens (B)."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A, self.B = make(), make()

    def forward(self, tokens: Tensor, split: int) -> Tensor:
        """Apply A to tokens[:, :split] and B to the rest."""
        vision, text = torch.split(tokens, [split, tokens.shape[1] - split], dim=1)
        return torch.cat([self.A(vision), self.B(text)], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention with a LayerNorm before the output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Multiway(lambda: nn.Linear(dim, dim)) for _ in range(4)
        )
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(dim))

    def forward(self, tokens: Tensor, split: int, padding: Tensor) -> Tensor:
        """Attend over (N, T, D); keys whose `padding` (N, T) is True are ignored."""
        batch, count, dim = tokens.shape
        width = dim // self.heads
        q = self.q_proj(tokens, split) * width**-0.5
        k, v = self.k_proj(tokens, split), self.v_proj(tokens, split)
        q, k, v = (
            part.view(batch, count, self.heads, width).transpose(1, 2).reshape(-1, count, width)
            for part in (q, k, v)
        )
        weights = torch.bmm(q, k.transpose(1, 2)).view(batch, self.heads, count, count)
        weights = weights.masked_fill(padding[:, None, None], float("-inf"))
        weights = F.softmax(weights.flatten(0, 1), dim=-1, dtype=torch.float32).type_as(weights)
        attended = torch.bmm(weights, v).view(batch, self.heads, count, -1)
        attended = attended.transpose(1, 2).reshape(batch, count, dim)
        attended = self.inner_attn_ln(attended, split)
        result: Tensor = self.out_proj(attended, split)
        return result


class FeedForward(nn.Module):
    """Linear, GELU in float32, LayerNorm, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, T, D) to the same shape."""
        hidden = self.fc1(tokens.reshape(-1, tokens.shape[-1]))
        hidden = F.gelu(hidden.float()).type_as(hidden)
        result: Tensor = self.fc2(self.ffn_layernorm(hidden)).view(tokens.shape)
        return result


class Layer(nn.Module):
    """One pre-norm encoder layer."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.self_attn = Attention(config.dim, config.heads)
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))
        self.ffn = Multiway(lambda: FeedForward(config.dim, config.ffn_dim))
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))

    def forward(self, tokens: Tensor, split: int, padding: Tensor) -> Tensor:
        """Map (N, T, D) to the same shape."""
        tokens = tokens + self.self_attn(self.self_attn_layer_norm(tokens, split), split, padding)
        result: Tensor = tokens + self.ffn(self.final_layer_norm(tokens, split), split)
        return result


class VisionEmbedding(nn.Module):
    """Patches of the image behind the class token."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(3, config.dim, size, stride=size)
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, side, side) to (N, 1 + patches, D)."""
        patches = self.proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)


class Positions(nn.Module):
    """Position tables of vision (A) and text (B)."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.A = nn.Embedding(config.vision_tokens + UNUSED_POSITIONS, config.dim)
        self.B = nn.Embedding(config.text_positions, config.dim)

    def forward(self, vision: int, text: int) -> Tensor:
        """Return positions (1, vision + text, D)."""
        a, b = (
            table(torch.arange(UNUSED_POSITIONS, UNUSED_POSITIONS + count)[None])
            for table, count in ((self.A, vision), (self.B, text))
        )
        return torch.cat([a, b], dim=1)


class Encoder(nn.Module):
    """Positions, layers and a final LayerNorm."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.embed_positions = Positions(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))

    def forward(self, tokens: Tensor, split: int) -> Tensor:
        """Map (N, T, D) to the same shape; no token is padding."""
        tokens = tokens + self.embed_positions(split, tokens.shape[1] - split)
        padding = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        tokens = tokens * (1 - padding[..., None].type_as(tokens))
        for layer in self.layers:
            tokens = layer(tokens, split, padding)
        result: Tensor = self.layer_norm(tokens, split)
        return result


class PlainBeit3(nn.Module):
    """Images and text embeddings to tokens."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.text_embed = nn.Embedding(config.vocabulary_size, config.dim)
        self.vision_embed = VisionEmbedding(config)
        self.encoder = Encoder(config)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Encode normalised images (N, 3, side, side) with text embeddings (N, L, D).

        Returns:
            (N, 1 + patches + L, D); the first token is the class token.
        """
        vision = self.vision_embed(images)
        result: Tensor = self.encoder(torch.cat([vision, text], dim=1), vision.shape[1])
        return result
