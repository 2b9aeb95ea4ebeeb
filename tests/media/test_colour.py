"""Tests of colours: decoded RGB is compared with the standards' formulas, and with FFmpeg's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe

MakeClip = Callable[..., Path]
Array = npt.NDArray[Any]

LUMA = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114), 9: (0.2627, 0.6780, 0.0593)}
"""Shares of red, green and blue in the luma of BT.709, BT.601 and BT.2020."""


def ramps(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Planes of 4:2:0 video: luma rises smoothly, chroma is the same in each quarter."""
    del index
    luma = np.tile(np.linspace(60, 200, width), (height, 1))
    chroma = np.full((2, height // 2, width // 2), 128)
    chroma[0, : height // 4], chroma[1, :, : width // 4] = 140, 112
    return np.rint(np.vstack([luma, chroma.reshape(-1, width)])).astype(np.uint8)


def expected_rgb(planes: Array, matrix: int) -> Array:
    """Decode planes of 4:2:0 video in limited range, float64, (H, W, 3), 0 to 255."""
    height = planes.shape[0] * 2 // 3
    small = planes[height:].reshape(2, height // 2, -1).astype(float)
    blue_y, red_y = (small.repeat(2, 1).repeat(2, 2) - 128) / 224
    luma = (planes[:height].astype(float) - 16) / 219
    to_red, to_green, to_blue = LUMA[matrix]
    red, blue = luma + 2 * (1 - to_red) * red_y, luma + 2 * (1 - to_blue) * blue_y
    return 255 * np.stack([red, (luma - to_red * red - to_blue * blue) / to_green, blue], -1)


@pytest.mark.parametrize(("height", "matrix"), [(64, 6), (720, 1)])
def test_colours_are_exact_to_the_rounding(make_clip: MakeClip, height: int, matrix: int) -> None:
    clip = make_clip(
        "ramps.mkv",
        codec="ffv1",
        size=(256, height),
        picture=ramps,
        picture_format="yuv420p",
        seconds=0.04,
    )
    errors = next(read_frames(probe(clip))).rgb - expected_rgb(ramps(0, 256, height), matrix)
    inner = errors.reshape(2, height // 2, 2, 128, 3)[:, 4:-4, :, 4:-4]  # without edges of chroma
    assert np.abs(inner).max() < 0.55
    assert np.abs(inner.mean(axis=(0, 1, 2, 3))).max() < 0.03
    assert abs(inner.mean(axis=(0, 1, 2, 3)) @ LUMA[matrix]) < 0.005
