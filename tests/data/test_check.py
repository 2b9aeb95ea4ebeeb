"""Checking a data set: every file that is missing or damaged is found, and none that is whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.data.avsbench import Clip, open_split, open_subset
from av2tsam_cli.data.check import check_clip, check_subset, keep_readable
from av2tsam_cli.errors import MediaError


def one(root: Path) -> Clip:
    return open_split(root, "s4", "test")[0]


def test_a_whole_data_set_has_no_problems(generated: Path, avss: Path) -> None:
    report = check_subset(generated, "s4")
    assert report.problems == ()
    assert [report.videos(split) for split in ("train", "val", "test")] == [2, 1, 1]
    assert [report.labelled(split) for split in ("train", "val", "test")] == [2, 5, 5]
    assert sum(report.categories("train").values()) == 2
    assert check_subset(generated, "ms3").categories("train") == {}
    assert check_subset(avss, "avss").problems == ()


def test_a_damaged_frame_or_mask_is_found(data: Path, harm: Callable[[Path], None]) -> None:
    clip = one(data)
    assert clip.masks[1] is not None
    harm(clip.frames[3])
    harm(clip.masks[1])
    report = check_subset(data, "s4")
    assert [problem.file for problem in report.problems] == [clip.frames[3], clip.masks[1]]
    assert all(p.reason.startswith(str(p.file)) and ";" in p.reason for p in report.problems)
    assert {problem.clip for problem in report.problems} == {clip}


def test_a_jpeg_that_was_cut_is_found(avss: Path) -> None:
    clip = open_split(avss, "avss", "val")[0]
    clip.frames[0].write_bytes(clip.frames[0].read_bytes()[:-40])
    assert ["is cut short" in problem.reason for problem in check_clip(clip)] == [True]


def test_damaged_sound_is_found(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = one(data)
    content = clip.sound.read_bytes()
    for damaged in (content[:-2], content[:40], b"", content[1:]):
        clip.sound.write_bytes(damaged)
        assert [problem.file for problem in check_clip(clip)] == [clip.sound]
    write_wav(clip.sound, [[0.0] * 3 * 16_000])
    assert "3.00 of 5 s" in check_clip(clip)[0].reason
    clip.sound.unlink()
    clip.sound.mkdir()
    assert "cannot be read" in check_clip(clip)[0].reason


def test_a_wav_that_was_written_into_a_pipe_is_whole(data: Path) -> None:
    clip = one(data)
    content = bytearray(clip.sound.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    clip.sound.write_bytes(content)
    assert check_clip(clip) == []
    clip.sound.write_bytes(content[: len(content) // 2])
    assert "is shorter than its video, 2.50 of 5 s" in check_clip(clip)[0].reason


def test_sound_may_end_up_to_a_second_early(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = one(data)
    for seconds, problems in ((4.99, 0), (4.0, 0), (3.9, 1)):
        write_wav(clip.sound, [np.zeros(round(seconds * 16_000))])
        assert len(check_clip(clip)) == problems


def test_a_mask_of_another_size_is_found(data: Path) -> None:
    clip = one(data)
    assert clip.masks[0] is not None
    Image.new("L", (100, 224)).save(clip.masks[0])
    assert "is of another size (100 x 224)" in check_clip(clip)[0].reason


def test_raw_videos_are_checked_where_nothing_was_extracted(
    data: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    shutil.rmtree(data / "Single-source" / "s4_data" / "visual_frames")
    shutil.rmtree(data / "Single-source" / "s4_data" / "audio_wav")
    report = check_subset(data, "s4")
    assert (report.problems, report.decoded_frames, report.decoded_sounds) == ((), 4, 4)
    video = one(data).video
    assert video is not None
    video.write_bytes(video.read_bytes()[:-1])
    assert "is cut short" in check_clip(one(data))[0].reason
    shutil.copy(make_clip("slow.mp4", seconds=5, sounds=[{"samples": tone(5.0)}]), video)
    assert check_clip(one(data)) == []
    video.write_bytes(video.read_bytes()[:5_000])  # its index lies at the end
    assert "is cut short" in check_clip(one(data))[0].reason


def test_training_stops_at_damage_or_leaves_it_out(data: Path) -> None:
    clips = open_subset(data, "s4")
    assert keep_readable(clips, skip_bad=False) == (clips, ())
    clips[1].frames[0].unlink()
    clips[1].frames[4].unlink()
    with pytest.raises(MediaError, match=r"_1\.png: is missing.* 1 more files\).*--skip-bad"):
        keep_readable(clips, skip_bad=False)
    kept, damaged = keep_readable(clips, skip_bad=True)
    assert kept == (clips[0], *clips[2:])
    assert [problem.file for problem in damaged] == [clips[1].frames[0], clips[1].frames[4]]
    with pytest.raises(MediaError, match=r"_1\.png: is missing"):
        keep_readable(clips[1:2], skip_bad=True)
