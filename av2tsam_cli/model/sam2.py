"""SAM 2 for single images: Hiera with its FPN, and SAM's decoder with two additions.

The memory of SAM 2 is not used. As in SAM 1, a vector can be added to the input of every block.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.model.blocks import run_block
from av2tsam_cli.model.config import Sam2Config
from av2tsam_cli.model.hiera import Hiera
from av2tsam_cli.model.sam import HighResMaskDecoder, MaskPrediction

MLP: Any = borrow("segment_anything.modeling.mask_decoder").MLP

# Only these levels of the FPN receive the coarser one; the coarsest is dropped afterwards.
TOP_DOWN_LEVELS = (2, 3)


class Sam2ImageEncoder(nn.Module):
    """Hiera and its FPN. N = images, C = decoder width, g = image side / 16."""

    gradient_checkpointing = False
    """Whether activations are recomputed in the backward pass to save memory."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.backbone = Hiera(config)
        # Coarsest first, as in the public checkpoints.
        self.neck = nn.ModuleList(
            nn.Conv2d(dim, config.decoder_dim, 1) for dim in reversed(config.stage_dims)
        )
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.decoder_dim))

    def forward(
        self, images: Tensor, block_vectors: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Encode images.

        Args:
            images: Normalised images, (N, 3, S, S).
            block_vectors: One vector (N, width of its input) per block, added at every position.

        Returns:
            Finest first: (N, C, 4g, 4g), (N, C, 2g, 2g) and (N, C, g, g); the last with
            `no_mem_embed`, SAM 2's embedding for an empty memory.
        """
        levels = self.pyramid(self.stage_outputs(images, block_vectors))
        return [*levels[:-1], levels[-1] + self.no_mem_embed.reshape(1, -1, 1, 1)]

    def stage_outputs(self, images: Tensor, block_vectors: Sequence[Tensor] | None) -> list[Tensor]:
        """Return the output of each stage, finest first, (N, h, w, width)."""
        ends = self.backbone.stage_ends
        outputs = self.block_outputs(self.backbone.embed(images), block_vectors)
        return [tokens for number, tokens in enumerate(outputs) if number in ends]

    def block_outputs(
        self, tokens: Tensor, block_vectors: Sequence[Tensor] | None
    ) -> Iterator[Tensor]:
        """Yield the output of each block, for patch embeddings with positions."""
        for number, block in enumerate(self.backbone.blocks):
            if block_vectors is not None:
                tokens = tokens + block_vectors[number][:, None, None, :]
            tokens = run_block(block, tokens, checkpointing=self.gradient_checkpointing)
            yield tokens

    def pyramid(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Run the FPN: stages, finest first, to levels of width C, without the coarsest."""
        levels: list[Tensor] = []
        for number, convolution in zip(reversed(range(len(stages))), self.neck, strict=True):
            tokens = stages[number].to(self.no_mem_embed.dtype)
            level = convolution(tokens.permute(0, 3, 1, 2))
            if levels and number in TOP_DOWN_LEVELS:
                # In float32, as in the original for every precision.
                coarser = F.interpolate(levels[0].float(), scale_factor=2.0, mode="nearest")
                level = level + coarser.to(level.dtype)
            levels.insert(0, level)
        return levels[:-1]


class Sam2MaskDecoder(HighResMaskDecoder):
    """SAM's decoder with finer image features and an object score."""

    def __init__(self, config: Sam2Config) -> None:
        dim = config.decoder_dim
        super().__init__(config, (dim, dim))
        self.obj_score_token = nn.Embedding(1, dim)
        self.pred_obj_score_head = MLP(dim, dim, 1, 3)

    def own_tokens(self) -> Tensor:
        """Return the decoder's own tokens: object score, IoU, then the four masks."""
        return torch.cat([self.obj_score_token.weight, super().own_tokens()])

    def read_out(self, tokens: Tensor, upscaled: Tensor) -> MaskPrediction:
        """Compute masks, IoU and object score from tokens (N, M + 1, C) and the upscaled image."""
        plain = super().read_out(tokens[:, 1:], upscaled)
        score: Tensor = self.pred_obj_score_head(tokens[:, 0]).float()
        return MaskPrediction(plain.logits, plain.iou.sigmoid(), score)
