"""Probing ordinary, unusual and unreadable files."""

import os
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from av2tsam_cli.errors import MediaError
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe

MakeClip = Callable[..., Path]
Tone = Callable[..., np.ndarray]


def test_size_rate_duration_and_streams(make_clip: MakeClip, tone: Tone) -> None:
    info = probe(make_clip(seconds=2, sounds=[{"samples": tone(2, channels=2)}]))
    video, audio = info.video[0], info.audio[0]
    assert (video.codec, video.width, video.height, video.frames) == ("h264", 64, 48, 50)
    assert video.rate == 25
    assert video.sample_aspect == 1
    assert (audio.codec, audio.rate_hz, audio.channels) == ("aac", 48_000, 2)
    assert info.duration_s == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_size_is_as_displayed(make_clip: MakeClip, rotation: int) -> None:
    clip = make_clip(rotation=rotation, sample_aspect=Fraction(2, 3))
    video = probe(clip).video[0]
    turned = rotation in {90, 270}
    assert video.rotation == rotation
    assert (video.width, video.height) == ((48, 64) if turned else (64, 48))
    assert video.sample_aspect == (Fraction(3, 2) if turned else Fraction(2, 3))


def test_odd_sizes(make_clip: MakeClip) -> None:
    video = probe(make_clip(size=(63, 47), pixel_format="yuv444p")).video[0]
    assert (video.width, video.height) == (63, 47)


def test_too_large_pictures_are_not_decoded(make_clip: MakeClip) -> None:
    clip = make_clip("a.gif", codec="gif", pixel_format="rgb8", seconds=0.1)
    data = bytearray(clip.read_bytes())
    data[6:10] = struct.pack("<HH", 10_000, 10_000)
    clip.write_bytes(data)
    with pytest.raises(MediaError, match=r"a.gif: no frame .* with at most 67 million pixels"):
        probe(clip)


def test_cover_picture_is_not_a_video_stream(make_clip: MakeClip) -> None:
    cover = {
        "size": (320, 240),
        "codec": "mjpeg",
        "pixel_format": "yuvj420p",
        "disposition": Disposition.attached_pic,
    }
    info = probe(make_clip(extra_videos=[cover]))
    assert [(stream.index, stream.width) for stream in info.video] == [(0, 64)]


def test_the_default_video_stream_comes_first(make_clip: MakeClip) -> None:
    small = {"size": (32, 24), "frames": 25}
    info = probe(make_clip("clip.mkv", extra_videos=[small]))
    assert [stream.width for stream in info.video] == [64, 32]


def test_subtitles_are_ignored(make_clip: MakeClip, tone: Tone) -> None:
    info = probe(make_clip(subtitles=True, sounds=[{"samples": tone(1)}]))
    assert len(info.video) == len(info.audio) == 1


def test_audio_stream_before_the_video_stream(make_clip: MakeClip, tone: Tone) -> None:
    info = probe(make_clip(sounds=[{"samples": tone(1)}], sound_first=True))
    assert info.audio[0].index == 0
    assert info.video[0].index == 1


def test_no_duration_in_the_header(make_clip: MakeClip) -> None:
    info = probe(make_clip("clip.mkv", container_options={"live": "1"}))
    assert info.duration_s is None
    assert info.video[0].duration_s is None


def test_clock_starts_with_the_earlier_of_the_chosen_streams(
    make_clip: MakeClip, tone: Tone
) -> None:
    sound = {"samples": tone(1), "start_s": 0.5, "codec": "pcm_s16le"}
    info = probe(make_clip("clip.mov", times_s=[0.25, 0.5, 0.75], sounds=[sound]))
    assert clock_zero(info, info.video[0], info.audio[0]) == pytest.approx(0.25)
    assert clock_zero(info, None, info.audio[0]) == pytest.approx(0.5)
    assert clock_zero(info, info.video[0], None) == pytest.approx(0.25)


def test_names_outside_ascii_and_with_a_colon(make_clip: MakeClip) -> None:
    for name in ("视频 ñ Müller 🎬.mp4", "a:b.mp4", "100%d.mp4"):
        assert probe(make_clip(name)).video[0].width == 64


def test_relative_path(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip("a:b.mp4")
    monkeypatch.chdir(clip.parent)
    assert probe(Path("a:b.mp4")).video[0].width == 64


def add_exif(path: Path, orientation: int) -> None:
    """Rewrite an MJPEG file with EXIF in each picture, as cameras do."""
    tag = struct.pack("<HHIHHI", 0x112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    with av.open(str(path)) as source:
        packets = [p for p in source.demux(video=0) if p.size]
        with av.open(str(path.with_name("with_exif.avi")), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in packets:
                picture = bytes(packet)
                copy = av.Packet(picture[:2] + segment + picture[2:])
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = True, stream
                target.mux(copy)
    path.with_name("with_exif.avi").rename(path)


@pytest.mark.parametrize(
    ("orientation", "rotation", "mirrored"),
    [(1, 0, False), (2, 0, True), (3, 180, False), (5, 270, True), (6, 270, False), (7, 90, True)],
)
def test_side_data_that_pyav_does_not_know_is_passed_over(
    make_clip: MakeClip, orientation: int, rotation: int, mirrored: bool
) -> None:
    clip = make_clip("a.avi", codec="mjpeg", pixel_format="yuvj420p", seconds=0.2)
    add_exif(clip, orientation)
    info = probe(clip)
    assert info.video[0].rotation == rotation
    frames = list(read_frames(info))
    assert len(frames) == 5
    turned = rotation in {90, 270}
    assert frames[0].rgb.shape == ((64, 48, 3) if turned else (48, 64, 3))
    white = {
        (row, column)
        for row in (0, 1)
        for column in (0, 1)
        if frames[0].rgb[8 - 20 * row, 8 - 20 * column].mean() > 200
    }
    assert white == {{0: (0, mirrored), 180: (1, 1), 270: (0, not mirrored), 90: (1, 1)}[rotation]}


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(MediaError) as refused:
        probe(path)
    line = str(refused.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert refused.value.exit_code == 3
    return line


def test_missing_file(tmp_path: Path) -> None:
    assert "file not found" in refusal(tmp_path / "none.mp4")


def test_folder(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.mkv"])
def test_text_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is not a video.\n" * 50)
    assert "media file" in refusal(path) or "text file" in refusal(path)


def test_mp4_truncated_before_its_index(make_clip: MakeClip) -> None:
    clip = make_clip(seconds=2)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert "truncated" in refusal(clip)


def test_apple_double(tmp_path: Path) -> None:
    path = tmp_path / "._clip.mp4"
    path.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(200))
    assert "AppleDouble" in refusal(path)
    assert "clip.mp4" in refusal(path).split("use the file named")[1]


def test_only_audio(tmp_path: Path, make_clip: MakeClip, tone: Tone) -> None:
    clip = make_clip(sounds=[{"samples": tone(1)}])
    only_sound = tmp_path / "sound.m4a"
    with av.open(str(clip)) as source, av.open(str(only_sound), "w", format="mp4") as target:
        track = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = track
                target.mux(packet)
    assert "only audio" in refusal(only_sound)
    info = probe(only_sound, need_video=False)
    assert (info.video, len(info.audio)) == ((), 1)
    assert clock_zero(info, None, info.audio[0]) == info.audio[0].start_s


def test_no_frame_can_be_decoded(
    make_clip: MakeClip, corrupt_packets: Callable[[Path, range], None]
) -> None:
    clip = make_clip("clip.mov", codec="png", pixel_format="rgb24", seconds=0.4)
    corrupt_packets(clip, range(10))
    assert "no frame" in refusal(clip)


def test_file_of_another_kind(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "pack"), "zip", tmp_path)
    assert "media file" in refusal(Path(archive))


def test_an_encrypted_mp4_is_named_as_such(make_clip: MakeClip) -> None:
    key = {"encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    options = {"encryption_scheme": "cenc-aes-ctr", **key}
    clip = make_clip(seconds=0.2, container_options=options)
    assert "encrypted (DRM)" in refusal(clip)
    content = clip.read_bytes().replace(b"avcC", b"free")  # FFmpeg may not get past the index
    clip.write_bytes(content.replace(b"stsz", b"xxxx"))
    assert "encrypted (DRM)" in refusal(clip)


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_is_rejected_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipes and devices are not supported" in refusal(tmp_path / "pipe")
