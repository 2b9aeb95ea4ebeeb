from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
import pytest

from av2tsam_cli.timeline.cuts import number_shots
from av2tsam_cli.timeline.schedule import mark_keys, mark_repeats, pair_with_audio, without_audio
from av2tsam_cli.values import AudioWindow, Frame, UInt8Array

HEIGHT, WIDTH = 90, 160


def wide_view(seed: int) -> UInt8Array:
    """A landscape of soft blobs, wider and higher than a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 20, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (4 * WIDTH, 3 * HEIGHT)), np.uint8)


def shot(seed: int, frames: int, speed_px: int = 0) -> list[UInt8Array]:
    """A camera that pans over a landscape."""
    view = wide_view(seed)
    return [view[:HEIGHT, speed_px * k : speed_px * k + WIDTH] for k in range(frames)]


def shots_of(pictures: Sequence[UInt8Array]) -> list[int]:
    numbered = list(number_shots(Frame(rgb, k / 25, k) for k, rgb in enumerate(pictures)))
    assert [each.index for each in numbered] == list(range(len(pictures)))
    assert all(each.rgb is rgb for each, rgb in zip(numbered, pictures, strict=True))
    return [each.shot for each in numbered]


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 20])
def test_a_video_without_a_cut_is_one_shot(frames: int) -> None:
    assert shots_of(shot(0, frames)) == [0] * frames


@pytest.mark.parametrize("speed_px", [0, 3])
def test_each_cut_begins_a_shot(speed_px: int) -> None:
    pictures = shot(0, 12, speed_px) + shot(1, 5, speed_px) + shot(2, 9, speed_px)
    assert shots_of(pictures) == [0] * 12 + [1] * 5 + [2] * 9


@pytest.mark.parametrize("before", [1, 2])
def test_cuts_beside_the_first_and_the_last_frame_are_found(before: int) -> None:
    assert shots_of(shot(0, before) + shot(1, 8)) == [0] * before + [1] * 8
    assert shots_of(shot(0, 8) + shot(1, before)) == [0] * 8 + [1] * before


@pytest.mark.parametrize("speed_px", [8, 16])
def test_a_fast_pan_is_one_shot(speed_px: int) -> None:
    assert set(shots_of(shot(0, 24, speed_px))) == {0}


@pytest.mark.parametrize("frames", [1, 2])
def test_a_flash_is_not_a_cut(frames: int) -> None:
    pictures = shot(0, 20, speed_px=2)
    pictures[9 : 9 + frames] = [np.full_like(pictures[0], 255)] * frames
    assert set(shots_of(pictures)) == {0}


def test_fades_and_dissolves_are_not_cuts() -> None:
    one, other = shot(0, 30), shot(1, 30)
    weights = np.clip((np.arange(30) - 8) / 12, 0, 1)
    dissolve = [
        (a * (1 - weight) + b * weight).astype(np.uint8)
        for a, b, weight in zip(one, other, weights, strict=True)
    ]
    assert set(shots_of(dissolve)) == {0}
    to_black = [
        (rgb * (1 - weight)).astype(np.uint8) for rgb, weight in zip(one, weights, strict=True)
    ]
    assert set(shots_of(to_black)) == {0}


def test_a_change_of_size_does_not_matter() -> None:
    small = [rgb[::2, ::2] for rgb in shot(0, 6)]
    assert set(shots_of(shot(0, 6) + small)) == {0}


def test_after_a_cut_masks_are_computed_and_not_reused() -> None:
    """The shots look the same to `mark_repeats`; only their numbers differ."""
    still = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frames = [Frame(still, k / 25, k, shot=k // 5) for k in range(15)]
    window = AudioWindow(np.ones(100, np.float32), index=0, rate_hz=100)
    for scheduled in (pair_with_audio(frames, [window], None), without_audio(frames)):
        thinned = list(mark_keys(scheduled, Fraction(1)))
        assert [each.frame.index for each in thinned if each.key] == [0, 5, 10]
        assert len({each.segment for each in thinned}) == 3
    repeated = mark_repeats(without_audio(frames), 0)
    assert [each.frame.index for each in repeated if each.key] == [0, 5, 10]
