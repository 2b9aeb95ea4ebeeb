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


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv"])
def test_formats_and_recordings_without_sizes(make_clip: MakeClip, name: str) -> None:
    options = {"live": "1"} if name == "a.mkv" else {}
    clip = make_clip(name, seconds=0.2, container_options=options)
    clip.write_bytes(clip.read_bytes()[:-40])
    assert not read_structure(clip).cut_short
