"""The look of each category: silhouettes and details that differ clearly even at 30 pixels.

Every function draws within about [-1, 1] in both unit coordinates, y down, upright and facing
right; `build` changes the proportions, but the object stays recognisable.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from av2tsam_cli.synth.painter import CANVAS_REACH, Painter, arc, box, ellipse, mirrored, smooth
from av2tsam_cli.synth.values import Appearance

Build = tuple[float, float, float, float]


def _dog(p: Painter, b: Build) -> None:
    ear, cheek = 0.72 + 0.1 * b[0], 0.55 + 0.06 * b[1]
    p.fill(ellipse(0, -0.05, cheek, 0.72), "body")
    p.fill(ellipse(0, 0.42, 0.42 + 0.06 * b[2], 0.36), "pale")
    p.fill(smooth([(-0.15, 0.52), (0.15, 0.52), (0.13, 0.98), (-0.13, 0.98)]), "accent")
    for side in (-1.0, 1.0):
        droop = [(0.2, -0.72), (0.62, -0.78), (0.98, -0.2), (0.9, ear - 0.1), (0.6, ear - 0.2)]
        flap = smooth([*droop, (0.5, -0.2)]) * (side, 1.0)
        p.fill(flap, "accent")
        p.fill(ellipse(side * 0.24, -0.2, 0.13, 0.15), "pale", outline=False)
        p.fill(ellipse(side * 0.24, -0.18, 0.08, 0.1), "dark", outline=False)
    p.fill(smooth([(-0.24, 0.16), (0.24, 0.16), (0, 0.42)]), "dark")
    p.line([(0, 0.38), (0, 0.55)], 0.05, "dark")


def _bird(p: Painter, b: Build) -> None:
    p.fill([(-0.45, 0.05), (-1.05, -0.3 - 0.15 * b[0]), (-1.1, 0.12), (-0.5, 0.35)], "accent")
    for x in (-0.12, 0.14):
        p.line([(x, 0.5), (x + 0.04, 0.92)], 0.07, "dark")
        p.line([(x - 0.1, 0.94), (x + 0.22, 0.94)], 0.06, "dark")
    belly = [(-0.7, 0.05), (-0.3, -0.3), (0.1, -0.35), (0.3, -0.75), (0.72, -0.72), (0.75, -0.2)]
    p.fill(smooth([*belly, (0.6, 0.35), (0.1, 0.65 + 0.08 * b[1]), (-0.4, 0.5)]), "body")
    p.fill([(0.66, -0.62), (1.1, -0.42), (0.68, -0.3)], "accent")
    wing = [(0.28, -0.15), (-0.1, -0.25), (-0.7, 0.3 + 0.1 * b[2]), (-0.05, 0.4), (0.3, 0.15)]
    p.fill(smooth(wing), "accent")
    p.fill(ellipse(0.48, -0.5, 0.12, 0.12), "pale", outline=False)
    p.fill(ellipse(0.5, -0.5, 0.07, 0.07), "dark", outline=False)


def _bell(p: Painter, b: Build) -> None:
    p.line(arc(0, -0.78, 0.17, 0.2, (0, 360)), 0.09, "accent", outline=True)
    p.fill(ellipse(0, 0.76, 0.2, 0.2), "dark")
    waist = 0.48 + 0.06 * b[0]
    side = [(0.12, -0.72), (0.42, -0.55), (waist, -0.1), (waist + 0.08, 0.3), (0.9, 0.66)]
    outline = smooth(mirrored(side), 2)
    p.fill(outline, "body")
    p.fill(smooth(mirrored([(0.8, 0.5), (0.96, 0.58), (0.96, 0.74)]), 1), "accent")
    p.fill(mirrored([(waist - 0.02, -0.12), (waist + 0.03, 0.08)]), "accent", outline=False)
    p.fill(ellipse(-0.22, -0.35, 0.07, 0.16, 12), "pale", outline=False)


def _drum(p: Painter, b: Build) -> None:
    top, low = -0.3 + 0.06 * b[0], 0.6 + 0.08 * b[1]
    shell = np.concatenate([arc(0, top, 0.9, 0.3, (180, 0)), arc(0, low, 0.9, 0.3, (0, 180))])
    p.fill(shell, "body")
    for x in (-0.9, -0.45, 0.0, 0.45):
        drop = [0.3 * np.sqrt(max(0.0, 1 - (u / 0.9) ** 2)) for u in (x, x + 0.225, x + 0.45)]
        zigzag = [(x, top + drop[0]), (x + 0.225, low + drop[1]), (x + 0.45, top + drop[2])]
        p.line(zigzag, 0.09, "accent")
    p.line(arc(0, low, 0.9, 0.3, (0, 180)), 0.13, "accent", outline=True)
    p.fill(ellipse(0, top, 0.92, 0.34), "accent")
    p.fill(ellipse(0, top, 0.76, 0.24), "pale")
    tilt = 0.12 * b[2]
    for side in (-1.0, 1.0):
        p.line([(side * -0.05, top), (side * (0.8 + tilt), -0.92)], 0.09, "dark", outline=True)
        p.fill(ellipse(side * -0.05, top, 0.12, 0.1), "dark")


def _guitar(p: Painter, b: Build) -> None:
    p.line([(0, 0.2), (0, -0.85)], 0.15, "accent", outline=True)
    p.fill([(-0.13, -0.8), (0.13, -0.8), (0.19, -1.1), (-0.19, -1.1)], "accent")
    hip, waist, bout = 0.56 + 0.05 * b[0], 0.26 + 0.04 * b[1], 0.42 + 0.05 * b[2]
    side = [(0.05, -0.26), (bout - 0.04, -0.24), (bout, -0.02), (waist, 0.24), (hip, 0.42)]
    p.fill(smooth(mirrored([*side, (hip + 0.02, 0.85), (0.3, 1.02), (0.02, 1.02)])), "body")
    p.line([(0, 0.1), (0, -0.3)], 0.13, "accent")
    p.fill(ellipse(0, 0.25, 0.17, 0.17), "dark")
    p.line([(-0.2, 0.68), (0.2, 0.68)], 0.11, "dark")
    for x in (-0.04, 0.04):
        p.line([(x, 0.68), (x, -0.9)], 0.02, "pale")
    for y in (-0.7, -0.5):
        p.line([(-0.07, y), (0.07, y)], 0.03, "dark")


def _car(p: Painter, b: Build) -> None:
    roof, nose = -0.52 - 0.05 * b[0], 0.02 + 0.05 * b[1]
    cabin = [(-0.72, -0.02), (-0.5, roof), (0.24, roof), (0.56, -0.02)]
    p.fill(cabin, "body")
    p.fill([(-0.56, -0.06), (-0.42, roof + 0.12), (-0.14, roof + 0.12), (-0.14, -0.06)], "pale")
    p.fill([(-0.02, -0.06), (-0.02, roof + 0.12), (0.17, roof + 0.12), (0.4, -0.06)], "pale")
    hull = [(-1.02, 0.0), (0.52, -0.04), (0.98, nose + 0.05), (1.05, 0.4), (-1.05, 0.4)]
    p.fill(smooth(hull, 1), "body")
    p.line([(-0.98, 0.22), (0.98, 0.22)], 0.08, "accent")
    p.fill(ellipse(0.9, 0.14, 0.1, 0.09), "pale")
    radius = 0.26 + 0.03 * b[2]
    for x in (-0.56, 0.56):
        p.fill(ellipse(x, 0.4, radius, radius), "dark")
        p.fill(ellipse(x, 0.4, radius * 0.5, radius * 0.5), "pale", outline=False)


def _siren(p: Painter, b: Build) -> None:
    for degrees in (-165, -128, -90, -52, -15):
        a = np.radians(degrees)
        near, far = 0.68, 1.02 + 0.04 * b[0]
        centre = np.array([np.cos(a), np.sin(a)])
        across = np.array([-centre[1], centre[0]]) * 0.1
        base = np.array([0, 0.22])
        p.fill(
            np.array(
                [base + centre * near + across, base + centre * far, base + centre * near - across]
            ),
            "accent",
        )
    dome = np.concatenate(
        [arc(0, 0.2, 0.5, 0.66 + 0.05 * b[1], (180, 360)), [(0.5, 0.5), (-0.5, 0.5)]]
    )
    p.fill(dome, "body")
    p.fill(smooth([(-0.14, 0.45), (0.14, 0.45), (0.18, 0.0), (0, -0.16), (-0.18, 0.0)]), "pale")
    p.fill([(-0.72, 0.48), (0.72, 0.48), (0.86, 0.9), (-0.86, 0.9)], "dark")
    p.line([(-0.7, 0.68), (0.7, 0.68)], 0.1, "accent")


def _singer(p: Painter, b: Build) -> None:
    shoulders = [(0.14, 0.5), (0.7, 0.58), (0.95 + 0.04 * b[0], 1.05), (0.0, 1.05)]
    p.fill(ellipse(0, -0.32, 0.66, 0.7), "dark")
    p.fill(smooth(mirrored(shoulders), 1), "accent")
    p.fill([(-0.2, 0.2), (0.2, 0.2), (0.24, 0.6), (0, 0.76), (-0.24, 0.6)], "body")
    p.fill(ellipse(0, -0.12, 0.52 + 0.03 * b[1], 0.62), "body")
    fringe = np.concatenate(
        [arc(0, -0.3, 0.56, 0.6, (185, 355)), arc(0, -0.52, 0.46, 0.12, (0, 180))]
    )
    p.fill(fringe, "dark", outline=False)
    for x in (-0.23, 0.23):
        p.fill(ellipse(x, -0.2, 0.11, 0.1), "pale", outline=False)
        p.fill(ellipse(x, -0.2, 0.06, 0.08), "dark", outline=False)
    p.fill(ellipse(0, 0.2, 0.23 + 0.03 * b[2], 0.21), "dark")
    p.fill(ellipse(0, 0.3, 0.13, 0.08), "accent", outline=False)


def _clock(p: Painter, b: Build) -> None:
    for side in (-1.0, 1.0):
        p.line([(side * 0.4, 0.6), (side * 0.62, 1.0)], 0.13, "dark", outline=True)
        p.fill(ellipse(side * 0.46, -0.72, 0.36, 0.24 + 0.02 * b[0], side * 35), "accent")
    p.line([(0, -0.7), (0, -0.98)], 0.1, "dark", outline=True)
    p.fill(ellipse(0, 0.12, 0.78, 0.78), "body")
    p.fill(ellipse(0, 0.12, 0.58, 0.58), "pale")
    for k in range(12):
        a = k * np.pi / 6
        x, y = np.cos(a), np.sin(a)
        p.line([(0.44 * x, 0.12 + 0.44 * y), (0.53 * x, 0.12 + 0.53 * y)], 0.05, "dark")
    minute, hour = np.pi * b[1], np.pi * b[2]
    p.line([(0, 0.12), (0.42 * np.sin(minute), 0.12 - 0.42 * np.cos(minute))], 0.07, "dark")
    p.line([(0, 0.12), (0.28 * np.sin(hour), 0.12 - 0.28 * np.cos(hour))], 0.1, "dark")
    p.fill(ellipse(0, 0.12, 0.08, 0.08), "accent", outline=False)


def _kettle(p: Painter, b: Build) -> None:
    p.line(arc(-0.02, -0.28, 0.56, 0.62 + 0.05 * b[0], (180, 360)), 0.14, "dark", outline=True)
    spout = [(0.4, 0.1), (0.72, -0.1), (0.82, -0.4), (1.1, -0.46), (1.04, -0.18), (0.72, 0.52)]
    p.fill(spout, "accent")
    side = [(0.34, -0.3), (0.56, -0.12), (0.76 + 0.04 * b[1], 0.4), (0.7, 0.82), (0.02, 0.84)]
    p.fill(smooth(mirrored(side), 1), "body")
    p.fill(arc(0, -0.22, 0.42, 0.24, (180, 360)), "accent")
    p.fill(ellipse(0, -0.5, 0.1, 0.1), "dark")
    p.line([(-0.64, 0.66), (0.64, 0.66)], 0.12, "accent")
    p.fill(ellipse(-0.36, 0.2, 0.07, 0.2, 12), "pale", outline=False)


def _phone(p: Painter, b: Build) -> None:
    half = 0.52 + 0.04 * b[0]
    p.line([(half - 0.16, -0.7), (half - 0.16, -1.08)], 0.15, "dark", outline=True)
    p.fill(box(0, 0.1, half, 0.95, corner=0.14), "body")
    p.fill(box(0, -0.36, half - 0.13, 0.26), "pale")
    for y in (0.16, 0.42, 0.68):
        for x in (-0.27, 0.0, 0.27):
            p.fill(box(x, y, 0.09, 0.08), "dark", outline=False)
    p.line([(-0.3, -0.44), (0.28, -0.44)], 0.07, "dark")
    p.line([(-0.3, -0.26), (0.1 + 0.1 * b[1], -0.26)], 0.07, "dark")


def _trumpet(p: Painter, b: Build) -> None:
    p.line(arc(-0.12, 0.2, 0.42, 0.2 + 0.03 * b[0], (0, 360)), 0.13, "body", outline=True)
    for x in (-0.34, -0.12, 0.1):
        p.line([(x, 0.34), (x, -0.34)], 0.15, "accent", outline=True)
        p.line([(x - 0.06, -0.38), (x + 0.06, -0.38)], 0.1, "dark", outline=True)
    p.line([(-0.95, -0.02), (0.5, -0.02)], 0.15, "body", outline=True)
    cone = [(0.3, -0.1), (0.66, -0.16), (0.94, -0.48 - 0.04 * b[1]), (1.06, -0.5)]
    low = [(x, -0.04 - y) for x, y in cone]
    p.fill([*cone, *low[::-1]], "body")
    p.fill(ellipse(1.02, -0.02, 0.11, 0.48 + 0.04 * b[1]), "dark")
    p.fill([(-0.94, -0.12), (-1.1, -0.17), (-1.1, 0.13), (-0.94, 0.08)], "accent")


def _frog(p: Painter, b: Build) -> None:
    for side in (-1.0, 1.0):
        p.fill(ellipse(side * 0.74, 0.42, 0.26, 0.36, side * 20), "body")
        p.fill(ellipse(side * 0.78, 0.74, 0.3, 0.1), "accent")
        p.fill(ellipse(side * 0.42, -0.44, 0.27, 0.27), "body")
    p.fill(ellipse(0, 0.18, 0.84 + 0.04 * b[0], 0.56), "body")
    p.fill(ellipse(0, 0.46, 0.5, 0.27), "pale", outline=False)
    for side in (-1.0, 1.0):
        p.fill(ellipse(side * 0.42, -0.46, 0.18, 0.18), "pale", outline=False)
        p.fill(ellipse(side * 0.42, -0.44, 0.1, 0.12), "dark", outline=False)
        p.fill(ellipse(side * 0.26, 0.72, 0.16, 0.11), "accent")
    p.line(arc(0, -0.08, 0.6, 0.26 + 0.04 * b[1], (12, 168)), 0.09, "dark")


def _bee(p: Painter, b: Build) -> None:
    p.fill([(-0.7, 0.12), (-1.08, 0.26), (-0.7, 0.4)], "dark")
    for x, tilt in ((-0.28, -32.0), (0.2, 18.0)):
        p.fill(ellipse(x, -0.46, 0.24 + 0.03 * b[0], 0.5, tilt), "pale")
    p.fill(ellipse(-0.1, 0.26, 0.76, 0.46 + 0.04 * b[1]), "body")
    for x in (-0.56, -0.24, 0.08):
        h = (0.44 + 0.04 * b[1]) * np.sqrt(1 - ((x + 0.1) / 0.76) ** 2)
        p.line(arc(x - 0.06, 0.26, 0.12, h, (-82, 82)), 0.17, "dark")
    p.fill(ellipse(0.66, 0.2, 0.34, 0.34), "accent")
    p.fill(ellipse(0.76, 0.14, 0.1, 0.13), "dark", outline=False)
    for lean in (0.0, 0.22):
        p.line([(0.66 + lean, -0.1), (0.78 + lean, -0.44)], 0.06, "dark")


def _helicopter(p: Painter, b: Build) -> None:
    p.fill([(0.0, -0.16), (-0.98, -0.12), (-0.98, 0.06), (0.0, 0.34)], "body")
    p.fill([(-0.86, -0.02), (-0.98, -0.46), (-1.14, -0.46), (-1.06, 0.02)], "accent")
    p.line([(0.28, -0.3), (0.28, -0.66)], 0.12, "dark", outline=True)
    p.line([(-0.62 + 0.08 * b[0], -0.66), (1.12, -0.66)], 0.11, "accent", outline=True)
    for x in (0.05, 0.5):
        p.line([(x, 0.3), (x, 0.74)], 0.08, "dark")
    p.line([(-0.25, 0.74), (0.86, 0.74)], 0.1, "dark", outline=True)
    p.fill(ellipse(0.3, 0.06, 0.58 + 0.03 * b[1], 0.4), "body")
    window = np.concatenate([arc(0.34, 0.04, 0.46, 0.28, (-80, 20)), [(0.4, 0.14)]])
    p.fill(window, "pale")
    p.line([(-0.12, 0.24), (0.6, 0.24)], 0.07, "accent")


def _maraca(p: Painter, b: Build) -> None:
    for side in (-1.0, 1.0):
        foot, head = np.array([side * -0.3, 1.0]), np.array([side * 0.52, -0.42 + 0.04 * b[0]])
        p.line([tuple(foot), tuple(head)], 0.17, "accent", outline=True)
        p.fill(ellipse(foot[0], foot[1], 0.14, 0.14), "dark")
        degrees = 30.0 * side
        p.fill(ellipse(head[0], head[1], 0.4, 0.5 + 0.04 * b[1], degrees), "body")
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        for offset, reach in ((-0.14, 0.36), (0.16, 0.36)):
            ends = (
                np.array([[-reach, offset], [reach, offset]]) @ np.array([[c, s], [-s, c]]) + head
            )
            p.line(ends, 0.11, "dark")
        middle = np.array([[-0.3, 0.01], [0.3, 0.01]]) @ np.array([[c, s], [-s, c]]) + head
        p.line(middle, 0.08, "pale")


DRAWINGS: dict[str, Callable[[Painter, Build], None]] = {
    "dog": _dog,
    "bird": _bird,
    "bell": _bell,
    "drum": _drum,
    "guitar": _guitar,
    "car": _car,
    "siren": _siren,
    "singer": _singer,
    "clock": _clock,
    "kettle": _kettle,
    "phone": _phone,
    "trumpet": _trumpet,
    "frog": _frog,
    "bee": _bee,
    "helicopter": _helicopter,
    "maraca": _maraca,
}


def draw(category: str, appearance: Appearance, size_px: int) -> np.ndarray:
    """Draw one object on its own canvas, (S, S, 4) uint8, premultiplied RGBA."""
    painter = Painter(size_px, appearance)
    DRAWINGS[category](painter, appearance.build)
    return painter.canvas


@cache
def bounds(category: str) -> tuple[float, float, float]:
    """Return centre (x, y) and half the largest extent of a category's plain drawing, in units."""
    grey = (128, 128, 128)
    plain = Appearance(grey, grey, grey, grey, grey, grey, 0.05, "plain", 0.0, 1.0, (0, 0, 0, 0))
    size_px = 256
    x, y, w, h = cv2.boundingRect(draw(category, plain, size_px)[..., 3])
    unit_px = size_px / (2 * CANVAS_REACH)
    centre = ((x + w / 2) / unit_px - CANVAS_REACH, (y + h / 2) / unit_px - CANVAS_REACH)
    return (*centre, max(w, h) / 2 / unit_px)
