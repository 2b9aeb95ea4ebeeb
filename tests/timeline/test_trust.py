from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from av2tsam_cli.timeline.schedule import (
    KeyFrame,
    ScheduledFrame,
    add_motion,
    pair_with_audio,
    without_audio,
)
from av2tsam_cli.timeline.trust import KeyFrameChooser
from av2tsam_cli.values import AudioWindow, BoolArray, Frame, UInt8Array

SIZE = (320, 180)
RATE = 25
RADIUS_PX = 24


def disc(centre_x: float, centre_y: float = 90, radius_px: float = RADIUS_PX) -> BoolArray:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    found: BoolArray = (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius_px**2
    return found


def textured(seed: int) -> UInt8Array:
    noise = np.random.default_rng(seed).uniform(0, 255, (SIZE[1], SIZE[0], 3))
    soft = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.asarray(cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


WALL, BALL = textured(0) // 2, textured(1) // 2 + 120


def picture(centre_x: int, centre_y: int = 90, wall: UInt8Array = WALL) -> UInt8Array:
    """A textured disc in front of a textured wall."""
    ball = np.roll(BALL, (centre_y, centre_x), (0, 1))
    return np.where(disc(centre_x, centre_y)[..., None], ball, wall).astype(np.uint8)


def noisy(rgb: UInt8Array, seed: int) -> UInt8Array:
    noise = np.random.default_rng(seed).normal(0, 3, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def shown(pictures: Iterable[UInt8Array]) -> Iterator[Frame]:
    return (Frame(rgb, k / RATE, k) for k, rgb in enumerate(pictures))


def computed(
    frames: Iterable[ScheduledFrame], masks: Sequence[BoolArray] = (), *, reuse: float | None = None
) -> list[int]:
    """Indices of the frames that the network looks at, which always sees the last mask given."""
    chooser, found = KeyFrameChooser(0.0, reuse), []
    for each in add_motion(frames):
        chosen = chooser.choose(each)
        if chosen.key:
            found.append(each.frame.index)
            sources = [cv2.resize(mask.astype(np.float32), (64, 64)) for mask in masks]
            chooser.computed(KeyFrame(chosen, torch.from_numpy(np.stack(sources)) * 16 - 8))
    return found


def looked_at(pictures: Iterable[UInt8Array], *masks: BoolArray) -> list[int]:
    return computed(without_audio(shown(pictures)), masks or [disc(100)])


def test_a_still_scene_is_looked_at_once_per_second() -> None:
    assert looked_at([noisy(picture(100), k) for k in range(30)]) == [0, 25]


def test_a_still_picture_is_looked_at_every_four_seconds_even_if_masks_are_reused() -> None:
    still = without_audio(Frame(picture(100), k / 2, k) for k in range(12))
    assert computed(still, [disc(100)], reuse=1.0) == [0, 8]


def test_an_object_that_moves_slowly_is_followed() -> None:
    assert len(looked_at([picture(100 + k // 2) for k in range(20)])) <= 3


def test_an_object_that_starts_to_move_fast_is_looked_at_again() -> None:
    pictures = [picture(100)] * 8 + [picture(100 + 30 * k) for k in range(1, 6)]
    found = looked_at(pictures)
    assert found[0] == 0
    assert {8, 9} & set(found)
    assert len(found) >= 4


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_a_light_that_goes_on_under_the_mask_is_looked_at(contrast: float) -> None:
    dark = (picture(100) * contrast).astype(np.uint8)
    lit = np.where(disc(100)[..., None], dark + np.uint8(60 * contrast), dark).astype(np.uint8)
    assert looked_at([dark] * 6 + [lit] * 6) == [0, 6]


def test_a_large_object_that_appears_away_from_the_mask_is_looked_at() -> None:
    one = picture(60)
    two = np.where(disc(240, 90, 50)[..., None], BALL, one).astype(np.uint8)
    assert looked_at([one] * 6 + [two] * 6, disc(60)) == [0, 6]


def test_without_a_mask_an_object_that_appears_is_looked_at() -> None:
    empty = np.zeros_like(disc(0))
    entered = np.where(disc(160, 90, 50)[..., None], BALL, WALL).astype(np.uint8)
    assert looked_at([WALL] * 6 + [entered] * 6, empty) == [0, 6]


def test_a_small_change_away_from_the_mask_does_not_matter() -> None:
    one = picture(60)
    two = one.copy()
    two[20:35, 250:265] = 255
    assert looked_at([one] * 6 + [two] * 6, disc(60)) == [0]
    assert looked_at([one] * 6 + [two] * 6, disc(60), disc(257, 27)) == [0, 6]  # a second source


def test_each_shot_is_looked_at() -> None:
    frames = list(shown([picture(100)] * 12))
    cut = (replace(frame, shot=int(frame.index >= 7)) for frame in frames)
    assert computed(without_audio(cut), [disc(100)]) == [0, 7]


def test_a_new_sound_is_looked_at_and_silence_is_not() -> None:
    windows = [
        AudioWindow(np.full(100, level, np.float32), index=k, rate_hz=100, span_s=span_s)
        for k, (level, span_s) in enumerate(
            [(0.5, (0.0, 0.2)), (0.4, (0.2, 0.4)), (0.0, (0.4, 0.6)), (0.5, (0.6, 0.8))]
        )
    ]
    frames = pair_with_audio(shown([picture(100)] * 20), windows, -60.0)
    assert computed(frames, [disc(100)]) == [0, 5, 15]


def test_frames_that_look_the_same_repeat_the_masks() -> None:
    frames = list(add_motion(without_audio(shown([picture(100)] * 30))))
    chooser = KeyFrameChooser(0.0, 1.0)
    chosen = chooser.choose(frames[0])
    chooser.computed(KeyFrame(chosen, torch.ones(1, 8, 8)))
    assert all(chooser.choose(each).repeats for each in frames[1:])
    assert computed(without_audio(shown([picture(100)] * 30)), [disc(100)], reuse=1.0) == [0]
