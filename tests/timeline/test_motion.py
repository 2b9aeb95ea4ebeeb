from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from av2tsam_cli.masks import native_mask
from av2tsam_cli.timeline.motion import KeyFrame, interpolate
from av2tsam_cli.timeline.schedule import ScheduledFrame, logits_over_time
from av2tsam_cli.values import Frame

SIZE = (320, 180)
RADIUS_PX = 24
GRID = 64
BoolArray = npt.NDArray[np.bool_]


def disc(centre_x: float) -> BoolArray:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    found: BoolArray = (x - centre_x) ** 2 + (y - 90) ** 2 <= RADIUS_PX**2
    return found


def textured(seed: int, width: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (SIZE[1], width, 3))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(
        np.uint8
    )


def picture(centre_x: int) -> npt.NDArray[np.uint8]:
    """A textured disc that moves in front of a static textured wall."""
    wall, ball = textured(0, SIZE[0]) // 2, np.roll(textured(1, SIZE[0]) // 2 + 120, centre_x, 1)
    return np.where(disc(centre_x)[..., None], ball, wall).astype(np.uint8)


def logits(mask: BoolArray) -> torch.Tensor:
    """What a perfect network would say of a mask, (1, GRID, GRID)."""
    small = cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small)[None] * 16 - 8


def iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / (a | b).sum())


def mask_of(found: torch.Tensor) -> BoolArray:
    return native_mask(found, SIZE[::-1], 0.5, resize=resize)


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def key(centre_x: int, time_s: float) -> KeyFrame:
    return KeyFrame(Frame(picture(centre_x), time_s, 0), logits(disc(centre_x)))


@pytest.mark.parametrize("centre_x", [110, 120, 130])
def test_masks_between_key_frames_follow_the_disc(centre_x: int) -> None:
    before, after = key(100, 0.0), key(140, 0.4)
    time_s = (centre_x - 100) / 100
    found = mask_of(interpolate(Frame(picture(centre_x), time_s, 1), before, after))
    assert iou(found, disc(centre_x)) >= 0.9
    blend = before.logits + time_s / 0.4 * (after.logits - before.logits)
    assert iou(mask_of(blend), disc(centre_x)) < 0.8


def test_masks_after_the_last_key_frame_follow_the_disc() -> None:
    found = mask_of(interpolate(Frame(picture(120), 0.2, 1), key(100, 0.0), None))
    assert iou(found, disc(120)) >= 0.9
    assert iou(disc(100), disc(120)) < 0.5


def test_without_motion_logits_are_interpolated_linearly_in_their_dtype() -> None:
    still = picture(100)
    before, after = (
        KeyFrame(Frame(still, time_s, 0), torch.full((1, 8, 8), level, dtype=torch.bfloat16))
        for time_s, level in ((0.0, 2.0), (0.4, -2.0))
    )
    found = interpolate(Frame(still, 0.1, 1), before, after)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.full((1, 8, 8), 1.0, dtype=torch.bfloat16))


def test_masks_follow_the_disc_through_a_whole_stream() -> None:
    """Every fourth frame of two seconds of audio is a key frame; a second ends between two."""

    def decoded() -> Iterator[tuple[ScheduledFrame, torch.Tensor | None]]:
        for k in range(14):
            segment, centre_x = k // 7, 80 + 8 * k
            made = logits(disc(centre_x)) if k % 7 in {0, 4} else None
            frame = Frame(picture(centre_x), k / 7, k)
            yield ScheduledFrame(frame, None, segment, key=made is not None), made

    for each, found in logits_over_time(decoded()):
        assert found is not None
        assert iou(mask_of(found), disc(80 + 8 * each.frame.index)) >= 0.9
