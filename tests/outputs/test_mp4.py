"""Overlay videos: frame times, the original audio, and files that are complete or absent."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import Av2tsamError, MediaError, UsageError
from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.outputs.overlay import OverlayStyle, draw_overlay
from av2tsam_cli.values import Frame

from .conftest import two_sources

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
Job = Callable[..., list[float]]
CONTAINERS = (".mp4", ".mov", ".mkv", ".webm")
MATROSKA = (".mkv", ".webm")


def times_of(path: Path) -> list[float]:
    """Frame times on the file's own clock."""
    return [frame.time_s for frame in read_frames(probe(path), zero_s=0.0)]


def sound_of(path: Path, zero_s: float = 0.0) -> npt.NDArray[np.float32]:
    """The whole sound at 48 kHz on the file's own clock, or from a time on it."""
    windows = list(read_windows(probe(path), rate_hz=48_000, zero_s=zero_s))
    return np.concatenate([window.samples for window in windows])


def packets_of(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(audio=0)
            if packet.pts is not None
        ]


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_keep_their_times(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str
) -> None:
    times_s = [0.0, 0.04, 0.5, 0.51, 0.52, 1.75, 2.0]
    clip = make_clip(times_s=times_s, sounds=[{"samples": tone(2)}])
    job(clip, tmp_path / f"out{suffix}")
    found = times_of(tmp_path / f"out{suffix}")
    assert found == pytest.approx(times_s, abs=6e-4 if suffix in MATROSKA else 1e-5)


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("count", [3, 8])
def test_the_last_picture_keeps_its_duration(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str, count: int
) -> None:
    times_s = [0.5 * k for k in range(count)]
    clip = make_clip("a.mkv", times_s=times_s, options={"bf": "0"})
    with av.open(str(clip)) as old, av.open(str(tmp_path / "b.mkv"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in (p for p in old.demux(video=0) if p.size):
            packet.duration, packet.stream = 3000, stream  # milliseconds
            new.mux_one(packet)
    job(tmp_path / "b.mkv", tmp_path / f"out{suffix}")
    assert times_of(tmp_path / f"out{suffix}") == pytest.approx(times_s, abs=1e-3)
    assert probe(tmp_path / f"out{suffix}").duration_s == pytest.approx(times_s[-1] + 3, abs=1e-3)


def test_ntsc_times_are_exact(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    rate = Fraction(24_000, 1001)
    times_s = [float(k / rate) for k in range(48)]
    job(make_clip(times_s=times_s, rate=rate, tick=1 / (rate * 1001)), tmp_path / "out.mp4")
    assert times_of(tmp_path / "out.mp4") == pytest.approx(times_s, abs=1e-9)
    assert probe(tmp_path / "out.mp4").video[0].rate == rate


def test_long_gaps_between_frames(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    times_s = [0.0, 0.04, 25.0, 25.04]
    job(make_clip(times_s=times_s, sounds=[{"samples": tone(26)}]), tmp_path / "out.mp4")
    assert times_of(tmp_path / "out.mp4") == pytest.approx(times_s, abs=1e-5)
    assert len(sound_of(tmp_path / "out.mp4")) >= 26 * 48_000


def test_a_gap_that_the_container_cannot_store_is_blamed_on_the_clock(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    clip = make_clip("a.mkv", times_s=[0.0, 0.04, 100_000.0, 100_000.04], tick=Fraction(1, 1000))
    job(clip, tmp_path / "out.mkv")
    assert times_of(tmp_path / "out.mkv")[-1] == pytest.approx(100_000.04)
    clip = make_clip(
        "b.nut", codec="mpeg4", times_s=[0.0, 0.04, 50_000.0, 50_000.04], tick=Fraction(1, 60_000)
    )
    with pytest.raises(MediaError, match=r"b.nut: its clock has a gap that is too long for .mp4"):
        job(clip, tmp_path / "out.mp4")


def test_what_the_container_cannot_store_is_blamed_on_the_input(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    clip = make_clip("a.mkv", sounds=[{"samples": tone(1), "codec": "libopus"}])
    data = bytearray(clip.read_bytes())
    at = data.index(b"OpusHead") - 3  # the header of Opus, without which MP4 cannot describe it
    assert data[at : at + 3] == b"\x63\xa2\x93"
    data[at : at + 3] = b"\xec\x94\x00"  # now filler
    clip.write_bytes(data)
    with pytest.raises(MediaError, match=r"a.mkv: its pictures, audio or times do not fit into"):
        job(clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_audio_packets_are_copied(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str
) -> None:
    clip = make_clip(seconds=2, sounds=[{"samples": tone(2, channels=2), "language": "deu"}])
    job(clip, tmp_path / f"out{suffix}")
    before = [p for p in packets_of(clip) if suffix != ".mkv" or p[0] >= 0]
    after = packets_of(tmp_path / f"out{suffix}")
    assert [data for _, data in after] == [data for _, data in before]
    assert [s for s, _ in after] == pytest.approx([s for s, _ in before], abs=6e-4)
    audio = probe(tmp_path / f"out{suffix}").audio[0]
    assert audio.codec == "aac"
    assert audio.language == ("deu" if suffix != ".mov" else "ger")  # its own code for German
    np.testing.assert_allclose(
        sound_of(tmp_path / f"out{suffix}")[4800:], sound_of(clip)[4800:], atol=2e-3
    )


def test_opus_stays_opus_in_webm(make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path) -> None:
    clip = make_clip(
        "a.webm",
        codec="libvpx-vp9",
        tick=Fraction(1, 1000),
        sounds=[{"samples": tone(1), "codec": "libopus"}],
    )
    job(clip, tmp_path / "out.webm")
    assert packets_of(tmp_path / "out.webm") == packets_of(clip)


@pytest.mark.parametrize(
    ("name", "source_codec", "suffix", "codec"),
    [
        ("a.mp4", "aac", ".webm", "opus"),
        ("a.mkv", "pcm_u8", ".mp4", "aac"),
        ("a.wmv", "wmav2", ".mov", "aac"),
    ],
)
def test_audio_that_the_container_does_not_support_is_re_encoded(
    make_clip: MakeClip,
    job: Job,
    tone: Tone,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    source_codec: str,
    suffix: str,
    codec: str,
) -> None:
    burst = np.zeros((2, 96_000), np.float32)
    burst[:, 48_000:72_000] = tone(0.5, channels=2)
    sound = {"samples": burst, "codec": source_codec}
    clip = make_clip(name, codec="mpeg4", seconds=2, sounds=[sound])
    job(clip, tmp_path / f"out{suffix}")
    assert probe(tmp_path / f"out{suffix}").audio[0].codec == codec
    assert f"does not support {source_codec}" in caplog.text
    loud = np.flatnonzero(np.abs(sound_of(tmp_path / f"out{suffix}")) > 0.2) / 48_000
    was = np.flatnonzero(np.abs(sound_of(clip)) > 0.2) / 48_000
    assert loud[0] == pytest.approx(was[0], abs=0.01)
    assert loud[-1] == pytest.approx(was[-1], abs=0.01)


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("late", ["sound", "video"])
def test_a_late_start_of_video_or_audio_is_kept(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str, late: str
) -> None:
    times_s = [k / 25 + (0.6 if late == "video" else 0.0) for k in range(25)]
    sound = {"samples": tone(1), "start_s": 0.6 if late == "sound" else 0.0}
    clip = make_clip("a.mkv", times_s=times_s, sounds=[{**sound, "codec": "libopus"}])
    job(clip, tmp_path / f"out{suffix}")
    found = times_of(tmp_path / f"out{suffix}")
    loud = np.flatnonzero(np.abs(sound_of(tmp_path / f"out{suffix}")) > 0.2) / 48_000
    assert found == pytest.approx(times_s, abs=0.01)
    assert loud[0] == pytest.approx(sound["start_s"], abs=0.01)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_range_shifts_video_and_audio_together(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str
) -> None:
    burst = np.zeros((1, 4 * 48_000), np.float32)
    burst[:, 2 * 48_000 : 3 * 48_000] = tone(1)
    clip = make_clip(seconds=4, sounds=[{"samples": burst}])
    times_s = job(clip, tmp_path / f"out{suffix}", start_s=1.58, stop_s=2.5)
    assert len(times_s) == 23
    found = times_of(tmp_path / f"out{suffix}")
    assert found == pytest.approx(times_s, abs=6e-4)
    sound = sound_of(tmp_path / f"out{suffix}")
    loud = np.flatnonzero(np.abs(sound) > 0.2) / 48_000
    assert loud[0] == pytest.approx(0.42, abs=0.005)
    assert loud[-1] == pytest.approx(0.92, abs=0.03)


def test_transport_stream_that_does_not_start_at_zero(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    times_s = [1.4 + k / 25 for k in range(50)]
    clip = make_clip("a.ts", times_s=times_s, sounds=[{"samples": tone(2), "start_s": 1.4}])
    job(clip, tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.audio[0].codec, info.video[0].frames) == ("aac", 50)
    assert min(info.video[0].start_s, info.audio[0].start_s) == pytest.approx(0, abs=1e-3)


def test_no_audio(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip(), tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert info.audio == ()
    assert info.video[0].frames == 25


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_are_the_drawn_overlays(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str
) -> None:
    clip = make_clip(size=(128, 96))
    mask = np.zeros((96, 128), bool)
    mask[16:80, 32:96] = True
    job(clip, tmp_path / f"out{suffix}", masked=lambda _: mask)
    source = list(read_frames(probe(clip)))
    result = list(read_frames(probe(tmp_path / f"out{suffix}")))
    assert len(source) == len(result) == 25
    for before, after in zip(source, result, strict=True):
        drawn = draw_overlay(before.rgb, mask, OverlayStyle(contour_share=0))
        for row, column in ((8, 8), (48, 64), (90, 120)):
            difference = after.rgb[row, column].astype(int) - drawn[row, column]
            assert np.abs(difference).max() <= 8


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("size", [(63, 47), (65, 48), (64, 49), (33, 33)])
def test_odd_sizes_are_padded_not_cropped(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    clip = make_clip("a.mkv", size=size, pixel_format="yuv444p", seconds=0.2)
    job(clip, tmp_path / f"out{suffix}", masked=lambda f: np.zeros(f.rgb.shape[:2], bool))
    video = probe(tmp_path / f"out{suffix}").video[0]
    added = (0, 0) if suffix == ".webm" else (size[0] % 2, size[1] % 2)
    assert (video.width - size[0], video.height - size[1]) == added
    before = next(read_frames(probe(clip))).rgb.astype(int)
    after = next(read_frames(probe(tmp_path / f"out{suffix}"))).rgb[: size[1], : size[0]]
    assert np.abs(after[-8:, -8:] - before[-8:, -8:]).mean() < 4


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_result_has_the_displayed_shape(
    make_clip: MakeClip, job: Job, tmp_path: Path, suffix: str
) -> None:
    clip = make_clip(rotation=90, sample_aspect=Fraction(1, 2), seconds=0.2)
    job(clip, tmp_path / f"out{suffix}")
    video = probe(tmp_path / f"out{suffix}").video[0]
    assert video.rotation == 0
    assert video.width * video.sample_aspect / video.height == Fraction(48 * 2, 64)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("after", [0, 9])
def test_a_failure_leaves_nothing_behind(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, error: BaseException, after: int
) -> None:
    clip = make_clip(sounds=[{"samples": tone(1)}])
    with pytest.raises(type(error)):
        job(clip, tmp_path / "out.mp4", fail_after=after, error=error)
    assert list(tmp_path.iterdir()) == [clip]


def test_a_failure_keeps_the_earlier_result(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip, target = make_clip(), tmp_path / "out.mp4"
    target.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="no"):
        job(clip, target, overwrite=True, fail_after=9, error=ValueError("no"))
    assert target.read_bytes() == b"earlier"
    assert sorted(tmp_path.iterdir()) == [clip, target]


def test_overwriting(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip, target = make_clip(), tmp_path / "out.mp4"
    target.write_bytes(b"earlier")
    job(clip, target, overwrite=True)
    assert probe(target).video[0].frames == 25


def test_a_file_created_by_another_program_is_not_replaced(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    clip, target = make_clip(), tmp_path / "out.mp4"

    def masked(frame: Frame) -> npt.NDArray[np.bool_]:
        target.write_bytes(b"another's")
        return np.zeros(frame.rgb.shape[:2], bool)

    with pytest.raises(Av2tsamError, match="in the meantime"):
        job(clip, target, masked=masked)
    assert target.read_bytes() == b"another's"
    assert sorted(tmp_path.iterdir()) == [clip, target]


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("size", [200, 4000])
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(
    make_clip: MakeClip,
    job: Job,
    tone: Tone,
    tmp_path: Path,
    files_up_to: Callable[[int], Any],
    suffix: str,
    size: int,
) -> None:
    clip = make_clip(seconds=2, sounds=[{"samples": tone(2)}])
    target = tmp_path / f"out{suffix}"
    with files_up_to(size), pytest.raises(Av2tsamError, match="cannot be written") as failed:
        job(clip, target)
    assert failed.value.exit_code == 1
    assert str(failed.value).startswith(str(target))
    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == [clip]


def test_no_frame_between_start_and_end(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip()
    with pytest.raises(UsageError, match="no frame"):
        job(clip, tmp_path / "out.mp4", start_s=30)
    assert list(tmp_path.iterdir()) == [clip]


def test_corrupted_audio_does_not_stop_the_video(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    clip = make_clip(seconds=2, sounds=[{"samples": tone(2)}])
    with av.open(str(clip)) as container:
        spans = [(p.pos or 0, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(clip.read_bytes())
    for begin, length in spans[20:30]:
        data[begin : begin + length] = b"\xff" * length
    clip.write_bytes(data)
    for suffix in (".mp4", ".webm"):  # copied; re-encoded
        job(clip, tmp_path / f"out{suffix}")
        info = probe(tmp_path / f"out{suffix}")
        assert len(times_of(tmp_path / f"out{suffix}")) == 50
        assert info.duration_s == pytest.approx(2, abs=0.1)


def test_named_sources_have_their_colours_in_the_video(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    job(make_clip(seconds=0.2), tmp_path / "out.mp4", named=two_sources, names=True)
    job(make_clip(seconds=0.2), tmp_path / "plain.mp4", named=two_sources)
    named, plain = (
        list(read_frames(probe(tmp_path / name)))[4].rgb.astype(int)
        for name in ("out.mp4", "plain.mp4")
    )
    dog, guitar = named[22:28, 8:16].mean((0, 1)), named[22:28, 44:56].mean((0, 1))
    assert dog[2] > guitar[2] + 10  # pink and yellow
    assert np.abs(named - plain).max() > 100
