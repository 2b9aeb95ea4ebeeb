"""Whether a file is shorter than its structure says."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from av2tsam_cli.media.structure import read_structure

MakeClip = Callable[..., Path]
KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "b.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mov": {},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx", "tick": Fraction(1, 1000)},
    "b.mkv": {"container_options": {"live": "1"}},
    "a.ts": {},
    "a.flv": {},
    "a.mpg": {"codec": "mpeg2video", "tick": Fraction(1, 25)},
    "a.wmv": {"codec": "wmv2", "tick": Fraction(1, 25)},
    "a.avi": {"codec": "mpeg4", "tick": Fraction(1, 25)},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_complete_until_its_last_byte_is_cut(make_clip: MakeClip, name: str) -> None:
    clip = make_clip(name, seconds=0.2, **KINDS[name])
    data = clip.read_bytes()
    assert not read_structure(clip).cut_short
    for missing in (2, 40, len(data) // 3):
        clip.write_bytes(data[:-missing])
        assert read_structure(clip).cut_short


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
@pytest.mark.parametrize("more", [b"\0" * 999, b"\xff\xfe\x01\x02\x80\x80SEFT" * 50])
def test_data_after_the_end_is_no_loss(make_clip: MakeClip, name: str, more: bytes) -> None:
    clip = make_clip(name, seconds=0.2, **KINDS[name])
    clip.write_bytes(clip.read_bytes() + more)
    assert not read_structure(clip).cut_short


def test_a_wav_that_was_written_to_a_pipe_is_no_loss(tmp_path: Path) -> None:
    clip = tmp_path / "a.wav"
    clip.write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(200))
    assert not read_structure(clip).cut_short


def test_a_program_stream_that_ends_with_its_code_is_complete(make_clip: MakeClip) -> None:
    clip = make_clip("a.mpg", seconds=0.2, codec="mpeg2video", tick=Fraction(1, 25))
    assert not read_structure(clip).cut_short
    clip.write_bytes(clip.read_bytes() + b"\0\0\1\xb9")
    assert not read_structure(clip).cut_short
