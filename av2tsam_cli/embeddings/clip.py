"""CLIP's image encoder, made of classes from open_clip."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.embeddings.names import NameTable
from av2tsam_cli.embeddings.resample import per_channel, resize
from av2tsam_cli.embeddings.text import TextConfig

# Mean and standard deviation of the training images of OpenAI's CLIP, on the scale 0-1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of an image encoder, in the terms of open_clip. The defaults are OpenAI's ViT-B/32."""

    embed_dim: int = 512
    """Width of the embedding."""
    image_size: int = 224
    """Side of the square input in pixels."""
    layers: int | tuple[int, int, int, int] = 12
    """Transformer blocks, or the blocks of each stage of a ModifiedResNet."""
    width: int = 768
    """Width of the transformer, or of the first stage of the ResNet."""
    head_width: int = 64
    """Width of one attention head."""
    patch_size: int | None = 32
    """Side of a patch in pixels; None for a ResNet."""
    quick_gelu: bool = True
    """Use x * sigmoid(1.702 x) instead of GELU, as OpenAI's weights require."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """Names with an embedding of their own, for a small model without a text encoder."""
    text: TextConfig | None = None
    """Sizes of the text encoder; None if there is none. It is a module of its own (`clip_text`),
    which is loaded only where phrases are embedded."""


class ClipEmbedder(nn.Module):
    """Embeds frames with CLIP. B = frames, s = `config.image_size`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _resnet(config) if isinstance(config.layers, tuple) else _vit(config)
        self.names = NameTable(len(config.names), config.embed_dim) if config.names else None

    def preprocess(self, frames: Tensor, *, crop: bool = False) -> Tensor:
        """Resize with Pillow's bicubic filter and normalise.

        Args:
            frames: Pixels, uint8, (B, 3, H, W), RGB.
            crop: True resizes the shorter side to s and crops the centre, as OpenAI does. False
                squashes the whole frame to a square, as in AVSBench.

        Returns:
            Float32, (B, 3, s, s).
        """
        size = self.config.image_size
        frames = _resize_and_crop(frames, size) if crop else resize(frames, size, size, "bicubic")
        mean, std = (per_channel(values, frames.device) for values in (MEAN, STD))
        return (frames.float() / 255 - mean) / std

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, s, s) from `preprocess` as (B, embed_dim), not normalised."""
        weight = next(self.visual.parameters())
        embeddings: Tensor = self.visual(images.to(weight.dtype))
        return embeddings


def _resize_and_crop(frames: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and crop the centre, rounding as torchvision does."""
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    height, width = int(size * height / shorter), int(size * width / shorter)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resize(frames, height, width, "bicubic")[..., top : top + size, left : left + size]


def _resnet(config: ClipConfig) -> nn.Module:
    encoder: nn.Module = borrow("open_clip.modified_resnet").ModifiedResNet(
        layers=config.layers,
        output_dim=config.embed_dim,
        # As in open_clip: the attention pool is 32 times as wide as the first stage.
        heads=config.width * 32 // config.head_width,
        image_size=config.image_size,
        width=config.width,
    )
    return encoder


def _vit(config: ClipConfig) -> nn.Module:
    transformer = borrow("open_clip.transformer")
    encoder: nn.Module = transformer.VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=config.width // config.head_width,
        mlp_ratio=4.0,
        output_dim=config.embed_dim,
        act_layer=activation(config),
    )
    return encoder


def activation(config: ClipConfig) -> type[nn.Module]:
    """Return the activation function of the transformers of a CLIP."""
    quick: type[nn.Module] = borrow("open_clip.transformer").QuickGELU
    return quick if config.quick_gelu else nn.GELU
