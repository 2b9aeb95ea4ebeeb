"""Preprocess frames for SAM and BEiT-3: batched, on the frames' device."""

import cv2
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.embeddings.resample import per_channel, resize
from av2tsam_cli.values import UInt8Array

# SAM's pixel statistics, on the scale 0-255; used for SAM 2 as well, as the reference does.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


def squash(rgb: UInt8Array, size: int) -> UInt8Array:
    """Squash one frame (H, W, 3) to a square by area averaging, for `ModelConfig.source_size`."""
    square: UInt8Array = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA)
    return square


def longest_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width scaled so that the longer side is `size`."""
    scale = size / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def sam_image(frames: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize with Pillow's bilinear filter and normalise with SAM's statistics.

    Args:
        frames: Pixels, uint8, (B, 3, H, W), RGB.
        size: Side of the square that the frame is squashed to, or (height, width).

    Returns:
        Float32, (B, 3, size, size).
    """
    height, width = (size, size) if isinstance(size, int) else size
    pixels = resize(frames, height, width, "bilinear").float()
    mean, std = (per_channel(values, frames.device) for values in (SAM_MEAN, SAM_STD))
    return (pixels - mean) / std


def beit_image(frames: Tensor, size: int) -> Tensor:
    """Resize bicubically without antialias and normalise to [-1, 1].

    Args:
        frames: Pixels, uint8, (B, 3, H, W), RGB.
        size: Side of the square that the frame is squashed to.

    Returns:
        Float32, (B, 3, size, size).
    """
    pixels = F.interpolate(frames.float() / 255, (size, size), mode="bicubic", align_corners=False)
    return (pixels - 0.5) / 0.5
