"""CLIP's image tower, built from open_clip's classes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.embeddings.resample import resize

# OpenAI's CLIP: mean and standard deviation of its training images, in 0-1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of an image tower, in open_clip's terms. The defaults are OpenAI's ViT-B/32."""

    embed_dim: int = 512
    """Width of the embedding."""
    image_size: int = 224
    """Side of the square input in pixels."""
    layers: int | tuple[int, int, int, int] = 12
    """Transformer blocks, or blocks per stage of open_clip's ModifiedResNet."""
    width: int = 768
    """Width of the transformer, or of the ResNet's first stage."""
    head_width: int = 64
    """Width of one attention head."""
    patch_size: int | None = 32
    """Side of a patch in pixels; None for a ResNet."""
    quick_gelu: bool = True
    """OpenAI's weights were trained with x * sigmoid(1.702 x) in place of GELU."""


class ClipEmbedder(nn.Module):
    """Frames to CLIP embeddings. B = frames, s = `config.image_size`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _resnet(config) if isinstance(config.layers, tuple) else _vit(config)

    def preprocess(self, frames: Tensor, *, crop: bool = False) -> Tensor:
        """Resize with Pillow's bicubic filter and normalise.

        Args:
            frames: Pixels, uint8, (B, 3, H, W), RGB.
            crop: True for OpenAI's own preprocessing: the shorter side to s, then the centre.
                False squashes to the square, as AVSBench's frames were, and loses no border.

        Returns:
            Float32, (B, 3, s, s).
        """
        size = self.config.image_size
        frames = _resize_and_crop(frames, size) if crop else resize(frames, size, size, "bicubic")
        mean, std = (torch.tensor(c, device=frames.device)[:, None, None] for c in (MEAN, STD))
        return (frames.float() / 255 - mean) / std

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, s, s) from `preprocess` to embeddings (B, embed_dim), not normalised."""
        weight = next(self.visual.parameters())
        embeddings: Tensor = self.visual(images.to(weight.dtype))
        return embeddings


def _resize_and_crop(frames: Tensor, size: int) -> Tensor:
    """Shorter side to `size`, then the centre square (torchvision's rounding)."""
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    height, width = int(size * height / shorter), int(size * width / shorter)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resize(frames, height, width, "bicubic")[..., top : top + size, left : left + size]


def _resnet(config: ClipConfig) -> nn.Module:
    tower: nn.Module = borrow("open_clip.modified_resnet").ModifiedResNet(
        layers=config.layers,
        output_dim=config.embed_dim,
        # open_clip's rule: 32 times the first stage's width reaches the attention pool.
        heads=config.width * 32 // config.head_width,
        image_size=config.image_size,
        width=config.width,
    )
    return tower


def _vit(config: ClipConfig) -> nn.Module:
    transformer = borrow("open_clip.transformer")
    tower: nn.Module = transformer.VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=config.width // config.head_width,
        mlp_ratio=4.0,
        output_dim=config.embed_dim,
        act_layer=transformer.QuickGELU if config.quick_gelu else nn.GELU,
    )
    return tower
