"""Overlays: what is highlighted, what is dimmed, and what stays."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.outputs.names import COLOURS
from av2tsam_cli.outputs.overlay import NamedOverlays, OverlayStyle, draw_overlay, overlay_drawer
from av2tsam_cli.segment_options import LookOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

GREY = np.full((120, 200, 3), 100, np.uint8)


def disc(height: int = 120, width: int = 200) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(np.hypot(rows - height / 2, columns - width / 2) < height / 4)


def test_an_empty_mask_leaves_the_frame_alone() -> None:
    picture = draw_overlay(GREY, np.zeros((120, 200), bool))
    np.testing.assert_array_equal(picture, GREY)


def test_inside_is_coloured_and_outside_dimmed() -> None:
    style = OverlayStyle(colour=(200, 0, 100), opacity=0.5, dim=0.4)
    picture = draw_overlay(GREY, disc(), style)
    np.testing.assert_allclose(picture[60, 100], (150, 50, 100), atol=1)
    np.testing.assert_allclose(picture[2, 2], 60, atol=1)


def test_the_contour_lies_on_the_edge_and_nowhere_else() -> None:
    with_contour = draw_overlay(GREY, disc(), OverlayStyle(contour_share=1 / 60))
    without = draw_overlay(GREY, disc(), OverlayStyle(contour_share=0))
    rows, columns = np.nonzero((with_contour != without).any(axis=2))
    distance = np.hypot(rows - 60, columns - 100)
    assert distance.min() > 30 - 4
    assert distance.max() < 30 + 4
    assert len(rows) > 2 * np.pi * 28


@pytest.mark.parametrize(("side", "width_px"), [(60, 1), (360, 2), (1080, 5), (2160, 11)])
def test_the_contour_grows_with_the_frame(side: int, width_px: int) -> None:
    assert OverlayStyle().contour_px(side, side * 16 // 9) == width_px


def test_the_frame_given_is_not_changed() -> None:
    frame = GREY.copy()
    draw_overlay(frame, disc())
    np.testing.assert_array_equal(frame, GREY)


@pytest.mark.parametrize(
    "where", [np.s_[:], np.s_[:1, :1], np.s_[-1:, -1:], np.s_[:, 50:51], np.s_[59:61]]
)
def test_masks_at_the_border_thin_and_full(where: Any) -> None:
    mask = np.zeros((120, 200), bool)
    mask[where] = True
    picture = draw_overlay(GREY, mask)
    assert picture.shape == GREY.shape
    assert (picture != GREY).any()


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (4, 4)])
def test_tiny_frames(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 100, np.uint8)
    picture = draw_overlay(frame, np.ones(size, bool), OverlayStyle(contour_share=0, opacity=1))
    assert (picture == OverlayStyle().colour).all()


def test_every_separate_part_and_hole_has_its_contour() -> None:
    mask = np.zeros((120, 200), bool)
    mask[20:100, 20:80] = mask[20:100, 120:180] = True
    mask[50:70, 40:60] = False
    style = OverlayStyle(contour_colour=(255, 255, 255))
    bright = draw_overlay(GREY, mask, style).min(axis=2) > 200
    row = np.flatnonzero(np.diff(bright[60].astype(int)) == 1)
    assert len(row) == 6


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        draw_overlay(GREY, disc(60, 100))


def two_sources() -> npt.NDArray[np.uint8]:
    labels = np.zeros((120, 200), np.uint8)
    labels[40:100, 10:60] = 1
    labels[40:100, 120:190] = 2
    return labels


def test_each_source_keeps_the_colour_of_its_number() -> None:
    overlays, frame = NamedOverlays(), Frame(GREY, 0.0, 0)
    first = overlays.draw(frame, SourceMasks(("dog", "cat"), two_sources()))
    swapped = overlays.draw(frame, SourceMasks(("cat", "dog"), two_sources(), numbers=(2, 1)))
    dog, cat = first[90, 30], first[90, 150]
    np.testing.assert_allclose(dog, 0.65 * 100 + 0.35 * np.array(COLOURS[0]), atol=1)
    np.testing.assert_allclose(cat, 0.65 * 100 + 0.35 * np.array(COLOURS[1]), atol=1)
    np.testing.assert_array_equal(swapped[90, 150], dog)
    np.testing.assert_array_equal(swapped[90, 30], cat)
    np.testing.assert_allclose(first[110, 100], 55, atol=1)
    assert (GREY == 100).all()


def test_the_name_is_written_beside_its_mask() -> None:
    sources = SourceMasks(("dog", "cat"), two_sources())
    picture = NamedOverlays().draw(Frame(GREY, 0.0, 0), sources)
    white = (picture > 220).all(axis=2)
    assert white[:40, 10:60].any()
    assert white[:40, 120:190].any()
    assert not white[45:].any()


@pytest.mark.parametrize("where", [np.s_[:1, :1], np.s_[-1:, -1:], np.s_[:, 50:51], np.s_[:]])
def test_named_sources_at_the_border_thin_and_full(where: Any) -> None:
    labels = np.zeros((120, 200), np.uint8)
    labels[where] = 1
    picture = NamedOverlays().draw(Frame(GREY, 0.0, 0), SourceMasks(("dog",), labels))
    assert picture.shape == GREY.shape
    assert (picture > 220).all(axis=2).any()


def test_without_names_the_picture_is_that_of_the_mask() -> None:
    labels, frame = two_sources(), Frame(GREY, 0.0, 0)
    sources = SourceMasks(("dog", "cat"), labels)
    plain = draw_overlay(GREY, labels > 0)
    named = MaskedFrame(frame, labels > 0, "computed", sources)
    unnamed = MaskedFrame(frame, labels > 0, "computed")
    np.testing.assert_array_equal(overlay_drawer()(named), plain)
    np.testing.assert_array_equal(overlay_drawer(LookOptions(names=True))(unnamed), plain)
    nothing = SourceMasks(("dog",), np.zeros_like(labels))
    empty = MaskedFrame(frame, labels < 0, "silent", nothing)
    assert overlay_drawer(LookOptions(names=True))(empty) is GREY


@pytest.mark.parametrize("names", [False, True])
def test_16_bits_are_drawn_like_8_and_keep_their_precision(*, names: bool) -> None:
    deep = np.tile(np.linspace(20_000, 24_000, 200)[None, :, None], (120, 1, 3)).astype(np.uint16)
    rgb = np.rint(deep / 257).astype(np.uint8)
    labels = disc().astype(np.uint8)
    look = LookOptions(names=names)
    one, other = overlay_drawer(look), overlay_drawer(look)
    for k in range(8):  # the object jumps in frame 3, and vanishes from frame 6 on
        mask = np.roll(labels, 100 if k >= 3 else 0, axis=1) * np.uint8(k < 6)
        sources = SourceMasks(("dog",), mask)
        drawn = [
            draw(MaskedFrame(Frame(rgb, k / 25, k, deep=pixels), mask > 0, "computed", sources))
            for draw, pixels in ((one, None), (other, deep))
        ]
        assert [picture.dtype for picture in drawn] == [np.uint8, np.uint16]
        assert np.abs(drawn[0] - drawn[1] / 257).max() <= 3  # OpenCV rounds contours
        assert len(np.unique(drawn[1][2, :, 0])) > 190
