"""Draw masks on a frame: highlighted, with contours and names, and the rest dimmed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.fade import Fader, Fading
from av2tsam_cli.outputs.labels import Box, Label, LabelPainter
from av2tsam_cli.outputs.names import NameTable, colour_of
from av2tsam_cli.values import (
    BoolArray,
    Float32Array,
    Frame,
    MaskedFrame,
    Pixels,
    SourceMasks,
    UInt8Array,
    levels,
)


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

MOST_NUMBERS = 248
"""Names that are told apart in a frame: what fits into 8 bits, a multiple of the colours."""
Rectangle = tuple[slice, slice]
"""Rows and columns."""
Draw = Callable[[MaskedFrame], Pixels]
"""Draws the next frame of a video with its mask, or with its masks by name; see `overlay_drawer`"""


def overlay_drawer(*, names: bool) -> Draw:
    """Return what draws the overlays of one video; with `names`, in a colour and with a name each.

    Dimming and highlights fade in and out. Frames in which nothing is named are drawn with their
    mask.
    """
    plain, named = PlainOverlays(), NamedOverlays()

    def draw(masked: MaskedFrame) -> Pixels:
        if masked.sources is None or not names:
            return plain.draw(masked.frame, masked.mask)
        return named.draw(masked.frame, masked.sources)

    return draw


def draw_overlay(
    rgb: UInt8Array, mask: npt.NDArray[np.bool_], style: OverlayStyle = DEFAULT_STYLE
) -> UInt8Array:
    """Draw a mask on a single frame, without fades.

    Args:
        rgb: The frame, uint8, (H, W, 3), RGB; not modified.
        mask: What to highlight, bool, (H, W).
        style: The look.

    Returns:
        The image, uint8, (H, W, 3), RGB; the frame itself if the mask is empty.

    Raises:
        ValueError: The mask does not have the size of the frame.
    """
    return cast("UInt8Array", PlainOverlays(style).draw(Frame(rgb, 0.0, 0), mask))


class PlainOverlays:
    """Draws the frames of one video with one highlight."""

    def __init__(self, style: OverlayStyle = DEFAULT_STYLE) -> None:
        self.style = style
        self._fader = Fader()

    def draw(self, frame: Frame, mask: BoolArray) -> Pixels:
        """Draw a mask, bool, (H, W), on the next frame; see `draw_overlay`."""
        if mask.shape != frame.rgb.shape[:2]:
            raise ValueError(
                f"a mask of {mask.shape} does not fit a frame of {frame.rgb.shape[:2]}"
            )
        fading = self._fader.next(frame, mask.view(np.uint8))
        if fading is None:
            return frame.pixels
        picture = _dimmed(frame.pixels, self.style, fading)
        _highlight(picture, frame.pixels, 1, self.style, fading)
        return picture


class NamedOverlays:
    """Draws the frames of one video with a colour and a name for each source."""

    def __init__(self, style: OverlayStyle = DEFAULT_STYLE) -> None:
        self.style = style
        self.table = NameTable()
        self.painter = LabelPainter()
        self._fader = Fader()
        self._shown: list[str] = []
        """The names in the last frame, which may be fading out in this one."""

    def draw(self, frame: Frame, sources: SourceMasks) -> Pixels:
        """Draw the masks of the sources on the next frame.

        Args:
            frame: The frame; not modified.
            sources: Its sources. Each keeps the colour with which it appeared first.

        Returns:
            The image, (H, W, 3), RGB, as `frame.pixels`; these themselves if no source is in view.
        """
        present = self.table.add(sources)
        numbers = np.zeros(256, np.uint8)
        for k, name in present.items():
            numbers[k] = self._number(name)
        fading = self._fader.next(frame, numbers[sources.labels])
        if fading is None:
            return frame.pixels
        picture = _dimmed(frame.pixels, self.style, fading)
        names = {*present.values(), *self._shown}
        self._shown, labels = [], []
        for name in filter(names.__contains__, self.table.frames):
            number = self._number(name)
            if not (fading.labels == number).any():
                continue
            self._shown.append(name)
            colour = colour_of(number)
            style = replace(self.style, colour=colour, contour_colour=colour)
            if boxes := _highlight(picture, frame.pixels, number, style, fading):
                labels.append(Label(name, colour, boxes))
        self.painter.draw(picture, labels, frame.time_s, opacity=fading.highlight)
        return picture

    def _number(self, name: str) -> int:
        """Return the number of a name in the labels, from 1 to 255."""
        return (self.table.number(name) - 1) % MOST_NUMBERS + 1


def _dimmed(pixels: Pixels, style: OverlayStyle, fading: Fading) -> Pixels:
    return _scaled(pixels, 1.0 - style.dim * fading.dimming)


def _scaled(pixels: Pixels, share: float) -> Pixels:
    if pixels.dtype == np.uint8:
        return cast("Pixels", cv2.convertScaleAbs(pixels, alpha=share))
    return cast("Pixels", cv2.multiply(pixels, (share,) * 4))


def _highlight(
    picture: Pixels, pixels: Pixels, number: int, style: OverlayStyle, fading: Fading
) -> list[Box]:
    """Draw what a source covers, tinted and with contours; return the boxes of its parts."""
    inside = (fading.labels == number).view(np.uint8)
    box = _box_of(inside)
    tinted = _tinted(pixels[box], style.colour, style.opacity * fading.highlight)
    if fading.share is not None:
        shown = fading.share[box].astype(np.float32) / np.float32(255)
        tinted = _blended(tinted, picture[box], shown)
    cv2.copyTo(tinted, inside[box], picture[box])
    if fading.outlined is not fading.labels:
        inside = (fading.outlined == number).view(np.uint8)
        box = _box_of(inside)
    return _outline(picture, inside, box, style, fading.highlight)


def _outline(
    picture: Pixels, inside: UInt8Array, box: Rectangle, style: OverlayStyle, opacity: float
) -> list[Box]:
    """Draw the contours of a mask; return the boxes of its parts."""
    rows, columns = box
    contours, _ = cv2.findContours(
        inside[box], cv2.RETR_LIST, cv2.CHAIN_APPROX_TC89_L1, offset=(columns.start, rows.start)
    )
    thickness = style.contour_px(*inside.shape)
    if thickness and contours:
        lines = picture if opacity == 1 else picture.copy()
        _draw_contours(lines, contours, style.contour_colour, thickness)
        if lines is not picture:
            cv2.addWeighted(lines, opacity, picture, 1 - opacity, 0, picture)
    return [cast("Box", tuple(cv2.boundingRect(contour))) for contour in contours]


def _draw_contours(
    picture: Pixels, contours: Sequence[Any], colour: tuple[int, int, int], thickness: int
) -> None:
    if picture.dtype == np.uint8:
        cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)
        return
    # OpenCV draws smooth lines only with 8 bits.
    lines = np.zeros(picture.shape[:2], np.uint8)
    cv2.drawContours(lines, contours, -1, (255,), thickness, cv2.LINE_AA)
    box = _box_of(lines)
    drawn = np.empty_like(picture[box])
    drawn[:] = np.multiply(colour, levels(picture))
    picture[box] = _blended(drawn, picture[box], lines[box].astype(np.float32) / np.float32(255))


def _box_of(inside: UInt8Array) -> Rectangle:
    """Return the rows and columns that a mask covers."""
    left, top, width, height = cv2.boundingRect(inside)
    return slice(top, top + height), slice(left, left + width)


def _tinted(pixels: Pixels, colour: tuple[int, int, int], opacity: float) -> Pixels:
    """Blend a frame with a colour."""
    share = [round(channel * opacity) * levels(pixels) for channel in colour]
    # Four values, because OpenCV would read three as a column of a 3-pixel-high image.
    return cast("Pixels", cv2.add(_scaled(pixels, 1.0 - opacity), (*share, 0)))


def _blended(one: Pixels, other: Pixels, share: Float32Array) -> Pixels:
    """Blend two pictures; `share`, (H, W), 0 to 1, is that of the first."""
    if one.dtype == np.uint8:
        return cast("Pixels", cv2.blendLinear(one, other, share, 1 - share))
    both = cv2.blendLinear(one.astype(np.float32), other.astype(np.float32), share, 1 - share)
    return cast("Pixels", np.rint(both).astype(one.dtype))
