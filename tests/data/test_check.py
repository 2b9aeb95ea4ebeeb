"""Checking a data set finds every missing or corrupted file, and reports no intact one."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from av2tsam_cli.data.avsbench import Clip, open_split, open_subset
from av2tsam_cli.data.check import ClipCheck, check_clip, check_subset, require_intact
from av2tsam_cli.data.clips import read_clip_windows
from av2tsam_cli.data.integrity import check_image
from av2tsam_cli.errors import MediaError


def one(root: Path) -> Clip:
    return open_split(root, "s4", "test")[0]


def test_an_intact_data_set_has_no_problems(generated: Path, avss: Path) -> None:
    report = check_subset(generated, "s4")
    assert report.problems == ()
    assert [report.videos(split) for split in ("train", "val", "test")] == [2, 1, 1]
    assert [report.labelled_frames(split) for split in ("train", "val", "test")] == [2, 5, 5]
    assert sum(report.categories("train").values()) == 2
    assert check_subset(generated, "ms3").categories("train") == {}
    assert check_subset(avss, "avss").problems == ()


def test_a_damaged_frame_or_mask_is_found(data: Path, damage: Callable[[Path], None]) -> None:
    clip = one(data)
    assert clip.masks[1] is not None
    damage(clip.frames[3])
    damage(clip.masks[1])
    report = check_subset(data, "s4")
    assert [problem.file for problem in report.problems] == [clip.frames[3], clip.masks[1]]
    assert all(p.message.startswith(str(p.file)) and ";" in p.message for p in report.problems)
    assert {problem.clip for problem in report.problems} == {clip}


def test_a_truncated_jpeg_is_found(avss: Path) -> None:
    clip = open_split(avss, "avss", "val")[0]
    clip.frames[0].write_bytes(clip.frames[0].read_bytes()[:-40])
    assert ["truncated" in problem.message for problem in check_clip(clip).problems] == [True]


def test_damaged_sound_is_found(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = one(data)
    content = clip.sound.read_bytes()
    for damaged in (content[:-2], content[:40], b"", content[1:]):
        clip.sound.write_bytes(damaged)
        assert [problem.file for problem in check_clip(clip).problems] == [clip.sound]
    write_wav(clip.sound, [[]])
    assert "it contains 0 of 0 bytes of sound" in check_clip(clip).problems[0].message
    clip.sound.unlink()
    clip.sound.mkdir()
    assert "cannot be read" in check_clip(clip).problems[0].message


def test_a_wav_written_to_a_pipe_is_intact(data: Path) -> None:
    clip = one(data)
    content = bytearray(clip.sound.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    clip.sound.write_bytes(content)
    assert check_clip(clip).problems == ()
    clip.sound.write_bytes(content[: len(content) // 2])
    assert (check_clip(clip).problems, check_clip(clip).is_padded) == ((), True)


def test_sound_that_ends_more_than_a_second_early_is_padded(
    data: Path, write_wav: Callable[..., Path]
) -> None:
    clip = one(data)
    for seconds, is_padded in ((4.99, False), (4.0, False), (3.9, True), (0.01, True)):
        write_wav(clip.sound, [np.zeros(round(seconds * 16_000))])
        assert check_clip(clip) == ClipCheck((), is_padded)
    checked = check_subset(data, "s4").checked
    assert checked.counts["padded_sounds"] == 1
    assert checked.warnings == [
        f"1 video whose sound ends more than a second early ({clip.name}): it is padded with "
        "silence, as in AVSBench"
    ]
    assert require_intact([clip], strict=True).intact == (clip,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("extensible", [False, True])
def test_a_float_wav_with_samples_that_are_not_numbers_is_found(
    data: Path, value: float, bits: int, extensible: bool
) -> None:
    clip = one(data)
    samples = np.zeros(5 * 16_000, f"<f{bits // 8}")
    clip.sound.write_bytes(float_wav(samples, extensible=extensible))
    assert check_clip(clip).problems == ()
    samples[40_000] = value
    clip.sound.write_bytes(float_wav(samples, extensible=extensible))
    (problem,) = check_clip(clip).problems
    assert problem.message.startswith(f"{clip.sound}: contains samples that are not numbers")
    with pytest.raises(MediaError, match="not numbers"):
        read_clip_windows(clip, [0], 16_000)


def float_wav(samples: npt.NDArray[Any], *, extensible: bool) -> bytes:
    """Return a mono WAV of floats at 16 kHz."""
    size = samples.itemsize
    kind = 0xFFFE if extensible else 3
    wav_format = struct.pack("<HHIIHH", kind, 1, 16_000, 16_000 * size, size, 8 * size)
    if extensible:
        guid = bytes.fromhex("0300000000001000800000aa00389b71")
        wav_format += struct.pack("<HHI", 22, 8 * size, 4) + guid
    chunks = b""
    for name, content in ((b"fmt ", wav_format), (b"data", samples.tobytes())):
        chunks += name + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_that_would_fill_the_memory_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"huge.{suffix}"
    path.write_bytes(cv2.imencode(f".{suffix}", np.zeros((16, 16), np.uint8))[1].tobytes())
    assert check_image(path, path.read_bytes()) == (16, 16)
    path.write_bytes(with_size(path.read_bytes(), 20_000))
    with pytest.raises(MediaError, match="is 20000 x 20000 pixels, too large") as caught:
        check_image(path, path.read_bytes())
    assert str(caught.value).startswith(f"{path}: ")


def with_size(image: bytes, side: int) -> bytes:
    """Return a PNG or JPEG whose header says that it is square with this side in pixels."""
    content = bytearray(image)
    if content.startswith(b"\x89PNG"):
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        begin = content.index(b"\xff\xc0") + 5
        content[begin : begin + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def test_a_mask_of_another_size_is_found(data: Path) -> None:
    clip = one(data)
    assert clip.masks[0] is not None
    Image.new("L", (100, 224)).save(clip.masks[0])
    assert "is 100 x 224 pixels" in check_clip(clip).problems[0].message


def test_raw_videos_are_checked_if_nothing_was_extracted(
    data: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    shutil.rmtree(data / "Single-source" / "s4_data" / "visual_frames")
    shutil.rmtree(data / "Single-source" / "s4_data" / "audio_wav")
    report = check_subset(data, "s4")
    assert report.problems == ()
    assert report.to_json()["frames_from_raw_videos"] == 4
    assert report.to_json()["sound_from_raw_videos"] == 4
    video = one(data).video
    assert video is not None
    video.write_bytes(video.read_bytes()[:-1])
    assert "truncated" in check_clip(one(data)).problems[0].message
    shutil.copy(make_clip("slow.mp4", seconds=5, sounds=[{"samples": tone(5.0)}]), video)
    assert check_clip(one(data)).problems == ()
    video.write_bytes(video.read_bytes()[:5_000])  # the index is at the end
    assert "truncated" in check_clip(one(data)).problems[0].message


def test_a_raw_video_with_short_sound_is_padded_and_one_without_sound_is_an_error(
    data: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    clip = one(data)
    clip.sound.unlink()
    video = one(data).sound
    shutil.copy(make_clip("short.mp4", seconds=5, sounds=[{"samples": tone(2.0)}]), video)
    assert check_clip(one(data)) == ClipCheck((), is_padded=True)
    assert not read_clip_windows(one(data), [4], 16_000).any()
    shutil.copy(make_clip("silent.mp4", seconds=5), video)
    assert "has no audio" in check_clip(one(data)).problems[0].message


def test_damaged_clips_raise_an_error_or_are_skipped(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = open_subset(data, "s4")
    assert require_intact(clips).intact == clips
    assert caplog.messages == []
    clips[1].frames[0].unlink()
    clips[1].frames[4].unlink()
    with pytest.raises(MediaError, match=r"_1\.png: missing.* 1 more file\), or set `skip_bad`"):
        require_intact(clips)
    checked = require_intact(clips, skip_bad=True)
    assert checked.intact == (clips[0], *clips[2:])
    assert [problem.file for problem in checked.problems] == [
        clips[1].frames[0],
        clips[1].frames[4],
    ]
    assert [message.split(":")[0] for message in caplog.messages] == [
        f"skipped {clips[1].name}"
    ] * 2
    with pytest.raises(MediaError, match=r"_1\.png: missing"):
        require_intact(clips[1:2], skip_bad=True)


def test_files_taken_from_raw_videos_are_counted_and_logged_or_refused(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(data / "Single-source" / "s4_data" / "visual_frames" / "train")
    one(data).sound.unlink()
    clips = open_subset(data, "s4")
    checked = require_intact(clips)
    assert checked.counts == {
        "frames_from_raw_videos": 2,
        "sound_from_raw_videos": 1,
        "padded_sounds": 0,
        "repeated_videos": 0,
    }
    frames, sound = caplog.messages
    assert frames == (
        "2 videos without extracted frames (such as s4_train_000000): raw_videos is used"
    )
    assert sound == "1 video without a WAV file (s4_test_000000): raw_videos is used"
    with pytest.raises(
        MediaError, match=r"s4_train_000000\); extract the frames, or omit `strict`"
    ):
        require_intact(clips, strict=True)
    with pytest.raises(MediaError, match="s4_test_000000"):
        require_intact(open_split(data, "s4", "test"), strict=True)
    assert require_intact(open_split(data, "s4", "val"), strict=True).problems == ()


def test_a_video_that_is_listed_more_than_once_is_found(data: Path) -> None:
    csv = data / "Single-source" / "s4_meta_data.csv"
    header, *rows = csv.read_text().splitlines()
    train = next(row for row in rows if row.endswith(",train"))
    name = train.split(",")[0]
    csv.write_text("\n".join([header, *rows, train]))
    (problem,) = check_subset(data, "s4").problems
    assert problem.message.startswith(f"{csv}: lists {name} 2 times in the split train; ")
    assert require_intact(open_split(data, "s4", "train")).counts["repeated_videos"] == 1
    with pytest.raises(MediaError, match=rf"listed more than once \({name}\)"):
        require_intact(open_split(data, "s4", "train"), strict=True)
    csv.write_text("\n".join([header, *rows, train.removesuffix("train") + "test"]))
    message = check_subset(data, "s4").problems[-1].message
    assert message.startswith(f"{csv}: lists {name} in the splits train and test; ")
