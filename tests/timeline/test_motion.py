from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from av2tsam_cli.masks import native_labels
from av2tsam_cli.timeline.schedule import ScheduledFrame, add_motion, logits_over_time
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
    return native_labels(found, SIZE[::-1], 0.5, resize=resize) > 0


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def filled(
    pictures: Sequence[npt.NDArray[np.uint8]], known: Mapping[int, torch.Tensor]
) -> list[torch.Tensor]:
    """Logits of all frames, ten a second, given those of a few."""
    frames = (
        ScheduledFrame(Frame(rgb, k / 10, k), None, segment=0, key=k in known)
        for k, rgb in enumerate(pictures)
    )
    pairs = ((each, known.get(each.frame.index)) for each in add_motion(frames))
    return [found for _, found in logits_over_time(pairs) if found is not None]


def test_masks_between_key_frames_follow_the_disc() -> None:
    centres = [100, 110, 120, 130, 140]
    ends = {0: logits(disc(100)), 4: logits(disc(140))}
    found = filled([picture(x) for x in centres], ends)
    for k, centre_x in enumerate(centres):
        assert iou(mask_of(found[k]), disc(centre_x)) >= 0.9
        blend = ends[0] + k / 4 * (ends[4] - ends[0])
        assert k in ends or iou(mask_of(blend), disc(centre_x)) < 0.8


def test_masks_after_the_last_key_frame_follow_the_disc() -> None:
    found = filled([picture(x) for x in range(100, 161, 10)], {0: logits(disc(100))})
    assert iou(mask_of(found[2]), disc(120)) >= 0.9
    assert iou(mask_of(found[6]), disc(160)) >= 0.85  # more than a diameter away
    assert iou(disc(100), disc(160)) == 0


def test_without_motion_logits_are_interpolated_linearly_in_their_dtype() -> None:
    known = {k: torch.full((1, 8, 8), 2.0 - k, dtype=torch.bfloat16) for k in (0, 4)}
    found = filled([picture(100)] * 5, known)
    assert {each.dtype for each in found} == {torch.bfloat16}
    assert [float(each.mean()) for each in found] == [2.0, 1.0, 0.0, -1.0, -2.0]


def test_masks_follow_the_disc_through_a_whole_stream() -> None:
    """Every fourth frame of two seconds of audio is a key frame; a second ends between two."""

    def scheduled() -> Iterator[ScheduledFrame]:
        for k in range(14):
            frame = Frame(picture(80 + 8 * k), k / 7, k)
            yield ScheduledFrame(frame, None, segment=k // 7, key=k % 7 in {0, 4})

    computed = (
        (each, logits(disc(80 + 8 * each.frame.index)) if each.key else None)
        for each in add_motion(scheduled())
    )
    for each, found in logits_over_time(computed):
        assert found is not None
        assert iou(mask_of(found), disc(80 + 8 * each.frame.index)) >= 0.9
