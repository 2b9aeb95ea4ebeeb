"""Styles of overlays: what each does inside and outside of a mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.outputs.overlay import overlay_drawer
from av2tsam_cli.segment_options import LookOptions, Style, parse_colour
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

MakeClip = Callable[..., Path]

HEIGHT, WIDTH = 120, 200
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[30:90, 50:150] = True
INSIDE, OUTSIDE = np.s_[45:75, 70:130], np.s_[4:14, 4:196]
"""Away from the mask's edge, where contours and blurs reach."""


def scene() -> npt.NDArray[np.uint8]:
    """Coloured noise, so that blurring and decolouring show."""
    rng = np.random.default_rng(1)
    return rng.integers(40, 216, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def draw(style: Style, **look: Any) -> npt.NDArray[np.uint8]:
    frame = Frame(scene(), 0.0, 0)
    return overlay_drawer(LookOptions(style=style, **look))(MaskedFrame(frame, MASK, "computed"))


@pytest.mark.parametrize("style", ["outline", "blur", "spotlight", "mono"])
def test_the_source_itself_stays_as_it_is(style: Style) -> None:
    np.testing.assert_array_equal(draw(style)[INSIDE], scene()[INSIDE])


def test_outline_changes_nothing_but_the_edge() -> None:
    changed = (draw("outline") != scene()).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 0 < changed.sum() < 3 * 2 * (60 + 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (29, 90, 49, 150)


def test_blur_removes_the_detail_around_it() -> None:
    assert draw("blur")[OUTSIDE].std() < 0.2 * scene()[OUTSIDE].std()
    assert draw("blur")[OUTSIDE].mean() == pytest.approx(scene()[OUTSIDE].mean(), abs=3)


def test_spotlight_leaves_the_rest_in_the_dark() -> None:
    np.testing.assert_allclose(draw("spotlight")[OUTSIDE], 0.15 * scene()[OUTSIDE], atol=1)


def test_mono_takes_the_colours_from_the_rest() -> None:
    rest = draw("mono")[OUTSIDE]
    assert (rest == rest[..., :1]).all()
    luma = scene()[OUTSIDE] @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(rest[..., 0], luma, atol=1)


def test_heat_shows_the_probability() -> None:
    frame = Frame(np.full((HEIGHT, WIDTH, 3), 100, np.uint8), 0.0, 0)
    ramp = np.linspace(0, 1, WIDTH, dtype=np.float32) * np.ones((HEIGHT, 1), np.float32)
    masked = MaskedFrame(frame, ramp > 0.5, "computed", soft_mask=lambda: ramp)
    picture = overlay_drawer(LookOptions(style="heat"))(masked)
    assert (picture[:, 0] == 100).all()
    red, green, blue = picture[60, -1].astype(int)
    assert red > green
    assert red > blue
    red, green, blue = picture[60, WIDTH // 2].astype(int)
    assert green > max(red, blue)


def test_side_by_side_has_the_frame_on_the_left() -> None:
    picture = draw("side-by-side")
    np.testing.assert_array_equal(picture[:, :WIDTH], scene())
    np.testing.assert_array_equal(picture[:, WIDTH:], draw("highlight"))


def test_a_side_by_side_video_is_twice_as_wide(
    job: Any, make_clip: MakeClip, tmp_path: Path
) -> None:
    for name in ("a.mp4", "a.webm"):
        job(make_clip(size=(64, 48), seconds=1), tmp_path / name, look={"style": "side-by-side"})
        with av.open(str(tmp_path / name)) as video:
            assert (video.streams.video[0].width, video.streams.video[0].height) == (128, 48)


def test_colour_and_opacity_of_the_tint() -> None:
    picture = draw("highlight", color=(0, 0, 255), opacity=0.5)
    expected = 0.5 * scene()[INSIDE] + 0.5 * np.array([0, 0, 255])
    np.testing.assert_allclose(picture[INSIDE], expected, atol=1)
    edge = draw("outline", color=(0, 255, 0))[30, 100]
    assert edge[1] > 200
    assert max(edge[0], edge[2]) < 60


def test_without_dimming_the_rest_stays_as_it_is() -> None:
    np.testing.assert_array_equal(draw("highlight", dim=False)[OUTSIDE], scene()[OUTSIDE])


def test_the_hud_shows_the_level_and_changes_nothing_above() -> None:
    dog = SourceMasks(("dog",), MASK.astype(np.uint8))

    def bar(level_dbfs: float | None) -> int:
        masked = MaskedFrame(
            Frame(scene(), 3.5, 7), MASK, "computed", sources=dog, level_dbfs=level_dbfs
        )
        picture = overlay_drawer(LookOptions(style="outline", hud=True))(masked)
        plain = draw("outline")
        np.testing.assert_array_equal(picture[:60], plain[:60])
        assert (picture[60:] != plain[60:]).any()
        return int((picture == (120, 230, 140)).all(axis=2).any(axis=0).sum())

    assert (bar(None), bar(-60.0), bar(float("-inf"))) == (0, 0, 0)
    assert (bar(-30.0), bar(0.0)) == (20, 40)


@pytest.mark.parametrize("size", [(4, 4), (17, 31), (9, 300)])
def test_the_hud_of_tiny_frames_fits_or_is_left_out(size: tuple[int, int]) -> None:
    frame = Frame(np.zeros((*size, 3), np.uint8), 0.0, 0)
    masked = MaskedFrame(frame, np.zeros(size, bool), "silent", level_dbfs=-20.0)
    for style in ("highlight", "blur", "mono", "heat"):
        picture = overlay_drawer(LookOptions(style=style, hud=True))(masked)  # type: ignore[arg-type]
        assert picture.shape == (*size, 3)


@pytest.mark.parametrize(
    ("text", "rgb"), [("#ff8800", (255, 136, 0)), ("orange", (255, 165, 0)), ("#0f0", (0, 255, 0))]
)
def test_colours_are_names_or_codes(text: str, rgb: tuple[int, int, int]) -> None:
    assert parse_colour(text) == rgb


def test_wrong_values_of_the_look_are_errors() -> None:
    with pytest.raises(ValueError, match="'loud' is not a colour"):
        parse_colour("loud")
    for look, message in [
        ({"opacity": 1.5}, "`opacity` must be between 0 and 1"),
        ({"color": (0, 0, 300)}, "`color` must be three numbers"),
        ({"color": (0, 0, 0), "names": True}, "`color` has no effect with `names`"),
        ({"style": "sepia"}, "unknown style 'sepia'"),
    ]:
        with pytest.raises(UsageError, match=message):
            LookOptions(**look)  # type: ignore[arg-type]


@pytest.mark.parametrize("style", get_args(Style))
def test_16_bits_look_like_8(style: Style) -> None:
    drawn = []
    for deep in (None, scene().astype(np.uint16) * 257):
        frame = Frame(scene(), 0.0, 0, deep=deep)
        masked = MaskedFrame(frame, MASK, "computed", level_dbfs=-20.0)
        drawn.append(overlay_drawer(LookOptions(style=style, hud=True))(masked))
    assert [picture.dtype for picture in drawn] == [np.uint8, np.uint16]
    difference = np.abs(drawn[0] - drawn[1] / 257)
    assert np.quantile(difference, 0.99) <= 2
    assert difference.mean() < 0.5
