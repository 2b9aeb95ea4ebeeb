"""Mattes and cutouts: opacity, colours and sound, read back from every container and from PNGs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.outputs.matte import MARGIN_PX, draw_cutout, draw_matte
from av2tsam_cli.segment_options import LookOptions
from av2tsam_cli.values import Frame, MaskedFrame

MakeClip = Callable[..., Path]
Job = Callable[..., list[float]]
Tone = Callable[..., npt.NDArray[np.float32]]
Image = npt.NDArray[np.uint8]

SQUARE = np.zeros((100, 160), bool)
SQUARE[30:70, 40:120] = True


def frame(value: int = 200) -> Frame:
    return Frame(np.full((100, 160, 3), value, np.uint8), 0.0, 0)


def masked(edges: npt.NDArray[np.uint8] | None = None) -> MaskedFrame:
    return MaskedFrame(frame(), SQUARE, "computed", soft_edges=edges)


def ramp() -> npt.NDArray[np.uint8]:
    """A matte whose right edge is soft."""
    alpha = SQUARE * np.uint8(255)
    alpha[30:70, 116:124] = np.linspace(224, 32, 8, dtype=np.uint8)
    return alpha


def test_a_matte_has_the_soft_edges_of_the_mask() -> None:
    np.testing.assert_array_equal(draw_matte(masked(ramp())), ramp())
    np.testing.assert_array_equal(draw_matte(masked()), SQUARE * 255)


def test_a_hard_matte_has_two_levels() -> None:
    np.testing.assert_array_equal(draw_matte(masked(ramp()), LookOptions(hard=True)), SQUARE * 255)


@pytest.mark.parametrize("pixels", [5, 1, -1, -7])
def test_growing_moves_the_edges(pixels: int) -> None:
    matte = draw_matte(masked(), LookOptions(grow=pixels))
    rows, columns = np.flatnonzero(matte[:, 80]), np.flatnonzero(matte[50])
    assert (rows[0], rows[-1]) == (30 - pixels, 69 + pixels)
    assert (columns[0], columns[-1]) == (40 - pixels, 119 + pixels)


def test_feathering_softens_the_edges_on_both_sides() -> None:
    matte = draw_matte(masked(), LookOptions(feather=8)).astype(int)
    row = matte[50]
    assert (np.diff(row[:80]) >= 0).all()
    assert row[80] == 255
    assert row[39] + row[40] == pytest.approx(255, abs=2)
    assert row[40 - 4] > 10
    assert row[40 + 4] < 245
    assert row[40 - 16] == 0


def test_wrong_edges_are_errors() -> None:
    for look, message in [
        ({"feather": -1.0}, "`feather` must be from 0 to 500"),
        ({"feather": float("nan")}, "`feather` must be"),
        ({"grow": 501}, "`grow` must be from -500"),
        ({"hard": True, "feather": 2.0}, "`hard` and `feather` exclude each other"),
    ]:
        with pytest.raises(UsageError, match=message):
            LookOptions(**look)  # type: ignore[arg-type]


def test_a_cutout_keeps_the_colours_around_its_edge() -> None:
    cutout = draw_cutout(masked(ramp()))
    np.testing.assert_array_equal(cutout[..., 3], ramp())
    assert (cutout[30 - MARGIN_PX : 70 + MARGIN_PX, 60:100, :3] == 200).all()
    assert (cutout[: 30 - MARGIN_PX - 1, :, :3] == 0).all()


def test_a_cutout_of_16_bits() -> None:
    deep = np.full((100, 160, 3), 51_234, np.uint16)
    source = MaskedFrame(Frame(frame().rgb, 0.0, 0, deep=deep), SQUARE, "computed")
    cutout = draw_cutout(source)
    assert cutout.dtype == np.uint16
    assert (cutout[50, 80] == (51_234, 51_234, 51_234, 65_535)).all()


def soft_circle(source: Frame) -> npt.NDArray[np.uint8]:
    """A disc with an edge of eight pixels."""
    height, width = source.rgb.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    return np.clip((height / 3 - distance) * 32 + 127, 0, 255).astype(np.uint8)


def decoded(path: Path, pixel_format: str, decoder: str | None = None) -> list[Image]:
    with av.open(str(path)) as media:
        stream = media.streams.video[0]
        if decoder is None:
            pictures = [*media.decode(stream)]
        else:
            codec: Any = av.CodecContext.create(decoder, "r")
            pictures = [p for packet in media.demux(stream) for p in codec.decode(packet)]
    return [picture.to_ndarray(format=pixel_format) for picture in pictures]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("size", [(96, 64), (97, 63)])
def test_matte_videos_read_back(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    target = tmp_path / f"matte{suffix}"
    clip = make_clip(
        size=size, pixel_format="yuv444p", seconds=1, rate=8, sounds=[{"samples": tone(1.0)}]
    )
    times = job(clip, target, "matte", soft=soft_circle)
    pictures = decoded(target, "gray")
    assert len(pictures) == len(times)
    true = soft_circle(Frame(np.zeros((size[1], size[0], 3), np.uint8), 0.0, 0))
    for picture in pictures:
        shown = picture[: size[1], : size[0]].astype(int)
        assert np.abs(shown - true).mean() < 1.5
        assert shown[true == 255].mean() > 253.5
        assert shown[true == 0].mean() < 1.5
    with av.open(str(target)) as media:
        assert not media.streams.audio


@pytest.mark.parametrize(
    ("name", "decoder", "error"), [("a.mov", None, 1.0), ("a.mkv", None, 1.0), ("a.webm", "x", 3.0)]
)
def test_cutout_videos_read_back(
    make_clip: MakeClip,
    job: Job,
    tone: Tone,
    tmp_path: Path,
    name: str,
    decoder: str | None,
    error: float,
) -> None:
    clip = make_clip(size=(96, 64), seconds=1, rate=8, sounds=[{"samples": tone(1.0)}])
    times = job(clip, tmp_path / name, "cutout", soft=soft_circle)
    pictures = decoded(tmp_path / name, "rgba", decoder and "libvpx-vp9")
    sources = decoded(clip, "rgb24")
    assert len(pictures) == len(times)
    true = soft_circle(Frame(sources[0], 0.0, 0))
    for picture, source in zip(pictures, sources, strict=True):
        assert np.abs(picture[..., 3].astype(int) - true).mean() < error
        inside = true == 255
        assert np.abs(picture[inside, :3].astype(int) - source[inside]).mean() < 8
    with av.open(str(tmp_path / name)) as media:
        assert media.streams.audio[0].codec_context.sample_rate == 48_000


def test_mattes_and_cutouts_as_pngs(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip(name="clip.mp4", size=(97, 63), pixel_format="yuv444p", seconds=1, rate=4)
    for kind, channels in (("mattes", 1), ("cutouts", 4)):
        job(clip, tmp_path / kind, kind, soft=soft_circle)
        paths = sorted((tmp_path / kind / "clip").iterdir())
        assert [path.name for path in paths] == [f"{k:06d}.png" for k in range(4)]
        for path, source in zip(paths, decoded(clip, "rgb24"), strict=True):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert image is not None
            alpha = image if channels == 1 else image[..., 3]
            np.testing.assert_array_equal(alpha, soft_circle(Frame(source, 0.0, 0)))
            if channels == 4:
                inside = alpha == 255
                assert np.abs(image[inside, 2::-1].astype(int) - source[inside]).mean() < 2


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("a.mp4", {}, ".mp4 holds no transparency; end the name in .mov"),
        ("a.mkv", {"codec": "h264"}, "`codec` h264 holds no transparency"),
        ("a.webm", {"codec": "prores"}, ".webm does not hold prores"),
        ("a.mov", {"pix_fmt": "yuv420p"}, "`pix_fmt` has no effect on cutouts"),
        ("a.mov", {"crf": 10}, "`crf` has no effect with `codec` prores"),
    ],
)
def test_what_holds_no_transparency_is_an_error(
    make_clip: MakeClip,
    job: Job,
    tmp_path: Path,
    name: str,
    encoding: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        job(make_clip(seconds=1), tmp_path / name, "cutout", **encoding)
    assert not (tmp_path / name).exists()
