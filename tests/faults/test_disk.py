"""Results on a disk that is full or read-only, for real: small file systems in memory."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.__main__ import main

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
BLOCK = 4096
VIDEOS = ["mp4", "mov", "mkv", "webm"]


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory, or skip the test where only an administrator may do that."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system, on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Segment:
    """Runs `av2tsam segment` with the tiny model."""

    def __init__(self, model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model, self.clip, self.capsys = model, clip, capsys
        self.error = ""

    def __call__(self, folder: Path, kind: str, *words: str) -> int:
        out = [str(folder / f"clip.{kind}")] if kind in VIDEOS else [str(folder), "-f", kind]
        options = ["--quiet", "--device", "cpu", "--model", str(self.model), *words]
        code = main(["segment", str(self.clip), "-o", *out, *options])
        self.error = self.capsys.readouterr().err
        return code


@pytest.fixture
def segment(
    tiny_model: Path, make_clip: MakeClip, tone: Tone, capsys: pytest.CaptureFixture[str]
) -> Segment:
    clip = make_clip(rate=8, sounds=[{"samples": tone(1.0)}])
    return Segment(tiny_model, clip, capsys)


def blocks(folder: Path) -> int:
    """The blocks that the files in a folder take."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // BLOCK) for size in sizes)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "masks"])
def test_on_a_full_disk_the_old_result_stays_and_nothing_else(
    segment: Segment, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "enough").mkdir()
    assert segment(tmp_path / "enough", kind) == 0
    needed = blocks(tmp_path / "enough")
    for room in sorted({0, needed // 2, needed - 1}):
        # The old result takes one block.
        with small_disk(tmp_path / f"disk-{room}", f"size={(room + 1) * BLOCK}") as folder:
            name = f"clip.{kind}" if kind in VIDEOS else "clip/000099.png"
            old = folder / name
            old.parent.mkdir(exist_ok=True)
            old.write_text("old")
            assert segment(folder, kind, "--overwrite") in {1, 2}  # 2 before any work
            (line,) = segment.error.splitlines()
            assert "cannot be written (No space left on device); free disk space" in line
            assert [path for path in folder.rglob("*") if path.is_file()] == [old]
            assert old.read_text() == "old"


@pytest.mark.parametrize("kind", ["mp4", "masks"])
def test_a_read_only_disk_is_noticed_before_the_work(
    segment: Segment, tmp_path: Path, kind: str
) -> None:
    with small_disk(tmp_path / "disk", "ro") as folder:
        assert segment(folder, kind) == 2
        (line,) = segment.error.splitlines()
        assert f"{folder / 'clip'}" in line
        assert "(Read-only file system); use a file system that is not read-only" in line
