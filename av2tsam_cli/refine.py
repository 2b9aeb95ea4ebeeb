"""Enlarge masks to the frame's size, with edges that follow edges in the picture.

The network's logits are enlarged 8 to 30 times, so the edges of its masks are smooth, and up to one
cell of the logits away from the edges in the picture. `refine` floods the picture from the pixels
that are certainly inside or outside (a watershed of the differences between neighbouring pixels).
It uses the result where the picture's colours explain it better than the network's mask. A guided
filter then gives the pixels on the edge an opacity between 0 and 255.

Sources: Meyer, "Color image segmentation", 1992 (OpenCV's `watershed`); He and Sun, "Fast guided
filter", arXiv 1505.00996.

Letters: (H, W) size of the frame, (h, w) of a part of the working picture, which is the frame or
a smaller version of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import cv2
import numpy as np

from av2tsam_cli.values import Float32Array, UInt8Array

SIDE_PX = 540
"""Shorter side of the working picture; smaller frames are used as they are."""
REACH_CELLS = 1.0
"""Distance that an edge may move, in cells of the logits."""
NOISE_PX = 0.7
"""Standard deviation of a blur against noise, which would stop the flood, in working pixels."""
CELL_PX = 4
"""Pixels per cell of the logits in the smaller picture in which labels are compared."""
MIN_GAIN = 0.1
"""The flooded label is used where the colours explain at least this share more of its variance than
of the variance of the network's mask."""
EDGE_PX = 2
"""Radius of the guided filter, in working pixels."""
SMOOTHNESS = 1e-3
"""The guided filter's regularisation, for colours from 0 to 1."""
STEEPNESS = 1.5
"""Factor that makes soft edges steeper, because the filter widens them."""
NOTHING = 1e-3
"""Labels from 0 to 1 that differ by less than this from 0 or 1 are taken for 0 or 1."""
TILE_PX = 32
"""Side of the tiles of the working picture in which edges are drawn at the frame's size."""

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns."""


def refine(rgb: UInt8Array, logits: Float32Array, level: float = 0.0) -> UInt8Array:
    """Return the opacity of a mask's pixels, uint8, (H, W): 0 outside, 255 inside, soft edges.

    Pixels with an opacity above 127 belong to the mask. The edges of the network's mask move by up
    to REACH_CELLS cells of the logits; nothing else changes.

    Args:
        rgb: The frame, uint8, (H, W, 3), RGB.
        logits: Mask logits, float32, of any size.
        level: The logit above which a pixel belongs to the mask.
    """
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    high, wide = (max(1, round(side * _scale(rgb))) for side in rgb.shape[:2])
    inside = (cv2.resize(logits, (wide, high)) > level).view(np.uint8)
    cell = (wide / logits.shape[1], high / logits.shape[0])
    reach = (max(1, round(REACH_CELLS * cell[0])), max(1, round(REACH_CELLS * cell[1])))
    part = _grown_box(inside, reach)
    if part is None:
        return alpha
    picture = rgb
    if picture.shape[:2] != (high, wide):
        picture = cv2.resize(rgb, (wide, high), interpolation=cv2.INTER_AREA)
    picture, inside = (np.ascontiguousarray(each[part]) for each in (picture, inside))
    label = _follow_edges(picture, inside, reach, scale=min(1.0, CELL_PX / max(cell)))
    _draw(alpha, rgb, part, label, _Colours(picture, EDGE_PX).model_of(label))
    return alpha


def _scale(rgb: UInt8Array) -> float:
    """Return the size of the working picture relative to the frame."""
    return min(1.0, SIDE_PX / int(min(rgb.shape[:2])))


def _grown_box(inside: UInt8Array, reach: tuple[int, int]) -> Box | None:
    """Return the part of a picture in which the edges of a mask can move; None for no mask."""
    left, top, wide, high = cv2.boundingRect(inside)
    if not wide:
        return None
    across, down = 2 * reach[0], 2 * reach[1]
    rows = slice(max(0, top - down), min(inside.shape[0], top + high + down))
    return rows, slice(max(0, left - across), min(inside.shape[1], left + wide + across))


def _follow_edges(
    picture: UInt8Array, inside: UInt8Array, reach: tuple[int, int], *, scale: float
) -> Float32Array:
    """Move the edges of a mask to edges in the picture where that fits the colours better.

    Args:
        picture: uint8, (h, w, 3), RGB.
        inside: The network's mask, uint8, (h, w), 0 or 1.
        reach: Distance that an edge may move, in pixels across and down.
        scale: Size of the picture in which labels are compared, relative to this one.

    Returns:
        The label: the degree to which each pixel belongs to the mask, (h, w), 0 to 1.
    """
    flooded = _flood(cv2.GaussianBlur(picture, (0, 0), NOISE_PX), inside, reach)
    coarse = inside.astype(np.float32)
    high, wide = inside.shape
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (flooded, coarse)]
    colours = _Colours(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), CELL_PX)
    explained = [colours.model_of(each).explained for each in small]
    gain = np.clip(explained[0] - explained[1], 0, 2 * MIN_GAIN)
    gain = cv2.resize(_mean(gain, CELL_PX), (wide, high))
    return np.where(gain > MIN_GAIN, flooded, coarse)  # a mix would have wide soft edges


def _flood(picture: UInt8Array, inside: UInt8Array, reach: tuple[int, int]) -> Float32Array:
    """Grow a mask from its certain pixels to the edges in a picture; return (h, w), 0 to 1."""
    window = np.ones((2 * reach[1] + 1, 2 * reach[0] + 1), np.uint8)
    markers = np.zeros(inside.shape, np.int32)
    markers[cv2.erode(inside, window) > 0] = 1
    markers[cv2.dilate(inside, window) == 0] = 2
    cv2.watershed(picture, markers)
    flooded = np.select([markers == 1, markers == 2], [np.float32(1), np.float32(0)], 0.5)
    flooded[[0, -1]] = flooded[[1, -2]]  # `watershed` leaves out the border
    flooded[:, [0, -1]] = flooded[:, [1, -2]]
    return flooded.astype(np.float32)


@dataclass(frozen=True)
class _Model:
    """A label as a linear function of the colour, around each pixel of a picture."""

    factors: list[Float32Array] = field(repr=False)
    """The factors of red, green and blue, each (h, w)."""
    offset: Float32Array = field(repr=False)
    """The constant term, (h, w)."""
    explained: Float32Array = field(repr=False)
    """Share of the label's variance that the function explains, (h, w), 0 to 1."""


class _Colours:
    """The colours in a window around each pixel of a picture; its radius is in pixels."""

    def __init__(self, picture: UInt8Array, radius: int) -> None:
        self._radius = radius
        self._planes = [plane / np.float32(255) for plane in cv2.split(picture)]
        self._means = [_mean(plane, radius) for plane in self._planes]
        rr, rg, rb, gg, gb, bb = (
            _mean(self._planes[i] * self._planes[j], radius) - self._means[i] * self._means[j]
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
        )
        rr, gg, bb = (each + np.float32(SMOOTHNESS) for each in (rr, gg, bb))
        cofactors = (
            (gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb),
            (gb * rb - rg * bb, rr * bb - rb * rb, rb * rg - rr * gb),
            (rg * gb - gg * rb, rb * rg - rr * gb, rr * gg - rg * rg),
        )
        scale = 1 / (rr * cofactors[0][0] + rg * cofactors[0][1] + rb * cofactors[0][2])
        self._inverse = [[each * scale for each in row] for row in cofactors]

    def model_of(self, label: Float32Array) -> _Model:
        """Fit a label (h, w), 0 to 1, around each pixel."""
        mean = _mean(label, self._radius)
        variance = _mean(label * label, self._radius) - mean * mean
        shared = [
            _mean(plane * label, self._radius) - average * mean
            for plane, average in zip(self._planes, self._means, strict=True)
        ]
        factors = [sum(a * b for a, b in zip(row, shared, strict=True)) for row in self._inverse]
        offset = mean - sum(a * b for a, b in zip(factors, self._means, strict=True))
        explained = sum(a * b for a, b in zip(factors, shared, strict=True))
        return _Model(factors, offset, explained / (variance + np.float32(1e-4)))


def _mean(plane: Float32Array, radius: int) -> Float32Array:
    """Return the mean of the window around each pixel."""
    side = 2 * radius + 1
    return cast("Float32Array", cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT))


def _draw(
    alpha: UInt8Array, rgb: UInt8Array, part: Box, label: Float32Array, model: _Model
) -> None:
    """Draw a label at the frame's size, its edges as a function of the frame's colours.

    Args:
        alpha: The opacity, uint8, (H, W), 0; written where the label is above 0.
        rgb: The frame, uint8, (H, W, 3), RGB.
        part: The part of the working picture that the label covers.
        label: The degree to which each of its pixels belongs to the mask, (h, w), 0 to 1.
        model: The model of the label.
    """
    enlarge = [side / max(1, round(side * _scale(rgb))) for side in alpha.shape]
    function = cv2.merge([_mean(each, EDGE_PX) for each in (*model.factors, model.offset)])
    near = cv2.blur(label, (4 * EDGE_PX + 3,) * 2, borderType=cv2.BORDER_REPLICATE)
    side = TILE_PX if max(enlarge) > 1 else max(label.shape)
    for top in range(0, label.shape[0], side):
        for left in range(0, label.shape[1], side):
            low, high, *_ = cv2.minMaxLoc(near[top : top + side, left : left + side])
            starts = (part[0].start + top, part[1].start + left)
            stops = (min(starts[0] + side, part[0].stop), min(starts[1] + side, part[1].stop))
            box = tuple(map(_enlarged, starts, stops, enlarge))
            if low > 1 - NOTHING:
                alpha[box] = 255
            elif high > NOTHING:
                alpha[box] = _opacity(_sampled(function, part, box, enlarge), rgb[box])


def _enlarged(start: int, stop: int, ratio: float) -> slice:
    """Return the pixels of the frame that belong to pixels of the working picture."""
    return slice(round(start * ratio), round(stop * ratio))


def _sampled(
    function: Float32Array, part: Box, box: tuple[slice, ...], enlarge: Sequence[float]
) -> Float32Array:
    """Return the factors (H, W, 4) in a box of the frame, interpolated between pixels."""
    (rows, columns), (down, across) = box, enlarge
    if (down, across) == (1.0, 1.0):
        return function
    x = (columns.start + 0.5) / across - 0.5 - part[1].start
    y = (rows.start + 0.5) / down - 0.5 - part[0].start
    to_function = np.array([[1 / across, 0, x], [0, 1 / down, y]])
    return cast(
        "Float32Array",
        cv2.warpAffine(
            function,
            to_function,
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
    )


def _opacity(function: Float32Array, rgb: UInt8Array) -> UInt8Array:
    """Return the opacity of pixels, uint8, (H, W), from the factors (H, W, 4) at each of them."""
    ones = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)  # a fourth channel of 255, for the offset
    terms = cv2.multiply(function, ones, dtype=cv2.CV_32F)
    weights = np.full((1, 5), STEEPNESS, np.float32)
    weights[0, 4] = 127.5 * (1 - STEEPNESS)
    return cast("UInt8Array", cv2.convertScaleAbs(cv2.max(cv2.transform(terms, weights), 0)))
