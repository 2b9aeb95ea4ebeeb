"""Draw masks on a frame: highlighted, with contours and names, and the rest dimmed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.labels import Box, Label, LabelPainter
from av2tsam_cli.outputs.names import NameTable, colour_of
from av2tsam_cli.values import BoolArray, Frame, SourceMasks, UInt8Array


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

Draw = Callable[[Frame, BoolArray, SourceMasks | None], UInt8Array]
"""Draws the next frame of a video with its mask, or with its masks by name; see `overlay_drawer`"""


def overlay_drawer(*, names: bool) -> Draw:
    """Return what draws the overlays of one video; with `names`, in a colour and with a name each.

    Frames in which nothing is named are drawn with their mask.
    """
    named = NamedOverlays()

    def draw(frame: Frame, mask: BoolArray, sources: SourceMasks | None) -> UInt8Array:
        if sources is None or not names:
            return draw_overlay(frame.rgb, mask)
        return named.draw(frame, sources)

    return draw


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
    if not mask.any():
        return rgb
    picture = _dimmed(rgb, style)
    _highlight(picture, rgb, mask, style)
    return picture


class NamedOverlays:
    """Draws the frames of one video with a colour and a name for each source."""

    def __init__(self, style: OverlayStyle = DEFAULT_STYLE) -> None:
        self.style = style
        self.table = NameTable()
        self.labels = LabelPainter()

    def draw(self, frame: Frame, sources: SourceMasks) -> UInt8Array:
        """Draw the masks of the sources on the next frame.

        Args:
            frame: The frame; not modified.
            sources: Its sources. Each keeps the colour with which it appeared first.

        Returns:
            The image, uint8, (H, W, 3), RGB; the frame itself if no source is in view.
        """
        present = self.table.add(sources)
        if not present:
            return frame.rgb
        picture = _dimmed(frame.rgb, self.style)
        labels = []
        for k, name in present.items():
            colour = colour_of(self.table.number(name))
            style = replace(self.style, colour=colour, contour_colour=colour)
            boxes = _highlight(picture, frame.rgb, sources.labels == k, style)
            labels.append(Label(name, colour, boxes))
        self.labels.draw(picture, labels, frame.time_s)
        return picture


def _dimmed(rgb: UInt8Array, style: OverlayStyle) -> UInt8Array:
    return cast("UInt8Array", cv2.convertScaleAbs(rgb, alpha=1.0 - style.dim))


def _highlight(
    picture: UInt8Array, rgb: UInt8Array, mask: npt.NDArray[np.bool_], style: OverlayStyle
) -> list[Box]:
    """Draw what a mask covers, tinted and with contours; return the boxes of its parts."""
    inside = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    box = np.s_[top : top + height, left : left + width]
    cv2.copyTo(_tinted(rgb[box], style), inside[box], picture[box])
    contours, _ = cv2.findContours(
        inside[box], cv2.RETR_LIST, cv2.CHAIN_APPROX_TC89_L1, offset=(left, top)
    )
    thickness = style.contour_px(*mask.shape)
    if thickness:
        cv2.drawContours(picture, contours, -1, style.contour_colour, thickness, cv2.LINE_AA)
    return [cast("Box", tuple(cv2.boundingRect(contour))) for contour in contours]


def _tinted(rgb: UInt8Array, style: OverlayStyle) -> UInt8Array:
    """Blend a frame with the highlight colour."""
    share = [round(channel * style.opacity) for channel in style.colour]
    # Four values, because OpenCV would read three as a column of a 3-pixel-high image.
    return cast(
        "UInt8Array",
        cv2.add(cv2.convertScaleAbs(rgb, alpha=1.0 - style.opacity), (*share, 0)),
    )
