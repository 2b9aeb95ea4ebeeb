"""Tests of what is kept beside pictures and sound, read back with FFmpeg's own ffprobe."""

import json
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from av2tsam_cli.outputs.metadata import later_timecode, read_timecode

MakeClip = Callable[..., Path]
Job = Callable[..., list[float]]
CREATED = "2024-05-01T10:20:30.000000Z"
NTSC = Fraction(30_000, 1001)


@pytest.fixture
def tagged_clip(make_clip: MakeClip, tmp_path: Path) -> Path:
    """Three seconds with a title, a timecode, a date and chapters."""
    clip = make_clip("plain.mp4", seconds=3)
    tagged = tmp_path / "tagged.mov"
    with av.open(str(clip)) as source, av.open(str(tagged), "w") as output:
        output.metadata.update({"title": "A dog", "creation_time": CREATED, "location": "+52+013/"})
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        stream.metadata["timecode"] = "10:00:00:00"
        output.set_chapters([chapter(k, name) for k, name in enumerate(("bark", "rest", "run"))])
        for frame in source.decode(video=0):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return tagged


def chapter(second: int, title: str) -> Any:
    """A chapter of a second."""
    return {
        "id": second,
        "start": 1000 * second,
        "end": 1000 * (second + 1),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def ffprobe(path: Path) -> dict[str, Any]:
    """What FFmpeg's own tool says about a file."""
    tool = shutil.which("ffprobe")
    if tool is None:
        pytest.skip("ffprobe is not installed")
    words = ["-v", "error", "-of", "json", "-show_format", "-show_streams", "-show_chapters"]
    result = subprocess.run([tool, *words, str(path)], capture_output=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def tags_of(found: dict[str, Any]) -> dict[str, str]:
    """The tags of a file and of its video stream, with names in small letters."""
    video = next(each for each in found["streams"] if each["codec_type"] == "video")
    tags = {**found["format"].get("tags", {}), **video.get("tags", {})}
    return {name.lower(): value for name, value in tags.items()}


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_title_times_and_chapters_are_kept(
    tagged_clip: Path, job: Job, tmp_path: Path, suffix: str
) -> None:
    job(tagged_clip, target := tmp_path / f"out{suffix}", start_s=0.6, stop_s=1.5)
    found = ffprobe(target)
    tags = tags_of(found)
    assert tags["title"] == "A dog"
    assert tags["creation_time"].startswith(CREATED[:19])
    assert tags["timecode"] == "10:00:00:15"
    assert "location" not in tags
    chapters = [
        (each["tags"]["title"], float(each["start_time"]), float(each["end_time"]))
        for each in found["chapters"]
    ]
    assert chapters == [
        ("bark", 0, pytest.approx(0.4, abs=2e-3)),
        ("rest", pytest.approx(0.4, abs=2e-3), pytest.approx(0.9, abs=2e-3)),
    ]
    assert float(found["format"]["duration"]) == pytest.approx(0.9, abs=0.05)


def test_the_timecode_of_the_whole_video_is_that_of_its_source(
    tagged_clip: Path, job: Job, tmp_path: Path
) -> None:
    job(tagged_clip, target := tmp_path / "out.mov")
    assert tags_of(ffprobe(target))["timecode"] == "10:00:00:00"
    assert read_timecode(target, 0) == "10:00:00:00"


def test_a_video_without_a_timecode(make_clip: MakeClip) -> None:
    assert read_timecode(make_clip(seconds=0.1), 0) is None


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "expected"),
    [
        ("10:00:00:00", 0, Fraction(25), "10:00:00:00"),
        ("09:59:59:24", 1, Fraction(25), "10:00:00:00"),
        ("23:59:59:23", 1, Fraction(24), "00:00:00:00"),
        ("01:00:59:29", 1, NTSC, "01:01:00:00"),
        ("01:00:59;29", 1, NTSC, "01:01:00;02"),
        ("01:00:59;28", 1, NTSC, "01:00:59;29"),
        ("01:09:59;29", 1, NTSC, "01:10:00;00"),
        ("00:00:00;00", 17_982, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107_892, NTSC, "01:00:00;00"),
        ("00:00:00;00", 1800, NTSC, "00:01:00;02"),
        ("00:00:59;59", 1, 2 * NTSC, "00:01:00;04"),
        ("23:59:59;29", 1, NTSC, "00:00:00;00"),
        ("10:00:00:25", 0, Fraction(25), None),
        ("10:00:00;00", 0, Fraction(25), None),
        ("ten", 0, Fraction(25), None),
    ],
)
def test_later_timecodes(timecode: str, frames: int, rate: Fraction, expected: str | None) -> None:
    assert later_timecode(timecode, frames, rate) == expected


def test_drop_frame_timecodes_count_every_frame_once() -> None:
    seen = [later_timecode("00:00:00;00", k, NTSC) for k in range(20_000)]
    assert len(set(seen)) == 20_000
    assert seen == sorted(seen, key=str)
    assert all(later_timecode(str(seen[k]), 1, NTSC) == seen[k + 1] for k in range(0, 19_999, 7))
