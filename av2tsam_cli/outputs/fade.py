"""Fade overlays in and out: how strongly a frame is dimmed and its sources are highlighted."""

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np

from av2tsam_cli.values import BoolArray, Frame, UInt8Array

DIM_S = 0.4
"""Seconds that dimming takes, and longer in bright pictures. At 25 frames per second, the mean
brightness changes by at most 4 levels of 255 from one frame to the next."""
BRIGHT = 85.0
"""Mean level from which on dimming takes longer, in proportion."""
SAMPLED_PX = 8
"""Distance of the rows and columns from which the mean level is computed."""
HIGHLIGHT_S = 0.1
"""Seconds that a highlight takes to appear or vanish: short, to be in time with the sound."""
NEAR_SHARE = 1 / 20
"""Distance that objects can move from one frame to the next, as a share of the frame's shorter
side. Parts of a mask that are further away from the previous mask have newly appeared."""
COARSE_PX = 45
"""Rows or columns of the shorter side in which to look for such parts."""


@dataclass(frozen=True)
class Fading:
    """How a frame is drawn."""

    labels: UInt8Array = field(repr=False)
    """Number of the source to highlight at each pixel, uint8, (H, W); 0 for none."""
    outlined: UInt8Array = field(repr=False)
    """The labels without sources that fade out while others stay; these have no contours."""
    share: UInt8Array | None = field(repr=False)
    """Opacity of the highlighted picture at each pixel, 0 to 255, (H, W); None for full opacity."""
    dimming: float
    """Strength of the dimming, 0 to 1."""
    highlight: float
    """Strength of the colours and contours, 0 to 1."""


class Fader:
    """Follows the masks of one video."""

    def __init__(self) -> None:
        self._last: tuple[tuple[int, tuple[int, ...], float], Fading] | None = None
        """Shot, size and time of the last frame, and how it was drawn."""

    def next(self, frame: Frame, labels: UInt8Array) -> Fading | None:
        """Return how to draw the next frame; None to leave it unchanged.

        Args:
            frame: The frame. Fades depend on its time, and end at a cut.
            labels: Number of the source at each pixel, uint8, (H, W); 0 for none.
        """
        visible = bool(labels.any())
        fading = Fading(labels, labels, None, float(visible), float(visible))
        if self._last is not None:
            (shot, size, time_s), past = self._last
            if (shot, size) == (frame.shot, labels.shape):
                dim_s = DIM_S * max(1.0, _brightness(frame.rgb) / BRIGHT)
                fading = _continue(past, labels, visible, frame.time_s - time_s, dim_s)
        self._last = (frame.shot, labels.shape, frame.time_s), fading
        return fading if fading.dimming else None


def _brightness(rgb: UInt8Array) -> float:
    """Return the mean level of a picture, 0 to 255."""
    return float(rgb[::SAMPLED_PX, ::SAMPLED_PX].mean())


def _continue(
    past: Fading, labels: UInt8Array, visible: bool, elapsed_s: float, dim_s: float
) -> Fading:
    """Return how to draw a frame `elapsed_s` after another one, if dimming takes `dim_s`."""
    direction = 1 if visible else -1
    dimming = min(1.0, max(0.0, past.dimming + direction * elapsed_s / dim_s))
    highlight = min(1.0, max(0.0, past.highlight + direction * elapsed_s / HIGHLIGHT_S))
    if not visible:  # the object stays highlighted until everything is bright again
        return Fading(past.labels, past.outlined, past.share, dimming, highlight)
    shown, share = labels, None
    if past.dimming and (past.share is not None or _has_jumped(past.labels, labels)):
        shown, share = _cross_fade(past, labels, elapsed_s)
    return Fading(shown, labels, share, dimming, highlight)


def _has_jumped(past: UInt8Array, labels: UInt8Array) -> bool:
    """Return whether parts of a mask appeared or vanished without moving there."""
    step = max(1, min(labels.shape) // COARSE_PX)
    one, other = (each[::step, ::step] > 0 for each in (past, labels))
    near = round(NEAR_SHARE * COARSE_PX)
    return bool((one & ~_near(other, near)).any() or (other & ~_near(one, near)).any())


def _cross_fade(
    past: Fading, labels: UInt8Array, elapsed_s: float
) -> tuple[UInt8Array, UInt8Array | None]:
    """Fade parts of a mask in and out; return labels and shares as in `Fading`."""
    share = past.share
    if share is None:
        share = (past.labels > 0).view(np.uint8) * np.uint8(255)
    step = min(255, round(255 * elapsed_s / HIGHLIGHT_S))
    near = round(NEAR_SHARE * min(labels.shape))
    inside = labels > 0
    rising = cv2.add(_grown(share, near), step)
    falling = np.where(_near(inside, near), np.uint8(0), cv2.subtract(share, step))
    if not falling.any() and (rising[inside] == 255).all():
        return labels, None
    return np.where(falling > 0, past.labels, labels), np.where(inside, rising, falling)


def _near(mask: BoolArray, distance: int) -> BoolArray:
    """Return the pixels of a mask and their neighbourhood, bool, (H, W)."""
    return _grown(np.ascontiguousarray(mask).view(np.uint8), distance) > 0


def _grown(values: UInt8Array, distance: int) -> UInt8Array:
    """Return the largest value near each pixel, uint8, (H, W)."""
    size = 2 * distance + 1
    return cast("UInt8Array", cv2.dilate(values, np.ones((size, size), np.uint8)))
