"""BEiT-3's multiway encoder (Wang et al. 2022), with the key names of the public checkpoints.

Vision and text tokens share the attention but have their own projections, norms and feed-forward
layers: branch A for vision, branch B for text. Sub-LayerNorm, pre-norm, eps 1e-5, no dropout.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.blocks import attend, run_block
from av2tsam_cli.model.config import Beit3Config
from av2tsam_cli.model.cpu import linear_gelu

# The first two rows of both position tables are unused, as in fairseq.
FIRST_POSITION = 2


class Multiway(nn.Module):
    """Two layers of one kind: A for the first `split` tokens, B for the rest."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A = make()
        self.B = make()

    def forward(self, tokens: Tensor, split: int) -> Tensor:
        """Map (N, V + L, in features) to (N, V + L, out features), V = split."""
        return torch.cat([self.A(tokens[:, :split]), self.B(tokens[:, split:])], dim=1)


class MultiwayAttention(nn.Module):
    """Self-attention over vision and text tokens together."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = Multiway(lambda: nn.Linear(dim, dim))
        self.k_proj = Multiway(lambda: nn.Linear(dim, dim))
        self.v_proj = Multiway(lambda: nn.Linear(dim, dim))
        self.out_proj = Multiway(lambda: nn.Linear(dim, dim))
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(dim))

    def forward(self, tokens: Tensor, split: int, visible: Tensor | None) -> Tensor:
        """Map (N, V + L, D) to the same; `visible` (N, 1, 1, V + L) is False for ignored keys."""
        q, k, v = (
            projection(tokens, split).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # (N, heads, V + L, D / heads) each
        attended = attend(q, k, v, visible=visible)
        attended = attended.transpose(1, 2).flatten(2)
        result: Tensor = self.out_proj(self.inner_attn_ln(attended, split), split)
        return result


class FeedForward(nn.Module):
    """Linear, GELU, LayerNorm, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.ffn_layernorm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, D) to the same shape."""
        result: Tensor = self.fc2(self.ffn_layernorm(linear_gelu(self.fc1, tokens)))
        return result


class EncoderLayer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))
        self.self_attn = MultiwayAttention(config.dim, config.heads)
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))
        self.ffn = Multiway(lambda: FeedForward(config.dim, config.ffn_dim))

    def forward(self, tokens: Tensor, split: int, visible: Tensor | None) -> Tensor:
        """Map (N, V + L, D) to the same shape."""
        normed = self.self_attn_layer_norm(tokens, split)
        tokens = tokens + self.self_attn(normed, split, visible)
        return tokens + self.ffn(self.final_layer_norm(tokens, split), split)  # type: ignore[no-any-return]


class VisionEmbedding(nn.Module):
    """Patches of the image, with the class token in front."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, b, b) to tokens (N, 1 + P, D)."""
        patches = self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)


class Positions(nn.Module):
    """Learned positions: table A for vision, table B for text."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.A = nn.Embedding(config.vision_tokens + FIRST_POSITION, config.dim)
        self.B = nn.Embedding(config.text_positions, config.dim)

    def forward(self, vision: int, text: int) -> Tensor:
        """Return the positions, (vision + text, D)."""
        rows = self.A.weight[FIRST_POSITION : FIRST_POSITION + vision]
        return torch.cat([rows, self.B.weight[FIRST_POSITION : FIRST_POSITION + text]])


class Encoder(nn.Module):
    """Positions, layers, final norm."""

    gradient_checkpointing = False
    """Whether activations are recomputed in the backward pass to save memory."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.embed_positions = Positions(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.layer_norm = Multiway(lambda: nn.LayerNorm(config.dim))

    def forward(self, tokens: Tensor, split: int, padding: Tensor | None) -> Tensor:
        """Map (N, V + L, D) to the same shape; `padding` (N, V + L) is True for padding tokens."""
        tokens = tokens + self.embed_positions(split, tokens.shape[1] - split)
        visible = None
        if padding is not None:
            tokens = tokens.masked_fill(padding[..., None], 0.0)
            visible = ~padding[:, None, None, :]
        for layer in self.layers:
            tokens = run_block(
                layer, tokens, split, visible, checkpointing=self.gradient_checkpointing
            )
        normed: Tensor = self.layer_norm(tokens, split)
        return normed


class Beit3(nn.Module):
    """Encodes images together with text. N = pairs, P = patches, L = text tokens, D = width."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.config = config
        self.text_embed = nn.Embedding(config.vocabulary_size, config.dim)
        self.vision_embed = VisionEmbedding(config)
        self.encoder = Encoder(config)
        for table in (
            self.text_embed,
            self.encoder.embed_positions.A,
            self.encoder.embed_positions.B,
        ):
            nn.init.normal_(table.weight, std=0.02)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Embed token ids (N, L): (N, L, D)."""
        embedded: Tensor = self.text_embed(ids)
        return embedded

    def forward(
        self, images: Tensor, text_embeddings: Tensor, text_padding: Tensor | None = None
    ) -> Tensor:
        """Encode image and text together.

        Args:
            images: Normalised images, (N, 3, b, b).
            text_embeddings: Word embeddings or the projector's tokens, (N, L, D).
            text_padding: True where a text token is only padding, (N, L); None: all are real.

        Returns:
            (N, 1 + P + L, D); the first is the class token.
        """
        vision = self.vision_embed(images)
        tokens = torch.cat([vision, text_embeddings.to(vision.dtype)], dim=1)
        padding = None if text_padding is None else F.pad(text_padding, (vision.shape[1], 0))
        encoded: Tensor = self.encoder(tokens, vision.shape[1], padding)
        return encoded
