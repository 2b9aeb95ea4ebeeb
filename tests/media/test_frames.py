"""Frames: which, when, which way up, in which colours, from files of many kinds."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import MediaError
from av2tsam_cli.media.container import count_frames_before
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.values import Frame

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]


def frames_of(path: Path, **options: Any) -> list[Frame]:
    return list(read_frames(probe(path), **options))


def step_of(frame: Frame) -> int:
    """Return the index of a frame in the clip, from its grey level."""
    grey = float(np.median(frame.rgb[-8:, -8:]))
    return round((grey - 40) / 6)


def test_every_frame_once_in_order(make_clip: MakeClip) -> None:
    frames = frames_of(make_clip())
    assert [step_of(frame) for frame in frames] == list(range(25))
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(25)])
    assert frames[0].rgb.shape == (48, 64, 3)
    assert frames[0].rgb.flags.c_contiguous


def test_frames_do_not_change_while_later_ones_are_read(make_clip: MakeClip) -> None:
    reader = read_frames(probe(make_clip()))
    first = next(reader)
    kept = first.rgb.copy()
    rest = list(reader)
    assert len(rest) == 24
    np.testing.assert_array_equal(first.rgb, kept)


def test_variable_frame_rate_keeps_each_time(make_clip: MakeClip) -> None:
    times_s = [0.0, 0.04, 0.5, 0.51, 1.75, 2.0]
    frames = frames_of(make_clip(times_s=times_s))
    assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=1e-4)


def test_repeated_or_decreasing_times_become_increasing(tmp_path: Path) -> None:
    clip = tmp_path / "clock.ts"  # a format that writes what it is given
    with av.open(str(clip), "w") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size, video.codec_context.max_b_frames = 1, 0
        packets = []
        for index in range(50):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            packets += video.encode(image)
        for packet in [*packets, *video.encode(None)]:
            container.mux(packet)
    # Concatenated recordings: the clock starts again in the middle.
    clip.write_bytes(clip.read_bytes() * 2)
    times_s = [frame.time_s for frame in frames_of(clip)]
    assert len(times_s) == 100
    assert all(one < other for one, other in pairwise(times_s))
    assert times_s[-1] == pytest.approx(99 / 25, abs=0.1)


def test_times_count_from_the_start_of_the_presentation(make_clip: MakeClip, tone: Tone) -> None:
    sound = {"samples": tone(1), "codec": "pcm_s16le"}
    info = probe(make_clip("late.mov", times_s=[0.5, 0.75, 1.0], sounds=[sound]))
    zero_s = clock_zero(info, info.video[0], info.audio[0])
    times_s = [frame.time_s for frame in read_frames(info, zero_s=zero_s)]
    assert times_s == pytest.approx([0.5, 0.75, 1.0], abs=1e-4)


def test_transport_stream_starts_at_zero(make_clip: MakeClip) -> None:
    clip = make_clip("clip.ts", times_s=[1.4 + k / 25 for k in range(50)])
    info = probe(clip)
    assert info.video[0].start_s > 1  # such files start somewhere
    assert next(read_frames(info)).time_s == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("rotation", "mirrored", "white"),
    [
        (0, False, (0, 0)),
        (90, False, (1, 0)),
        (180, False, (1, 1)),
        (270, False, (0, 1)),
        (0, True, (0, 1)),
        (90, True, (1, 1)),
    ],
)
def test_frames_are_rotated_as_displayed(
    make_clip: MakeClip, rotation: int, mirrored: bool, white: tuple[int, int]
) -> None:
    clip = make_clip(rotation=rotation, mirrored=mirrored, seconds=0.2)
    frame = frames_of(clip)[0]
    turned = rotation in {90, 270}
    assert frame.rgb.shape == ((64, 48, 3) if turned else (48, 64, 3))
    height, width = frame.rgb.shape[:2]
    corners = {
        (row, column): frame.rgb[4 + row * (height - 8), 4 + column * (width - 8)].mean()
        for row in (0, 1)
        for column in (0, 1)
    }
    assert [corner for corner, level in corners.items() if level > 200] == [white]


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (1, 1)])
def test_odd_sizes(make_clip: MakeClip, size: tuple[int, int]) -> None:
    clip = make_clip("odd.mkv", size=size, codec="ffv1", pixel_format="yuv444p", seconds=0.2)
    frames = frames_of(clip)
    assert len(frames) == 5
    assert frames[0].rgb.shape == (size[1], size[0], 3)


def test_start_and_stop_are_a_half_open_range(make_clip: MakeClip) -> None:
    frames = frames_of(make_clip(), start_s=0.2, stop_s=0.4)
    assert [step_of(frame) for frame in frames] == [5, 6, 7, 8, 9]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].time_s == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.avi"])
@pytest.mark.parametrize("key_frames_every", [7, 1000])
def test_seeking_finds_the_same_frames_as_reading_all(
    make_clip: MakeClip, name: str, key_frames_every: int
) -> None:
    codec = "mpeg4" if name.endswith(".avi") else "libx264"
    tick = Fraction(1, 25) if name.endswith(".avi") else Fraction(1, 12_800)
    clip = make_clip(name, seconds=4, codec=codec, tick=tick, options={"g": str(key_frames_every)})
    everything = frames_of(clip)
    wanted = [frame for frame in everything if 2.98 <= frame.time_s < 3.5]
    found = frames_of(clip, start_s=2.98, stop_s=3.5)
    assert [frame.time_s for frame in found] == [frame.time_s for frame in wanted]
    assert len(found) >= 12
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)


def waves(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A pattern that moves a few pixels per frame."""
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    grey = (np.sin((x + 3 * index) / 5) + np.cos((y - 2 * index) / 7) + 2) * 60
    return np.repeat(grey, 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", ["refresh.mp4", "refresh.mkv", "refresh.ts"])
def test_pictures_within_an_intra_refresh_are_complete(make_clip: MakeClip, name: str) -> None:
    # x264 claims that pictures are complete two frames after 3.2 s; they are not.
    options = {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    clip = make_clip(name, seconds=4, options=options, picture=waves)
    whole = frames_of(clip)[-6:]
    some = frames_of(clip, start_s=whole[0].time_s)
    assert [frame.time_s for frame in some] == pytest.approx([frame.time_s for frame in whole])
    np.testing.assert_array_equal([frame.rgb for frame in some], [frame.rgb for frame in whole])


def test_unseekable_file_is_read_from_the_beginning(make_clip: MakeClip) -> None:
    # A bare H.264 stream has no index and no times: the decoder counts frames.
    clip = make_clip("bare.h264", seconds=4)
    frames = frames_of(clip, start_s=3.0)
    assert len(frames) == 25


def test_start_after_the_end_yields_no_frames(make_clip: MakeClip) -> None:
    assert frames_of(make_clip(), start_s=30) == []


def test_other_video_stream_on_request(make_clip: MakeClip) -> None:
    info = probe(make_clip("two.mkv", extra_videos=[{"size": (32, 24), "frames": 5}]))
    small = next(stream for stream in info.video if stream.width == 32)
    frames = list(read_frames(info, stream=small))
    assert len(frames) == 5
    assert frames[0].rgb.shape == (24, 32, 3)
    assert frames[0].rgb.mean() == pytest.approx(200, abs=4)


def patches(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Red, green, blue and white columns."""
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
    return np.repeat(np.repeat(colours, width // 4, axis=0)[None], height, axis=0)


@pytest.mark.parametrize(
    ("matrix", "colour_range", "pixel_format", "codec"),
    [
        (1, 1, "yuv420p", "libx264"),
        (5, 1, "yuv420p", "libx264"),
        (1, 2, "yuv420p", "libx264"),
        (1, 1, "yuv420p10le", "libx264"),
        (9, 1, "yuv420p10le", "libx265"),
        (5, 1, "yuv422p10le", "prores_ks"),
    ],
    ids=["bt709", "bt601", "full-range", "10-bit", "bt2020-10-bit", "prores"],
)
def test_colours_are_kept_for_every_matrix_and_depth(
    make_clip: MakeClip, matrix: int, colour_range: int, pixel_format: str, codec: str
) -> None:
    # Coded with a matrix and tagged with it (BT.601 is 5 to swscale, 6 in the file).
    clip = make_clip(
        "colour.mov",
        picture=patches,
        pixel_format=pixel_format,
        codec=codec,
        seconds=0.2,
        options={"x265-params": "log-level=none"} if codec == "libx265" else {},
        colours={"colorspace": 6 if matrix == 5 else matrix, "color_range": colour_range},
    )
    rgb = frames_of(clip)[0].rgb
    middle = rgb[24, [8, 24, 40, 56]].astype(int)
    assert np.abs(middle - patches(0, 64, 48)[24, [8, 24, 40, 56]]).max() <= 8


def test_transparent_pixels_are_blended_over_black(make_clip: MakeClip) -> None:
    def half_there(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        picture = np.full((height, width, 4), 200, np.uint8)
        picture[:, : width // 2, 3] = 0
        picture[:, width // 2 :, 3] = 255
        return picture

    clip = make_clip(
        "alpha.mov", codec="png", pixel_format="rgba", picture_format="rgba", picture=half_there
    )
    rgb = frames_of(clip)[0].rgb
    assert rgb[:, :32].max() == 0
    assert (rgb[:, 32:] == 200).all()


def test_corrupted_packets_are_skipped_and_counted(
    make_clip: MakeClip,
    corrupt_packets: Callable[[Path, range], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = make_clip("clip.mov", codec="png", pixel_format="rgb24")
    corrupt_packets(clip, range(10, 13))
    frames = frames_of(clip)
    assert [step_of(frame) for frame in frames] == [*range(10), *range(13, 25)]
    assert frames[10].time_s == pytest.approx(13 / 25)
    assert "3 corrupted video packets" in caplog.text


def test_a_stream_that_begins_later_is_passed_over(make_clip: MakeClip, tone: Tone) -> None:
    begin = make_clip("a.ts", seconds=3).read_bytes()
    middle = make_clip("b.ts", sounds=[{"samples": tone(1)}] * 2).read_bytes()
    end = make_clip("c.ts", seconds=4, picture=noisy_step, options={"crf": "5"}).read_bytes()
    clip = make_clip("all.ts", seconds=0.04)
    clip.write_bytes(begin + middle + end)  # FFmpeg looks at the begin and the end for streams
    assert probe(clip).audio == ()
    assert len(frames_of(clip)) == 200


def test_a_long_corrupted_section_is_an_error(
    make_clip: MakeClip, corrupt_packets: Callable[[Path, range], None]
) -> None:
    clip = make_clip("clip.mov", codec="png", pixel_format="rgb24", size=(16, 16), seconds=12)
    corrupt_packets(clip, range(20, 290))
    with pytest.raises(MediaError, match="corrupted packets in a row"):
        frames_of(clip)


def test_corrupted_h264_still_yields_the_rest(
    make_clip: MakeClip, corrupt_packets: Callable[[Path, range], None]
) -> None:
    clip = make_clip(seconds=2, options={"g": "10"})
    corrupt_packets(clip, range(12, 15))
    frames = frames_of(clip)
    assert len(frames) >= 40
    assert step_of(frames[-1]) == 49 % 30
    assert all(one.time_s < other.time_s for one, other in pairwise(frames))


def noisy_step(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Frame k has the grey level 40 + 6 k at its bottom right, and large noise elsewhere."""
    picture = np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)
    picture[-16:, -16:] = 40 + 6 * (index % 30)
    return picture


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.avi"])
def test_truncated_file_is_an_error_unless_the_range_ends_before(
    make_clip: MakeClip, name: str
) -> None:
    what: dict[str, Any] = {"container_options": {"movflags": "+faststart"}}
    if name.endswith(("avi", "mkv")):
        what = {"codec": "mpeg4", "tick": Fraction(1, 25)}
    options = {"g": "5", "b": "4000000"}
    clip = make_clip(name, seconds=3, picture=noisy_step, options=options, **what)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"truncated.*`end`"):
        frames_of(clip)
    with pytest.raises(MediaError, match="truncated"):
        frames_of(clip, start_s=1.0)
    frames = frames_of(clip, stop_s=1.0)
    assert [step_of(frame) for frame in frames] == [k % 30 for k in range(25)]


def test_the_loss_of_the_last_moment_is_reported(
    make_clip: MakeClip, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"movflags": "+faststart"}
    clip = make_clip(seconds=2, picture=noisy_step, container_options=options)
    clip.write_bytes(clip.read_bytes()[:-3000])
    assert 40 < len(frames_of(clip)) < 50
    assert "truncated; pictures after 1." in caplog.text


def remux(source: Path, target: Path, change: Callable[[int, Any], None]) -> Path:
    """Copy the packets of a video after changing each, given its number."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            change(number, packet)
            packet.stream = stream
            new.mux_one(packet)
    return target


def test_frames_that_an_edit_list_discards_are_not_missing(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    def earlier(number: int, packet: Any) -> None:
        packet.pts -= round(1.2 / packet.time_base)
        packet.dts -= round(1.2 / packet.time_base)
        packet.duration = round((3 if number == 49 else 0.04) / packet.time_base)

    clip = make_clip(seconds=2, options={"bf": "0"})
    frames = frames_of(remux(clip, tmp_path / "trimmed.mp4", earlier))
    assert [step_of(frame) for frame in frames] == [k % 30 for k in range(30, 50)]
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(20)])
    assert frames[-1].duration_s == pytest.approx(3)


def test_empty_chunks_of_an_avi_are_not_missing(make_clip: MakeClip) -> None:
    times_s = [*(k / 25 for k in range(10)), 3.0]
    clip = make_clip("a.avi", codec="mpeg4", tick=Fraction(1, 25), times_s=times_s)
    assert probe(clip).video[0].frames > 70
    assert [frame.time_s for frame in frames_of(clip)] == pytest.approx(times_s)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_b_frames_in_avi_are_evenly_spaced(make_clip: MakeClip, codec: str, threads: int) -> None:
    options = {"bf": "2", "b": "2000000"}
    clip = make_clip("a.avi", codec=codec, tick=Fraction(1, 25), options=options)
    frames = frames_of(clip, threads=threads)
    assert [step_of(frame) for frame in frames] == list(range(25))
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(25)])
    some = frames_of(clip, start_s=0.7, threads=threads)
    assert [frame.time_s for frame in some] == pytest.approx([k / 25 for k in range(18, 25)])


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_of_an_avi_with_b_frames_are_the_same_after_a_seek(
    make_clip: MakeClip, codec: str
) -> None:
    options = {"bf": "2", "g": "12"}
    clip = make_clip("a.avi", seconds=3, codec=codec, tick=Fraction(1, 25), options=options)
    info = probe(clip)
    whole = [*read_frames(info, stream=info.video[0], zero_s=0.0)]
    for start_s in (1.3, 2.9):
        part = [*read_frames(info, stream=info.video[0], zero_s=0.0, start_s=start_s)]
        expected = [each for each in whole if each.time_s >= start_s]
        assert [each.time_s for each in part] == [each.time_s for each in expected]
        for one, other in zip(part, expected, strict=True):
            np.testing.assert_array_equal(one.rgb, other.rgb)


@pytest.mark.parametrize("name", ["slides.gif", "slides.mp4", "slides.mkv"])
def test_each_frame_lasts_until_the_next_and_the_last_as_the_file_says(
    make_clip: MakeClip, tmp_path: Path, name: str
) -> None:
    def last_long(number: int, packet: Any) -> None:
        packet.duration = round((2 if number == 2 else 1) / packet.time_base)

    gif = {"codec": "gif", "pixel_format": "rgb8"} if name.endswith("gif") else {}
    clip = make_clip(f"a{Path(name).suffix}", times_s=[0, 1, 2], options={"bf": "0"}, **gif)
    frames = frames_of(remux(clip, tmp_path / name, last_long))
    assert [frame.duration_s for frame in frames] == pytest.approx([1, 1, 2])
    assert [f.duration_s for f in frames_of(clip, stop_s=1.5)] == pytest.approx([1, 0.5])


def test_abandoned_reader_closes_the_file(make_clip: MakeClip) -> None:
    clip = make_clip(seconds=2)
    reader = read_frames(probe(clip))
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    clip.unlink()
    assert list(reader) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"options": {"bf": "3", "g": "250"}}),  # some decoding times are unknown
        ("a.ts", {"options": {"bf": "2"}}),
        ("a.avi", {"options": {"bf": "3"}}),  # no presentation times
        ("a.mp4", {"times_s": [0, 0.1, 0.11, 0.4, 0.5, 0.9, 1.0, 1.5]}),
        (
            "a.webm",  # with pictures that are not displayed
            {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
        ),
    ],
)
def test_frames_before_a_time_are_counted_as_they_are_displayed(
    make_clip: MakeClip, name: str, what: dict[str, Any]
) -> None:
    info = probe(make_clip(name, **({"seconds": 1.6} | what)))
    start_s = info.video[0].start_s
    times_s = [frame.time_s for frame in read_frames(info)]
    for before_s in (0.0, 0.41, 0.9, 1.2):
        counted = count_frames_before(info.path, info.video[0].index, before_s + start_s)
        assert counted == sum(time_s < before_s - 1e-6 for time_s in times_s)
