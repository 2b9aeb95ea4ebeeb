"""Tests of colours: overlays without a mask are compared with their sources by other readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.outputs.encoding import CODECS, choose_encoding
from av2tsam_cli.segment_options import Codec
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
        kind = np.uint16 if "10le" in container.streams.video[0].format.name else np.uint8
        pictures = [
            [
                np.frombuffer(memoryview(p), kind).reshape(p.height, -1)[:, : p.width]
                for p in frame.planes
            ]
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


ENCODINGS = [
    (suffix, name, pixel_format)
    for name, codec in CODECS.items()
    for suffix in codec.suffixes
    for pixel_format in codec.pixel_formats
]


@pytest.mark.parametrize(("suffix", "codec", "pixel_format"), ENCODINGS)
def test_every_codec_container_and_pixel_format_goes_together(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str, codec: str, pixel_format: str
) -> None:
    clip = make_clip(size=(96, 66), picture=ramps, seconds=0.12, colours=TAGS)
    job(clip, target := tmp_path / f"out{suffix}", codec=codec, pix_fmt=pixel_format)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        names = {"h265": "hevc", "av1": ("libdav1d", "av1")}
        assert stream.codec_context.name in names.get(codec, codec)
        formats = [frame.format.name for frame in container.decode(stream)]
        # FFmpeg decodes ProRes 4444 with the 12 bits that it can have
        assert [name.replace("12", "10") for name in formats] == [pixel_format] * 3
        if codec == "h265" and suffix != ".mkv":
            assert stream.codec_context.codec_tag == "hvc1"
        assert stream.codec_context.colorspace == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"codec": "prores"}, r"out.mp4: .mp4 does not hold prores; end the name in .mov or .mkv"),
        (
            {"codec": "av1", "pix_fmt": "yuv422p"},
            "`pix_fmt` yuv422p is not for av1; use yuv420p or",
        ),
        ({"crf": 52}, "`crf` must be from 0 to 51 for h264, not 52"),
    ],
)
def test_settings_that_do_not_go_together(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_encoding(Path("out.mp4"), "yuv420p", **wanted)
    with pytest.raises(UsageError, match="`crf` has no effect with `codec` prores"):
        choose_encoding(Path("out.mov"), "yuv420p", codec="prores", crf=3)


@pytest.mark.parametrize(
    ("source", "suffix", "codec", "expected"),
    [
        ("yuv420p", ".mp4", None, "yuv420p"),
        ("yuvj422p", ".mp4", None, "yuv420p"),
        ("rgb24", ".mp4", None, "yuv420p"),
        ("pal8", ".mp4", None, "yuv420p"),
        ("gray", ".mp4", None, "yuv420p"),
        ("yuv444p", ".mp4", None, "yuv420p"),
        ("yuv422p", ".mp4", None, "yuv422p"),
        ("p010le", ".mp4", None, "yuv420p10le"),
        ("yuv422p10le", ".mp4", None, "yuv422p10le"),
        ("yuv444p12le", ".mkv", "h265", "yuv444p10le"),
        ("yuv422p10le", ".mp4", "av1", "yuv420p10le"),
        ("yuv420p10le", ".webm", None, "yuv420p"),
        ("yuv420p", ".mov", "prores", "yuv422p10le"),
    ],
)
def test_depth_and_4_2_2_are_kept_where_the_codec_can(
    source: str, suffix: str, codec: Codec | None, expected: str
) -> None:
    encoding = choose_encoding(Path(f"out{suffix}"), source, codec=codec)
    assert encoding.pixel_format == expected


def test_a_lower_crf_is_closer_to_the_source(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip(size=(128, 96), picture=ramps, seconds=0.2, options={"crf": "0"}, colours=TAGS)
    sizes, errors = [], []
    for crf in (10, 45):
        job(clip, target := tmp_path / f"{crf}.mp4", masked=nothing, crf=crf)
        sizes.append(target.stat().st_size)
        errors.append(np.abs(opencv_mean(target) - opencv_mean(clip)).mean())
    assert sizes[0] > sizes[1]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p"])
def test_colours_do_not_move_against_the_picture(
    make_clip: MakeClip, job: Job, tmp_path: Path, pixel_format: str
) -> None:
    def spot(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        y, x = np.mgrid[:height, :width]
        blue = 100 + 100 * np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / 200)
        return np.stack([np.full(x.shape, 100 + index), 0 * x + 100, blue], -1).astype(np.uint8)

    path = make_clip(
        size=(96, 96),
        picture=spot,
        pixel_format=pixel_format,
        seconds=0.08,
        options={"crf": "1"},
        colours=TAGS,
    )
    places = []
    for generation in range(4):
        blue = np.clip(planes_of(path)[1] - 128, 0, None)
        places.append([np.average(np.arange(len(line)), weights=line) for line in profiles(blue)])
        job(path, target := tmp_path / f"{generation}.mp4", masked=nothing, crf=1)
        path = target
    assert np.ptp(places, axis=0).max() < 0.2


def profiles(plane: Array) -> tuple[Array, Array]:
    """Sums over the columns and the rows of what is distinct in a plane."""
    distinct = np.where(plane > plane.max() / 4, plane, 0)
    return distinct.sum(axis=0), distinct.sum(axis=1)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", None), (".mov", "prores"), (".mkv", "h265"), (".mp4", "av1")]
)
def test_10_bits_stay_10_bits(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str, codec: Codec | None
) -> None:
    def fine_ramp(index: int, width: int, height: int) -> npt.NDArray[np.uint16]:
        levels = np.linspace(20_000, 24_000, width)[None, :, None] + 40 * index
        return np.tile(levels, (height, 1, 3)).astype(np.uint16)

    clip = make_clip(
        "source.mkv",
        codec="ffv1",
        pixel_format="yuv422p10le",
        picture=fine_ramp,
        picture_format="rgb48le",
        size=(256, 64),
        seconds=0.2,
        colours=TAGS,
    )
    settings = {"codec": codec} if codec == "prores" else {"codec": codec, "crf": 6}
    job(clip, target := tmp_path / f"out{suffix}", masked=nothing, **settings)
    before, after = (planes[0][32] for planes in (planes_of(clip), planes_of(target)))
    assert abs((after - before).mean()) < 0.3
    assert len(np.unique(np.rint(after))) > 50  # 4,000 of 65,535 are 16 levels with 8 bits


@pytest.mark.parametrize(("primaries", "expected"), [(2, 1), (5, 5), (6, 6), (9, 1), (12, 1)])
def test_primaries_are_kept_or_converted(
    make_clip: MakeClip, job: Job, tmp_path: Path, primaries: int, expected: int
) -> None:
    clip = make_clip(seconds=0.08, colours={**TAGS, "color_primaries": primaries})
    job(clip, target := tmp_path / "out.mp4", masked=nothing)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (expected, 1, 1)
