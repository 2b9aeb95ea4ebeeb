"""Measure differences and motion between frames, and move masks along the optical flow.

These are functions of arrays, independent of networks and files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np

from av2tsam_cli.values import Float32Array, Frame, UInt8Array

SIDE_PX = 256
"""Side of the square grey images for optical flow; no network's logits are finer."""
SAMPLED_PX = 180
"""Approximate number of rows or columns to compare along a frame's shorter side."""
BLOCKS = 32
"""Number of blocks, horizontally and vertically, in which frames are compared."""


@dataclass(frozen=True)
class Motion:
    """Motion of the picture since the previous frame: optical flow (DIS) between grey squares."""

    grey: UInt8Array = field(repr=False)
    """The frame as a grey square, uint8, (SIDE_PX, SIDE_PX)."""
    back: Float32Array = field(repr=False)
    """Flow to the previous frame: the offset, to the right and down, of each pixel's position
    there, in pixels of the square, float32, (SIDE_PX, SIDE_PX, 2)."""
    forth: Float32Array = field(repr=False)
    """Flow from the previous frame to this one, likewise."""


def motion_since(before: Motion | None, frame: Frame) -> Motion:
    """Compute the motion since the previous frame; `before` is None for the first frame."""
    grey = grey_square(frame.rgb, SIDE_PX)
    if before is None:
        return Motion(grey, no_flow(), no_flow())
    # Created for each call, because it has buffers, and several threads may call this function.
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    back, forth = (finder.calc(*pair, None) for pair in ((grey, before.grey), (before.grey, grey)))
    return Motion(grey, cast(Float32Array, back), cast(Float32Array, forth))


def grey_square(rgb: UInt8Array, side_px: int) -> UInt8Array:
    """Return a frame as a grey square, uint8, (side_px, side_px)."""
    # Four samples per pixel of the square: averaging the whole frame takes far longer.
    sampled = cv2.resize(rgb, (2 * side_px, 2 * side_px), interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY)
    return cast(UInt8Array, cv2.resize(grey, (side_px, side_px), interpolation=cv2.INTER_AREA))


def no_flow() -> Float32Array:
    """Return the optical flow of a picture that does not move, (SIDE_PX, SIDE_PX, 2)."""
    return np.zeros((SIDE_PX, SIDE_PX, 2), np.float32)


def join(first: Float32Array, second: Float32Array) -> Float32Array:
    """Return the composition of two flows, all float32, (h, w, 2)."""
    return cast(Float32Array, first + sample(second, first))


def sample(values: Any, flow: Float32Array) -> Any:
    """Sample values (h, w) or (h, w, n) where a flow (h, w, 2) points, with interpolation."""
    x, y = grid(*flow.shape[:2])
    return cv2.remap(
        values,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def warp_all(logits: Float32Array, flow: Float32Array) -> Float32Array:
    """Move the logits (K, h, w) of K sources along an optical flow; see `warp`."""
    return np.stack([warp(values, flow) for values in logits])


def difference(a: UInt8Array, b: UInt8Array) -> float:
    """Return the maximum local difference between two images, in levels of 0 to 255.

    It is the maximum mean absolute difference over colour channels and BLOCKS x BLOCKS blocks, so
    uniform noise counts little, and a small moving object a lot.

    Args:
        a: Pixels, uint8, (H, W, 3), RGB.
        b: Pixels of the other image; the difference is infinite if it has another size.
    """
    if a.shape != b.shape:
        return math.inf
    step = max(1, min(a.shape[:2]) // SAMPLED_PX)
    differing = cv2.absdiff(a[::step, ::step], b[::step, ::step]).astype(np.float32)
    means = cv2.resize(differing, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
    return round(float(means.max()), 3)  # so that a mean of twos is exactly 2


def warp(values: Float32Array, flow: Float32Array) -> Float32Array:
    """Move values over a picture along an optical flow.

    Args:
        values: float32, (h, w), such as the logits of a mask.
        flow: For each pixel of the result, the offset, to the right and down, at which its value is
            found, in pixels of the flow, float32, (H, W, 2).

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
    """Return the x and y of each pixel, float32, (h, w), cached, so do not modify them."""
    y, x = np.indices((height, width), np.float32)
    return x, y
