"""Results on a full or read-only disk, with small file systems in memory."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli import stores
from av2tsam_cli.__main__ import main

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
BLOCK = 4096
VIDEOS = ["mp4", "mov", "mkv", "webm"]


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory, or skip the test if this needs an administrator."""
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
    """The number of disk blocks that the files in a folder occupy."""
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


class Web(BaseHTTPRequestHandler):
    """Sends a large file, perhaps with a wrong or no size in the headers."""

    sends, promises = 1 << 17, 0
    seen = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.promises:
            self.send_header("Content-Length", str(self.promises))
        self.end_headers()

    def do_GET(self) -> None:
        Web.seen += 1
        self.do_HEAD()
        self.wfile.write(bytes(self.sends))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a video on a web server."""
    monkeypatch.setattr(stores, "WAITS_S", (0.0,))
    monkeypatch.setattr(Web, "promises", 0)
    monkeypatch.setattr(Web, "seen", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as http:
        threading.Thread(target=http.serve_forever, args=[0.01]).start()
        yield f"http://127.0.0.1:{http.server_port}/a.mp4"
        http.shutdown()


def test_a_disk_without_room_for_a_copy(
    segment: Segment, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for promises, reason in ((1 << 17, "0.1 MB needed, 0.1 MB free"), (0, "No space left")):
        monkeypatch.setattr(Web, "promises", promises)
        with small_disk(tmp_path / f"disk-{promises}", f"size={16 * BLOCK}") as disk:
            code = main(["segment", web, "-o", str(tmp_path / "a.mp4"), "--staging", str(disk)])
            (line,) = segment.capsys.readouterr().err.splitlines()
            assert code == 1
            assert f"{web}: not enough space for a copy in {disk} ({reason}" in line
            assert "free disk space, or set --staging to another folder" in line
            assert list(disk.iterdir()) == []
        assert bool(Web.seen) == (promises == 0)


def test_a_disk_without_room_for_an_output_that_is_to_be_uploaded(
    segment: Segment, tmp_path: Path, store: "ObjectStore"
) -> None:
    url = store.put("a.mp4", segment.clip)
    size = -(-segment.clip.stat().st_size // BLOCK) * BLOCK
    with small_disk(tmp_path / "disk", f"size={size + BLOCK}") as disk:
        words = ["-o", "s3://bucket/out", "-f", "masks", "--model", str(segment.model)]
        code = main(["segment", url, *words, "--quiet", "--staging", str(disk)])
        (line,) = segment.capsys.readouterr().err.splitlines()
        assert code == 1
        assert "s3://bucket/out/a: cannot be written (No space left on device)" in line
        assert "free disk space, or set --staging to another folder" in line
        assert (list(disk.iterdir()), store.keys) == ([], ["a.mp4"])


def test_a_truncated_copy_is_not_processed(
    segment: Segment, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Web, "promises", 1 << 18)
    code = main(["segment", web, "-o", str(tmp_path / "a.mp4"), "--staging", str(tmp_path)])
    (line,) = segment.capsys.readouterr().err.splitlines()
    assert (code, Web.seen) == (1, 2)
    assert f"{web}: the connection failed (" in line
