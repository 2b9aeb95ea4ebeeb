"""Draw names beside their sources, on plates that move smoothly from frame to frame."""

import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from math import exp
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from av2tsam_cli.values import Float32Array, Pixels, levels

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

TEXT_SHARE = 1 / 24
"""Size of the text as a share of the frame's shorter side."""
SMALLEST_TEXT_PX = 11
PLATE_RGB = (16, 16, 20)
PLATE_OPACITY = 0.75
FOLLOW_S = 0.2
"""Time constant with which a plate follows its source, so that it does not jitter."""
FORGET_S = 0.5
"""After its source was out of view for longer, a plate appears directly at its new position."""


@dataclass(frozen=True)
class Plate:
    """A name on a dark plate with a coloured bar, ready to be blended."""

    added: Float32Array = field(repr=False)
    """Colour times opacity, float32, (h, w, 3), 0 to 255."""
    transparency: Float32Array = field(repr=False)
    """Share of the picture that remains visible, float32, (h, w, 1), 0 to 1."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.transparency.shape[:2]
        return width, height

    def draw_on(self, picture: Pixels, left: int, top: int, opacity: float = 1.0) -> None:
        """Blend the plate into a picture, (H, W, 3), in place."""
        width, height = self.size
        area = picture[top : top + height, left : left + width]
        plate = area * self.transparency + self.added * np.float32(levels(picture))
        area[:] = np.rint(area + np.float32(opacity) * (plate - area)).astype(picture.dtype)


@dataclass(frozen=True)
class Label:
    """A name to draw."""

    text: str
    """The name."""
    rgb: tuple[int, int, int]
    """Its colour."""
    boxes: list[Box]
    """The boxes of one or more parts of the source."""


class LabelPainter:
    """Draws the names of a video's sources near these, without jumps."""

    def __init__(self) -> None:
        self._last: dict[str, _Placement] = {}

    def draw(
        self, picture: Pixels, labels: list[Label], time_s: float, *, opacity: float = 1.0
    ) -> None:
        """Draw labels on a picture, in place, without labels that do not fit into it.

        Args:
            picture: The frame, (H, W, 3), RGB.
            labels: The labels. If plates would overlap, later ones are moved.
            time_s: Time of the frame in seconds.
            opacity: Opacity of the plates, 0 to 1.
        """
        height, width = picture.shape[:2]
        size_px = max(SMALLEST_TEXT_PX, round(min(height, width) * TEXT_SHARE))
        targets: list[Box] = []
        for label in labels:
            plate = make_plate(label.text, label.rgb, size_px, width)
            if plate is None or plate.size[0] > width or plate.size[1] > height:
                continue
            old = self._last.get(label.text)
            if old is not None and time_s - old.time_s > FORGET_S:
                old = None
            part = _choose_part(label.boxes, old)
            target = free_box(_above(part, plate.size), targets, (width, height))
            targets.append(target)
            new = self._last[label.text] = _follow(old, target, part, time_s)
            plate.draw_on(picture, round(new.left), round(new.top), opacity)


@dataclass(frozen=True)
class _Placement:
    """The last position of a plate."""

    left: float
    """Pixels."""
    top: float
    """Pixels."""
    part: Box
    """The part of its source that it was above."""
    time_s: float
    """Time of the frame in seconds."""


def _choose_part(boxes: list[Box], old: _Placement | None) -> Box:
    """Return the largest part, but the previous one until another is twice as large."""

    def rank(box: Box) -> int:
        return box[2] * box[3] * (2 if old is not None and _overlap(box, old.part) else 1)

    return max(boxes, key=rank)


def _follow(old: _Placement | None, target: Box, part: Box, time_s: float) -> _Placement:
    """Move a plate a part of the way to its target, or directly if it was not in view."""
    left, top, _, _ = target
    if old is None:
        return _Placement(left, top, part, time_s)
    share = 1.0 - exp(-(time_s - old.time_s) / FOLLOW_S)
    return _Placement(
        old.left + share * (left - old.left), old.top + share * (top - old.top), part, time_s
    )


def _overlap(one: Box, other: Box) -> bool:
    return all(
        one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2]
        for axis in (0, 1)
    )


def free_box(wanted: Box, taken: list[Box], picture: tuple[int, int]) -> Box:
    """Return a box for a plate in the picture, moved up or down so that it overlaps no other.

    If there is no room for that, it overlaps others.
    """
    left, top, width, height = wanted
    left = min(max(left, 0), picture[0] - width)
    top = min(max(top, 0), picture[1] - height)
    tops = [top, *(b[1] + b[3] for b in taken), *(b[1] - height for b in taken)]
    boxes = [(left, each, width, height) for each in tops if 0 <= each <= picture[1] - height]
    free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
    return min(free, key=lambda box: abs(box[1] - top), default=(left, top, width, height))


def _above(box: Box, size: tuple[int, int]) -> Box:
    """Return the box of a plate centred above another box, with a gap."""
    left, top, width, _ = box
    return left + (width - size[0]) // 2, top - size[1] - size[1] // 4, *size


@lru_cache(maxsize=64)
def make_plate(text: str, rgb: tuple[int, int, int], size_px: int, width_px: int) -> Plate | None:
    """Return the plate for a text, shortened to fit a width; None if nothing of it fits."""
    font = ImageFont.load_default(size_px)
    pad, bar = max(2, size_px // 3), max(2, size_px // 4)
    shown = fitted(text, font, width_px - 2 * pad - bar)
    if not shown:
        return None
    ascent, descent = cast("ImageFont.FreeTypeFont", font).getmetrics()
    size = round(font.getlength(shown)) + 2 * pad + bar, ascent + descent + pad
    canvas = Image.new("L", size)
    ImageDraw.Draw(canvas).text((bar + pad, pad // 2), shown, fill=255, font=font)
    ink = np.asarray(canvas, np.float32)[..., None] / 255
    opacity = PLATE_OPACITY + (1 - PLATE_OPACITY) * ink
    colour = np.asarray(PLATE_RGB, np.float32) * (1 - ink) + 255 * ink
    opacity[:, :bar], colour[:, :bar] = 1, rgb
    return Plate((colour * opacity).astype(np.float32), (1 - opacity).astype(np.float32))


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Return a text, shortened to fit a width in pixels; "" if nothing of it fits."""
    text = shown = printable(text)
    while text and font.getlength(shown) > room:
        text = text[:-1]
        shown = f"{text.rstrip()}…"
    return shown if text else ""


def printable(text: str) -> str:
    """Return a text in the characters of Pillow's font: accents are dropped, others become `?`."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode()
