import cv2
import numpy as np
import pytest

from av2tsam_cli.refine import refine
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

CELLS = 64


def picture(height: int, width: int) -> tuple[UInt8Array, BoolArray]:
    """A red disc on green ground, and where it is."""
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - 0.5 * height, columns - 0.4 * width) < 0.3 * height
    rgb = np.where(disc[..., None], (200, 60, 50), (50, 120, 70)).astype(np.uint8)
    return rgb, disc


def logits_of(mask: BoolArray, shift: float = 0.0) -> Float32Array:
    """Logits of a network that is wrong by a number of cells to the right."""
    small = cv2.resize(mask.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, shift], [0, 1, 0]], np.float32)
    return cv2.warpAffine(small, move, (CELLS, CELLS), borderMode=cv2.BORDER_REPLICATE) * 12 - 6


def iou(a: BoolArray, b: BoolArray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize("size", [(180, 320), (540, 960), (1080, 1920), (700, 301)])
def test_a_mask_that_is_a_cell_off_moves_to_the_edge(size: tuple[int, int]) -> None:
    rgb, disc = picture(*size)
    logits = logits_of(disc, shift=0.8)
    coarse = cv2.resize(logits, size[::-1]) > 0
    alpha = refine(rgb, logits)
    assert (alpha.shape, alpha.dtype) == (size, np.uint8)
    assert iou(alpha > 127, disc) > max(0.985, iou(coarse, disc))


def test_edges_are_soft_and_everything_else_is_not() -> None:
    rgb, disc = picture(1080, 1920)
    alpha = refine(cv2.GaussianBlur(rgb, (0, 0), 3), logits_of(disc))
    soft = (alpha > 0) & (alpha < 255)
    assert 0 < soft.mean() < 0.03
    near = cv2.dilate(disc.view(np.uint8), np.ones((61, 61))) > 0
    sure = cv2.erode(disc.view(np.uint8), np.ones((61, 61))) > 0
    assert not soft[~near | sure].any()
    assert alpha[sure].min() == 255


def test_without_edges_in_the_picture_the_mask_stays() -> None:
    _, disc = picture(360, 640)
    logits = logits_of(disc)
    alpha = refine(np.full((360, 640, 3), 90, np.uint8), logits)
    assert iou(alpha > 127, cv2.resize(logits, (640, 360)) > 0) > 0.99


def test_an_edge_too_far_away_is_left_alone() -> None:
    rgb, disc = picture(360, 640)
    logits = logits_of(disc, shift=12)
    coarse = cv2.resize(logits, (640, 360)) > 0
    assert iou(refine(rgb, logits) > 127, coarse) > 0.85


def test_a_mask_reaches_the_border_of_the_frame() -> None:
    rgb = np.full((360, 640, 3), 40, np.uint8)
    rgb[:, :200] = (200, 180, 20)
    left = np.arange(640)[None] < np.full((360, 1), 200)
    assert iou(refine(rgb, logits_of(left, shift=0.7)) > 127, left) > 0.99


def test_empty_and_full_masks() -> None:
    rgb, _ = picture(180, 320)
    assert not refine(rgb, np.full((CELLS, CELLS), -3, np.float32)).any()
    assert refine(rgb, np.full((CELLS, CELLS), 3, np.float32)).min() == 255
