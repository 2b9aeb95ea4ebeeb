"""Random changes of training videos: horizontal flips and colour jitter.

Letters: T frames of a video, h, w their size.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import ReadSample, Sample

JITTER = 0.3
"""Brightness, contrast and saturation are multiplied by 1 - JITTER to 1 + JITTER."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the grey level of a pixel (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """Changes of all frames of one video."""

    flip: bool
    """Whether to mirror frames and masks horizontally."""
    brightness: float
    """Factor of the pixels."""
    contrast: float
    """Factor of the difference from the video's mean grey level."""
    saturation: float
    """Factor of the difference from each pixel's grey level."""

    def apply(self, sample: Sample) -> Sample:
        """Change frames and masks. The sample's CLIP embeddings are those of the old frames."""
        frames, masks = self.change_colours(sample.frames), sample.masks
        if self.flip:
            frames, masks = frames.flip(-1), masks.flip(-1)
        return replace(sample, frames=frames, masks=masks)

    def change_colours(self, frames: Tensor) -> Tensor:
        """Change the colours of frames, uint8, (T, 3, h, w), RGB."""
        pixels = frames.float() * self.brightness
        mean = _grey(pixels).mean()
        pixels = torch.lerp(mean, pixels, self.contrast)
        pixels = torch.lerp(_grey(pixels).expand_as(pixels), pixels, self.saturation)
        return pixels.round().clamp(0, 255).to(torch.uint8)


def draw_augmentation(clip: Clip, *, seed: int, epoch: int) -> Augmentation:
    """Draw the changes of a video in an epoch; only the video's name, `seed` and `epoch` matter."""
    name = hashlib.sha256(f"{clip.category}/{clip.name}".encode()).digest()
    random = np.random.default_rng((seed, epoch, int.from_bytes(name[:8])))
    flip = bool(random.random() < 0.5)
    brightness, contrast, saturation = random.uniform(1 - JITTER, 1 + JITTER, 3).tolist()
    return Augmentation(flip, brightness, contrast, saturation)


def _grey(pixels: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, device=pixels.device)[:, None, None]
    return (pixels * weights).sum(1, keepdim=True)


def read_augmented(read: ReadSample, clip: Clip, *, seed: int, epoch: int) -> Sample:
    """Read a video and change it."""
    return draw_augmentation(clip, seed=seed, epoch=epoch).apply(read(clip))
