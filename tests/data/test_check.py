"""Checking a data set finds every missing or corrupted file, and reports no intact one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.data.avsbench import Clip, open_split, open_subset
from av2tsam_cli.data.check import check_clip, check_subset, require_intact
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
    assert ["truncated" in problem.message for problem in check_clip(clip)] == [True]


def test_damaged_sound_is_found(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = one(data)
    content = clip.sound.read_bytes()
    for damaged in (content[:-2], content[:40], b"", content[1:]):
        clip.sound.write_bytes(damaged)
        assert [problem.file for problem in check_clip(clip)] == [clip.sound]
    write_wav(clip.sound, [[0.0] * 3 * 16_000])
    assert "3.00 s of 5 s" in check_clip(clip)[0].message
    clip.sound.unlink()
    clip.sound.mkdir()
    assert "cannot be read" in check_clip(clip)[0].message


def test_a_wav_written_to_a_pipe_is_intact(data: Path) -> None:
    clip = one(data)
    content = bytearray(clip.sound.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    clip.sound.write_bytes(content)
    assert check_clip(clip) == []
    clip.sound.write_bytes(content[: len(content) // 2])
    assert "truncated, it ends at 2.50 s of 5 s" in check_clip(clip)[0].message


def test_sound_may_end_up_to_a_second_early(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = one(data)
    for seconds, problems in ((4.99, 0), (4.0, 0), (3.9, 1)):
        write_wav(clip.sound, [np.zeros(round(seconds * 16_000))])
        assert len(check_clip(clip)) == problems


def test_a_mask_of_another_size_is_found(data: Path) -> None:
    clip = one(data)
    assert clip.masks[0] is not None
    Image.new("L", (100, 224)).save(clip.masks[0])
    assert "is 100 x 224 pixels" in check_clip(clip)[0].message


def test_raw_videos_are_checked_if_nothing_was_extracted(
    data: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    shutil.rmtree(data / "Single-source" / "s4_data" / "visual_frames")
    shutil.rmtree(data / "Single-source" / "s4_data" / "audio_wav")
    report = check_subset(data, "s4")
    assert (report.problems, report.frames_from_videos, report.sound_from_videos) == ((), 4, 4)
    video = one(data).video
    assert video is not None
    video.write_bytes(video.read_bytes()[:-1])
    assert "truncated" in check_clip(one(data))[0].message
    shutil.copy(make_clip("slow.mp4", seconds=5, sounds=[{"samples": tone(5.0)}]), video)
    assert check_clip(one(data)) == []
    video.write_bytes(video.read_bytes()[:5_000])  # the index is at the end
    assert "truncated" in check_clip(one(data))[0].message


def test_damaged_clips_raise_an_error_or_are_skipped(data: Path) -> None:
    clips = open_subset(data, "s4")
    assert require_intact(clips, skip_bad=False) == (clips, ())
    clips[1].frames[0].unlink()
    clips[1].frames[4].unlink()
    with pytest.raises(MediaError, match=r"_1\.png: missing.* 1 more file\), or set `skip_bad`"):
        require_intact(clips, skip_bad=False)
    kept, damaged = require_intact(clips, skip_bad=True)
    assert kept == (clips[0], *clips[2:])
    assert [problem.file for problem in damaged] == [clips[1].frames[0], clips[1].frames[4]]
    with pytest.raises(MediaError, match=r"_1\.png: missing"):
        require_intact(clips[1:2], skip_bad=True)
