"""Motion between frames: how much two frames differ, and masks that follow the optical flow.

Functions of arrays, independent of networks and files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from av2tsam_cli.values import Float32Array, Frame, UInt8Array

if TYPE_CHECKING:
    import torch

SIDE_PX = 256
"""Side of the square grey images used for optical flow; no network's logits are finer."""
SAMPLED_PX = 180
"""About how many rows or columns of a frame's shorter side are compared; others are skipped."""
BLOCKS = 32
"""Frames are compared in this many blocks horizontally and vertically."""


@dataclass(frozen=True)
class KeyFrame:
    """A frame with its mask logits."""

    frame: Frame
    """The frame."""
    logits: torch.Tensor = field(repr=False)
    """Mask logits, (K, h, w), any float dtype, on any device, over the frame squashed to a square.
    K is the number of sources that have a mask of their own."""

    @cached_property
    def grey(self) -> UInt8Array:
        """The frame as a grey square for optical flow, uint8, (SIDE_PX, SIDE_PX)."""
        return _grey(self.frame)

    @cached_property
    def values(self) -> Float32Array:
        """The logits as an array, float32, (K, h, w)."""
        return cast(Float32Array, self.logits.float().cpu().numpy())


def interpolate(frame: Frame, before: KeyFrame, after: KeyFrame | None) -> torch.Tensor:
    """Interpolate the logits of a frame from key frames around it, along the optical flow (DIS).

    The logits of both key frames are warped to the frame and weighted by closeness in time. Without
    a later key frame, those of the earlier one are warped.

    Args:
        frame: A frame later than `before`.
        before: The last key frame.
        after: The next key frame, with logits of the same shape, or None.

    Returns:
        Logits (K, h, w) in the dtype and on the device of the key frames.
    """
    grey = _grey(frame)
    values = _warp(before, grey)
    if after is not None:
        span_s = after.frame.time_s - before.frame.time_s
        weight = (frame.time_s - before.frame.time_s) / span_s if span_s > 0 else 0.0
        values += weight * (_warp(after, grey) - values)
    return before.logits.new_tensor(values)


def difference(a: UInt8Array, b: UInt8Array) -> float:
    """Return how much two images differ where they differ most, in levels of 0 to 255.

    That is the largest mean absolute difference of any colour channel in any of
    BLOCKS x BLOCKS blocks: uniform noise counts little, a small moving object a lot.

    Args:
        a: Pixels, uint8, (H, W, 3), RGB.
        b: The same; images of another size differ infinitely.
    """
    if a.shape != b.shape:
        return math.inf
    step = max(1, min(a.shape[:2]) // SAMPLED_PX)
    differing = cv2.absdiff(a[::step, ::step], b[::step, ::step]).astype(np.float32)
    means = cv2.resize(differing, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
    return round(float(means.max()), 3)  # so that a mean of twos is exactly 2


def _grey(frame: Frame) -> UInt8Array:
    small = cv2.resize(frame.rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return cast(UInt8Array, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))


def _warp(key: KeyFrame, grey: UInt8Array) -> Float32Array:
    """Warp the logits (K, h, w) of a key frame to the frame whose grey square is given."""
    # Created for each call: it holds buffers, and several threads may call this.
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = finder.calc(grey, key.grey, None)
    return np.stack([warp(values, flow) for values in key.values])


def warp(values: Float32Array, flow: Float32Array) -> Float32Array:
    """Move values over a picture along an optical flow.

    Args:
        values: float32, (h, w), such as the logits of a mask.
        flow: For each pixel of the result, how far to the right and down its value is found, in
            pixels of the flow, float32, (H, W, 2).

    Returns:
        float32, (h, w).
    """
    (height, width), (rows, columns) = values.shape, flow.shape[:2]
    if (height, width) != (rows, columns):
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
    x, y = grid(height, width)
    x = x + flow[..., 0] * np.float32(width / columns)
    y = y + flow[..., 1] * np.float32(height / rows)
    # Cubic, because linear interpolation on a coarse grid would blur the logits.
    moved = cv2.remap(values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cast(Float32Array, moved)


@lru_cache(maxsize=4)
def grid(height: int, width: int) -> tuple[Float32Array, Float32Array]:
    """Return the x and the y of each pixel, float32, (h, w); not to be changed."""
    y, x = np.indices((height, width), np.float32)
    return x, y
