"""Draw mattes and cutouts: the opacity of the sound source, and the source on transparency."""

from typing import cast

import cv2
import numpy as np

from av2tsam_cli.segment_options import DEFAULT_LOOK, LookOptions
from av2tsam_cli.values import MaskedFrame, Pixels, UInt8Array, levels

MARGIN_PX = 16
"""Distance around a cutout in which invisible pixels keep their colours, so that codecs and filters
do not mix the colours of its edge with black."""


def draw_matte(masked: MaskedFrame, look: LookOptions = DEFAULT_LOOK) -> UInt8Array:
    """Return the opacity of each pixel, uint8, (H, W): 0 outside the source, 255 inside."""
    alpha = masked.mask * np.uint8(255) if look.hard else masked.alpha
    if look.grow:
        alpha = _grown(alpha, look.grow)
    if look.feather:
        # With this deviation, nearly the whole transition is within `feather` pixels on each side.
        alpha = cast("UInt8Array", cv2.GaussianBlur(alpha, (0, 0), look.feather / 2))
    return alpha


def draw_cutout(masked: MaskedFrame, look: LookOptions = DEFAULT_LOOK) -> Pixels:
    """Return a frame with its opacity, (H, W, 4), RGBA; colours are not premultiplied.

    Invisible pixels more than MARGIN_PX away are black.
    """
    pixels, alpha = masked.frame.pixels, draw_matte(masked, look)
    side = 2 * MARGIN_PX + 1
    near = cv2.dilate(alpha, np.ones((side, side), np.uint8))
    cutout = cast("Pixels", cv2.cvtColor(cv2.copyTo(pixels, near), cv2.COLOR_RGB2RGBA))
    cutout[..., 3] = alpha * pixels.dtype.type(levels(pixels))
    return cutout


def _grown(alpha: UInt8Array, distance_px: int) -> UInt8Array:
    """Move the edges of a matte outwards by a distance; inwards if it is negative."""
    side = 2 * abs(distance_px) + 1
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if distance_px > 0 else cv2.erode
    return cast("UInt8Array", change(alpha, shape))
