"""Draw overlays: masks on a frame, highlighted or with contours and names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.fade import Fader, Fading
from av2tsam_cli.outputs.hud import draw_hud
from av2tsam_cli.outputs.labels import Box, Label, LabelPainter
from av2tsam_cli.outputs.names import colour_of
from av2tsam_cli.segment_options import DEFAULT_LOOK, LookOptions, Style
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
    """RGB of the highlight; the default is rare in nature, and unlike skin, sky and leaves."""
    opacity: float = 0.35
    """Opacity of the highlight inside the mask, from 0 to 1."""
    dim: float = 0.45
    """Strength by which pixels outside the mask are darkened, from 0 to 1."""
    blur_share: float = 0.0
    """Standard deviation of the blur outside the mask, as a share of the frame's shorter side."""
    grey: bool = False
    """Whether pixels outside the mask are grey."""
    contour_share: float = 1 / 200
    """Width of the contour as a share of the frame's shorter side; 0 for no contour."""
    contour_colour: tuple[int, int, int] = (255, 244, 214)
    """RGB of the contour."""

    def contour_px(self, height: int, width: int) -> int:
        """Return the width of the contour in pixels, at least 1; 0 for no contour."""
        return max(1, round(min(height, width) * self.contour_share)) if self.contour_share else 0


DEFAULT_STYLE = OverlayStyle()
PLAIN = OverlayStyle(opacity=0.0, dim=0.0, contour_share=0.0)
STYLES: dict[Style, OverlayStyle] = {
    "highlight": DEFAULT_STYLE,
    "outline": replace(PLAIN, contour_share=1 / 150, contour_colour=DEFAULT_STYLE.colour),
    "blur": replace(PLAIN, blur_share=1 / 30),
    "spotlight": replace(PLAIN, dim=0.85),
    "mono": replace(PLAIN, grey=True),
    "heat": replace(PLAIN, opacity=0.65),
    "side-by-side": DEFAULT_STYLE,
}
"""The look of each style. `heat` shows probabilities, and `side-by-side` the frame beside it."""

MAX_NUMBERS = 248
"""Number of names to distinguish in a frame: fits into 8 bits, and is a multiple of the colours."""
Rectangle = tuple[slice, slice]
"""Rows and columns."""
Draw = Callable[[MaskedFrame], Pixels]
"""Draws the next frame of a video: grey levels, (H, W), RGB, (H, W, 3), or RGBA, (H, W, 4)."""


def overlay_drawer(look: LookOptions = DEFAULT_LOOK) -> Draw:
    """Return a function that draws the overlays of one video.

    Effects fade in and out. With names, frames without named sources are drawn with their whole
    mask.

    Args:
        look: How overlays look.
    """
    style = style_of(look)
    plain, named = PlainOverlays(style), NamedOverlays(style)

    def draw(masked: MaskedFrame) -> Pixels:
        pixels = masked.frame.pixels
        if look.style == "heat":
            picture = draw_heat(pixels, masked.probability, style.opacity)
        elif masked.sources is None or not look.names:
            picture = plain.draw(masked.frame, masked.mask)
        else:
            picture = named.draw(masked.frame, masked.sources)
        if look.hud:
            picture = draw_hud(picture, masked)
        if look.style == "side-by-side":
            picture = np.hstack([pixels, picture])
        return picture

    return draw


def style_of(look: LookOptions) -> OverlayStyle:
    """Return the chosen style, with the chosen colour, opacity and dimming."""
    style = STYLES[look.style]
    if look.color is not None:
        recoloured = style.contour_colour == style.colour
        contour = look.color if recoloured else style.contour_colour
        style = replace(style, colour=look.color, contour_colour=contour)
    if look.opacity is not None:
        style = replace(style, opacity=look.opacity)
    return style if look.dim else replace(style, dim=0.0)


def draw_heat(pixels: Pixels, probability: Float32Array, opacity: float) -> Pixels:
    """Draw probabilities on a frame as colours from blue to red.

    Args:
        pixels: The frame, (H, W, 3), RGB; not modified.
        probability: Probability of each pixel, float32, (H, W), 0 to 1.
        opacity: Opacity of the colours at the probability 1, from 0 to 1; it is 0 at 0.

    Returns:
        The image, like the frame.
    """
    heat = cv2.applyColorMap(cv2.convertScaleAbs(probability, alpha=255), cv2.COLORMAP_TURBO)
    shown = opacity * np.minimum(1.0, 2 * probability)
    colours = cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)
    if pixels.dtype == np.uint8:
        return cast("Pixels", cv2.blendLinear(colours, pixels, shown, 1 - shown))
    added = shown[..., None] * colours * np.float32(levels(pixels))
    return cast("Pixels", np.rint(added + (1 - shown[..., None]) * pixels).astype(pixels.dtype))


def draw_overlay(
    rgb: UInt8Array, mask: npt.NDArray[np.bool_], style: OverlayStyle = DEFAULT_STYLE
) -> UInt8Array:
    """Draw a mask on a single frame, without fades.

    Args:
        rgb: The frame, uint8, (H, W, 3), RGB; not modified.
        mask: The pixels to highlight, bool, (H, W).
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
        picture = _background(frame.pixels, self.style, fading.dimming)
        _highlight(picture, frame.pixels, 1, self.style, fading)
        return picture


class NamedOverlays:
    """Draws the frames of one video with a colour and a name for each source."""

    def __init__(self, style: OverlayStyle = DEFAULT_STYLE) -> None:
        self.style = style
        self.painter = LabelPainter()
        self._fader = Fader()
        self._shown: dict[int, str] = {}
        """The names in the last frame by number, which may fade out in this one."""

    def draw(self, frame: Frame, sources: SourceMasks) -> Pixels:
        """Draw the masks of the sources on the next frame.

        Args:
            frame: The frame; not modified.
            sources: Its sources. Their numbers determine their colours.

        Returns:
            The image, (H, W, 3), RGB; `frame.pixels` itself if no source is in view.
        """
        numbers, present = np.zeros(256, np.uint8), dict[int, str]()
        for label, name in sources.in_view:
            number = numbers[label] = (sources.numbers[label - 1] - 1) % MAX_NUMBERS + 1
            present[number] = name
        fading = self._fader.next(frame, numbers[sources.labels])
        if fading is None:
            return frame.pixels
        picture = _background(frame.pixels, self.style, fading.dimming)
        names = self._shown | present
        self._shown, labels = {}, []
        for number, name in sorted(names.items()):
            if not (fading.labels == number).any():
                continue
            self._shown[number] = name
            colour = colour_of(number)
            style = replace(self.style, colour=colour, contour_colour=colour)
            if boxes := _highlight(picture, frame.pixels, number, style, fading):
                labels.append(Label(name, colour, boxes))
        self.painter.draw(picture, labels, frame.time_s, opacity=fading.highlight)
        return picture


def _background(pixels: Pixels, style: OverlayStyle, strength: float) -> Pixels:
    """Return a frame with the effects outside masks, at a strength from 0 to 1."""
    share = 1.0 - style.dim * strength
    if not (style.grey or style.blur_share):
        return _scaled(pixels, share)
    changed: Any = pixels
    if style.grey:
        changed = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if style.blur_share:
        changed = _blurred(changed, style.blur_share * min(pixels.shape[:2]))
    mixed = cv2.addWeighted(changed, strength, pixels, 1 - strength, 0)
    return _scaled(cast("Pixels", mixed), share)


def _scaled(pixels: Pixels, share: float) -> Pixels:
    if pixels.dtype == np.uint8:
        return cast("Pixels", cv2.convertScaleAbs(pixels, alpha=share))
    return cast("Pixels", cv2.multiply(pixels, (share,) * 4))


def _blurred(pixels: Pixels, sigma_px: float) -> Pixels:
    """Blur a picture with a standard deviation in pixels; strong blurs use a reduced size."""
    height, width = pixels.shape[:2]
    scale = max(1, int(sigma_px / 3))
    size = -(-width // scale), -(-height // scale)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(0.3, sigma_px / scale))
    return cast("Pixels", cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _highlight(
    picture: Pixels, pixels: Pixels, number: int, style: OverlayStyle, fading: Fading
) -> list[Box]:
    """Draw a source tinted and with contours; return the boxes of its parts."""
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
    # OpenCV only draws smooth lines with 8 bits.
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
    """Blend two pictures; `share`, (H, W), 0 to 1, is the share of the first."""
    if one.dtype == np.uint8:
        return cast("Pixels", cv2.blendLinear(one, other, share, 1 - share))
    both = cv2.blendLinear(one.astype(np.float32), other.astype(np.float32), share, 1 - share)
    return cast("Pixels", np.rint(both).astype(one.dtype))
