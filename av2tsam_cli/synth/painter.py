"""Draw shapes in unit coordinates on a canvas of premultiplied RGBA."""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.values import Appearance, Colour
from av2tsam_cli.values import UInt8Array

Role = Literal["body", "accent", "pale", "dark", "ink"]
Points = npt.NDArray[np.float64]
PointsLike = Points | Sequence[tuple[float, float]]

CANVAS_REACH = 1.36
"""The canvas spans [-CANVAS_REACH, CANVAS_REACH] in both unit coordinates."""
_SHIFT = 4
"""OpenCV takes points in 1/16 pixels."""
_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 28, endpoint=False)) for f in (np.cos, np.sin)], 1)


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Points:
    """Return the outline (28, 2) of an ellipse, turned clockwise on the screen by `degrees`."""
    points = _CIRCLE * (rx, ry)
    if degrees:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        points = points @ np.array([[c, s], [-s, c]])
    return np.asarray(points + np.array((x, y)))


def arc(x: float, y: float, rx: float, ry: float, degrees: tuple[float, float]) -> Points:
    """Return 16 points of an elliptic arc between two angles (clockwise, 0 is right)."""
    angles = np.radians(np.linspace(*degrees, 16))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], 1)


def box(x: float, y: float, half_x: float, half_y: float, corner: float = 0.0) -> Points:
    """Return an upright rectangle about a centre, its corners rounded by a radius."""
    corners = np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])
    if not corner:
        return corners * (half_x, half_y) + (x, y)
    inner = corners * (half_x - corner, half_y - corner) + (x, y)
    turns = [arc(0, 0, corner, corner, (start, start + 90))[::5] for start in (0, 90, 180, 270)]
    return np.concatenate([at + turn for at, turn in zip(inner, turns, strict=True)])


def smooth(points: PointsLike, rounds: int = 2) -> Points:
    """Round the corners of a closed outline by cutting them (Chaikin's scheme)."""
    curve = np.asarray(points, dtype=np.float64)
    for _ in range(rounds):
        following = np.concatenate([curve[1:], curve[:1]])
        cut = np.stack([0.75 * curve + 0.25 * following, 0.25 * curve + 0.75 * following], 1)
        curve = cut.reshape(-1, 2)
    return curve


def mirrored(points: PointsLike) -> Points:
    """Return an outline (from top to bottom) closed by its mirror image about x = 0."""
    right = np.asarray(points, dtype=np.float64)
    return np.concatenate([right, right[::-1] * (-1.0, 1.0)])


class Painter:
    """Draws filled outlines and lines in the colours of one appearance.

    Colours are blended over transparent black, so the canvas is premultiplied RGBA.
    """

    def __init__(self, size_px: int, appearance: Appearance) -> None:
        self.canvas: UInt8Array = np.zeros((size_px, size_px, 4), np.uint8)
        self._centre_px = size_px / 2
        self._unit_px = size_px / (2 * CANVAS_REACH)
        self._colours = {
            "body": _opaque(appearance.body),
            "accent": _opaque(appearance.accent),
            "pale": _opaque(appearance.pale),
            "dark": _opaque(appearance.dark),
            "ink": _opaque(appearance.ink),
        }
        self._outline_px = max(1, round(appearance.outline * self._unit_px))
        self._texture = _texture(size_px, appearance)

    def fill(self, points: PointsLike, role: Role, *, outline: bool = True) -> None:
        """Fill a closed outline, with the texture if the role is `body`."""
        pixels = self._pixels(points)
        if role == "body" and self._texture is not None:
            inside = np.zeros(self.canvas.shape[:2], np.uint8)
            cv2.fillPoly(inside, [pixels], 255, cv2.LINE_8, _SHIFT)
            cv2.copyTo(self._texture, inside, self.canvas)
        else:
            cv2.fillPoly(self.canvas, [pixels], self._colours[role], cv2.LINE_AA, _SHIFT)
        if outline:
            self._stroke(pixels, "ink", self._outline_px, closed=True)

    def line(self, points: PointsLike, width: float, role: Role, *, outline: bool = False) -> None:
        """Draw an open line of a width in unit coordinates, with an outline on both sides."""
        pixels = self._pixels(points)
        width_px = max(1, round(width * self._unit_px))
        if outline:
            self._stroke(pixels, "ink", width_px + 2 * self._outline_px, closed=False)
        self._stroke(pixels, role, width_px, closed=False)

    def _pixels(self, points: PointsLike) -> npt.NDArray[np.int32]:
        pixels = np.asarray(points, dtype=np.float64) * self._unit_px + (self._centre_px - 0.5)
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def _stroke(
        self, pixels: npt.NDArray[np.int32], role: Role, width_px: int, *, closed: bool
    ) -> None:
        colour = self._colours[role]
        cv2.polylines(self.canvas, [pixels], closed, colour, width_px, cv2.LINE_AA, _SHIFT)


def _opaque(colour: Colour) -> tuple[int, int, int, int]:
    return (*colour, 255)


def _texture(size_px: int, appearance: Appearance) -> UInt8Array | None:
    """Return the body's texture (S, S, 4) uint8; None if the body is plain."""
    if appearance.texture == "plain":
        return None
    c, s = (
        np.float32(np.cos(appearance.texture_angle)),
        np.float32(np.sin(appearance.texture_angle)),
    )
    axis = np.linspace(-CANVAS_REACH, CANVAS_REACH, size_px, dtype=np.float32)
    u = axis[None, :] * c + axis[:, None] * s
    if appearance.texture == "gradient":
        levels = cv2.convertScaleAbs(np.maximum(u + 1, 0), alpha=127.5)
    else:
        waves = np.float32(np.pi * appearance.texture_pitch)
        weight = np.sin(u * waves)
        if appearance.texture == "dots":
            v = axis[:, None] * c - axis[None, :] * s
            weight = weight * np.sin(v * waves) - np.float32(0.25)
        levels = cv2.convertScaleAbs(np.maximum(weight * 6 + np.float32(0.5), 0), alpha=255)
    blend = np.linspace(appearance.body, appearance.body_variant, 256)[:, None, :]
    rgb = cv2.applyColorMap(levels, np.rint(blend).astype(np.uint8))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA))
