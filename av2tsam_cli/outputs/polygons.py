"""Convert masks to polygons."""

from collections.abc import Iterator, Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.values import BoolArray

Points = npt.NDArray[np.int32]
"""Pixels (x, y) along an outline, int32, (n, 2)."""


def outlines(mask: BoolArray) -> Iterator[Points]:
    """Yield a polygon for each connected part of a mask.

    Filling a polygon, including the pixels on its line, as `cv2.fillPoly` does, gives exactly that
    part. Holes are cut into it: a line that runs there and back leads to each hole.
    """
    found, hierarchy = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return
    contours = [cast("Points", contour[:, 0]) for contour in found]
    parents = hierarchy[0, :, 3]
    for index in np.flatnonzero(parents < 0):
        holes = [contours[hole] for hole in np.flatnonzero(parents == index)]
        points = _corners(_with_holes(mask, contours[index], holes))
        # Readers need at least three points.
        yield np.concatenate([points, np.repeat(points[-1:], max(0, 3 - len(points)), axis=0)])


def _with_holes(mask: BoolArray, outline: Points, holes: Sequence[Points]) -> Points:
    """Cut holes into an outline, each from the nearest pixel of the outline to its left."""
    for hole in sorted(holes, key=lambda hole: int(hole[:, 0].min())):
        first = int(hole[:, 0].argmin())
        x, y = hole[first]
        outside = np.flatnonzero(~mask[y, :x])
        end = int(outside[-1]) + 1 if outside.size else 0
        at = int(np.flatnonzero((outline == (end, y)).all(axis=1))[0])
        ring = np.roll(hole, -first, axis=0)
        outline = np.concatenate([outline[: at + 1], ring, ring[:1], outline[at:]])
    return outline


def _corners(points: Points) -> Points:
    """Remove the points at which an outline continues straight."""
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    turns = (np.sign(before) != np.sign(after)).any(axis=1)
    turns |= (np.abs(before).max(axis=1) > 1) | (np.abs(after).max(axis=1) > 1)
    return points[turns] if turns.any() else points[:1]
