"""SAM 1 on segment-anything's classes, for a batch of images with one prompt each.

The package's modules define the weights under their public names. Three things differ: attention is
fused, with the relative positions appended to queries and keys; the mask decoder pairs image n with
prompt n; and a vector can be added to the input of every encoder block.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.embeddings.stem import ConvStem
from av2tsam_cli.model.blocks import attend, from_windows, normalise, run_block, to_windows
from av2tsam_cli.model.config import Sam2Config, SamConfig
from av2tsam_cli.model.cpu import linear_gelu

ImageEncoderViT: Any = borrow("segment_anything.modeling.image_encoder").ImageEncoderViT
MaskDecoder: Any = borrow("segment_anything.modeling.mask_decoder").MaskDecoder
PromptEncoder: Any = borrow("segment_anything.modeling.prompt_encoder").PromptEncoder
TwoWayTransformer: Any = borrow("segment_anything.modeling.transformer").TwoWayTransformer

SAM_NORM_EPS = 1e-6


@dataclass(frozen=True)
class ImageFeatures:
    """The image encoder's features of N images. C = decoder width, g = grid."""

    embedding: Tensor = field(repr=False)
    """(N, C, g, g)."""
    high_res: tuple[Tensor, ...] = field(default=(), repr=False)
    """Finest first: (N, C/8, 4g, 4g) and (N, C/4, 2g, 2g). Empty for SAM 1."""

    def select(self, index: Tensor) -> "ImageFeatures":
        """Return the features of the images at `index`, (M,), which may repeat images."""
        return ImageFeatures(self.embedding[index], tuple(level[index] for level in self.high_res))


@dataclass(frozen=True)
class MaskPrediction:
    """The mask decoder's output for N images with one prompt each."""

    logits: Tensor = field(repr=False)
    """All four masks, (N, 4, h, w): 0 is the single-mask output, 1 to 3 the multimask output."""
    iou: Tensor = field(repr=False)
    """Predicted IoU of each, (N, 4)."""
    object_score: Tensor | None = field(default=None, repr=False)
    """SAM 2 only: logit that an object is present, (N, 1). The paper does not use it."""


def best_mask(prediction: MaskPrediction) -> Tensor:
    """Return the logits (N, 1, h, w) of the mask, out of 1 to 3, with the highest predicted IoU."""
    best = prediction.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(best.shape[0], device=best.device)
    return prediction.logits[rows, best].unsqueeze(1)


# SAM 2 calls mask 0 stable if moving the threshold by this margin hardly changes it.
STABILITY_MARGIN = 0.05
STABLE = 0.98


def single_mask(prediction: MaskPrediction) -> tuple[Tensor, Tensor]:
    """Return the single-mask output: mask 0, or for SAM 2, if that is unstable, the best of 1 to 3.

    Returns:
        Logits (N, 1, h, w) and predicted IoU (N, 1).
    """
    number = torch.zeros(len(prediction.iou), dtype=torch.long, device=prediction.iou.device)
    if prediction.object_score is not None:
        unstable = stability(prediction.logits[:, 0]) < STABLE
        number = torch.where(unstable, prediction.iou[:, 1:].argmax(dim=1) + 1, number)
    rows = torch.arange(len(number), device=number.device)
    return prediction.logits[rows, number].unsqueeze(1), prediction.iou[rows, number].unsqueeze(1)


def stability(logits: Tensor) -> Tensor:
    """Return the IoU of the masks at a slightly higher and lower threshold: (N, h, w) to (N,)."""
    inner = (logits > STABILITY_MARGIN).flatten(1).sum(dim=1)
    outer = (logits > -STABILITY_MARGIN).flatten(1).sum(dim=1)
    return torch.where(outer > 0, inner / outer, 1.0)


class SamImageEncoder(ImageEncoderViT):  # type: ignore[misc]
    """SAM's ViTDet encoder. N = images, g = grid, D = encoder width, C = decoder width.

    With `high_res` it also returns the finer maps of its stem, which SAM 1 does not have.
    """

    gradient_checkpointing = False
    """Whether activations are recomputed in the backward pass to save memory."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            out_chans=config.decoder_dim,
            norm_layer=lambda dim: nn.LayerNorm(dim, eps=SAM_NORM_EPS),
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_blocks,
        )
        if config.stem == "conv":
            self.patch_embed = ConvStem(channels=3, dim=config.dim, patch_size=config.patch_size)
        self.high_res = config.high_res
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(
        self, images: Tensor, block_vectors: Sequence[Tensor] | None = None
    ) -> Tensor | list[Tensor]:
        """Encode images.

        Args:
            images: Normalised images, (N, 3, S, S).
            block_vectors: One vector (N, D) per block, added to every position of its input.

        Returns:
            (N, C, g, g); with `high_res`, a list of the stem's maps, (N, D/4, 4g, 4g) and
            (N, D/2, 2g, 2g), and these features.
        """
        images = images.to(self.pos_embed.dtype)
        maps: list[Tensor] = self.patch_embed.maps(images) if self.high_res else []
        patches = maps[-1].permute(0, 2, 3, 1) if maps else self.patch_embed(images)
        # Convolutions return channels-first memory, which every block would have to copy.
        tokens = patches.float().contiguous() + self.pos_embed
        *_, tokens = self.block_outputs(tokens, block_vectors)
        features: Tensor = self.neck(tokens.to(self.pos_embed.dtype).permute(0, 3, 1, 2))
        return [*maps[-3:-1], features] if maps else features

    def block_outputs(
        self, tokens: Tensor, block_vectors: Sequence[Tensor] | None
    ) -> Iterator[Tensor]:
        """Yield the output of each block, (N, g, g, D), for patch embeddings with positions."""
        for number, block in enumerate(self.blocks):
            if block_vectors is not None:
                tokens = tokens + block_vectors[number][:, None, None, :]
            tokens = run_block(
                _run_vit_block, block, tokens, checkpointing=self.gradient_checkpointing
            )
            yield tokens


def _run_vit_block(block: Any, tokens: Tensor) -> Tensor:
    """Run a block of the package's encoder with fused attention; (N, g, g, D) in float32."""
    size = [block.window_size] * 2 if block.window_size else tokens.shape[1:3]
    tokens = tokens + attend_in_windows(block.attn, normalise(block.norm1, tokens), size)
    hidden = linear_gelu(block.mlp.lin1, normalise(block.norm2, tokens))
    result: Tensor = tokens + block.mlp.lin2(hidden)
    return result


def attend_in_windows(attention: Any, tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Compute attention over (N, g, g, D) in windows, with decomposed relative positions.

    SAM adds two terms to each attention logit, for the row and for the column of the key. Their sum
    is the dot product of the query's terms with a vector that is one at the key's row and column.
    Appending both to queries and keys costs less than a bias of (h w)^2 values.
    """
    parts = zip(attention.qkv(tokens).chunk(3, dim=-1), attention.qkv.bias.chunk(3), strict=True)
    q, k, v = (to_windows(part, size, attention.num_heads, fill) for part, fill in parts)
    rows, columns = attention.rel_pos_h, attention.rel_pos_w
    terms = relative_positions(q.reshape(*q.shape[:2], *size, -1), rows, columns).flatten(2, 3)
    cells = one_hot_cells(size[0], size[1], like=k)
    width = q.shape[-1] + terms.shape[-1]
    if q.device.type == "cuda" and width % 8:  # else the kernel copies all three to widen them
        terms, cells = (F.pad(part, (0, -width % 8)) for part in (terms, cells))
    attended = attend(
        torch.cat([q * attention.scale, terms], dim=-1),
        torch.cat([k, cells.expand(*k.shape[:3], -1)], dim=-1),
        v,
        scale=1.0,
    )
    result: Tensor = attention.proj(from_windows(attended, size, tokens.shape[:3]))
    return result


def relative_positions(q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the terms that a query adds to the attention logits of each row and each column.

    Args:
        q: Unscaled queries, (B, heads, h, w, c).
        rows: Embeddings of the vertical distances -(h - 1) ... h - 1, (2 h - 1, c).
        columns: The same for the horizontal ones, (2 w - 1, c).

    Returns:
        (B, heads, h, w, h + w).
    """
    height, width = q.shape[2:4]
    down = q @ _by_distance(rows, height).transpose(1, 2)
    across = q.transpose(2, 3) @ _by_distance(columns, width).transpose(1, 2)
    return torch.cat([down, across.transpose(2, 3)], dim=-1)


def one_hot_cells(height: int, width: int, *, like: Tensor) -> Tensor:
    """Return the row and the column of each cell, one-hot encoded, (h w, h + w)."""
    cells = torch.zeros(height, width, height + width, dtype=like.dtype, device=like.device)
    down, across = (torch.eye(n, dtype=like.dtype, device=like.device) for n in (height, width))
    cells[..., :height], cells[..., height:] = down[:, None], across
    return cells.flatten(0, 1)


def _by_distance(embeddings: Tensor, size: int) -> Tensor:
    """Return the embedding of the distance query - key for all pairs, (size, size, c)."""
    index = torch.arange(size, device=embeddings.device)
    return embeddings[index[:, None] - index[None, :] + size - 1]


class SamPromptEncoder(PromptEncoder):  # type: ignore[misc]
    """SAM's prompt encoder. Only `no_mask_embed` and the positions are used."""

    def __init__(self, config: SamConfig | Sam2Config) -> None:
        super().__init__(
            embed_dim=config.decoder_dim,
            image_embedding_size=(config.grid, config.grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_channels,
        )

    def dense(self) -> Tensor:
        """Return the embedding for "no mask prompt", (1, C, 1, 1)."""
        weight: Tensor = self.no_mask_embed.weight
        return weight.reshape(1, -1, 1, 1)

    def positions(self) -> Tensor:
        """Return the random-Fourier positions of the feature map in float32, (1, C, g, g)."""
        return fourier_positions(
            self.pe_layer.positional_encoding_gaussian_matrix, *self.image_embedding_size
        )


def fourier_positions(frequencies: Tensor, height: int, width: int) -> Tensor:
    """Return sines and cosines of random projections of each cell's centre (Tancik et al. 2020).

    Args:
        frequencies: (2, C / 2): horizontal, vertical.
        height: Cells down.
        width: Cells across.

    Returns:
        (1, C, height, width), float32.
    """
    with torch.autocast(frequencies.device.type, enabled=False):
        down = (torch.arange(height, device=frequencies.device) + 0.5) / height
        across = (torch.arange(width, device=frequencies.device) + 0.5) / width
        centres = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        angles = 2 * math.pi * ((2 * centres - 1) @ frequencies.float())
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return waves.permute(2, 0, 1).unsqueeze(0)


class SamMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's mask decoder for image n with prompt n. h = w = 4 g, M = own tokens."""

    def __init__(self, config: SamConfig | Sam2Config) -> None:
        super().__init__(
            transformer_dim=config.decoder_dim,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.decoder_dim,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_dim,
        )

    def image_features(self, encoded: Tensor) -> ImageFeatures:
        """Convert the image encoder's output (N, C, g, g) to the input of this decoder."""
        return ImageFeatures(encoded.to(self.iou_token.weight.dtype))

    def forward(
        self, features: ImageFeatures, positions: Tensor, dense: Tensor, prompt: Tensor
    ) -> MaskPrediction:
        """Predict all four masks.

        Args:
            features: Features of N images.
            positions: (1, C, g, g).
            dense: (1, C, 1, 1), added to the image.
            prompt: One sparse prompt per image, (N, 1, C).

        Returns:
            Logits (N, 4, 4 g, 4 g) and predicted IoU (N, 4), float32.
        """
        own = self.own_tokens()  # (M, C)
        tokens = torch.cat([own.expand(prompt.shape[0], -1, -1), prompt.to(own.dtype)], dim=1)
        image = features.embedding + dense
        tokens, image_tokens = self.transformer(image, positions.to(image.dtype), tokens)
        image = image_tokens.transpose(1, 2).reshape(image.shape)
        return self.read_out(tokens, self.upscale(image, features))

    def own_tokens(self) -> Tensor:
        """Return the decoder's own tokens: IoU, then the four masks."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def upscale(self, image: Tensor, features: ImageFeatures) -> Tensor:  # noqa: ARG002 - SAM 2's
        """Upscale (N, C, g, g) to (N, C / 8, 4 g, 4 g)."""
        upscaled: Tensor = self.output_upscaling(image)
        return upscaled

    def read_out(self, tokens: Tensor, upscaled: Tensor) -> MaskPrediction:
        """Compute masks and IoU from tokens (N, M + 1, C) and the upscaled image."""
        masks = self.masks(tokens[:, 1 : 1 + self.num_mask_tokens], upscaled)
        return MaskPrediction(masks, self.iou_prediction_head(tokens[:, 0]).float())

    def masks(self, tokens: Tensor, upscaled: Tensor) -> Tensor:
        """Compute mask logits: each token (N, 4, C) weights the channels of the upscaled image."""
        weights = torch.stack(
            [mlp(tokens[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (N, 4, C / 8)
        batch, _, height, width = upscaled.shape
        logits = weights @ upscaled.flatten(2)
        return logits.float().reshape(batch, -1, height, width)


class HighResMaskDecoder(SamMaskDecoder):
    """SAM's decoder with finer image features, as in SAM 2.

    Args:
        config: The SAM's sizes.
        widths: Widths of the finer maps, finest first; their grids are 4g and 2g.
    """

    def __init__(self, config: SamConfig | Sam2Config, widths: tuple[int, int]) -> None:
        super().__init__(config)
        self.conv_s0 = nn.Conv2d(widths[0], config.decoder_dim // 8, 1)
        self.conv_s1 = nn.Conv2d(widths[1], config.decoder_dim // 4, 1)

    def image_features(self, encoded: Sequence[Tensor]) -> ImageFeatures:  # type: ignore[override]
        """Convert the image encoder's levels, finest first, to the input of this decoder."""
        fine, middle, coarse = (level.to(self.conv_s0.weight.dtype) for level in encoded)
        return ImageFeatures(coarse, (self.conv_s0(fine), self.conv_s1(middle)))

    def upscale(self, image: Tensor, features: ImageFeatures) -> Tensor:
        """Upscale (N, C, g, g), with the finer features added, to (N, C / 8, 4 g, 4 g)."""
        fine, middle = features.high_res
        first, norm, activation, second, last_activation = self.output_upscaling
        image = activation(norm(first(image) + middle))
        upscaled: Tensor = last_activation(second(image) + fine)
        return upscaled
