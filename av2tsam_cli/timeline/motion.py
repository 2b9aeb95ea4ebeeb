"""What moves from frame to frame: whether anything does, and from where to where.

Arrays in, arrays out: nothing here knows of networks or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from av2tsam_cli.values import Float32Array, Frame, UInt8Array

if TYPE_CHECKING:
    import torch

SIDE_PX = 256
"""Side of the grey squares between which flow is found; the largest grid of logits is as fine."""
SAMPLED_PX = 180
"""About how many rows or columns of a frame's shorter side are compared; the rest is left out."""
BLOCKS = 32
"""Blocks across and down in which frames are compared: what moves in one of them counts."""


@dataclass(frozen=True)
class KeyFrame:
    """A frame whose logits are known."""

    frame: Frame
    """The frame."""
    logits: torch.Tensor = field(repr=False)
    """Mask logits, (1, h, w), any float dtype, on any device, over the frame squashed to a square.
    """

    @cached_property
    def grey(self) -> UInt8Array:
        """The frame as flow sees it, uint8, (SIDE_PX, SIDE_PX)."""
        return _grey(self.frame)

    @cached_property
    def values(self) -> Float32Array:
        """The logits as an array (h, w)."""
        return cast(Float32Array, self.logits[0].float().cpu().numpy())


def between(frame: Frame, before: KeyFrame, after: KeyFrame | None) -> torch.Tensor:
    """Logits of a frame from the key frames around it, along the optical flow (DIS).

    Both keys' logits are brought to where the frame shows what they belong to, and the nearer key
    in time has the greater say. Without a key after it, the one before it has all.

    Args:
        frame: A frame that is not a key, later than `before`.
        before: The last key.
        after: The next key, of later time and with logits of the same shape; None where there is
            none.

    Returns:
        Logits (1, h, w) in the dtype and on the device of the keys.
    """
    grey = _grey(frame)
    values = _carried(before, grey)
    if after is not None:
        values += _share(frame, before, after) * (_carried(after, grey) - values)
    return before.logits.new_tensor(values[None])


def difference(a: UInt8Array, b: UInt8Array) -> float:
    """How much two pictures differ where they differ most, in levels of 0 to 255.

    It is the largest, over BLOCKS x BLOCKS blocks of the picture and the three colours, of the mean
    absolute difference: noise all over the picture counts little, a small thing that moves a lot.

    Args:
        a: Pixels, uint8, (H, W, 3), RGB.
        b: The same; infinitely different where its size is.
    """
    if a.shape != b.shape:
        return math.inf
    step = max(1, min(a.shape[:2]) // SAMPLED_PX)
    differing = cv2.absdiff(a[::step, ::step], b[::step, ::step]).astype(np.float32)
    means = cv2.resize(differing, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
    return round(float(means.max()), 3)  # a mean of twos is 2 and no hair more


def _grey(frame: Frame) -> UInt8Array:
    small = cv2.resize(frame.rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return cast(UInt8Array, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))


def _share(frame: Frame, before: KeyFrame, after: KeyFrame) -> float:
    """Where a frame lies in time on the way from one key (0) to the other (1)."""
    span_s = after.frame.time_s - before.frame.time_s
    return (frame.time_s - before.frame.time_s) / span_s if span_s > 0 else 0.0


def _carried(key: KeyFrame, grey: UInt8Array) -> Float32Array:
    """A key's logits (h, w) as they look in the frame whose grey square is given."""
    # One of its own each time: it keeps buffers, and several videos may go on at once.
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = finder.calc(grey, key.grey, None)  # (SIDE_PX, SIDE_PX, 2): x and y from frame to key
    height, width = key.values.shape
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
    y, x = np.indices((height, width), np.float32)
    x += flow[..., 0] * np.float32(width / SIDE_PX)
    y += flow[..., 1] * np.float32(height / SIDE_PX)
    # Cubic, for linear lookups between the points of a coarse grid blur what is looked up.
    return cast(
        Float32Array,
        cv2.remap(key.values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
    )
