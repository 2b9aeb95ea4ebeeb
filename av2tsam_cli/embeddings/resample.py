"""Pillow's image resampling for batched tensors, bit-exact, on any device."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Pillow's fixed point (Resample.c): 8-bit pixels times 22-bit weights, rounded after each pass.
WEIGHT_BITS = 32 - 8 - 2


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
"""Filter function and its support in source pixels at scale one."""


@lru_cache(maxsize=64)
def _weights(source: int, target: int, name: str) -> Tensor:
    """Return the fixed-point resampling matrix, (target, source), integers stored as float64."""
    function, support = FILTERS[name]
    scale = source / target
    stretch = max(scale, 1.0)  # antialiasing: the filter widens when downscaling
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(int(centre - support * stretch + 0.5), 0)
        last = min(int(centre + support * stretch + 0.5), source)
        taps = [function((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = sum(taps)
        fixed = [math.floor(0.5 + abs(t / total) * 2**WEIGHT_BITS) for t in taps]
        signed = [math.copysign(f, t) for f, t in zip(fixed, taps, strict=True)]
        matrix[row, first:last] = torch.tensor(signed, dtype=torch.float64)
    return matrix


@lru_cache(maxsize=16)
def _weights_on(device: torch.device, source: int, target: int, name: str) -> Tensor:
    """Return `_weights` on a device, where they stay: copying them takes longer than using them."""
    return _weights(source, target, name).to(device)


def _round(sums: Tensor) -> Tensor:
    """Convert fixed point to 8-bit pixel values, as Pillow's clip8 does."""
    return torch.floor(sums / (1 << WEIGHT_BITS) + 0.5).clamp_(0, 255)


@lru_cache(maxsize=16)
def per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Return a value per colour, (3, 1, 1), on a device, where it stays: copying would wait."""
    return torch.tensor(values, device=device)[:, None, None]


def resize(frames: Tensor, height: int, width: int, filter_name: str) -> Tensor:
    """Resize like `PIL.Image.resize`: antialiased, with 8 bits between the two passes.

    Args:
        frames: Pixels, uint8, (B, C, H, W).
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        filter_name: `bilinear` or `bicubic`.

    Returns:
        Pixels, uint8, (B, C, height, width).
    """
    device = frames.device
    if device.type == "cpu":
        return _by_pillow(frames, height, width, filter_name)
    if device.type == "mps":  # MPS has no float64
        return resize(frames.cpu(), height, width, filter_name).to(device)
    return resize_fixed_point(frames, height, width, filter_name)


def _by_pillow(frames: Tensor, height: int, width: int, filter_name: str) -> Tensor:
    """Resize frame by frame with Pillow, which is the fastest on a CPU."""
    if frames.shape[-2:] == (height, width):
        return frames
    method = Image.Resampling[filter_name.upper()]
    resized = [
        np.asarray(Image.fromarray(frame.numpy()).resize((width, height), method))
        for frame in frames.permute(0, 2, 3, 1).contiguous()
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def resize_fixed_point(frames: Tensor, height: int, width: int, filter_name: str) -> Tensor:
    """Compute `resize` with Pillow's arithmetic as two matrix products in float64.

    Sums of products of 8-bit pixels and 22-bit weights are exact in float64, in any order.
    """
    device = frames.device
    pixels = frames
    if width != frames.shape[-1]:
        across = _weights_on(device, frames.shape[-1], width, filter_name)
        pixels = _round(pixels.double() @ across.T)
    if height != frames.shape[-2]:
        down = _weights_on(device, frames.shape[-2], height, filter_name)
        pixels = _round(down @ pixels.double())
    return pixels.to(torch.uint8)
