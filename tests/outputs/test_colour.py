"""Tests of colours: overlays without a mask are compared with their sources by other readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.values import Frame

MakeClip = Callable[..., Path]
Job = Callable[..., list[float]]
Array = npt.NDArray[Any]
TAGS = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")


def nothing(frame: Frame) -> npt.NDArray[np.bool_]:
    """An empty mask."""
    return np.zeros(frame.rgb.shape[:2], bool)


def ramps(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Smooth ramps of red, green and blue in different directions."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([30 + 180 * x / width, 210 - 150 * y / height, 60 + 120 * y / height], -1)
    return np.rint(picture + index).astype(np.uint8)


def bars(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """White, yellow, cyan, green, magenta, red, blue and black, at 75 %."""
    del index
    colours = [[191 * (k >> bit & 1) for bit in (1, 2, 0)] for k in range(7, -1, -1)]
    row = np.repeat(np.array(colours, np.uint8), width // 8, axis=0)
    return np.tile(row, (height, 1, 1))


def planes_of(path: Path) -> list[Array]:
    """Mean planes of a video as they are stored: luma, blue and red difference."""
    with av.open(str(path)) as container:
        pictures = [
            [np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
            for frame in container.decode(video=0)
        ]
    return [np.mean(plane, axis=0) for plane in zip(*pictures, strict=True)]


def opencv_mean(path: Path) -> Array:
    """Mean picture of a video as OpenCV reads it."""
    capture, pictures = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        pictures.append(read[1])
    return cast("Array", np.mean(pictures, axis=0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("picture", [ramps, bars])
def test_an_overlay_without_a_mask_has_the_colours_of_its_source(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str, picture: Callable[..., Array]
) -> None:
    clip = make_clip(
        size=(256, 144), picture=picture, seconds=0.2, options={"crf": "4"}, colours=TAGS
    )
    job(clip, target := tmp_path / f"out{suffix}", masked=nothing)
    before, after = planes_of(clip), planes_of(target)
    errors = [float((new - old).mean()) for old, new in zip(before, after, strict=True)]
    assert np.abs(errors).max() < 0.3
    assert np.abs((opencv_mean(target) - opencv_mean(clip)).mean(axis=(0, 1))).max() < 0.6
