"""Overlay videos read back by programs that share nothing with ours: Debian's FFmpeg and OpenCV.

Each clip flashes and beeps at the same time.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
Job = Callable[..., list[float]]
COPIED = [
    *((".mp4", "aac"), (".mov", "aac"), (".mkv", "aac"), (".mkv", "flac"), (".webm", "libopus"))
]
RATE, RATE_HZ = 25, 48_000
FLASH = 14
"""The frame that is white, and the frame at whose time a beep begins."""
TIMES_S = [k / RATE for k in range(20)] + [0.9, 1.0, 1.04, 1.5]
"""The last pictures are displayed for uneven times."""


def run(tool: str, *arguments: str) -> bytes:
    """What an FFmpeg tool of this machine prints."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([path, "-v", "error", *arguments], capture_output=True, check=True).stdout  # noqa: S603


def frame_times(path: Path) -> list[float]:
    entries = "frame=best_effort_timestamp_time"
    options = ("-select_streams", "v", "-show_entries", entries, "-of", "json")
    frames: list[dict[str, Any]] = json.loads(run("ffprobe", *options, str(path)))["frames"]
    return [float(frame["best_effort_timestamp_time"]) for frame in frames]


def sound_packets(path: Path) -> list[str]:
    """The checksum of each packet of sound."""
    printed = run("ffmpeg", "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "framemd5", "-")
    lines = printed.decode().splitlines()
    return [line.rpartition(",")[2].strip() for line in lines if not line.startswith("#")]


def samples(path: Path) -> npt.NDArray[np.float32]:
    """The sound from time 0 on, (n,)."""
    whole = ("-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(RATE_HZ))
    return np.frombuffer(run("ffmpeg", "-i", str(path), *whole, "-f", "f32le", "-"), np.float32)


def brightness(path: Path) -> list[int]:
    """The mean level of each picture."""
    shrunk = ("-vf", "scale=1:1:flags=area", "-pix_fmt", "gray", "-fps_mode", "passthrough")
    return list(run("ffmpeg", "-i", str(path), *shrunk, "-f", "rawvideo", "-"))


def flashing(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), 255 if index == FLASH else 30, np.uint8)


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Callable[[str], Path]:
    """Write a clip with a codec for its sound."""

    def make(codec: str) -> Path:
        sound = tone(2.0, RATE_HZ, channels=2)
        sound[:, : round(FLASH / RATE * RATE_HZ)] = 0
        kept = {"samples": sound, "codec": codec, "rate_hz": RATE_HZ}
        name = "clip.mp4" if codec == "aac" else "clip.mkv"
        return make_clip(name, picture=flashing, times_s=TIMES_S, sounds=[kept])

    return make


@pytest.mark.parametrize(("suffix", "codec"), COPIED)
def test_ffmpeg_reads_every_frame_at_its_time_and_the_sound_as_it_was(
    clip: Callable[[str], Path], job: Job, tmp_path: Path, suffix: str, codec: str
) -> None:
    source, out = clip(codec), tmp_path / f"out{suffix}"
    job(source, out)
    begin_s = frame_times(out)[0]
    found = [time_s - begin_s for time_s in frame_times(out)]
    assert found == pytest.approx(TIMES_S, abs=6e-4 if suffix in {".mkv", ".webm"} else 1e-5)
    before, after = sound_packets(source), sound_packets(out)
    # Matroska cannot mark AAC's first packet, which only prepares the decoder, so it is left out.
    primed = 1 if (suffix, codec) == (".mkv", "aac") else 0
    assert after == before[primed:]


@pytest.mark.parametrize(("suffix", "codec"), [*COPIED, (".mp4", "flac"), (".webm", "aac")])
def test_pictures_and_sound_are_less_than_a_frame_apart(
    clip: Callable[[str], Path], job: Job, tmp_path: Path, suffix: str, codec: str
) -> None:
    out = tmp_path / f"out{suffix}"
    job(clip(codec), out)
    levels = brightness(out)
    assert len(levels) == len(TIMES_S)
    flash_s = frame_times(out)[int(np.argmax(levels))]
    beep_s = int(np.argmax(np.abs(samples(out)) > 0.1)) / RATE_HZ
    assert abs(beep_s - flash_s) < 1 / RATE


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_opencv_reads_every_picture(
    clip: Callable[[str], Path], job: Job, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    job(clip("aac"), out)
    capture, levels = cv2.VideoCapture(str(out)), []
    while (read := capture.read())[0]:
        levels.append(float(read[1].mean()))
    assert len(levels) == len(TIMES_S)
    assert int(np.argmax(levels)) == FLASH
