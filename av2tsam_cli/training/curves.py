"""A picture of how a training went, drawn with OpenCV."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.values import UInt8Array

Points = Sequence[tuple[float, float]]

PANEL_PX = (360, 640)
MARGIN_PX = (46, 70)
"""Below and above, left and right of the plotted area."""
GREY, BLACK = (200, 200, 200), (60, 60, 60)
COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44))
"""BGR."""
TICKS = 5


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    curves: dict[str, Points]
    """Points (x, y) of each curve, by its name."""


def draw_png(panels: Sequence[Panel]) -> bytes:
    """The panels below each other, as a PNG file."""
    _, png = cv2.imencode(".png", np.concatenate([_draw(panel) for panel in panels]))
    return bytes(png.data)


def _draw(panel: Panel) -> UInt8Array:
    height, width = PANEL_PX
    picture = np.full((height, width, 3), 255, np.uint8)
    points = np.array([p for curve in panel.curves.values() for p in curve if np.isfinite(p[1])])
    _write(picture, panel.title, (MARGIN_PX[1], 24), scale=0.55)
    if not len(points):
        return picture
    low, high = points.min(0), points.max(0)
    high = np.where(high > low, high, low + 1)
    _draw_axes(picture, low, high)
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [_place(p, low, high) for p in curve if np.isfinite(p[1])]
        cv2.polylines(picture, [np.array(places, np.int32)], False, colour, 2, cv2.LINE_AA)
        for place in places if len(places) < 60 else ():
            cv2.circle(picture, place, 3, colour, -1, cv2.LINE_AA)
        _write(picture, name, (width - 150, 24 + 16 * number), colour=colour)
    return picture


def _draw_axes(
    picture: UInt8Array, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> None:
    for share in np.linspace(0, 1, TICKS):
        x, y = low + share * (high - low)
        level, column = _place((low[0], y), low, high)[1], _place((x, low[1]), low, high)[0]
        cv2.line(picture, (MARGIN_PX[1], level), (PANEL_PX[1] - MARGIN_PX[1], level), GREY, 1)
        _write(picture, f"{y:.4g}", (6, level + 4))
        _write(picture, f"{x:.4g}", (column - 10, PANEL_PX[0] - 18))


def _place(
    point: tuple[float, float], low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> tuple[int, int]:
    """Column and row of a point."""
    shares = (np.asarray(point) - low) / (high - low)
    room = (PANEL_PX[1] - 2 * MARGIN_PX[1], PANEL_PX[0] - 2 * MARGIN_PX[0])
    return (
        round(MARGIN_PX[1] + shares[0] * room[0]),
        round(PANEL_PX[0] - MARGIN_PX[0] - shares[1] * room[1]),
    )


def _write(
    picture: UInt8Array,
    text: str,
    place: tuple[int, int],
    *,
    scale: float = 0.4,
    colour: tuple[int, int, int] = BLACK,
) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
