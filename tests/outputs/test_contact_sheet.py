"""Contact sheets: which frames they show, and how."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.outputs.contact_sheet import SHOWN, ContactSheet, Moments
from av2tsam_cli.outputs.names import colour_of
from av2tsam_cli.segment_options import LookOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks, VideoStream

RATE = 5


def stream(width: int = 64, height: int = 36, aspect: Fraction = Fraction(1)) -> VideoStream:
    return VideoStream(0, "h264", width, height, 0, Fraction(RATE), aspect, 0, 0.0, None)


def frame(
    index: int, visible: bool, size: tuple[int, int] = (64, 36), rate: float = RATE
) -> MaskedFrame:
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[10:20, 10:30] = visible
    grey = np.full((height, width, 3), 128, np.uint8)
    return MaskedFrame(Frame(grey, index / rate, index), mask, "computed", score=0.9)


@pytest.mark.parametrize(("seconds", "count"), [(1, 5), (7, 35), (600, 3000), (3 * 3600, 3000)])
def test_frames_with_masks_are_spread_over_a_video_of_any_length(seconds: int, count: int) -> None:
    moments = Moments(stream(), LookOptions())
    for index in range(count):
        visible = index % max(1, count // 40) == 0
        moments.add(frame(index, visible=visible, rate=count / seconds))
    chosen = [moment.masked.frame.index for moment in moments.chosen()]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(SHOWN, count)
    assert len(moments._spans) <= 4 * SHOWN
    assert all(not moment.names and moment.rank > (0, 0) for moment in moments.chosen())
    if count > SHOWN:
        assert max(np.diff([0, *chosen, count])) < 0.2 * count


def test_frames_without_masks_fill_the_sheet_if_there_are_few_with(tmp_path: Path) -> None:
    moments = Moments(stream(), LookOptions())
    for index in range(100):
        moments.add(frame(index, visible=index == 70))
    chosen = [moment.masked.frame.index for moment in moments.chosen()]
    assert len(chosen) == SHOWN
    assert 70 in chosen


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png"])
@pytest.mark.parametrize(
    ("size", "aspect"),
    [((64, 36), Fraction(1)), ((36, 64), Fraction(1)), ((36, 64), Fraction(4))],
)
def test_a_sheet_has_no_extreme_shape(
    tmp_path: Path, suffix: str, size: tuple[int, int], aspect: Fraction
) -> None:
    path = tmp_path / f"sheet.{suffix}"
    with ContactSheet(
        path, title="a video", video=stream(*size, aspect), look=LookOptions(), overwrite=False
    ) as sheet:
        for index in range(30):
            sheet.write(frame(index, visible=True, size=size))
    with Image.open(path) as picture:
        assert picture.format == ("PNG" if suffix == "png" else "JPEG")
        assert 0.7 < picture.width / picture.height < 2


def test_names_have_the_colours_of_the_overlay_video(tmp_path: Path) -> None:
    """The bird is third in the video, but alone on the sheet."""
    names, path = ("dog", "bell", "bird"), tmp_path / "sheet.png"
    with ContactSheet(
        path, title="", video=stream(), look=LookOptions(names=True), overwrite=False
    ) as sheet:
        for index in range(RATE * 60):
            only = frame(index, visible=True)
            label = index + 1 if index < 3 else 3
            labels = only.mask.astype(np.uint8) * np.uint8(label)
            score = 0.1 if index < 3 else 0.9
            sources = SourceMasks(names, labels, (score,) * 3)
            sheet.write(MaskedFrame(only.frame, only.mask, "computed", sources, score=score))
    pixels = np.asarray(Image.open(path)).reshape(-1, 3)
    shown = {name: (pixels == colour_of(k)).all(axis=1).any() for k, name in enumerate(names, 1)}
    assert shown == {"dog": False, "bell": False, "bird": True}


def test_an_error_leaves_no_sheet(tmp_path: Path) -> None:
    sheet = ContactSheet(
        tmp_path / "s.jpg", title="", video=stream(), look=LookOptions(), overwrite=False
    )
    sheet.__enter__()
    sheet.write(frame(0, visible=True))
    sheet.__exit__(KeyError, KeyError(), None)
    assert not list(tmp_path.iterdir())
