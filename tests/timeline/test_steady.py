from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from av2tsam_cli.timeline.schedule import ScheduledFrame
from av2tsam_cli.timeline.steady import steady_logits
from av2tsam_cli.values import AudioWindow, Frame, UInt8Array

BoolArray = npt.NDArray[np.bool_]
WIDTH, HEIGHT, RADIUS_PX, GRID = 160, 90, 14, 64
WALL, BALL = np.random.default_rng(0).integers(0, 255, (2, 9, 16, 3), dtype=np.uint8)


def disc(centre_x: float) -> BoolArray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found: BoolArray = (x - centre_x) ** 2 + (y - HEIGHT / 2) ** 2 <= RADIUS_PX**2
    return found


def picture(centre_x: int) -> UInt8Array:
    """A disc with a pattern of its own in front of a wall with another one."""
    wall, ball = (np.asarray(cv2.resize(each, (WIDTH, HEIGHT))) for each in (WALL, BALL))
    ball = np.roll(ball // 2 + 120, centre_x, 1)
    return np.where(disc(centre_x)[..., None], ball, wall // 2).astype(np.uint8)


def logits(mask: BoolArray) -> torch.Tensor:
    """What a perfect network would say of a mask, (1, GRID, GRID)."""
    small = cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small)[None] * 16 - 8


NO_MASK = logits(np.zeros((HEIGHT, WIDTH), np.bool_))


def mask_of(found: torch.Tensor | None, row: int = 0) -> BoolArray:
    assert found is not None
    shown = F.interpolate(found[None], (HEIGHT, WIDTH), mode="bilinear")[0, row]
    return (shown > 0).numpy()


def iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / (a | b).sum())


def video(
    centres: Iterable[int], *, rate: float = 25, change: Callable[[Frame], Frame] = lambda f: f
) -> list[ScheduledFrame]:
    """A video of a disc at some places, with a text prompt."""
    frames = (change(Frame(picture(x), k / rate, k)) for k, x in enumerate(centres))
    return [ScheduledFrame(frame, None, segment=0, key=True) for frame in frames]


def steady(
    frames: Sequence[ScheduledFrame],
    computed: Sequence[torch.Tensor | None],
    names: Sequence[str] | None = ("disc",),
) -> list[torch.Tensor | None]:
    """Steady logits of each frame."""
    pairs = zip(frames, computed, strict=True)
    found = list(steady_logits(pairs, lambda _: names, level=0.0))
    assert [each for each, _ in found] == list(frames)
    return [made for _, made in found]


def blinking(shown: str, *, speed_px: int = 0, rate: float = 25) -> str:
    """Whether a mask is shown in each frame, given whether the network shows it: # or a dot."""
    centres = [40 + speed_px * k for k in range(len(shown))]
    computed = [
        logits(disc(x)) if s == "#" else NO_MASK for x, s in zip(centres, shown, strict=True)
    ]
    masks = [mask_of(made) for made in steady(video(centres, rate=rate), computed)]
    assert all(
        iou(mask, disc(x)) > 0.85 for mask, x in zip(masks, centres, strict=True) if mask.any()
    )
    return "".join("#" if mask.any() else "." for mask in masks)


@pytest.mark.parametrize("speed_px", [0, 3])
@pytest.mark.parametrize("gap", [1, 2, 3])
def test_a_mask_that_vanishes_for_up_to_three_frames_is_carried_on(gap: int, speed_px: int) -> None:
    shown = "######" + "." * gap + "######"
    assert blinking(shown, speed_px=speed_px) == "#" * len(shown)


@pytest.mark.parametrize("gap", [4, 10])
def test_a_longer_gap_stays(gap: int) -> None:
    shown = "######" + "." * gap + "######"
    assert blinking(shown) == shown


def test_a_mask_that_appears_for_up_to_two_frames_is_removed() -> None:
    assert blinking("....#....##.....") == "." * 16
    assert blinking("....###.....") == "....###....."


def test_a_mask_starts_and_ends_in_the_frame_in_which_the_network_says_so() -> None:
    assert blinking("....########....", speed_px=2) == "....########...."


def test_masks_at_the_ends_of_a_video_stay() -> None:
    assert blinking("#####....##") == "#####....##"
    assert blinking("#") == "#"


@pytest.mark.parametrize("shown", ["..#..", "##..##"])
def test_at_low_frame_rates_frames_are_too_far_apart_to_be_compared(shown: str) -> None:
    assert blinking(shown, rate=2) == shown


@pytest.mark.parametrize("speed_px", [2, 5, 30])
def test_the_mask_of_a_moving_object_is_not_smeared(speed_px: int) -> None:
    centres = [20 + abs((speed_px * k + 120) % 240 - 120) for k in range(24)]
    found = steady(video(centres), [logits(disc(x)) for x in centres])
    assert min(iou(mask_of(made), disc(x)) for made, x in zip(found, centres, strict=True)) > 0.9


def test_flickering_edges_become_steady_and_more_exact() -> None:
    rng = np.random.default_rng(0)
    centres = [40 + 2 * k for k in range(24)]
    rough = [logits(disc(x)) + torch.from_numpy(rng.normal(0, 5, (1, GRID, GRID))) for x in centres]
    computed = [each.float() for each in rough]

    def scores(found: Iterable[torch.Tensor | None]) -> tuple[float, float]:
        masks = [mask_of(made) for made in found]
        steadiness = [iou(np.roll(a, 2, 1), b) for a, b in pairwise(masks)]
        exactness = [iou(mask, disc(x)) for mask, x in zip(masks, centres, strict=True)]
        return float(np.mean(steadiness)), float(np.mean(exactness))

    before, after = scores(computed), scores(steady(video(centres), computed))
    assert after[0] > before[0] + 0.1
    assert after[1] > before[1] + 0.05


def test_noise_does_not_move_a_mask() -> None:
    rng = np.random.default_rng(0)

    def noise(frame: Frame) -> Frame:
        return replace(frame, rgb=rng.normal(60, 6, frame.rgb.shape).astype(np.uint8))

    found = steady(video([40] * 12, change=noise), [logits(disc(40))] * 12)
    assert min(iou(mask_of(made), disc(40)) for made in found) > 0.95


def window(index: int, piece: int | None = None) -> AudioWindow:
    return AudioWindow(np.ones(100, np.float32), index, rate_hz=100, piece=piece)


def across(before: ScheduledFrame, after: ScheduledFrame, names: Sequence[str] | None) -> BoolArray:
    """The mask of a still disc in the first of two frames in which the network shows none, which
    follow frames in which it shows one, and are followed by others."""
    frames = [before] * 5 + [after] * 5
    frames = [
        replace(f, frame=replace(f.frame, index=k, time_s=k / 25)) for k, f in enumerate(frames)
    ]
    computed = [logits(disc(40))] * 5 + [NO_MASK] * 2 + [logits(disc(40))] * 3
    return mask_of(steady(frames, computed, names)[5])


def test_nothing_is_carried_over_a_cut_or_to_another_source() -> None:
    one = video([40])[0]
    another_shot = replace(one, frame=replace(one.frame, shot=1))
    assert across(one, one, ("disc",)).any()
    assert not across(one, another_shot, ("disc",)).any()

    def heard(index: int, piece: int | None = None) -> ScheduledFrame:
        return replace(one, window=window(index, piece))

    assert not across(heard(0), heard(1), None).any()
    assert not across(heard(0, piece=0), heard(1, piece=1), None).any()
    assert across(heard(0, piece=0), heard(1, piece=0), None).any()
    assert across(heard(0), heard(1), ("disc",)).any()


def test_sources_are_matched_by_name() -> None:
    """A dog is joined by a cat, which comes first in the order of the names."""
    names = {0: ("dog",), 1: ("cat", "dog")}
    dog, cat = logits(disc(40)), logits(disc(120))
    frames, computed = [], []
    for k, each in enumerate(video([40] * 12)):
        heard = replace(each, window=window(k // 6))
        frames.append(heard)
        computed.append(dog if k < 6 else torch.cat([cat, NO_MASK if k == 7 else dog]))
    found = list(
        steady_logits(
            zip(frames, computed, strict=True),
            lambda window: None if window is None else names[window.index],
            level=0.0,
        )
    )
    for k, (_, made) in enumerate(found):
        assert iou(mask_of(made, row=-1), disc(40)) > 0.9
        if k >= 6:
            assert iou(mask_of(made, row=0), disc(120)) > 0.9


def test_silence_stays_silent() -> None:
    frames = [replace(f, segment=None, key=False) for f in video([40] * 6)]
    assert steady(frames, [None] * 6) == [None] * 6
    assert not list(steady_logits([], lambda _: None, level=0.0))


def test_a_flash_of_light_does_not_interrupt_a_mask() -> None:
    def flash(frame: Frame) -> Frame:
        return replace(frame, rgb=np.full_like(frame.rgb, 255)) if frame.index == 6 else frame

    computed = [NO_MASK if k == 6 else logits(disc(40)) for k in range(12)]
    found = steady(video([40] * 12, change=flash), computed)
    assert iou(mask_of(found[6]), disc(40)) > 0.7


def test_interpolated_logits_are_smooth_already() -> None:
    frames = [replace(f, key=k % 4 == 0) for k, f in enumerate(video([40 + k for k in range(12)]))]
    computed = [logits(disc(40 + k)).to(torch.bfloat16) for k in range(12)]
    for k, made in enumerate(steady(frames, computed)):
        assert made is not None
        assert made.dtype == torch.bfloat16
        if k % 4:
            assert torch.equal(made, computed[k])


def test_repeats_of_a_frame_settle_on_its_mask() -> None:
    frames = [replace(f, key=k <= 4, repeats=k > 4) for k, f in enumerate(video([40] * 12))]
    computed = [logits(disc(40 if k < 4 else 46)) for k in range(12)]
    assert iou(mask_of(steady(frames, computed)[-1]), disc(46)) > 0.95


def test_a_mask_of_few_uncertain_pixels_is_not_lost_among_its_neighbours() -> None:
    weak = torch.full((1, GRID, GRID), -8.0)
    weak[0, 30, 30] = 0.1
    moving = [weak.roll(7 * k, 2) for k in range(8)]
    assert all(made is not None and (made > 0).any() for made in steady(video([40] * 8), moving))
