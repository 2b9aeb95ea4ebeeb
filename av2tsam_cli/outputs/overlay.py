"""Draw a mask on a frame: highlighted, with a contour, and the rest dimmed."""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.values import UInt8Array


@dataclass(frozen=True)
class OverlayStyle:
    """The look of an overlay."""

    colour: tuple[int, int, int] = (255, 64, 150)
    """RGB of the highlight, rare in nature and unlike skin, sky and leaves."""
    opacity: float = 0.35
    """Opacity of the highlight inside the mask, from 0 to 1."""
    dim: float = 0.45
    """By how much pixels outside the mask are darkened, from 0 to 1."""
    contour_share: float = 1 / 200
    """Width of the contour as a share of the frame's shorter side; 0 for no contour."""
    contour_colour: tuple[int, int, int] = (255, 244, 214)
    """RGB of the contour."""

    def contour_px(self, height: int, width: int) -> int:
        """Return the width of the contour in pixels, at least 1; 0 for no contour."""
        return max(1, round(min(height, width) * self.contour_share)) if self.contour_share else 0


DEFAULT_STYLE = OverlayStyle()


def draw_overlay(
    rgb: UInt8Array, mask: npt.NDArray[np.bool_], style: OverlayStyle = DEFAULT_STYLE
) -> UInt8Array:
    """Draw a mask on a frame.

    Args:
        rgb: The frame, uint8, (H, W, 3), RGB; not modified.
        mask: What to highlight, bool, (H, W).
        style: The look.

    Returns:
        The image, uint8, (H, W, 3), RGB; the frame itself if the mask is empty.

    Raises:
        ValueError: The mask does not have the size of the frame.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a frame of {rgb.shape[:2]}")
    inside = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    if not width:
        return rgb
    picture = cv2.convertScaleAbs(rgb, alpha=1.0 - style.dim)
    box = np.s_[top : top + height, left : left + width]
    cv2.copyTo(_tinted(rgb[box], style), inside[box], picture[box])
    thickness = style.contour_px(*mask.shape)
    if thickness:
        contours, _ = cv2.findContours(
            inside[box], cv2.RETR_LIST, cv2.CHAIN_APPROX_TC89_L1, offset=(left, top)
        )
        cv2.drawContours(picture, contours, -1, style.contour_colour, thickness, cv2.LINE_AA)
    return cast("UInt8Array", picture)


def _tinted(rgb: UInt8Array, style: OverlayStyle) -> UInt8Array:
    """Blend a frame with the highlight colour."""
    share = [round(channel * style.opacity) for channel in style.colour]
    # Four values, because OpenCV would read three as a column of a 3-pixel-high image.
    return cast(
        "UInt8Array",
        cv2.add(cv2.convertScaleAbs(rgb, alpha=1.0 - style.opacity), (*share, 0)),
    )
