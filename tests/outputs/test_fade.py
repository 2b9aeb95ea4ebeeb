"""Fades of overlays: no jumps of brightness, highlights on time, cuts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.outputs.overlay import NamedOverlays, overlay_drawer
from av2tsam_cli.segment_options import LookOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

HEIGHT, WIDTH, RATE = 120, 200, 25
GREY = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
NOTHING = np.zeros((HEIGHT, WIDTH), np.bool_)
BoolArray = npt.NDArray[np.bool_]


def box(left: int, width: int = 36) -> BoolArray:
    mask = NOTHING.copy()
    mask[30:90, left : left + width] = True
    return mask


LEFT, RIGHT = box(10), box(140)


def overlays(
    masks: Sequence[BoolArray],
    *,
    rate: float = RATE,
    cut: int | None = None,
    names: bool = False,
    picture: npt.NDArray[np.uint8] = GREY,
) -> npt.NDArray[np.uint8]:
    """Draw a grey video, (T, H, W, 3); with names, all of the mask is a dog."""
    draw = overlay_drawer(LookOptions(names=names))
    pictures = []
    for k, mask in enumerate(masks):
        shot = 0 if cut is None or k < cut else 1
        sources = SourceMasks(("dog",), mask.astype(np.uint8)) if names else None
        frame = Frame(picture, k / rate, k, shot=shot)
        pictures.append(draw(MaskedFrame(frame, mask, "computed", sources)))
    return np.stack(pictures)


def largest_jump(pictures: npt.NDArray[np.uint8]) -> float:
    brightness = pictures.mean(axis=(1, 2)) @ (0.299, 0.587, 0.114)
    return float(np.abs(np.diff(brightness)).max())


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize(
    "masks",
    [
        [NOTHING] * 3 + [LEFT] * 15 + [NOTHING] * 15,
        [LEFT] * 3 + [RIGHT] * 8 + [LEFT | RIGHT] * 8 + [RIGHT] * 8,
        [NOTHING] * 3 + [LEFT] * 3 + [NOTHING] * 3 + [RIGHT] * 12 + [NOTHING] * 2 + [RIGHT] * 5,
    ],
)
def test_the_brightness_never_jumps(masks: list[BoolArray], names: bool) -> None:
    assert largest_jump(overlays(masks, names=names)) <= 4


@pytest.mark.parametrize("level", [130, 180])
def test_bright_pictures_are_dimmed_more_slowly(level: int) -> None:
    masks = [NOTHING] * 3 + [LEFT] * 35 + [NOTHING] * 35
    assert largest_jump(overlays(masks, picture=np.full_like(GREY, level))) <= 4


def test_a_highlight_is_complete_in_three_frames_and_the_dimming_in_ten() -> None:
    pictures = overlays([NOTHING] * 2 + [LEFT] * 14 + [NOTHING] * 14)
    inside, outside = pictures[:, 60, 30].astype(int), pictures[:, 60, 100, 0]
    assert (inside[2] != 80).any()
    assert (inside[4] == inside[15]).all()
    assert (inside[18:] == 80).all()
    assert (np.diff(outside[1:12].astype(int)) < 0).all()
    assert (outside[12:16] == 44).all()
    assert (np.diff(outside[15:26].astype(int)) > 0).all()
    assert pictures[26:].min() == 80


def test_the_object_does_not_get_darker_before_everything_is_bright_again() -> None:
    pictures = overlays([LEFT] * 10 + [NOTHING] * 12)
    assert pictures[10:, 60, 30].mean(axis=-1).min() >= 79


def test_the_next_source_is_highlighted_while_the_last_one_fades_out() -> None:
    pictures = overlays([LEFT] * 10 + [RIGHT] * 10).astype(int)
    last, next_ = pictures[:, 60, 30, 0], pictures[:, 60, 160, 0]
    assert last[9] > last[10] > last[11] > last[12] == 44
    assert next_[9] == 44 < next_[10] < next_[11] < next_[12] == next_[19] == last[9]


def test_a_moving_object_is_not_smeared() -> None:
    moving = [box(10 + 5 * k) for k in range(20)]
    for picture, mask in zip(overlays(moving), moving, strict=True):
        distant = np.zeros_like(mask)
        distant[:, 4:-4] = mask[:, :-8] | mask[:, 4:-4] | mask[:, 8:]
        assert (picture[~distant & ~mask].max(axis=-1) == 44).mean() > 0.97
        assert (picture[mask][:, 0] > 100).mean() > 0.97


def test_fades_depend_on_time_and_not_on_the_number_of_frames() -> None:
    masks = [NOTHING] + [LEFT] * 30
    slow, fast = overlays(masks, rate=2), overlays(masks, rate=50)
    assert slow[1, 0, 0, 0] == 44
    assert fast[10, 0, 0, 0] > 60
    assert fast[20, 0, 0, 0] == 44


def test_at_a_cut_and_in_the_first_frame_nothing_fades() -> None:
    complete = overlays([LEFT])[0]
    pictures = overlays([LEFT] * 5 + [NOTHING] * 5, cut=5)
    np.testing.assert_array_equal(pictures[0], complete)
    np.testing.assert_array_equal(pictures[5], GREY)
    np.testing.assert_array_equal(overlays([NOTHING] * 5 + [LEFT] * 5, cut=5)[5], complete)
    np.testing.assert_array_equal(overlays([RIGHT] * 5 + [LEFT] * 5, cut=5)[5], complete)


def test_a_name_fades_with_its_highlight() -> None:
    pictures = overlays([NOTHING] * 2 + [LEFT] * 6 + [NOTHING] * 6, names=True)
    white = (pictures > 220).all(axis=-1).sum(axis=(1, 2))
    assert white[7] > 0
    assert white[2] == white[10] == 0
    assert (pictures[10, :28, :] == pictures[10, 0, 199]).all()


def test_sources_fade_in_their_own_colours() -> None:
    both = np.where(LEFT, 1, np.where(RIGHT, 2, 0)).astype(np.uint8)
    drawn = NamedOverlays()

    def draw(k: int, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return drawn.draw(Frame(GREY, k / RATE, k), SourceMasks(("dog", "cat"), labels))

    before = draw(0, both)
    leaving = draw(1, np.where(LEFT, both, 0).astype(np.uint8))
    assert (leaving[60, 30] == before[60, 30]).all()
    change = leaving[60, 160].astype(int) - 44
    full = before[60, 160].astype(int) - 44
    np.testing.assert_allclose(change, 0.6 * full, atol=2)
