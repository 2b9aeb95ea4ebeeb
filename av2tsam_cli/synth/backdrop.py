"""Draw the background: value noise or a gradient, a pattern over it, and clutter."""

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.appearance import sample_colour
from av2tsam_cli.synth.values import Background
from av2tsam_cli.values import UInt8Array

BACKDROP_MARGIN = 0.06
"""The backdrop reaches this far beyond the frame on each side, for the camera's drift."""
_FIRST_CELLS = 3


def draw_backdrop(
    background: Background, width_px: int, height_px: int, width: float
) -> UInt8Array:
    """Draw a backdrop (height_px, width_px, 3) uint8 for a view `width` units wide and 1 high."""
    rng = np.random.default_rng(background.seed)
    field = _field(rng, background.octaves, width_px, height_px, width)
    rgb = _paint(field, background)
    if background.pattern != "none":
        _lay_pattern(rgb, rng, background, width)
    _scatter(rgb, rng, background.clutter, width)
    return rgb


def _field(
    rng: np.random.Generator, octaves: int, width_px: int, height_px: int, width: float
) -> npt.NDArray[np.float32]:
    """Return smooth values (H, W) in [0, 1]: a gradient plus octaves of value noise."""
    corners = rng.random((2, 2), dtype=np.float32)
    field = cv2.resize(corners, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    weight = np.float32(rng.uniform(0.5, 1.1))
    for octave in range(octaves):
        cells = _FIRST_CELLS * 2**octave
        grid = rng.random((cells, round(cells * width)), dtype=np.float32) - np.float32(0.5)
        noise = cv2.resize(grid, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
        field = cv2.scaleAdd(noise, float(weight), field)
        weight *= np.float32(0.62)
    cv2.normalize(field, field, 0.0, 1.0, cv2.NORM_MINMAX)
    return np.asarray(field)


def _paint(field: npt.NDArray[np.float32], background: Background) -> UInt8Array:
    """Map values in [0, 1] to the background's colours."""
    stops = np.linspace(0, 255, len(background.colours))
    table = np.stack(
        [
            np.interp(np.arange(256), stops, channel)
            for channel in zip(*background.colours, strict=True)
        ],
        axis=-1,
    )
    levels = cv2.convertScaleAbs(field, alpha=255.0)
    return np.asarray(cv2.applyColorMap(levels, table[:, None, :].astype(np.uint8)))


def _lay_pattern(
    rgb: UInt8Array, rng: np.random.Generator, background: Background, width: float
) -> None:
    """Blend stripes, checks, blotches or a grid over the backdrop, in place."""
    height_px, width_px = rgb.shape[:2]
    if background.pattern == "blotches":
        cells = int(rng.integers(4, 12))
        grid = rng.random((cells, round(cells * width)), dtype=np.float32)
        wave = cv2.resize(grid, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
        cover = wave > rng.uniform(0.5, 0.8)
    else:
        cover = _regular(rng, background.pattern, width_px, height_px, width)
    strength = background.pattern_strength
    ramp = np.arange(256)[:, None] * (1 - strength) + np.array(background.pattern_colour) * strength
    over = cv2.LUT(rgb, np.rint(ramp).astype(np.uint8)[None])
    cv2.copyTo(over, cover.view(np.uint8), rgb)


def _regular(
    rng: np.random.Generator, pattern: str, width_px: int, height_px: int, width: float
) -> npt.NDArray[np.bool_]:
    """Return where (H, W) a pattern of straight lines covers the backdrop."""
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 14)
    x = np.linspace(0, width, width_px, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height_px, dtype=np.float32)[:, None]
    c, s = np.float32(np.cos(angle) * waves), np.float32(np.sin(angle) * waves)
    u, v = x * c + y * s, y * c - x * s
    share = np.float32(rng.uniform(0.1, 0.3) if pattern == "grid" else rng.uniform(0.25, 0.6))
    first = (u - np.floor(u)) < share
    if pattern == "stripes":
        return np.asarray(first)
    second = (v - np.floor(v)) < share
    return np.asarray(first ^ second if pattern == "checks" else first | second)


def _scatter(rgb: UInt8Array, rng: np.random.Generator, count: int, width: float) -> None:
    """Draw small polygons, discs, rings and strokes that are not objects, in place."""
    if not count:
        return
    height_px, width_px = rgb.shape[:2]
    unit = np.array([width_px / width, height_px])
    places = rng.random((count, 2)) * (width, 1.0)
    radii = rng.uniform(0.015, 0.09, count)
    kinds = rng.integers(4, size=count)
    thickness = max(1, round(0.01 * height_px))
    for place, radius, kind in zip(places, radii, kinds, strict=True):
        colour = sample_colour(rng)
        if kind < 2:
            corners = place + _ring(rng, int(rng.integers(3, 8))) * radius
            pixels = np.rint(corners * unit * 16).astype(np.int32)
            cv2.fillPoly(rgb, [pixels], colour, cv2.LINE_AA, 4)
        elif kind == 2:
            centre, axes = np.rint(place * unit * 16), np.rint(radius * unit * (16, 12))
            filled = -1 if rng.random() < 0.6 else thickness
            cv2.ellipse(
                rgb,
                _int_pair(centre),
                _int_pair(axes),
                rng.uniform(0, 180),
                0,
                360,
                colour,
                filled,
                cv2.LINE_AA,
                4,
            )
        else:
            bends = place + rng.normal(0, 1.6, (3, 2)) * radius
            pixels = np.rint(bends * unit * 16).astype(np.int32)
            cv2.polylines(rgb, [pixels], False, colour, thickness, cv2.LINE_AA, 4)


def _ring(rng: np.random.Generator, corners: int) -> npt.NDArray[np.float64]:
    """Return corners (N, 2) of an irregular polygon about the origin, of radius about 1."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    return np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.6, 1.2, (corners, 1))


def _int_pair(values: npt.NDArray[np.float64]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
