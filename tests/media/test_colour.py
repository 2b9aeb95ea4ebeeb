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


PQ, HLG = 16, 18
"""Numbers of the transfer functions (libavutil/pixfmt.h)."""


@pytest.fixture
def hdr_clip(make_clip: MakeClip) -> Callable[..., Path]:
    """Write columns of colours as HDR of 10 bits in BT.2020."""

    def make(columns: Array, transfer: int = PQ) -> Path:
        def picture(index: int, width: int, height: int) -> npt.NDArray[np.uint16]:
            del index
            codes = np.rint(65_535 * np.asarray(columns)).astype(np.uint16)
            return np.tile(codes.repeat(width // len(codes), axis=0), (height, 1, 1))

        return make_clip(
            f"{transfer}.mkv",
            codec="libx265",
            pixel_format="yuv444p10le",
            picture=picture,
            picture_format="rgb48le",
            size=(128, 32),
            seconds=0.04,
            options={"x265-params": "log-level=none:lossless=1"},
            colours={
                "colorspace": 9,
                "color_range": 1,
                "color_trc": transfer,
                "color_primaries": 9,
            },
        )

    return make


def pq_code(luminance: Array) -> Array:
    """PQ codes from 0 to 1 of luminances in cd/m2 (SMPTE ST 2084)."""
    power = (np.asarray(luminance) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def shown(clip: Path, count: int) -> Array:
    """The colours of the columns as they are read, (count, 3)."""
    rgb = next(read_frames(probe(clip))).rgb
    return rgb[16, 64 // count :: 128 // count].astype(int)


def test_greys_of_hdr10_are_those_of_sdr_with_room_for_highlights(
    hdr_clip: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    luminance = np.array([0, 5, 26, 80, 203, 400, 1000, 4000])
    clip = hdr_clip(pq_code(luminance)[:, None].repeat(3, axis=1))
    grey = shown(clip, 8)
    assert np.ptp(grey, axis=1).max() <= 1
    dark = 255 * (luminance[:4] / 203) ** (1 / 2.4)
    assert grey[:4, 1] == pytest.approx(dark, abs=1)
    assert grey[4:, 1] == pytest.approx([230, 250, 255, 255], abs=1)  # ITU-R BT.2390
    assert f"{clip}: HDR (PQ), shown as SDR" in caplog.text


def test_hlg_is_shown_as_pq_of_the_same_light(hdr_clip: Callable[..., Path]) -> None:
    # Reference white is 75 % in HLG and 203 cd/m2 in PQ, 38 % is 26.8 cd/m2 (ITU-R BT.2408).
    hlg = shown(hdr_clip(np.array([[0.0] * 3, [0.38] * 3, [0.75] * 3, [1.0] * 3]), HLG), 4)
    pq = shown(hdr_clip(pq_code(np.array([0, 26.8, 203, 1000]))[:, None].repeat(3, axis=1)), 4)
    assert np.abs(hlg - pq).max() <= 2


def test_colours_of_bt2020_are_moved_to_bt709(hdr_clip: Callable[..., Path]) -> None:
    # Red, green and blue of BT.709 as BT.2020 stores them (ITU-R BT.2087), at 60 cd/m2.
    primaries = np.array([[0.6274, 0.0691, 0.0164], [0.3293, 0.9195, 0.0880]])
    primaries = np.vstack([primaries, [0.0433, 0.0114, 0.8956]])
    found = shown(hdr_clip(pq_code(60 * np.vstack([primaries, [1, 1, 1]]))), 4)
    level = 255 * (60 / 203) ** (1 / 2.4)
    assert found[:3].diagonal() == pytest.approx([level] * 3, abs=2)
    assert found[:3][~np.eye(3, dtype=bool)].max() <= 12  # a thousandth of the light
    assert found[3] == pytest.approx([level] * 3, abs=1)


def test_16_bits_are_read_on_request(hdr_clip: Callable[..., Path]) -> None:
    ramp = np.linspace(0.2, 0.4, 128)[:, None].repeat(3, axis=1)
    clip = hdr_clip(ramp)
    frame = next(read_frames(probe(clip), deep=True))
    assert frame.deep is not None
    assert frame.deep.dtype == np.uint16
    assert len(np.unique(frame.deep[16, :, 1])) == 128
    assert np.abs(frame.deep / 257 - frame.rgb).max() <= 0.5
    assert next(read_frames(probe(clip))).deep is None
