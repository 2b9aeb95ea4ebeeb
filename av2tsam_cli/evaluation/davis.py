"""DAVIS's measures of predicted masks: region similarity J and boundary F. No files are read.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, and `db_eval_iou` and `db_eval_boundary` of davis2017-evaluation.
Two masks without a pixel have J = F = 1, and one of them without a pixel has J = F = 0; AVSBench's
mIoU scores a frame whose true mask is empty on its background instead. DAVIS leaves out the first
and the last frame of a video, whose masks are given there; here every labelled frame counts.

Letters: T frames of one video, H rows, W columns.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from av2tsam_cli.values import BoolArray, Float64Array, UInt8Array

BOUNDARY_TOLERANCE = 0.008
"""Distance in which boundary pixels match, as a share of the frame's diagonal; DAVIS's value."""


@dataclass(frozen=True)
class DavisScore:
    """DAVIS's measures of one video, means over its frames."""

    region: float
    """J: intersection over union of the masks."""
    boundary: float
    """F: harmonic mean of precision and recall of the masks' boundary pixels."""


def davis_score(predicted: BoolArray, true: BoolArray) -> DavisScore:
    """Compare the predicted with the true masks of one video, both bool, (T, H, W)."""
    region = region_similarity(predicted, true)
    boundary = [boundary_f(*masks) for masks in zip(predicted, true, strict=True)]
    return DavisScore(float(region.mean()), float(np.mean(boundary)))


def region_similarity(predicted: BoolArray, true: BoolArray) -> Float64Array:
    """Compute J of each frame.

    Args:
        predicted: Predicted masks, bool, (T, H, W).
        true: True masks, bool, (T, H, W).

    Returns:
        float64, (T,), in [0, 1]; 1 for a frame in which both masks are empty.
    """
    intersection = np.count_nonzero(predicted & true, axis=(1, 2))
    union = np.count_nonzero(predicted | true, axis=(1, 2))
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))


def boundary_f(predicted: BoolArray, true: BoolArray) -> float:
    """Compute the boundary F of one frame.

    A boundary pixel matches if one of the other mask's is within 0.8 % of the diagonal, rounded up
    to whole pixels. As in DAVIS's code, several pixels may match the same one.

    Args:
        predicted: Predicted mask, bool, (H, W).
        true: True mask, bool, (H, W).

    Returns:
        F in [0, 1]; 1 if neither mask has a boundary, 0 if only one has.
    """
    found, wanted = boundary(predicted), boundary(true)
    if not (found.any() and wanted.any()):
        return float(found.any() == wanted.any())
    disk = _disk(math.ceil(BOUNDARY_TOLERANCE * math.hypot(*true.shape)))
    precision = np.mean(cv2.dilate(wanted.view(np.uint8), disk)[found])
    recall = np.mean(cv2.dilate(found.view(np.uint8), disk)[wanted])
    total = float(precision + recall)
    return 2.0 * float(precision * recall) / total if total else 0.0


def boundary(mask: BoolArray) -> BoolArray:
    """Return the pixels that differ from their neighbour to the right, below, or both; (H, W)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)


def _disk(radius: int) -> UInt8Array:
    """Return a filled circle as a structuring element, (2 radius + 1, 2 radius + 1)."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius, np.uint8)
