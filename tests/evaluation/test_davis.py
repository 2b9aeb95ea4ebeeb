"""DAVIS's J and boundary F on cases counted by hand, and by comparing distances of pixels."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.evaluation.davis import boundary_f, davis_score, region_similarity

Mask = npt.NDArray[np.bool_]


def square(side: int, top: int, left: int, size: int) -> Mask:
    mask = np.zeros((side, side), bool)
    mask[top : top + size, left : left + size] = True
    return mask


NOTHING = np.zeros((40, 40), bool)
OBJECT = square(40, 10, 10, 12)


def test_region_similarity_is_intersection_over_union() -> None:
    shifted = square(40, 10, 13, 12)  # 9 of 12 columns are shared, 15 are in either
    assert region_similarity(OBJECT[None], shifted[None]).tolist() == [9 / 15]


def test_empty_masks_score_as_in_davis_and_not_as_in_avsbench() -> None:
    predicted, true = np.stack([NOTHING, OBJECT, NOTHING]), np.stack([NOTHING, NOTHING, OBJECT])
    assert region_similarity(predicted, true).tolist() == [1.0, 0.0, 0.0]
    assert [boundary_f(*pair) for pair in zip(predicted, true, strict=True)] == [1.0, 0.0, 0.0]


def test_a_whole_frame_has_no_boundary() -> None:
    assert boundary_f(~NOTHING, ~NOTHING) == 1.0
    assert boundary_f(~NOTHING, OBJECT) == 0.0


def test_boundaries_within_the_tolerance_match() -> None:
    # 0.8 % of the diagonal of 40 x 40 pixels is rounded up to one pixel.
    assert boundary_f(OBJECT, OBJECT) == 1.0
    assert boundary_f(square(40, 10, 11, 12), OBJECT) == 1.0
    assert boundary_f(square(40, 10, 14, 12), OBJECT) < 0.7
    assert boundary_f(square(40, 30, 30, 5), square(40, 2, 2, 5)) == 0.0


def boundary_pixels(mask: Mask) -> list[tuple[int, int]]:
    """List pixels that differ from the one to the right, below, or both; edges have no others."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            right, below = min(x + 1, width - 1), min(y + 1, height - 1)
            if {bool(mask[b, r]) for b in (y, below) for r in (x, right)} == {True, False}:
                found.append((y, x))
    return found


def share_near(one: list[tuple[int, int]], other: list[tuple[int, int]], radius: int) -> float:
    near = [any(math.dist(a, b) <= radius for b in other) for a in one]
    return sum(near) / len(near)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(30, 30), (24, 150)])
def test_boundary_f_agrees_with_distances_between_boundary_pixels(
    seed: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    centre = rng.uniform(0.2, 0.8, 2) * size  # blobs that may reach the edge
    radius_px = rng.uniform(5, 15)
    true = np.hypot(y - centre[0], x - centre[1]) < radius_px
    predicted = np.hypot(y - centre[0] - 2, x - centre[1] + 1.5) < radius_px
    predicted ^= rng.random(size) < 0.01
    radius = math.ceil(0.008 * math.hypot(*size))
    found, wanted = boundary_pixels(predicted), boundary_pixels(true)
    precision, recall = share_near(found, wanted, radius), share_near(wanted, found, radius)
    expected = 2 * precision * recall / (precision + recall)
    assert 0.0 < expected < 1.0
    assert boundary_f(predicted, true) == pytest.approx(expected)


def test_the_score_of_a_video_is_the_mean_over_its_frames() -> None:
    score = davis_score(np.stack([OBJECT, NOTHING]), np.stack([OBJECT, OBJECT]))
    assert (score.region, score.boundary) == (0.5, 0.5)
