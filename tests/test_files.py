"""Files and folders appear complete or not at all, and errors of writing are one line."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from av2tsam_cli.errors import Av2tsamError, UsageError, WeightsError
from av2tsam_cli.files import (
    atomic_file,
    atomic_folder,
    check_writable,
    temporary_path,
    write_errors,
)

Atomic = Callable[..., AbstractContextManager[Path]]


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.txt"
    with atomic_file(target) as part:
        part.write_text("new")
        assert part.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_appears_when_the_block_ends_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a" / "folder"
    for name in ("first", "second"):
        with atomic_folder(target) as part:
            (part / name).touch()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("old")
    (tmp_path / "file").symlink_to(outside / "kept")
    (tmp_path / "folder").symlink_to(outside)
    with atomic_file(tmp_path / "file") as part:
        part.write_text("new")
    with atomic_folder(tmp_path / "folder") as part:
        (part / "file").touch()
    assert not (tmp_path / "file").is_symlink()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    assert [path.read_text() for path in outside.iterdir()] == ["old"]


def fill(atomic: Atomic, target: Path, error: BaseException | None = None) -> None:
    """Write a file, or a folder with one file in it, and fail before the end if told to."""
    with atomic(target) as part:
        (part / "new" if atomic is atomic_folder else part).write_text("new")
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError("no")])
@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, atomic: Atomic, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        fill(atomic, tmp_path / "a" / "b" / "c", error)
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_old_file_and_folder(tmp_path: Path) -> None:
    for atomic, name in ((atomic_file, "file"), (atomic_folder, "folder")):
        fill(atomic, tmp_path / name)
        with pytest.raises(ValueError, match="no"):
            fill(atomic, tmp_path / name, ValueError("no"))
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "folder" / "new").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_only_parent_folders_that_are_empty_are_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_file(tmp_path / "a" / "b" / "file"):
            (tmp_path / "a" / "other").touch()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "other"]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_nothing_is_replaced_unless_allowed(tmp_path: Path, atomic: Atomic) -> None:
    target = tmp_path / "target"

    def meanwhile() -> None:
        with atomic(target, overwrite=False):
            target.write_text("another")

    with pytest.raises(Av2tsamError, match="created by another program in the meantime"):
        meanwhile()
    assert target.read_text() == "another"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free disk space, or "),
        (errno.EDQUOT, "free space in your disk quota, or "),
        (errno.EFBIG, "larger files, or "),
        (errno.EACCES, "check the folder's permissions, or "),
        (errno.EIO, "check the folder and its permissions, or "),
    ],
)
def test_an_error_of_writing_is_one_line_with_a_fix(number: int, fix: str) -> None:
    reason = os.strerror(number)
    with (
        pytest.raises(WeightsError, match=fix) as failed,
        write_errors(Path("a/b"), raises=WeightsError, hint="or choose another `cache` folder"),
    ):
        raise OSError(number, reason)
    assert str(failed.value).startswith(f"a/b: cannot be written ({reason}); ")
    assert str(failed.value).endswith("or choose another `cache` folder")


def test_other_errors_are_converted_on_request_and_numbers_found_in_their_text() -> None:
    with pytest.raises(ValueError, match="no"), write_errors(Path("a")):
        raise ValueError("no")
    with (
        pytest.raises(Av2tsamError, match="free disk space"),
        write_errors(Path("a"), catch=(ValueError,)),
    ):
        raise ValueError("I/O error: No space left on device (os error 28)")


def test_whether_a_path_is_writable_is_found_out_without_a_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "file")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/x: cannot be written"):
        check_writable(tmp_path / "file" / "x")


def test_an_interruption_while_a_path_is_tried_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch

    def touch_and_interrupt(path: Path) -> None:
        touch(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", touch_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        check_writable(tmp_path / "new" / "file")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_create_and_remove_the_same_folders_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    deep = tmp_path / "a" / "b"

    def work(number: int) -> None:
        for _ in range(50):
            check_writable(deep / f"{number}")
            with suppress(RuntimeError), atomic_file(deep / f"{number}"):
                raise RuntimeError("a failure removes the folders")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="knows dead processes on Linux")
def test_the_next_run_removes_only_the_parts_of_dead_processes(tmp_path: Path) -> None:
    write_and_die = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from av2tsam_cli.files import atomic_file, atomic_folder\n"
        "target = Path(sys.argv[1], 'target')\n"
        "with atomic_folder(target) as d, atomic_file(target) as f:\n"
        "    (d / 'a').touch(), f.touch(), os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", write_and_die, str(tmp_path)]
    process = subprocess.Popen(command)  # noqa: S603 - our own interpreter and code
    # It has ended, but keeps its number for now.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    dead = list(tmp_path.glob(".av2tsam-*.part"))
    assert len(dead) == 2
    _, host, space, pid, number = dead[0].name.split("-")
    other = "e" * 8
    of_another_computer = tmp_path / f".av2tsam-{other}-{space}-{pid}-{number}"
    of_another_container = tmp_path / f".av2tsam-{host}-{other}-{pid}-{number}"
    of_an_earlier_start = tmp_path / f".av2tsam-{host}-{other}-{os.getpid()}-{number}"
    kept = [temporary_path(tmp_path / "x"), of_another_computer, of_another_container]
    for path in (*kept, of_an_earlier_start):
        path.touch()
    for path in (of_another_computer, of_an_earlier_start):  # since long before the last start
        os.utime(path, (1e9, 1e9))
    fill(atomic_file, tmp_path / "file")
    process.wait()
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "file"])
