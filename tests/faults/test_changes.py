"""The input or the output folder changes while a video is segmented."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.__main__ import main

Tone = Callable[..., npt.NDArray[np.float32]]
FORMATS = ["mp4", "masks"]


def noise(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture that cannot be compressed, so that a decoder reads the file in small pieces."""
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def clip(make_clip: Callable[..., Path], tone: Tone) -> Path:
    return make_clip(
        "in/clip.mkv",
        seconds=2,
        size=(96, 64),
        picture=noise,
        options={"preset": "ultrafast"},
        sounds=[{"samples": tone(2.0)}],
    )


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()


@contextmanager
def once_it_writes(folder: Path, change: Callable[[], Any]) -> Iterator[None]:
    """Call a function as soon as there is an unfinished output with content in a folder."""
    changed, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            with suppress(FileNotFoundError):  # such as the file that tests for write access
                if any(path.is_dir() or path.stat().st_size for path in folder.rglob("*.part")):
                    change()
                    changed.set()
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert changed.is_set()


class Run:
    """Runs `av2tsam segment`, and changes something as soon as it writes to the folder `out`."""

    def __init__(self, model: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model, self.out, self.capsys = model, out, capsys
        self.error = ""

    def __call__(self, clip: Path, kind: str, change: Callable[[], Any]) -> int:
        out = [str(self.out), "-f", kind] if kind == "masks" else [str(self.out / f"clip.{kind}")]
        words = ["--quiet", "--overwrite", "--device", "cpu", "--model", str(self.model)]
        with once_it_writes(self.out, change):
            code = main(["segment", str(clip), "-o", *out, *words])
        self.error = self.capsys.readouterr().err
        assert len(self.error.splitlines()) == (code != 0)
        return code


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tiny_model, tmp_path / "out", capsys)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_input_that_is_replaced_is_named_and_keeps_the_old_output(
    run: Run, clip: Path, tmp_path: Path, kind: str
) -> None:
    old = tmp_path / "out" / ("clip/000099.png" if kind == "masks" else f"clip.{kind}")
    old.parent.mkdir(parents=True)
    old.write_text("old")
    other = Path(shutil.copy(clip, tmp_path / "other.mkv"))
    assert run(clip, kind, lambda: other.replace(clip)) == 3
    assert "in/clip.mkv: changed while it was read; run again when it is complete" in run.error
    assert [path for path in run.out.rglob("*") if path.is_file()] == [old]
    assert old.read_text() == "old"


@pytest.mark.parametrize("kind", FORMATS)
def test_an_input_that_is_truncated_leaves_no_output(run: Run, clip: Path, kind: str) -> None:
    def truncate() -> None:
        with clip.open("r+b") as file:
            file.truncate(clip.stat().st_size // 3)

    assert run(clip, kind, truncate) == 3
    assert str(clip) in run.error
    assert not run.out.exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_an_input_that_is_deleted_gives_a_complete_output_or_none(
    run: Run, clip: Path, kind: str
) -> None:
    """Open files can be read to their end, except on Windows."""
    code = run(clip, kind, clip.unlink)
    if code == 0:
        assert len(list(run.out.rglob("*.png"))) == (50 if kind == "masks" else 0)
        assert [path.name for path in run.out.iterdir()] in (["clip"], [f"clip.{kind}"])
    else:
        assert code == 3
        assert f"{clip}: file not found" in run.error
        assert not run.out.exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_is_removed_ends_the_run_with_one_line(
    run: Run, clip: Path, kind: str
) -> None:
    def remove() -> None:
        # Renamed first, so that nothing new appears in it while it is removed.
        shutil.rmtree(run.out.rename(run.out.with_name("removed")))

    assert run(clip, kind, remove) == 1
    assert f"{run.out}/clip" in run.error
    assert "cannot be written (No such file or directory)" in run.error
    assert not run.out.exists()
